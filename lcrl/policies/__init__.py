"""The model that acts: one decoder for the Llama, Mistral, Qwen and SmolLM families."""

from lcrl.policies.config import Config, Rope, tiny
from lcrl.policies.transformer import Policy, make

__all__ = ["Config", "Policy", "Rope", "make", "tiny"]

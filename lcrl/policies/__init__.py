"""The model that acts: one decoder for the Llama, Mistral, Qwen and SmolLM families."""

from lcrl.policies.config import Config, Rope, tiny
from lcrl.policies.gguf_write import save_gguf
from lcrl.policies.hf import load, save
from lcrl.policies.transformer import Policy, make
from lcrl.policies.vocabulary import Tokenizer, tokenizer

__all__ = [
  "Config",
  "Policy",
  "Rope",
  "Tokenizer",
  "load",
  "make",
  "save",
  "save_gguf",
  "tiny",
  "tokenizer",
]

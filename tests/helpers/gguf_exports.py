"""Models of the fixtures' families for the tokenizers of the fixtures, exported as GGUF files."""

import dataclasses
from pathlib import Path

import jax

from lcrl import policies
from lcrl.policies.config import NO_ROPE, Rope

FIXTURES = Path(__file__).parents[1] / "fixtures"
CHAT = FIXTURES / "chats" / "chatml"
ROWS = 320  # embeddings; the tokenizers have 300 tokens
LLAMA_31 = Rope(500_000.0, "llama3", 8.0, 8192)
MODELS = {  # name -> the fixture's folder, and what llama.cpp needs otherwise
  "llama2": ("llama2", {}),
  "llama 3.1": ("llama3", {"rope": LLAMA_31}),
  "llama_linear": ("llama_linear", {}),
  "smollm2": ("smollm2", {}),
  "mistral": ("mistral", {"windows": None}),
  "qwen2": ("qwen2", {}),
  "qwen3": ("qwen3", {}),
  "smollm3": ("smollm3", {"layers": 4, "ropes": (Rope(2e6),) * 3 + (NO_ROPE,)}),
}


def random_model(name, **differs):
  """(policy, params) of the folder's config but for its vocabulary; no norm or bias is neutral."""
  folder, own = MODELS.get(name, (name, {}))
  config = policies.load(FIXTURES / "models" / folder)[0].config
  policy = policies.make(
    dataclasses.replace(config, **{"vocab_size": ROWS, "max_length": 256, **own, **differs})
  )
  params = policy.init(jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  moved = [x + 0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
  return policy, jax.tree.unflatten(tree, moved)

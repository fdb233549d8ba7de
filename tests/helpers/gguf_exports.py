"""Models and tokenizers that are exported as GGUF files, from those of the fixtures."""

import dataclasses
import json
from pathlib import Path

import jax
import tokenizers

from lcrl import policies
from lcrl.policies.config import NO_ROPE, Rope
from lcrl.policies.gguf_tokenizer import byte_level

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

TEXTS = (
  "What is 12 + 30?",
  " two  spaces, 12345 digits\n\n\tand tabs\r\n",
  "don't I'LL — naïve ö 日本語 🙂\u200d",
  "<|im_start|>user\nHi<|im_end|><think>",
)


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


def changed_tokenizer(change=lambda core: core, **settings):
  """The tokenizer of CHAT, changed."""
  old = policies.tokenizer(CHAT)
  core = change(tokenizers.Tokenizer.from_str(old.core.to_str()))
  settings = {**old.settings, **settings}
  ends = settings.pop("end_ids", old.end_ids)
  return dataclasses.replace(old, core=core, settings=settings, end_ids=ends)


def cut_as(pre):
  """A change to the way to cut texts that `pre` names."""

  def change(core):
    raw = json.loads(core.to_str())["model"]
    new = byte_level(pre, raw["vocab"], [tuple(merge) for merge in raw["merges"]])
    new.add_special_tokens([x.content for x in core.get_added_tokens_decoder().values()])
    return new

  return change

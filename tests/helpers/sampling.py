"""Rows, budgets and an engine of a small sampler."""

import numpy as np

from lcrl.data.rows import Rows
from lcrl.sampling.engine import make_engine
from lcrl.types import Budget

B, G, LIMIT, V, PAD, END = 8, 2, 20, 16, 15, (1,)


def make_rows(longest=6, seed=0):
  rng = np.random.default_rng(seed)
  lengths = np.repeat(rng.integers(1, longest + 1, (B, 1)), G, axis=1).astype(np.int32)
  lengths[0] = longest
  tokens = np.repeat(rng.integers(2, V, (B, 1, LIMIT)), G, axis=1).astype(np.int32)
  tokens = np.where(np.arange(LIMIT) < lengths[..., None], tokens, PAD)
  index = np.arange(B, dtype=np.int32)
  return Rows(tokens, lengths, np.zeros((B, G), np.int32), index, index + 100, index % 3)


def make_budget(cap=8):
  caps = np.broadcast_to(np.int32(cap), (B, G))
  return Budget(target=caps, cap=caps, level=caps * 0)


def engine_of(policy, **options):
  return make_engine(policy, **({"max_tokens": 24, "end_ids": END, "pad_id": PAD} | options))

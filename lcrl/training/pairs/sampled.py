"""Samples the policy's answers to prompts of the data: training may change their length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lcrl.data.rows import Rows, token_rows
from lcrl.data.sources import Encoded
from lcrl.mesh import local_rows, replicated, round_up_rows, to_global, to_local
from lcrl.training.build import build_engine, eval_temperature
from lcrl.training.keys import EVAL_STREAM, step_key
from lcrl.training.pairs.learner import PairLearner
from lcrl.types import Budget

PyTree = Any


class Answers(NamedTuple):
  lengths: np.ndarray  # [N, samples] int
  truncated: np.ndarray  # [N, samples] bool
  texts: list[tuple[str, str]]  # prompt and first answer of some prompts of this process


def make_sampler(
  model: PairLearner, tokenizer: Any, encoded: Sequence[Encoded]
) -> Callable[[PyTree], Answers]:
  """params of the policy -> its answers to the prompts of `encoded`, always with the same keys."""
  s, mesh = model.settings, model.sampler_mesh
  limit, batch = s.train.max_prompt_tokens, round_up_rows(mesh, s.train.prompts)
  prompts = [pair.prompt for pair in encoded if len(pair.prompt) <= limit][: s.eval.prompts]
  if not prompts:
    raise ValueError(f"no prompt is as short as train.max_prompt_tokens={limit}.")
  engine = build_engine(model, mesh, tokenizer, temperature=eval_temperature(s))
  gather = jax.jit(lambda x: x, out_shardings=replicated(mesh))
  key = step_key(s.seed, EVAL_STREAM)
  local = local_rows(mesh, batch)

  def rows(start: int) -> Rows:
    index = np.arange(start, start + batch, dtype=np.int32)[local]
    chosen = [prompts[i % len(prompts)] for i in index.tolist()]
    return token_rows(chosen, index, samples=s.eval.samples, limit=limit, pad=tokenizer.pad_id)

  def sample(params: PyTree) -> Answers:
    lengths, truncated = [], []
    texts: list[tuple[str, str]] = []
    for start in range(0, len(prompts), batch):
      batch_rows = rows(start)
      full: Any = np.full(batch_rows.lengths.shape, s.train.max_tokens, np.int32)
      budget = Budget(full, full, np.zeros_like(full))
      rollouts = engine.generate(params, to_global(mesh, batch_rows), to_global(mesh, budget), key)
      whole = gather({"lengths": rollouts.lengths, "truncated": rollouts.truncated})
      lengths.append(np.asarray(whole["lengths"]))
      truncated.append(np.asarray(whole["truncated"]))
      if len(texts) < s.log.samples:
        r = jax.tree.map(to_local, rollouts)
        counts = r.written.sum(-1)
        for row, p, n in zip(r.tokens[:, 0], batch_rows.lengths[:, 0], counts[:, 0], strict=True):
          texts.append(
            (tokenizer.decode(row[:p].tolist()), tokenizer.decode(row[p : p + n].tolist()))
          )
    every = [np.concatenate(x)[: len(prompts)] for x in (lengths, truncated)]
    return Answers(every[0], every[1], texts[: s.log.samples])

  return sample

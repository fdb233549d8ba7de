"""A model as a function from conversations to texts, without a task, a verifier or a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lcrl import policies
from lcrl.data.rows import Rows, token_rows
from lcrl.mesh import local_rows, make_mesh, param_shardings, round_up_rows, sampler_mesh, to_local
from lcrl.policies.hf import pretrained
from lcrl.protocols import Tokenizer
from lcrl.sampling.engine import Engine, make_engine
from lcrl.tasks.task import Messages
from lcrl.types import Budget, PyTree

Write = Callable[[Sequence[Messages]], list[str]]  # conversations -> one answer to each


def open_writer(
  path: str | os.PathLike,
  *,
  max_tokens: int,
  max_prompt_tokens: int,
  temperature: float = 0.0,
  batch: int = 16,
  seed: int = 0,
) -> Write:
  """The model of a Hugging Face folder or a GGUF file, on all devices, with its own chat template.

  Args:
    path: of the model.
    max_tokens: of an answer.
    max_prompt_tokens: of a conversation; a longer one is a ValueError.
    temperature: 0 takes the most likely token.
    batch: conversations that are answered at a time.
    seed: of the random numbers; each conversation has its own.
  """
  source, tokenizer = pretrained(path, dtype="bfloat16"), policies.tokenizer(path)
  mesh = make_mesh(data=1, fsdp=-1)
  shapes = jax.eval_shape(source.policy.init, jax.random.key(0))
  params = source.params(None, param_shardings(mesh, source.policy.axes, shapes))
  engine = make_engine(
    source.policy,
    max_tokens=max_tokens,
    end_ids=tuple(tokenizer.end_ids),
    pad_id=tokenizer.pad_id,
    temperature=temperature,
    mesh=sampler_mesh(mesh, 0),
  )
  return writer(engine, params, tokenizer, limit=max_prompt_tokens, batch=batch, seed=seed)


def writer(
  engine: Engine,
  params: PyTree,
  tokenizer: Tokenizer,
  *,
  limit: int,
  batch: int = 16,
  seed: int = 0,
) -> Write:
  """The answers of a policy with these parameters; the arguments are those of `open_writer`."""
  mesh: Any = engine.mesh
  batch = batch if mesh is None else round_up_rows(mesh, batch)

  def write(conversations: Sequence[Messages]) -> list[str]:
    prompts = [tokenizer.encode(tokenizer.render(messages)) for messages in conversations]
    for number, prompt in enumerate(prompts):
      if not 0 < len(prompt) <= limit:
        raise ValueError(f"conversation {number} has {len(prompt)} tokens; the limit is {limit}.")
    texts: list[str] = []
    for start in range(0, len(prompts), batch):
      own = prompts[start : start + batch]
      rows = _rows(own, start, batch, limit, tokenizer.pad_id, mesh)
      full: Any = np.full(rows.lengths.shape, engine.max_tokens, np.int32)
      budget = Budget(full, full, np.zeros_like(full))
      answers = engine.generate(params, rows, budget, jax.random.key(seed))
      tokens, mask = to_local(answers.tokens)[:, 0], to_local(answers.mask)[:, 0]
      for row, said in zip(tokens[: len(own)], mask, strict=False):
        ids = [i for i in row[said].tolist() if i not in tokenizer.end_ids]
        texts.append(tokenizer.decode(ids))
    return texts

  return write


def _rows(
  prompts: Sequence[Sequence[int]], start: int, batch: int, limit: int, pad: int, mesh: Mesh | None
) -> Rows:
  """`batch` rows, of which those behind the prompts repeat the last one."""
  index = np.arange(start, start + batch, dtype=np.int32)
  index = index if mesh is None else index[local_rows(mesh, batch)]
  chosen = [prompts[min(i - start, len(prompts) - 1)] for i in index.tolist()]
  return token_rows(chosen, index, samples=1, limit=limit, pad=pad)

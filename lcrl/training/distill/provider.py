"""Scores what the policy sampled with the teachers of a run, each rollout with its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import policies, recipes
from lcrl.data.choosing import rows
from lcrl.losses.distillation import TEACHER
from lcrl.mesh import batch_sharding, param_shardings, replicated
from lcrl.policies.hf import Source
from lcrl.registry import build, placed
from lcrl.tasks.task import Prompts
from lcrl.training.build import build_tokenizer
from lcrl.training.checkpoint import CheckpointError
from lcrl.training.distill import teachers
from lcrl.training.distill.table import Table, table_of
from lcrl.training.remote import opened, origin
from lcrl.training.reward_model.learned import alike
from lcrl.training.rl.learner import Learner, make_measure, other_policy
from lcrl.training.rl.pipeline import Provider
from lcrl.types import Rollouts, Stage

HELD = {"dtype": "bfloat16", "param_dtype": "bfloat16"}


def provider(learner: Learner, tokenizer: Any, prompts: Prompts) -> list[Provider]:
  """The log-probs of the teachers as a signal; none without a section `teachers`.

  Raises:
    ValueError: a level of the budget or a value of `teachers.field` has no teacher, or a teacher
      has another vocabulary than the policy; the message names the field.
  """
  if learner.settings.teachers is None:
    return []
  table, mesh = table_of(learner.settings.teachers), learner.mesh
  for budget in recipes.in_force(learner.settings.slots, "budget").values():
    check_levels(table, budget)
  values = values_of(table, learner.settings.teachers.field, prompts)
  by_rows, whole = batch_sharding(mesh), replicated(mesh)
  choose = jax.jit(partial(chosen, table, values), out_shardings=(by_rows, whole))
  own = lambda which, i: (which == i)[..., None]
  take = jax.jit(lambda which, i, mask: mask & own(which, i), out_shardings=by_rows)
  put = jax.jit(lambda which, i, *x: jnp.where(own(which, i), *x), out_shardings=by_rows)
  measures: dict[policies.Config, Any] = {}  # teachers of one architecture share their programs
  scorers = []
  for i, (spec, place) in enumerate(zip(table.models, table.places, strict=True)):
    source = load(spec, place, tokenizer, learner.policy.config.vocab_size)
    policy = other_policy(learner.settings, source.policy, mesh)
    if policy.config not in measures:
      measures[policy.config] = make_measure(learner.settings, policy, mesh)
    with placed(place, CheckpointError):
      scorers.append((measures[policy.config], parameters(source, learner, i)))

  def read(_: Any, rollouts: Rollouts) -> dict[str, jax.Array]:
    which, counts = choose(rollouts)
    *counts, without = np.asarray(counts).tolist()
    if without:
      raise ValueError(
        f"the budget gave {without} rollouts a level without a teacher: teachers.models has "
        f"{table.levels} levels."
      )
    found = jnp.zeros(rollouts.mask.shape, jnp.float32, device=by_rows)
    for i in np.flatnonzero(counts).tolist():
      measure, params = scorers[i]
      # Packed rows leave out what is masked: together the teachers read the batch once.
      mask = take(which, i, rollouts.mask)
      masked = dataclasses.replace(rollouts, mask=mask, signals={})
      found = put(which, i, measure(params, masked).log_probs, found)
    return {TEACHER: found}

  return [Provider((TEACHER,), read)]


def chosen(table: Table, values: np.ndarray, r: Rollouts) -> tuple[jax.Array, jax.Array]:
  """The model of each rollout, [B, G]; and how many rollouts each model has, with those without one
  at the end, [models + 1]."""
  level = r.budget.level if table.levels > 1 else jnp.zeros_like(r.budget.level)
  known, count = (level >= 0) & (level < table.levels), len(table.models)
  value = jnp.asarray(values)[r.prompt_ids][:, None] if table.values else 0
  index = jnp.asarray(table.chosen)[value, jnp.clip(level, 0, table.levels - 1)]
  which = jnp.where(known, index, count)
  valid = r.valid.reshape(-1).astype(jnp.int32)
  return which, jnp.bincount(which.reshape(-1), valid, length=count + 1)


def check_levels(table: Table, budget: Stage) -> None:
  """Raises ValueError if the levels of the budget are known and have not one teacher each."""
  if table.levels > 1 and budget.levels and table.levels != budget.levels:
    raise ValueError(
      f"the budget has {budget.levels} levels and teachers.models {table.levels}: name one model "
      "for each level, or one for all."
    )


def values_of(table: Table, field: str | None, prompts: Prompts) -> np.ndarray:
  """[rows of the data set] int32, the index in `table.values` of what the field of a row says.

  Raises:
    ValueError: a row has no such field, or a value that no teacher has.
  """
  found = np.zeros(rows(prompts), np.int32)
  if field is None:
    return found
  at = {value: i for i, value in enumerate(table.values)}
  for i in range(len(prompts)):
    prompt = prompts[i]
    value = (prompt.row or {}).get(field)
    if str(value) not in at:
      raise ValueError(
        f"teachers.models has no model for {field}={value!r} of prompt {prompt.id}: it has "
        f"{', '.join(table.values)}."
      )
    found[prompt.id] = at[str(value)]
  return found


def load(model: str | Mapping[str, Any], place: str, tokenizer: Any, vocab_size: int) -> Source:
  """The model that an entry of `teachers.models` names, without its parameters.

  Raises:
    ValueError: there is none, or its vocabulary is another one.
  """
  spec: Mapping[str, Any]
  if isinstance(model, str):
    is_run = origin(opened(model).expanduser() / "checkpoints").is_dir()  # which no copy has
    spec = {"fn": "run" if is_run else "pretrained", "path": model}
  else:
    spec = model
  if spec["fn"] in ("pretrained", "between"):
    spec = {**HELD, **spec}
  source = build(teachers, spec, field=place, gives=Source)
  if (other := tokenizer_of(spec)) is not None:
    same = alike(other, tokenizer)
  else:
    same = source.policy.config.vocab_size == vocab_size
  if not same:
    raise ValueError(f"{place}: {spec.get('path', spec['fn'])} has another vocabulary.")
  return source


def tokenizer_of(spec: Mapping[str, Any]) -> Any:
  """The tokenizer of a teacher; None if it has none, as a model with random parameters."""
  if spec["fn"] == "run":
    return build_tokenizer(teachers.kind_and_settings(spec["path"])[1])
  if "path" not in spec:
    return None
  try:
    return policies.tokenizer(spec["path"])
  except FileNotFoundError:
    return None


def parameters(source: Source, learner: Learner, i: int) -> Any:
  """Those of the i-th teacher in bfloat16, split over the devices of the run."""
  shapes = jax.eval_shape(source.policy.init, jax.random.key(0))
  split = param_shardings(learner.mesh, source.policy.axes, shapes)
  key = jax.random.fold_in(jax.random.key(learner.settings.seed), i + 1)  # of random parameters
  params = source.params(key, split)
  if all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(params)):
    return params
  narrow = partial(jax.tree.map, lambda x: x.astype(jnp.bfloat16))
  return jax.jit(narrow, out_shardings=split)(params)

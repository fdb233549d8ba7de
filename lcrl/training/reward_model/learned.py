"""A trained reward model as a signal: the config section `learned` of a run that samples.

  c.learned = dict(conciseness=dict(path="runs/conciseness"))    the folder of its run

Each rollout then has signals["conciseness"], its reward under the newest checkpoint. `untrained=3`
in place of a path is a random head, from this seed, on a random body of the policy's shape: smoke
runs, which must find no file, are paid by it. `rules=...` is the share of rules that a model judges
to be kept (`judge`), and `policy="models/..."` are the log-probs of another policy's folder, of the
same vocabulary, [B, G, T].
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax

from lcrl import policies
from lcrl.mesh import batch_sharding, batch_shards, param_shardings
from lcrl.policies import Tokenizer
from lcrl.policies.hf import Source, pretrained
from lcrl.registry import placed
from lcrl.training.build import build_tokenizer
from lcrl.training.checkpoint import CheckpointError, Checkpoints
from lcrl.training.remote import opened, origin
from lcrl.training.reward_model import head, judge, run, settings
from lcrl.training.rl.pipeline import Provider
from lcrl.training.scorer import make_scorer
from lcrl.training.sections import Seed
from lcrl.training.step import score_all
from lcrl.training.workdir import read_config
from lcrl.values import check

FORMS = ({"path"}, {"untrained"}, {"rules"}, {"rules", "judge"}, {"policy"})  # of one model
PREFERENCE = "preference"  # the signal of a preference model's embeddings


def providers(
  learned: Mapping[str, Mapping[str, Any]], model: Any, tokenizer: Any, needs: Collection[str]
) -> list[Provider]:
  """The signals of the section `learned`, for rollouts of `model`'s policy.

  Raises:
    ValueError: no stage `needs` a signal, a path holds no trained reward model, or the reward model
      has another vocabulary; the message names the field.
  """
  models = []
  for name, spec in learned.items():
    if spec.keys() not in FORMS:
      raise ValueError(
        f"learned.{name} takes a path alone, or untrained, policy, or rules with a judge, "
        f"got {sorted(spec)}."
      )
    if name not in needs:
      raise ValueError(f"nothing reads learned.{name}: the stages need {sorted(needs)}.")
    if "untrained" in spec:
      models.append(untrained(name, check(spec["untrained"], Seed, f"learned.{name}"), model))
      continue
    if "policy" in spec:
      models.append(log_probs_of(name, spec["policy"], model, tokenizer))
      continue
    if "rules" in spec:
      pieces = micro_batches(model.settings.train, batch_shards(model.mesh))
      models.append(judge.provider(name, spec, model, tokenizer, pieces))
      continue
    with placed(f"learned.{name}.path", CheckpointError):
      models.append(provider(name, opened(spec["path"]).expanduser(), model, tokenizer))
  return models


def provider(name: str, workdir: pathlib.Path, model: Any, tokenizer: Any) -> Provider:
  """The reward model of a run folder, with the mesh, micro-batches and packing of `model`."""
  config = read_config(workdir)
  if config.get("run") != "reward_model":
    raise ValueError(
      f"{origin(workdir)} holds a run of {config.get('run', 'rl')!r}, no reward model."
    )
  ours, its = model.settings, settings.read(config)
  if (settings.form_of(its) is None) == (name == PREFERENCE):
    kind = "a reward model of single answers" if name == PREFERENCE else "a preference model"
    raise ValueError(
      f"{origin(workdir)} holds {kind}; the stage `preferred` reads a preference model as "
      f"learned.{PREFERENCE}, and all other names are of reward models."
    )
  if not alike(build_tokenizer(its), tokenizer):
    raise ValueError(
      f"the reward model in {origin(workdir)} has another vocabulary than the policy."
    )
  pieces = micro_batches(ours.train, batch_shards(model.mesh))
  train = dataclasses.replace(its.train, pack=ours.train.pack, micro_batches=pieces)
  scorer = run.build_learner(dataclasses.replace(its, mesh=ours.mesh, train=train))
  checkpoints = Checkpoints(workdir / "checkpoints")
  try:
    restored = checkpoints.restore(scorer.abstract)
  finally:
    checkpoints.close()
  if restored is None:
    raise ValueError(f"{origin(workdir)} holds no checkpoint.")
  params = scorer.policy_params(restored[1].params)
  return Provider((name,), lambda _, rollouts: {name: scorer.score(params, rollouts)})


def untrained(name: str, seed: int, model: Any) -> Provider:
  """A body of the policy's shape with a head, both random."""
  form = head.Embedding() if name == PREFERENCE else None
  plain = Source(model.policy, lambda *_: None, model.policy.init)
  policy = head.with_head(plain, form).policy
  score = jax.jit(head.make_scorer(policy, mesh=model.mesh, form=form))
  key, noise = jax.random.split(jax.random.key(seed))
  params = jax.jit(policy.init)(key)
  kernel = params[head.HEAD]["kernel"]
  params[head.HEAD]["kernel"] = jax.random.normal(noise, kernel.shape)
  return Provider((name,), lambda _, rollouts: {name: score(params, rollouts)})


def log_probs_of(name: str, path: str, model: Any, tokenizer: Any) -> Provider:
  """The log-probs that the model of a folder or GGUF file gives to the tokens of answers."""
  with placed(f"learned.{name}.policy", OSError):
    source, other = pretrained(path, dtype="bfloat16"), policies.tokenizer(path)
  if not alike(other, tokenizer):
    raise ValueError(f"learned.{name}.policy={path!r} has another vocabulary than the policy.")
  mesh, policy = model.mesh, source.policy
  shapes = jax.eval_shape(policy.init, jax.random.key(0))
  params = source.params(None, param_shardings(mesh, policy.axes, shapes))
  score, pieces = (
    make_scorer(policy, mesh=mesh),
    micro_batches(model.settings.train, batch_shards(mesh)),
  )
  run = jax.jit(
    lambda params, rows: score_all(score, params, rows, pieces=pieces).log_probs,
    out_shardings=batch_sharding(mesh),
  )
  return Provider((name,), lambda _, rollouts: {name: run(params, rollouts)})


def micro_batches(train: Any, shards: int) -> int:
  """The micro-batches of a run; with train.micro_tokens, the fewest that hold no more of a batch
  than it on a device, or of one group each.

  >>> from lcrl.training.rl.settings import Train
  >>> train = Train(1, prompts=12, group_size=2, max_tokens=24, max_prompt_tokens=8, pack=32)
  >>> micro_batches(dataclasses.replace(train, micro_tokens=128), shards=2)  # of two groups
  3
  """
  if getattr(train, "micro_tokens", None) is None:  # runs on pairs have no such field
    return train.micro_batches
  groups = train.prompts // shards
  most = train.micro_tokens // (train.group_size * (train.max_prompt_tokens + train.max_tokens))
  return next(n for n in range(1, groups + 1) if groups % n == 0 and groups // n <= max(1, most))


def alike(a: Any, b: Any) -> bool:
  """True if two tokenizers give every token the same id."""
  if isinstance(a, Tokenizer) and isinstance(b, Tokenizer):
    return a.core.get_vocab() == b.core.get_vocab()
  return a == b

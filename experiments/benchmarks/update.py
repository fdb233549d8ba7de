"""One update, on made-up rollouts: time, tokens a second, share of the peak, memory.

python -m experiments.benchmarks.update --peer=tunix             # 64 x 8 rollouts of 96 + 96 tokens
python -m experiments.benchmarks.update --shape=qwen2.5-0.5b --prompts=4 --asked=96 --limit=4000 \
    --runs=dots/cudnn/4/0/unroll,dots/triton/4/8192/scan

A run is written as `shapes.Update` says and gives a JSON line; the peer does the same work first,
in a process of its own. `peak_gib` is the most that a process had in use so far.

MFU is the fraction of its floor: flops that must be, at the device's peak. These are 6 N a token (N
weights in matrices, the head once) and 6 L^2 heads head_dim a layer for the causal attention of a
sequence of L tokens; nothing for what is computed again, nor for a prompt of a group after the
first time where rows share it. `mfu_full_attention` counts attention as if it were not causal, 12 L
heads head_dim a token and layer, as is common.
"""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks import peers, shapes
from experiments.benchmarks.profiles import profile
from experiments.benchmarks.shapes import Work
from lcrl.policies import Config
from lcrl.training.analysis.roofline import CHIPS, all_weights
from lcrl.training.packing import used_lengths
from lcrl.training.rl.learner import Learner, build_learner
from lcrl.training.rl.settings import read
from lcrl.types import Batch, Budget, Rollouts

FLAGS = flags.FLAGS


def main(argv):
  del argv
  work = shapes.asked_work(FLAGS.heavy)
  fewer = {"layers": FLAGS.layers} if FLAGS.layers else {}
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype, **fewer)
  peer = peers.ask("update")
  common = shapes.machine() | {"shape": FLAGS.shape, **work._asdict(), "entropy": FLAGS.entropy}
  if peer and "seconds" in peer:
    peer |= of_peak(c, work, 0, peer["seconds"])
  for run in FLAGS.runs:
    try:
      result = measure(run, work, c)
      result["times_less"] = peers.ratios(peer, result, ("seconds", "first_s", "peak_gib"))
    except (RuntimeError, ValueError) as error:  # out of memory, or refused, is a result
      result = shapes.failure(error)
    print(json.dumps({**common, "run": run, **result, "peer": peer}), flush=True)
    jax.clear_caches()


def measure(run: str, work: Work, c: Config, mesh: dict[str, int] | None = None) -> dict[str, Any]:
  model = model_of(run, work, c, entropy=FLAGS.entropy, mesh=mesh)
  batch = made_up(work, model.policy.config.vocab_size)
  lengths = np.asarray(used_lengths(batch.rollouts.mask))
  state, first = model.initial(), dict[str, Any]()

  def step():
    nonlocal state, first
    state, metrics = model.update(state, batch)
    first = first or {name: metrics[name].total for name in ("loss", "grad_norm")}
    return state

  result = shapes.timed(step, FLAGS.repeats, warm=2)
  result |= {"tokens_per_s": lengths.sum() / result["seconds"]}
  result |= {name: float(value) for name, value in first.items()}
  shared = work.asked if shapes.Update.of(run).shares else 0
  result |= of_peak(c, work, shared, result["seconds"] * model.mesh.size)
  result["peak_gib"] = shapes.peak_gib()
  if FLAGS.profile:
    result |= {"profile": profile(lambda: model.update(state, batch)[1], top=40)}
  return result


def of_peak(c: Config, work: Work, shared: int, seconds: float) -> dict[str, float]:
  """Both MFUs, of the seconds of all devices; empty where a device's peak is not known."""
  if not (chip := CHIPS.get(jax.devices()[0].device_kind)):
    return {}
  names = {"mfu": 1, "mfu_full_attention": 2}
  share = lambda times: flops(c, work, shared, times) / seconds / chip.flops
  return {name: share(times) for name, times in names.items()}


def flops(c: Config, work: Work, shared: int = 0, attention: int = 1) -> float:
  """What an update takes at least, with `shared` tokens of a group once.

  Args:
    attention: how often the pairs of causal attention count; 2: those masked too.
  """
  weights = all_weights(c, active=True)
  lengths = work.asked + work.lengths().astype(float)
  own = lambda power: (lengths**power - shared**power).sum() + len(lengths) * shared**power
  return 6 * weights * own(1) + attention * 6 * c.layers * c.heads * c.head_dim * own(2)


def model_of(
  run: str, work: Work, c: Config, *, entropy: bool = False, mesh: dict[str, int] | None = None
) -> Learner:
  """What trains on this work, as the run says. Packed rows are wide enough for any rollout."""
  how = shapes.Update.of(run)
  c = dataclasses.replace(c, **how.policy)
  if how.train["pack"]:
    how.train["pack"] = max(how.train["pack"], work.asked + work.limit)
  loss = {"fn": "clipped_surrogate", "clip_low": 0.2, "clip_high": 0.28}
  settings = read(
    {
      "seed": 0,
      "budget": {"fn": "fixed", "target": work.limit},
      "reward": {"fn": "correctness"},
      "filter": {"fn": "keep_all"},
      "advantage": {"fn": "raw"},  # the batch has its advantages
      "loss": loss | ({"entropy_bonus": 0.01} if entropy else {}),
      "weights": {"fn": "token_mean"},
      "policy": {"fn": "fresh", **{f.name: getattr(c, f.name) for f in dataclasses.fields(c)}},
      "task": {},
      "sampling": {},
      "optimizer": {"fn": "adamw", "learning_rate": 1e-6, "clip_norm": 1.0},
      "mesh": mesh or {},
      "train": {
        "steps": 1,
        "prompts": work.prompts,
        "group_size": work.group,
        "max_tokens": work.limit,
        "max_prompt_tokens": work.asked,
        **how.train,
      },
    }
  )
  return build_learner(settings)


def made_up(work: Work, vocab: int) -> Batch:
  """Prompts, one a group, and responses of random tokens, with advantages of either sign."""
  tokens, advantages = shapes.made_up(work, vocab)
  shape, numbers = advantages.shape, jnp.asarray(work.lengths())
  place = np.arange(tokens.shape[-1])
  mask = (place >= work.asked) & (place < work.asked + work.lengths()[..., None])
  rollouts = Rollouts(
    tokens=jnp.asarray(tokens),
    mask=jnp.asarray(mask),
    sampler_log_probs=jnp.zeros(mask.shape),
    lengths=numbers,
    truncated=jnp.zeros(shape, bool),
    scores=jnp.asarray(advantages),
    correct=jnp.asarray(advantages > 0),
    outcome=jnp.zeros(shape, jnp.int8),
    valid=jnp.ones(shape, bool),
    prompt_ids=jnp.arange(work.prompts, dtype=jnp.int32),
    difficulty=jnp.zeros(work.prompts, jnp.int32),
    budget=Budget(numbers, numbers, numbers),
    signals={},
  )
  return to_train_on(rollouts)


def to_train_on(rollouts: Rollouts) -> Batch:
  """With scores for advantages, every token counting alike."""
  keep, weights = jnp.ones(rollouts.scores.shape, bool), rollouts.mask / rollouts.mask.sum()
  return Batch(rollouts, rollouts.scores, keep, rollouts.scores, weights)


def define():
  """The flags of this program."""
  for part in (shapes, peers):
    part.define()
  flags.DEFINE_alias("new", "limit")
  flags.DEFINE_bool("heavy", False, "log-normal lengths of mean limit / 4, else all at the limit")
  flags.DEFINE_integer("layers", None, "fewer layers than the shape has")
  flags.DEFINE_bool("entropy", False, "the entropy too, of the same forward pass")
  flags.DEFINE_list("runs", ["full/triton/1/3456/unroll"], "what to measure")
  flags.DEFINE_bool("profile", False, "says where the time goes")


if __name__ == "__main__":
  define()
  app.run(main)

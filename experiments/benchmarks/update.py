"""One update, on made-up rollouts: time, tokens a second, share of the peak, memory.

python -m experiments.benchmarks.update    # the 135 M shape, 64 x 8 rollouts of 96 + 96 tokens
python -m experiments.benchmarks.update --shape=qwen2.5-0.5b --prompts=4 --asked=96 --new=4000 \
    --runs=dots/cudnn/4/0/unroll,dots/triton/4/8192/scan

A run is remat/attention/micro-batches/width of packed rows (0: not packed)/unroll or scan over the
layers, a JSON line each. Model flops are 6 N a token (N weights in matrices, the head once) and
6 L^2 heads head_dim a layer for the causal attention of a sequence of L tokens; nothing for what is
computed again, nor for a prompt of a group after the first time where rows share it.
"""

import dataclasses
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks.profiles import profile
from experiments.benchmarks.shapes import Work, config, machine
from lcrl.policies.attention import shares_prompts
from lcrl.training.fit import CHIPS, layer_weights
from lcrl.training.model import Model, build_model
from lcrl.training.packing import used_lengths
from lcrl.training.settings import read
from lcrl.types import Batch, Budget, Rollouts

_SHAPE = flags.DEFINE_string("shape", "smollm2-135m", "sizes of the model, by name")
_LAYERS = flags.DEFINE_integer("layers", None, "fewer layers than the shape has")
_PROMPTS = flags.DEFINE_integer("prompts", 64, "groups a step")
_GROUP = flags.DEFINE_integer("group", 8, "rollouts of a group")
_ASKED = flags.DEFINE_integer("asked", 96, "tokens of a prompt")
_NEW = flags.DEFINE_integer("new", 96, "tokens of a response, at most")
_HEAVY = flags.DEFINE_bool("heavy", False, "log-normal lengths of mean new / 4, else all `new`")
_DTYPE = flags.DEFINE_string("dtype", "bfloat16", "of the computation")
_ENTROPY = flags.DEFINE_bool("entropy", False, "the entropy too, of the same forward pass")
_RUNS = flags.DEFINE_list("runs", ["full/triton/1/3456/unroll"], "what to measure")
_REPEATS = flags.DEFINE_integer("repeats", 5, "timed steps after two others")
_PROFILE = flags.DEFINE_bool("profile", False, "says where the time goes")


def model_of(remat: str, attention: str, pieces: int, width: int, layers: str) -> Model:
  changes: dict[str, Any] = {"layers": _LAYERS.value} if _LAYERS.value else {}
  changes |= {"remat": remat, "attention": attention, "unroll": layers == "unroll"}
  c = config(_SHAPE.value, dtype=_DTYPE.value, **changes)
  fields = {f.name: getattr(c, f.name) for f in dataclasses.fields(c)}
  loss = {"fn": "clipped_surrogate", "clip_low": 0.2, "clip_high": 0.28}
  settings = read(
    {
      "seed": 0,
      "budget": {"fn": "fixed", "target": _NEW.value},
      "reward": {"fn": "correctness"},
      "filter": {"fn": "keep_all"},
      "advantage": {"fn": "group_normalized"},
      "loss": loss | ({"entropy_bonus": 0.01} if _ENTROPY.value else {}),
      "weights": {"fn": "token_mean"},
      "policy": {"fn": "fresh", **fields},
      "task": {},
      "sampling": {},
      "optimizer": {"fn": "adamw", "learning_rate": 1e-6, "clip_norm": 1.0},
      "mesh": {},
      "train": {
        "steps": 1,
        "prompts": _PROMPTS.value,
        "group_size": _GROUP.value,
        "max_tokens": _NEW.value,
        "max_prompt_tokens": _ASKED.value,
        "micro_batches": pieces,
        "pack": width or None,
      },
    }
  )
  return build_model(settings)


def made_up(vocab: int) -> Batch:
  """Prompts, one a group, and responses of random tokens, with advantages of either sign."""
  rng = np.random.default_rng(0)
  shape, length = (_PROMPTS.value, _GROUP.value), _ASKED.value + _NEW.value
  lengths = Work(*shape, _ASKED.value, _NEW.value, _HEAVY.value).lengths()
  place = np.arange(length)
  mask = (place >= _ASKED.value) & (place < _ASKED.value + lengths[..., None])
  rewards = rng.integers(0, 2, shape).astype(np.float32)
  tokens = rng.integers(0, vocab, (*shape, length))
  tokens[..., : _ASKED.value] = tokens[:, :1, : _ASKED.value]
  numbers = jnp.asarray(lengths, jnp.int32)
  rollouts = Rollouts(
    tokens=jnp.asarray(tokens, jnp.int32),
    mask=jnp.asarray(mask),
    sampler_log_probs=jnp.zeros((*shape, length)),
    lengths=numbers,
    truncated=jnp.zeros(shape, bool),
    scores=jnp.asarray(rewards),
    correct=jnp.asarray(rewards > 0),
    outcome=jnp.zeros(shape, jnp.int8),
    valid=jnp.ones(shape, bool),
    prompt_ids=jnp.arange(shape[0], dtype=jnp.int32),
    difficulty=jnp.zeros(shape[0], jnp.int32),
    budget=Budget(numbers, numbers, numbers),
    signals={},
  )
  weights = jnp.asarray(mask / mask.sum(), jnp.float32)
  advantages = jnp.asarray(rewards - rewards.mean())
  return Batch(rollouts, rollouts.scores, jnp.ones(shape, bool), advantages, weights)


def flops(model: Model, lengths: np.ndarray, shared: int) -> float:
  """What an update takes at least: sequences of these lengths, `shared` tokens of a group once."""
  c = model.policy.config
  weights = layer_weights(c) * c.layers + c.hidden_size * c.vocab_size
  lengths = lengths.astype(float)
  own = lambda power: (lengths**power - shared**power).sum() + len(lengths) * shared**power
  return 6 * weights * own(1) + 6 * c.layers * c.heads * c.head_dim * own(2)


def measure(remat: str, attention: str, pieces: int, width: int, layers: str) -> dict[str, Any]:
  model = model_of(remat, attention, pieces, width, layers)
  batch = made_up(model.policy.config.vocab_size)
  lengths = np.asarray(used_lengths(batch.rollouts.mask))
  shared = _ASKED.value if width and shares_prompts(attention) else 0
  state = model.initial()
  times: list[float] = []
  first: dict[str, float] = {}
  for _ in range(2 + _REPEATS.value):
    start = time.perf_counter()
    state, metrics = model.update(state, batch)
    jax.block_until_ready((state, metrics))
    times.append(time.perf_counter() - start)
    first = first or {n: float(metrics[n].total) for n in ("loss", "grad_norm")}
  seconds, device = statistics.median(times[2:]), jax.devices()[0]
  result = {
    "seconds": seconds,
    "first_seconds": times[0],
    "tokens_per_s": lengths.sum() / seconds,
    **first,
  }
  if chip := CHIPS.get(device.device_kind):
    result["mfu"] = flops(model, lengths, shared) / seconds / chip.flops
  if memory := device.memory_stats():
    result["peak_gib"] = memory["peak_bytes_in_use"] / 2**30  # of the process so far
  if _PROFILE.value:
    result |= {"profile": profile(lambda: model.update(state, batch)[1], top=40)}
  return result


def main(argv):
  del argv
  common = {
    **machine(),
    **{f.name: f.value for f in (_SHAPE, _PROMPTS, _GROUP, _ASKED, _NEW, _HEAVY, _ENTROPY)},
  }
  for run in _RUNS.value:
    remat, attention, pieces, width, layers = run.split("/")
    try:
      result = measure(remat, attention, int(pieces), int(width), layers)
    except (ValueError, RuntimeError) as error:  # out of memory, or refused, is a result
      result = {"error": str(error)[:300]}
    print(json.dumps({**common, "run": run, **result}), flush=True)
    jax.clear_caches()


if __name__ == "__main__":
  app.run(main)

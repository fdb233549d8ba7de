"""A whole GRPO step split into its parts: sampling, verification, update. As `lcrl-train`
runs it, with random weights, tokens for text and a scorer in the real verifier's processes.

python -m experiments.benchmarks.step --peer=tunix      # 64 x 8 rollouts of 96 + 96 tokens
python -m experiments.benchmarks.step --update=dots/xla/2/576/scan --shape=laptop --prompts=4 \
  --group=4 --asked=64 --limit=128 --micro=4 --dtype=float32 --peer=tunix
python -m experiments.benchmarks.step --steps_ahead=1                       # on one device
python -m experiments.benchmarks.step --steps_ahead=1 --sampling_devices=1  # one of two samples
python -m experiments.benchmarks.step --processes=2                         # on two devices

python -m experiments.benchmarks.step --recipe=d --shape=qwen2.5-1.5b --prompts=128 --asked=256 \
  --limit=8192 --mean=2000 --slots=256 --cache_gib=32 --micro_tokens=16384 \
  --update=attention/triton/1/16384/unroll   # LASER-D, with lengths replayed as caps of the rows

A step is timed from end to end, and its parts are what the host spent: a part that overlaps with
another takes no time of its own. `sampled_s` is from when parameters were there until all was
sampled; `launch_s` is what the host needs to begin that, which it does while the update runs. Steps
ahead sample what the next step trains on.
The peer does the same work first, in a process of its own. `--cache` names a folder of compiled
programs: with a fresh one the first step is a cold one, run again it is a warm one. Prints one JSON
line a library, then one with both and their ratio. With several processes, times are those of the
first one and `peak_gib` is the most on any device.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from configs import laser
from experiments.benchmarks import peers, processes, shapes, update
from lcrl import hosts
from lcrl.mesh import sampler_mesh
from lcrl.rollouts.worker import RolloutWorker
from lcrl.sampling.engine import make_engine
from lcrl.tasks.scorers import text
from lcrl.tasks.task import Prompt, Task
from lcrl.tasks.verify import Verifier
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.run import RlStep, make_pipeline
from lcrl.training.rl.settings import read
from lcrl.types import Budget, Stage

FLAGS = flags.FLAGS


def main(argv):
  del argv
  if processes.launches():
    processes.launch("experiments.benchmarks.step")
    return
  with processes.joined():
    report()


def report():
  """Measures, and prints the results."""
  work = shapes.asked_work(FLAGS.mean is not None)._replace(mean=FLAGS.mean)
  common = {name: getattr(FLAGS, name) for name in ("shape", "dtype", *work._fields[:4])}
  other = peers.ask("step")
  if FLAGS.cache:
    jax.config.update("jax_compilation_cache_dir", FLAGS.cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  own = measure(work)
  if jax.process_index():
    return
  print(json.dumps(own), flush=True)
  result = {
    **common,
    "update": FLAGS.update,
    "own": own,
    "peer": other,
  }
  parts = ("step_s", "sampling_s", "update_s", "first_step_s", "peak_gib")
  result["times_less"] = peers.ratios(other, own, parts)
  print(json.dumps(result), flush=True)


def measure(work: shapes.Work) -> dict[str, Any]:
  begin = time.perf_counter()
  model = build_learner(settings(work))
  task = Task("copies", _Asked(work, model.policy.config.vocab_size), text)
  tokens = _Tokens(model.policy.config.vocab_size)
  mesh = sampler_mesh(model.mesh, FLAGS.sampling_devices)
  engine = make_engine(
    model.policy,
    max_tokens=work.limit,
    end_ids=tokens.end_ids,
    pad_id=tokens.pad_id,
    slots=FLAGS.slots,
    cache_gib=FLAGS.cache_gib,
    decoding=FLAGS.decoding,
    compiler=shapes.compiler_options(FLAGS.compiler),
    mesh=mesh,
    source=model.mesh,
  )
  workers = max(FLAGS.workers // jax.process_count(), 1)
  with Verifier(task, workers=workers) as verifier:
    judge = _Judge(verifier)
    worker = RolloutWorker(task, tokens, engine, judge, mesh, work.asked)
    last: dict[str, Any] = {}
    step = RlStep(
      model,
      task,
      make_pipeline(model, worker),
      preflight=lambda shaped, collected: last.update(shaped=shaped, collected=collected),
    )
    state, prefetch = model.initial(), step.queue.prefetch
    jax.block_until_ready(state.params)
    ready, parts, launch = time.perf_counter(), [], 0.0

    def timed_prefetch(params):
      nonlocal launch
      start = time.perf_counter()
      prefetch(params)
      launch = time.perf_counter() - start

    step.queue.prefetch = timed_prefetch  # type: ignore[method-assign]
    for _ in range(FLAGS.warm + FLAGS.repeats):
      judge.seconds, start = 0.0, time.perf_counter()
      state, metrics, _ = step(state)
      jax.block_until_ready(state.params)
      whole = time.perf_counter() - start
      sampling, verify, updating = (
        metrics[f"time/{part}"].value() for part in ("sample", "verify", "update")
      )
      parts.append(
        {
          "step_s": whole,
          "sampling_s": sampling,
          "verify_s": verify,
          "verify_workers_s": judge.seconds,
          "shape_s": whole - sampling - verify - updating,
          "update_s": updating,
          "sampled_s": last["collected"].seconds,
          "launch_s": launch,
        }
      )
  memory = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = hosts.gather("memory", max(m.get("peak_bytes_in_use", 0) for m in memory))
  return {
    **shapes.machine(),
    "processes": jax.process_count(),
    "steps_ahead": FLAGS.steps_ahead,
    "sampling_devices": FLAGS.sampling_devices,
    "decoding": engine.policy.config.decoding,
    "compiler": dict(engine.compiler),
    **(times := {n: statistics.median(p[n] for p in parts[FLAGS.warm :]) for n in parts[0]}),
    "first_step_s": parts[0]["step_s"],
    "setup_s": ready - begin,
    "first": {name: round(seconds, 3) for name, seconds in parts[0].items()},
    "all_s": [round(part["step_s"], 4) for part in parts],
    "peak_gib": max(peaks) / 2**30 or None,
    "response_tokens": float(last["shaped"].stats["lengths"].sum()),
    **shares(model.policy.config, work, times),
  }


def shares(c, work: shapes.Work, times: dict[str, float]) -> dict[str, float]:
  """Sampled tokens a second, the share of the memory's floor that is, and the update's MFU: of the
  usual 6 N a token and causal attention once, with the prompt of a group once and nothing for the
  passes that only score."""
  found = {"sampled_tokens_per_s": float(work.lengths().sum()) / times["sampled_s"]}
  devices, tensor = jax.device_count(), mesh_axes(FLAGS.mesh).get("tensor", 1)
  samplers = FLAGS.sampling_devices or devices
  rows = FLAGS.slots * samplers // tensor if FLAGS.slots else work.rows
  floor = shapes.sampling_floor(
    c, work, rows=rows, shared=not FLAGS.slots, devices=samplers, tensor=tensor
  )
  if floor:
    share = work.asked if shapes.Update.of(FLAGS.update).shares else 0
    found["of_floor"] = floor / times["sampled_s"]
    found["mfu"] = update.of_peak(c, work, share, devices * times["update_s"])["mfu"]
  return found


def replayed() -> Stage:
  """A budget that ends the answers of prompt i after the i-th lengths of the work that is timed."""
  work = shapes.asked_work(FLAGS.mean is not None)._replace(mean=FLAGS.mean)

  def apply(state, prompt_ids, *, step, key, group_size):
    del step, key, group_size
    caps = jnp.asarray(work.lengths())[prompt_ids % work.prompts]
    return Budget(caps, caps, jnp.zeros_like(caps)), state

  return Stage(init=lambda: (), apply=apply)


def stages(work: shapes.Work) -> dict[str, Any]:
  """GRPO without KL, as the peer runs it; or what `configs/laser.py` says, without its monitor."""
  if FLAGS.recipe == "grpo":
    return {
      "budget": {"fn": "fixed", "target": work.limit},
      "reward": {"fn": "correctness"},
      "filter": {"fn": "keep_all"},
      "advantage": {"fn": "group_normalized"},
      "loss": {"fn": "clipped_surrogate", "clip_low": 0.2, "clip_high": 0.2},
      "weights": {"fn": "token_mean"},
    }
  config = laser.get_config(FLAGS.recipe).to_dict()
  names = ("reward", "monitor", "filter", "advantage", "loss", "weights")
  return {name: config[name] for name in names} | {"budget": {"fn": f"{__spec__.name}:replayed"}}


def settings(work: shapes.Work):
  """The config of a run on this work."""
  how = shapes.Update.of(FLAGS.update)
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype, **how.policy)
  return read(
    {
      "seed": 0,
      **stages(work),
      "policy": {
        "fn": "fresh",
        **{f.name: getattr(c, f.name) for f in dataclasses.fields(c)},
        "param_dtype": "bfloat16" if FLAGS.lora_rank else "float32",
      },
      "task": {},
      "sampling": {"devices": FLAGS.sampling_devices, "slots": FLAGS.slots},
      "optimizer": {"fn": "adamw", "learning_rate": 1e-6, "clip_norm": 1.0},
      "mesh": dict(mesh_axes(FLAGS.mesh)),
      **adapters(),
      "train": {
        "steps": 1
        + FLAGS.warm
        + FLAGS.repeats,  # the last one, which samples nothing ahead, is not run
        "steps_ahead": FLAGS.steps_ahead,
        "prompts": work.prompts,
        "group_size": work.group,
        "max_tokens": work.limit,
        "max_prompt_tokens": work.asked,
        **how.train,
        **({"micro_tokens": FLAGS.micro_tokens} if FLAGS.micro_tokens else {}),
        "updates": FLAGS.updates,
      },
    }
  )


def mesh_axes(axes: list[str]) -> dict[str, int]:
  """The sizes that `axis=size` names.

  >>> mesh_axes(["fsdp=2", "tensor=4"])
  {'fsdp': 2, 'tensor': 4}
  """
  return {name: int(size) for name, _, size in (axis.partition("=") for axis in axes)}


def adapters() -> dict[str, Any]:
  """The section `lora` of `--lora_rank`; of experts only attention can have adapters."""
  rank = FLAGS.lora_rank
  experts = shapes.config(FLAGS.shape, dtype=FLAGS.dtype).experts
  targets = {"targets": ("query", "key", "value", "out")} if experts else {}
  return {"lora": {"rank": rank, "alpha": 2.0 * rank, **targets}} if rank else {}


class _Asked:
  """Prompts of random tokens, written as numbers. As many as a data set has: to shuffle a few takes
  longer."""

  def __init__(self, work: shapes.Work, vocab: int):
    rows = np.random.default_rng(0).integers(0, vocab, (work.prompts, work.asked))
    self._texts = [" ".join(map(str, row)) for row in rows.tolist()]

  def __len__(self) -> int:
    return 8192

  def __getitem__(self, index: int) -> Prompt:
    text = self._texts[index % len(self._texts)]
    return Prompt(index, ({"role": "user", "content": text},), "0 0")


class _Tokens:
  """Text is the numbers of the tokens, as for the peer."""

  def __init__(self, vocab: int):
    ids = peers.Ids(vocab)
    self.encode, self.decode = ids.encode, ids.decode
    self.end_ids, self.pad_id = (ids.eos_id(),), ids.pad_id()

  def render(self, messages) -> str:
    return messages[0]["content"]


class _Judge:
  """A verifier and the seconds from what is submitted to its verdicts."""

  def __init__(self, verifier: Verifier):
    self._verifier, self.seconds = verifier, 0.0

  def verify(self, items):
    return self.submit(items).result()

  def submit(self, items):
    start = time.perf_counter()
    future = self._verifier.submit(items)

    def ended(_):
      self.seconds += time.perf_counter() - start

    future.add_done_callback(ended)
    return future


def define():
  """The flags of this program."""
  for part in (shapes, peers, processes):
    part.define()
  flags.DEFINE_string(
    "update",
    "full/triton/1/3456/unroll",
    "how to train, as a run of `benchmarks.update` is written",
  )
  flags.DEFINE_string("decoding", None, "of the sampler; None: the fastest here")
  flags.DEFINE_list("compiler", [], "options of XLA for sampling, name=true or =false")
  flags.DEFINE_integer("workers", 8, "processes of all verifiers together")
  flags.DEFINE_integer("steps_ahead", 0, "1: sample for the next step while one trains")
  flags.DEFINE_integer("sampling_devices", 0, "devices that only sample, with steps_ahead")
  flags.DEFINE_string("recipe", "grpo", "grpo, or a variant of configs/laser.py: d, de")
  flags.DEFINE_float("mean", None, "log-normal lengths of this mean; None: all at the limit")
  flags.DEFINE_integer("slots", None, "rows that decode at once; None: all")
  flags.DEFINE_float("cache_gib", None, "GiB for the keys of slots; None: of full length")
  flags.DEFINE_integer("micro_tokens", None, "tokens on a device at a time; None: micro-batches")
  flags.DEFINE_list("mesh", [], "axis=size; of those left out, as in a config")
  flags.DEFINE_integer("lora_rank", 0, "of adapters on a base in bfloat16; 0: all is trained")
  flags.DEFINE_integer("updates", 1, "optimizer steps of a step")
  flags.DEFINE_integer("warm", 2, "steps before those that are timed")
  flags.DEFINE_string("cache", None, "folder of compiled programs")


if __name__ == "__main__":
  define()
  app.run(main)

"""The same GRPO step by another library, in a process of its own. Prints one JSON line.

python -m experiments.benchmarks.peers --shape=laptop --prompts=4 --group=4 --asked=64 --limit=128

Tunix (google-tunix) as its own learner runs it: vanilla rollout, GRPO without KL, random weights, a
tokenizer whose text is the ids, a reward that counts nothing heavy. Its package asks for libraries
that this work never calls; those that are not installed stand as empty modules.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from typing import Any, ClassVar

from absl import app, flags

from experiments.benchmarks import shapes
from experiments.benchmarks.shapes import Work

FLAGS = flags.FLAGS


def tunix(work: Work, *, shape: str, dtype: str, micro: int, repeats: int) -> dict[str, Any]:
  """Times of Tunix's steps: from batch to batch, and from a batch to its rewards."""
  import jax
  import numpy as np
  import optax
  from flax import nnx

  sys.meta_path.append(_StandIns())
  from tunix.models.llama3 import model as llama
  from tunix.rl import rl_cluster
  from tunix.rl.grpo import grpo_learner
  from tunix.rl.rollout import base_rollout

  c = shapes.config(shape, dtype=dtype)
  if c.qkv_bias or c.rope.scaling != "default":
    raise ValueError(f"{shape} is no Llama: the peer would run another model.")
  model = llama.Llama3(
    llama.ModelConfig(
      num_layers=c.layers,
      vocab_size=c.vocab_size,
      embed_dim=c.hidden_size,
      hidden_dim=c.mlp_size,
      num_heads=c.heads,
      head_dim=c.head_dim,
      num_kv_heads=c.kv_heads,
      rope_theta=int(c.rope.theta),
      norm_eps=c.norm_eps,
      weight_tying=c.tied,
    ),
    rngs=nnx.Rngs(0),
  )
  graph, state = nnx.split(model)
  model = nnx.merge(graph, jax.tree.map(lambda x: x.astype(dtype), state))
  mesh = jax.sharding.Mesh([[jax.devices()[0]]], ("fsdp", "tp"))
  roles = rl_cluster.Role
  cluster = rl_cluster.RLCluster(
    actor=model,
    tokenizer=Ids(c.vocab_size),
    cluster_config=rl_cluster.ClusterConfig(
      role_to_mesh=dict.fromkeys((roles.ACTOR, roles.REFERENCE, roles.ROLLOUT), mesh),
      training_config=rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.adamw(1e-6),
        eval_every_n_steps=1000,
        max_steps=1000,
        mini_batch_size=work.prompts,
        train_micro_batch_size=micro,
        rollout_micro_batch_size=work.prompts,
        compute_logps_micro_batch_size=work.prompts,
      ),
      rollout_config=base_rollout.RolloutConfig(
        max_tokens_to_generate=work.limit,
        max_prompt_length=work.asked,
        kv_cache_size=work.asked + work.limit,
        temperature=1.0,
        top_p=1.0,
      ),
    ),
  )
  begins: list[float] = []
  sampled: list[float] = []

  def reward(prompts, completions, **_):
    sampled.append(time.perf_counter())
    return [float(len(text) % 2) for text in completions]

  def batches() -> Iterator[dict[str, Any]]:
    rows, _ = shapes.make_rows(work, c.vocab_size - 1)
    texts = [" ".join(str(token + 1) for token in group[0]) for group in rows.tokens]
    for _ in range(3 + repeats):
      jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
      begins.append(time.perf_counter())
      yield {"prompts": np.array(texts)}

  config = grpo_learner.GRPOConfig(num_generations=work.group, num_iterations=1, beta=0.0)
  learner = grpo_learner.GRPOLearner(cluster, algo_config=config, reward_fns=reward)
  with mesh:
    learner.train(batches())
  jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
  begins.append(time.perf_counter())
  steps = [b - a for a, b in itertools.pairwise(begins)][: 2 + repeats]
  sampling = [b - a for a, b in zip(begins, sampled, strict=False)][: 2 + repeats]
  update = [a - b for a, b in zip(steps, sampling, strict=True)]
  middle = lambda times: statistics.median(times[2:])
  memory = jax.devices()[0].memory_stats() or {}
  return {
    "peer": "tunix",
    **shapes.machine(),
    "step_s": middle(steps),
    "sampling_s": middle(sampling),
    "update_s": middle(update),
    "first_step_s": steps[0],
    "all_s": [round(t, 4) for t in steps],
    "peak_gib": memory.get("peak_bytes_in_use", 0) / 2**30 or None,
    "micro": micro,
    "stand_ins": sorted({name.partition(".")[0] for name in _StandIns.made}),
  }


_PEERS = ("tunix", "metrax", "perfetto", "clu")  # what may ask for stand-ins


class Ids:
  """A tokenizer whose text is the numbers of the tokens. No token ends a response."""

  def __init__(self, vocab: int):
    self.vocab = vocab

  def encode(self, text: str, **_) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, ids, **_) -> str:
    return " ".join(map(str, ids))

  def bos_id(self) -> int:
    return 0  # as much as none: it is not put before a prompt

  def eos_id(self) -> int:
    return self.vocab + 7

  def pad_id(self) -> int:
    return 0


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Empty modules for libraries that the peer asks for and that are not installed: the last to be
  asked. Other libraries see what there is: they know what they can miss."""

  made: ClassVar[list[str]] = []

  def find_spec(self, fullname, path=None, target=None):
    frame: Any = sys._getframe(1)
    while frame and frame.f_globals["__name__"].startswith("importlib"):
      frame = frame.f_back
    asks = frame.f_globals["__name__"].partition(".")[0] if frame else ""
    top = sys.modules.get(fullname.partition(".")[0])
    if asks not in _PEERS or (top and not getattr(top, "stands_in", False)):
      return None
    self.made.append(fullname)
    return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

  def create_module(self, spec):
    module: Any = types.ModuleType(spec.name)
    module.__path__, module.stands_in = [], True

    def attribute(name: str):
      if name.startswith("__"):
        raise AttributeError(name)
      return type(name, (_Anything,), {})

    module.__getattr__ = attribute
    return module

  def exec_module(self, module):
    pass


class _Meta(type):
  """Classes that have every attribute."""

  def __getattr__(cls, name: str):
    if name.startswith("__"):
      raise AttributeError(name)
    return type(name, (_Anything,), {})


class _Anything(metaclass=_Meta):
  """Takes any arguments; as a decorator it gives back what it decorates."""

  def __new__(cls, *args, **kwargs):
    return args[0] if len(args) == 1 and callable(args[0]) else super().__new__(cls)

  def __init__(self, *args, **kwargs):
    pass

  def __call__(self, f=None, *args, **kwargs):
    return f

  def __class_getitem__(cls, item):
    return cls


def in_a_process(options: dict[str, Any], *, timeout: float) -> dict:
  """What this module prints for these flags, or its error: the peer cannot stop a measurement."""
  command = [sys.executable, "-m", "experiments.benchmarks.peers"]
  command += [f"--{name}={value}" for name, value in options.items()]
  with tempfile.TemporaryFile("w+") as errors:
    try:
      done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=timeout, check=True
      )
      return json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.SubprocessError, IndexError, json.JSONDecodeError) as error:
      errors.seek(0)
      return {"error": f"{type(error).__name__}", "stderr": errors.read()[-1500:]}


def main(argv):
  del argv
  work = Work(FLAGS.prompts, FLAGS.group, FLAGS.asked, FLAGS.limit)
  found = tunix(
    work, shape=FLAGS.shape, dtype=FLAGS.dtype, micro=FLAGS.micro, repeats=FLAGS.repeats
  )
  print(json.dumps(found), flush=True)


def define():
  """The flags of this program."""
  flags.DEFINE_string("shape", "smollm2-135m", "a model by name")
  flags.DEFINE_integer("prompts", 64, "prompts")
  flags.DEFINE_integer("group", 8, "rollouts of each")
  flags.DEFINE_integer("asked", 96, "tokens of a prompt")
  flags.DEFINE_integer("limit", 96, "tokens of a response")
  flags.DEFINE_string("dtype", "bfloat16", "of its weights")
  flags.DEFINE_integer("micro", 8, "prompts that go through its update together")
  flags.DEFINE_integer("repeats", 3, "timed steps after two others")


if __name__ == "__main__":
  define()
  app.run(main)

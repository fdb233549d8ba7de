"""Tunix (google-tunix): its vanilla rollout and its GRPO without KL, on random weights.

A step is its own learner's. Sampling and the update are its cluster's calls apart from the learner,
with a tokenizer for which text costs nothing. Weights and AdamW's moments are of the job's dtype.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks import shapes
from experiments.benchmarks.peers import Ids, Job
from experiments.benchmarks.peers.stand_ins import StandIns


def step(job: Job) -> dict[str, Any]:
  """Its learner's steps: from batch to batch, and from a batch to its rewards."""
  cluster = _cluster(job, Ids(job.config.vocab_size))
  begins: list[float] = []
  sampled: list[float] = []

  def reward(prompts, completions, **_):
    sampled.append(time.perf_counter())
    return [float(len(text) % 2) for text in completions]

  def batches() -> Iterator[dict[str, Any]]:
    for _ in range(3 + job.repeats):
      _wait(cluster)
      begins.append(time.perf_counter())
      yield {"prompts": np.array(_texts(job))}

  learner = _learner(cluster, job, reward)
  with cluster.cluster_config.role_to_mesh[_rl().rl_cluster.Role.ACTOR]:
    learner.train(batches())
  _wait(cluster)
  begins.append(time.perf_counter())
  steps = [b - a for a, b in itertools.pairwise(begins)][: 2 + job.repeats]
  sampling = [b - a for a, b in zip(begins, sampled, strict=False)][: 2 + job.repeats]
  update = [a - b for a, b in zip(steps, sampling, strict=True)]
  middle = lambda times: statistics.median(times[2:])
  return _found(
    {
      "step_s": middle(steps),
      "sampling_s": middle(sampling),
      "update_s": middle(update),
      "first_step_s": steps[0],
      "all_s": [round(t, 4) for t in steps],
    }
  )


def sampling(job: Job) -> dict[str, Any]:
  """Its rollout of all rows at once."""
  cluster = _cluster(job, _Free(job.config.vocab_size))
  texts = np.repeat(_texts(job), job.group).tolist()

  def run():
    sampled = cluster.generate(texts).tokens
    if {len(row) for row in sampled} != {job.limit}:
      raise ValueError(f"Not every response has {job.limit} tokens.")

  found = shapes.timed(run, job.repeats)
  return _found(found | {"tokens_per_s": job.work.rows * job.limit / found["seconds"]})


def update(job: Job) -> dict[str, Any]:
  """Its update on rollouts that are there, in micro-batches."""
  cluster = _cluster(job, _Free(job.config.vocab_size))
  _learner(cluster, job, lambda **_: [])  # gives the trainer its loss
  tokens, advantages = shapes.made_up(job.work, job.config.vocab_size)
  live = np.arange(job.limit) < job.work.lengths()[..., None]
  example = functools.partial(
    _rl().common.TrainExample, ref_per_token_logps=None, old_per_token_logps=None
  )
  pieces = []
  for i in range(0, job.prompts, job.micro):
    rows = jnp.asarray(tokens[i : i + job.micro].reshape(-1, tokens.shape[-1]))
    prompts, responses = jnp.split(rows, [job.asked], axis=1)
    mask = jnp.asarray(live[i : i + job.micro].reshape(responses.shape))
    pieces.append(
      example(
        prompt_ids=prompts,
        prompt_mask=jnp.ones(prompts.shape, bool),
        completion_ids=jnp.where(mask, responses, 0),
        completion_mask=mask,
        advantages=jnp.asarray(advantages[i : i + job.micro].reshape(-1)),
      )
    )

  def run():
    cluster.update_actor(pieces, None)
    _wait(cluster)

  found = shapes.timed(run, job.repeats, warm=2)
  used = job.work.rows * job.asked + int(job.work.lengths().sum())
  return _found(found | {"tokens_per_s": used / found["seconds"]})


def log_probs(job: Job) -> dict[str, Any]:
  """Its log-probs from logits, and the product that makes these: both ways."""
  score = _rl().common.selective_log_softmax
  keys = jax.random.split(jax.random.key(0), 3)
  args = (
    jax.random.normal(keys[0], (job.tokens, job.hidden), job.dtype),
    jax.random.normal(keys[1], (job.hidden, job.vocab), job.dtype) * job.hidden**-0.5,
    jax.random.randint(keys[2], (job.tokens,), 0, job.vocab),
  )
  total = lambda hidden, head, targets: score(hidden @ head, targets).sum()
  run = jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(*args).compile()
  found = {"median_ms": 1e3 * shapes.timed(lambda: run(*args), job.repeats)["seconds"]}
  if memory := run.memory_analysis():
    found["temp_gib"] = memory.temp_size_in_bytes / 2**30
  return _found(found)


PARTS = {"step": step, "sampling": sampling, "update": update, "log_probs": log_probs}


class _Free(Ids):
  """Text is made once, responses have none."""

  def __init__(self, vocab: int):
    super().__init__(vocab)
    self.encode = functools.cache(super().encode)  # type: ignore[method-assign]

  def decode(self, ids, **_) -> str:
    return ""


@functools.cache
def _rl() -> Any:
  """Its modules."""
  sys.meta_path.append(StandIns())
  import tunix.rl.common
  import tunix.rl.grpo.grpo_learner
  import tunix.rl.rl_cluster
  import tunix.rl.rollout.base_rollout

  return tunix.rl


def _texts(job: Job) -> list[str]:
  rows, _ = shapes.make_rows(job.work, job.config.vocab_size - 1)
  return [" ".join(str(token + 1) for token in group[0]) for group in rows.tokens]


def _model(job: Job) -> Any:
  from flax import nnx

  _rl()
  from tunix.models.llama3 import model as llama
  from tunix.models.qwen2 import model as qwen

  c = job.config
  if c.rope.scaling != "default" or c.family not in ("llama", "qwen2"):
    raise ValueError(f"{job.shape}: the peer would run another model.")
  library, tied = (qwen, "use_tied_embedding") if c.qkv_bias else (llama, "weight_tying")
  make = qwen.Qwen2 if c.qkv_bias else llama.Llama3
  remat = job.remat and job.part != "sampling"  # of no use there, and its cache refuses it
  config = library.ModelConfig(
    num_layers=c.layers,
    vocab_size=c.vocab_size,
    embed_dim=c.hidden_size,
    hidden_dim=c.mlp_size,
    num_heads=c.heads,
    head_dim=c.head_dim,
    num_kv_heads=c.kv_heads,
    rope_theta=int(c.rope.theta),
    norm_eps=c.norm_eps,
    remat_config=library.RematConfig.DECODER if remat else library.RematConfig.NONE,
    **{tied: c.tied},
    **({"dtype": jnp.dtype(job.dtype)} if c.qkv_bias else {}),
  )
  graph, state = nnx.split(make(config, rngs=nnx.Rngs(0)))
  return nnx.merge(graph, jax.tree.map(lambda x: x.astype(job.dtype), state))


def _cluster(job: Job, tokenizer: Ids) -> Any:
  """Its models, sampler and trainer, on one device."""
  actor = _model(job)
  lib, base = _rl().rl_cluster, _rl().rollout.base_rollout
  mesh = jax.sharding.Mesh([[jax.devices()[0]]], ("fsdp", "tp"))
  roles = (lib.Role.ACTOR, lib.Role.REFERENCE, lib.Role.ROLLOUT)
  return lib.RLCluster(
    actor=actor,
    tokenizer=tokenizer,
    cluster_config=lib.ClusterConfig(
      role_to_mesh=dict.fromkeys(roles, mesh),
      training_config=lib.RLTrainingConfig(
        actor_optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-6)),
        eval_every_n_steps=1000,
        max_steps=1000,
        mini_batch_size=job.prompts,
        train_micro_batch_size=job.micro,
        rollout_micro_batch_size=job.prompts,
        compute_logps_micro_batch_size=job.prompts,
      ),
      rollout_config=base.RolloutConfig(
        max_tokens_to_generate=job.limit,
        max_prompt_length=job.asked,
        kv_cache_size=job.asked + job.limit,
        temperature=1.0,
        top_p=1.0,
      ),
    ),
  )


def _learner(cluster: Any, job: Job, reward: Any) -> Any:
  library = _rl().grpo.grpo_learner
  config = library.GRPOConfig(num_generations=job.group, num_iterations=1, beta=0.0)
  return library.GRPOLearner(cluster, algo_config=config, reward_fns=reward)


def _wait(cluster: Any) -> None:
  from flax import nnx

  jax.block_until_ready(nnx.state(cluster.actor_trainer.model))


def _found(measured: dict[str, Any]) -> dict[str, Any]:
  """With where and with what, and what stood in for what is not installed."""
  where = shapes.machine()
  where["versions"] |= shapes.versions("google-tunix")
  stand_ins = sorted({name.partition(".")[0] for name in StandIns.made})
  return {**where, **measured, "peak_gib": shapes.peak_gib(), "stand_ins": stand_ins}

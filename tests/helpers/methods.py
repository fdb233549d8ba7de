"""Methods that strain the contract or have a state, and runs of them without a run folder."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import recipes, tasks
from lcrl.data import tokenizers
from lcrl.registry import build
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.verify import Verdict
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.monitor import make_monitor
from lcrl.training.rl.pipeline import Provider
from lcrl.training.rl.run import RlStep, make_pipeline
from lcrl.training.rl.settings import read
from lcrl.types import Outcome
from tests.helpers.rl_runs import CONFIG
from tests.helpers.stages import LAGRANGIAN
from tests.rollouts import AtOnce

STOP, LAST, CAP = 2, 4, 16
WORDS = tokenizers.sums()


def has_digit(response, reference):
  """Right if the answer's digit stands anywhere: what a prefix has, the whole has."""
  return float(str(reference) in response)


class Here(AtOnce):
  """Verifies in this process, and remembers what it was asked."""

  def __init__(self, task):
    self.task, self.asked = task, []

  def verify(self, items):
    self.asked += items
    scores = [self.task.score(text, prompt.reference) for text, prompt in items]
    return [Verdict(s, Outcome.OK if s else Outcome.WRONG) for s in scores]


def stand_in(params, rollouts):
  """In place of a reward model."""
  return {"conciseness": 1.0 / rollouts.lengths}


class Run:
  """A run without its workdir."""

  def __init__(self, engine, **changes):
    config = copy.deepcopy(CONFIG) | {"seed": 1}
    for name, value in changes.items():
      config[name] = config[name] | value if name in ("train", "task") else value
    self.model = build_learner(read(config))
    task = dataclasses.replace(build(tasks, config["task"], field="task"), score=has_digit)
    self.verifier = Here(task)
    worker = RolloutWorker(task, WORDS, engine, self.verifier, self.model.mesh, 16)
    providers = [Provider(("conciseness",), stand_in)]
    self.step = RlStep(self.model, task, make_pipeline(self.model, worker, providers))
    self.monitor, self.worker = make_monitor(self.model, task, worker), worker

  def steps(self, state, until):
    """The state after step `until`, and the batches on the way."""
    batches = []
    while int(state.step) < until:
      state, _, batch = self.step(self.monitor(state))
      batches.append(jax.tree.map(np.asarray, batch))
    return state, batches

  def batch(self, state):
    """The batch that a step would train on."""
    return self.step.shape(state, self.step.queue.take(state)).batch

  def forgetful(self, state):
    """A copy of the state that has lost what the recipe and the collector remember."""
    fresh = jax.tree.map(jnp.copy, state)
    passed = None if state.passed is None else jnp.zeros_like(state.passed)
    return dataclasses.replace(fresh, recipe=recipes.init(self.model.recipe), passed=passed)


THINK = dict(signals=dict(fn="think_tags", close="#"))
TWO_STEPS = dict(size=8)  # a pass over the data takes two steps, so that prompts come again
RESTARTS = dict(fn="cosine_restarts", low=0.0, high=0.6, warmup=1, period=3)
LASER_D = dict(fn="laser_d", lower=2, upper=14, interval=2, initial=2)
# name -> what changes in the config. What has a state needs it at step STOP.
METHODS = {
  "hapo": dict(task=TWO_STEPS, reward=dict(fn="hapo", rows=8)),
  "laser_d": dict(seed=2, reward=LASER_D, monitor=dict(every=3, prompts=4)),
  "l1_exact": dict(
    budget=dict(fn="uniform", low=4, high=9, cap=CAP),
    task=dict(render=dict(fn="suffix", templates="{target}?")),
    reward=dict(fn="exact_length", alpha=0.02),
  ),
  "hbpo": dict(
    budget=dict(fn="subgroups", targets=(4, 12), cap=CAP),
    task=dict(render=dict(fn="prefix", templates="{target}=", counts=True)),
    reward=dict(fn="hbpo", max_length=CAP, alpha=1 / CAP),
    advantage=dict(fn="budget_subgroup", max_length=CAP),
  ),
  "dot": dict(
    reward=dict(fn="correctness"),
    revise=dict(fn="cut_outliers", alpha=0.2, success=0.2, margin=1),
    filter=dict(fn="nonconstant_reward"),
    train=dict(window=20),
  ),
  "drpo": dict(loss=dict(fn="drpo", max_length=CAP), train=dict(micro_batches=2)),
  "pear": dict(task=THINK, reward=dict(fn="pear"), train=dict(updates=2)),
  "dapo": dict(
    reward=dict(fn="soft_overlong", max_length=CAP, buffer=4),
    filter=dict(fn="mixed_correctness"),
    train=dict(max_rounds=3),
  ),
  "mrt": dict(
    reward=dict(fn="mrt"),
    revise=dict(
      fn="force_answers", force="#", cap=4, episodes=2, samples=2, close="#", separator="="
    ),
  ),
  "hapo_mean": dict(task=TWO_STEPS, reward=dict(fn="hapo_mean", rows=8)),
  "effort": dict(
    task=TWO_STEPS | dict(render=dict(fn="suffix", templates=("1?", "2?"))),
    budget=dict(fn="effort", efforts=(0.5, 1.0), tokens=8, cap=CAP),
    reward=dict(
      fn="effort",
      efforts=(0.5, 1.0),
      reference=dict(fn="first_mean_reference", rows=8),
      term=dict(fn="length_multiplier", levels=2, step_size=0.5),
    ),
  ),
  "acoer": dict(reward=dict(fn="acoer", interval=1)),
  "length_dual": dict(reward=dict(fn="length_dual", target=4, step_size=0.5)),
  "a_dlp": dict(reward=dict(fn="a_dlp", reference=0.5, start=0.05, step_size=0.5)),
  "toggle": dict(
    task=TWO_STEPS, reward=dict(fn="toggle", rows=8, threshold=0.1, quantile=0.0, period=4)
  ),
  "profiled_penalty": dict(
    task=TWO_STEPS, reward=dict(fn="profiled_penalty", rows=8, min_right=1, deviations=-9.0)
  ),
  "adapt_think": dict(
    task=TWO_STEPS | dict(render=dict(fn="prefix", templates=("=1", "#"), counts=True)),
    budget=dict(fn="subgroups", targets=(CAP, 6)),
    reward=dict(fn="adapt_think", reference=dict(fn="first_accuracy_reference", rows=8)),
    advantage=dict(fn="raw"),
    loss=dict(fn="forced_opening", shares=(0.5, 0.5), base=dict(fn="sequence_clipped_surrogate")),
  ),
  "decs_aalc": dict(
    seed=6,
    task=dict(signals=dict(fn="answer_chunk", extract="last_number", close="#")),
    reward=dict(fn="aalc", max_length=CAP, alpha=1.0, beta=1.0),
    filter=dict(fn="easy_share", step_size=1.0, needed=0.0),
    train=dict(group_size=2),
    monitor=dict(every=3, prompts=4),
  ),
  "lapo": dict(
    task=TWO_STEPS | dict(render=dict(fn="prefix", templates=("", "{target}=", "{target}="))),
    budget=dict(fn="right_median", rows=8, fallback=CAP, shown_from=2),
    reward=dict(fn="bell_length", sigma=3.0),
  ),
  "short_rl": dict(reward=dict(fn="short_rl", slack=1.0, tolerance=0.0)),
  "leash": dict(reward=dict(fn="leash", target=4, start=0.1, step_size=0.5)),
  "lagrangian": dict(reward=LAGRANGIAN),
  "conciseness": dict(reward=dict(fn="conciseness", alpha=1.0, anneal_steps=4)),
  "adaptive_shortest": dict(
    filter=dict(fn="adaptive_shortest", counts=(4, 3, 2, 1), window=8, warmup=2)
  ),
  "canon_length": dict(advantage=dict(fn="canon_length", mu=RESTARTS)),
  "canon_entropy": dict(advantage=dict(fn="canon_entropy", mu=RESTARTS)),
}

# %% [markdown]
# # From an idea for a length reward to its Pareto point
#
# A model that reasons should use few tokens and stay right. In this notebook you write a new length
# reward in ten lines, train with it, and see where it stands between plain correctness and a
# published bonus. It takes about three minutes on two quiet CPU cores.

# %%
import inspect
import json
import random
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
from IPython.display import Image

from lcrl.commands.export import export
from lcrl.commands.train import keep_programs
from lcrl.evaluation import plots
from lcrl.tasks import arithmetic
from lcrl.training.loop import train
from lcrl.types import Stage

keep_programs()  # compiled programs stay in your cache folder
runs = Path(tempfile.mkdtemp())

# %% [include] start.py

# %% [markdown]
# ## The idea
#
# If the answers to a problem compete, nobody has to say how long an answer may be: the shortest right
# one of its group wins a bonus. A reward is a `Stage`: an initial state, and a pure function of state
# and rollouts, whose arrays are `[prompts, group]`.


# %%
def podium(*, bonus: float) -> Stage:
  """1 for a right answer, and `bonus` more for the shortest right one of its group."""

  def apply(state, rollouts):
    lengths = jnp.where(rollouts.correct, rollouts.lengths, jnp.inf)
    shortest = lengths == lengths.min(axis=-1, keepdims=True)
    return rollouts.correct * (1 + bonus * shortest), state

  return Stage(init=lambda: (), apply=apply, needs=("group",))


# %% [markdown]
# Look at it before you train. In this group of four answers the third is the shortest, but it is
# wrong: the second one wins.

# %%
group = SimpleNamespace(
  correct=jnp.array([[True, True, False, True]]), lengths=jnp.array([[30, 19, 7, 25]])
)
rewards, _ = podium(bonus=0.5).apply((), group)
print(rewards)

# %% [markdown]
# ## A run
#
# A config names a function of your own as `module:name`, so the reward goes into a file. Nothing in
# the library changes.

# %%
imports = "import jax.numpy as jnp\n\nfrom lcrl.types import Stage\n\n\n"
(runs / "ideas.py").write_text(imports + inspect.getsource(podium))
sys.path.insert(0, str(runs))


def config(reward):
  """GRPO on sums; only the reward differs between runs."""
  return {
    "seed": 0,
    "budget": {"fn": "fixed", "target": 23, "cap": 51},
    "reward": reward,
    "filter": {"fn": "keep_all"},
    "advantage": {"fn": "group_normalized"},
    "loss": {"fn": "clipped_surrogate", "clip_low": 0.2, "clip_high": 0.28},
    "weights": {"fn": "token_mean"},
    "policy": {"fn": "pretrained", "path": str(runs / "start")},
    "tokenizer": {"fn": "sums"},
    "task": {"fn": "arithmetic", "size": 8192, "seed": 0},
    "eval_task": {"fn": "arithmetic", "size": 1024, "seed": 0, "held_out": True},
    "sampling": {"temperature": 1.0},
    "optimizer": {"fn": "adamw", "learning_rate": 3e-4},
    "mesh": {"devices": 1},
    "train": {
      "steps": 60,
      "prompts": 16,
      "group_size": 8,
      "max_tokens": 51,
      "max_prompt_tokens": 9,
    },
    "eval": {"prompts": 512},
    "log": {"samples": 128},
    "verify": {"workers": 1},
  }


# %% [markdown]
# Three rewards compete, with the same prompts and the same random keys: correctness alone; LASER, a
# bonus for a right answer of at most 23 tokens ([2505.15612](https://arxiv.org/abs/2505.15612)); and
# yours.

# %%
candidates = {
  "correctness": {"fn": "correctness"},
  "laser": {"fn": "step_bonus", "alpha": 0.5},
  "podium": {"fn": "ideas:podium", "bonus": 0.5},
}
results = {name: train(config(reward), runs / name) for name, reward in candidates.items()}
for name, result in results.items():
  print(f"{name:12} right {result['accuracy']:.1%}  {result['tokens']:5.1f} tokens")

# %% [markdown]
# ## Its Pareto point
#
# The picture shows accuracy against tokens on problems that no run trained on, with 95 % intervals.
# Up and to the left is better. The diamond is where all three started; the broken line joins the runs
# that no other run beats in both. Here `podium` is as right as correctness alone and needs a third
# fewer tokens. LASER is in between in tokens: it stops paying at its target. This is one seed of a
# short run; `experiments/studies/testbed` has up to ten seeds of 72 methods.

# %%
plots.pareto(runs / "pareto.png", results)
Image(runs / "pareto.png")

# %% [markdown]
# In the last step all three policies answered the same problems. This is the first one with four
# operands.

# %%
for name in candidates:
  *_, last = sorted((runs / name / "samples").iterdir())
  samples = map(json.loads, last.read_text().splitlines())
  hard = next(s for s in samples if s["step"] == 60 and len(s["prompt"]) == 9)
  verdict = "right" if hard["correct"] else "wrong"
  print(f"{name:12} {hard['prompt']} {hard['response']}  {verdict}, reward {hard['reward']}")

# %% [markdown]
# **Your turn.** Make `bonus` smaller, pay by rank instead of only the winner, or let the race end at
# a finish line. Then run the cells from the idea on again, with another folder: `runs = ...`.

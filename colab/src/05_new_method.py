# %% [markdown]
# # A new method in the five slots
#
# A method is a choice of five stages: budget, reward, filter, advantage and loss. Here you write two of
# them, take the other three from the library, put all into a config, and start the second half of the
# method in the middle of the run. Nothing in the library changes. It takes about three minutes on two
# CPU cores.

# %%
import inspect
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
from IPython.display import Image
from ml_collections import config_dict

from lcrl.commands.export import export
from lcrl.commands.train import keep_programs
from lcrl.tasks import arithmetic
from lcrl.training.loop import train
from lcrl.types import Budget, Stage

keep_programs()  # compiled programs stay in your cache folder
runs = Path(tempfile.mkdtemp())
os.chdir(runs)

# %% [include] start.py

# %% [markdown]
# ## Slot 2: a reward with a state
#
# The idea: the policy competes with itself. A right answer earns a bonus if it is shorter than right
# answers to problems of the same difficulty have lately been. A stage is a pure function of its state,
# here a mean length for each number of operands, and of the rollouts. `numbers` and `targets` are
# optional: with them the state and the length that answers are compared with become metrics.


# %%
def own_pace(*, bonus: float, decay: float = 0.7) -> Stage:
  """1 for a right answer, and `bonus` more if it is shorter than such answers have lately been."""
  operands = jnp.arange(5)

  def compared(pace, rollouts):
    return jnp.broadcast_to(pace[rollouts.difficulty][:, None], rollouts.lengths.shape)

  def apply(pace, rollouts):
    right, lengths = rollouts.correct, rollouts.lengths
    rewards = right * (1 + bonus * (lengths < compared(pace, rollouts)))
    of = right & (rollouts.difficulty[:, None] == operands[:, None, None])
    count = of.sum((1, 2))
    mean = jnp.where(of, lengths, 0).sum((1, 2)) / jnp.maximum(count, 1)
    return rewards, jnp.where(count > 0, decay * pace + (1 - decay) * mean, pace)

  return Stage(
    init=lambda: jnp.full(operands.shape, 51, jnp.float32),
    apply=apply,
    targets=lambda pace, rollouts: {"own_pace": compared(pace, rollouts)},
    numbers=lambda pace: {f"own_pace/operands_{n}": pace[n] for n in (2, 3, 4)},
  )


# %% [markdown]
# ## Slot 1: a budget that tightens
#
# A budget gives every rollout a target, which rewards may compare with, a cap, where sampling stops,
# and a level, which chooses a prompt template. This one lowers the cap as the run goes on.


# %%
def tightening(*, first: int, last: int, steps: int) -> Stage:
  """A cap that falls from `first` to `last` tokens in so many steps."""

  def apply(state, prompt_ids, *, step, key, group_size):
    share = jnp.clip(step / steps, 0, 1)
    tokens = jnp.round(first + (last - first) * share).astype(jnp.int32)
    cap = jnp.full((len(prompt_ids), group_size), tokens)
    return Budget(target=cap, cap=cap, level=jnp.zeros_like(cap)), state

  return Stage(init=lambda: (), apply=apply)


# %% [markdown]
# ## A config
#
# `fn` names a function of the library, or one of yours as `module:name`. The first 15 steps pay for
# correctness alone; then `then` puts the new reward into its slot. The smoke mode is a run of seconds
# that tells whether all parts fit together.


# %%
def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="pace:tightening", first=51, last=45, steps=40)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="mixed_correctness")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.then = [dict(at=15, reward=dict(fn="pace:own_pace", bonus=0.5))]
  c.policy = dict(fn="pretrained", path="start")
  c.tokenizer = dict(fn="sums")
  c.task = dict(fn="arithmetic", size=8192, seed=0)
  c.eval_task = dict(fn="arithmetic", size=1024, seed=0, held_out=True)
  c.sampling = dict(temperature=1.0)
  c.optimizer = dict(fn="adamw", learning_rate=3e-4)
  c.mesh = dict(devices=1)
  c.train = dict(steps=60, prompts=16, group_size=8, max_tokens=51, max_prompt_tokens=9)
  c.eval = dict(prompts=512)
  c.verify = dict(workers=1)
  if mode == "smoke":
    c.then[0]["at"] = 1
    c.train.update(steps=2, prompts=4, group_size=4)
    c.eval.prompts = 8
  return c


# %% [markdown]
# Both files lie in the folder in which the run starts.

# %%
stages = "import jax.numpy as jnp\n\nfrom lcrl.types import Budget, Stage\n"
imports = "from ml_collections import config_dict\n"
files = {"pace.py": [stages, *map(inspect.getsource, (own_pace, tightening))]}
files["pace_config.py"] = [imports, inspect.getsource(get_config)]
for name, parts in files.items():
  Path(name).write_text("\n\n".join(parts))

# %% [markdown]
# ## A smoke run
#
# On the command line the same is `lcrl-train --config=pace_config.py:smoke --workdir=smoke`.

# %%
command = [sys.executable, "-m", "lcrl.commands.train"]
command += ["--config=pace_config.py:smoke", "--workdir=smoke"]
smoke = subprocess.run(command, capture_output=True, text=True, check=True)
print(smoke.stdout)

# %% [markdown]
# ## The run

# %%
sys.path.insert(0, str(runs))
result = train(get_config().to_dict(), "pace", method="own pace")
for name, point in (("start", result["start"]), ("own pace", result)):
  print(f"{name:9} right {point['accuracy']:.1%}  {point['tokens']:5.1f} tokens")

# %% [markdown]
# ## Its metrics
#
# `metrics.jsonl` has a row for each step. The state of the new reward, its target, and the share of
# answers within it are among the names, since the stage fills `numbers` and `targets`.

# %%
rows = [json.loads(line) for line in Path("pace/metrics.jsonl").read_text().splitlines()]
steps = [row for row in rows if "loss" in row]
for name, value in steps[-1].items():
  if "own_pace" in name or name.startswith(("budget/", "length/difficulty")):
    print(f"{name:32} {value:.3f}")

# %% [markdown]
# The left picture is of problems with four operands: the mean length of an answer, the pace that it
# competes with, and the cap. The dotted line is where the new reward begins: within ten steps the pace
# comes down from its first value to the length of the answers, and then both stay level. The right
# picture shows that more answers become right. So in these 60 steps the method holds the length of the
# start, where correctness alone lengthens answers (notebook 1: 28.9 tokens); it does not shorten them.
# That is what a smoke test of an idea is for: raise `bonus`, or lower the pace, and run it again.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.4), layout="constrained")
at = [row["step"] for row in steps]
for label, name in {
  "an answer": "length/difficulty_4",
  "its pace": "state/reward/own_pace/operands_4",
  "the cap": "budget/cap",
}.items():
  left.plot(at, [row.get(name) for row in steps], label=label)
right.plot(at, [100 * row["accuracy"] for row in steps])
for axes, title in ((left, "tokens, four operands"), (right, "right answers of a step, %")):
  axes.axvline(15, color="grey", linestyle=":")
  axes.set_title(title, loc="left")
  axes.set_xlabel("step")
left.set_ylim(bottom=0)
left.legend(frameon=False)
figure.savefig("pace.png", dpi=120)
Image("pace.png")

# %% [markdown]
# **Where next.** CONTRIBUTING.md says how a method joins the library: the bare function, its common
# laws, a golden value, a config. A stage that reads more than lengths and verdicts lists what it needs
# in `needs`, such as `"group"` or a signal of the text; a run that lacks it is refused at its start.

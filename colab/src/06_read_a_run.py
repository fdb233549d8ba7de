# %% [markdown]
# # Read a run: dynamics, samples, comparison
#
# You train two short runs that differ only in their reward, and then read what they left: numbers by
# step, the picture of how they learned, single answers with all that was paid for them, and a page that
# compares runs. It takes about three minutes on two quiet CPU cores.

# %%
import html
import json
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import HTML, Image, Markdown

from lcrl.commands.compare import compare
from lcrl.commands.export import export
from lcrl.commands.train import keep_programs
from lcrl.tasks import arithmetic
from lcrl.training.loop import train

keep_programs()  # compiled programs stay in your cache folder
runs = Path(tempfile.mkdtemp())
os.chdir(runs)

# %% [include] start.py

# %% [markdown]
# ## Two runs
#
# `correctness` pays 1 for a right answer. `laser` pays half a point more if the answer has at most 23
# tokens. Every 20 steps both are evaluated on problems that no run trains on.

# %%
config = {
  "seed": 0,
  "budget": {"fn": "fixed", "target": 23, "cap": 51},
  "filter": {"fn": "keep_all"},
  "advantage": {"fn": "group_normalized"},
  "loss": {"fn": "clipped_surrogate", "clip_low": 0.2, "clip_high": 0.28},
  "weights": {"fn": "token_mean"},
  "policy": {"fn": "pretrained", "path": "start"},
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
  "eval": {"every": 20, "prompts": 512},
  "verify": {"workers": 1},
}
rewards = {"correctness": {"fn": "correctness"}, "laser": {"fn": "step_bonus", "alpha": 0.5}}
for name, reward in rewards.items():
  train({**config, "reward": reward}, name, method=name)
print(*sorted(path.name for path in Path("laser").iterdir()), sep="\n")

# %% [markdown]
# ## Numbers by step
#
# `metrics.jsonl` has a line for each step and each evaluation; METRICS.md explains the names.
# TensorBoard's events hold the same scalars. With `log.to=("wandb",)` a tracker gets them too.


# %%
def steps_of(name):
  lines = Path(name, "metrics.jsonl").read_text().splitlines()
  return [row for row in map(json.loads, lines) if "loss" in row]


for row in (steps_of("laser")[0], steps_of("laser")[-1]):
  for name in ("step", "accuracy", "length/mean", "reward", "term/step_bonus", "entropy"):
    print(f"{name:16} {row[name]:8.3f}")
  print()

# %% [markdown]
# Wrong answers are longer than right ones in many runs. If they alone become shorter, a length reward
# has only taught the policy to give up early. So look at right and wrong answers separately. In this
# picture the right answers of `correctness` grow, as harder problems come right; those of `laser` stay
# short.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.2), sharey=True, layout="constrained")
for ax, name in zip(axes, rewards, strict=True):
  rows = steps_of(name)
  for side in ("right", "wrong"):
    ax.plot([row["step"] for row in rows], [row.get(f"length/{side}") for row in rows], label=side)
  ax.set_title(f"{name}: tokens of an answer", loc="left")
  ax.set_xlabel("step")
axes[0].set_ylim(bottom=0)
axes[1].legend(frameon=False)
figure.savefig("lengths.png", dpi=120)
Image("lengths.png")

# %% [markdown]
# ## How it learned
#
# Every run leaves `report.md` with its pictures. The one of its dynamics shows lengths by verdict with
# their spread, clipping, KL, the probability of the end token, answers that met the cap, and what each
# term of the reward paid. Here nothing is clipped and both KLs are 0, since every step has one update:
# the policy that trains is the one that sampled. Some right answers have a negative advantage, because
# shorter ones of their group earned the bonus. Look here first when a run goes wrong: in a collapse
# that share grows, and lengths fall for right and wrong answers alike.

# %%
Image("laser/dynamics.png")

# %% [markdown]
# ## Single answers
#
# `samples` keeps some rollouts of each step, with everything behind their advantage. This is one right
# and short answer of the last step.

# %%
*_, last = sorted(Path("laser/samples").iterdir())
samples = [json.loads(line) for line in last.read_text().splitlines()]
good = next(s for s in reversed(samples) if s["correct"] and s["length"] <= 23)
for name, value in good.items():
  print(f"{name:16} {value}")

# %% [markdown]
# ## Compare runs
#
# `lcrl-compare runs/* --out=compared` does this on the command line. Runs that differ in the seed alone
# are averaged, and runs that were measured differently are not compared.

# %%
Markdown(compare([*rewards], Path("compared"), baseline="correctness"))

# %%
Image("compared/pareto.png")

# %% [markdown]
# ## The page
#
# `comparison.html` is one file that needs no network: accuracy against tokens, curves over steps, what
# each term of the reward paid, lengths, and answers side by side. In Colab it is shown below and is
# interactive. Where a Chromium is installed, as for the stored notebook, you see a picture of it.

# %%
page = runs / "compared" / "comparison.html"
browser = shutil.which("chromium")
if browser:
  shot = runs / "page.png"
  options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1200,1500"]
  target = [f"--screenshot={shot}", page.as_uri()]
  subprocess.run([browser, *options, *target], check=True, capture_output=True, timeout=120)
  shown = Image(shot)
else:
  shown = HTML(f'<iframe srcdoc="{html.escape(page.read_text())}" width="100%" height="800">')
shown

# %% [markdown]
# # An effort dial: one policy, three efforts
#
# One policy learns to answer a problem with as much effort as the prompt asks for. A digit before the
# problem says how much, and the reward has a target length for each effort. The result is not
# one point of accuracy against tokens, but a curve. It takes about three minutes on two quiet CPU cores.

# %%
import json
import random
import tempfile
from pathlib import Path

from IPython.display import Image, Markdown

from lcrl.commands.export import export
from lcrl.commands.train import keep_programs
from lcrl.evaluation import tables
from lcrl.evaluation.effort_report import efforts_table
from lcrl.tasks import arithmetic
from lcrl.training.loop import train

keep_programs()  # compiled programs stay in your cache folder
runs = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A policy that knows three ways of working
#
# The problems are sums modulo 10 with a working of labelled steps. Behind the digit 0 the
# demonstrations take up to three operands a step, behind 1 two, and behind 2 one. Short steps are
# easier to get right. A small decoder imitates them.


# %%
def working(problem, level):
  """A right answer to a problem such as a3b5c9?"""
  labels, digits = problem[:-1:2], [int(digit) for digit in problem[1::2]]
  text, value, done = "", 0, 0
  while done < len(digits):
    some = digits[done : done + 3 - level]
    total = (value + sum(some)) % 10
    text += f"{labels[done]}{value}+{'+'.join(map(str, some))}={total}"
    value, done = total, done + len(some)
  return f"{text}#{value}"


rng, rows = random.Random(0), []
for prompt in arithmetic(size=8192, seed=1).prompts:
  problem, level = prompt.messages[0]["content"], rng.randrange(3)
  rows.append({"prompt": f"{level}{problem}", "response": working(problem, level)})
(runs / "demonstrations.jsonl").write_text("\n".join(map(json.dumps, rows)))
for row in rows[:4]:
  print(row["prompt"], row["response"])

# %%
imitation = {
  "run": "sft",
  "seed": 0,
  "policy": {"fn": "fresh", "vocab_size": 20},
  "tokenizer": {"fn": "sums"},
  "data": {
    "fn": "responses",
    "rows": {"fn": "jsonl", "path": str(runs / "demonstrations.jsonl")},
    "window": 40,
    "max_prompt_tokens": 10,
    "held_out": 0.01,
  },
  "batches": {"fn": "bucketed", "size": 64, "lengths": (20, 28, 40)},
  "loss": {"fn": "nll"},
  "weights": {"fn": "token_mean"},
  "sampling": {"temperature": 1.0},
  "optimizer": {"fn": "adamw", "learning_rate": 4e-3, "warmup_steps": 40, "decay_steps": 500},
  "mesh": {"devices": 1},
  "train": {"steps": 500, "max_tokens": 32, "max_prompt_tokens": 10},
  "eval": {"pairs": 64, "prompts": 64},
  "checkpoint": {"every": 500},
}
train(imitation, runs / "imitation")
step = export(runs / "imitation", runs / "start")
print(f"step {step} of the imitation is the policy to start from")

# %% [markdown]
# ## The dial
#
# Three sections belong together. The budget draws an effort for each group of answers. `render` shows
# it in the prompt. The reward has a target, the effort times a reference length: a right answer gains
# up to as much again the shorter it is than the target, and any answer pays for what is beyond. The
# evaluation asks for all three efforts.

# %%
EFFORTS = (0.5, 0.7, 1.0)  # of the 27 tokens of the longest working
digits = {"fn": "system", "templates": ("0", "1", "2")}
dial = {
  "seed": 0,
  "budget": {"fn": "effort", "efforts": EFFORTS, "tokens": 27, "cap": 32},
  "reward": {
    "fn": "effort",
    "efforts": EFFORTS,
    "reference": {"fn": "fixed_reference", "tokens": 27},
    "term": {"fn": "length_ratio", "weight": 1.0},
  },
  "filter": {"fn": "keep_all"},
  "advantage": {"fn": "group_centered"},
  "loss": {"fn": "clipped_surrogate", "clip_low": 0.2, "clip_high": 0.28},
  "weights": {"fn": "token_mean"},
  "policy": {"fn": "pretrained", "path": str(runs / "start")},
  "tokenizer": {"fn": "sums"},
  "task": {"fn": "arithmetic", "size": 8192, "seed": 0, "render": digits},
  "eval_task": {
    "fn": "arithmetic",
    "size": 256,
    "seed": 0,
    "held_out": True,
    "render": digits,
    "efforts": EFFORTS,
  },
  "sampling": {"temperature": 1.0},
  "optimizer": {"fn": "adamw", "learning_rate": 3e-4},
  "mesh": {"devices": 1},
  "train": {
    "steps": 60,
    "prompts": 24,
    "group_size": 8,
    "max_tokens": 32,
    "max_prompt_tokens": 10,
  },
  "eval": {"prompts": 256},
  "verify": {"workers": 1},
}
result = train(dial, runs / "dial")

# %% [markdown]
# ## Its curve
#
# Each point is the same policy, asked for another effort, with 95 % intervals. The dial works if more
# effort spends more tokens, and it is worth turning if it is right more often.

# %%
Image(runs / "dial" / "efforts.png")

# %%
Markdown(tables.to_markdown(efforts_table({"dial": result})))

# %% [markdown]
# **Where next.** `lcrl-evaluate --workdir=RUN --efforts=0.5,0.7,1 --front=RUN,RUN` compares the curve
# with runs of single methods. RUNNING.md lists the other references and terms, and
# `configs/arithmetic_effort.py` is the larger version of this run.

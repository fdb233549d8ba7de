# %% [markdown]
# # SimPO and LD-DPO on your own pairs
#
# You have pairs: a prompt, a better answer and a worse one. Better answers are often longer ones, and
# a policy may learn that as well. In this notebook you write pairs as JSON lines, train on them with
# SimPO and LD-DPO, compare with DPO and R-DPO, and see which pairs each policy gets right and how long
# its own answers become. It takes about three minutes on two quiet CPU cores.

# %%
import json
import random
import tempfile
from pathlib import Path

from IPython.display import Image, Markdown

from lcrl.commands.export import export
from lcrl.commands.train import keep_programs
from lcrl.evaluation import plots, tables
from lcrl.training.loop import train

keep_programs()  # compiled programs stay in your cache folder
runs = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The pairs
#
# The question is which of two numbers is larger. The better answer is right, the worse one is wrong.
# Both may go on with words that say nothing, and the better one does so more often: length goes along
# with quality and is not quality. A row has the fields `prompt`, `chosen` and `rejected`; the layouts
# of UltraFeedback, HH-RLHF and Alpaca will do, too.


# %%
def answer(number, more):
  return f"{number}." + " Sure." * more


def question(rng, for_evaluation=False):
  """A prompt, the larger number and the smaller one. No question trains and evaluates."""
  small, large = sorted(rng.sample(range(10, 100), 2))
  if ((small + large) % 5 == 0) != for_evaluation:
    return question(rng, for_evaluation)
  first, second = rng.sample((small, large), 2)
  return f"{first} or {second}?", large, small


def pair(rng):
  prompt, large, small = question(rng)
  chosen, rejected = answer(large, rng.randint(1, 4)), answer(small, rng.randint(0, 2))
  return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def write(name, rows):
  (runs / name).write_text("\n".join(map(json.dumps, rows)))


rng = random.Random(0)
pairs = [pair(rng) for _ in range(1500)]
write("pairs.jsonl", pairs)
for row in pairs[:3]:
  print(row)

# %% [markdown]
# ## A policy to start from
#
# A small decoder of bytes imitates answers of which three quarters are right, with 0 to 4 such words. In
# your work this is the model that you have: `{"fn": "pretrained", "path": ...}` with a folder or a
# hub id, and no section `tokenizer`.

# %%
examples, problems = [], []
for _ in range(6000):
  prompt, large, small = question(rng)
  number = large if rng.random() < 0.75 else small
  examples.append({"prompt": prompt, "response": answer(number, rng.randint(0, 4))})
for _ in range(256):
  prompt, large, _ = question(rng, for_evaluation=True)
  problems.append({"question": prompt, "answer": str(large)})
write("examples.jsonl", examples)
write("problems.jsonl", problems)

common = {
  "seed": 0,
  "tokenizer": {"fn": "utf8"},
  "task": {"fn": "jsonl", "path": str(runs / "problems.jsonl"), "extract": "last_number"},
  "batches": {"fn": "stratified", "size": 32},
  "sampling": {"temperature": 1.0},
  "mesh": {"devices": 1},
  "checkpoint": {"every": 1000},
  "eval": {"pairs": 256, "prompts": 256},
}


def data(fn, file):
  rows = {"fn": "jsonl", "path": str(runs / file)}
  return {"fn": fn, "rows": rows, "window": 40, "max_prompt_tokens": 12, "held_out": 0.1}


def sizes(steps):
  return {"steps": steps, "max_tokens": 40, "max_prompt_tokens": 12, "pack": 80}


imitation = {
  **common,
  "run": "sft",
  "policy": {"fn": "fresh", "vocab_size": 258},
  "data": data("responses", "examples.jsonl"),
  "loss": {"fn": "nll"},
  "weights": {"fn": "token_mean"},
  "optimizer": {"fn": "adamw", "learning_rate": 3e-3, "warmup_steps": 30, "decay_steps": 500},
  "train": sizes(500),
}
train(imitation, runs / "imitation")
step = export(runs / "imitation", runs / "start")
print(f"step {step} of the imitation is the policy to start from")

# %% [markdown]
# ## Four losses
#
# SimPO compares mean log-probs a token, wants a margin, and has no reference. The others compare with
# the start, so their configs have the section `reference`; its log-probs are computed once and stored.
# LD-DPO counts what an answer has beyond the length of the other by half. R-DPO is DPO with a price for
# every token by which the better answer is longer.

# %%
losses = {
  "simpo": {"loss": {"fn": "simpo", "beta": 2.0, "margin": 0.5}},
  "ld_dpo": {"loss": {"fn": "ld_dpo", "beta": 0.1, "alpha": 0.5}, "reference": {"fn": "cached"}},
  "dpo": {"loss": {"fn": "dpo", "beta": 0.1}, "reference": {"fn": "cached"}},
  "r_dpo": {"loss": {"fn": "r_dpo", "beta": 0.1, "alpha": 0.2}, "reference": {"fn": "cached"}},
}
preference = {
  **common,
  "run": "preference",
  "policy": {"fn": "pretrained", "path": str(runs / "start")},
  "data": data("pairs", "pairs.jsonl"),
  "optimizer": {"fn": "adamw", "learning_rate": 1e-4},
  "train": sizes(40),
}
results = {name: train({**preference, **loss}, runs / name) for name, loss in losses.items()}

# %% [markdown]
# ## Before and after
#
# Reward accuracy is the share of held-out pairs in which the loss's own reward prefers the better
# answer. The other columns are of the policy's own answers to 256 questions: how many are right, and
# their tokens, which are bytes here.


# %%
def row(name, point):
  accuracy = point["pairs"]["accuracy"]
  return [name, f"{accuracy:.0%}", f"{point['accuracy']:.0%}", f"{point['tokens']:.1f}"]


def last(name):
  return json.loads((runs / name / "evaluations.jsonl").read_text().splitlines()[-1])


head = ["policy", "reward accuracy", "right answers", "tokens"]
first = json.loads((runs / "dpo" / "evaluations.jsonl").read_text().splitlines()[0])
body = [["start", "", *row("", first)[2:]], *(row(name, last(name)) for name in losses)]
Markdown(tables.to_markdown((head, body)))

# %% [markdown]
# The same as a picture: right answers against tokens, with 95 % intervals. All four are right more
# often than the start, and by about as much. All four also write more. SimPO and LD-DPO come close to
# 28 tokens, the longest answers of the pairs: that they count tokens by another measure does not take
# back what the pairs teach. The price of R-DPO takes back some of it. A study of the repository,
# `experiments/studies/preference`, finds the same on sums with three seeds.

# %%
plots.pareto(runs / "pareto.png", results)
Image(runs / "pareto.png")

# %% [markdown]
# ## Where the rewards come from
#
# Every run on pairs leaves this picture: the reward that the policy implies, against the length of the
# answer, before and after. A line that rises says that longer answers are preferred. This is SimPO's.

# %%
Image(runs / "simpo" / "reward_by_length.png")

# %% [markdown]
# And this is that of R-DPO. It rises, too, but hardly between 10 and 16 tokens.

# %%
Image(runs / "r_dpo" / "reward_by_length.png")

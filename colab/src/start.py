# Cells that several notebooks share: a policy that solves sums with needless steps.
# %% [markdown]
# ## The task
#
# The problems are sums modulo 10, and a working has labelled steps. The shortest correct working is
# known, so we can tell how much of an answer is needless. We write demonstrations that are right and
# too long: mostly one operand a step, and most steps twice.


# %%
def working(problem, rng):
  """A long and right answer to a problem such as a3b5c9?"""
  labels, digits = problem[:-1:2], [int(digit) for digit in problem[1::2]]
  text, value, done = "", 0, 0
  while done < len(digits):
    some = digits[done : done + rng.choice((1, 1, 1, 2, 2, 3))]
    total = (value + sum(some)) % 10
    step = f"{labels[done]}{value}+{'+'.join(map(str, some))}={total}"
    text += step * rng.choice((1, 2, 2, 2))
    value, done = total, done + len(some)
  return f"{text}#{value}"


rng = random.Random(0)
problems = [p.messages[0]["content"] for p in arithmetic(size=8192, seed=1).prompts]
rows = [{"prompt": problem, "response": working(problem, rng)} for problem in problems]
(runs / "demonstrations.jsonl").write_text("\n".join(map(json.dumps, rows)))
for row in rows[:3]:
  print(row["prompt"], row["response"])

# %% [markdown]
# ## A policy to start from
#
# A decoder of 100,000 parameters learns to imitate the demonstrations. A run is a config, here of
# kind `sft`, and a folder. The export of its last checkpoint is a model folder.

# %%
imitation = {
  "run": "sft",
  "seed": 0,
  "policy": {"fn": "fresh", "vocab_size": 20},
  "tokenizer": {"fn": "sums"},
  "data": {
    "fn": "responses",
    "rows": {"fn": "jsonl", "path": str(runs / "demonstrations.jsonl")},
    "window": 60,
    "max_prompt_tokens": 9,
    "held_out": 0.01,
  },
  "batches": {"fn": "bucketed", "size": 64, "lengths": (24, 36, 48, 60)},
  "loss": {"fn": "nll"},
  "weights": {"fn": "token_mean"},
  "sampling": {"temperature": 1.0},
  "optimizer": {"fn": "adamw", "learning_rate": 4e-3, "warmup_steps": 40, "decay_steps": 500},
  "mesh": {"devices": 1},
  "train": {"steps": 500, "max_tokens": 51, "max_prompt_tokens": 9},
  "eval": {"pairs": 64, "prompts": 64},
  "checkpoint": {"every": 500},
}
train(imitation, runs / "imitation")
step = export(runs / "imitation", runs / "start")
print(f"step {step} of the imitation is the policy to start from")

"""Folders of made-up runs and evaluations, as `lcrl-train` and `.evaluate` lay them out."""

import json

import numpy as np

from lcrl.evaluation import write_json
from tests.helpers.summaries import ABOUT, run

HOSTILE = "</script><script>document.title = 'broken'</script><img src=x onerror=alert(1)> \ud800"


def write_lines(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def train_folder(folder, method, *, right=90, tokens=20, seed=0, steps=40, prompts=4, text="1+1=2"):
  """A finished run whose length falls over training; returns its folder."""
  folder.mkdir(parents=True)
  rng = np.random.default_rng(seed)
  sections = {"reward": {"fn": method}, "train": {"steps": steps, "max_tokens": 64}}
  write_json(folder / "config.json", {"config": {**sections, "seed": seed}, "method": method})
  write_json(folder / "summary.json", run(method, right, tokens, seed=seed) | {"method": method})
  share = lambda: float(np.clip(right / 100 + rng.normal(0, 0.03), 0, 1))
  rows = [
    {
      "step": step,
      "time/step": 0.1,
      "accuracy": share(),
      "length/mean": tokens + 20 * np.exp(-step / 10) + rng.normal(),
      "reward": 1 - step / steps,
      "clip_fraction": 0.1 * share(),
      "term/correctness": share(),
      f"term/{method}": -0.3 + step / steps / 4,
    }
    for step in range(1, steps + 1)
  ]
  write_lines(folder / "metrics.jsonl", rows)
  judged = [{"step": s, **run(method, right, tokens + 20 - s / 2)} for s in (0, steps)]
  write_lines(folder / "evaluations.jsonl", judged)
  samples = [
    {
      "step": step,
      "prompt": f"What is {p} + 1? {text[:9]}",
      "response": f"{text} {p}",
      "reference": p + 1,
      "correct": bool(rng.random() < right / 100),
      "length": int(max(1, rng.normal(tokens, 4))),
      "truncated": p == 0,
    }
    for step in range(steps - 1, steps + 1)
    for p in range(prompts)
    for _ in range(4)
  ]
  write_lines(folder / "samples" / "00000001.jsonl", samples)
  return folder


def point(right, tokens):
  keys = ("accuracy", "accuracy_ci", "tokens", "tokens_ci")
  return {key: x for key, x in run("x", right, tokens).items() if key in keys} | {
    "by_difficulty": {}
  }


def evaluation_folder(folder, *, caps=(16, 32, 64), right=80, asked=False, **more):
  """An evaluation at several caps, with two answers to each of three prompts."""
  folder.mkdir(parents=True, exist_ok=True)
  record = {
    "budgets": {str(cap): point(right - 200 // cap, 0.4 * cap) for cap in caps},
    "task": {"fn": "jsonl"},
    "temperature": 1.0,
    "seed": 0,
    "method": folder.name,
    **ABOUT,
    **more,
  }
  if asked:
    record["asked"] = [
      {"label": str(t), "target": t, "level": 0, **point(right, 0.9 * t)} for t in (10, 40, 20)
    ]
  write_json(folder / "evaluation.json", record)
  is_run = (folder / "metrics.jsonl").exists()
  answers = [
    {
      "budget": cap,
      "prompt_id": p,
      "sample": sample,
      "prompt": [{"role": "user", "content": f"What is {p} + 1?"}],
      "reference": p + 1,
      "text": f"{p} + 1 = {p + 1}, at most {cap}",
      "correct": p > 0,
      "tokens": 5 + p,
      "truncated": False,
    }
    for cap in caps
    for p in range(3)
    for sample in range(2)
  ]
  write_lines(folder / ("evaluation_answers.jsonl" if is_run else "answers.jsonl"), answers)
  return folder


def path_folder(folder, strengths=(0.0, 0.5, 1.0)):
  """A merge path: an evaluation at each strength, and path.json above them."""
  for strength in strengths:
    evaluation_folder(
      folder / f"strength_{strength:g}", right=70 + 20 * strength, method=f"path {strength:g}"
    )
  points = {
    f"{s:g}": json.loads((folder / f"strength_{s:g}" / "evaluation.json").read_text())
    for s in strengths
  }
  write_json(folder / "path.json", {"along": "a:b", "strengths": points})
  return folder

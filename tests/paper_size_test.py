"""benchmarks.paper_size: which cases run where, side by side, and what a second call repeats."""

import json
import threading

from experiments.benchmarks import paper_size
from experiments.benchmarks.paper_size import cases, line, measure, read


def test_cases_of_more_gpus_than_there_are_stay_out():
  assert {case.gpus for case in cases(1)} == {1}
  assert {"weak-8", "strong-4", "two-processes-8", "tensor-8"} <= {case.name for case in cases(8)}
  names = [case.name for case in cases(8)]
  assert len(names) == len({*names})
  paper = next(case for case in cases(8) if case.name == "strong-8")
  assert {"--prompts=128", "--slots=128", "--limit=8192", "--recipe=d"} <= {*paper.command}
  assert "--micro_tokens=16896" in paper.command  # two rows of 256 + 8,192
  long = next(case for case in cases(8) if case.name == "limit-8")
  assert {"--prompts=128", "--limit=16384", "--micro_tokens=16640"} <= {*long.command}


def test_cases_run_side_by_side_and_once(tmp_path, monkeypatch, capsys):
  """Two cases of one GPU meet; one of two GPUs gets both; the last does not fit the deadline."""
  both, out, ran = threading.Barrier(2, timeout=10), tmp_path / "out.jsonl", []

  def pretend(case, ids, seconds):
    ran.append((case.name, sorted(ids)))
    if case.gpus == 1:
      both.wait()
    if case.name == "weak-2":
      return {"case": case.name, "error": "out of memory"}
    return {"case": case.name, "own": {"step_s": 2.0, "mfu": 0.5}}

  monkeypatch.setattr(paper_size, "run", pretend)
  some = [c._replace(expected=1) for c in cases(2) if c.name in ("weak-1", "lora-8b-1", "weak-2")]
  late = next(c for c in cases(2) if c.name == "long-2")
  measure(out, [*some, late._replace(expected=10_000)], 2, deadline=60)
  assert {name for name, _ in ran[:2]} == {"weak-1", "lora-8b-1"}
  assert sorted(ran[0][1] + ran[1][1]) == [0, 1]
  assert ran[2] == ("weak-2", [0, 1])
  assert {row["case"] for row in read(out)} == {"weak-1", "lora-8b-1", "weak-2"}
  said = capsys.readouterr().out
  assert "long-2 waits" in said
  assert "| weak-1 | 2.0 s | - | - | - | - | - | 50.0% | - |" in said
  assert "| weak-2 | 'out of memory' |" in said


def test_a_line_of_sampling_shows_its_variant():
  slots = {"seconds": 3.0, "tokens_per_s": 1234.0, "of_floor": 0.5, "peak_gib": 2.0}
  row = json.loads(json.dumps({"case": "s", "variants": {"triton": {"slots": slots}}}))
  assert line(row) == "| s | - | 3.0 s | - | - | 1,234 | 50.0% | - | 2.0 GiB |"

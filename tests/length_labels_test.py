"""Meta length tokens before responses, from a file to a file that runs on pairs read."""

import json
import types

import pytest

from lcrl.commands import length_labels as command
from lcrl.data import readers
from lcrl.data.layouts import read_answer


def words(n):
  return " ".join(["word"] * n)


def run(monkeypatch, tmp_path, lines, **given):
  (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
  names = {"rows": str(tmp_path / "in.jsonl"), "out": str(tmp_path / "out.jsonl")}
  flags = types.SimpleNamespace(**{**names, "most": 20_000, "template": None, **given})
  monkeypatch.setattr(command, "FLAGS", flags)
  command.main(None)
  return [read_answer(row) for _, row in readers.jsonl(str(tmp_path / "out.jsonl"))]


def test_labels_and_stated_targets(tmp_path, monkeypatch, capsys):
  rows = [{"prompt": "Why?", "completion": words(n)} for n in (148, 20, 136, 900)]
  found = run(monkeypatch, tmp_path, rows, most=1, template=" In {words} words.")
  assert [pair.sides[0].split("\n")[0] for pair in found] == ["[MLT:150]", "[MLT:>800]"]
  assert found[1].sides[0] == f"[MLT:>800]\n{words(900)}"
  assert found[0].messages[-1]["content"] == "Why? In 150 words."
  shown = dict(
    line.split() for line in capsys.readouterr().out.replace("left over", "left").splitlines()
  )
  assert (shown["[MLT:150]"], shown["dropped"], shown["left"]) == ("1", "1", "1")
  assert run(monkeypatch, tmp_path, rows)[0].messages[-1]["content"] == "Why?"


def test_bad_input_is_named(tmp_path, monkeypatch):
  for rows, given, message in (
    ([{"prompt": "Why?", "completion": words(20)}], {}, "no response has a length"),
    ([{"prompt": "Why?"}], {}, "in.jsonl, line 1: no column completion"),
    ([{"prompt": "Why?", "completion": "a"}], {"most": 0}, "most must be at least 1"),
    ([], {"rows": "a.csv"}, "--rows=a.csv must end in"),
  ):
    with pytest.raises(ValueError, match=message):
      run(monkeypatch, tmp_path, rows, **given)

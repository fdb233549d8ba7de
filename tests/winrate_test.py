"""lcrl.commands.winrate: files of judges on made-up answers, and on real ones where they are."""

import json
import os
import pathlib
import types

import numpy as np
import pytest

from lcrl.commands import winrate as command
from lcrl.evaluation import wildbench
from lcrl.evaluation.judgements import model_outputs, read_judged
from lcrl.evaluation.length_controlled import Gamed, length_controlled_win_rate

SHARED = pathlib.Path(os.environ.get("LCRL_SHARED", pathlib.Path(__file__).parents[2] / "shared"))
ALPACA = SHARED / "data" / "alpaca_eval"


def save(path, content):
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return str(path)


def annotations(preferences, *, model="mine", baseline="base", first=0, extra=0):
  """AlpacaEval 2's rows; outputs grow with their number, the baseline's have 4 characters."""
  return [
    {
      "instruction": f"task {i}",
      "output_1": "base",
      "generator_1": baseline,
      "output_2": "x" * (3 + i % 3 + extra),
      "generator_2": model,
      "preference": preference,
    }
    for i, preference in enumerate(preferences, first)
  ]


def flags(**given):
  names = "answers generator point after annotations difficulty gamed strength tags"
  defaults = {"references": [], "margin": 500.0}
  return types.SimpleNamespace(**{**dict.fromkeys(names.split()), **defaults, **given})


def run(monkeypatch, tmp_path, **given):
  monkeypatch.setattr(command, "FLAGS", flags(out=str(tmp_path / "out"), **given))
  command.main(None)
  return json.loads((tmp_path / "out" / "winrate.json").read_text())


def test_json_and_csv_of_the_same_judgements_agree(tmp_path, monkeypatch, capsys):
  """The fit is that of the bare function, with difficulty and gamed baselines by index."""
  preference = [1.9, 1.2, 1.5, 1.1, 0, 1.7, 1.3, 1.6, 1.05, 1.4]
  rows = annotations(preference)
  lengths = [len(row["output_2"]) for row in rows]
  file = save(tmp_path / "mine.json", rows)
  lines = [f"{i},{p},{n},4" for i, (p, n) in enumerate(zip(preference, lengths, strict=True))]
  other = save(
    tmp_path / "same.csv", "\n".join(["index,preference,len_output,len_baseline", *lines])
  )
  gamma = np.linspace(-1, 1, 10) ** 2 + np.arange(10) / 4  # no symmetry
  z = np.stack([np.sin(np.arange(10)), np.cos(np.arange(10))])
  wins = 1 / (1 + np.exp(z))
  difficulty = save(
    tmp_path / "difficulty.csv",
    "\n".join(["index,instruction_difficulty", *(f"{9 - i},{gamma[9 - i]}" for i in range(10))]),
  )
  blocks = [f"{'ab'[b]},{i},{z[b, i]},{wins[b, i]}" for b in (0, 1) for i in range(10)]
  gamed = save(tmp_path / "gamed.csv", "\n".join(["model,index,std_delta_len,preference", *blocks]))
  given = {"difficulty": difficulty, "gamed": gamed, "strength": 10.0}
  ours = run(monkeypatch, tmp_path, annotations=[file], **given)["mine"]
  assert "| mine | 42.50 |" in capsys.readouterr().out  # the mean of 0.9, 0.2, 0.5, 0.1, 0.5, ...
  assert (ours["wins"], ours["losses"], ours["draws"]) == (3, 5, 2)
  assert run(monkeypatch, tmp_path, annotations=[other], **given)["same"] == ours
  fit = length_controlled_win_rate(
    preference, lengths, [4] * 10, gamma, Gamed(z, wins), strength=10.0
  )
  assert ours["LC win rate"] == pytest.approx(fit.rate, abs=1e-12)


def test_models_against_each_other(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  files = [
    save(tmp_path / f"{m}.json", annotations([*(1 + rng.random(20) * s)], model=m))
    for m, s in (("weak", 0.4), ("strong", 1.0))
  ]
  difficulty = save(
    tmp_path / "difficulty.json",
    [{"instruction": f"task {i}", "instruction_difficulty": i / 20} for i in range(20)],
  )
  found = run(monkeypatch, tmp_path, annotations=files, difficulty=difficulty, strength=100.0)
  assert found["strong"]["LC win rate against"]["weak"] > 50
  assert found["weak"]["LC win rate against"] == {}


@pytest.mark.parametrize(
  ("second", "message"),
  [
    (annotations([1.5] * 4, model="b", first=1), "judged on other instructions: 2 have only one"),
    (annotations([1.5] * 4, model="b", baseline="c"), "against base, b against c"),
    (annotations([1.5] * 4), "two files are of one model"),
    (annotations([1.5, float("nan")]), "task 1.: preference is nan, no number"),
    (annotations([1.5, None]), "b.json, 'task 1'"),
    (annotations([1.5, 2.5]), "1 of 2 preferences are not 0 or from 1 to 2, the first is 2.5"),
    ([*annotations([1.5]), *annotations([1.5], model="b")], "several generator_2: b, mine"),
    ([{"instruction": "a", "output_2": "b", "preference": 1}], "there is no 'output_1'"),
    ([{"preference": 1}], "no index and no instruction; there are preference"),
    ([], "no array of objects, or an empty one"),
  ],
)
def test_bad_annotations_are_named(tmp_path, monkeypatch, second, message):
  files = [save(tmp_path / "a.json", annotations([1.5] * 4)), save(tmp_path / "b.json", second)]
  with pytest.raises(ValueError, match=message):
    run(monkeypatch, tmp_path, annotations=files)


def test_files_of_another_baseline_are_refused(tmp_path, monkeypatch):
  file = save(tmp_path / "a.json", annotations([1.5] * 3))
  for rows, message in (
    ("0,0.1,4\n1,0.2,4\n", "lacks 1 of the 3 instructions of mine, such as 2"),
    ("0,0.1,4\n1,0.2,5\n2,0.3,4\n", "another baseline: at 1 its output has 5 characters"),
  ):
    text = f"index,instruction_difficulty,len_baseline\n{rows}"
    with pytest.raises(ValueError, match=message):
      run(monkeypatch, tmp_path, annotations=[file], difficulty=save(tmp_path / "d.csv", text))


def pair(session, winner, extent, ours, theirs):
  outputs = {"mine": "x" * ours, "ref": "x" * theirs if theirs else wildbench.EMPTY}
  return {"session_id": session, "winner": winner, "extent": extent, "model_outputs": outputs}


def test_wildbench(tmp_path, monkeypatch):
  # +1, -0.5, a slight win by 501 characters more (0), and a win that is skipped: 0.5 / 4.
  pairs = [
    pair("a", "mine", 2, 5, 5),
    pair("b", "ref", 1, 5, 5),
    pair("c", "mine", 1, 506, 5),
    pair("d", "mine", 2, 5, 0),
  ]
  tags = [
    {"id": name, "primary_tag": tag, "secondary_tags": []}
    for name, tag in zip("abcd", ["Math", "Math", "Editing", "Editing"], strict=True)
  ]
  given = {"annotations": [save(tmp_path / "p.json", pairs)], "references": ["ref"]}
  found = run(monkeypatch, tmp_path, **given, tags=save(tmp_path / "tags.json", tags))
  one = found["mine against ref"]
  assert (one["WB-Reward"], one["counted"]) == (12.5, 3)
  assert one["by task"] == {"Math & Data Analysis": 25.0, "Creative Tasks": 0.0}
  assert one["WB-Reward, mean over tasks"] == pytest.approx(25 / 4.75)
  assert run(monkeypatch, tmp_path, **given, margin=-1)["mine against ref"]["WB-Reward"] == 25.0
  marks = [
    {"session_id": "a", "model_output": "x", "score": "9", "model_test": "mine"},
    {"session_id": "b", "model_output": ["x"], "parsed_result": {"score": 4}},
  ]
  marked = save(tmp_path / "s.json", marks)
  assert run(monkeypatch, tmp_path, annotations=[marked])["mine, marks"]["WB-Score"] == 30.0
  for items, references, message in (
    (pairs, [], "one of .* must be a reference"),
    ([pair("a", "mine", 3, 5, 5)], ["ref"], "a: the winner is 'mine' by 3"),
    ([{**marks[0], "score": "good"}], [], "a: the score is 'good'; it must be from 1 to 10"),
    ([{"session_id": "a", "model_outputs": {"mine": "", "ref": ""}}], ["ref"], "has no 'winner'"),
  ):
    file = save(tmp_path / "bad.json", items)
    with pytest.raises(ValueError, match=message):
      run(monkeypatch, tmp_path, annotations=[file], references=references)


def test_answers_become_model_outputs(tmp_path, monkeypatch):
  answer = {"sample": 0, "tokens": 3, "truncated": False, "budget": 8}
  rows = [
    {**answer, "prompt_id": 0, "text": "<think>hm</think> 7 ", "row": {"dataset": "vicuna"}}
    | {"prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "3 + 4?"}]},
    {**answer, "prompt_id": 0, "sample": 1, "text": "8", "prompt": []},
  ]
  text = "".join(json.dumps(row) + "\n" for row in rows)
  save(tmp_path / "answers.jsonl", text)
  given = {"answers": str(tmp_path), "generator": "mine", "after": "</think>"}
  monkeypatch.setattr(command, "FLAGS", flags(out=str(tmp_path), **given))
  command.main(None)
  outputs = json.loads((tmp_path / "model_outputs.json").read_text())
  expected = {"instruction": "3 + 4?", "output": "7", "generator": "mine", "dataset": "vicuna"}
  assert outputs == [expected]
  turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
  with pytest.raises(ValueError, match="prompt 0 has 2 turns"):
    model_outputs([{**rows[0], "prompt": turns}], generator="mine")
  save(tmp_path / "answers.jsonl", text + json.dumps({**rows[0], "budget": 9}) + "\n")
  with pytest.raises(ValueError, match="name --point, one of budget 8; budget 9"):
    command.main(None)


@pytest.mark.skipif(not ALPACA.is_dir(), reason="the annotations of AlpacaEval 2 are not here")
def test_models_of_alpaca_eval(tmp_path):
  """The package's numbers. Its solver stops early, so that for one model its cross-validation takes
  another C than the optimum's; at its own C all agree."""
  expected = json.loads((ALPACA / "expected.json").read_text())
  files = [str(ALPACA / "instructions.csv"), str(ALPACA / "gamed_calibration.csv")]
  for model, numbers in expected.items():
    v1 = numbers["glm"]["v1"]
    annotated = [str(ALPACA / f"{model}.csv")]
    found = command.win_rates(annotated, *files, strength=v1["chosen_C"])[model]
    assert found["win rate"] == pytest.approx(numbers["raw"]["win_rate"], abs=1e-9)
    assert found["LC win rate"] == pytest.approx(v1["length_controlled_winrate"], abs=1e-2)
    assert found["LC standard error"] == pytest.approx(v1["lc_standard_error"], abs=1e-2)
    chosen = command.win_rates(annotated, *files, strength=None)[model]
    assert chosen["LC win rate"] == pytest.approx(v1["length_controlled_winrate"], abs=2e-2)


def test_names_come_from_files_without_generators(tmp_path):
  text = "index,preference,len_output,len_baseline\n0,2,3,4\n"
  judged = read_judged(save(tmp_path / "model-7b.csv", text))
  assert (judged.model, judged.baseline) == ("model-7b", None)

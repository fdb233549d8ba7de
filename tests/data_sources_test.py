"""Bad rows are errors with file and line, or counted; cuts are counted; splits hold."""

import json
import sys

import numpy as np
import pytest

from lcrl.data import sources
from lcrl.data.sources import Encoded, fingerprint
from lcrl.data.tokenizers import utf8
from lcrl.registry import resolve


class OnlyText:
  """A tokenizer that does not look at what it gets."""

  pad_id, end_ids = 0, (1,)

  def encode(self, text):
    return [2 + ord(c) % 7 for c in text]

  def render(self, messages):
    return messages[0]["content"]


def plain(prompt="ask", chosen="good", rejected="bad", **others):
  return dict(prompt=prompt, chosen=chosen, rejected=rejected, **others)


def write(path, rows) -> str:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def load(path, *, fn="pairs", reader="jsonl", window=64, **options):
  spec = dict(fn=fn, rows=dict(fn=reader, path=str(path)), window=window, **options)
  return resolve(sources, spec, field="data")(utf8())


def test_tokens(tmp_path):
  split = load(write(tmp_path / "a.jsonl", [plain(), plain(prompt="x", score_chosen=1)]))
  first = split.train[0]
  assert bytes(first.prompt.tolist()) == b"ask\n"
  assert [side.tolist() for side in first.sides] == [[*b"good", 256], [*b"bad", 256]]
  assert [one.id for one in split.train] == [0, 1]
  assert split.report == dict(
    read=2,
    kept=2,
    train=2,
    held_out=0,
    skipped_unpaired_turns=0,
    skipped_empty_side=0,
    skipped_identical_sides=0,
    skipped_full_prompt=0,
    cut_prompt=0,
    cut_chosen=0,
    cut_rejected=0,
  )


def test_a_tag_that_the_prompt_opens_is_not_opened_again(tmp_path):
  row = plain(prompt="ask <think>", chosen="<think>\na</think>3", rejected="b</think>4")
  sides = load(write(tmp_path / "a.jsonl", [row])).train[0].sides
  assert [bytes(side[:-1].tolist()) for side in sides] == [b"a</think>3", b"b</think>4"]
  row = plain(chosen="<think>a</think>3")
  assert (
    bytes(load(write(tmp_path / "b.jsonl", [row])).train[0].sides[0][:7].tolist()) == b"<think>"
  )


def test_readers_agree(tmp_path):
  rows = [plain(prompt=f"é{i}") for i in range(3)]
  (tmp_path / "a.json").write_text(json.dumps(rows))
  listed = load(tmp_path / "a.json", reader="json").train
  assert fingerprint(listed) == fingerprint(load(write(tmp_path / "a.jsonl", rows)).train)


def test_fingerprint_sees_ids_tokens_and_borders():
  def one(prompt=(1, 2), chosen=(3, 4), rejected=(5,), id=0, reference=None):
    sides = tuple(np.array(side, np.int32) for side in (chosen, rejected))
    reference = None if reference is None else np.array(reference)
    return Encoded(id, np.array(prompt, np.int32), sides, reference=reference)

  others = [
    one(id=1),
    one(prompt=(1, 3)),
    one(prompt=(1, 2, 3), chosen=(4,)),
    one(chosen=(3,), rejected=(4, 5)),
    one(rejected=(6,)),
    one(reference=(1,)),
  ]
  prints = [fingerprint(found) for found in ([one()], [one(), one()], *([x] for x in others))]
  assert len(set(prints)) == 8
  assert fingerprint([one()]) == prints[0]


def test_skips_are_counted(tmp_path):
  turns = [{"role": "user", "content": "?"}]
  rows = [
    plain(),
    plain(chosen=""),
    plain(rejected=" \n"),
    plain(rejected=None),
    plain(rejected="good"),
    plain(prompt="p" * 63),
    plain(reference_prompt="p" * 60),
    dict(chosen=turns, rejected=turns),
  ]
  split = load(write(tmp_path / "a.jsonl", rows))
  assert [one.id for one in split.train] == [0]
  counts = {name: n for name, n in split.report.items() if n}
  assert counts == dict(
    read=8,
    kept=1,
    train=1,
    skipped_empty_side=3,
    skipped_identical_sides=1,
    skipped_full_prompt=2,
    skipped_unpaired_turns=1,
  )


def test_cuts_are_counted_by_side(tmp_path):
  rows = [
    plain(chosen="g" * 99),
    plain(rejected="b" * 12),  # with the prompt and the end exactly 17
    plain(chosen="g" * 20, rejected="b" * 20),
    plain(chosen="g" * 13 + "o", rejected="g" * 13 + "x"),  # alike once cut
    plain(prompt="0123456789"),
  ]
  split = load(write(tmp_path / "a.jsonl", rows), window=17, max_prompt_tokens=6)
  counts = {name: n for name, n in split.report.items() if n}
  assert counts == dict(
    read=5,
    kept=4,
    train=4,
    cut_chosen=2,
    cut_rejected=1,
    cut_prompt=1,
    skipped_identical_sides=1,
  )
  assert [[len(side) for side in one.sides] for one in split.train] == [
    [13, 4],
    [5, 13],
    [13, 13],
    [5, 4],
  ]
  ends = [[int(side[-1]) == 256 for side in one.sides] for one in split.train]
  assert ends == [[False, True], [True, True], [False, False], [True, True]]
  assert bytes(split.train[-1].prompt.tolist()) == b"56789\n"


class Chat:
  """A token a character; headers of one, and an end to each turn."""

  pad_id, end_ids = 0, (1,)

  def encode(self, text):
    return [ord(c) for c in text]

  def render(self, messages):
    turns = "".join(f"[{m['role'][0]}{m['content']}]" for m in messages)
    return f"^{turns}[a"


@pytest.mark.parametrize(
  "most, prompt",
  [
    (30, "^[sbe brief][ufirst][a1][ulast][a"),
    (24, "^[sbe brief][u][a][ulast][a"),
    (22, "^[sbe brief][u][a][ust][a"),
  ],
)
def test_a_cut_keeps_the_first_token_headers_and_the_system_message(tmp_path, most, prompt):
  turns = [dict(role="user", content="first"), dict(role="assistant", content="1")]
  last = dict(role="user", content="last")
  rows = [plain(prompt=[dict(role="system", content="be brief"), *turns, last])]
  path = write(tmp_path / "a.jsonl", rows)
  split = sources.pairs(Chat(), rows=sources.jsonl(path), window=64, max_prompt_tokens=most + 3)
  assert "".join(map(chr, split.train[0].prompt)) == prompt
  assert split.report["cut_prompt"] == (len(prompt) < 33)
  with pytest.raises(ValueError, match="'skipped_full_prompt': 1"):  # nothing of the last is left
    sources.pairs(Chat(), rows=sources.jsonl(path), window=64, max_prompt_tokens=22)


def test_answers_have_one_side(tmp_path):
  split = load(write(tmp_path / "a.jsonl", [dict(prompt="a", completion="b" * 99)]), fn="responses")
  assert [len(side) for side in split.train[0].sides] == [62]
  assert split.report["cut_answer"] == 1


def test_held_out_by_prompt(tmp_path):
  rows = [plain(prompt=f"ask {i // 2}", chosen=f"good {i}") for i in range(400)]
  split = load(write(tmp_path / "a.jsonl", rows), held_out=0.25)
  apart = {one.id for one in split.held_out}
  assert all((i ^ 1) in apart for i in apart), "both pairs of a prompt"
  assert 60 < len(apart) < 140
  again = load(write(tmp_path / "b.jsonl", rows[:100][::-1]), held_out=0.25)
  assert {99 - one.id for one in again.held_out} == {i for i in apart if i < 100}
  assert split.report["held_out"] == len(apart)
  assert split.report["train"] == 400 - len(apart)


def test_nothing_left(tmp_path):
  with pytest.raises(ValueError, match=r"nothing is left to train on: .*'skipped_empty_side': 1"):
    load(write(tmp_path / "a.jsonl", [plain(chosen="")]))


def test_missing_columns_name_file_and_line(tmp_path):
  path = write(tmp_path / "a.jsonl", [plain(), dict(prompt="?", good="3")])
  with pytest.raises(ValueError, match=r"a\.jsonl, line 2: no column chosen .* prompt, good\."):
    load(path)


@pytest.mark.parametrize("reader", ["json", "jsonl"])
def test_not_utf8(tmp_path, reader):
  text = json.dumps(plain())
  whole = f"[{text},\n{text}]" if reader == "json" else f"{text}\n{text}"
  head, tail = whole.encode().rsplit(b"good", 1)
  (tmp_path / "a").write_bytes(head + b"g\xff\xfed" + tail)
  with pytest.raises(ValueError, match=r"a, line 2: 'utf-8' codec can't decode byte 0xff"):
    load(tmp_path / "a", reader=reader)


@pytest.mark.parametrize("column", ["prompt", "chosen"])
def test_half_a_character(tmp_path, column):
  path = write(tmp_path / "a.jsonl", [plain(), plain() | {column: "\ud800"}])
  with pytest.raises(ValueError, match=r"line 2: 'utf-8' codec can't encode character"):
    sources.pairs(OnlyText(), rows=sources.jsonl(path), window=64)


@pytest.mark.parametrize("reader", ["json", "jsonl"])
@pytest.mark.parametrize(
  "value, message",
  [('"\\ud83d"', "'utf-8' codec can't encode character"), ("[" * 99999, "it is nested too deep")],
)
def test_what_json_takes_and_text_does_not(tmp_path, reader, value, message):
  (tmp_path / "a").write_text("[" * (reader == "json") + f'{{"prompt": {value}}}')
  if value[0] == '"' and reader == "json":
    (tmp_path / "a").write_text(f'[{{"prompt": {value}}}]')
  where = ", line 1" if reader == "jsonl" else ""
  with pytest.raises(ValueError, match=f"a{where}: {message}"):
    getattr(sources, reader)(str(tmp_path / "a"))


def test_emoji_in_escapes_are_text(tmp_path):
  (tmp_path / "a").write_text('{"prompt": "\\ud83d\\ude00"}')
  assert sources.jsonl(str(tmp_path / "a"))[0][1] == {"prompt": "\N{GRINNING FACE}"}


def test_broken_json(tmp_path):
  (tmp_path / "a.jsonl").write_text(json.dumps(plain()) + '\n\n{"prompt": "x", "cho')
  with pytest.raises(ValueError, match=r"a\.jsonl, line 3: Unterminated string"):
    load(tmp_path / "a.jsonl")
  (tmp_path / "a.json").write_text('[{"prompt": "x"},\n{"prompt" "y"}]')
  with pytest.raises(ValueError, match=r"a\.json: Expecting ':' delimiter: line 2"):
    load(tmp_path / "a.json", reader="json")


@pytest.mark.parametrize(
  "text, message",
  [("{}", "an array of objects"), ("[]", "holds no rows"), ("[{}, 3]", "row 2: an object .* 3")],
)
def test_not_an_array_of_objects(tmp_path, text, message):
  (tmp_path / "a.json").write_text(text)
  with pytest.raises(ValueError, match=message):
    load(tmp_path / "a.json", reader="json")


def test_a_reference_prompt_stands_in_all_rows_or_in_none(tmp_path):
  path = write(tmp_path / "a.jsonl", [plain(), plain(reference_prompt="short")])
  with pytest.raises(ValueError, match="reference_prompt stands in 1 of 2 rows"):
    load(path)


def test_impossible_options(tmp_path):
  path = write(tmp_path / "a.jsonl", [plain()])
  with pytest.raises(ValueError, match=r"held_out must be in \[0, 1\), got 1"):
    load(path, held_out=1.0)
  with pytest.raises(ValueError, match=r"max_prompt_tokens .* got 64 and 64"):
    load(path, max_prompt_tokens=64)
  with pytest.raises(ValueError, match=r"max_prompt_tokens .* got 0 and 64"):
    load(path, max_prompt_tokens=0)


def test_what_a_template_refuses_names_the_line(tmp_path):
  class Strict:
    pad_id, end_ids = 0, (1,)
    encode = staticmethod(list)

    def render(self, messages):
      if messages[0]["content"]:
        raise ValueError("no words, please")
      return ""

  def read(row):
    rows = sources.jsonl(write(tmp_path / "a.jsonl", [row]))
    return sources.pairs(Strict(), rows=rows, window=8)

  with pytest.raises(ValueError, match="line 1: no words"):
    read(plain())
  with pytest.raises(ValueError, match="line 1: the prompt has no tokens"):
    read(plain(prompt=""))


def test_parquet(tmp_path):
  arrow = pytest.importorskip("pyarrow", reason="lcrl[test] brings it")
  from pyarrow import parquet

  ask, say = ({"role": role, "content": role} for role in ("user", "assistant"))
  other = {"role": "assistant", "content": "no"}
  rows = [dict(prompt="user", chosen=[ask, say], rejected=[ask, other], score_chosen=2.0)] * 3
  parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
  listed = load(write(tmp_path / "a.jsonl", rows)).train
  assert fingerprint(load(tmp_path / "a.parquet", reader="parquet").train) == fingerprint(listed)

  text = arrow.array([b"ok", b"\xff"]).view(arrow.string())
  columns = dict(prompt=text, chosen=text, rejected=text)
  parquet.write_table(arrow.table(columns), tmp_path / "b.parquet")
  with pytest.raises(ValueError, match=r"b\.parquet, row 2: .*can't decode byte 0xff"):
    load(tmp_path / "b.parquet", reader="parquet")


def test_parquet_without_its_library(monkeypatch):
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  with pytest.raises(ImportError, match=r"a\.parquet: Parquet needs pyarrow: pip install"):
    load("a.parquet", reader="parquet")


def test_arrays_are_compact(tmp_path):
  one = load(write(tmp_path / "a.jsonl", [plain()])).train[0]
  assert {x.dtype for x in (one.prompt, *one.sides)} == {np.dtype(np.int32)}

"""The functions that `task.signals.fn` may name: values of responses besides their verdicts.

Each value becomes a [B, G] array of `rollouts.signals`. Counted tokens are those that the length
counts (`Rollouts.counted`): sampled ones, and forced ones that train or that the config counts.
Imports no jax.
"""

from __future__ import annotations

import bisect
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from lcrl.registry import resolve
from lcrl.tasks import extract as extractors
from lcrl.tasks.task import Response, Signals


def think_tags(*, open: str = "", close: str = "</think>") -> Signals:
  """The end of thinking: think_end, think_length (int) and has_think (bool).

  think_end is the position of the last token of the first `close` among the counted tokens, -1
  without one. think_length is the number of counted tokens up to it; without one, of all.
  has_think: `close` is in the text, and `open` before it ("" if the template opens the thinking).
  """

  def read(response: Response) -> Mapping[str, float]:
    before, closing, _ = response.text.partition(close)
    whole = len(response.tokens)
    counted = response.counted(response.tokens_to(len(before + close)) if closing else whole)
    return {
      "think_end": counted - 1 if closing else -1,
      "think_length": counted,
      "has_think": bool(closing) and open in before,
    }

  return Signals({"think_end": int, "think_length": int, "has_think": bool}, read)


def answer_span(*, extract: str = "boxed") -> Signals:
  """The end of the answer: answer_length (int), and has_answer (bool), whether one can be read.

  answer_length counts the tokens after which `extract`, a name in `lcrl.tasks.extract`, gives the
  same answer as in the whole response; without an answer, all of them.
  """
  find = resolve(extractors, {"fn": extract}, field="task.signals.extract")

  def read(response: Response) -> Mapping[str, float]:
    text = response.text
    answer, end = find(text), len(response.tokens)
    if answer is not None:
      characters = range(len(text) + 1)  # once it reads the answer, it goes on to read it
      end = bisect.bisect_left(characters, True, key=lambda n: find(text[:n]) == answer)
      end = response.tokens_to(end)
    return {"answer_length": response.counted(end), "has_answer": answer is not None}

  return Signals({"answer_length": int, "has_answer": bool}, read)


CHUNKS = ("Wait", "But", "Alternatively", "Hmm", "Let", "Therefore")


def answer_chunk(
  *, extract: str = "boxed", close: str = "</think>", openers: Sequence[str] = CHUNKS
) -> Signals:
  """Where the thinking first has the answer, by chunks that begin with one of the words `openers`.

  needed is the number of counted tokens up to the end of the first chunk in which the answer of the
  whole response stands by itself, 0 without one; think_length that of all thinking, before `close`.
  A chunk of a single line joins the next. Source: DECS, arXiv:2509.25827, and its code. Stand-in:
  a trained judge there says which chunk has the right answer, so read these of right answers only.
  """
  find = resolve(extractors, {"fn": extract}, field="task.signals.extract")
  opener = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, openers))})(?!\w)")

  def read(response: Response) -> Mapping[str, float]:
    thinking, closing, _ = response.text.partition(close)
    whole = response.tokens_to(len(thinking) + 1) - 1 if closing else len(response.tokens)
    answer, start, needed = find(response.text), 0, 0
    for end in [*(found.start() for found in opener.finditer(thinking)), len(thinking)]:
      chunk = thinking[start:end]
      if end < len(thinking) and "\n" not in chunk.strip():
        continue
      if stands_alone(answer, chunk) is not None:
        needed = end
        break
      start = end
    reached = min(response.tokens_to(needed), whole)
    return {"needed": response.counted(reached), "think_length": response.counted(whole)}

  return Signals({"needed": int, "think_length": int}, read)


def stands_alone(answer: str | None, text: str) -> int | None:
  """How many characters of the text reach the end of the answer where it first is no part of a
  longer word or number.

  >>> stands_alone("4", "24 or 4.")
  7
  """
  found = re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text) if answer else None
  return found.end() if found else None


def row_numbers(**fields: str) -> Signals:
  """A number (float) of the prompt's row for each name: `row_numbers(accuracy="start_accuracy")`.

  Raises, when a response is read:
    ValueError: the row has no such number.
  """

  def read(response: Response) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for name, field in fields.items():
      x = response.row.get(field)
      if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
        raise ValueError(f"the row of a prompt has no number {field!r}, got {x!r}.")
      found[name] = float(x)
    return found

  return Signals(dict.fromkeys(fields, float), read)


def opening_tag(*, tags: Sequence[str] = ("[Easy]", "[Hard]"), name: str = "tag") -> Signals:
  """The tag that opens the response, in any case: 1 for the first of `tags`, 0 for none (int).

  Source: AdaCtrl, arXiv:2505.18822: exactly the first characters, forced ones included.
  """

  def read(response: Response) -> Mapping[str, float]:
    opens = (response.text[: len(tag)].lower() == tag.lower() for tag in tags)
    return {name: next((i for i, matches in enumerate(opens, start=1) if matches), 0)}

  return Signals({name: int}, read)


def patterns(**expressions: str) -> Signals:
  """A flag (bool) for each regular expression: whether it matches anywhere in the text.

  In place of the rules that a model verifies in AutoRule, arXiv:2506.15651.
  """
  compiled = {name: re.compile(text, re.DOTALL) for name, text in expressions.items()}

  def read(response: Response) -> Mapping[str, float]:
    return {name: bool(rule.search(response.text)) for name, rule in compiled.items()}

  return Signals(dict.fromkeys(compiled, bool), read)


def distinct_words(*, name: str = "conciseness") -> Signals:
  """The number of distinct words over the number of words, 1 without words (float).

  In place of a model's score of conciseness: CRF, arXiv:2511.09158.

  >>> from lcrl.tasks.task import Response
  >>> distinct_words().read(Response("So it is so", (), False, str))
  {'conciseness': 0.75}
  """

  def read(response: Response) -> Mapping[str, float]:
    words = re.findall(r"\w+", response.text.lower())
    return {name: len(set(words)) / len(words) if words else 1.0}

  return Signals({name: float}, read)


def words(*, low: str = "", high: str = "") -> Signals:
  """The number of words (int), as `words`; and the range that the prompt's row asks for, in its
  fields `low` and `high`, as words_low and words_high.

  Source: LongWriter-Zero, arXiv:2506.18841, where a judge predicts a range for each prompt.

  Raises, when a response is read:
    ValueError: the row has no such fields, or they are no range of at least one word.
  """

  def read(response: Response) -> Mapping[str, float]:
    counted = {"words": len(re.findall(r"\w+", response.text))}
    if not low:
      return counted
    try:
      least, most = int(response.row[low]), int(response.row[high or low])
    except (KeyError, TypeError, ValueError):
      raise ValueError(
        f"the row of a prompt has no whole numbers {low!r} and {high or low!r}."
      ) from None
    if not 1 <= least <= most:
      raise ValueError(f"the row of a prompt asks for {least} to {most} words.")
    return counted | {"words_low": least, "words_high": most}

  names = ("words", "words_low", "words_high") if low else ("words",)
  return Signals(dict.fromkeys(names, int), read)


def distinct_paragraphs(*, name: str = "distinct") -> Signals:
  r"""The share of paragraphs that repeat no earlier one, 1 without paragraphs (float).

  Source: the penalty for repeated paragraphs of LongWriter-Zero, arXiv:2506.18841; its formula is
  not published.

  >>> from lcrl.tasks.task import Response
  >>> distinct_paragraphs().read(Response("One.\n\nTwo.\n\none. ", (), False, str))["distinct"]
  0.6666666666666666
  """

  def read(response: Response) -> Mapping[str, float]:
    parts = [" ".join(part.lower().split()) for part in re.split(r"\n\s*\n", response.text)]
    parts = [part for part in parts if part]
    return {name: len(set(parts)) / len(parts) if parts else 1.0}

  return Signals({name: float}, read)


def overlap(*, field: str, name: str = "overlap") -> Signals:
  """`unigram_f1` of the response and a text in the prompt's row, such as a user's own (float).

  In place of a reward model that reads the user's text, as in PUGC (implicit preferences from
  user-generated content).

  Raises, when a response is read:
    ValueError: the row has no such text.
  """

  def read(response: Response) -> Mapping[str, float]:
    text = response.row.get(field)
    if not isinstance(text, str):
      raise ValueError(f"the row of a prompt has no text {field!r}.")
    return {name: unigram_f1(response.text, text)}

  return Signals({name: float}, read)


def unigram_f1(text: str, reference: str) -> float:
  """Share of words in common, the harmonic mean of both sides.

  >>> unigram_f1("The cat sat", "the cat ran off")
  0.5714285714285714
  """
  words, expected = (Counter(re.findall(r"\w+", t.lower())) for t in (text, reference))
  return 2 * (words & expected).total() / max(1, words.total() + expected.total())


def several(**parts: Signals) -> Signals:
  """All signals of the parts: `several(think=dict(fn="think_tags"), tag=dict(fn="opening_tag"))`.

  Raises:
    ValueError: two parts supply the same signal.
  """
  dtypes: dict[str, type] = {}
  for part, signals in parts.items():
    if twice := dtypes.keys() & signals.dtypes.keys():
      raise ValueError(f"task.signals.{part} supplies {sorted(twice)}, as another part does.")
    dtypes |= signals.dtypes

  def read(response: Response) -> Mapping[str, float]:
    return {name: x for part in parts.values() for name, x in part.read(response).items()}

  return Signals(dtypes, read)

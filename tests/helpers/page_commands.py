"""Commands and snippets of the Markdown pages."""

import pathlib
import re
import shlex
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGES = ("README.md", "RUNNING.md", "CONFIG.md", "METHODS.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
OURS = re.compile(r"(?:\.venv/bin/)?(?:python3?|lcrl(?:-[\w-]+)?|make|pip)")


class Command(NamedTuple):
  page: str
  text: str
  arguments: tuple[str, ...]  # the program first, without the folder of an environment
  whole: bool  # it stands in a block, as it is to be typed; in a sentence flags may be left out


def texts():
  """Page -> its text, of all pages with commands."""
  paths = [*(ROOT / name for name in PAGES), *sorted((ROOT / "docs").glob("*.md"))]
  return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def blocks(text, language):
  return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands():
  """Every command of the pages: the lines of shell blocks, and what stands in backticks."""
  for page, text in texts().items():
    for block in blocks(text, "sh"):
      for line in block.replace("\\\n", " ").splitlines():
        yield from _split(page, line, whole=True)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", rest):
      if re.match(r"(\.venv/bin/)?(python3? -m |lcrl-(?!jax)|make |pip )\S", span.strip()):
        yield from _split(page, " ".join(span.split()), whole=False)


def _split(page, line, *, whole):
  lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
  lexer.whitespace_split = True
  part: list[str] = []
  for word in [*lexer, "&&"]:
    if re.fullmatch(r"[&|;]+", word):
      if part:
        part[0] = part[0].rpartition("/")[2] if OURS.fullmatch(part[0]) else part[0]
        yield Command(page, line.strip(), tuple(_without_redirection(part)), whole)
      part = []
    else:
      part.append(word)


def _without_redirection(words):
  return words[: words.index(">")] if ">" in words else words

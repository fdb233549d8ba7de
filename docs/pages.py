"""Takes Markdown files of the repository into the site: sections by inclusion, links followed."""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
STUDIES = "experiments/studies"
# File -> page. A page of the site includes sections of README.md and has METHODS.md as a table.
INCLUDED = {
  "RUNNING.md": "running",
  "CONFIG.md": "config",
  "METRICS.md": "metrics",
  "ARCHITECTURE.md": "architecture",
  "CONTRIBUTING.md": "contributing",
  "CHANGELOG.md": "changelog",
  "experiments/benchmarks/RESULTS.md": "studies/benchmarks",
  f"{STUDIES}/faults.md": "studies/faults",
  f"{STUDIES}/fit/fit.md": "studies/fit",
  f"{STUDIES}/demo/report.md": "studies/demo",
  f"{STUDIES}/dial/README.md": "studies/dial",
  f"{STUDIES}/preference/README.md": "studies/preference",
  f"{STUDIES}/preference/smollm2.md": "studies/preference_smollm2",
  f"{STUDIES}/preference/twin.md": "studies/preference_twin",
  f"{STUDIES}/qwen_math/README.md": "studies/qwen_math",
  f"{STUDIES}/smollm2_chain_sum/README.md": "studies/smollm2_chain_sum",
  f"{STUDIES}/smollm2_chain_sum/report/report.md": "studies/smollm2_chain_sum_report",
  f"{STUDIES}/testbed/README.md": "studies/testbed",
  f"{STUDIES}/testbed/tables.md": "studies/testbed_tables",
}
PAGES = INCLUDED | {"README.md": "index", "METHODS.md": "methods"}
PAGES |= {f"docs/{file.name}": file.stem for file in Path(__file__).parent.glob("*.md")}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
CODE = re.compile(r"(^ *```.*?^ *```|^    .*?$|`[^`\n]*\]\([^`\n]*`)", re.DOTALL | re.MULTILINE)
LARGEST = 400_000  # bytes of a linked file that the site offers


def included(path: str, out: Path) -> str:
  """A Markdown file of the repository as a page; what it shows is copied to `out`."""
  text = (ROOT / path).read_text(encoding="utf-8")
  if re.match(r"^\s*# ", text) is None:
    text = f"# {Path(path).stem.capitalize()}\n\n{text}"
  return relinked(text, path, INCLUDED[path], out)


def relinked(text: str, path: str, page: str, out: Path) -> str:
  """The text with links as they are from `page`: to pages of the site, else to copies of files.

  Raises:
    ValueError: a link leads nowhere.
  """

  def link(match: re.Match) -> str:
    image, label, target = match.groups()
    inside = path.startswith("docs/") and not target.startswith("../")  # from page to page
    if inside or re.match(r"[a-z]+:|#", target):
      return match[0]
    file, _, anchor = target.partition("#")
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), file))
    if found in PAGES:
      here = posixpath.relpath(f"{PAGES[found]}.md", posixpath.dirname(page) or ".")
      return f"[{label}]({here}{'#' * bool(anchor)}{anchor})"
    if not (ROOT / found).exists():
      raise ValueError(f"{path}: the link {target} leads nowhere.")
    if image or ((ROOT / found).is_file() and (ROOT / found).stat().st_size < LARGEST):
      copied(found, out)
      return f"![{label}](/files/{found})" if image else download(label, found)
    return f"{label} (`{found}`)"

  return "".join(part if i % 2 else LINK.sub(link, part) for i, part in enumerate(CODE.split(text)))


def copied(path: str, out: Path) -> None:
  """Copies a file of the repository to the sources of the site."""
  copy = out / "files" / path
  copy.parent.mkdir(parents=True, exist_ok=True)
  shutil.copyfile(ROOT / path, copy)


def download(label: str, path: str) -> str:
  """A link to a copied file."""
  return f"{{download}}`{label.replace('`', '')} </files/{path}>`"


def section(path: str, title: str) -> str:
  """What stands below a heading of a Markdown file, without it; "" is what precedes the first.

  Raises:
    ValueError: there is no such heading.
  """
  text = (ROOT / path).read_text(encoding="utf-8")
  parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
  sections = {
    "": re.sub(r"^# .*\n", "", parts[0]),
    **dict(zip(parts[1::2], parts[2::2], strict=True)),
  }
  if title not in sections:
    raise ValueError(f"{path} has no section {title!r}; it has {', '.join(sections)}.")
  return sections[title].strip()


def filled(text: str, values: Mapping[str, str], page: str, out: Path) -> str:
  """A page of this folder with `{{ README.md: Section }}` and `{{ name }}` replaced.

  Raises:
    ValueError: a name that has no value.
  """

  def value(match: re.Match) -> str:
    path, colon, title = match[1].partition(":")
    if colon:
      return relinked(section(path, title.strip()), path, page, out)
    if match[1] not in values:
      raise ValueError(f"{page}: {{{{ {match[1]} }}}} has no value.")
    return values[match[1]]

  return re.sub(r"\{\{ ([^{}]+?) \}\}", value, text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A Markdown table."""
  return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))

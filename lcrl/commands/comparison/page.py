"""One HTML file without network: the data of a comparison, and the scripts that draw it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["LIMIT", "TooLarge", "render"]

LIMIT = 2_000_000  # bytes
HERE = Path(__file__).parent
SCRIPTS = ("draw", "runs", "lines", "front", "budgets", "steps", "answers")  # in this order
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
<div class="page">
<aside aria-label="Runs"></aside>
<main>
<h1>{title}</h1>
{notes}
<noscript><p>The charts need JavaScript; the tables below do not.</p></noscript>
<div id="sections"></div>
<h2>Tables</h2>
{tables}
<h2>What this page leaves out</h2>
{left_out}
</main>
</div>
<div id="tip" role="status" hidden></div>
<script type="application/json" id="data">{data}</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
{script}
redraw();
</script>
</html>
"""


class TooLarge(ValueError):
  """The page exceeds LIMIT."""


def render(
  data: Mapping[str, Any],
  *,
  title: str,
  notes: Sequence[str],
  tables: str,
  left_out: Sequence[str],
) -> bytes:
  """The page. `tables` is HTML; all other texts are plain.

  Raises:
    TooLarge: it exceeds LIMIT bytes.
  """
  page = PAGE.format(
    title=html.escape(title),
    style=(HERE / "page.css").read_text(encoding="utf-8"),
    notes=_paragraphs(notes),
    tables=tables,
    left_out=_paragraphs(left_out or ["Nothing: the data were small enough."]),
    data=embedded(data),
    script="\n".join((HERE / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
  ).encode("utf-8", errors="replace")  # text of a model may hold half a surrogate pair
  if len(page) > LIMIT:
    raise TooLarge(f"the page has {len(page):,} bytes, more than {LIMIT:,}.")
  return page


def _paragraphs(texts: Sequence[str]) -> str:
  return "\n".join(f"<p>{html.escape(text.replace('**', ''))}</p>" for text in texts)


def embedded(data: Any) -> str:
  """JSON that no text in it can break out of: a script ends at the first "</script", wherever.

  >>> embedded(["</script>"])
  '["\\\\u003c/script>"]'
  """
  text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
  return text.replace("<", "\\u003c")

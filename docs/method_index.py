"""The page of all methods, from the data of METHODS.md and of the configs on pairs.

`methods.js` adds its filter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs import pages
from docs.reference import entries
from docs.text import inline
from experiments import configs, golden_entries, methods
from lcrl import recipes, registry
from lcrl.training.pairs.losses import LOSSES
from lcrl.types import Stage

COLUMNS = (
  "method",
  "idea",
  "paper",
  "slots",
  "needs",
  "tier",
  "functions",
  "config",
  "checked",
  "testbed",
)
SLOT = {
  "budgets": "budget",
  "rewards": "reward",
  "filters": "filter",
  "advantages": "advantage",
  "losses": "loss",
  "sampling": "sampling",
  "training": "revision",
  "data": "data",
}
DATA = {  # kind of run -> what it learns from
  "rl": "prompts with a verifier",
  "distill": "teachers",
  "iterative": "prompts",
  "preference": "pairs of answers",
  "sft": "answers to imitate",
  "reward_model": "pairs or scores",
}
HEAD = """# Methods

{count} methods and tools. A config is in its paper's own setting and has a smoke mode.

- **slots** are the stages that set a method apart.
- **needs** are what it learns from, and the signals that its stages read.
- **tier** says how the paper was read: {tiers}. Methods on pairs have no tier: `Source` in their
  config says what was read.
- **checked** tells whose values the functions are compared with.
- **testbed** is accuracy at mean tokens on short sums, from a strong and from a weak start, at the
  method's best coefficient: [the study](studies/testbed.md).

<div class="method-filter"></div>
"""


def page(out: Path) -> str:
  """The Markdown of the page; configs are copied to `out`."""
  for path in {f"configs/{variant.stem}.py" for variant in configs.variants().values()}:
    pages.copied(path, out)
  measured = methods.on_testbed()
  rows = [*(_row(method, measured) for method in methods.methods()), *_on_pairs()]
  tiers = "; ".join(
    f"**{name}** {text[0].lower()}{text[1:].split('.')[0]}" for name, text in methods.TIERS.items()
  )
  head = HEAD.format(count=len(rows), tiers=tiers)
  return f"{head}\n{{.methods}}\n{pages.table(COLUMNS, rows)}\n"


def _row(method: methods.Method, measured: Mapping[str, str]) -> tuple[str, ...]:
  variant = configs.variants().get(method.key)
  slots = {SLOT[name.partition(".")[0]] for name in method.functions}
  return (
    method.name,
    inline(method.idea.rstrip(".")),
    method.paper,
    ", ".join(slot for slot in SLOT.values() if slot in slots),
    ", ".join(_needs(variant.config())) if variant else "",
    method.tier,
    ", ".join(map(_function, method.functions)),
    _config(variant) if variant else "none",
    _label(golden_entries.checked(method.goldens)),
    measured.get(methods.TESTBED_NAMES.get(method.key, method.key), "not run"),
  )


def _on_pairs() -> Iterator[tuple[str, ...]]:
  """A row for each config with a source that is no run of RL."""
  for variant in configs.variants().values():
    doc, config = methods.labelled(variant), variant.config()
    if "Tier" in doc or "Source" not in doc:
      continue
    name, _, idea = doc["title"].partition(": ")
    paper = methods.Method("", name, idea, "", doc["Source"], {}, "").paper
    loss = config["loss"]["fn"]
    function = f"losses.{loss}"
    cells = (name, inline(idea.rstrip(".")), paper, "loss", ", ".join(_needs(config)), "")
    yield (*cells, _function(function), _config(variant), "", "")


def _needs(config: Mapping[str, Any]) -> Iterator[str]:
  """What a run of the config learns from, and what its stages read."""
  run = config.get("run", "rl")
  yield DATA[run]
  if run == "rl":
    needs = recipes.needs(recipes.from_config(config)[0])
  elif run == "distill":
    needs = ()
  else:
    kind = "preference" if run == "iterative" else run
    needs = registry.build(LOSSES[kind], config["loss"], field="loss", gives=Stage).needs
  if {"ref", "ref_log_probs"} & {*needs} or "reference" in config:
    yield "a reference model"
  if "learned" in config:
    yield "a trained model"
  own = {"group", "truncated", "ref", "ref_log_probs", "weights", "mismatched", "embeddings"}
  yield from sorted({*needs} - own)


def _function(name: str) -> str:
  path = f"lcrl.{name}"
  found = path if path in entries() else next((p for p in entries() if p.endswith(f".{name}")), "")
  return f"{{py:obj}}`{name} <{found}>`" if found else f"`{name}`"


def _config(variant: configs.Variant) -> str:
  return pages.download(variant.argument, f"configs/{variant.stem}.py")


def _label(link: str) -> str:
  return re.sub(r"\[(.+?)\]\(.+?\)", r"\1", link)

"""What the runs of the study share, and the whole config of each."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import jax

from experiments.studies.qwen_math.methods import BOXED, CAP, METHODS, named, sections


@dataclasses.dataclass(frozen=True)
class Setting:
  """What all runs of the study share."""

  model: str  # folder or GGUF file; "": a fresh one of 100 k parameters
  data: Path
  own: Path  # folder of `own_answers`
  steps: int = 60
  prompts: int = 64
  learning_rate: float = 2e-6
  cap: int = CAP  # tokens of an answer in training; no budget exceeds it
  judge_cap: int = 1024  # tokens of an answer when it is judged
  max_prompt_tokens: int = 1024
  batch: int = 256  # prompts that are judged at a time
  temperature: float = 1.0  # when it is judged
  problems: int | None = None  # of each task; None: all
  utf8: bool = False  # bytes as tokens, for a model without a tokenizer

  def task(self, name: str, ask: str = "") -> dict[str, Any]:
    more = {"render": dict(fn="suffix", templates=ask)} if ask else {}
    path = str(self.data / f"{name}.jsonl")
    return dict(fn="jsonl", path=path, extract="boxed", template=BOXED, **more)

  def config(self, name: str, value: float | None, seed: int) -> dict[str, Any]:
    """The whole config of a run that trains.

    Raises:
      ValueError: there is no such method, or it has no coefficient, or it trains nothing.
    """
    given, method = sections(name, value), METHODS[name]
    if method.kind in ("free", "merge"):
      raise ValueError(f"{name} trains nothing.")
    steps = max(1, round(self.steps * method.length))
    samples = method.kind in ("rl", "distill")
    own = self._rl(method.ask) if samples else self._pairs(given)
    if method.teachers:
      folders = [str(self.policy(*named(teacher), seed)) for teacher in method.teachers]
      given["teachers"] = dict(models=folders)
    common = self._common() | dict(run=method.kind, seed=seed)
    if "budget" in given:
      given["budget"] = _at_most(self.cap, given["budget"])
    return common | own | given | dict(train=own["train"] | dict(steps=steps))

  def policy(self, name: str, value: float | None, seed: int) -> Path:
    """The folder of a policy that others need. A sweep's learned for fewer steps than those of the
    runs."""
    run = name if value is None else f"{name}{value:g}"
    return self.own.with_name(f"{self.own.name}-{run}-{seed}-{self.steps}")

  def judging(self, name: str, value: float | None) -> dict[str, Any]:
    """The config by which a method's policy answers."""
    changed = sections(name, value) if METHODS[name].kind == "free" else {}
    config = self.config("grpo", None, 0)
    config["train"] |= dict(
      max_tokens=self.judge_cap, prompts=self.batch, pack=None, micro_tokens=None
    )
    config["sampling"] |= dict(temperature=self.temperature) | changed.get("sampling", {})
    return config

  def _common(self) -> dict[str, Any]:
    fresh = dict(fn="fresh", vocab_size=258)
    found = dict(fn="pretrained", path=self.model, dtype="bfloat16")
    return dict(
      policy=found if self.model else fresh,
      sampling=dict(temperature=1.0, dtype="bfloat16"),
      optimizer=dict(fn="adamw", learning_rate=self.learning_rate),
      mesh=dict(data=1, fsdp=1),
      **(dict(tokenizer=dict(fn="utf8")) if self.utf8 else {}),
    )

  def _rl(self, ask: str) -> dict[str, Any]:
    # Pieces of so many tokens are one program, however short answers become; each other size of a
    # micro-batch compiles for 17 s on an H200.
    pieces = dict(pack=8192, micro_tokens=32768) if _on_gpu() else dict(micro_batches=4)
    train = dict(
      prompts=self.prompts,
      group_size=8,
      max_tokens=self.cap,
      max_prompt_tokens=self.max_prompt_tokens,
      **pieces,
    )
    # `judging` evaluates on other files; inside a run nothing does.
    return dict(
      task=self.task("train", ask),
      eval_task=dict(same=True),
      verify=dict(workers=1 if self.utf8 else 3),
      train=train,
    )

  def _pairs(self, given: dict[str, Any]) -> dict[str, Any]:
    rows = dict(fn="jsonl", path=str(self.own / f"{given['data']['rows']}.jsonl"))
    given["data"] = dict(
      fn=given["data"]["fn"], rows=rows, window=self.max_prompt_tokens + self.cap, held_out=0.02
    )
    train = dict(max_tokens=self.cap, max_prompt_tokens=self.max_prompt_tokens, micro_batches=4)
    return dict(train=train)


def _at_most(cap: int, budget: Any) -> Any:
  """The section with no number above the cap."""
  return jax.tree.map(lambda x: min(x, cap) if isinstance(x, int) else x, budget)


def _on_gpu() -> bool:
  return jax.default_backend() == "gpu"


@functools.lru_cache
def fingerprint(model: str) -> str:
  """The first digits of the sha256 of a model's weights; "" of none."""
  if not model:
    return ""
  path, digest = Path(model).expanduser(), hashlib.sha256()
  for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
    with file.open("rb") as weights:
      digest.update(hashlib.file_digest(weights, "sha256").digest())
  return digest.hexdigest()[:12]

"""Models on disk, merged tensor by tensor: memory for one tensor of each, not for the models.

What differs between the models is refused by name before anything is written, and the new folder
appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcrl.merging import shards
from lcrl.merging.peft import is_adapter, open_adapter
from lcrl.policies.config import OPTIONS, Config
from lcrl.policies.folder import open_folder
from lcrl.policies.hf_config import read_config
from lcrl.policies.mxfp4 import is_packed
from lcrl.policies.tensors import Tensors, one_head
from lcrl.policies.tokenizer_files import read_folder

__all__ = ["Model", "Tensor", "check_absent", "check_alike", "merge_folders", "open_model"]

COPIED = (".json", ".txt", ".jinja", ".model")  # of the base: config, tokenizer, template


class Model(NamedTuple):
  """A model of a folder: its tensors are read when they are asked for."""

  folder: Path
  config: Config
  tensors: Tensors


class Tensor(NamedTuple):
  """One tensor of all models, in float32 or wider."""

  name: str
  base: np.ndarray
  models: list[np.ndarray]

  @property
  def model(self) -> np.ndarray:
    """That of the only model."""
    (model,) = self.models
    return model


def open_model(folder: Path, base: Model | None = None) -> Model:
  """A Hugging Face folder; with a base, also an adapter in PEFT's layout, as the model it gives."""
  if base is not None and is_adapter(folder):
    return Model(folder, base.config, open_adapter(folder, base.tensors))
  raw, tensors = open_folder(folder)
  if is_packed(raw):
    raise ValueError(f"{folder} is quantized as mxfp4: load and save it, and give that folder.")
  config = read_config(raw, str(folder / "config.json"))
  tensors = one_head(tensors, config.tied)
  # Old files hold a buffer that is computed anew when a model is loaded.
  shapes = {n: s for n, s in tensors.shapes.items() if not n.endswith("rotary_emb.inv_freq")}
  return Model(folder, config, tensors._replace(shapes=shapes))


def check_alike(base: Model, other: Model, allow: Sequence[str] = ()) -> None:
  """Raises ValueError, by name, where the models are not of one kind.

  Args:
    base, other: what is compared: every field of their configs, the tensors' names and shapes, and
      the tokens of their tokenizers.
    allow: fields of the config that may differ, and "tokenizer"; the base's are taken.
  """
  allowed = "with --allow={} the merge takes that of the base.".format
  for field in Config.__dataclass_fields__:
    ours, theirs = getattr(base.config, field), getattr(other.config, field)
    if ours != theirs and field not in (*OPTIONS, *allow):
      raise ValueError(
        f"{other.folder}: {field} is {theirs}, in {base.folder} {ours}; {allowed(field)}"
      )
  ours, theirs = base.tensors.shapes, other.tensors.shapes
  for a, b in ((base, other), (other, base)):
    if missing := sorted(set(a.tensors.shapes) - set(b.tensors.shapes)):
      raise ValueError(
        f"{b.folder}: tensor {missing[0]} of {a.folder} is missing ({len(missing)} in all)."
      )
  for name, shape in ours.items():
    if theirs[name] != shape:
      raise ValueError(
        f"{other.folder}: tensor {name} is {list(theirs[name])}, in {base.folder} {list(shape)}."
      )
  if "tokenizer" not in allow and (found := _other_token(base.folder, other.folder)):
    raise ValueError(f"{other.folder}: {found} in {base.folder}; {allowed('tokenizer')}")


def _other_token(base: Path, other: Path) -> str | None:
  """The first difference between two tokenizers, if both folders hold one."""
  if not all((folder / "tokenizer.json").is_file() for folder in (base, other)):
    return None
  ours, theirs = (read_folder(folder)[0].get_vocab() for folder in (base, other))
  for token in sorted(ours.keys() | theirs.keys()):
    if ours.get(token) != theirs.get(token):
      return f"token {token!r:.60} is number {theirs.get(token)}, but {ours.get(token)}"
  return None


def check_absent(out: Path) -> None:
  """Raises ValueError where a new folder cannot take this name."""
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise ValueError(f"{out} is there already and not empty: a merge writes a new folder.")


def merge_folders(
  out: Path,
  base: Model,
  models: Sequence[Model],
  merge: Callable[[Tensor], np.ndarray],
  *,
  allow: Sequence[str] = (),
  record: dict[str, Any] | None = None,
  extra: Callable[[Path], None] = lambda folder: None,
  shard_bytes: int = 5 * 2**30,
  progress: Callable[[int], None] = lambda done: None,
) -> None:
  """Writes the folder `out`: the base's files, and each of its tensors as `merge` gives it.

  Args:
    out: must not exist, or be empty.
    base: gives config, tokenizer and the dtype of each tensor.
    models: what is merged; the base only if it is among them, or if `merge` takes it.
    merge: from a tensor of all to the merged one, of the same shape.
    allow: see `check_alike`.
    record: goes into merge.json.
    extra: writes more files into the folder.
    shard_bytes: files of safetensors are at most about this large.
    progress: hears how many tensors are done.

  Raises:
    ValueError: models differ, or a value that is read or merged is not finite.
  """
  check_absent(out)
  for model in models:
    check_alike(base, model, allow)
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as staging:
    written = Path(staging) / "model"
    written.mkdir()
    for file in sorted(base.folder.iterdir()):
      if file.suffix in COPIED and file.is_file() and not file.name.endswith(".index.json"):
        shutil.copyfile(file, written / file.name)
    parts = [_part(base.tensors, name) for name in base.tensors.shapes]
    merged = _merged(parts, base, models, merge, progress)
    shards.write(written, parts, merged, shard_bytes)
    if record is not None:
      text = json.dumps(record, indent=2) + "\n"
      (written / "merge.json").write_text(text, encoding="utf-8")
    extra(written)
    os.rename(written, out)


def _part(tensors: Tensors, name: str) -> shards.Part:
  return shards.Part(name, tensors.shapes[name], tensors.read(name, (slice(0, 1),)).dtype)


def _merged(parts, base, models, merge, progress) -> Iterator[np.ndarray]:
  for done, part in enumerate(parts):
    progress(done)
    yield _merge_one(part, base, models, merge)
  progress(len(parts))


def _merge_one(part: shards.Part, base: Model, models, merge) -> np.ndarray:
  read = [_read(model.tensors, part.name) for model in models]
  with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
    found = merge(Tensor(part.name, _read(base.tensors, part.name), read))
    found = np.asarray(found).astype(part.dtype)
  if found.shape != part.shape:
    raise ValueError(f"tensor {part.name} was {part.shape}, the merge gives {found.shape}.")
  if not np.isfinite(found).all():
    raise ValueError(f"merged values of tensor {part.name} are not finite {part.dtype}.")
  return found


def _read(tensors: Tensors, name: str) -> np.ndarray:
  found = tensors.read(name, (slice(None),) * len(tensors.shapes[name]))
  found = found.astype(np.promote_types(found.dtype, np.float32), copy=False)
  if not np.isfinite(found).all():
    raise ValueError(f"{tensors.file(name)}: tensor {name} has values that are not finite.")
  return found

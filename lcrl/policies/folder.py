"""The files of a Hugging Face folder: which of them are the model, and whether they agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lcrl.policies.fields import Fields
from lcrl.policies.mxfp4 import dequantized, is_packed, is_part
from lcrl.policies.tensors import Tensors

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
_DTYPES = ("F64", "F32", "F16", "BF16")
_MOST_BYTES = 2**28  # of a JSON file; an index of ten thousand layers has a hundredth


def read_json(path: Path) -> dict[str, Any]:
  """Raises ValueError, with the file's name, where it is not JSON with an object."""
  if path.stat().st_size > _MOST_BYTES:
    raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {_MOST_BYTES}.")
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as e:
    raise ValueError(f"{path} is not JSON: {e}") from e
  if not isinstance(content, dict):
    raise ValueError(f"{path} is not a JSON object, but a {type(content).__name__}.")
  return content


def open_folder(folder: Path) -> tuple[dict[str, Any], Tensors]:
  """(config.json, tensors) of a Hugging Face folder.

  Raises:
    FileNotFoundError: the folder, config.json or weights in safetensors are missing.
    ValueError: a file is not what its name says, or the files are of more than one model.
  """
  if not folder.is_dir():
    raise FileNotFoundError(f"There is no model folder {folder}.")
  if (folder / "adapter_config.json").is_file():
    raise ValueError(
      f"{folder} holds an adapter (adapter_config.json): merge it into its base model, and give "
      "the folder of the merged model."
    )
  if not (folder / "config.json").is_file():
    raise FileNotFoundError(f"{folder} is not a model folder: it has no config.json.")
  raw = read_json(folder / "config.json")
  names, weight_map = _weight_files(folder)
  files = {name: _open_tensors(folder / name) for name in names}
  at: dict[str, str] = {}
  for file, opened in files.items():
    for name in opened.keys():  # noqa: SIM118
      if weight_map is not None and weight_map.get(name) != file:
        raise ValueError(
          f"{folder / file} holds tensor {name}, which {INDEX} places in {weight_map.get(name)}: "
          "the files are of different saves."
        )
      at[name] = file
  shapes = {}
  for name, file in at.items():
    part = files[file].get_slice(name)
    is_bytes = is_packed(raw) and is_part(name)
    if (dtype := part.get_dtype()) not in (("U8",) if is_bytes else _DTYPES):
      raise ValueError(
        f"{folder / file}: tensor {name} is {dtype}, quantized weights are not read, only "
        f"{', '.join(_DTYPES)}."
      )
    shapes[name] = tuple(part.get_shape())

  def read(name, index):
    part, last = files[at[name]].get_slice(name), index[-1]
    if last.step in (None, 1):
      return part[index]
    # safetensors takes ten times as long to leave out columns
    return part[(*index[:-1], slice(last.start, last.stop))][..., :: last.step]

  tensors = Tensors(str(folder), shapes, read, {n: str(folder / f) for n, f in at.items()})
  return raw, dequantized(tensors) if is_packed(raw) else tensors


def _weight_files(folder: Path) -> tuple[list[str], dict[str, str] | None]:
  """(files with the weights, the file of each tensor if an index says it).

  Saving into a folder that held a model may leave files of the old one. What transformers leaves
  when one file takes the place of shards is an index without its shards; everything else that
  could be either model is refused.
  """
  whole = (folder / WHOLE).is_file()
  shards = {file.name for file in folder.glob("model-*-of-*.safetensors")}
  weight_map = _read_index(folder / INDEX) if (folder / INDEX).is_file() else {}
  named = set(weight_map.values())
  if whole and named != {WHOLE} and (shards or any((folder / name).is_file() for name in named)):
    raise ValueError(
      f"{folder} holds two models, {WHOLE} and {min(shards | named)} with others: remove the files "
      "of the one that is not meant."
    )
  if whole:
    return [WHOLE], None
  if named and (left := sorted(shards - named)):
    raise ValueError(
      f"{folder / left[0]} is not in {INDEX}: the files are of different saves, remove those that "
      "are not meant."
    )
  if named:
    return sorted(named), weight_map
  there = sorted(file.name for file in folder.glob("*") if file.suffix in _OTHER_WEIGHTS)
  what = f"it has {there[0]}, and" if there else "it has none, and"
  raise FileNotFoundError(
    f"{folder / WHOLE} is missing: {what} weights are read from {WHOLE}, from shards with {INDEX} "
    "or from a .gguf file, never from pickles."
  )


_OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".ckpt")


def _read_index(path: Path) -> dict[str, str]:
  """The file of each tensor: plain names, so that no index reaches out of its folder."""
  weight_map = Fields(read_json(path), str(path)).table("weight_map")
  if not weight_map:
    raise ValueError(f"{path}: weight_map is missing or empty.")
  for tensor, file in weight_map.items():
    plain = isinstance(file, str) and file.isprintable() and not set(file) & set("/\\:")
    if not plain or not file.endswith(".safetensors") or len(file.encode()) > 255:
      raise ValueError(
        f"{path}: weight_map places {tensor} in {file!r:.200}, which is not the plain name of a "
        "safetensors file."
      )
  return weight_map


def _open_tensors(path: Path):
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing: only safetensors are read.")
  try:
    return safe_open(path, framework="numpy")
  except SafetensorError as e:
    raise ValueError(f"{path} is not a whole safetensors file, was it cut short? {e}") from e

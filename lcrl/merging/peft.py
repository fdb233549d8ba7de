"""An adapter in PEFT's layout, as the named tensors of the model that it makes of its base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from lcrl.policies.folder import read_json
from lcrl.policies.lora import change, multiplier
from lcrl.policies.tensors import Index, Tensors

__all__ = ["is_adapter", "open_adapter"]

CONFIG = "adapter_config.json"
_PREFIX = "base_model.model."
_NEUTRAL: dict[str, tuple[Any, ...]] = {  # other values change the forward pass
  "peft_type": ("LORA",),
  "use_dora": (False, None),
  "bias": ("none", None),
  "fan_in_fan_out": (False, None),
  "modules_to_save": (None, []),
  "rank_pattern": (None, {}),
  "alpha_pattern": (None, {}),
  "layer_replication": (None,),
}


def is_adapter(folder: Path) -> bool:
  """Whether a folder holds adapters, in the format of the library peft, rather than a model.

  >>> is_adapter(Path("no/such/folder"))
  False
  """
  return (folder / CONFIG).is_file()


def open_adapter(folder: Path, base: Tensors) -> Tensors:
  """The base's tensors with the adapter's changes in them, computed in float32 when read.

  Raises:
    ValueError: by name, an option other than plain LoRA (or rsLoRA), or a tensor that is not an
      adapter's of a matrix in the base.
  """
  raw = read_json(folder / CONFIG)
  for field, neutral in _NEUTRAL.items():
    if raw.get(field, neutral[0]) not in neutral:
      raise ValueError(
        f"{folder / CONFIG}: {field}={raw[field]!r:.60} is not read, only {neutral[0]!r}."
      )
  for name in ("lora_alpha", "r"):
    value = raw.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
      raise ValueError(f"{folder / CONFIG}: {name} must be a number above 0, got {value!r:.60}.")
  scale = multiplier(raw["lora_alpha"], raw["r"], rank_stabilized=bool(raw.get("use_rslora")))
  path = folder / "adapter_model.safetensors"
  pairs = _pairs(path, base)

  def read(name: str, index: Index) -> np.ndarray:
    found = base.read(name, index)
    if name not in pairs:
      return found
    rows, *columns = index
    a, b = (pairs[name][side].astype(np.float32) for side in "AB")
    step = change(b[rows], a[:, columns[0]] if columns else a, scale=scale)
    return found.astype(np.float32) + step

  return Tensors(str(folder), base.shapes, read, {name: str(path) for name in pairs})


def _pairs(path: Path, base: Tensors) -> dict[str, dict[str, np.ndarray]]:
  """Tensor of the base -> {"A": [rank, in], "B": [out, rank]}."""
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing: adapters are read from safetensors only.")
  pairs: dict[str, dict[str, np.ndarray]] = {}
  try:
    with safe_open(path, framework="numpy") as file:
      for key in file.keys():  # noqa: SIM118
        module, _, side = key.removeprefix(_PREFIX).rpartition(".lora_")
        name = f"{module}.weight"
        if side not in ("A.weight", "B.weight") or name not in base.shapes:
          raise ValueError(f"{path}: tensor {key} is no adapter of a tensor in {base.where}.")
        pairs.setdefault(name, {})[side[0]] = file.get_tensor(key)
  except SafetensorError as why:
    raise ValueError(f"{path} is not a whole safetensors file: {why}") from why
  if not pairs:
    raise ValueError(f"{path} holds no adapter.")
  for name, both in pairs.items():
    if both.keys() != {"A", "B"}:
      raise ValueError(f"{path}: {name} has lora_{min(both)} alone.")
    shape = (both["B"].shape[0], both["A"].shape[-1])
    if shape != base.shapes[name] or both["B"].shape[-1] != both["A"].shape[0]:
      shapes = [list(both[side].shape) for side in "AB"]
      raise ValueError(f"{path}: lora_A and lora_B of {name} are {shapes[0]} and {shapes[1]}.")
  return pairs

"""How layers differ, in config.json and back: sliding windows and rotary positions."""

from __future__ import annotations

from typing import Any

from lcrl.policies.config import NO_ROPE, Config, Rope
from lcrl.policies.families import FAMILIES
from lcrl.policies.fields import Fields
from lcrl.policies.hf_rope import read_rope, write_rope

Json = dict[str, Any]
_FULL, _SLIDING = "full_attention", "sliding_attention"


def read_windows(c: Fields, name: str, layers: int) -> tuple[int | None, ...] | None:
  """One window a layer, or None where no layer has one."""
  family = FAMILIES[name]
  on = c.flag("use_sliding_window", None)
  window = c.whole("sliding_window", unsaid(c, name, "sliding_window"))
  asks = family.sliding in ("later", "without rope")  # only these read use_sliding_window
  if family.sliding == "none" and (on or (window and on is None)):
    raise c.refuse("sliding_window", f"is not supported for {name}")
  if family.sliding in ("all", "most") and on is not None and on != (window is not None):
    raise c.refuse("use_sliding_window", f"contradicts sliding_window={window}")
  if c.whole("sliding_window_size", window) != window:
    raise c.refuse("sliding_window_size", f"contradicts sliding_window={window}")
  window = window if on or (not asks and family.sliding != "none") else None
  kinds = [_SLIDING if window and slides else _FULL for slides in _slides(c, name, layers)]
  given = c.list_of(str, "layer_types", kinds)
  known = {_FULL: None} | ({_SLIDING: window} if window else {})
  if unknown := sorted(set(given) - set(known)):
    raise ValueError(f"{c.where}: layer_types: {unknown[0]!r} is not supported, only {[*known]}.")
  if len(given) != layers:
    raise ValueError(f"{c.where}: layer_types has {len(given)} entries for {layers} layers.")
  if given != kinds and family.sliding in ("none", "all"):
    raise c.refuse("layer_types", f"is not supported for {name} with sliding_window={window}")
  windows = tuple(known[kind] for kind in given)
  return windows if any(windows) else None


def unsaid(c: Fields, name: str, key: str) -> Any:
  """The family's value of a field that the file does not name; null is a value of its own."""
  return None if key in c.values else FAMILIES[name].unsaid.get(key)


def _slides(c: Fields, name: str, layers: int) -> list[bool]:
  """Which layers have a window where `layer_types` is silent."""
  sliding, full_every = FAMILIES[name].sliding, FAMILIES[name].full_every
  if sliding == "later":
    first = c.whole("max_window_layers", 28, least=0)
    return [i >= first for i in range(layers)]
  if sliding == "without rope":
    return [not rotates for rotates in _rotates(c, layers)]
  if sliding == "most":
    every = c.whole("sliding_window_pattern", full_every)
    return [(i + 1) % every != 0 for i in range(layers)]
  return [sliding == "all"] * layers


def _rotates(c: Fields, layers: int) -> list[int]:
  every = c.whole("no_rope_layer_interval", 4)
  given = c.list_of(int, "no_rope_layers", [int((i + 1) % every != 0) for i in range(layers)])
  if len(given) != layers or {*given} - {0, 1}:
    raise c.refuse("no_rope_layers", f"should be 0 or 1 for each of {layers} layers")
  return given


def read_ropes(c: Fields, name: str, windows) -> tuple[Rope, tuple[Rope, ...] | None]:
  """The rotary positions of layers that see everything, and of each layer where they differ."""
  family, layers = FAMILIES[name], c.whole("num_hidden_layers")
  theta = family.unsaid.get("rope_theta", 10_000.0)
  own = family.unsaid.get("rope_parameters")
  if own and not (c.values.get("rope_parameters") or c.values.get("rope_scaling")):
    c = c._replace(values={**c.values, "rope_parameters": own})
  if family.local_rope:
    rope, local = _two_ropes(c, name, theta)
    ropes = tuple(local if w else rope for w in windows or (None,) * layers)
  else:
    rope = read_rope(c, theta)
    rotates = _rotates(c, layers) if "no_rope_layers" in family.reads else (1,) * layers
    ropes = tuple(rope if r else NO_ROPE for r in rotates)
  return rope, None if {*ropes} == {rope} else ropes


def _two_ropes(c: Fields, name: str, theta: float) -> tuple[Rope, Rope]:
  """Those of layers that see everything, which alone may be stretched, and those of the others."""
  both = c.table("rope_parameters")
  nested = bool({_FULL, _SLIDING} & {*both})
  if nested and (other := {*both} - {_FULL, _SLIDING}):
    raise ValueError(f"{c.where}: rope parameter {sorted(other)[0]} is not supported here.")
  part = lambda kind: Fields(both, c.where).table(kind)
  outside = {key: x for key, x in c.values.items() if key != "rope_parameters"}
  rope = read_rope(
    Fields(outside | {"rope_parameters": part(_FULL) if nested else both}, c.where), theta
  )
  key = "rope_local_base_freq"
  base = c.positive(key, None) if key in FAMILIES[name].reads else c.positive("rope_theta", theta)
  local = {"rope_theta": base or FAMILIES[name].unsaid[key]} | (part(_SLIDING) if nested else {})
  if base and local["rope_theta"] != base and key in FAMILIES[name].reads:
    raise c.refuse(key, f"contradicts rope_theta={local['rope_theta']} of {_SLIDING}")
  sizes = {"max_position_embeddings": c.whole("max_position_embeddings", 2048)}
  return rope, read_rope(Fields(sizes | {"rope_parameters": local}, c.where), theta)


def write_layers(c: Config) -> Json:
  """The fields that say it."""
  family = FAMILIES[c.family]
  windows = c.windows or (None,) * c.layers
  window = max((w for w in windows if w), default=None)
  rope = write_rope(c.rope)
  raw: Json = {
    "rope_parameters": rope,
    "rope_theta": c.rope.theta,
    "rope_scaling": None if c.rope.scaling == "default" else rope,
  }
  if family.local_rope:
    local = next((rope for w, rope in c.kinds if w), c.rope)
    raw["rope_parameters"] = {_FULL: rope, _SLIDING: write_rope(local)}
    if "rope_local_base_freq" in family.reads:
      raw["rope_local_base_freq"] = local.theta
  if "no_rope_layers" in family.reads:
    raw["no_rope_layers"] = [int(rope != NO_ROPE) for _, rope in c.kinds]
  if family.sliding == "none":
    return raw
  if family.sliding in ("later", "without rope"):
    raw["use_sliding_window"] = window is not None
  raw["sliding_window"] = window
  if family.sliding == "all":
    return raw
  if family.sliding == "later":
    raw["max_window_layers"] = sum(w is None for w in windows)
  return raw | {"layer_types": [_SLIDING if w else _FULL for w in windows]}

"""Where each leaf of the params tree stands in a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np

from lcrl.policies.families import FAMILIES
from lcrl.policies.transformer import Policy

PyTree = Any

TOP = {
  ("embed",): "model.embed_tokens.weight",
  ("norm", "scale"): "model.norm.weight",
  ("head",): "lm_head.weight",
}
_MODULES = {
  "attention_norm": "input_layernorm",
  "query": "self_attn.q_proj",
  "key": "self_attn.k_proj",
  "value": "self_attn.v_proj",
  "query_norm": "self_attn.q_norm",
  "key_norm": "self_attn.k_norm",
  "sinks": "self_attn.sinks",
  "out": "self_attn.o_proj",
  "mlp_norm": "post_attention_layernorm",
  "gate": "mlp.gate_proj",
  "up": "mlp.up_proj",
  "down": "mlp.down_proj",
}
_MODULES_AFTER = {  # where what attention and MLP add has a norm
  "attention_post_norm": "post_attention_layernorm",
  "mlp_norm": "pre_feedforward_layernorm",
  "mlp_post_norm": "post_feedforward_layernorm",
}
_FUSED = {  # by families that store several matrices as the rows of one
  "self_attn.qkv_proj": ("query", "key", "value"),
  "mlp.gate_up_proj": ("gate", "up"),
}
_COLUMNS = {"gate": (0, 2), "up": (1, 2)}  # of families that store all experts as one tensor


@dataclasses.dataclass(frozen=True)
class Leaf:
  """Where one leaf of the tree stands on disk."""

  names: tuple[str, ...]  # of its tensors, those of the last stacked axis beside each other
  stacked: tuple[int, ...]  # its leading axes: () for one tensor, layers, or layers and experts
  transposed: bool
  rows: tuple[int, int, int] | None = None  # the first, the last, and how many the tensor has
  columns: tuple[int, int] | None = None  # the first, and the step to the next

  def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """That of each tensor on disk, from the leaf's."""
    shape = shape[len(self.stacked) :]
    shape = shape[::-1] if self.transposed else shape
    if self.columns is not None:
      return (*shape[:-1], shape[-1] * self.columns[1])
    return shape if self.rows is None else (self.rows[2], *shape[1:])


def stored_leaves(policy: Policy) -> PyTree:
  """A `Leaf` for each leaf of the params tree."""
  c = policy.config
  experts = FAMILIES[c.family].experts
  modules = {**_MODULES, **({} if c.norms == "pre" else _MODULES_AFTER), **experts}
  rows = {"query": c.heads * c.head_dim, "gate": c.mlp_size, "up": c.mlp_size}
  rows |= dict.fromkeys(("key", "value"), c.kv_heads * c.head_dim)
  fused: dict[str, tuple[str, tuple[int, int, int]]] = {}
  for whole, names in _FUSED.items() if FAMILIES[c.family].fused else ():
    first, total = 0, sum(rows[name] for name in names)
    for name in names:
      fused[name] = whole, (first, first + rows[name], total)
      first += rows[name]

  of_layers = lambda name: tuple(f"model.layers.{i}.{name}" for i in range(c.layers))

  def locate(path, _):
    keys = tuple(key.key for key in path)
    together = "experts" in keys and "{}" not in experts["down"]
    transposed = not together and (keys[-1] in ("kernel", "head") or "experts" in keys)
    if keys in TOP:
      return Leaf((TOP[keys],), (), transposed)
    _, module, leaf = keys
    if together:
      matrix, *bias = leaf.split("_")
      names = of_layers("_".join([experts[matrix], *bias]))
      return Leaf(names, (c.layers,), transposed, columns=_COLUMNS.get(matrix))
    if module == "experts":
      stacked = c.layers, c.experts
      name = f"model.layers.{{}}.{experts[leaf]}.weight"
      return Leaf(tuple(itertools.starmap(name.format, np.ndindex(*stacked))), stacked, transposed)
    stored, part = fused.get(module, (modules[module], None))
    kind = {"bias": ".bias", "logit": ""}.get(leaf, ".weight")
    return Leaf(of_layers(stored + kind), (c.layers,), transposed, part)

  is_names = lambda x: isinstance(x, tuple)
  return jax.tree_util.tree_map_with_path(locate, policy.axes, is_leaf=is_names)

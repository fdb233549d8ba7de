"""Writes GGUF files for llama.cpp. What a file says is read back by `gguf` before it is written."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import gguf
import numpy as np

from lcrl.policies.config import Config, Rope
from lcrl.policies.fields import Fields
from lcrl.policies.gguf import config_of
from lcrl.policies.gguf_file import Tensor
from lcrl.policies.gguf_layouts import (
  FIELDS,
  LAYOUTS,
  Layout,
  gguf_name,
  interleave,
  interleaved_heads,
)
from lcrl.policies.gguf_write_tokenizer import tokenizer_fields
from lcrl.policies.hf_config import refuse_unsaid, write_config
from lcrl.policies.tensors import disassemble, stored_shapes
from lcrl.policies.transformer import Policy
from lcrl.policies.vocabulary import Tokenizer

Kind = gguf.GGMLQuantizationType
TYPES: Mapping[str, tuple[Kind, gguf.LlamaFileType]] = MappingProxyType(
  {
    "f32": (Kind.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (Kind.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
  }
)
ARCHITECTURES = {
  "llama": "llama",
  "mistral": "llama",
  "qwen2": "qwen2",
  "qwen3": "qwen3",
  "smollm3": "smollm3",
}


class _Stored(NamedTuple):
  """A tensor of the file, before it is fetched."""

  name: str
  shape: tuple[int, ...]
  kind: Kind
  values: Callable[[], np.ndarray]  # float32

  @property
  def size(self) -> int:
    block, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
    return math.prod(self.shape) // block * block_bytes

  def data(self) -> np.ndarray:
    """Raises ValueError where a value does not fit the type."""
    values = self.values()
    most = np.finfo(np.float16 if self.kind == Kind.F16 else np.float32).max
    if not np.abs(values).max() <= most:  # nan is not, either
      raise ValueError(f"Tensor {self.name} has values that are not finite {self.kind.name}.")
    return gguf.quants.quantize(values, self.kind)


def save_gguf(
  path: str | os.PathLike, policy: Policy, params: Any, tokenizer: Tokenizer, *, type: str = "f16"
) -> None:
  """Writes a GGUF file, which llama.cpp runs and `load` reads.

  The file takes the place of an earlier one when it is whole.

  Args:
    path: the file.
    policy, params: a model of a family in ARCHITECTURES; SmolLM2 is a Llama.
    tokenizer: its tokenizer, byte-level BPE with a way to cut texts that GGUF files can name.
    type: of matrices, a name in TYPES: f32, f16, bf16 or q8_0 (8 bits a value, in blocks of 32).
      Norms and biases are f32; matrices whose rows do not fill blocks are f16.
  Raises:
    ValueError: llama.cpp would compute something else, by the field that the file cannot hold, or
      a value does not fit the type.

  >>> from lcrl import policies
  >>> gemma = policies.make(policies.tiny(32, family="gemma2"))
  >>> policies.save_gguf("model.gguf", gemma, params=None, tokenizer=None)
  Traceback (most recent call last):
      ...
  ValueError: A GGUF file can hold llama, mistral, qwen2, qwen3, smollm3, not gemma2.
  """
  if type not in TYPES:
    raise ValueError(f"type={type!r} is not one of {', '.join(TYPES)}.")
  path = Path(path).expanduser()
  kind, file_type = TYPES[type]
  fields, divisors = _model_fields(policy.config)
  fields |= tokenizer_fields(tokenizer, policy.config.vocab_size)
  fields |= {"general.name": path.stem, "general.file_type": int(file_type)}
  fields |= {"general.quantization_version": gguf.GGML_QUANT_VERSION}
  tensors = [*_tensors(policy, params, kind, LAYOUTS[fields["general.architecture"]])]
  if divisors is not None:
    tensors.append(_Stored("rope_freqs.weight", divisors.shape, Kind.F32, lambda: divisors))
  path.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as staging:
    _write(Path(staging) / path.name, fields, tensors)
    os.replace(Path(staging) / path.name, path)


def _model_fields(c: Config) -> tuple[dict[str, Any], np.ndarray | None]:
  """Metadata of the model, and the divisors of its frequencies if it has them as Llama 3.1."""
  if c.family not in ARCHITECTURES:
    known = ", ".join(ARCHITECTURES)
    raise ValueError(f"A GGUF file can hold {known}, not {c.family}.")
  family = ARCHITECTURES[c.family]
  raw = write_config(c)
  said, divisors = raw | (raw["rope_scaling"] or {}), None
  if c.rope.scaling == "llama3":
    if family != "llama":  # others have no such tensor
      raise ValueError(f"A GGUF file of {c.family} cannot hold rope scaling 'llama3'.")
    plain = Rope(c.rope.theta).frequencies(c.head_dim)
    said, divisors = raw, (plain / c.rope.frequencies(c.head_dim)).astype(np.float32)
  own = {FIELDS[key]: _as_float32(x) for key, x in said.items() if key in FIELDS}
  own |= {"attention.value_length": c.head_dim, "rope.dimension_count": c.head_dim}
  fields = {f"{family}.{key}": x for key, x in own.items()}
  fields |= {f"{family}.vocab_size": c.vocab_size}
  fields |= {"general.architecture": family, "general.type": "model"}
  _refuse_unsaid(c, fields, divisors)
  return fields, divisors


def _refuse_unsaid(c: Config, fields: Mapping[str, Any], divisors: np.ndarray | None) -> None:
  """Raises ValueError where these fields say another model."""
  tensor = lambda *shape, data=None: Tensor(Kind.F32, shape, data)
  tensors = {"token_embd.weight": tensor(c.vocab_size, c.hidden_size)}
  if not c.tied:
    tensors["output.weight"] = tensors["token_embd.weight"]
  if divisors is not None:
    tensors["rope_freqs.weight"] = tensor(len(divisors), data=divisors.view(np.uint8))
  raw, _ = config_of(Fields(fields, "The GGUF file"), tensors)
  meant = dataclasses.replace(_as_float32(c), family=raw["model_type"])
  refuse_unsaid(meant, raw, "A GGUF file")


def _as_float32(x: Any) -> Any:
  """Numbers as a GGUF file holds them, also those of a config."""
  if isinstance(x, Config | Rope):
    named = {field.name: getattr(x, field.name) for field in dataclasses.fields(x)}
    return dataclasses.replace(x, **{name: _as_float32(value) for name, value in named.items()})
  if isinstance(x, tuple):
    return tuple(map(_as_float32, x))
  return float(np.float32(x)) if isinstance(x, float) else x


def _tensors(policy: Policy, params: Any, kind: Kind, layout: Layout) -> Iterator[_Stored]:
  shapes, raw = stored_shapes(policy), write_config(policy.config)
  block, _ = gguf.GGML_QUANT_SIZES[kind]
  for name, _, fetch in disassemble(policy, params):
    heads = interleaved_heads(name, layout, raw)

    def values(fetch=fetch, heads=heads) -> np.ndarray:
      found = fetch().astype(np.float32)
      return found if heads is None else interleave(found, heads)

    own = Kind.F32 if len(shapes[name]) == 1 else Kind.F16 if shapes[name][-1] % block else kind
    yield _Stored(gguf_name(name, layout), shapes[name], own, values)


def _write(path: Path, fields: Mapping[str, Any], tensors: list[_Stored]) -> None:
  out = gguf.GGUFWriter(path, fields["general.architecture"])
  for key, value in fields.items():
    kind = gguf.GGUFValueType.get_type(value)  # llama.cpp takes no signed numbers
    out.kv_data[0].pop(key, None)
    out.add_key_value(key, value, gguf.GGUFValueType.UINT32 if type(value) is int else kind)
  for tensor in tensors:
    out.add_tensor_info(
      tensor.name, tensor.shape, np.dtype(np.float32), tensor.size, raw_dtype=tensor.kind
    )
  out.write_header_to_file()
  out.write_kv_data_to_file()
  out.write_ti_data_to_file()
  for tensor in tensors:  # one at a time is in memory
    out.write_tensor_data(tensor.data())
  out.close()

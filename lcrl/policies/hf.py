"""Models on disk: reads Hugging Face folders and GGUF files, writes Hugging Face folders.

Only safetensors, GGUF and JSON: nothing that is read can run code.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from safetensors.numpy import save_file

from lcrl.policies.folder import INDEX, open_folder, read_json
from lcrl.policies.gguf import read_gguf
from lcrl.policies.hf_config import read_config, write_config
from lcrl.policies.hf_text import text_tensors
from lcrl.policies.hub import local_path
from lcrl.policies.tensors import assemble, check_sizes, disassemble
from lcrl.policies.transformer import Policy, make

PyTree = Any
__all__ = ["Source", "load", "pretrained", "read_json", "save"]


class Source(NamedTuple):
  """A policy, and where its parameters come from."""

  policy: Policy
  params: Callable[..., PyTree]  # key?, shardings? -> params
  init: Callable[[jax.Array], PyTree]  # key -> random params of the same shapes and dtypes


def pretrained(
  path: str | os.PathLike,
  *,
  dtype: str = "float32",
  param_dtype: str = "float32",
  remat: str = "auto",
  unroll: bool | Literal["auto"] = "auto",
  attention: str = "auto",
) -> Source:
  """The model in a Hugging Face folder or a GGUF file. Weights are read when params are asked for.

  Args:
    path: a folder with config.json and safetensors, a file that ends in .gguf, or a hub id such as
      Qwen/Qwen2.5-1.5B-Instruct, which huggingface_hub downloads or finds in its cache.
    dtype: of the computation.
    param_dtype: of the parameters as they are stored; bfloat16 suits those below adapters, and
      rounds away small updates of those that are trained.
    remat: what the backward pass keeps, a name in `transformer.REMAT`.
    unroll: training without a scan over layers: faster, and longer to compile.
    attention: a back end, a name in `attention.BACKENDS`.
    All three may be "auto": a run chooses by its devices, lengths and memory.
  """
  path = local_path(path)
  is_gguf = path.suffix == ".gguf" and path.is_file()
  raw, tensors = read_gguf(path) if is_gguf else open_folder(path)
  runtime = {"dtype": dtype, "remat": remat, "unroll": unroll, "attention": attention}
  where = str(path if is_gguf else path / "config.json")
  config = read_config(raw, where, **runtime)
  if raw["model_type"] == "gemma3":
    tensors = text_tensors(tensors)
  check_sizes(config, tensors, where)
  policy = make(config)

  def params(key=None, shardings: PyTree = None) -> PyTree:
    del key
    return assemble(policy, tensors, jnp.dtype(param_dtype), shardings)

  return Source(policy, params, init_in(policy, param_dtype))


def init_in(policy: Policy, dtype: str | None) -> Callable[[jax.Array], PyTree]:
  """`policy.init` with parameters of this dtype; None: those of `policy.init`."""
  if dtype is None:
    return policy.init
  return jax.jit(lambda key: jax.tree.map(lambda x: x.astype(dtype), policy.init(key)))


def load(path: str | os.PathLike, *, shardings: PyTree = None, **options: Any):
  """(policy, params) of a Hugging Face folder or a GGUF file; the options are `pretrained`'s.

  >>> load("no/such/folder")
  Traceback (most recent call last):
      ...
  FileNotFoundError: There is no model folder no/such/folder.
  """
  source = pretrained(path, **options)
  return source.policy, source.params(shardings=shardings)


def save(
  path: str | os.PathLike,
  policy: Policy,
  params: PyTree,
  tokenizer=None,
  *,
  shard_bytes: int = 5 * 2**30,
) -> None:
  """Writes a Hugging Face folder that transformers reads to the same logits.

  Files are written beside the folder and moved in when all are whole, so that a full disk leaves
  what was there before.

  Args:
    path: the folder; an earlier model in it is replaced, other files stay.
    policy, params: the model; tensors are written in the dtype of params.
    tokenizer: a `Tokenizer` to save with it.
    shard_bytes: files of safetensors are at most about this large.
  """
  path = Path(path).expanduser()
  raw = write_config(policy.config)
  raw["dtype"] = str(jax.tree.leaves(params)[0].dtype)
  path.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as staging:
    written = Path(staging)
    _write_tensors(written, policy, params, shard_bytes)
    if tokenizer is not None:
      tokenizer.save(written)
    _write_json(written / "config.json", raw)
    for old in path.glob("model*.safetensors*"):
      old.unlink()
    for new in written.iterdir():
      new.chmod(0o644)  # safetensors writes 0600
      os.replace(new, path / new.name)


def _write_json(path: Path, content: Any) -> None:
  path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _write_tensors(folder: Path, policy: Policy, params: PyTree, shard_bytes: int) -> None:
  shards: list[list[str]] = [[]]
  sizes = [0]
  fetch = {}
  for name, size, get in disassemble(policy, params):
    if sizes[-1] and sizes[-1] + size > shard_bytes:
      shards.append([])
      sizes.append(0)
    shards[-1].append(name)
    sizes[-1] += size
    fetch[name] = get
  where: dict[str, str] = {}
  for i, names in enumerate(shards, 1):
    file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
    file = "model.safetensors" if len(shards) == 1 else file
    save_file({name: fetch[name]() for name in names}, folder / file, {"format": "pt"})
    where |= dict.fromkeys(names, file)
  if len(shards) > 1:
    _write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes)}, "weight_map": where})

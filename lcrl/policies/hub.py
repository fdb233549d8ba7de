"""Model folders by their hub id: a local path comes first, then what `huggingface_hub` has."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_LOCAL = ("models", "runs", "data", "..", ".", "~")  # folders of configs, not owners on a hub
# Weights in safetensors, and what a tokenizer and its template need.
_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
_OTHERS = ("*/*",)  # the same weights for other programs


def local_path(path: str | os.PathLike) -> Path:
  """The file or folder itself, or the folder to which the hub's copy was downloaded.

  Args:
    path: a path, or a hub id such as Qwen/Qwen2.5-1.5B-Instruct, with @REVISION for a branch, tag
      or commit. A copy that was downloaded before serves without a network.
  Raises:
    FileNotFoundError: there is no such path, and the hub gives no model of this name.
  """
  here = Path(path).expanduser()
  found = _ID.fullmatch(os.fspath(path))
  if here.exists() or not found or found["repo"].partition("/")[0] in _LOCAL:
    return here
  try:
    import huggingface_hub as hub
  except ImportError:
    raise FileNotFoundError(
      f"There is no model folder {path}. To take it for a hub id, install huggingface_hub "
      "(pip install 'lcrl-jax[hub]')."
    ) from None
  try:
    return Path(
      hub.snapshot_download(
        found["repo"],
        revision=found["revision"],
        allow_patterns=list(_FILES),
        ignore_patterns=list(_OTHERS),
      )
    )
  except Exception as why:  # the client raises errors of several libraries
    raise FileNotFoundError(
      f"There is no model folder {path}, and the hub gives none of this name: {why}"
    ) from why

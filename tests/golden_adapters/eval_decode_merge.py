"""eval_decode_merge has many methods: its adapters lie in the eval_decode_merge_* modules here."""

import importlib
import pkgutil
from pathlib import Path

_parts = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]

ADAPTERS = {
  key: adapter
  for name in _parts
  if name.startswith("eval_decode_merge_")
  for key, adapter in importlib.import_module(f"tests.golden_adapters.{name}").ADAPTERS.items()
}

"""Empty modules for libraries that a peer asks for and never calls here: those not installed."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any, ClassVar

ASKING = ("tunix", "metrax", "perfetto", "clu")  # what may ask for them


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """The last to be asked. Other libraries see what there is: they know what they can miss."""

  made: ClassVar[list[str]] = []

  def find_spec(self, fullname, path=None, target=None):
    frame: Any = sys._getframe(1)
    while frame and frame.f_globals["__name__"].startswith("importlib"):
      frame = frame.f_back
    asks = frame.f_globals["__name__"].partition(".")[0] if frame else ""
    top = sys.modules.get(fullname.partition(".")[0])
    if asks not in ASKING or (top and not getattr(top, "stands_in", False)):
      return None
    self.made.append(fullname)
    return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

  def create_module(self, spec):
    module: Any = types.ModuleType(spec.name)
    module.__path__, module.stands_in = [], True

    def attribute(name: str):
      if name.startswith("__"):
        raise AttributeError(name)
      return type(name, (_Anything,), {})

    module.__getattr__ = attribute
    return module

  def exec_module(self, module):
    pass


class _Meta(type):
  """Classes that have every attribute."""

  def __getattr__(cls, name: str):
    if name.startswith("__"):
      raise AttributeError(name)
    return type(name, (_Anything,), {})


class _Anything(metaclass=_Meta):
  """Takes any arguments; as a decorator it gives back what it decorates."""

  def __new__(cls, *args, **kwargs):
    return args[0] if len(args) == 1 and callable(args[0]) else super().__new__(cls)

  def __init__(self, *args, **kwargs):
    pass

  def __call__(self, f=None, *args, **kwargs):
    return f

  def __class_getitem__(cls, item):
    return cls

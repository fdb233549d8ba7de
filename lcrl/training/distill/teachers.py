"""What a model of the section `teachers` may name, besides the folder of a run or of a model."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from lcrl.policies import sources
from lcrl.policies.hf import Source, init_in
from lcrl.policies.sources import between as between
from lcrl.policies.sources import fresh as fresh
from lcrl.policies.sources import pretrained as pretrained
from lcrl.registry import build
from lcrl.training.remote import opened
from lcrl.training.saved_policy import anywhere, restore
from lcrl.training.sections import Mesh
from lcrl.training.workdir import read_config

__all__ = ["between", "fresh", "pretrained", "run"]


def run(*, path: str, step: int | None = None) -> Source:
  """The policy of a run, with merged adapters.

  Args:
    path: the folder of the run.
    step: of its checkpoint; None: the newest valid one, each time that the run starts or resumes.
  """
  kind, settings = kind_and_settings(path)
  policy = build(sources, settings.built["policy"], field="policy", gives=Source).policy

  def params(key=None, shardings: Any = None) -> Any:
    del key
    mesh = jax.tree.leaves(shardings)[0].mesh
    here = dataclasses.replace(
      anywhere(settings, prompts=mesh.size), mesh=Mesh(devices=mesh.size, **mesh.shape)
    )
    return restore(opened(path).expanduser(), kind.model(here), step)[1]

  return Source(policy, params, init_in(policy, None))


def kind_and_settings(path: str) -> tuple[Any, Any]:
  """The kind and the settings of the run in a folder."""
  from lcrl.training import kinds  # it imports the learners, whose runs import this module

  config = read_config(opened(path).expanduser())
  kind = kinds.acting(config)
  return kind, kind.settings(config)

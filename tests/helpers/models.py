"""Model folders of the fixtures."""

import functools
import shutil
from pathlib import Path

from lcrl import policies

MODELS = Path(__file__).parents[1] / "fixtures" / "models"


@functools.cache
def _load(name):
  return policies.load(MODELS / name)


def _copy(name, tmp_path):
  return Path(shutil.copytree(MODELS / name, tmp_path / name))

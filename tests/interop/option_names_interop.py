"""docs/from_trl_and_verl.md: the names of TRL and verl, their choices and their defaults."""

import dataclasses
import inspect
import pathlib
import re

import pytest
import torch
import trl
import verl
from omegaconf import OmegaConf
from trl.experimental.cpo import CPOConfig
from trl.experimental.orpo import ORPOConfig
from verl.experimental.reward_loop.reward_manager import dapo
from verl.trainer.ppo import core_algos

from tests.helpers.option_names import assignment, rows, value

CONFIGS = {c.__name__: c for c in (trl.GRPOConfig, trl.DPOConfig, trl.KTOConfig)}
CONFIGS |= {c.__name__: c for c in (CPOConfig, ORPOConfig)}
PACKAGE = pathlib.Path(verl.__file__).parent
CHOICES = {
  "actor.policy_loss.loss_mode": core_algos.POLICY_LOSS_REGISTRY,
  "algorithm.adv_estimator": core_algos.ADV_ESTIMATOR_REGISTRY,
}


def test_versions():
  for page in ("torch_trainers.md", "from_trl_and_verl.md"):
    text = (pathlib.Path(__file__).parents[2] / "docs" / page).read_text()
    for library in (trl, verl):
      assert f"{library.__name__} {library.__version__}" in text


def default_of(field):
  made = field.default_factory
  return field.default if made is dataclasses.MISSING else made()


@pytest.mark.parametrize("heading", ["TRL: GRPOConfig", "TRL: DPOConfig"])
def test_trl(heading):
  for row in rows(heading):
    (*owner, name), given = assignment(row.other)
    config = CONFIGS[owner[0] if owner else "GRPOConfig"]
    fields = {field.name: field for field in dataclasses.fields(config)}
    assert name in fields, row
    if row.other_default:
      assert default_of(fields[name]) == value(row.other_default), row
    documented = fields[name].metadata.get("help", "") + (config.__doc__ or "")
    for choice in given if isinstance(given, list) else [given]:
      if isinstance(choice, str):
        assert re.search(rf"['\"`]{choice}['\"`]", documented), row


@pytest.fixture(scope="module")
def config():
  return OmegaConf.load(PACKAGE / "trainer/config/_generated_ppo_trainer.yaml")


def test_verl(config):
  for row in rows("verl"):
    path, given = assignment(row.other)
    if path[:2] == ["reward", "reward_kwargs"]:  # the config is open there
      assert re.search(rf"\b{path[-1]}\b", inspect.getsource(dapo.DAPORewardManager)), row
      continue
    at = (["actor_rollout_ref"] if path[0] in ("actor", "rollout") else []) + path
    missing = object()
    default = OmegaConf.select(config, ".".join(at), default=missing)
    assert default is not missing, row
    if row.other_default:
      assert default == value(row.other_default), row
    if given and ".".join(path) in CHOICES:
      assert given in CHOICES[".".join(path)], row
    if path[-1] == "loss_agg_mode":
      ones = torch.ones(2, 3)
      assert torch.isfinite(core_algos.agg_loss(ones, ones, given)), row

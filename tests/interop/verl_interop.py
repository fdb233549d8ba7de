"""The snippet for verl in its registry and its `compute_advantage`."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from verl import DataProto
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
from verl.trainer.ppo.ray_trainer import compute_advantage

from lcrl import advantages
from lcrl.groups import Groups
from tests.helpers import pages

UIDS = np.array(["b", "a", "b", "a", "c", "a"], object)
SCORES = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 0.0])
LENGTHS = torch.tensor([20, 400, 30, 200, 5, 300])
MASK = torch.arange(400) < LENGTHS[:, None]
REWARDS = SCORES[:, None] * (torch.arange(400) == LENGTHS[:, None] - 1)


@pytest.fixture(scope="module")
def snippet():
  return pages.run("torch_trainers.md", "verl")["alp"]


def test_an_estimator_of_verl(snippet):
  batch = {"token_level_rewards": REWARDS, "response_mask": MASK.long()}
  data = DataProto.from_dict(tensors=batch, non_tensors={"uid": UIDS})
  found = compute_advantage(data, adv_estimator="alp").batch["advantages"]
  # The price is 1e-4 a token times the group's share of right answers: 2 / 3 in a, 1 / 2 in b.
  a = np.array([1 - 0.04 * 2 / 3, 1 - 0.02 * 2 / 3, -0.03 * 2 / 3])
  b = np.array([1 - 0.002 / 2, -0.003 / 2])
  a, b = ((x - x.mean()) / (x.std(ddof=1) + 1e-6) for x in (a, b))
  want = np.array([b[0], a[0], b[1], a[1], 0.0, a[2]])  # c has one response
  np.testing.assert_allclose(found, want[:, None] * MASK.numpy(), rtol=1e-5, atol=1e-6)


def test_grpo_of_verl_is_ours_with_lone_raw():
  groups = Groups(UIDS)
  ours = advantages.group_normalized_advantage(groups(SCORES), groups.valid, lone_raw=True)
  theirs, _ = compute_grpo_outcome_advantage(REWARDS.clone(), MASK.float(), UIDS)
  want = groups.rows(np.asarray(ours))[:, None] * MASK.numpy()
  np.testing.assert_allclose(theirs, want, rtol=1e-5, atol=1e-6)


def test_every_process_of_verl_imports_it(tmp_path):
  (tmp_path / "my_estimators.py").write_text(pages.python_of("torch_trainers.md", "verl"))
  path = os.pathsep.join([str(tmp_path), *sys.path])
  program = "from verl.trainer.ppo.core_algos import get_adv_estimator_fn as f; print(f('alp'))"
  found = subprocess.run(
    [sys.executable, "-c", program],
    env={**os.environ, "PYTHONPATH": path, "VERL_USE_EXTERNAL_MODULES": "my_estimators"},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert "function alp" in found.stdout, found.stderr

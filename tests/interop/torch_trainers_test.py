"""The snippets of docs/torch_trainers.md, on the rows that trainers give. Where torch is not
installed, NumPy stands for it: `make test-interop` has torch."""

import importlib.util
import sys
import types

import numpy as np
import pytest

from tests.helpers import pages

PAGE = "torch_trainers.md"


class Tensor(np.ndarray):
  """What the snippets use of a tensor."""

  device = "cpu"
  cpu = numpy = float = lambda self: self
  long = lambda self: self.astype(np.int64)
  to = lambda self, other: self
  expand = lambda self, shape: np.broadcast_to(self, shape)


def stand_in():
  return types.SimpleNamespace(
    tensor=lambda x, dtype=None: np.asarray(x, dtype).view(Tensor), float32=np.float32
  )


torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else stand_in()


@pytest.fixture(autouse=True)
def _torch(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", torch)


# Two prompts of two responses each, not after each other.
UIDS = np.array(["b", "a", "b", "a"], object)
CORRECT = np.array([1.0, 1.0, 0.0, 1.0])
LENGTHS = np.array([2, 4, 3, 2])
MASK = torch.tensor(np.arange(4) < LENGTHS[:, None])


def test_trl():
  reward = pages.run(PAGE, "TRL")["length_reward"]
  found = reward(
    prompts=["p"] * 4 + ["q"] * 4,
    completions=["42"] * 4 + ["42", "7", "7", "7"],
    completion_ids=[[1] * n for n in (10, 20, 30, 20, 20, 10, 30, 40)],
    answer=["42"] * 8,
    trainer_state=None,
  )
  # Group 1: 0.5 - (length - 10) / 20 is +1/2, 0, -1/2, 0. Group 2: (length - 10) / 30; only the
  # right answer gains by being short, wrong ones lose by being long.
  want = [1.25, 1, 0.75, 1, 1 + 0.5 / 6, 0, -0.5 / 6, -0.25]
  np.testing.assert_allclose(found, want, rtol=1e-6)
  assert all(type(x) is float for x in found)


def test_verl(monkeypatch):
  registry = {}
  verl = types.SimpleNamespace(register_adv_est=lambda name: lambda f: registry.setdefault(name, f))
  monkeypatch.setitem(sys.modules, "verl.trainer.ppo.core_algos", verl)
  pages.run(PAGE, "verl")
  ends = np.arange(4) == LENGTHS[:, None] - 1
  rewards = torch.tensor(CORRECT[:, None] * ends)
  advantages, returns = registry["alp"](rewards, MASK, index=UIDS, config=None)
  assert returns is advantages
  # Group a, all right, pays 1e-4 a token: 4 tokens against 2. Group b: right against wrong.
  # Two values are 1 / sqrt(2) deviations from their mean.
  want = np.array([1, -1, -1, 1])[:, None] / np.sqrt(2) * np.asarray(MASK)
  np.testing.assert_allclose(advantages, want, atol=0.01)


def test_nemo_rl():
  estimator = pages.run(PAGE, "NeMo-RL")["ShorterBetter"]()
  prompts = torch.tensor([[5, 6], [5, 5], [5, 6], [5, 5]])
  found = estimator.compute_advantage(
    prompt_ids=prompts,
    rewards=torch.tensor(CORRECT),
    mask=MASK,
    repeated_batch={},
    logprobs_policy=None,
  )
  # The shortest right answer has 2 tokens in both groups; each token from there costs 0.001.
  want = np.array([1.001, -0.002, -1.001, 0.002])
  np.testing.assert_allclose(found, np.broadcast_to(want[:, None], MASK.shape), atol=1e-6)


def test_openrlhf():
  scope = pages.run(PAGE, "OpenRLHF")
  scope["tokenizer"] = types.SimpleNamespace(encode=lambda text, add_special_tokens: text.split())
  for answer, want in (("it is 7 </s>", 2.0), ("it is 8 </s>", -10.0)):
    found = scope["reward_func"](["ask: " + answer], ["ask: "], ["7"])
    np.testing.assert_allclose(found["rewards"], [want], rtol=1e-4)  # 4 of 4,096 tokens
    assert found["scores"] == (want > 0)

"""Runs whose policy is a mixture of experts, from a folder: they learn, on any mesh."""

import json

import jax
import numpy as np
import pytest

from lcrl import policies
from lcrl.commands.export import export
from lcrl.training.loop import train
from tests.helpers import pair_runs
from tests.helpers.rl_runs import changed, final_state

EXPERTS = {"family": "mixtral", "experts": 4, "experts_per_token": 2, "tied": False}
SIZES = {"hidden_size": 16, "layers": 1, "mlp_size": 16, "head_dim": 8} | EXPERTS
CUT = {"fsdp": 2, "tensor": 2, "devices": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A function of a vocabulary's size -> a folder in the layout of Mixtral."""

  def make(vocab_size):
    path = tmp_path_factory.mktemp("mixtral")
    policy = policies.make(policies.tiny(vocab_size, **SIZES))
    policies.save(path, policy, policy.init(jax.random.key(5)))
    return {"fn": "pretrained", "path": str(path)}

  return make


@pytest.mark.slow
def test_rl_on_a_cut_mesh_moves_every_expert_and_is_exported(folder, tmp_path):
  policy = folder(20)
  own = {"train__steps": 1, "train__balance": 0.01, "sampling__replay": True}
  config = changed(policy=policy, mesh={"data": 1} | CUT, **own)
  train(config | {"checkpoint": {"every": 1, "keep": 1}}, tmp_path / "run")
  line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
  assert line["router/balance"] > 1.9
  assert line["sampler_logp_diff"] < 1e-4
  learned = final_state(tmp_path / "run", config).params
  held = learned["layers"]["experts"]["down"]
  assert held.sharding.shard_shape(held.shape) == (1, 2, 16, 8)  # half of the experts
  first = policies.load(policy["path"])[1]["layers"]
  changes = jax.tree.map(lambda x, y: np.abs(x - y), first, jax.device_get(learned["layers"]))
  assert changes["router"]["kernel"].max() > 1e-3
  for x in changes["experts"].values():
    assert x.max((0, 2, 3)).min() > 1e-3
  export(tmp_path / "run", tmp_path / "exported")
  _, exported = policies.load(tmp_path / "exported")
  jax.tree.map(np.testing.assert_array_equal, exported, jax.device_get(learned))


@pytest.mark.slow
@pytest.mark.parametrize("run", ["preference", "sft"])
def test_pairs_and_answers_are_learned_from(run, folder, tmp_path):
  """Adapters of attention below preference pairs; all parameters on answers."""
  rows = tmp_path / "rows.jsonl"
  pairs = [
    {"prompt": f"word {i}", "chosen": f"{i} yes", "rejected": "no " * i} for i in range(1, 25)
  ]
  rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
  own = {"lora__targets": ("query", "out")}
  if run == "sft":
    own = {"run": "sft", "loss": {"fn": "nll"}, "weights": {"fn": "token_mean"}}
    own |= {"reference": None, "lora": None, "data__fn": "responses"}
  config = pair_runs.changed(str(rows), policy=folder(258), mesh__devices=1, train__steps=6, **own)
  train(config, tmp_path / "run")
  lines = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  losses = [line["loss"] for line in lines if "loss" in line]
  assert losses[-1] < losses[0]

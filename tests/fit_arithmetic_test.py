"""What lcrl-fit calculates is what devices hold, and what does not fit names a field."""

from types import SimpleNamespace

import jax
import pytest
from jax.sharding import AbstractMesh

from lcrl.commands import fit as command
from lcrl.commands.command import Experiment
from lcrl.mesh import AXES
from lcrl.policies.experts import CHOSEN
from lcrl.policies.shapes import FOLDERS, SHAPES
from lcrl.training.analysis import arithmetic
from lcrl.training.analysis.fit import abstract_batch, acting
from lcrl.training.analysis.roofline import device_bytes
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.fit_config import CONFIG

LORA = {"rank": 32, "alpha": 64.0}
ROWS = {"steps": 1, "prompts": 8, "group_size": 4, "max_tokens": 7168, "max_prompt_tokens": 1024}


def large(**sections):
  """8 B on 8 groups of 4 rows of 8,192 tokens."""
  policy = {"fn": "pretrained", "path": "models/Llama-3-8B", "dtype": "bfloat16", "remat": "full"}
  policy |= sections.pop("policy", {})
  train = ROWS | sections.pop("train", {})
  return CONFIG | {"policy": policy, "train": train, "mesh": {}} | sections


def calculate(config, topology):
  return command.calculated(config, topology, command.shape_of(config["policy"]))


@pytest.mark.parametrize(
  "mesh, sections",
  [
    ({"fsdp": 8}, {}),
    ({"fsdp": 4, "tensor": 2}, {"optimizer": {"fn": "lamb", "learning_rate": 0.1}}),
    ({"data": 2, "fsdp": 4}, {"optimizer": {"fn": "sgd", "learning_rate": 0.1}}),
    ({"fsdp": 8}, {"optimizer": {"fn": "adamw", "learning_rate": 0.1, "moments": "bfloat16"}}),
    ({"fsdp": 1, "devices": 1}, {"lora": LORA | {"targets": ("query", "value", "down")}}),
  ],
)
def test_parameters_moments_and_adapters_are_counted_exactly(mesh, sections):
  config = CONFIG | {"mesh": mesh} | sections
  config["policy"] = (
    config["policy"] | {"param_dtype": "bfloat16"} if "lora" in config else config["policy"]
  )
  model = build_learner(read(config), devices=jax.local_devices())
  sizes = AbstractMesh(tuple(model.mesh.shape.values()), AXES)
  run = arithmetic.describe(model.settings, model.policy.config, sizes, nvidia=False)
  memory = arithmetic.Memory(run)
  counters = device_bytes((model.abstract.counters, model.abstract.step, model.abstract.position))
  state = device_bytes((model.abstract, model.frozen))
  assert state - counters - 16 <= memory.state <= state
  assert memory.params == device_bytes(acting(model)) - 4 * memory.adapters
  unsplit = sum(
    x.size for x in jax.tree.leaves(jax.eval_shape(model.policy.init, jax.random.key(0)))
  )
  if sizes.shape["tensor"] == 1:
    assert memory.copy == 4 * unsplit == 4 * arithmetic.parameters(model.policy.config)


def test_eight_billion_parameters_fit_one_gpu_with_adapters_and_four_without():
  plain = large()
  assert not calculate(plain, "h100:1")["fits"]
  advice = "\n".join(calculate(plain, "h100:1")["advice"])
  assert "section lora with policy.param_dtype='bfloat16'" in advice
  adapted = large(lora=LORA, policy={"param_dtype": "bfloat16"}, train={"micro_batches": 8})
  found = calculate(adapted, "h100:1")
  assert found["fits"]
  assert found["parameters"] == 8_030_261_248
  split = large(train={"micro_batches": 2})
  found = calculate(split, "h100:4")
  assert found["fits"]
  assert found["devices"] == 4
  ahead = calculate(large(train={"micro_batches": 2, "steps_ahead": 1}), "h100:4")
  assert ahead["programs"]["update"]["beside"] > 14 * 2**30, "the sampler's copy lies there"


def test_experts_are_calculated_from_their_shape():
  policy = {"fn": "pretrained", "path": "models/gpt-oss-20b", "param_dtype": "bfloat16"}
  config = large(policy=policy, lora=LORA | {"targets": ("query", "key", "value", "out")})
  found = command.calculated(config, "h100:8", SHAPES["gpt-oss-20b"])
  assert found["parameters"] == 20_914_757_184
  assert 20e9 < found["programs"]["sample"]["peak"] < 200e9


def test_following_every_advice_ends_in_a_run_that_fits():
  config = large(train={"prompts": 512, "group_size": 8}, policy={"remat": "none"})
  seen, micro = [], None
  for _ in range(6):
    shape = command.shape_of(config["policy"])
    found = command.calculated(config, "h100:64", shape, micro_tokens=micro)
    if found["fits"]:
      break
    seen += found["changes"]
    for field, value in found["changes"].items():
      section, name = field.split(".")
      if name == "micro_tokens":
        micro = value
      config[section] = config[section] | {name: value}
      config["train"].pop("micro_tokens", None)
  assert found["fits"], found
  assert seen[:3] == ["sampling.slots", "policy.remat", "train.micro_batches"]


def test_a_smaller_cache_and_pairs_are_calculated_too():
  bytes_of = lambda **sampling: calculate(large(sampling=sampling), "h100:8")["programs"]["sample"]
  assert bytes_of(cache_dtype="int8")["peak"] < bytes_of(dtype="bfloat16")["peak"]
  found = command.fit(
    {
      "run": "preference",
      "seed": 0,
      "loss": {"fn": "simpo"},
      "policy": {"fn": "pretrained", "path": "models/Llama-3-8B", "remat": "full"},
      "data": {"fn": "pairs", "rows": {"fn": "jsonl", "path": "nowhere"}, "window": 2048},
      "batches": {"fn": "stratified", "size": 128},
      "optimizer": CONFIG["optimizer"],
      "mesh": {},
      "train": {"steps": 4, "max_tokens": 16, "micro_batches": 16},
    },
    topology="v5p:2x2x2",
    calculate=True,
  )
  assert [*found["programs"]] == ["copy", "sample", "update"]
  assert (
    6 * 8.03e9 * 128 * 2 * 2048 < found["programs"]["update"]["flops"] < 9 * 8.03e9 * 128 * 4096
  )


def test_adapters_of_experts_are_refused_as_in_the_run():
  config = large(lora=LORA, policy={"param_dtype": "bfloat16", "path": "Qwen3-30B-A3B"})
  with pytest.raises(ValueError, match="targets has 'gate', but MLPs of this model are mixtures"):
    calculate(config, "h100:4")


def test_batches_that_no_device_shares_are_refused_as_in_the_run():
  with pytest.raises(ValueError, match=r"train\.prompts must be a multiple of .*got 8 for 1 \* 16"):
    calculate(large(), "v5p:2x2x4")


def test_folders_name_shapes():
  assert {*FOLDERS.values()} <= SHAPES.keys()
  assert command.parse("tpu7x:2x2x1") == ("tpu7x", 8)
  with pytest.raises(ValueError, match="no compiler here knows 'h100:8'"):
    command.describe("h100:8")


def test_slots_hold_whole_pages_and_the_pool_bounds_them():
  """Key and value of a token of 8 B are 128 KiB: 32 layers, 8 heads of 128, 2 bytes."""
  token = 2 * 32 * 8 * 128 * 2

  def cache(**sampling):
    config = large(sampling={"dtype": "bfloat16"} | sampling, train={"max_tokens": 7100})
    shape = command.shape_of(config["policy"])
    sizes = AbstractMesh((1, 1, 1, 1), AXES)
    return arithmetic.Memory(arithmetic.describe(read(config), shape, sizes, nvidia=True)).cache

  assert cache() == 32 * 7100 * token  # prompts lie elsewhere, once a group
  assert cache(slots=8) == 8 * 8128 * token  # 1,024 + 7,100 tokens in pages of 64
  assert cache(slots=8, cache_gib=4.0) == 4 << 30
  assert cache(slots=8, cache_gib=40.0) == cache(slots=8)
  found = calculate(large(sampling={"slots": 32, "cache_gib": 60.0}), "h100:1")
  assert any("sampling.cache_gib=" in line for line in found["advice"])


@pytest.mark.parametrize("topology, fits", [("h100:1", False), ("h100:8", True)])
def test_the_exit_status_says_whether_a_run_fits(monkeypatch, capsys, topology, fits):
  config = large(train={"micro_batches": 1 if fits else 8}, sampling={"slots": 1})
  given = dict.fromkeys(("model", "tokens", "out")) | {"topology": topology, "arithmetic": True}
  flags = SimpleNamespace(config=SimpleNamespace(to_dict=lambda: config), **given)
  monkeypatch.setattr(command, "FLAGS", flags)
  status = None
  try:
    command.main(())
  except SystemExit as end:
    status = end.code
  assert (status, "does NOT fit" in capsys.readouterr().out) == (
    (None, False) if fits else (1, True)
  )


def test_replayed_experts_are_counted():
  """A byte for each layer and each of a token's experts, on the device that holds the token."""
  experts = {"experts": 4, "experts_per_token": 2, "family": "mixtral"}
  rows = {}
  for replay in (False, True):
    sampling = CONFIG["sampling"] | {"replay": replay}
    config = CONFIG | {"policy": CONFIG["policy"] | experts, "sampling": sampling}
    model = build_learner(read(config | {"mesh": {"fsdp": 8}}), devices=jax.local_devices())
    sizes = AbstractMesh(tuple(model.mesh.shape.values()), AXES)
    memory = arithmetic.Memory(
      arithmetic.describe(model.settings, model.policy.config, sizes, nvidia=False)
    )
    rows[replay] = memory.rows
    signals = abstract_batch(model)[1].signals
    assert (CHOSEN in signals) == replay
  chosen = signals[CHOSEN]
  assert rows[True] - rows[False] == chosen.size * chosen.dtype.itemsize / 8


@pytest.mark.parametrize("mode, topology", [("", "t4:1"), (":tpu", "v5e:1x1")])
def test_the_config_for_colab_fits_there(mode, topology):
  """README says so."""
  config = Experiment(f"configs/colab.py{mode}").to_dict()
  found = command.calculated(config, topology, SHAPES["qwen2.5-0.5b"])
  assert found["fits"]

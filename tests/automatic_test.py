"""What "auto" stands for on each platform, as a table."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import pytest

from lcrl import policies
from lcrl.mesh import make_mesh
from lcrl.policies.attention import BACKENDS, Device, attention, chosen, shares_prompts
from lcrl.policies.config import Config
from lcrl.policies.shapes import SHAPES
from lcrl.training import automatic, memory
from lcrl.training.automatic import Work
from lcrl.training.loop import train
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.rl_runs import CONFIG, changed

CPU, TPU, OTHER = Device("cpu"), Device("tpu"), Device("rocm")
H100, A100, T4, GPU = (Device("nvidia", c) for c in ((9, 0), (8, 0), (7, 5), None))
QWEN = dataclasses.replace(SHAPES["qwen2.5-1.5b"], dtype="bfloat16")
ODD = {"head_dim": 96}
CAPPED = {"attention_softcap": 50.0}
WINDOWED = {"windows": (1024,) * 28}
MIXED = {"windows": (1024, None) * 14}


@pytest.mark.parametrize(
  "device, changes, packed, length, want",
  [
    (CPU, {}, False, 512, "xla"),
    (CPU, {}, True, 65536, "xla"),
    (OTHER, {}, True, 4096, "xla"),
    (H100, {}, False, 4096, "cudnn"),
    (H100, {}, True, 4096, "triton"),
    (H100, {}, False, 64, "xla"),
    (H100, ODD, True, 4096, "xla"),
    (H100, {"dtype": "float32"}, False, 4096, "xla"),
    (H100, {"dtype": "float16"}, False, 4096, "cudnn"),
    (H100, CAPPED, False, 4096, "triton"),
    (H100, WINDOWED, False, 4096, "cudnn"),
    (H100, MIXED | {"unroll": False}, False, 4096, "triton"),
    (H100, MIXED | {"unroll": True}, False, 4096, "cudnn"),
    (A100, {}, True, 4096, "triton"),
    (GPU, {}, True, 4096, "triton"),
    (T4, {}, True, 4096, "xla"),
    (T4, {}, False, 4096, "xla"),
    (TPU, {}, True, 4096, "splash"),
    (TPU, {}, False, 4096, "splash"),
    (TPU, {"dtype": "float32"}, False, 4096, "splash"),
    (TPU, {"dtype": "float16"}, False, 4096, "xla"),
    (TPU, WINDOWED, True, 4096, "splash"),
    (TPU, MIXED, True, 4096, "xla"),
    (TPU, CAPPED, True, 4096, "xla"),
    (TPU, ODD, True, 4096, "xla"),
    (TPU, {}, True, 96, "xla"),
    (TPU, {"attention": "xla"}, True, 4096, "xla"),
    (H100, {"attention": "xla"}, True, 4096, "xla"),
  ],
)
def test_the_back_end_of_each_device(device, changes, packed, length, want):
  config = dataclasses.replace(QWEN, **changes)
  assert chosen(device, config, packed=packed, length=length) == want


TINY = policies.tiny(11)
H100_FREE, V5E_FREE = 49 * 2.0**30, 6 * 2.0**30  # what 1.5 billion parameters leave


@pytest.mark.parametrize(
  "config, work, want",
  [
    (TINY, Work(64, 512, 8 * 2.0**30), "none"),
    (TINY, Work(64, 512, 0), "none"),
    (QWEN, Work(4, 4096, H100_FREE), "dots"),
    (QWEN, Work(4, 16384, H100_FREE), "attention"),
    (QWEN, Work(16, 17408, H100_FREE), "full"),
    (QWEN, Work(1, 4096, V5E_FREE), "attention"),
    (QWEN, Work(1, 4096, 0), "attention"),
    (QWEN, Work(4, 16384, 0), "full"),
    (dataclasses.replace(QWEN, remat="dots"), Work(16, 17408, H100_FREE), "dots"),
  ],
)
def test_as_much_is_kept_as_fits(config, work, want):
  assert automatic.config_for(CPU, config, work, packed=False).remat == want


@pytest.mark.parametrize("device, unroll", [(CPU, False), (TPU, False), (H100, True)])
def test_layers_are_unrolled_on_nvidia(device, unroll):
  work = Work(4, 4096, H100_FREE)
  assert automatic.config_for(device, QWEN, work, packed=True).unroll is unroll
  asked = dataclasses.replace(QWEN, unroll=not unroll)
  assert automatic.config_for(device, asked, work, packed=True).unroll is not unroll


@pytest.mark.parametrize(
  "device, length, width",
  [(CPU, 17408, None), (H100, 192, 4096), (H100, 17_300, 17_408), (TPU, 4097, 4224)],
)
def test_rows_are_packed_where_a_kernel_gains_by_it(device, length, width):
  assert automatic.pack_for(device, Work(4, length, 0)) == width


def test_the_head_is_kept_where_it_gains_fits_and_can():
  keeps = lambda device, c, work, *needs: automatic.keeps_head(device, c, work, needs)
  none, small = dataclasses.replace(QWEN, remat="attention"), Work(4, 4096, H100_FREE)
  assert keeps(H100, none, small)
  assert not keeps(H100, none, small, "entropy")
  assert not keeps(H100, none, Work(4, 32768, H100_FREE))
  assert not keeps(H100, dataclasses.replace(none, logit_softcap=30.0), small)
  assert not keeps(TPU, none, small)
  assert not keeps(CPU, none, small)
  assert not keeps(T4, none, small), "its tensor cores are older than the kernels"


def test_a_run_on_a_processor_computes_as_it_always_has():
  learner = build_learner(read(CONFIG), devices=jax.devices()[:1])
  assert learner.chosen == {
    "policy.attention": "xla",
    "policy.remat": "none",
    "policy.unroll": False,
    "train.pack": None,
    "train.head_remat": True,
  }
  assert learner.policy.config.attention == "xla"
  assert learner.settings.train.pack is None


def test_explicit_values_win():
  config = changed(policy__remat="full", policy__attention="xla", train__pack=512)
  learner = build_learner(read(config), devices=jax.devices()[:1])
  assert learner.chosen["policy.remat"] == "full"
  assert learner.chosen["train.pack"] == learner.settings.train.pack == 512


def test_a_mesh_says_what_its_devices_are():
  device = SimpleNamespace(device_kind="NVIDIA H100", compute_capability="9.0", platform="gpu")
  gpu = SimpleNamespace(devices=SimpleNamespace(flat=[device]))
  assert Device.of(gpu) == H100
  del device.compute_capability  # it is described, and not here
  assert Device.of(gpu) == GPU
  device.device_kind, device.platform = "TPU v5 lite", "tpu"
  assert Device.of(gpu) == TPU
  assert Device.of(make_mesh()) == Device.of(None) == Device.here() == CPU


def test_memory_is_the_same_to_every_process(monkeypatch):
  """By data sheet where the device is known, else unknown: processes must choose alike."""
  mesh, device = make_mesh(), SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
  assert 0 < automatic.free_memory(policies.make(TINY), mesh) < memory.host_memory() / 8
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  assert automatic.free_memory(policies.make(TINY), mesh) == 0
  described = SimpleNamespace(
    devices=SimpleNamespace(flat=[device]), size=8, shape={"data": 2, "fsdp": 4}
  )
  free = automatic.free_memory(policies.make(QWEN), described)
  assert free == 60 * 2**30 - 2 * 2**30 - 20 * 1_543_714_304 / 4


def test_auto_alone_is_the_back_end_of_the_devices_here(monkeypatch):
  """Without a run, the call chooses: here, plain attention; prompts may be shared."""
  q = jax.random.normal(jax.random.key(0), (1, 200, 2, 64), "bfloat16")
  assert shares_prompts("auto")
  assert (attention(q, q, q, backend="auto") == attention(q, q, q, backend="xla")).all()
  taken = []
  fake = lambda q, k, v, **_: taken.append("cudnn") or q
  monkeypatch.setitem(BACKENDS, "cudnn", BACKENDS["cudnn"]._replace(attend=fake))
  for device in (H100, T4):
    monkeypatch.setattr(Device, "here", lambda device=device: device)
    attention(q, q, q, backend="auto")
  assert taken == ["cudnn"]


@pytest.mark.slow
def test_config_json_and_the_terminal_say_what_was_chosen(tmp_path, capsys):
  train(changed(mesh__devices=1), tmp_path / "run")
  record = json.loads((tmp_path / "run" / "config.json").read_text())
  assert record["chosen"]["policy.attention"] == "xla"
  assert "attention" not in record["config"]["policy"]
  assert "computes with attention xla, remat none, unroll False" in capsys.readouterr().err


def test_unknown_back_ends_are_refused_before_anything_runs():
  with pytest.raises(ValueError, match=r"Unknown attention back end 'flash': xla.* or auto"):
    policies.make(Config(**{**dataclasses.asdict(TINY), "rope": TINY.rope, "attention": "flash"}))


def test_rows_are_as_wide_as_what_a_device_takes_at_once():
  """With train.micro_tokens, also on a processor, which packs nothing of itself."""
  train = CONFIG["train"] | {"micro_tokens": 96}
  model = build_learner(read(changed(train=train)), devices=jax.devices()[:1])
  assert model.chosen["train.pack"] == 96
  assert build_learner(read(CONFIG), devices=jax.devices()[:1]).chosen["train.pack"] is None

"""What lcrl-fit says of a step is what the compiler and the program say of it."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lcrl.commands import fit as command
from lcrl.mesh import make_mesh
from lcrl.policies import Config
from lcrl.policies.shapes import SHAPES
from lcrl.training.analysis import arithmetic, fit, roofline
from lcrl.training.analysis.collectives import sent_bytes
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.fit_config import CONFIG

FOLDER = Path(__file__).parent / "fixtures/models/qwen2"


def build(devices=1, remat="none", **mesh):
  policy = {**CONFIG["policy"], "remat": remat}
  config = {**CONFIG, "policy": policy, "mesh": mesh}
  return build_learner(read(config), devices=jax.devices()[:devices])


@pytest.fixture(scope="module")
def one():
  return fit.measure(build())


def test_flops_are_those_of_an_unrolled_compile(monkeypatch):
  """All but the products is 1 % here. Attention is 3 %, a product of the head 3 %, that of the MLP
  which remat need not repeat 6 %."""
  monkeypatch.setattr(jax.lax, "scan", functools.partial(jax.lax.scan, unroll=True))
  model = build(remat="full")
  programs = fit.compile_step(model)
  want = roofline.flops(model, tokens=1)  # the loop over tokens is counted once
  for name in ("sample", "update"):
    assert programs[name].cost_analysis()["flops"] == pytest.approx(want[name], rel=0.02)


def test_flops_of_the_usual_formula():
  """SmolLM2: 106.2 M weights in 30 layers, 28.3 M in the head; rows of 192 tokens."""
  policy = command.described({"fn": "pretrained", "path": "absent"}, "smollm2-135m")
  model = build_learner(read({**CONFIG, "policy": policy, "mesh": {}}))
  weights, head, attention = 106_168_320, 576 * 49152, 4 * 64 * 9 * 64 * 30
  assert roofline.layer_weights(model.policy.config) * 30 == weights
  want = 8 * 2 * 64 * (6 * weights + 8 * head + 3 * attention)  # 6 N, and the head once more
  assert roofline.flops(model, tokens=1)["update"] == want


@pytest.mark.slow
def test_memory_is_split_like_the_state(one):
  eight = fit.measure(build(devices=8, fsdp=8))
  assert [*one] == ["copy", "sample", "shape", "update"]
  state = roofline.device_bytes(build().abstract)
  assert state < one["update"].arguments < 1.05 * state
  assert one["update"].outputs < 0.01 * state, "the state is donated"
  assert eight["update"].arguments < one["update"].arguments / 7
  assert one["sample"].beside == state  # while it samples from the copy
  assert one["update"].peak == sum(one["update"][:4])
  assert one["update"].sent == 0
  matrices = state / 3  # gradients are added up once, float32
  assert eight["update"].sent > matrices


@pytest.mark.slow
def test_pieces_by_tokens_bound_the_memory_of_an_update():
  """Twice as many rows in as large pieces: only what has a number a token grows."""

  def update(prompts, **loss):
    train = {"prompts": prompts, "updates": 2, "pack": 128, "micro_tokens": 128}
    config = {**CONFIG, "train": CONFIG["train"] | train, "mesh": {"fsdp": 8}}
    model = build_learner(read({**config, "loss": CONFIG["loss"] | loss}))
    assert roofline.most_pieces(model, 2) == prompts * 2 // 2 // 8 // 2
    return fit.measure(model)["update"]

  small, large = update(32), update(64)
  numbers = 32 * 2 * 64 * 4 / 8  # float32 on a device
  assert large.temporaries - small.temporaries < 24 * numbers
  assert large.sent > 1.5 * small.sent, "weights are gathered once a piece"


def test_a_loop_sends_as_often_as_it_runs():
  mesh = make_mesh(data=8, fsdp=1)

  def f(x):  # float32 [8, 4] on 8 devices: a sum of 16 bytes, 7 times
    body = lambda c, _: (jax.lax.psum(c, "data") * 0.5, None)
    return jax.lax.scan(body, x, None, length=7)[0]

  spread = jax.shard_map(f, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False)
  x = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=NamedSharding(mesh, P("data")))
  sent = sent_bytes(jax.jit(spread).lower(x).compile().as_text())
  assert sent["all-reduce"] == 7 * 2 * 16
  assert sum(sent.values()) == sent["all-reduce"]


TPU_TEXT = """\
%add.1 (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum.1 = f32[]{:T(128)} add(%a, %b)
}

%body.1 (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %x.1 = f32[8,128]{1,0:T(8,128)S(1)} get-tuple-element(%p.1), index=1
  %r.1 = f32[8,128]{1,0:T(8,128)} all-reduce(%x.1), channel_id=1, to_apply=%add.1
}

%cond.1 (p: (s32[], f32[8,128])) -> pred[] {
  %c.1 = s32[]{:T(128)} constant(30)
  ROOT %lt.1 = pred[]{:T(512)} compare(%i.1, %c.1), direction=LT
}

%open.1 (p: (s32[], f32[8,128])) -> pred[] {
  ROOT %any.1 = pred[]{:T(512)} fusion(%i.2), kind=kLoop, calls=%add.1
}

ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x.2 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %g.1 = (bf16[8,128]{1,0}, /*index=1*/bf16[64,128]{1,0}) all-gather-start(%x.2), dimensions={0}
  %w.1 = (s32[], f32[8,128]{1,0}) while(%t.1), condition=%cond.1, body=%body.1
  %w.2 = (s32[], f32[8,128]{1,0}) while(%t.2), condition=%open.1, body=%body.1
}
"""


def test_tpu_text_tells_a_scan_from_a_loop_without_known_end():
  sent = sent_bytes(TPU_TEXT, trips=(5,))
  assert sent["all-reduce"] == (30 + 5) * 2 * 8 * 128 * 4
  assert sent["all-gather"] == 64 * 128 * 2
  for wrong in ((), (5, 6)):
    with pytest.raises(ValueError, match=rf"trips are of {len(wrong)} loops"):
      sent_bytes(TPU_TEXT, trips=wrong)


@pytest.mark.parametrize("slots, loops", [(None, (64, 36, 0)), (4, (4, 1, 1, 48, 2))])
@pytest.mark.slow
def test_a_token_is_sent_once_whatever_loop_writes_it(slots, loops):
  """8 prompts x 2 on 2 x 4 devices, 100 of at most 256 tokens; 8 rows a data shard, in slots for 4
  in two waves of two starts, and two turns a wave that get pages. The states, float32 [256], are
  added up over 4 devices where a matrix is split along its input: after the embedding, and twice a
  layer, but of prompts not in the last. What a draw needs besides is small."""
  config = {**CONFIG, "mesh": {"data": 2, "fsdp": 1, "tensor": 4}, "sampling": {"slots": slots}}
  config["train"] = CONFIG["train"] | {"max_tokens": 256}
  config["policy"] = CONFIG["policy"] | {"kv_heads": 4}
  model = build_learner(read(config))
  text = fit.compile_step(model)["sample"].as_text()

  def sent(tokens):
    trips = roofline.decode_loops(model, roofline.make_sampler(model), tokens).trips()
    assert tokens == 0 or trips == loops
    return sent_bytes(text, trips=trips)["all-reduce"]

  state = 2 * 256 * 4
  assert sent(0) == (1 + 2) * 4 * 32 * state
  assert 1 <= (sent(100) - sent(0)) / (100 * (1 + 2 * 2) * 8 * state) < 1.1


def test_a_shared_prompt_is_read_once():
  """Besides the weights, of 100 of at most 256 tokens: keys in spans of 64 and 128."""
  many = CONFIG | {"train": CONFIG["train"] | {"max_tokens": 256, "group_size": 4}, "mesh": {}}
  sampled = lambda sampling: build_learner(
    read(many | {"sampling": sampling}), devices=jax.devices()[:1]
  )
  seen = lambda sampling: roofline.traffic(sampled(sampling), 100)
  weights = 100 * (roofline.layer_weights(build().policy.config) * 2 + 256 * 768) * 4
  key, own = 2 * 2 * 64 * 2 * 4, 64 * 64 + 36 * 128
  assert seen({})["sample"] == weights + (8 * 32 * 100 + 32 * own) * key
  # A prompt of its own for each row; with it, 96 tokens read 128 positions and 4 read all 288.
  waiting = seen({"slots": 16})["sample"]
  assert waiting == 2 * weights + 32 * (32 * 100 + 96 * 96 + 4 * 256) * key
  assert seen({"cache_dtype": "int8"})["sample"] < weights + (8 * 32 * 100 + 32 * own) * key / 3
  asked = lambda sampling: roofline.flops(sampled(sampling), 0)["sample"]
  assert asked({"slots": 2}) == 4 * asked({"slots": 4}) == 4 * asked({})  # of prompts alone


def test_a_policy_needs_no_weights(tmp_path):
  (tmp_path / "config.json").write_text((FOLDER / "config.json").read_text())
  spec = {"fn": "pretrained", "path": str(tmp_path), "dtype": "bfloat16", "remat": "full"}
  spec |= {"unroll": True, "attention": "triton"}
  got = command.described(spec, None)
  assert got.pop("fn") == "fresh"
  whole = build_learner(read({**CONFIG, "policy": {**spec, "path": str(FOLDER)}, "mesh": {}}))
  assert Config(**got) == whole.policy.config
  with pytest.raises(ValueError, match=r"there is no .*absent.*qwen2\.5-1\.5b.*--model"):
    command.described({"fn": "pretrained", "path": "absent"}, None)


def test_well_known_shapes_have_their_published_sizes():
  def count(c):
    embedding = c.vocab_size * c.hidden_size * (1 if c.tied else 2)
    bias = (c.heads + 2 * c.kv_heads) * c.head_dim if c.qkv_bias else 0
    heads = c.heads + c.kv_heads if c.qk_norm_over == "projection" else 2
    norms = c.hidden_size * (4 if c.norms == "sandwich" else 2)
    vectors = norms + bias + (heads * c.head_dim if c.qk_norm else 0)
    return embedding + c.layers * (roofline.layer_weights(c) + vectors) + c.hidden_size

  exact = {"gpt-oss-20b": 20_914_757_184, "gpt-oss-120b": 116_829_156_672}
  assert {name: arithmetic.parameters(SHAPES[name]) for name in exact} == exact
  published = {"smollm2-135m": 134_515_008, "qwen2.5-0.5b": 494_032_768, "llama3-8b": 8_030_261_248}
  published |= {"qwen2.5-1.5b": 1_543_714_304, "qwen2.5-7b": 7_615_616_512}
  published |= {"qwen2.5-3b": 3_085_938_688, "qwen2.5-32b": 32_763_876_352}
  published |= {"qwen3-4b": 4_022_468_096, "qwen3-8b": 8_190_735_360}
  published |= {"gemma2-2b": 2_614_341_888, "gemma2-27b": 27_227_128_320}
  published |= {"gemma3-270m": 268_098_176, "gemma3-1b": 999_885_952}
  published |= {"olmo2-7b": 7_298_617_344, "smollm3-3b": 3_075_098_624}
  published |= {"qwen3-30b-a3b": 30_532_122_624, "mixtral-8x7b": 46_702_792_704}
  published |= {"phi3-mini-4k": 3_821_079_552, "phi4-14b": 14_659_507_200}
  published |= {"mistral-7b": 7_241_732_096, "r1-distill-qwen-1.5b": 1_777_088_000}
  assert {name: count(SHAPES[name]) for name in published} == published


def test_the_report_reads_as_it_counts(one):
  told = {"kind": "cpu", "mesh": {"fsdp": 1}, "parameters": 1_800_000}
  facts = command.report(one, tokens=10, **told)
  json.dumps(facts)
  assert "fits" not in facts, "nothing is known of this device"
  assert facts["peak"] == max(row["peak"] for row in facts["programs"].values())
  chip = roofline.Chip(memory=1.0, flops=1e9, bandwidth=1e9, links=1e9)
  program = roofline.Program(0, 0, 0, 0, flops=8e9, traffic=2e9, sent=3e9)
  assert chip.seconds(program, devices=8) == 3.0  # computing 1 s, memory 2 s
  lines = command.table(facts).splitlines()
  assert lines[0].startswith("1.8 M parameters on 1 x cpu (mesh of one)")
  assert sum(line.startswith("  sample") for line in lines) == 2


@pytest.mark.parametrize("name", ["v5e", "v9:4x4", "v5e:4xa"])
def test_unknown_topologies_are_named(name):
  with pytest.raises(ValueError, match=f"topology must be like v5e:4x4.*{name}"):
    command.describe(name)


def test_passes_that_stages_need_are_programs_of_the_step():
  config = CONFIG | {
    "mesh": {},
    "reward": {"fn": "pear"},
    "loss": {"fn": "clipped_surrogate", "kl": {"fn": "k3", "beta": 0.1}},
  }
  found = fit.compile_step(build_learner(read(config)))
  assert list(found) == ["copy", "sample", "measure", "shape", "reference", "update"]

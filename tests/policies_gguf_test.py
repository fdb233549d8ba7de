"""GGUF files: the model and tokenizer of the folder that they were written from."""

import dataclasses
import functools
import os
import struct
import time

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.policies.config import Rope
from lcrl.policies.fields import Fields
from lcrl.policies.gguf_file import read_file
from lcrl.policies.gguf_layouts import own_fields
from tests.helpers.gguf_files import FIXTURES, _vocabulary, _write


@pytest.mark.parametrize(
  "name, apart",
  [
    *((name, False) for name in ("llama_linear", "qwen2", "qwen3", "qwen3_moe", "mixtral")),
    ("mixtral", True),
  ],
)
def test_logits_are_those_of_the_folder(name, apart, tmp_path):
  stored = np.load(FIXTURES / "models" / name / "logits.npz")
  policy, params = policies.load(_write(tmp_path / "model.gguf", name, apart=apart))
  got = policy.apply(params, jnp.asarray(stored["tokens"]))
  np.testing.assert_allclose(got, stored["logits"], rtol=0, atol=1e-4)


GEMMA = {"query_scale": None}  # the size of heads
ROPES = (Rope(1000.0),) * 3 + (Rope(1000.0, "yarn", 4.0, 16),)  # one base for all layers


@pytest.mark.parametrize(
  "name, differs, meta",
  [
    ("gemma2", GEMMA, {}),
    ("gemma2", GEMMA | {"windows": (4096, None)}, {"attention.sliding_window": None}),
    ("gemma3", GEMMA, {"attention.sliding_window_pattern": 2}),
    ("olmo2", {}, {}),
    ("olmo3", {"ropes": ROPES}, {}),
    ("smollm3", {"ropes": None}, {}),  # the fourth layer would have none
    ("phi3", {}, {}),
  ],
)
def test_the_model_is_that_of_the_folder(name, differs, meta, tmp_path):
  """Except for what the format leaves to the reader."""
  policy, params = policies.load(_write(tmp_path / "model.gguf", name, **meta))
  want, wanted = policies.load(FIXTURES / "models" / name)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6), params, wanted)
  eps = policy.config.norm_eps  # float32 in the file
  assert policy.config == dataclasses.replace(want.config, norm_eps=eps, **differs)


def test_gguf_files_leave_the_scale_of_the_largest_gemma_to_the_reader():
  raw = {"hidden_size": 5376, "num_attention_heads": 32, "head_dim": 128, "num_hidden_layers": 62}
  raw |= {"rope_parameters": {"rope_theta": 1e6}, "sliding_window": 1024}
  assert own_fields(Fields({}, ""), "gemma3", raw)["query_pre_attn_scalar"] == 168
  smaller = own_fields(Fields({}, ""), "gemma3", raw | {"num_hidden_layers": 48})
  assert smaller["query_pre_attn_scalar"] == 128


def test_experts_are_dequantised_one_by_one(tmp_path):
  kind = gguf.GGMLQuantizationType.Q8_0
  path = _write(tmp_path / "model.gguf", "mixtral", quantize=kind)
  _, params = policies.load(path)
  _, want = policies.load(FIXTURES / "models" / "mixtral")
  got, want = (p["layers"]["experts"]["gate"] for p in (params, want))
  assert 0 < np.abs(got - want).max() / np.abs(want).max() < 0.01
  whole = read_file(path).tensors["blk.1.ffn_gate_exps.weight"]
  np.testing.assert_array_equal(whole.parts()[2].values(), got[1, 2].T)


@pytest.mark.parametrize(
  "count, message", [(3, "3.w1.weight has no place"), (5, "4.w1.weight is missing")]
)
def test_a_file_with_other_experts_than_it_says_is_named(count, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    policies.load(_write(tmp_path / "model.gguf", "mixtral", expert_count=count))


@pytest.mark.parametrize("kind, error", [("Q8_0", 0.01), ("Q4_1", 0.1), ("F16", 1e-3)])
def test_blocks_are_dequantised(kind, error, tmp_path):
  kind = gguf.GGMLQuantizationType[kind]
  _, params = policies.load(_write(tmp_path / "model.gguf", "qwen3", quantize=kind))
  _, want = policies.load(FIXTURES / "models" / "qwen3")
  got, want = (p["layers"]["gate"]["kernel"] for p in (params, want))
  worst = np.abs(got - want).max() / np.abs(want).max()
  assert 0 < worst < error


def test_the_frequencies_of_llama_3_1(tmp_path):
  rope = Rope(5e5, "llama3", 8.0, 8192)
  divisors = (Rope(5e5).frequencies(8) / rope.frequencies(8)).astype(np.float32)
  assert 1 < divisors[2] < 8  # one channel of four is between the plain and the stretched ones
  write = functools.partial(_write, tmp_path / "model.gguf", "llama3", theta=5e5)
  policy, _ = policies.load(write(divisors=divisors))
  assert policy.config.rope == rope
  with pytest.raises(ValueError, match=r"rope_freqs.weight is not the scaling of Llama 3.1"):
    policies.load(write(divisors=divisors + np.float32([0, 0.1, 0, 0])))


@pytest.mark.parametrize("raw_type, name", [(np.int8, "I8"), (np.float64, "F64")])
def test_an_unsupported_type_is_named(raw_type, name, tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen3", raw_type=raw_type)
  with pytest.raises(ValueError, match=rf"tensor blk\.1\.attn_output\.weight has type {name}"):
    policies.load(path)


def test_an_unknown_type_is_named(tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen3")
  content = path.read_bytes()
  name = b"blk.1.attn_output.weight"
  at = content.index(name) + len(name) + 4 + 16  # after two dimensions stands the type
  path.write_bytes(content[:at] + (99).to_bytes(4, "little") + content[at + 4 :])
  with pytest.raises(ValueError, match=rf"tensor {name.decode()} has the unknown type 99"):
    policies.load(path)


@pytest.mark.parametrize("keep", [3, 100, 0.5, 0.99])
def test_a_truncated_file_is_named(keep, tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen2")
  os.truncate(path, keep if keep >= 1 else int(keep * path.stat().st_size))
  with pytest.raises(ValueError, match=r"model.gguf cannot be read as a GGUF file"):
    policies.load(path)


def test_an_unknown_architecture_is_named(tmp_path):
  path = tmp_path / "model.gguf"
  path.write_bytes(_write(path, "qwen2").read_bytes().replace(b"qwen2", b"qwenX"))
  with pytest.raises(ValueError, match="unknown architecture 'qwenX'"):
    policies.load(path)


YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
YARN |= {"rope.scaling.original_context_length": 16}


def test_fields_of_yarn(tmp_path):
  read = lambda **meta: policies.load(_write(tmp_path / "m.gguf", "qwen2", **meta))[0].config.rope
  want = Rope(10_000.0, "yarn", 4.0, 16)
  assert read(**YARN) == want
  neutral = {"rope.scaling.attn_factor": 1.0, "rope.scaling.yarn_ext_factor": -1.0}
  assert read(**YARN, **neutral) == want
  betas = {"rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 0.5}
  assert read(**YARN, **betas) == dataclasses.replace(want, beta_fast=8.0, beta_slow=0.5)
  without = {k: v for k, v in YARN.items() if "original" not in k}
  assert read(**without).original_length == 64  # the context length
  linear = Rope(10_000.0, "linear", 2.0)  # llama.cpp's default type
  assert read(**{"rope.scaling.factor": 2.0}) == linear
  assert read(**{"rope.scaling.type": "none", "rope.scaling.factor": 2.0}) == Rope()


def test_values_per_layer_that_are_the_same_are_one(tmp_path):
  same = {"attention.head_count": [4, 4], "feed_forward_length": [40, 40]}
  policy, _ = policies.load(_write(tmp_path / "m.gguf", "qwen2", **same))
  assert (policy.config.heads, policy.config.mlp_size) == (4, 40)


@pytest.mark.parametrize(
  "meta, message",
  [
    (
      YARN | {"rope.scaling.attn_factor": 0.7},
      r"rope.scaling.attn_factor=0.69\d* is not supported",
    ),
    (YARN | {"rope.scaling.yarn_log_multiplier": 0.1}, "yarn_log_multiplier=0.1"),
    ({"rope.scaling.type": "yarn"}, "qwen2.rope.scaling.factor is missing"),
    ({"rope.scaling.type": "longrope", "rope.scaling.factor": 4.0}, "'longrope' is not one of"),
    ({"rope.dimension_count": 4}, "qwen2.rope.dimension_count=4 is not supported with heads of 8"),
    ({"attention.value_length": 16}, "qwen2.attention.value_length=16"),
    ({"attention.head_count": [4, 2]}, r"head_count=\[4, 2\] should be a whole number"),
    ({"feed_forward_length": [40, 48]}, r"feed_forward_length=\[40, 48\] should be a whole"),
    ({"attention.sliding_window_pattern": [True, False]}, "sliding_window_pattern=.* is not supp"),
    (
      {"attention.sliding_window": 8},
      "qwen2.attention.sliding_window=8 is not supported for qwen2",
    ),
    ({"attention.causal": False}, "qwen2.attention.causal=False is not supported"),
    ({"final_logit_softcapping": 30.0}, "qwen2.final_logit_softcapping=30.0 is not supported"),
    ({"attention.scale": 0.5}, "qwen2.attention.scale=0.5 is not supported"),
    ({"expert_count": 8}, "qwen2.expert_count=8 is not supported"),
    ({"block_count": None}, "qwen2.block_count is missing"),
    ({"embedding_length": None}, "qwen2.embedding_length is missing"),
    ({"attention.layer_norm_rms_epsilon": None}, "layer_norm_rms_epsilon is missing"),
    ({"block_count": "2"}, "qwen2.block_count='2' should be a whole number"),
    ({"block_count": 10**6}, "num_hidden_layers=1000000 should be a whole number from 1 to 10000"),
    ({"attention.head_count": 10**6}, r"num_attention_heads \* head_dim is 8000000"),
    ({"feed_forward_length": 2**31}, "feed_forward_length=2147483648 should be a whole number"),
    ({"general__type": "adapter"}, "general.type='adapter' is not supported"),
    ({"split__count": 3}, "split.count=3 is not supported: the file is one part of a model"),
  ],
)
def test_metadata_that_is_not_understood_is_named(meta, message, tmp_path):
  with pytest.raises(ValueError, match=rf"model.gguf: {message}|model.gguf: .*{message}"):
    policies.load(_write(tmp_path / "model.gguf", "qwen2", **meta))


def test_a_value_that_is_not_finite_is_named(tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen3", quantize=gguf.GGMLQuantizationType.Q8_0)
  content = bytearray(path.read_bytes())
  file = read_file(path)
  blocks = file.tensors["blk.1.ffn_gate.weight"].data
  at = content.index(blocks.tobytes())
  content[at : at + 2] = np.float16(np.nan).tobytes()  # the scale of the first block
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r"model.gguf: tensor .*1.mlp.gate_proj.weight has values"):
    policies.load(path)


def _header(*values, tensors=0, version=3):
  """The beginning of a file; a value is (key, type, bytes)."""
  text = lambda x: len(x).to_bytes(8, "little") + x
  out = b"GGUF" + struct.pack("<IQQ", version, tensors, len(values))
  return out + b"".join(text(key) + struct.pack("<I", kind) + rest for key, kind, rest in values)


ZEROS = bytes(2**22)


@pytest.mark.parametrize(
  "content, message",
  [
    (b"", "empty"),
    (b"GGUX" + bytes(99), "does not begin with GGUF"),
    (_header(version=1), "version is 1"),
    (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version is 50331648"),
    (_header(tensors=2**60) + ZEROS, "more than 4194304 values"),
    (_header(tensors=9) + ZEROS, "tensor  has 0 dimensions"),
    (
      _header((b"k", 9, struct.pack("<IQ", 8, 2**40))) + ZEROS,
      "field k: its header announces more",
    ),
    (_header((b"k", 9, struct.pack("<IQ", 8, 2**22))) + ZEROS, "announces more than|are announced"),
    (_header((b"k", 9, struct.pack("<IQ", 10, 2**22 - 9))), "field k: 335\\d+ bytes are announced"),
    (
      _header((b"k", 9, struct.pack("<IQ", 9, 1))) + ZEROS,
      "field k: an array of the unknown type 9",
    ),
    (
      _header((b"k", 8, struct.pack("<Q", 2**63))) + ZEROS,
      "field k: a text of 9223372036854775808",
    ),
    (_header((b"k", 8, struct.pack("<Q", 2**23))) + ZEROS, "field k: 8388608 bytes are announced"),
    (_header((b"k", 13, b"")) + ZEROS, "field k: the unknown type of values 13"),
    (_header((b"k", 0, b"\1"), (b"k", 0, b"\1")), "field k stands twice"),
    (_header((b"k\n" + b"k" * 9999, 13, b"")) + ZEROS, r"field k\\nk{78}: the unknown type"),
    (_header((b"general.alignment", 4, bytes(4))) + ZEROS, "general.alignment=0 is not a power"),
  ],
)
def test_a_header_that_lies_is_named_at_once(content, message, tmp_path):
  path = tmp_path / "model.gguf"
  path.write_bytes(content)
  start = time.process_time()
  with pytest.raises(ValueError, match=rf"model.gguf cannot be read as a GGUF file: .*{message}"):
    policies.load(path)
  assert time.process_time() - start < 5  # a quiet machine takes less than one


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda info: (info[0] * 2**40, *info[1:]), "ends after the file|should begin at|to be|fill"),
    (lambda info: (info[0], info[1] + 32, info[2]), "should begin at"),
    (lambda info: (0, *info[1:]), "does not fill blocks"),
  ],
)
def test_tensors_lie_behind_each_other(change, message, tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen3")
  content = bytearray(path.read_bytes())
  name = b"blk.1.ffn_gate.weight"
  at = content.index(name) + len(name) + 4
  rows, columns, kind, offset = struct.unpack_from("<QQIQ", content, at)
  rows, offset, kind = change((rows, offset, kind))
  struct.pack_into("<QQIQ", content, at, rows, columns, kind, offset)
  path.write_bytes(content)
  with pytest.raises(ValueError, match=rf"tensor .* ({message})"):
    policies.load(path)


def test_the_tokenizer_is_rebuilt(tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen2", tokenizer=_vocabulary)
  tokenizer = policies.tokenizer(path)
  text = tokenizer.render([{"role": "user", "content": "the 42 <think>ö"}])
  ids = tokenizer.encode(text)
  pieces = [tokenizer.core.id_to_token(i) for i in ids]
  assert pieces == ["<|im_start|>", "the", "Ġ", "4", "2", "Ġ", "<think>", "Ã", "¶", "<|im_end|>"]
  assert tokenizer.decode(ids) == text
  assert tokenizer.decode(ids, skip_special_tokens=True) == "the 42 <think>ö"
  assert (tokenizer.end_ids, tokenizer.pad_id) == ((1, 0), 1)
  tokenizer.save(tmp_path / "out")
  again = policies.tokenizer(tmp_path / "out")
  assert again.encode(text) == ids
  assert (again.end_ids, again.template) == (tokenizer.end_ids, tokenizer.template)


def _pieces(out):
  """Characters, and "▁th" and "the", of which the former has the higher score."""
  pieces = ["<unk>", "<s>", "<0xC3>", "<0xB6>", "▁", "t", "h", "e", "▁t", "▁th", "the", "th"]
  out.add_tokenizer_model("llama")
  out.add_add_space_prefix(False)
  out.add_token_list(pieces)
  out.add_token_scores([0.0] * 8 + [-1.0, -2.0, -4.0, -3.0])
  out.add_token_types([2, 3, 6, 6, *[1] * 8])
  out.add_unk_token_id(0)
  out.add_bos_token_id(1)
  out.add_eos_token_id(1)


def test_the_tokenizer_of_gemma_is_rebuilt(tmp_path):
  tokenizer = policies.tokenizer(_write(tmp_path / "model.gguf", "gemma3", tokenizer=_pieces))
  pieces = lambda text: [tokenizer.core.id_to_token(i) for i in tokenizer.encode(text)]
  assert pieces("<s>the the ö") == ["<s>", "the", "▁th", "e", "▁", "<0xC3>", "<0xB6>"]
  assert tokenizer.decode(tokenizer.encode("the  theö")) == "the  theö"


@pytest.mark.parametrize("pre", ["dbrx", "smaug-bpe"])
def test_digits_are_cut_in_threes(pre, tmp_path):
  tokenizer = functools.partial(_vocabulary, pre=pre)
  words = policies.tokenizer(_write(tmp_path / "m.gguf", "olmo2", tokenizer=tokenizer))
  assert [x for x, _ in words.core.pre_tokenizer.pre_tokenize_str("a12345")] == ["a", "123", "45"]


def test_the_scores_of_pieces_must_be_there(tmp_path):
  def without(out):
    _pieces(out)
    out.kv_data[0].pop("tokenizer.ggml.scores")

  with pytest.raises(ValueError, match=r"tokenizer.ggml.scores is missing"):
    policies.tokenizer(_write(tmp_path / "model.gguf", "gemma3", tokenizer=without))


@pytest.mark.parametrize(
  "options, message",
  [({"model": "llama"}, "ggml.model='llama' is not"), ({"pre": "new"}, "ggml.pre='new' is not")],
)
def test_a_tokenizer_that_cannot_be_rebuilt_is_named(options, message, tmp_path):
  tokenizer = functools.partial(_vocabulary, **options)
  with pytest.raises(ValueError, match=message):
    policies.tokenizer(_write(tmp_path / "model.gguf", "qwen2", tokenizer=tokenizer))

"""policies.save_gguf: what is read back from the file is the model and tokenizer that went in."""

import dataclasses

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors

from lcrl import policies
from lcrl.policies.config import Rope
from lcrl.policies.gguf_file import read_file
from lcrl.policies.gguf_tokenizer import PRE_TOKENIZERS
from lcrl.sampling.core import sample
from tests.helpers.gguf_exports import (
  CHAT,
  FIXTURES,
  MODELS,
  ROWS,
  TEXTS,
  changed_tokenizer,
  cut_as,
  random_model,
)

ASKED = [{"role": "user", "content": "What is <|im_end|> 12 + 30?"}]


def _through_a_file(path, policy, params, tokenizer, **options):
  policies.save_gguf(path, policy, params, tokenizer, **options)
  assert [x.name for x in path.parent.iterdir()] == [path.name]
  return *policies.load(path), policies.tokenizer(path)


def _answer(policy, params, ids):
  keys = jax.random.split(jax.random.key(0), 1)
  prompt = jnp.asarray([ids]), jnp.array([len(ids)]), jnp.array([16])
  options = {"max_tokens": 16, "end_ids": (0,), "temperature": 0.0}
  return np.asarray(sample(policy, params, *prompt, keys, **options).tokens)


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_the_same(name, tmp_path):
  policy, params = random_model(name)
  tokenizer = policies.tokenizer(CHAT)
  path = tmp_path / "new" / "model.gguf"
  back, read, words = _through_a_file(path, policy, params, tokenizer, type="f32")
  family = {"mistral": "llama"}.get(name, policy.config.family)  # one architecture in llama.cpp
  eps = float(np.float32(policy.config.norm_eps))
  assert back.config == dataclasses.replace(policy.config, norm_eps=eps, family=family)
  jax.tree.map(np.testing.assert_array_equal, read, params)
  if name == "qwen3":
    ids = words.encode(words.render(ASKED))
    np.testing.assert_array_equal(_answer(back, read, ids), _answer(policy, params, ids))


@pytest.mark.parametrize(
  "type, error, bits", [("f16", 2**-11, 16), ("bf16", 2**-8, 16), ("q8_0", 1 / 127, 8.5)]
)
def test_values_are_rounded(type, error, bits, tmp_path):
  policy, params = random_model("qwen2", hidden_size=64)  # two blocks; rows of 40 fill none
  path = tmp_path / "model.gguf"
  _, read, _ = _through_a_file(path, policy, params, policies.tokenizer(CHAT), type=type)
  for (where, got), want in zip(
    jax.tree.leaves_with_path(read), jax.tree.leaves(params), strict=True
  ):
    worst = np.abs(got - want).max() / np.abs(want).max()
    exact = "norm" in str(where) or "bias" in str(where)
    assert (worst == 0) if exact else (0 < worst <= error), where
  tensors = read_file(path).tensors
  embedding = tensors["token_embd.weight"]
  assert embedding.data.nbytes * 8 == ROWS * 64 * bits
  assert tensors["blk.0.ffn_down.weight"].kind.name == {"q8_0": "F16"}.get(type, type.upper())
  assert gguf.GGUFReader(path).fields["general.file_type"].contents() in (1, 7, 32)


@pytest.mark.parametrize("chat", ["chatml", "dated", "thinking"])
def test_the_tokenizer_is_the_same(chat, tmp_path):
  policy, params = random_model("smollm2")
  tokenizer = policies.tokenizer(FIXTURES / "chats" / chat)
  *_, back = _through_a_file(tmp_path / "model.gguf", policy, params, tokenizer)
  for text in TEXTS:
    assert back.encode(text) == tokenizer.encode(text)
    ids = tokenizer.encode(text)
    assert back.decode(ids) == tokenizer.decode(ids)
    said = tokenizer.decode(ids, skip_special_tokens=True)
    assert back.decode(ids, skip_special_tokens=True) == said
  fixed = lambda x: dataclasses.replace(x, now=tokenizer.now)
  rendered = fixed(back).render(ASKED)
  assert rendered == fixed(tokenizer).render(ASKED)
  assert back.encode(rendered) == tokenizer.encode(tokenizer.render(ASKED))
  assert (back.end_ids, back.pad_id) == (tokenizer.end_ids, tokenizer.pad_id)
  fields = read_file(tmp_path / "model.gguf").fields  # llama.cpp wants a token for each embedding
  assert fields["tokenizer.ggml.tokens"][300:302] == ["[PAD300]", "[PAD301]"]
  assert fields["tokenizer.ggml.token_type"][299:301] == [1, 5]


def _with(**parts):
  def change(core):
    for name, part in parts.items():
      setattr(core, name, part)
    return core

  return change


def _saved(path, tokenizer):
  policies.save_gguf(path, *random_model("smollm2"), tokenizer)
  return read_file(path).fields


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_the_way_to_cut_texts_has_a_name(pre, tmp_path):
  tokenizer = changed_tokenizer(cut_as(pre))
  fields = _saved(tmp_path / "model.gguf", tokenizer)
  assert fields["tokenizer.ggml.pre"] == {"smaug-bpe": "dbrx"}.get(pre, pre)  # they are the same
  back = policies.tokenizer(tmp_path / "model.gguf")
  assert [back.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


def test_tokens_have_their_parts(tmp_path):
  bos = processors.TemplateProcessing(
    single="<|im_start|> $A", special_tokens=[("<|im_start|>", 2)]
  )
  tokenizer = changed_tokenizer(
    _with(post_processor=bos), bos_token="<|im_start|>", end_ids=(5, 0, 7)
  )
  fields = _saved(tmp_path / "model.gguf", tokenizer)
  ids = {name: fields[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "eot", "eom")}
  assert ids == {"bos": 2, "eos": 0, "eot": 5, "eom": 7}
  assert fields["tokenizer.ggml.padding_token_id"] == 1
  assert fields["tokenizer.ggml.add_bos_token"] is True
  back = policies.tokenizer(tmp_path / "model.gguf")
  assert back.end_ids == (0, 5, 7)
  assert back.core.encode("a").ids[0] == 2
  assert _saved(tmp_path / "m.gguf", changed_tokenizer())["tokenizer.ggml.add_bos_token"] is False


def _added(core, **flags):
  core.add_tokens([AddedToken("<x>", **flags)])
  return core


@pytest.mark.parametrize(
  "tokenizer, message",
  [
    ({"change": _with(normalizer=normalizers.Lowercase())}, 'no GGUF file can say: .*"Lowercase"'),
    ({"change": _with(pre_tokenizer=pre_tokenizers.Whitespace())}, "no GGUF file can say"),
    ({"change": _with(model=tokenizers.models.WordLevel({}, "a"))}, "byte-level BPE .* only"),
    ({"change": lambda core: _added(core, lstrip=True)}, "Token '<x>' takes spaces beside it"),
    ({"end_ids": (0, 1, 2, 3)}, "at most three end tokens, there are .*<|im_end|>"),
    ({"change": _with(post_processor=processors.BertProcessing(("a", 9), ("b", 8)))}, "only bos"),
  ],
)
def test_a_tokenizer_that_the_file_cannot_hold_is_named(tokenizer, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    _saved(tmp_path / "model.gguf", changed_tokenizer(**tokenizer))
  assert not list(tmp_path.iterdir())


def _more_tokens(core):
  core.add_tokens([f"<{i}>" for i in range(ROWS)])
  return core


def test_each_token_needs_an_embedding(tmp_path):
  with pytest.raises(ValueError, match="There are 620 tokens, but 320 embeddings"):
    _saved(tmp_path / "model.gguf", changed_tokenizer(_more_tokens))


@pytest.mark.parametrize(
  "name, differs, message",
  [
    ("mistral", {"windows": (5, 5)}, r"cannot hold windows=\(5, 5\): it would read back as None"),
    ("qwen2", {"windows": (None, 5)}, r"cannot hold windows=\(None, 5\)"),
    (
      "qwen3",
      {"rope": MODELS["llama 3.1"][1]["rope"]},
      "of qwen3 cannot hold rope scaling 'llama3'",
    ),
    ("llama2", {"rope": Rope(500.0, "llama3", 8.0, 32)}, "is not the scaling of Llama 3.1"),
    ("qwen2", {"rope": Rope(1e4, "yarn", 4.0, 16, attention_factor=1.5)}, "cannot hold rope="),
    ("smollm3", {"ropes": None}, "cannot hold ropes=None"),
    ("gemma2", {}, "can hold llama, .*, not gemma2"),
    ("mixtral", {}, "can hold llama, .*, not mixtral"),
    ("gpt_oss", {}, "can hold llama, .*, not gpt_oss"),
  ],
)
def test_a_model_that_the_file_cannot_hold_is_named(name, differs, message, tmp_path):
  policy, params = random_model(name, **differs)
  with pytest.raises(ValueError, match=message):
    policies.save_gguf(tmp_path / "model.gguf", policy, params, policies.tokenizer(CHAT))
  assert not list(tmp_path.iterdir())


def test_a_value_beyond_the_type_is_named_and_the_old_file_stays(tmp_path):
  path = tmp_path / "model.gguf"
  path.write_text("old")
  policy, params = random_model("qwen2")
  params["layers"]["up"]["kernel"] = params["layers"]["up"]["kernel"].at[1, 2, 3].set(1e5)
  save = lambda **type: policies.save_gguf(path, policy, params, policies.tokenizer(CHAT), **type)
  with pytest.raises(ValueError, match=r"blk.1.ffn_up.weight has values .* not finite F16"):
    save()
  assert path.read_text() == "old"
  assert len(list(tmp_path.iterdir())) == 1
  save(type="bf16")
  with pytest.raises(ValueError, match="type='q4' is not one of f32, f16, bf16, q8_0"):
    save(type="q4")

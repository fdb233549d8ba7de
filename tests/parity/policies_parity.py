"""Models and chats against transformers, live and in both directions.

Run     make test-parity, or pytest tests/parity/policies_parity.py where torch is installed
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from lcrl import policies
from lcrl.policies import mxfp4
from tests.fixtures.make import EAGER, MODELS, SIZES, logits, make_chat, random_model
from tests.fixtures.templates import CONVERSATIONS
from tests.helpers.gpt_oss import packed_folder

pytestmark = pytest.mark.parity
TOKENS = np.random.default_rng(1).integers(0, 64, (3, 40))


@pytest.mark.parametrize("name", MODELS)
def test_lcrl_reads_what_transformers_writes(name, tmp_path):
  model = random_model(name, seed=1)
  model.save_pretrained(tmp_path, max_shard_size="30KB")
  policy, params = policies.load(tmp_path)
  got = policy.apply(params, jnp.asarray(TOKENS))
  np.testing.assert_allclose(got, logits(model, TOKENS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_transformers_reads_what_lcrl_writes(name, tmp_path):
  random_model(name).save_pretrained(tmp_path / "theirs")
  policy, params = policies.load(tmp_path / "theirs")
  rng = np.random.default_rng(2)
  noise = lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), x.dtype)
  params = jax.tree.map(noise, params)
  policies.save(tmp_path / "ours", policy, params, shard_bytes=30_000)
  model, report = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "ours", output_loading_info=True, attn_implementation=EAGER, pad_token_id=None
  )
  assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
  got = policy.apply(params, jnp.asarray(TOKENS))
  assert np.ptp(got) > 1
  np.testing.assert_allclose(got, logits(model.eval(), TOKENS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "gpt_oss"])
def test_the_load_balance_loss_is_that_of_transformers(name, tmp_path, monkeypatch):
  """For one layer: transformers takes the loads of all layers together."""
  monkeypatch.setitem(MODELS, name, (MODELS[name][0], MODELS[name][1] | {"num_hidden_layers": 1}))
  model = random_model(name)
  model.save_pretrained(tmp_path)
  policy, params = policies.load(tmp_path)
  padding = np.arange(TOKENS.shape[-1]) < np.array([[40], [25], [33]])
  _, each = policy.hidden_and_balance(params, jnp.asarray(TOKENS), counted=jnp.asarray(padding))
  theirs = model(
    torch.asarray(TOKENS), attention_mask=torch.asarray(padding).long(), output_router_logits=True
  )
  np.testing.assert_allclose(each[padding].mean(), theirs.aux_loss.item(), rtol=1e-4)


def test_mxfp4_is_read_as_transformers_reads_it(tmp_path):
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 256, (3, 8, 2, 16), np.uint8)
  scales = rng.integers(100, 150, (3, 8, 2), np.uint8)
  theirs = convert_moe_packed_tensors(torch.asarray(blocks), torch.asarray(scales))
  ours = mxfp4.decoded(blocks, scales).astype(np.float32).swapaxes(1, 2)
  np.testing.assert_array_equal(ours, theirs.float().numpy())
  packed_folder(tmp_path)
  model = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "packed",
    attn_implementation=EAGER,
    pad_token_id=None,
    dtype=torch.float32,
    quantization_config=transformers.Mxfp4Config(dequantize=True),
  )
  policy, params = policies.load(tmp_path / "packed")
  tokens = TOKENS % policy.config.vocab_size
  got = policy.apply(params, jnp.asarray(tokens))
  np.testing.assert_allclose(got, logits(model.float().eval(), tokens), rtol=0, atol=1e-4)


def test_the_text_of_a_model_that_reads_pictures(tmp_path):
  text = {**SIZES, **MODELS["gemma3"][1], "model_type": "gemma3_text"}
  pictures = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
  pictures |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
  config = transformers.Gemma3Config(
    text_config=text, vision_config=pictures, mm_tokens_per_image=4, image_token_id=63
  )
  model = transformers.Gemma3ForConditionalGeneration._from_config(
    config, attn_implementation=EAGER
  ).eval()
  model.save_pretrained(tmp_path)
  policy, params = policies.load(tmp_path)
  tokens = TOKENS % 60  # 63 stands for a picture
  got = policy.apply(params, jnp.asarray(tokens))
  np.testing.assert_allclose(got, logits(model, tokens), rtol=0, atol=1e-4)
  policies.save(tmp_path / "text", policy, params)
  alone = transformers.AutoModelForCausalLM.from_pretrained(
    tmp_path / "text", attn_implementation=EAGER, pad_token_id=None
  )
  np.testing.assert_allclose(got, logits(alone.eval(), tokens), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_transformers_reads_the_tokenizers_that_lcrl_writes(name, tmp_path):
  make_chat(name, tmp_path / "theirs")
  ours = policies.tokenizer(tmp_path / "theirs")
  ours.save(tmp_path / "ours")
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
  for conversation in CONVERSATIONS[name][2]:
    options = {"add_generation_prompt": True} | conversation
    messages = options.pop("messages")
    text = ours.render(messages, **options)
    assert text == theirs.apply_chat_template(messages, tokenize=False, **options)
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)
  assert theirs.eos_token_id == ours.end_ids[0]

"""config.json: contradictions and what is not understood are refused, by field and value."""

import numpy as np
import pytest

from lcrl import policies
from lcrl.policies.config import NO_ROPE, Rope
from lcrl.policies.hf_config import read_config, write_config
from lcrl.policies.shapes import SHAPES

BARE = {"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 40}
BARE |= {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
@pytest.mark.parametrize("factor", [None, 0, -2.0, "4", float("inf"), True])
def test_a_scaling_needs_its_factor(kind, factor):
  rope = {"type": kind, "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
  rope = rope if kind == "llama3" else {"type": kind, "factor": factor}
  with pytest.raises(ValueError, match=r"config.json: factor( is missing|=.* should be a finite)"):
    read_config(BARE | {"rope_scaling": rope}, "config.json")


def test_a_scaling_beside_plain_parameters_counts():
  read = lambda **changes: read_config(BARE | changes, "").rope
  want = policies.Rope(scaling="yarn", factor=4.0, original_length=16)
  assert read(rope_scaling=YARN) == read(rope_parameters=YARN) == want
  assert read(rope_scaling=YARN, rope_parameters=PLAIN) == want
  assert read(rope_scaling=YARN, rope_parameters=YARN | PLAIN | YARN) == want
  assert read(rope_scaling=None, rope_parameters=YARN, rope_theta=10_000) == want
  assert (
    read(rope_parameters={**YARN, "original_max_position_embeddings": None}).original_length == 64
  )
  # The ends of the ramp: 8 ln(16 / 2 pi b) / (2 ln 10000) is -1.1 for b = 32 and 0.4 for b = 1, as
  # whole channels 0 and 1. So channel 0 keeps its frequency, the others have a quarter of theirs.
  np.testing.assert_allclose(want.frequencies(8), [1.0, 0.1 / 4, 0.01 / 4, 0.001 / 4], rtol=1e-12)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"rope_scaling": YARN, "rope_parameters": YARN | {"factor": 2.0}}, "factor=2.0 contradicts"),
    ({"rope_scaling": YARN, "rope_parameters": PLAIN | {"rope_theta": 1e6}}, "rope_theta=1000000"),
    ({"rope_scaling": PLAIN, "rope_parameters": YARN}, "rope_type='yarn' contradicts"),
    ({"rope_scaling": YARN, "original_max_position_embeddings": 32}, "=32 contradicts"),
    ({"rope_scaling": YARN | {"beta_fast": 1, "beta_slow": 2}}, "beta_slow=2 is not below"),
    ({"rope_scaling": YARN | {"truncate": "no"}}, "truncate='no' should be true or false"),
    ({"rope_scaling": YARN | {"mscale": 0.7}}, "mscale=0.7 is not supported"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ({"rope_theta": 1.0}, "rope_theta=1.0 should be above 1"),
  ],
)
def test_rotary_fields_that_contradict_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    read_config(BARE | changes, "")


FULL, SLIDING = "full_attention", "sliding_attention"
QWEN = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 5}


@pytest.mark.parametrize(
  "changes, windows",
  [
    ({"model_type": "mistral", "sliding_window": 5, "layer_types": [SLIDING] * 2}, (5, 5)),
    ({"model_type": "mistral", "sliding_window": None, "layer_types": [FULL] * 2}, None),
    ({"model_type": "mistral"}, (4096, 4096)),
    ({"layer_types": [FULL] * 2, "sliding_window": 4096, "use_sliding_window": False}, None),
    (QWEN | {"max_window_layers": 0}, (5, 5)),
    (QWEN | {"max_window_layers": 1}, (None, 5)),
    (QWEN | {"max_window_layers": 9}, None),
    (QWEN | {"layer_types": [SLIDING, FULL]}, (5, None)),
    (QWEN | {"use_sliding_window": False}, None),
    (QWEN | {"sliding_window": None, "max_window_layers": 0}, None),
  ],
)
def test_windows_of_layers(changes, windows):
  assert read_config(BARE | changes, "").windows == windows


@pytest.mark.parametrize(
  "changes, message",
  [
    (
      {"model_type": "mistral", "sliding_window": 5, "layer_types": [FULL, SLIDING]},
      "layer_types=",
    ),
    ({"model_type": "mistral", "sliding_window": 5, "use_sliding_window": False}, "contradicts"),
    (QWEN | {"use_sliding_window": False, "layer_types": [FULL, SLIDING]}, "'sliding_attention'"),
    (QWEN | {"layer_types": [SLIDING] * 3}, "layer_types has 3 entries for 2 layers"),
    (QWEN | {"layer_types": [FULL, "chunked_attention"]}, "'chunked_attention' is not supported"),
    (QWEN | {"layer_types": {"0": SLIDING}}, "layer_types=.* should be a list of str"),
    (QWEN | {"sliding_window": [4, 5]}, r"sliding_window=\[4, 5\] should be a whole number"),
    (QWEN | {"sliding_window": 0}, "sliding_window=0 should be a whole number"),
    (QWEN | {"max_window_layers": "1"}, "max_window_layers='1' should be a whole number"),
  ],
)
def test_windows_that_contradict_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    read_config(BARE | changes, "")


def test_what_tools_add_to_config_json_is_no_hindrance():
  told = {"_name_or_path": "x", "torch_dtype": "bfloat16", "unsloth_version": "2025.1"}
  told |= {"transformers.js_config": {"dtype": "q4"}, "is_llama_config": True, "pad_token_id": 0}
  told |= {
    "rope_interleaved": False,
    "attention_dropout": 0.1,
    "temperature": 0.7,
    "use_cache": False,
  }
  told |= {"dual_chunk_attention_config": {"chunk_size": 262144}}
  told |= {"unheard_of": None, "pruned_heads": {}, "architectures": ["LlamaForCausalLM"]}
  assert read_config(BARE | told, "") == read_config(BARE, "")


@pytest.mark.parametrize("name", SHAPES)
def test_well_known_shapes_are_written_and_read(name):
  read_config(write_config(SHAPES[name]), "", dtype="float32")  # which compares


GEMMA = {"model_type": "gemma3_text", "sliding_window": 5, "head_dim": 16}
LINEAR = {"rope_type": "linear", "factor": 8.0}
LOCAL = {"rope_type": "default", "rope_theta": 20.0}


def test_old_and_new_spellings_of_two_kinds_of_rope():
  """And which layers slide: all but every second, here."""
  read = lambda **changes: read_config(BARE | GEMMA | {"num_hidden_layers": 3} | changes, "")
  old = read(
    rope_theta=50.0, rope_local_base_freq=20.0, rope_scaling=LINEAR, sliding_window_pattern=2
  )
  both = {"full_attention": LINEAR | {"rope_theta": 50.0}, "sliding_attention": LOCAL}
  new = read(rope_parameters=both, layer_types=[SLIDING, FULL, SLIDING])
  assert old == new
  assert new.kinds == ((5, Rope(20.0)), (None, Rope(50.0, "linear", 8.0)), (5, Rope(20.0)))
  bare = read()  # the fourth to sixth layers do not exist
  assert (bare.rope, bare.ropes, bare.windows) == (Rope(1e6), (Rope(1e4),) * 3, (5,) * 3)
  assert (bare.query_scale, bare.tied, bare.embed_scale) == (256**-0.5, True, 32**0.5)


def test_what_is_unsaid_is_the_familys_own():
  read = lambda family, **changes: read_config(BARE | {"model_type": family} | changes, "")
  gemma = read("gemma2")
  assert (gemma.attention_softcap, gemma.logit_softcap, gemma.windows) == (50.0, 30.0, (4096, None))
  assert read("gemma2", final_logit_softcapping=None).logit_softcap is None
  assert read("olmo2").rope == read("olmo3").rope == Rope(5e5)
  assert read("olmo3", num_hidden_layers=5).windows == (4096,) * 3 + (None, 4096)
  assert read("olmo3").ropes is None
  smollm = read("smollm3", num_hidden_layers=5)
  assert smollm.ropes == (Rope(2e6),) * 3 + (NO_ROPE, Rope(2e6))
  slides = read("smollm3", no_rope_layers=[0, 1], use_sliding_window=True, sliding_window=5)
  assert slides.windows == (5, None)
  published = {"AutoConfig": "configuration_phi3.Phi3Config", **PHI_CODE}
  phi = read("phi3", original_max_position_embeddings=64, auto_map=published, sliding_window=7)
  assert phi.windows == (7, 7)
  assert read("phi3", auto_map={}).windows is None


PHI_CODE = {"AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"}


@pytest.mark.parametrize(
  "changes, message",
  [
    (GEMMA | {"use_bidirectional_attention": True}, "use_bidirectional_attention=True is not"),
    (GEMMA | {"hidden_activation": "gelu"}, "hidden_activation='gelu' is not supported"),
    (GEMMA | {"hidden_act": "silu"}, "hidden_act='silu' is not supported"),
    (GEMMA | {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar=0 should be a finite"),
    (GEMMA | {"rope_parameters": {FULL: PLAIN, SLIDING: LOCAL, "x": 1}}, "rope parameter x"),
    (
      GEMMA | {"rope_parameters": {SLIDING: LOCAL}, "rope_local_base_freq": 9.0},
      "rope_local_base_freq=9.0 contradicts rope_theta=20.0",
    ),
    ({"model_type": "gemma2", "sliding_window_size": 9}, "sliding_window_size=9 contradicts"),
    ({"model_type": "gemma2", "rope_local_base_freq": 9.0}, "rope_local_base_freq=9.0 is not"),
    ({"model_type": "olmo2", "sliding_window": 9}, "sliding_window=9 is not supported for olmo2"),
    ({"model_type": "smollm3", "no_rope_layers": [1, 2]}, "no_rope_layers=.* should be 0 or 1"),
    ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers=.* should be 0 or 1"),
    ({"model_type": "phi3", "rope_scaling": {"type": "longrope"}}, "rope scaling 'longrope'"),
    ({"model_type": "phi3", "partial_rotary_factor": 0.75}, "partial_rotary_factor=0.75"),
    ({"model_type": "phi3", "auto_map": PHI_CODE}, "auto_map=.* is not supported"),
  ],
)
def test_what_a_family_does_not_do_is_named(changes, message):
  with pytest.raises(ValueError, match=message):
    read_config(BARE | changes, "")


GPT_OSS = {"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2}
PUBLISHED = {  # what openai/gpt-oss-20b says besides its sizes
  **{"attention_bias": True, "experts_per_token": 2, "initial_context_length": 4096},
  **{"layer_types": [SLIDING, FULL], "sliding_window": 128, "swiglu_limit": 7.0},
  **{"rms_norm_eps": 1e-5, "rope_theta": 150000, "hidden_act": "silu", "head_dim": 64},
  **{"router_aux_loss_coef": 0.9, "output_router_logits": False, "tie_word_embeddings": False},
  "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
  "rope_scaling": {
    **{"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "truncate": False},
    **{"original_max_position_embeddings": 4096, "rope_type": "yarn"},
  },
}


def test_what_gpt_oss_says_and_leaves_unsaid():
  config = read_config(BARE | GPT_OSS | PUBLISHED, "")
  assert read_config(BARE | GPT_OSS, "") == config
  assert config.rope == SHAPES["gpt-oss-20b"].rope
  assert (config.windows, config.mlp_limit, config.tied) == ((128, None), 7.0, False)
  told = write_config(config)
  assert "quantization_config" not in told
  assert (told["attention_bias"], told["swiglu_limit"]) == (True, 7.0)


@pytest.mark.parametrize(
  "changes, message",
  [
    (
      {"quantization_config": {"quant_method": "fp8"}},
      "quantization_config=.*only quant_method='mx",
    ),
    ({"quantization_config": {"bits": 4}}, "quantization_config=.*only quant_method='mxfp4'"),
    ({"quantization_config": "mxfp4"}, "quantization_config='mxfp4' is not supported"),
    ({"attention_bias": False}, "attention_bias=False is not supported, only True"),
    ({"swiglu_alpha": 1.5}, "swiglu_alpha=1.5 is not supported, only 1.702"),
    ({"swiglu_limit": 0}, "swiglu_limit=0 should be a finite number above 0"),
    ({"experts_per_token": 3}, "experts_per_token=3 contradicts num_experts_per_tok=2"),
    ({"initial_context_length": 64}, "contradicts original_max_position_embeddings=4096"),
    (
      {"model_type": "llama", "num_local_experts": None, "num_experts_per_tok": None},
      "attention_b",
    ),
  ],
)
def test_what_gpt_oss_cannot_say_is_named(changes, message):
  with pytest.raises(ValueError, match=message):
    read_config(BARE | GPT_OSS | PUBLISHED | changes, "")


def test_every_sixth_layer_of_gemma3_sees_everything():
  silent = BARE | GEMMA | {"num_hidden_layers": 7}
  assert read_config(silent, "").windows == (5,) * 5 + (None, 5)


def test_full_layers_are_written_like_old_readers_count_them():
  """Those that know no layer_types."""
  qwen = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 5}
  config = read_config(BARE | qwen | {"max_window_layers": 1}, "")
  assert write_config(config)["max_window_layers"] == 1

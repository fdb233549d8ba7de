"""Sizes of well-known models: what can be said of them without their weights."""

from __future__ import annotations

import functools
from typing import Any

from lcrl.policies.config import NO_ROPE, Config, Rope
from lcrl.policies.families import FAMILIES

_sized: Any = Config  # a tuple of sizes stands for the first seven fields
_llama = functools.partial(Config, family="llama", norm_eps=1e-5)
_qwen2 = functools.partial(Config, family="qwen2", rope=Rope(1e6), qkv_bias=True, max_length=32768)
_qwen3_moe = functools.partial(
  _sized, family="qwen3_moe", rope=Rope(1e6), qk_norm=True, max_length=40960, tied=False
)
_mixtral = functools.partial(
  _sized, family="mixtral", rope=Rope(1e6), norm_eps=1e-5, tied=False, experts_per_token=2
)
_gpt_oss = functools.partial(
  _sized,
  family="gpt_oss",
  rope=Rope(150_000.0, "yarn", 32.0, 4096, truncate=False),
  norm_eps=1e-5,
  mlp_limit=7.0,
  experts_per_token=4,
  max_length=131072,
  tied=False,
  **FAMILIES["gpt_oss"].fixed,
)
_qwen3 = functools.partial(Config, family="qwen3", rope=Rope(1e6), qk_norm=True, max_length=40960)


def _all_but(every: int, layers: int, sliding, other) -> tuple:
  """A value for each layer: `sliding`, and at each `every`-th layer `other`."""
  return tuple(sliding if (i + 1) % every else other for i in range(layers))


def _gemma2(*sizes: Any, **options) -> Config:
  _, hidden, layers, *_ = sizes
  caps = {"attention_softcap": 50.0, "logit_softcap": 30.0, "max_length": 8192}
  windows = _all_but(2, layers, 4096, None)
  own = {**FAMILIES["gemma2"].fixed, **caps, "embed_scale": hidden**0.5, "windows": windows}
  return _sized(*sizes, family="gemma2", **own, **options)


def _gemma3(*sizes: Any, window: int = 1024, factor: float = 8.0, **options) -> Config:
  _, hidden, layers, *_ = sizes
  rope = Rope(1e6) if factor == 1 else Rope(1e6, "linear", factor)
  own = {**FAMILIES["gemma3_text"].fixed, "embed_scale": hidden**0.5, "rope": rope}
  own |= {"windows": _all_but(6, layers, window, None), "ropes": _all_but(6, layers, Rope(), rope)}
  length = 32768 if factor == 1 else 131072
  return _sized(*sizes, family="gemma3_text", max_length=length, **own, **options)


_olmo = functools.partial(_sized, tied=False, **FAMILIES["olmo2"].fixed)
_olmo2 = functools.partial(_olmo, family="olmo2", rope=Rope(5e5), max_length=4096)
_phi3 = functools.partial(Config, family="phi3", norm_eps=1e-5, tied=False)
_OLMO3_ROPE = Rope(5e5, "yarn", 8.0, 8192, attention_factor=1.2079441541679836)

SHAPES = {
  "smollm2-135m": _llama(49152, 576, 30, 9, 3, 64, 1536, rope=Rope(1e5), max_length=8192),
  "smollm2-1.7b": _llama(49152, 2048, 24, 32, 32, 64, 8192, rope=Rope(1.3e5), max_length=8192),
  "qwen2.5-0.5b": _qwen2(151936, 896, 24, 14, 2, 64, 4864),
  "qwen2.5-1.5b": _qwen2(151936, 1536, 28, 12, 2, 128, 8960),
  "qwen2.5-3b": _qwen2(151936, 2048, 36, 16, 2, 128, 11008),
  "qwen2.5-7b": _qwen2(152064, 3584, 28, 28, 4, 128, 18944, tied=False),
  "qwen2.5-14b": _qwen2(152064, 5120, 48, 40, 8, 128, 13824, tied=False),
  "qwen2.5-32b": _qwen2(152064, 5120, 64, 40, 8, 128, 27648, tied=False),
  "r1-distill-qwen-1.5b": _qwen2(
    151936, 1536, 28, 12, 2, 128, 8960, tied=False, rope=Rope(1e4), max_length=131072
  ),
  "qwen3-4b": _qwen3(151936, 2560, 36, 32, 8, 128, 9728),
  "qwen3-8b": _qwen3(151936, 4096, 36, 32, 8, 128, 12288, tied=False),
  "qwen3-30b-a3b": _qwen3_moe(
    *(151936, 2048, 48, 32, 4, 128, 768), experts=128, experts_per_token=8
  ),
  "qwen3-235b-a22b": _qwen3_moe(
    *(151936, 4096, 94, 64, 4, 128, 1536), experts=128, experts_per_token=8
  ),
  "mixtral-8x7b": _mixtral(32000, 4096, 32, 32, 8, 128, 14336, experts=8, max_length=32768),
  "mixtral-8x22b": _mixtral(32768, 6144, 56, 48, 8, 128, 16384, experts=8, max_length=65536),
  "gpt-oss-20b": _gpt_oss(
    *(201088, 2880, 24, 64, 8, 64, 2880), experts=32, windows=(128, None) * 12
  ),
  "gpt-oss-120b": _gpt_oss(
    *(201088, 2880, 36, 64, 8, 64, 2880), experts=128, windows=(128, None) * 18
  ),
  "llama3-8b": _llama(
    128256, 4096, 32, 32, 8, 128, 14336, tied=False, rope=Rope(5e5), max_length=8192
  ),
  "mistral-7b": _llama(
    32000, 4096, 32, 32, 8, 128, 14336, family="mistral", tied=False, max_length=32768
  ),
  "deepseek-math-7b": _llama(102400, 4096, 30, 32, 32, 128, 11008, tied=False, max_length=4096),
  "gemma2-2b": _gemma2(256000, 2304, 26, 8, 4, 256, 9216),
  "gemma2-9b": _gemma2(256000, 3584, 42, 16, 8, 256, 14336),
  "gemma2-27b": _gemma2(256000, 4608, 46, 32, 16, 128, 36864, query_scale=144**-0.5),
  "gemma3-270m": _gemma3(262144, 640, 18, 4, 1, 256, 2048, window=512, factor=1.0),
  "gemma3-1b": _gemma3(262144, 1152, 26, 4, 1, 256, 6912, window=512, factor=1.0),
  "gemma3-4b": _gemma3(262208, 2560, 34, 8, 4, 256, 10240),
  "gemma3-12b": _gemma3(262208, 3840, 48, 16, 8, 256, 15360),
  "gemma3-27b": _gemma3(262208, 5376, 62, 32, 16, 128, 21504, query_scale=168**-0.5),
  "olmo2-1b": _olmo2(100352, 2048, 16, 16, 16, 128, 8192),
  "olmo2-7b": _olmo2(100352, 4096, 32, 32, 32, 128, 11008),
  "olmo2-13b": _olmo2(100352, 5120, 40, 40, 40, 128, 13824),
  "olmo3-7b": _olmo(
    *(100278, 4096, 32, 32, 32, 128, 11008),
    family="olmo3",
    rope=_OLMO3_ROPE,
    windows=_all_but(4, 32, 4096, None),
    ropes=_all_but(4, 32, Rope(5e5), _OLMO3_ROPE),
    max_length=65536,
  ),
  "smollm3-3b": _sized(
    *(128256, 2048, 36, 16, 4, 128, 11008),
    family="smollm3",
    rope=Rope(5e6),
    ropes=_all_but(4, 36, Rope(5e6), NO_ROPE),
    max_length=65536,
  ),
  "phi3-mini-4k": _phi3(32064, 3072, 32, 32, 32, 96, 8192, windows=(2047,) * 32, max_length=4096),
  "phi4-14b": _phi3(100352, 5120, 40, 40, 10, 128, 17920, rope=Rope(2.5e5), max_length=16384),
}

# Folders that configs name -> the shape of the model in them.
FOLDERS = {
  "DeepSeek-R1-Distill-Qwen-1.5B": "r1-distill-qwen-1.5b",
  "Thinkless-1.5B-Warmup": "r1-distill-qwen-1.5b",
  "DeepScaleR-1.5B-Preview": "r1-distill-qwen-1.5b",
  "DLER-R1-1.5B": "r1-distill-qwen-1.5b",
  "L1-Qwen-1.5B-Exact": "r1-distill-qwen-1.5b",
  "DeepSeek-R1-Distill-Qwen-7B": "qwen2.5-7b",
  "Qwen2.5-1.5B-Instruct": "qwen2.5-1.5b",
  "Qwen2.5-3B": "qwen2.5-3b",
  "Qwen2.5-7B": "qwen2.5-7b",
  "Qwen2.5-7B-Instruct": "qwen2.5-7b",
  "Qwen2.5-7B-budget-modes": "qwen2.5-7b",
  "Qwen2.5-Math-7B": "qwen2.5-7b",
  "Qwen2.5-32B": "qwen2.5-32b",
  "Light-R1-14B-SFT": "qwen2.5-14b",
  "Light-R1-SFT-stage1": "qwen2.5-32b",
  "Light-R1-SFT-stage2": "qwen2.5-32b",
  "Qwen3-4B": "qwen3-4b",
  "Qwen3-8B": "qwen3-8b",
  "Qwen3-8B-Base": "qwen3-8b",
  "Llama-3-8B": "llama3-8b",
  "Llama-3-Base-8B-SFT": "llama3-8b",
  "Llama-3.1-8B": "llama3-8b",
  "Meta-Llama-3-8B-Instruct": "llama3-8b",
  "Mistral-7B-v0.1": "mistral-7b",
  "Mistral-7B-Instruct-v0.2": "mistral-7b",
  "deepseek-math-7b-instruct": "deepseek-math-7b",
  "smollm2-135m-instruct": "smollm2-135m",
}

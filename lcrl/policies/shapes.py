"""Sizes of well-known models: what can be said of them without their weights."""

from __future__ import annotations

import functools

from lcrl.policies.config import Config, Rope

_llama = functools.partial(Config, family="llama", norm_eps=1e-5)
_qwen2 = functools.partial(Config, family="qwen2", rope=Rope(1e6), qkv_bias=True, max_length=32768)
_qwen3 = functools.partial(Config, family="qwen3", rope=Rope(1e6), qk_norm=True, max_length=40960)

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
  "llama3-8b": _llama(
    128256, 4096, 32, 32, 8, 128, 14336, tied=False, rope=Rope(5e5), max_length=8192
  ),
  "mistral-7b": _llama(
    32000, 4096, 32, 32, 8, 128, 14336, family="mistral", tied=False, max_length=32768
  ),
  "deepseek-math-7b": _llama(102400, 4096, 30, 32, 32, 128, 11008, tied=False, max_length=4096),
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

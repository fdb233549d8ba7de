"""Sizes of well-known models: what can be said of them without their weights."""

from __future__ import annotations

import functools

from lcrl.policies.config import Config, Rope

_llama = functools.partial(Config, family="llama", norm_eps=1e-5)
_qwen2 = functools.partial(Config, family="qwen2", rope=Rope(1e6), qkv_bias=True, max_length=32768)

SHAPES = {
  "smollm2-135m": _llama(49152, 576, 30, 9, 3, 64, 1536, rope=Rope(1e5), max_length=8192),
  "smollm2-1.7b": _llama(49152, 2048, 24, 32, 32, 64, 8192, rope=Rope(1.3e5), max_length=8192),
  "qwen2.5-0.5b": _qwen2(151936, 896, 24, 14, 2, 64, 4864),
  "qwen2.5-1.5b": _qwen2(151936, 1536, 28, 12, 2, 128, 8960),
  "qwen2.5-7b": _qwen2(152064, 3584, 28, 28, 4, 128, 18944, tied=False),
  "llama3-8b": _llama(
    128256, 4096, 32, 32, 8, 128, 14336, tied=False, rope=Rope(5e5), max_length=8192
  ),
}

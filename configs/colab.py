"""LASER with adapters on one small device: Qwen2.5-0.5B on GSM8K, in Colab for example.

  colab.py      a T4 of 16 GB, which has no bfloat16: everything computes in float16.
  colab.py:tpu  a v5e chip of 16 GB, in bfloat16: 3.7 GiB of it by the word of the TPU's compiler
                (experiments/studies/fit/colab.txt).

Model   Qwen2.5-0.5B-Instruct, from its hub (huggingface_hub) or a folder of that name
Data    GSM8K, `lcrl-data gsm8k` and `lcrl-data gsm8k --split=test`
Run     lcrl-train --config=configs/colab.py --workdir=$WORKDIR
Smoke   the same with --config=configs/colab.py:smoke or :tpu,smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "tpu")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  dtype = "bfloat16" if variant_of(mode, VARIANTS) == "tpu" else "float16"
  c.budget = dict(fn="fixed", target=192, cap=384)
  c.reward = dict(fn="step_bonus", alpha=0.5)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.policy = dict(
    fn="pretrained",
    path="Qwen/Qwen2.5-0.5B-Instruct",
    dtype=dtype,
    param_dtype=dtype,
    remat="full",
  )
  c.lora = dict(rank=16, alpha=32.0)
  c.task = common.gsm8k()
  c.eval_task = common.gsm8k_test()
  c.sampling = dict(temperature=1.0, dtype=dtype)
  c.optimizer = dict(fn="adamw", learning_rate=2e-5)
  c.mesh = dict(data=1, fsdp=1, devices=1)
  c.train = dict(
    steps=100, prompts=16, group_size=8, max_tokens=384, max_prompt_tokens=256, micro_tokens=5120
  )
  c.eval = dict(every=50, prompts=256)
  if is_smoke(mode, VARIANTS):
    shrink(c).budget = dict(fn="fixed", target=8, cap=16)
    c.policy.update(dtype=dtype, param_dtype=dtype)
  return c


def sweep(add, variant):
  for rank in (8, 16, 64):
    add({"lora.rank": rank})

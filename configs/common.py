"""Sections that several configs share.

Each function gives one section, and `**more` adds fields to it. None calls another and none gives a
whole config: every config lists its own sections. The pages in tests/golden/configs show what a
change here does to each config.
"""

from typing import Any

Section = dict[str, Any]
BOXED = "{question}\nPut your final answer within \\boxed{}."


def pretrained(name: str, **more: Any) -> Section:
  """policy: a folder in models/, in bfloat16."""
  return dict(fn="pretrained", path=f"models/{name}", dtype="bfloat16", **more)


def smollm2() -> Section:
  """policy: SmolLM2-135M-Instruct, where `make smollm2` puts it."""
  path = "~/.cache/lcrl/smollm2-135m-instruct"
  return dict(fn="pretrained", path=path, dtype="bfloat16", remat="full")


def deepscaler(path: str = "data/deepscaler.jsonl", **more: Any) -> Section:
  """task: competition problems with boxed answers."""
  columns = dict(question="problem", answer="answer")
  return dict(fn="jsonl", path=path, **columns, extract="boxed", template=BOXED, **more)


def math(**more: Any) -> Section:
  """task: MATH's train split, with its levels as difficulty and boxed answers."""
  columns = dict(question="problem", answer="answer", difficulty="level")
  return dict(
    fn="jsonl", path="data/math.jsonl", **columns, extract="boxed", template=BOXED, **more
  )


def dapo_math(**more: Any) -> Section:
  """task: DAPO's training problems with boxed answers."""
  columns = dict(question="problem", answer="answer")
  return dict(
    fn="jsonl", path="data/dapo_math.jsonl", **columns, extract="boxed", template=BOXED, **more
  )


def gsm8k(extract: str = "last_number", **more: Any) -> Section:
  """task: GSM8K's train split, whose references stand after hashes."""
  path = "data/gsm8k.jsonl"
  return dict(fn="jsonl", path=path, reference="after_hashes", extract=extract, **more)


def math500(**more: Any) -> Section:
  """eval_task: MATH-500, with levels as difficulty and boxed answers."""
  columns = dict(question="problem", answer="answer", difficulty="level")
  return dict(
    fn="jsonl", path="data/math500.jsonl", **columns, extract="boxed", template=BOXED, **more
  )


def aime24(**more: Any) -> Section:
  """eval_tasks: the 30 problems of AIME 2024, each answered 16 times."""
  columns = dict(question="problem", answer="answer")
  more = dict(samples=16) | more
  return dict(
    fn="jsonl", path="data/aime24.jsonl", **columns, extract="boxed", template=BOXED, **more
  )


def gsm8k_test(extract: str = "last_number", **more: Any) -> Section:
  """eval_task: GSM8K's test split."""
  path = "data/gsm8k_test.jsonl"
  return dict(fn="jsonl", path=path, reference="after_hashes", extract=extract, **more)


def chain_sum(*, seed: int, size: int) -> Section:
  """task: sums of up to three numbers of one digit."""
  terms = dict(max_terms=3, max_digits=1, extract="last_number")
  return dict(fn="reasoning_gym", dataset="chain_sum", seed=seed, size=size, **terms)


def sampling(temperature: float = 1.0, **more: Any) -> Section:
  return dict(temperature=temperature, dtype="bfloat16", **more)


def fsdp() -> Section:
  """mesh: parameters are sharded over all devices."""
  return dict(data=1, fsdp=-1)


def train(**sizes: int) -> Section:
  """train of "rl", for prompts of up to 1,024 tokens unless `sizes` says otherwise."""
  return dict(max_prompt_tokens=1024) | sizes


def evaluation() -> Section:
  """eval of "rl"."""
  return dict(every=100, prompts=512)


def ultrafeedback(fn: str = "pairs") -> Section:
  """data: UltraFeedback-binarized, prompts of at most 1,800 tokens and 2,048 with the answer."""
  rows = dict(fn="parquet", path="data/ultrafeedback_binarized.parquet")
  return dict(fn=fn, rows=rows, window=2048, max_prompt_tokens=1800, held_out=0.01)


def ultrafeedback_adamw(learning_rate: float) -> Section:
  """optimizer: a tenth of one epoch of UltraFeedback warms up, and the rate decays to its end."""
  return dict(fn="adamw", learning_rate=learning_rate, warmup_steps=48, decay_steps=478)


def ultrafeedback_train() -> Section:
  """train: one epoch of UltraFeedback in batches of 128 pairs."""
  return dict(steps=478, max_tokens=1024, max_prompt_tokens=1800, micro_batches=16)


def pairs_evaluation() -> Section:
  """eval of runs on pairs."""
  return dict(every=100, pairs=512, prompts=128)

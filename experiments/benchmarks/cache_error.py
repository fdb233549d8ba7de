"""What a smaller cache of keys and values changes in the distributions of a trained model.

python -m experiments.benchmarks.cache_error --questions=gsm8k/test.jsonl
python -m experiments.benchmarks.cache_error --questions=gsm8k/test.jsonl --prompts=256 \
  --dtype=bfloat16 --decoding=triton --caches=bfloat16,int8,float8_e4m3fn

Reads answers token by token, as sampling does, once with each cache; all see the same tokens. The
first cache is what the others are compared with: in float32, what differs is what they round. The
answers are those of the data and the model's own at temperature 0. Prints one JSON line a cache.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks import shapes
from lcrl import policies
from lcrl.commands import smollm2
from lcrl.policies.cache import Cache, Prompts
from lcrl.sampling.core import row_keys, sample

FLAGS = flags.FLAGS
BARE = "+bare"  # behind the name of a cache: without scales


class Texts(NamedTuple):
  """Prompts and the answers that are read after them, right-padded."""

  prompts: np.ndarray  # [R, P]
  lengths: np.ndarray  # [R]
  answers: np.ndarray  # [R, N]
  answer_lengths: np.ndarray  # [R]


class Errors(NamedTuple):
  """Of one token: what a cache says against what the reference says."""

  log_prob: jax.Array  # [R], of the token that follows
  moved: jax.Array  # [R], by how much that differs
  kl: jax.Array  # [R], KL(reference, this) of the next-token distributions
  changed: jax.Array  # [R] bool, another token is the most likely one


def main(argv):
  del argv
  path = Path(FLAGS.model) if FLAGS.model else smollm2.main()
  policy, params = policies.load(path, dtype=FLAGS.dtype)
  policy = policies.make(dataclasses.replace(policy.config, decoding=FLAGS.decoding))
  params = policy.unstack(params)
  given = texts(policies.tokenizer(path), Path(FLAGS.questions), FLAGS.prompts, FLAGS.tokens)
  ends = policies.tokenizer(path).end_ids
  print(json.dumps(shapes.machine() | {"dtype": FLAGS.dtype, "decoding": FLAGS.decoding}))
  for name, some in (("reference", given), ("own", own(policy, params, given, ends))):
    for line in measure(policy, params, some, FLAGS.caches):
      print(json.dumps({"answers": name} | line), flush=True)


def measure(policy: policies.Policy, params: Any, given: Texts, caches: list[str]) -> list[dict]:
  """A summary for each cache; the first is the reference. `params` are from `unstack`."""
  rows, many = given.answers.shape
  kept = {name: _begin(policy, params, given, name) for name in caches}
  found: dict[str, list[Errors]] = {name: [] for name in caches}
  token = given.prompts[np.arange(rows), given.lengths - 1]
  for n in range(many):
    target, reference = given.answers[:, n], None
    for name, (prompts, cache) in kept.items():
      said, cache = _read(policy, params, token, jnp.int32(n), prompts, cache)
      reference = said if reference is None else reference
      found[name].append(jax.device_get(_compare(said, reference, target)))
      kept[name] = prompts, cache
    token = target
  counts = np.arange(many)[:, None] < given.answer_lengths
  whole = {name: jax.tree.map(lambda *x: np.stack(x)[counts], *x) for name, x in found.items()}
  return [_summary(policy, name, whole[name], whole[caches[0]]) for name in caches]


def _begin(policy: policies.Policy, params, given: Texts, name: str) -> tuple[Prompts, Cache]:
  """The prompts but for their last tokens, and room for the answers."""
  (rows, longest), many = given.prompts.shape, given.answers.shape[1]
  _, layers = policy.prefill(
    params, given.prompts, given.lengths, _empty(policy, name, rows, longest)
  )
  return Prompts(jnp.asarray(given.lengths - 1), layers), _empty(policy, name, rows, many)


def _empty(policy: policies.Policy, name: str, rows: int, length: int) -> Cache:
  cache = policy.init_cache(rows, length, name.removesuffix(BARE))
  if not name.endswith(BARE):
    return cache
  return tuple({part: slot[part] for part in ("k", "v")} for slot in cache)


@partial(jax.jit, static_argnums=0, donate_argnums=5)
def _read(policy, params, token, at, prompts, cache) -> tuple[jax.Array, Cache]:
  """One token a row: log-probs of the next one [R, V], and the cache."""
  hidden, cache = policy.decode(params, token, prompts.lengths + at, cache, at=at, prompts=prompts)
  head = policy.head(params).astype(hidden.dtype)
  logits = jnp.matmul(hidden, head, preferred_element_type=jnp.float32)
  return jax.nn.log_softmax(logits), cache


@jax.jit
def _compare(said, reference, target) -> Errors:
  of = lambda x: jnp.take_along_axis(x, target[:, None], axis=1)[:, 0]
  return Errors(
    log_prob=of(said),
    moved=jnp.abs(of(said) - of(reference)),
    kl=(jnp.exp(reference) * (reference - said)).sum(axis=1),
    changed=said.argmax(axis=1) != reference.argmax(axis=1),
  )


def _summary(policy, name: str, errors: Errors, reference: Errors) -> dict[str, Any]:
  mean = errors.log_prob.mean()
  return {
    "cache": name,
    "bytes_a_token": sum(x.nbytes for x in jax.tree.leaves(_empty(policy, name, 1, 1))),
    "tokens": len(errors.kl),
    "log_prob_moved": float(errors.moved.mean()),
    "log_prob_moved_p99": float(np.quantile(errors.moved, 0.99)),
    "kl": float(errors.kl.mean()),
    "kl_p99": float(np.quantile(errors.kl, 0.99)),
    "argmax_changed": float(errors.changed.mean()),
    "perplexity": float(np.exp(-mean)),
    "perplexity_change": float(np.expm1(reference.log_prob.mean() - mean)),
  }


def texts(tokenizer: policies.Tokenizer, path: Path, count: int, longest: int) -> Texts:
  """The first questions of a file of JSON lines as the chat template writes them, and answers."""
  lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
  ask = lambda question: tokenizer.render([{"role": "user", "content": question}])
  prompts = [tokenizer.encode(ask(line["question"])) for line in lines]
  answers = [[*tokenizer.encode(line["answer"]), tokenizer.end_ids[0]] for line in lines]
  return Texts(*_padded(prompts), *_padded([answer[:longest] for answer in answers], longest))


def _padded(rows: list[list[int]], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
  lengths = np.array([len(row) for row in rows], np.int32)
  out = np.zeros((len(rows), length or lengths.max()), np.int32)
  for i, row in enumerate(rows):
    out[i, : len(row)] = row
  return out, lengths


def own(policy: policies.Policy, params: Any, given: Texts, ends: tuple[int, ...]) -> Texts:
  """The same prompts with the model's own answers at temperature 0."""
  rows, longest = given.answers.shape
  keys = row_keys(jax.random.key(0), jnp.arange(rows), 1)[:, 0]
  caps = jnp.full(rows, longest)
  options = {"max_tokens": longest, "end_ids": ends, "temperature": 0.0}
  run = jax.jit(
    lambda params, prompts, lengths: sample(policy, params, prompts, lengths, caps, keys, **options)
  )
  out = jax.device_get(run(params, given.prompts, given.lengths))
  return given._replace(answers=out.tokens, answer_lengths=out.lengths)


def define():
  """The flags of this program."""
  flags.DEFINE_string("model", None, "a folder or a GGUF file; None: SmolLM2-135M-Instruct")
  flags.DEFINE_string("questions", None, "JSON lines with question and answer", required=True)
  flags.DEFINE_integer("prompts", 24, "how many of them")
  flags.DEFINE_integer("tokens", 128, "of an answer, at most")
  flags.DEFINE_string("dtype", "float32", "of the computation")
  flags.DEFINE_string("decoding", "xla", "in lcrl.policies.decoding.KERNELS")
  flags.DEFINE_list(
    "caches",
    ["float32", "bfloat16", "int8", "float8_e4m3fn", f"float8_e4m3fn{BARE}"],
    f"the first is what the others are compared with; {BARE}: without scales",
  )


if __name__ == "__main__":
  define()
  app.run(main)

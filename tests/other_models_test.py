"""Signals of other models and of the prompt's row: density ratios, ranges in words, user texts."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies, rewards, tasks
from lcrl.data import tokenizers
from lcrl.registry import build
from lcrl.tasks.task import Response
from lcrl.training.iterative import pool as pools
from lcrl.training.iterative import run as iterative
from lcrl.training.iterative.settings import read
from lcrl.training.reward_model.learned import log_probs_of
from lcrl.training.workdir import Workdir
from tests.helpers.iterative_runs import changed
from tests.rollouts import random_rollouts

CHAT = Path(__file__).parent / "fixtures" / "chats" / "chatml"


def response(text, **row):
  return Response(text, [True] * len(text), False, "".join, row)


def signal(spec, *given):
  return [build(tasks, spec, field="task.signals").read(one) for one in given]


def test_signals_of_the_row_by_hand():
  spec = dict(fn="words", low="least", high="most")
  [got] = signal(spec, response("Two words, it's 5.", least=2, most=9))
  assert got == {"words": 5, "words_low": 2, "words_high": 9}  # Two, words, it, s, 5
  [got] = signal(dict(fn="words", low="exactly"), response("one", exactly=3))
  assert got == {"words": 1, "words_low": 3, "words_high": 3}
  assert signal(dict(fn="words"), response("one two")) == [{"words": 2}]
  # 2 words of 3 and of 5 in common: 2 * 2 / (3 + 5)
  assert signal(dict(fn="overlap", field="own"), response("A b C", own="a B d e f")) == [
    {"overlap": 0.5}
  ]
  [got] = signal(dict(fn="distinct_paragraphs"), response("A b.\n\na  B.\n\nC.\n \nd"))
  assert got == {"distinct": 0.75}
  for spec, row, message in (
    (dict(fn="words", low="least"), {}, "has no whole numbers 'least' and 'least'"),
    (dict(fn="words", low="a", high="b"), {"a": 3, "b": 2}, "asks for 3 to 2 words"),
    (dict(fn="overlap", field="own"), {"own": 3}, "has no text 'own'"),
  ):
    with pytest.raises(ValueError, match=message):
      signal(spec, response("x", **row))


def test_a_range_in_words_by_hand():
  """2 of 4 words; 5 within 4 to 6; 8 of at most 6, where 10 is worth nothing; the last one is cut
  at 6 words, so it is worth what 7 are."""
  r = dataclasses.replace(
    random_rollouts(prompts=1, group=4),
    truncated=jnp.array([[False, False, False, True]]),
    signals={
      "words": jnp.array([[2, 5, 8, 6]]),
      "words_low": jnp.full((1, 4), 4),
      "words_high": jnp.full((1, 4), 6),
    },
  )
  stage = build(rewards, dict(fn="word_range", max_words=10), field="reward")
  np.testing.assert_allclose(stage.apply((), r)[0], [[0.5, 1.0, 0.5, 0.75]], rtol=1e-6)


def test_a_density_ratio_by_hand():
  # Gaps of 1 and 3, and one of 50 behind the mask: 4 in all, 2 a token.
  strong, weak = jnp.array([[-1.0, -2.0, 0.0]]), jnp.array([[-2.0, -5.0, -50.0]])
  mask = jnp.array([[True, True, False]])
  base = jnp.array([1.0])
  paid = rewards.density_ratio_reward(base, strong, weak, mask, weight=0.5)
  np.testing.assert_allclose(paid, [3.0])
  paid = rewards.density_ratio_reward(base, strong, weak, mask, weight=0.5, per_token=True)
  np.testing.assert_allclose(paid, [2.0])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """Two random models with one tokenizer."""
  size, paths = policies.tokenizer(CHAT).vocab_size, {}
  for seed, name in enumerate(("strong", "weak")):
    paths[name] = path = tmp_path_factory.mktemp(name)
    policy = policies.make(policies.tiny(size, hidden_size=16, layers=1))
    policies.save(path, policy, policy.init(jax.random.key(seed)))
    for file in CHAT.glob("*"):
      (path / file.name).write_bytes(file.read_bytes())
  return paths


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_a_round_is_paid_by_two_models(folders, tmp_path):
  """CDR in a round: rewards are those of the folders' own log-probs."""
  rows = [{"prompt": f"Say {i}.", "own": f"It is {i}."} for i in range(4)]
  (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  size = policies.tokenizer(CHAT).vocab_size
  config = changed(
    task={"fn": "prompts", "path": str(tmp_path / "prompts.jsonl")},
    eval_task={"fn": "arithmetic", "size": 4, "seed": 0},
    reward={"fn": "density_ratio"},
    learned={name: {"policy": str(path)} for name, path in folders.items()},
    policy={"fn": "fresh", "vocab_size": size, "hidden_size": 16, "layers": 1, "mlp_size": 16},
    tokenizer={"fn": "pretrained", "path": str(CHAT)},
    loss={"fn": "simpo"},
    reference=None,
    train={"steps": 2, "max_prompt_tokens": 200},
  )
  with iterative.begin(read(config), Workdir(tmp_path / "run", config)) as run:
    state, numbers, _ = run.steps_from(0)(run.initial())
  assert numbers["grad_norm"] > 0
  pool = pools.on_host(state.pending)
  sums = {}
  for name, path in folders.items():
    policy, params = policies.load(path)
    log_probs = jax.nn.log_softmax(policy.apply(params, pool.tokens[..., :-1]))
    chosen = np.take_along_axis(np.asarray(log_probs), pool.tokens[..., 1:, None], -1)[..., 0]
    sums[name] = np.where(pool.mask[..., 1:], chosen, 0).sum(-1)
  np.testing.assert_allclose(pool.rewards, sums["strong"] - sums["weak"], atol=0.2)  # bfloat16
  assert np.std(pool.rewards) > 0.5


def test_a_policy_of_another_vocabulary_is_refused(folders, tmp_path):
  with pytest.raises(ValueError, match=r"learned\.weak\.policy=.* has another vocabulary"):
    log_probs_of("weak", str(folders["weak"]), None, tokenizers.utf8())
  with pytest.raises(ValueError, match=r"learned\.weak\.policy: There is no model folder"):
    log_probs_of("weak", str(tmp_path / "none"), None, tokenizers.utf8())

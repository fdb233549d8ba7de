"""`sampling.control` of a config reaches the sampler."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.data import tokenizers
from lcrl.sampling import choices, steering
from lcrl.training import build, loop
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.queue import RolloutQueue
from lcrl.training.rl.run import make_pipeline
from lcrl.training.rl.settings import read
from tests.helpers.devices import limit_devices
from tests.helpers.rl_runs import changed

VOCABULARY = choices.Vocabulary(tokenizers.sums(), 20)


FORCING = {"fn": "budget_forcing", "end_of_thinking": "#", "final_tokens": "7+"}
FORCING["max_thinking_tokens"] = 2


def start(control):
  return control.init(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))


def shape(control):
  return np.asarray(control.shape(start(control), jnp.zeros((1, 20))))


def test_controls_are_built_by_name_and_chained():
  spec = {"fn": "chained", "controls": [{"fn": "top_k", "k": 2}, {"fn": "min_p", "p": 0.5}]}
  control = build.build_control(spec, VOCABULARY)
  logits = jnp.log(jnp.array([[0.5, 0.2, 0.3], [0.4, 0.3, 0.3]]))
  state = control.init(jnp.zeros((2, 1), jnp.int32), jnp.ones(2, jnp.int32))
  kept = np.isfinite(control.shape(state, logits))
  np.testing.assert_array_equal(kept, [[True, False, True], [True, True, True]])
  assert build.build_control(None, VOCABULARY) is None
  with pytest.raises(ValueError, match=r"sampling\.control\.controls\[0\]\.fn='top' is not one of"):
    build.build_control({"fn": "chained", "controls": [{"fn": "top"}]}, VOCABULARY)


def test_tokens_are_named_by_their_text():
  """The tokens of sums are characters: "#" is number 3."""
  assert VOCABULARY.one("#", "token") == VOCABULARY.one(3, "token") == 3
  shaped = lambda spec: shape(build.build_control(spec, VOCABULARY))
  np.testing.assert_array_equal(
    shaped({"fn": "end_of_thinking_bias", "token": "#", "scale": 4.0}),
    shape(steering.end_of_thinking_bias(3, scale=4.0)),
  )
  bias = shaped({"fn": "token_bias", "bias": {"#": 1.0, "7": 2.0, "12": 3.0}})
  np.testing.assert_array_equal(np.flatnonzero(bias[0]), [3, 12, 13])  # 7 is text, 12 a number
  np.testing.assert_array_equal(bias[0][[3, 12, 13]], [1.0, 3.0, 2.0])
  ramp = build.build_control({"fn": "eos_ramp", "ramp_end": 2, "max_bias": 1.0}, VOCABULARY)
  state, *_ = ramp.take(start(ramp), jnp.zeros((1, 20)), jnp.zeros(1, jnp.int32))
  np.testing.assert_array_equal(np.flatnonzero(ramp.shape(state, jnp.zeros((1, 20)))), [1])
  penalty = build.build_control({"fn": "repeat_penalty", "penalty": 2.0}, VOCABULARY)
  assert penalty.init(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)).shape == (1, 20)
  for spec, error in (
    (
      {"fn": "end_of_thinking_bias", "token": "##", "scale": 2.0},
      r"token='##' has to be one token",
    ),
    (
      {"fn": "end_of_thinking_bias", "token": 99, "scale": 2.0},
      r"token=99 is no token of the policy",
    ),
    (
      {
        "fn": "budget_forcing",
        "end_of_thinking": "#",
        "max_thinking_tokens": 2,
        "wait_tokens": "+",
        "min_thinking_tokens": 3,
      },
      "min_thinking_tokens must lie between 0 and max_thinking_tokens=2",
    ),
    ({"fn": "eos_ramp", "ramp_end": 0}, r"sampling\.control: ramp_end must be positive, got 0"),
    ({"fn": "mirostat_v2", "tau": -1.0}, r"sampling\.control: tau must be positive, got -1\.0"),
    ({"fn": "mirostat_v1", "tau": 1.0, "eta": 0.0}, r"sampling\.control: eta must be positive"),
    (FORCING | {"final_tokens": "7."}, r"control\.final_tokens='7\.' has token 1, which ends a"),
    (FORCING | {"end_of_thinking": "."}, r"control\.end_of_thinking='\.' has token 1, which ends"),
    (
      FORCING | {"wait_tokens": ".", "num_ignore": 1},
      r"control\.wait_tokens='\.' has token 1, which ends a response",
    ),
    ({"fn": "top_p", "p": 2.0}, r"sampling\.control: p must be in \(0, 1\], got 2\.0"),
    ({"fn": "min_p", "p": -1.0}, r"sampling\.control: p must be in \[0, 1\], got -1\.0"),
    ({"fn": "top_k", "k": 0}, r"sampling\.control: k must be at least 1, got 0"),
    ({"fn": "repeat_penalty", "vocab_size": 9}, "vocab_size is not an argument"),
  ):
    with pytest.raises(ValueError, match=error):
      build.build_control(spec, VOCABULARY)


def test_the_thinking_is_as_long_as_budget_forcing_says():
  """The policy ends its thinking ("#") at once: "+" stands in its place until three are spent."""
  spec = {"fn": "budget_forcing", "end_of_thinking": "#", "wait_tokens": "+"}
  spec |= {"min_thinking_tokens": 3, "max_thinking_tokens": 5}
  control = build.build_control(spec, VOCABULARY)
  state, taken = start(control), []
  for _ in range(5):
    state, token, forced = control.take(state, jnp.zeros((1, 20)), jnp.array([3]))
    taken.append((int(token[0]), bool(forced[0])))
  assert taken == [(4, True)] * 3 + [(3, False)] * 2


THINKING = {"fn": "thinking_budget", "budget": 2, "end_text": "#", "forced_text": "7#+"}


@pytest.mark.parametrize(("control", "tape"), [(FORCING, "#7+"), (THINKING, "7#+")])
def test_a_forced_text_does_not_end_the_response(control, tape):
  assert build.build_control(control, VOCABULARY, ["77", "+7"]).room == 2 + len(tape) + 1
  for stops in (["7"], ["=", "+"]):
    with pytest.raises(
      ValueError, match=rf"stop_texts has '.', which .* '{re.escape(tape)}' would"
    ):
      build.build_control(control, VOCABULARY, stops)
  twice = {"fn": "chained", "controls": [control, {"fn": "top_k", "k": 2}]}
  with pytest.raises(ValueError, match="stop_texts has '7'"):
    build.build_control(twice, VOCABULARY, ["7"])


def test_a_run_samples_under_its_control(monkeypatch):
  limit_devices(monkeypatch)
  config = changed(sampling={"temperature": 1.0, "control": {"fn": "top_k", "k": 1}})
  model = build_learner(read(config))
  tokenizer = build.build_tokenizer(model.settings)
  with build.rollout_worker(model, tokenizer, config["task"], "task") as (task, worker):
    queue = RolloutQueue(model, task, make_pipeline(model, worker))
    tokens = np.asarray(queue.take(model.initial()).rollouts.tokens)
  assert (tokens == tokens[:, :1]).all()  # one continuation a prompt: the most likely


def test_tokens_that_the_policy_does_not_read_are_refused(tmp_path, monkeypatch):
  limit_devices(monkeypatch)
  with pytest.raises(ValueError, match=r"tokenizer\.fn='sums' has .* tokens; the policy reads 9"):
    loop.train(changed(policy__vocab_size=9), tmp_path)
  (tmp_path / "a.jsonl").write_text('{"question": "1 + 2?", "answer": "3"}\n')
  task = {"fn": "jsonl", "path": str(tmp_path / "a.jsonl"), "variables": {"think": False}}
  with pytest.raises(ValueError, match=r"task\.variables are of a chat template"):
    loop.train(changed(task=task), tmp_path)

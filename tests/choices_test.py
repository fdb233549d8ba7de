"""`sampling.control` of a config reaches the sampler."""

import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.training import build, loop
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.queue import RolloutQueue
from lcrl.training.rl.run import make_pipeline
from lcrl.training.rl.settings import read
from tests.helpers.devices import limit_devices
from tests.helpers.rl_runs import changed


def test_controls_are_built_by_name_and_chained():
  spec = {"fn": "chained", "controls": [{"fn": "top_k", "k": 2}, {"fn": "min_p", "p": 0.5}]}
  control = build.build_control(spec)
  logits = jnp.log(jnp.array([[0.5, 0.2, 0.3], [0.4, 0.3, 0.3]]))
  state = control.init(jnp.zeros((2, 1), jnp.int32), jnp.ones(2, jnp.int32))
  kept = np.isfinite(control.shape(state, logits))
  np.testing.assert_array_equal(kept, [[True, False, True], [True, True, True]])
  assert build.build_control(None) is None
  with pytest.raises(ValueError, match=r"sampling\.control\.controls\[0\]\.fn='top' is not one of"):
    build.build_control({"fn": "chained", "controls": [{"fn": "top"}]})


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

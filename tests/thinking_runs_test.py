"""Runs whose rollouts have a thinking budget and stop texts: steps, files, reports, bad input."""

import dataclasses

import jax
import numpy as np
import pytest

from lcrl import filters
from lcrl.evaluation import tables
from lcrl.evaluation.measures import measure
from lcrl.evaluation.run import answer_all
from lcrl.training import build, loop
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.evaluator import plain_numbers, pooled
from lcrl.training.metrics import values
from lcrl.training.rl import step_metrics
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.pipeline import RolloutPipeline
from lcrl.training.rl.samples import Samples
from lcrl.training.rl.settings import read
from lcrl.types import Budget, EndReason
from tests.helpers.files import lines
from tests.helpers.methods import Run
from tests.helpers.rl_runs import changed

CAP, STOPS = 16, ("7", "+=#+=#+=")  # nobody writes the second one
CONTROL = {"fn": "thinking_budget", "share": 0.25, "end_text": "#", "answer_tokens": 3}
SAMPLING = {
  "temperature": 1.0,
  "control": CONTROL,
  "stop_texts": STOPS,
  "stop_tokens": ("c",),
  "count_forced": True,
  "slots": 6,
}

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def run(one_device):
  """Rounds, steps ahead, slots, and budgets that differ between rows."""
  settings = read(changed(sampling=SAMPLING))
  model = build_learner(settings)
  engine = build.build_engine(model, model.mesh, build.build_tokenizer(settings))
  return Run(
    engine,
    sampling=SAMPLING,
    budget=dict(fn="uniform", low=2, high=14, cap=CAP),
    filter=dict(fn="untruncated"),
    train=dict(steps_ahead=1, max_rounds=2),
  )


@pytest.mark.slow
def test_a_run_resumes_and_trains_on_what_was_drawn(run, tmp_path):
  stopped, first = run.steps(run.model.initial(), 2)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(2, stopped)
  checkpoints.wait()
  whole, last = run.steps(stopped, 4)
  again, _ = run.steps(Checkpoints(tmp_path).restore(run.model.abstract)[1], 4)
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  for batch in first + last:
    r = batch.rollouts
    assert r.thinking_cut.any()
    assert r.forced.any()
    assert not batch.weights[r.forced].any()
    assert (r.lengths == r.written.sum(-1)).all()
    assert (r.truncated == (r.end == EndReason.CAP)).all()
    assert not (batch.keep & r.truncated).any()
    for b, g in np.argwhere(r.thinking_cut):
      response = r.tokens[b, g][r.written[b, g]]
      border = int(r.budget.target[b, g]) // 4
      assert run.worker.tokenizer.decode(response[border : border + 1]) == "#"
      assert "#" not in run.worker.tokenizer.decode(response[:border])
  reasons = np.concatenate([batch.rollouts.end.ravel() for batch in first + last])
  assert {0, 1, 3} == {*reasons.tolist()}


def test_the_policy_is_not_compared_where_a_token_was_forced(run):
  """Its own log-probs of a fresh step equal the sampler's on drawn tokens, and only these."""
  model = run.model
  batch = run.batch(model.initial())
  r = jax.tree.map(np.asarray, batch.rollouts)
  log_probs = np.asarray(model.measure(model.initial().params, batch.rollouts).log_probs)
  np.testing.assert_allclose(log_probs[r.drawn], r.sampler_log_probs[r.drawn], atol=1e-5)
  assert not log_probs[r.forced].any()


def test_files_and_metrics_carry_the_reasons(run, tmp_path):
  batch = run.batch(run.model.initial())
  Samples(tmp_path, run.worker.tokenizer, step=0, every=9, count=99).write(1, batch)
  r = jax.tree.map(np.asarray, batch.rollouts)
  for row in lines(tmp_path / "samples" / "00000001.jsonl"):
    at = row["group"], row["rollout"]
    assert row["end_reason"] == {0: "end_token", 1: "cap", 3: "stop_text"}[int(r.end[at])]
    assert row["thinking_cut"] == bool(r.thinking_cut[at])
    assert row["forced"] == int(r.forced[at].sum())
    assert len(row["response"]) == row["length"]  # a token is a character
  stats = jax.tree.map(np.asarray, step_metrics.batch_stats(batch))
  numbers = values(step_metrics.step_metrics(stats))
  shares = {name: (r.end == reason).mean() for reason, name in enumerate(("end_token", "cap"))}
  shares["stop_text"] = (r.end >= EndReason.STOP_TEXT).mean()
  assert {name: numbers[f"end/{name}"] for name in shares} == pytest.approx(shares)
  assert numbers["thinking_cut"] == pytest.approx(r.thinking_cut.mean())
  assert numbers["forced_fraction"] == pytest.approx(r.forced.sum() / r.written.sum())
  ended = np.exp(np.asarray(stats["end_log_probs"]))
  np.testing.assert_array_equal(np.isfinite(ended), r.end == EndReason.END_TOKEN)
  section = "\n\n".join(step_metrics.ends_section([numbers], STOPS))
  assert "| `end/stop_text` |" in section
  assert "No answer ended at the stop text '+=#+=#+='" in section
  assert "'7'" not in section
  assert not step_metrics.ends_section([{"truncated": 0.5}], ())


def test_signals_count_what_lengths_count(run):
  prompts = [run.worker.task.prompts[i] for i in range(4)]
  cap = np.full((4, 4), CAP, np.int32)
  local = run.worker.render(prompts, np.arange(4, dtype=np.int32), Budget(cap, cap, 0 * cap))
  rollouts, grader = run.worker.start(run.model.initial().params, local, jax.random.key(0)).result()
  r = jax.tree.map(np.asarray, rollouts)
  assert r.forced.any()
  for b, group in enumerate(grader.responses(r)):
    for g, response in enumerate(group):
      assert response.counted(len(response.tokens)) == r.lengths[b, g]
      assert response.ended == (r.end[b, g] == EndReason.END_TOKEN)


def test_evaluations_carry_the_reasons(run):
  kept = []
  state = run.model.initial()
  options = dict(samples=4, cap=CAP, batch=4, key=jax.random.key(0), keep=kept.append)
  prompts = [run.worker.task.prompts[i] for i in range(4)]
  found = answer_all(run.worker, state.params, prompts, **options)
  assert found["thinking_cut"].any()
  for row in kept:
    at = row["prompt_id"], row["sample"]  # the prompts are numbered from 0
    assert row["thinking_cut"] == bool(found["thinking_cut"][at])
    assert row["truncated"] == (row["end_reason"] == "cap")
  record = measure(**pooled([found]))
  assert sum(record["ends"].values()) == pytest.approx(1)
  assert record["ends"]["stop_text"] == pytest.approx((found["end"] == 3).mean())
  assert plain_numbers(record)["eval/thinking_cut"] == found["thinking_cut"].mean()
  assert "thinking cut, %" in tables.budgets({"16": record})[0]


def test_what_reads_truncation_needs_a_sampler_that_tells_it(run):
  class Silent:
    slots = None

  pipeline = RolloutPipeline(dataclasses.replace(run.worker, engine=Silent()))
  recipe = run.model.recipe
  with pytest.raises(ValueError, match=r"filter reads .* truncated, and the sampler does not tell"):
    pipeline.check(recipe)
  pipeline.check(recipe._replace(filter=filters.keep_all()))
  RolloutPipeline(run.worker).check(recipe)


@pytest.mark.parametrize(
  ("sampling", "error"),
  [
    ({"control": {"fn": "thinking_budget"}}, "needs a budget or a share"),
    ({"control": CONTROL | {"share": 0.0}}, r"sampling\.control\.share must be positive, got 0"),
    ({"control": CONTROL | {"end_text": "</t>"}}, r"control\.end_text='</t>': no tokens .* write"),
    (
      {"control": CONTROL | {"forced_text": "Time!#"}},
      r"control\.forced_text='Time!#' cannot be encoded: there are no tokens for",
    ),
    (
      {"control": CONTROL | {"forced_text": "+="}},
      r"control\.forced_text='\+=' does not end the thinking once it is encoded",
    ),
    ({"control": CONTROL | {"forced_text": "#."}}, r"'#\.' has token 1, which ends a response"),
    (
      {"control": CONTROL | {"budget": 13}},
      r"sampling\.control needs responses of 17 tokens, .* train\.max_tokens=16 allows less",
    ),
    ({"stop_texts": ("",)}, r"sampling\.stop_texts must be up to 100 texts, none empty"),
    ({"stop_texts": ("7", "7")}, r"sampling\.stop_texts has '7' more than once"),
    ({"stop_texts": ("7", "seven")}, r"stop_texts='seven': no tokens of the policy write"),
    ({"stop_tokens": ("##",)}, r"sampling\.stop_tokens='##' has to be one token"),
    ({"stop_texts": "7"}, r"sampling\.stop_texts must be a list of text"),
  ],
)
def test_bad_input_is_named(sampling, error, tmp_path):
  with pytest.raises(ValueError, match=error):
    loop.train(changed(sampling={"temperature": 1.0} | sampling), tmp_path)

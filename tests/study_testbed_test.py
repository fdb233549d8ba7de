"""The study's program: a lane is the method run alone, and the claims' rules decide as written."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import testbed
from experiments.studies.testbed import claims, dials, method_claims, program, report, run, stages
from experiments.studies.testbed.methods import DIALS, METHODS
from experiments.studies.testbed.tables import SLOTS, Setup, stage_tables
from lcrl import advantages, budgets, filters, losses, rewards
from lcrl.losses import policy as policy_losses
from lcrl.tasks.sums import Sums
from lcrl.training import optimizers
from lcrl.types import Budget, Outcome, Recipe, Rollouts, TokenScores

SUMS, EIGHT = Sums(fewest=2, most=3), Sums(most=8)
JUDGED = jax.jit(testbed.verified, static_argnames="sums")
SIZES = dataclasses.replace(
  program.SMALL,
  setup=Setup(sums=SUMS, cap=16, steps=2, rows=8),
  prompts=8,
  group=8,
  monitor=2,
  judged=16,
)
PLAY = ("sums", "max_tokens", "shows_level")
TRIED = ("laser_d", "hapo", "drpo", "conciser")


@pytest.fixture(scope="module")
def built():
  names = program.used([METHODS[name] for name in TRIED])
  return program.build(SIZES, names), names


@pytest.fixture(scope="module")
def params():
  """Knows that a response is "#", some digit and the end: short, and right now and then."""
  policy = program.policy(SIZES)
  said = jnp.array(SUMS.encode("#" + "0123456789"[0] + "."))
  optimizer = optax.adam(2e-2)

  def loss(params, key):
    digits = jax.random.randint(key, (16, 19), 0, 24)
    digit = jax.random.randint(key, (16, 1), 6, 16)
    answer = jnp.concatenate(
      [jnp.full((16, 1), 2), jnp.full((16, 1), said[0]), digit, jnp.full((16, 1), said[2])], 1
    )
    row = jnp.concatenate([digits, answer], 1)
    logits = jax.nn.log_softmax(policy.apply(params, row))[:, -4:-1]
    return -jnp.take_along_axis(logits, answer[:, 1:, None], -1).mean()

  @jax.jit
  def train(params, keys):
    def step(carry, key):
      params, state = carry
      changes, state = optimizer.update(jax.grad(loss)(params, key), state)
      return (optax.apply_updates(params, changes), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

  return train(policy.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 150))


@pytest.fixture(scope="module")
def lanes_trained(built, params):
  """One block of training of every tried method, its second value and seed 1."""
  program_, names = built
  refs = np.zeros((8, 2), bool), np.ones((8, 2), np.int32)
  lanes = program.stack(
    [program.lane(METHODS[n], METHODS[n].values[1], 1, names, refs, 2) for n in TRIED]
  )
  states = program_.begin(lanes, program.stack([params] * len(TRIED)))
  ids = program.prompt_ids(SIZES)
  return program_.train(lanes, states, ids[:1]), lanes


RECIPES = {
  "laser_d": lambda s: dict(
    reward=stages.magnified(
      rewards.laser_d(lower=8 * 128, upper=16 * 128, interval=2 * 128, initial=16 * 128, alpha=0.5)
    )
  ),
  "drpo": lambda s: dict(loss=policy_losses.drpo(max_length=s.cap, temperature=0.1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_lane_is_the_method_alone(name, params, built, lanes_trained):
  (states, seen), _ = lanes_trained
  setup = SIZES.setup
  recipe = Recipe(
    budget=budgets.fixed(target=setup.cap),
    reward=rewards.correctness(),
    filter=filters.keep_all(),
    advantage=advantages.group_normalized(),
    loss=policy_losses.clipped_surrogate(clip_low=0.2, clip_high=0.28),
  )._replace(**RECIPES[name](setup))
  optimizer = optimizers.adamw(learning_rate=SIZES.rate)
  state = testbed.initial(params, recipe, optimizer)
  if recipe.reward.observe:
    ids = program.MONITOR + jnp.arange(2)
    cap = jnp.full((2, SIZES.group), setup.cap)
    play = jax.jit(testbed.roll_out, static_argnums=0, static_argnames=PLAY)
    monitor = play(
      program.policy(SIZES), params, ids, ids, Budget(cap, cap, jnp.zeros_like(cap)),
      jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 0), program.MONITOR),
      sums=SUMS, max_tokens=setup.cap, data_seed=1, shows_level=True,
    )  # fmt: skip
    reward = recipe.reward.observe(state.recipe.reward, monitor)
    state = dataclasses.replace(state, recipe=state.recipe._replace(reward=reward))
  alone, _ = jax.jit(
    lambda state, ids: testbed.reinforce(
      program.policy(SIZES), recipe, optimizer, state, ids,
      sums=SUMS, group_size=SIZES.group, max_tokens=setup.cap, seed=1, data_seed=1,
      weigh=losses.token_mean, updates=SIZES.updates, shows_level=True,
    )
  )(state, program.prompt_ids(SIZES)[:1])  # fmt: skip
  place = TRIED.index(name)
  assert 0 < seen.right[place].sum() < seen.answers[place].sum()
  for a, b in zip(jax.tree.leaves(states.params), jax.tree.leaves(alone.params), strict=True):
    np.testing.assert_allclose(a[place], b, rtol=1e-4, atol=2e-6)

  if name == "laser_d":
    ours = states.recipe.reward[built[1]["reward"].index("laser_d")].own.targets[place]
    assert ours.tolist() == alone.recipe.reward.own.targets.tolist() != [16 * 128] * 3


def test_every_run_is_in_one_program():
  waiting = list(run.runs(list(METHODS), [0, 1, 2]))
  found = run.queues(waiting)
  assert sorted(r.key for queue in found for r in queue) == sorted(r.key for r in waiting)
  assert max(len({r.method.name for r in queue}) for queue in found) <= run.TOGETHER
  *_, probing, dials = [{r.method.name for r in queue} for queue in found]
  assert probing == {"mrt", "anytime_reasoner"}
  assert dials == {m.name for m in DIALS}
  assert {(r.method.longer, r.start) for r in found[-1]} == {(4, "good"), (4, "told")}
  assert (run.even(366, 72), run.even(4, 72), run.even(72, 72)) == (61, 4, 72)


@pytest.mark.slow
def test_methods_differ_in_their_lanes(lanes_trained):
  (states, _), lanes = lanes_trained
  embed = np.asarray(states.params["embed"])
  assert all(np.abs(embed[0] - other).max() > 1e-6 for other in embed[2:])
  assert lanes.turn.tolist() == [2, 2, 2, 1]  # ConciseR's second stage begins halfway
  reward = SLOTS.index("reward")
  assert lanes.choice[3, 0, reward] != lanes.choice[3, 1, reward]


def test_every_method_names_stages_that_exist():
  tables = stage_tables(Setup())
  for method in METHODS.values():
    assert len(method.values) >= 3
    for slot in SLOTS:
      for entry in (method.slots[slot], {**method.slots, **(method.then or {})}[slot]):
        assert (entry if isinstance(entry, str) else entry[0]) in tables[slot]


def rollouts(texts, difficulty, answers, cap=40):
  """One group: the level digit and a "?" are the prompt."""
  tokens = np.zeros((1, len(texts), cap + 2), np.int32)
  mask = np.zeros(tokens.shape, bool)
  for i, text in enumerate(texts):
    row = EIGHT.encode("0?" + text)
    tokens[0, i, : len(row)] = row
    mask[0, i, 2 : len(row)] = True
  lengths = jnp.asarray(mask.sum(-1))
  zeros = jnp.zeros_like(lengths)
  r = Rollouts(
    tokens=jnp.asarray(tokens), mask=jnp.asarray(mask),
    sampler_log_probs=-1.0 * jnp.asarray(mask), lengths=lengths, truncated=zeros > 0,
    scores=zeros * 1.0, correct=zeros > 0, outcome=zeros, valid=zeros == 0,
    prompt_ids=jnp.zeros(1, int), difficulty=jnp.array([difficulty]),
    budget=Budget(zeros, zeros, zeros), signals={},
  )  # fmt: skip
  answers = jnp.full(lengths.shape, answers)
  return JUDGED(r, answers, sums=EIGHT), answers


def test_signals_read_the_tokens():
  r, _ = rollouts(["a0+3+5=8a0+3+5=8c8+9=7#7.", "a0+3=3", "#7."], 3, 7)
  told = jax.jit(stages.signals, static_argnums=1)(r, EIGHT)
  assert r.outcome.tolist() == [[Outcome.OK, Outcome.BAD_FORMAT, Outcome.OK]]
  assert told["think_end"].tolist() == [[22, -1, 0]]
  assert told["answer_length"].tolist() == [[24, 6, 2]]
  assert told["needed"].tolist() == [[22, 0, 0]]
  assert told["unrepeated"].tolist() == [[False, True, True]]
  assert told["has_think"].tolist() == [[True, False, False]]


def test_waste_is_cut_and_the_answer_stays():
  texts = ["a0+3+5=8c8+9=7c8+9=7#7.", "a0+3+5=8c8+9=7c8+9=7#6.", "a0+3+5=8c8+9=7#7."]
  r, answers = rollouts(texts, 3, 7)
  cut = jax.jit(stages.waste_cut(sums=EIGHT))(r, answers)
  said = [EIGHT.decode(np.asarray(cut.tokens[0, i])[np.asarray(cut.mask[0, i])]) for i in range(3)]
  assert said == ["a0+3+5=8c8+9=7#7.", texts[1], texts[2]]  # a wrong answer keeps its waste
  assert cut.correct.tolist() == [[True, False, True]]
  assert cut.tokens[0, 0, :2].tolist() == r.tokens[0, 0, :2].tolist()


def test_outliers_lose_their_verdict():
  long = "a0+3=3a0+3=3a0+3=3b3+4=7#7."
  r, answers = rollouts(["#7."] * 5 + [long], 2, 7)
  revise = jax.jit(stages.outliers_cut(alpha=1.0, sums=EIGHT))
  cut = revise(r, answers)
  assert cut.correct.tolist() == [[True] * 5 + [False]]
  r, answers = rollouts(["#6.", "#7.", "#7.", "#7.", "#7.", long], 2, 7)
  same = revise(r, answers)
  assert same.lengths.tolist() == r.lengths.tolist()  # only groups that are all right


def test_a_step_is_worth_what_it_adds():
  """The policy answers 8 with a chance that grows with the number of digits it has seen."""
  r, answers = rollouts(["a0+3=3b3+5=8#8.", "#8.", "a0+3"], 2, 8)

  def score(params, rows):
    digits = jnp.cumsum((rows.tokens >= 6) & (rows.tokens < 16), -1)
    said = jnp.all((rows.tokens == 14) | ~rows.mask)  # what is scored is the right answer
    log_probs = jnp.where(rows.mask & said, jnp.log(digits / 10.0), -99.0)
    return TokenScores(jnp.where(rows.mask, log_probs, 7.0))

  at = lambda r, kept: stages.prefix_values(score, None, r, answers, kept, EIGHT)
  values = at(r, stages.step_cuts(r, EIGHT))
  # Digits before the answer and itself: level, then 0, 3, 3. The second response has no step.
  np.testing.assert_allclose(values[0], [[0.2, 0.5], [0.2, 0.2], [0.2, 0.2]], rtol=1e-5)
  later = dataclasses.replace(r, prompt_ids=r.prompt_ids + 1)  # its second step: 3, 5, 8 more
  values = at(later, stages.step_cuts(later, EIGHT))
  np.testing.assert_allclose(values[0, 0], [0.5, 0.8], rtol=1e-5)
  thought = jnp.array([[12, 0, -1]])  # where "#" stands; the last one never ends
  cuts = stages.budget_cuts(r, thought, (2, 6, 40))
  assert cuts.tolist() == [[[2, 6, 12], [0, 0, 0], [2, 4, 4]]]
  np.testing.assert_allclose(at(r, cuts)[0], [[0.3, 0.5, 0.8], [0.2] * 3, [0.3, 0.4, 0.4]], 1e-5)


# -- Claims on results whose verdict is known.


def result(method, value, accuracy, tokens, start="good", seed=0, **more):
  columns = {"difficulty": ["2"], "accuracy": [accuracy], "tokens": [tokens]}
  found = dict(
    method=method, value=value, start=start, seed=seed, accuracy=accuracy, tokens=tokens,
    tokens_right=tokens, tokens_wrong=tokens, excess_tokens=5.0, pushed_down=0.0,
    by_difficulty=columns,
  )  # fmt: skip
  return found | more


STARTS = {
  f"{start}/{seed}": {
    "accuracy": program.WANTED[start],
    "tokens": 40.0 + seed,
    "excess_tokens": 20.0,
    "by_difficulty": {"accuracy": [0.9]},
    "by_length": [[5, n, int(100 - (n - 30) ** 2), int((n - 30) ** 2)] for n in range(20, 41)],
  }
  for start in ("good", "weak")
  for seed in range(3)
}
UNITS = [(start, seed) for start in ("good", "weak") for seed in range(3)]


def runs_of(method, values, accuracy, tokens, **more):
  return [
    result(method, v, accuracy(i) + 0.001 * u[1], tokens(i) + u[1], *u, **more)
    for u in UNITS
    for i, v in enumerate(values)
  ]


def test_collapse_needs_the_naive_form_alone():
  naive = runs_of("naive", (0.01, 0.03), lambda i: (0.8, 0.1)[i], lambda i: 2.0)
  gated = runs_of("laser", (20, 28), lambda i: 0.8, lambda i: 20.0)
  assert claims.naive_collapses(naive + gated, STARTS).verdict == claims.REPRODUCED
  fallen = runs_of("gr3", (1,), lambda i: 0.1, lambda i: 5.0)
  assert claims.naive_collapses(naive + gated + fallen, STARTS).verdict == claims.NOT
  held = runs_of("naive", (0.01, 0.03), lambda i: 0.8, lambda i: 20.0)
  assert claims.naive_collapses(held + gated, STARTS).verdict == claims.NOT
  assert claims.naive_collapses(gated, STARTS).verdict == claims.UNTESTABLE


def test_differences_need_an_interval_beyond_zero():
  better = runs_of("curriculum", (20, 28), lambda i: 0.9, lambda i: 20.0)
  worse = runs_of("fixed_target", (20, 28), lambda i: 0.8, lambda i: 20.0)
  assert claims.curriculum_beats_fixed(better + worse, STARTS).verdict == claims.REPRODUCED
  swapped = [r | {"method": "fixed_target"} for r in better]
  swapped += [r | {"method": "curriculum"} for r in worse]
  assert claims.curriculum_beats_fixed(swapped, STARTS).verdict == claims.NOT
  assert claims.curriculum_beats_fixed(better, STARTS).verdict == claims.UNTESTABLE
  noisy = [r | {"accuracy": 0.8 + 0.2 * (-1) ** r["seed"]} for r in worse]
  assert claims.curriculum_beats_fixed(better + noisy, STARTS).verdict == claims.NOT


def test_the_other_rules():
  laser = runs_of("laser", (20, 28), lambda i: 0.8 + 0.1 * i, lambda i: 20.0 + 8 * i)
  cap = runs_of("hard_cap", (20, 28), lambda i: 0.5 + 0.1 * i, lambda i: 20.0 + 8 * i)
  assert claims.step_bonus_beats_cap(laser + cap, STARTS).verdict == claims.REPRODUCED
  assert claims.step_bonus_beats_cap(cap + cap, STARTS).verdict == claims.UNTESTABLE
  apart = [r | {"tokens": r["tokens"] + 20} for r in cap]
  assert claims.step_bonus_beats_cap(laser + apart, STARTS).verdict == claims.UNTESTABLE
  longer = runs_of("grpo", (1.0,), lambda i: 0.9, lambda i: 50.0, tokens_wrong=60.0)
  shorter = runs_of("grpo", (1.0,), lambda i: 0.9, lambda i: 30.0, tokens_wrong=60.0)
  assert claims.correctness_lengthens(longer, STARTS).verdict == claims.REPRODUCED
  assert claims.correctness_lengthens(shorter, STARTS).verdict == claims.NOT
  even = runs_of("fixed_length", (1.0,), lambda i: 0.9, lambda i: 50.0, tokens_wrong=50.0)
  assert claims.sequence_mean_biases(longer + even, STARTS).verdict == claims.REPRODUCED
  flat = {
    unit: s | {"by_length": [[5, n, 2 * n, 100 - 2 * n] for n in range(20, 41)]}
    for unit, s in STARTS.items()
  }
  assert claims.inverted_u([], STARTS).verdict == claims.REPRODUCED
  assert claims.inverted_u([], flat).verdict == claims.NOT


def test_the_report_holds_every_run(tmp_path):
  found = runs_of("grpo", (0.5, 1.0, 2.0), lambda i: 0.9, lambda i: 40.0)
  found += runs_of("laser", (20.0, 28.0, 36.0), lambda i: 0.7 + 0.1 * i, lambda i: 20.0 + 8 * i)
  (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
  (tmp_path / "starts.json").write_text(json.dumps(STARTS))
  (tmp_path / "origin.json").write_text(json.dumps({"device": "a chip", "commit": "abc"}))
  report.write([tmp_path], tmp_path / "home", program.Sizes())
  text = (tmp_path / "home" / "README.md").read_text()
  assert "| laser | arXiv:2505.15612 | target 36 | good | 3 | 90.1 ± 0.2 | 37.0 ± 2.5 |" in text
  tables = (tmp_path / "home" / "tables.md").read_text()
  assert tables.count("| laser |") == 6
  assert len(json.loads((tmp_path / "home" / "results.json").read_text())) == len(found)
  assert (tmp_path / "home" / "pareto.png").stat().st_size > 10_000


def test_starts_are_of_their_seeds(tmp_path):
  params = jax.vmap(program.policy(SIZES).init)(jax.random.split(jax.random.key(0), 2))
  run.save_starts(tmp_path / "starts.npz", {"told": params}, [3, 4])
  (name,) = found = run.load_starts(tmp_path / "starts.npz", SIZES, [3, 4])
  assert name == "told"
  np.testing.assert_allclose(found["told"]["embed"], params["embed"], rtol=2e-3, atol=1e-6)
  with pytest.raises(ValueError, match=r"holds starts of seeds \[3, 4\], not \[0, 1\]"):
    run.load_starts(tmp_path / "starts.npz", SIZES, [0, 1])


def test_a_second_call_goes_on(tmp_path, monkeypatch):
  """The first call stops at its deadline, the second runs the rest and repeats nothing; four runs
  at once do not fit, two do."""
  ran = []

  def pretend(compiled, sizes, group, *_):
    if len(group) > 2:
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    ran.extend(r.key for r in group)
    return [dict(result(r.method.name, r.value, 0.5, 9, r.start, r.seed)) for r in group]

  class Fake:
    judge = draw = staticmethod(lambda *_: (jnp.zeros((1, 1)), jnp.zeros((1, 1))))

  monkeypatch.setattr(run, "train", pretend)
  monkeypatch.setattr(program, "build", lambda *_: Fake)
  monkeypatch.setattr(run, "learn_starts", lambda *_: {"good": {}, "weak": {}})
  monkeypatch.setattr(run, "save_starts", lambda *_: None)
  monkeypatch.setattr(run, "load_starts", lambda *_: {"good": {}, "weak": {}})
  monkeypatch.setattr(run, "starts_json", lambda *_: {})
  monkeypatch.setattr(run.Compiled, "_compile", lambda *_: None)
  call = dict(names=["grpo"], seeds=[0], lanes=4)
  run.study(tmp_path / "a", SIZES, **call, deadline=-1.0, resume=None)
  assert not ran
  run.study(tmp_path / "a", SIZES, **call, deadline=1e9, resume=None)
  assert len(ran) == 6
  before = len(ran)
  run.study(tmp_path / "b", SIZES, **call, deadline=1e9, resume=tmp_path / "a")
  assert len(ran) == before
  lines = (tmp_path / "b" / "results.jsonl").read_text().splitlines()
  keys = [(r["method"], r["value"], r["start"], r["seed"]) for r in map(json.loads, lines)]
  assert len(keys) == len(set(keys)) == 6


def test_claims_of_methods_are_three_valued():
  """One coefficient each; GRPO has 90 % at 50 tokens."""
  grpo = runs_of("grpo", (1.0,), lambda i: 0.9, lambda i: 50.0, truncated=0.2)
  decide = lambda rule, runs: rule(grpo + runs, STARTS, "hapo")[0]
  at = lambda accuracy, tokens, **more: runs_of(
    "hapo", (0.3,), lambda i: accuracy, lambda i: tokens, **more
  )
  noisy = [r | {"accuracy": 0.9 + 0.09 * (-1) ** r["seed"]} for r in at(0.9, 30.0)]
  c = method_claims
  for rule, runs, verdict in (
    (c.shortens, at(0.89, 30.0), c.REPRODUCED),
    (c.shortens, at(0.87, 30.0), c.CONTRADICTED),
    (c.shortens, at(0.9, 60.0), c.CONTRADICTED),
    (c.shortens, noisy, c.UNDECIDED),
    (c.keeps_accuracy, at(0.5, 30.0), c.CONTRADICTED),
    (c.keeps_accuracy, [], c.UNTESTABLE),
    (c.never_collapses, at(0.4, 30.0), c.CONTRADICTED),
    (c.never_collapses, at(0.4, 60.0), c.REPRODUCED),
    (c.truncates_less, at(0.9, 30.0, truncated=0.1), c.REPRODUCED),
    (c.truncates_less, at(0.9, 30.0, truncated=0.2), c.UNDECIDED),
    (c.follows, at(0.9, 30.0, by_level=[[0.9, 20.0], [0.9, 30.0]]), c.REPRODUCED),
    (c.follows, at(0.9, 30.0), c.UNTESTABLE),
    (c.holds_target, at(0.9, 0.3), c.CONTRADICTED),
  ):
    assert decide(rule, runs) == verdict, (rule.__name__, verdict)
  # L1 asks for 45 tokens more at its highest level than at its lowest.
  little = runs_of(
    "l1_max", (0.3,), lambda i: 0.9, lambda i: 30.0, by_level=[[0.9, 20.0], [0.9, 30.0]]
  )
  assert c.follows(little, STARTS, "l1_max") == (
    c.CONTRADICTED,
    "+10.0 (+10.0 to +10.0) tokens of 45 asked",
  )
  assert {v.claim.partition(" ")[0] for v in c.verdicts([], STARTS)} == set(c.CLAIMS)
  assert set(c.CLAIMS) <= set(report.METHODS)


def test_a_start_that_missed_its_accuracy_does_not_count():
  right = {"good/0": 0.82, "good/1": 0.79, "weak/0": 0.41, "weak/1": 0.61, "told/0": 0.99}
  starts = {unit: {"accuracy": accuracy} for unit, accuracy in right.items()}
  assert [*report.on_target(starts)] == ["good/0", "weak/0", "told/0"]


def test_later_seeds_do_not_choose_the_coefficient(tmp_path):
  """Unless a method has no others; a report's choice is what further seeds run with."""
  named = lambda name: [
    *(result(name, v, a, 20.0, seed=s) for v, a in ((20, 0.9), (28, 0.8)) for s in range(3)),
    *(result(name, 28, 1.0, 1.0, seed=s) for s in range(3, 9)),
  ]
  starts = {f"good/{seed}": STARTS["good/0"] for seed in range(9)}
  found = named("laser_d") + named("laser")
  assert claims.best_value(found, starts, "laser_d") == 20
  assert claims.best_value(found[6:12], starts, "laser_d") == 28
  for name, content in (("results", found), ("starts", starts)):
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
  values = run.chosen_values(tmp_path)
  assert values == {"laser_d": (20,)}  # claims read all coefficients of laser
  asked = [r.key for r in run.runs(["laser_d", "laser"], [9], values)]
  assert len(asked) == 2 * (1 + len(METHODS["laser"].values))


def test_reports_of_two_folders_are_one():
  part = lambda seed, commit: (
    [result("grpo", 1.0, 0.9, 40.0, seed=seed)],
    {f"good/{seed}": {}},
    {"device": "a chip", "commit": commit},
  )
  results, starts, origin = report.together([part(0, "abc"), part(3, "def")])
  assert [r["seed"] for r in results] == [0, 3]
  assert [*starts] == ["good/0", "good/3"]
  assert origin == {"device": "a chip", "commit": "abc and def"}
  with pytest.raises(ValueError, match=r"1 runs stand in two folders, such as \('grpo', 1.0"):
    report.together([part(0, "abc"), part(0, "abc")])


def test_dials_stand_beside_the_single_runs_of_their_seeds(tmp_path):
  """Two of three single runs lie on or below the first dial's curve, none on the second's, which is
  flat and longer; seed 1 has no single runs, and does not count."""
  single = [
    result("laser", v, a, n) for v, a, n in ((20, 0.5, 20.0), (28, 0.8, 30.0), (36, 0.99, 40.0))
  ]
  of = lambda name, levels, **where: result(
    name, METHODS[name].values[0], 0.8, 30.0, by_level=levels, **where
  )
  curve = [[0.6, 20.0], [0.7, 22.0], [0.8, 25.0], [0.85, 30.0], [0.9, 40.0]]
  flat = [[0.4, 20.0]] * 5
  runs = [*single, of("dial_exact", curve), of("dial_exact", curve, seed=1), of("dial_price", flat)]
  second, first = dials.measured(runs)
  assert (first.method, second.method) == ("dial_exact", "dial_price")
  assert first.reached == [pytest.approx(2 / 3)]
  assert second.reached == [0]
  assert first.range == 2.0
  gaps = [0.1, 0.14, 0.15, 0.05, -0.09]  # the front: 0.5 at 20, 0.8 at 30, 0.99 at 40 tokens
  np.testing.assert_allclose(first.gaps, [np.mean(gaps)])
  np.testing.assert_allclose(second.gaps, [-0.1])
  text = dials.section([first, second])
  assert "20 22 25 30 40 | 60 70 80 85 90 | 2.00 | 67 %" in text
  assert "0 of 2 dials" in text
  assert "**Followed** (the longest effort spends at least 1.25" in text
  dials.picture(tmp_path / "dials.png", runs, [first, second])
  assert (tmp_path / "dials.png").stat().st_size > 10_000


def test_a_run_is_compared_with_grpo_of_its_seeds():
  grpo = [result("grpo", 1.0, 0.9, 40.0), result("grpo", 1.0, 0.1, 400.0, seed=1)]
  cells = report.cells([result("laser", 20, 0.8, 20.0)], grpo, STARTS)
  assert cells[report.COLUMNS.index("vs. GRPO")] == "\u221210.0, \u221250.0 %"


def test_each_digit_has_its_accuracy_and_tokens():
  judged = program.Judged(*map(np.array, ([1, 0, 1, 1], [2, 4, 6, 8], [2] * 4, [0, 0, 1, 1])))
  assert run.by_level(judged, 2) == [[0.5, 3.0], [1.0, 7.0]]


def test_a_method_of_more_steps_gets_them(monkeypatch):
  monkeypatch.setattr(program, "build", lambda *_: None)
  monkeypatch.setattr(run.Compiled, "_compile", lambda *_: None)
  pool = types.SimpleNamespace(submit=lambda f: None)
  queue = [*run.runs([DIALS[0].name], [0])]
  compiled = run.Compiled(queue, SIZES, 4, pool)
  for one in (compiled, compiled.half(queue)):
    assert one.sizes.setup.steps == SIZES.setup.steps * DIALS[0].longer > SIZES.setup.steps


def test_runs_of_a_start_that_missed_are_kept_and_do_not_count(tmp_path):
  found = runs_of("grpo", (1.0,), lambda i: 0.9, lambda i: 40.0)
  starts = STARTS | {"good/2": STARTS["good/2"] | {"accuracy": 0.7}}
  (tmp_path / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found))
  (tmp_path / "starts.json").write_text(json.dumps(starts))
  (tmp_path / "origin.json").write_text(json.dumps({"device": "a chip", "commit": "abc"}))
  report.write([tmp_path], tmp_path / "home", program.Sizes())
  text = (tmp_path / "home" / "README.md").read_text()
  assert "count: good/2 (70 %)." in text
  assert "| times the others' 1 | good | 2 |" in text.replace("learning rate, ", "")
  assert len(json.loads((tmp_path / "home" / "results.json").read_text())) == len(found)


def test_each_start_comes_from_its_course(monkeypatch):
  monkeypatch.setattr(
    run, "_course", lambda built, imitate, sizes, seeds, names: dict.fromkeys(names, imitate)
  )
  built = types.SimpleNamespace(imitate="plain", imitate_told="told digits")
  found = run.learn_starts(built, SIZES, [0], {"good", "told"})
  assert found == {"good": "plain", "told": "told digits"}
  assert run.learn_starts(built, SIZES, [0], {"weak"}) == {"weak": "plain"}


def test_starts_that_are_there_are_not_learned_again(tmp_path, monkeypatch):
  saved = {}
  (tmp_path / "starts.npz").write_text("")
  monkeypatch.setattr(run, "load_starts", lambda *_: saved or {"good": 1})
  monkeypatch.setattr(run, "learn_starts", lambda *given: dict.fromkeys(given[-1], 2))
  monkeypatch.setattr(run, "save_starts", lambda path, starts, seeds: saved.update(starts))
  monkeypatch.setattr(run, "starts_json", lambda *_: {})
  found = run._starts(None, tmp_path, SIZES, [0], {"good", "told"})
  assert found == {"good": 1, "told": 2}

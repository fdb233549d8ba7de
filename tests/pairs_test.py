"""What runs on pairs are made of: measures, references, third sides; and what they refuse."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.data.sources import Encoded
from lcrl.losses.weights import token_mean
from lcrl.training import loop
from lcrl.training.pairs import evaluate, references
from lcrl.training.pairs.learner import build_learner, derive
from lcrl.training.pairs.metrics import compare
from lcrl.training.pairs.mismatched import mismatched
from lcrl.training.pairs.settings import read
from lcrl.types import Pairs
from tests.helpers.pair_runs import changed

pytestmark = pytest.mark.usefixtures("one_device")
FULL = {"lora": None, "reference": {"fn": "frozen"}}


def encoded(count, *, seed=0):
  """Pairs whose answers have 1 to 6 tokens."""
  rng = np.random.default_rng(seed)
  draw = lambda n: rng.integers(0, 256, n).astype(np.int32)
  side = lambda: draw(rng.integers(1, 7))
  return [Encoded(10 * i, draw(3), (side(), side())) for i in range(count)]


def padded(chosen, *, length=12, size=None):
  """Pairs of `chosen`, and rows that are not valid up to `size`."""
  shape = (size or len(chosen), len(chosen[0].sides), length)
  size, tokens, mask = shape[0], np.zeros(shape, np.int32), np.zeros(shape, bool)
  for b, one in enumerate(chosen):
    for g, side in enumerate(one.sides):
      end = len(one.prompt) + len(side)
      tokens[b, g, :end] = np.concatenate([one.prompt, side])
      mask[b, g, len(one.prompt) : end] = True
  ids = [one.id for one in chosen] + [-1] * (size - len(chosen))
  return Pairs(
    tokens=tokens,
    mask=mask,
    lengths=mask.sum(-1, dtype=np.int32),
    valid=np.arange(size) < len(chosen),
    pair_ids=np.array(ids, np.int32),
    scores=np.full(shape[:2], np.nan, np.float32),
    signals={},
  )


@pytest.fixture(scope="module")
def model():
  return build_learner(read(changed("", **FULL, train__pack=None)))


def subject(model, folder, pairs, *, size=3, data="data", rows=""):
  passes = lambda: (padded(pairs[i : i + size], size=size) for i in range(0, len(pairs), size))
  return references.Subject(model, (), data, passes, folder, rows)


def test_compare_by_hand():
  rewards = jnp.array([[4.0, 1.0], [2.0, 2.0], [0.0, 6.0], [jnp.nan, jnp.nan]])
  lengths = jnp.array([[2, 1], [4, 4], [1, 3], [0, 0]])
  found = compare(rewards, lengths, jnp.array([True, True, True, False]))
  want = {
    "accuracy": 0.5,  # right, a tie, wrong
    "margin": -1.0,  # 3, 0, -6
    "margin_per_token": -1 / 3,  # 2 - 1, 0, 0 - 2
    "longer_preferred": 1.0,  # both pairs of unlike length
    # rewards 4 1 2 2 0 6 are 2.5 in the mean, lengths 2 1 4 4 1 3 too: co 5.5, var 23.5 and 9.5
    "reward_length_correlation": 5.5 / np.sqrt(23.5 * 9.5),
    # margins 3 0 -6 (mean -1), differences 1 0 -2 (mean -1/3): 14 / sqrt(42 * 14 / 3)
    "margin_length_correlation": 14 / np.sqrt(42 * 14 / 3),
    "chosen_length": 7 / 3,
    "rejected_length": 8 / 3,
  }
  for name, value in want.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
  same = compare(jnp.zeros((2, 2)), jnp.ones((2, 2), int), jnp.ones(2, bool))
  assert np.isnan(same["reward_length_correlation"])
  assert same["longer_preferred"] == 0


def test_a_cache_holds_what_a_copy_says(model, tmp_path):
  data = encoded(7)
  cache = references.cached()(subject(model, tmp_path, data))
  pairs = padded([data[6], data[2]], length=16, size=3)  # other rows, other padding
  want = references.frozen()(subject(model, tmp_path, data))(pairs, model.place(pairs))
  got = cache(pairs, model.place(pairs))
  np.testing.assert_allclose(got, want, atol=1e-6)
  assert np.abs(want).max() > 1
  assert (np.asarray(got)[~pairs.mask] == 0).all()
  written = (tmp_path / "reference" / "log_probs.npy").stat().st_mtime_ns
  references.cached()(subject(model, tmp_path, data))
  assert (tmp_path / "reference" / "log_probs.npy").stat().st_mtime_ns == written


def test_a_cache_is_found_by_the_rows_where_a_template_tells_the_date(model, tmp_path, caplog):
  data = encoded(3)
  references.cached()(subject(model, tmp_path, data, data="monday", rows="rows"))
  references.cached()(subject(model, tmp_path, data, data="tuesday", rows="rows"))
  assert "the same pairs under prompts of another day" in caplog.text
  with pytest.raises(ValueError, match="holds the reference of other pairs"):
    references.cached()(subject(model, tmp_path, data, data="tuesday", rows="others"))


def test_a_cache_of_another_model_or_of_other_pairs_is_refused(model, tmp_path):
  data, folder = encoded(3), str(tmp_path / "cache")
  references.cached(folder=folder)(subject(model, tmp_path, data))
  with pytest.raises(ValueError, match=r"cache holds the reference of other pairs: data, .* other"):
    references.cached(folder=folder)(subject(model, tmp_path, data, data="other"))
  another = build_learner(read(changed("", **FULL, seed=4, train__pack=None)))
  with pytest.raises(ValueError, match="holds the reference of other parameters"):
    references.cached(folder=folder)(subject(another, tmp_path, data))


def test_a_fingerprint_stays_when_the_config_gets_a_field():
  """The value of the version before `activation` and `query_scale`: its references stay valid."""
  config, params = policies.tiny(9), {"embed": jnp.arange(6.0).reshape(2, 3)}
  assert references.fingerprint(config, params) == "6a89229740b359c233b065aece0b47af"
  other = dataclasses.replace(config, activation="gelu_tanh")
  assert references.fingerprint(other, params) != references.fingerprint(config, params)


def test_a_fingerprint_knows_every_parameter_and_no_mesh(model):
  config, params = model.policy.config, model.start()
  first = references.fingerprint(config, params)
  devices = jax.local_devices()
  spread = jax.sharding.Mesh(np.array(devices), ("x",))
  split = jax.sharding.NamedSharding(spread, jax.sharding.PartitionSpec(None, "x"))
  moved = params | {"embed": jax.device_put(params["embed"], split)}
  assert references.fingerprint(config, moved) == first
  for place in ((0, 0), (257, 15)):
    other = params | {"embed": params["embed"].at[place].add(1e-3)}
    assert references.fingerprint(config, other) != first
  rolled = params | {"embed": jnp.roll(params["embed"], 1, axis=0)}
  assert references.fingerprint(config, rolled) != first
  assert references.fingerprint(dataclasses.replace(config, norm_eps=1e-3), params) != first
  assert references.fingerprint(dataclasses.replace(config, remat="full"), params) == first


def test_a_reference_may_read_another_prompt(model):
  long, short = encoded(2), encoded(2)
  long = [dataclasses.replace(one, prompt=np.arange(5, dtype=np.int32)) for one in long]
  pairs, shown = padded(long), padded(short)
  signals = {"reference_tokens": shown.tokens, "reference_mask": shown.mask}
  placed = model.place(dataclasses.replace(pairs, signals=signals))
  got = references.scorer(model)(model.start(), placed)
  want = model.score(model.start(), model.place(shown)).log_probs
  assert np.abs(want).max() > 1
  np.testing.assert_allclose(got[pairs.mask], want[shown.mask], rtol=1e-6)
  assert (np.asarray(got)[~pairs.mask] == 0).all()


def test_a_third_side_is_the_answer_to_another_prompt():
  data = encoded(3)
  three = mismatched(data, window=7)
  for one, old, other in zip(three, data, [data[1], data[2], data[0]], strict=True):
    assert one.sides[:2] == old.sides
    assert one.id == old.id
    np.testing.assert_array_equal(one.sides[2], other.sides[0][:4])
  with pytest.raises(ValueError, match="at least two prompts; all 1 are of one"):
    mismatched(data[:1], window=7)


@pytest.mark.parametrize("prompts", ["aabb", "abab", "aaab", "aaabbc", "abcde", "abacaa"])
def test_a_third_side_is_never_an_answer_to_the_same_prompt(prompts):
  said = {x: np.array([100 + ord(x)], np.int32) for x in prompts}
  data = [
    Encoded(i, np.array([ord(x)], np.int32), (said[x], np.array([i], np.int32)))
    for i, x in enumerate(prompts)
  ]
  three = mismatched(data, window=7)
  assert [one.id for one in three] == list(range(len(prompts)))
  assert all(one.sides[2][0] != 100 + one.prompt[0] for one in three)
  with pytest.raises(ValueError, match="all 2 are of one"):
    mismatched([data[0], data[0]], window=7)


SFT = {"run": "sft", "loss": {"fn": "nll"}, "weights": {"fn": "token_mean"}, "reference": None}


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"loss": {"fn": "dop"}}, r"loss\.fn='dop' is not one of .*sampo"),
    ({"loss__gamma": 1.0}, r"loss\.gamma is not an argument of dpo"),
    ({"loss__link": {"fn": "sigmoid"}}, r"loss\.link\.fn='sigmoid' is not one of"),
    ({"loss": {"fn": "means"}}, r"loss\.fn='means' is not one of alphapo"),
    ({"loss": {"fn": "simpo"}}, r"nothing reads the section reference: loss\.fn='simpo'"),
    ({"reference": None}, r"loss\.fn='dpo' has a reference: .* needs a section reference"),
    ({"weights": {"fn": "token_mean"}}, "nothing reads the section weights"),
    ({"loss": {"fn": "orpo"}, "reference": None}, r"'orpo' has a likelihood term.*weights"),
    ({"reference": {"fn": "cache"}}, r"reference\.fn='cache' is not one of cached, frozen, shared"),
    ({"lora": None}, r"reference\.fn='shared' needs a section lora"),
    ({"lora__rank": 0}, r"lora\.rank must be at least 1, got 0"),
    ({"lora__rank": None}, r"lacks lora\.rank"),
    ({"lora__targets": ("norm",)}, r"lora\.targets must be a list of one of query"),
    ({"policy": {"fn": "pretrained"}}, r"policy\.path is missing"),
    ({"policy": {"fn": "pretrained", "path": "/no/such/folder"}}, "/no/such/folder"),
    ({"reward": {"fn": "correctness"}}, r"unknown config section \['reward'\]"),
    ({"train__group_size": 4}, r"unknown config field train\.group_size"),
    ({"eval__pairs": 0}, r"eval\.pairs must be at least 1, got 0"),
    ({"train__pack": 16}, r"train\.pack must hold a whole answer, data\.window = 32, got 16"),
    ({"verify": {"workers": 1}}, "nothing reads the section verify: the config has no task"),
    ({"batches__size": 3, "train__micro_batches": 2}, r"batches\.size must be a multiple.* got 3"),
    ({"data__rows": None}, r"the config lacks data\.rows"),
    ({"data__name": "x"}, r"data\.name is not an argument of pairs"),
    ({"data__held_out": 0.0}, r"data\.held_out leaves nothing to evaluate on"),
    (
      {"data__fn": "responses"},
      r"'responses' gives 1 answers a prompt; run='preference' learns from 2",
    ),
    ({"loss": {"fn": "sppo"}}, r"the loss needs \['win_rates'\]"),
    ({"loss": {"fn": "inpo"}}, r"the loss needs \['previous'\]"),
    ({**SFT, "loss": {"fn": "dpo"}}, r"loss\.fn='dpo' is not one of nll"),
    (SFT, r"'pairs' gives 2 answers a prompt; run='sft' learns from 1"),
  ],
)
def test_bad_configs_are_refused_by_name(fields, message, rows, tmp_path):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    loop.train(changed(rows, **fields), tmp_path / "run")
  assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_unread_config_leaves_no_folder(rows, tmp_path):
  with pytest.raises(ValueError, match="nothing reads"):
    loop.train(changed(rows, loss={"fn": "simpo"}), tmp_path / "run")
  assert not pathlib.Path(tmp_path / "run").exists()


@pytest.mark.slow
def test_pieces_packing_and_devices_change_no_update(one_device):
  """A coupled loss with a third side and a likelihood term, by one step of plain descent."""
  fields = {
    "loss": dict(fn="combined", kto=dict(fn="kto"), nll=dict(fn="nll"), by=dict(kto=1.0, nll=0.1)),
    "weights": {"fn": "token_mean"},
    "optimizer": {"fn": "sgd", "learning_rate": 1.0},
    "policy__hidden_size": 32,
    "data__window": 12,
    "lora": None,
    "reference": {"fn": "frozen"},
  }
  data = mismatched(encoded(6), window=12)
  pairs = [padded(data, size=8)]

  def after(devices=None, **changes):
    model = build_learner(read(changed("", **fields, **changes)), devices=devices)
    state, placed = model.initial(), model.place(pairs[0])
    ref = model.score(model.start(), placed).log_probs
    state, metrics = model.make_update(())(state, model.derive(placed, ref - 0.1 * placed.mask, 0))
    return jax.tree.map(np.asarray, (state.params, metrics["loss"].total))

  want = after(train__pack=None)
  start = build_learner(read(changed("", **fields))).start()
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), want[0], start)
  assert min(jax.tree.leaves(moved)) > 1e-4
  close = lambda got: jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=2e-5), got, want
  )
  close(after(train__pack=24, train__micro_batches=2))
  mesh = {"data": 2, "fsdp": 2, "tensor": 2}
  close(after(devices=jax.local_devices(), train__pack=24, train__micro_batches=2, mesh=mesh))


def test_a_batch_knows_the_whole_and_draws_by_pair_and_step():
  data = encoded(3)
  at = lambda pairs, step: derive(token_mean, jax.random.key(0), pairs, None, step)
  pairs = jax.tree.map(jnp.asarray, padded(data, size=4))
  turned = jax.tree.map(jnp.asarray, padded(data[::-1], size=4))
  batch = at(pairs, 5)
  np.testing.assert_allclose(batch.weights, [1 / 3, 1 / 3, 1 / 3, 0])
  tokens = sum(len(one.sides[0]) for one in data)
  np.testing.assert_allclose(batch.token_weights, pairs.mask[:, 0] / tokens)
  keys = jax.random.key_data(batch.keys)
  np.testing.assert_array_equal(keys[:3][::-1], jax.random.key_data(at(turned, 5).keys)[:3])
  assert (keys != jax.random.key_data(at(pairs, 6).keys)).any(-1).all()
  assert len(np.unique(keys, axis=0)) == 4


def test_a_run_that_never_began_does_not_hold_its_folder(rows, tmp_path):
  for message in ("data.held_out leaves nothing", "learns from 2"):
    fields = {"data__held_out": 0.0} if "held_out" in message else {"data__fn": "responses"}
    with pytest.raises(ValueError, match=message):
      loop.train(changed(rows, **fields), tmp_path)


def test_an_evaluation_without_a_finite_nll_has_a_line():
  found = {"accuracy": 0.5, "pairs": {"nll": None}, "sampled": {"tokens": 3.0}}
  assert "nll nan" in evaluate.line(found)

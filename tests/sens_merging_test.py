"""Sens-Merging: shares of layers by hand, what is measured, and merges of folders."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from lcrl import policies
from lcrl.commands import merge as command
from lcrl.merging import arithmetic, calibration
from lcrl.merging.folders import open_model
from lcrl.merging.sensitivity import group_of, groups, sens_merge, sensitivity_weights

CHAT = Path(__file__).parent / "fixtures" / "chats" / "thinking"
SIZES = {"hidden_size": 16, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_size": 24}


def test_shares_by_hand():
  # alpha: (3, 4) / 5 and (1, 0); tau: the first is 1 away on the other's data, the second 3: 1/4,
  # 3/4. Scores 0.15, 0.2 and 0.75, 0; temperature 0.5 doubles them.
  shares = sensitivity_weights([[3.0, 4.0], [2.0, 0.0]], [[9, 1], [3, 9]], temperature=0.5)
  first = [1 / (1 + np.exp(2 * 0.6)), 1 / (1 + np.exp(-2 * 0.2))]
  np.testing.assert_allclose(shares, [first, np.subtract(1, first)])
  found = sens_merge(np.ones(2), [np.array([3.0, 1.0]), np.array([1.0, 5.0])], [0.25, 0.75])
  np.testing.assert_allclose(found, [1 + 2 * 0.25 * 2, 1 + 2 * 0.75 * 4])


def test_without_a_difference_it_is_task_arithmetic():
  shares = sensitivity_weights(np.zeros((3, 4)), np.zeros((3, 3)))
  np.testing.assert_allclose(shares, 1 / 3)
  base, *models = np.random.default_rng(0).normal(size=(4, 5, 6))
  found = sens_merge(base, models, shares[:, 0], scale=0.7)
  want = arithmetic.task_arithmetic_merge(base, models, scale=0.7)
  np.testing.assert_allclose(found, want)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: sensitivity_weights([[1.0]], [[0.0, 1.0]]), r"got \(1, 1\) and \(1, 2\)"),
    (lambda: sensitivity_weights([[-1.0]], [[0.0]]), "sensitivities must be finite and at least 0"),
    (lambda: sensitivity_weights([[1.0]], [[np.nan]]), "distances must be finite"),
    (
      lambda: sensitivity_weights([[1.0]], [[0.0]], temperature=0),
      "temperature must be .* above 0",
    ),
    (lambda: sens_merge(np.ones(2), [np.ones(2)], [0.5, 0.5]), "shares must be one for each of 1"),
    (lambda: group_of("model.other.weight", 2), "is in none of the groups model.layers.0"),
  ],
)
def test_what_cannot_be_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_a_layer_is_not_taken_for_another():
  assert group_of("model.layers.11.mlp.up_proj.weight", 12) == 11
  assert group_of("lm_head.weight", 12) == len(groups(12)) - 1


def test_sensitivities_are_those_of_finite_differences():
  policy = policies.make(policies.tiny(24, **SIZES))
  params = policy.init(jax.random.key(0))
  params["norm"]["scale"] = jnp.linspace(-1, 2, 16)
  rows = [[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]]

  @jax.jit
  def losses(params):
    log_probs = jax.nn.log_softmax(policy.apply(params, jnp.array(rows)))[:, :-1]
    chosen = jnp.take_along_axis(log_probs, jnp.array(rows)[:, 1:, None], -1)
    return -jnp.mean(chosen[..., 0], 1)

  found = calibration.sensitivities(policy, params, rows)
  norm, total = params["norm"]["scale"], 0.0
  for i, w in enumerate(norm.tolist()):
    up, down = (losses(params | {"norm": {"scale": norm.at[i].add(h)}}) for h in (1e-2, -1e-2))
    total += np.abs(w * (up - down) / 2e-2)
  np.testing.assert_allclose(found[3], total.mean(), rtol=1e-2)
  slopes = jax.jit(jax.jacrev(losses))(params)
  for layer in range(2):
    trees = (jax.tree.map(np.asarray, x["layers"]) for x in (params, slopes))
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    worth = sum(np.abs(w[layer] * g[:, layer]).reshape(2, -1).sum(1) for w, g in leaves)
    np.testing.assert_allclose(found[layer], worth.mean(), rtol=1e-4)
  assert found[4] == 0  # the head is the embedding
  with pytest.raises(ValueError, match="sequence 0 has 1 tokens"):
    calibration.sensitivities(policy, params, [[1]])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """Folders base, a and b, and a file of examples for a and for b."""
  folder = tmp_path_factory.mktemp("models")
  tokenizer = policies.tokenizer(CHAT)
  policy = policies.make(policies.tiny(tokenizer.vocab_size, **SIZES))
  for i, name in enumerate(("base", "a", "b")):
    policies.save(folder / name, policy, policy.init(jax.random.key(i)), tokenizer)
  rows = [
    {"prompt": "hello", "response": "<think>1 and 1</think>2"},
    {"prompt": "a", "response": "b"},
  ]
  for i, name in enumerate("ab"):
    (folder / f"{name}.jsonl").write_text(json.dumps(rows[i]))
  return folder


def read(folder):
  (file,) = folder.glob("model*.safetensors")
  return load_file(file)


def test_models_are_measured_and_merged_layer_by_layer(made, tmp_path):
  models, files = [made / "a", made / "b"], [made / "a.jsonl", made / "b.jsonl"]
  measured = command.measure_sensitivity(models, files)
  distances = measured["distances"]
  assert distances.diagonal().tolist() == [0, 0]
  # Model a is compared with b on b's data, and b with a on a's.
  policy, one = policies.load(models[0])
  other = policies.load(models[1])[1]
  for (k, j), file in (((1, 0), files[0]), ((0, 1), files[1])):
    [example] = calibration.examples(file, policies.tokenizer(CHAT))
    logits = [np.asarray(policy.apply(p, jnp.array([example.tokens]))[0]) for p in (one, other)]
    apart = np.linalg.norm(logits[0] - logits[1], axis=-1).mean()
    assert distances[k, j] == pytest.approx(apart, rel=1e-4)
  out, options = tmp_path / "out", {"temperature": 0.01}
  given = lambda start: command.check_statistics("sens", measured, start)
  command.merge("sens", made / "base", models, out, options, statistics=given)
  shares = sensitivity_weights(measured["sensitivities"], distances, temperature=0.01)
  assert np.abs(shares - 0.5).max() > 0.1
  base, a, b, found = map(read, (made / "base", *models, out))
  assert {group_of(name, 2) for name in found} == {0, 1, 2, 3}
  for name, x in found.items():
    share = shares[:, group_of(name, 2)]
    want = base[name] + 2 * (share[0] * (a[name] - base[name]) + share[1] * (b[name] - base[name]))
    np.testing.assert_allclose(x, want, rtol=1e-4, atol=1e-5)
  kept = load_file(out / "merge_statistics.safetensors")
  assert kept.keys() == measured.keys()
  start = open_model(made / "base")
  wrong = measured | {"sensitivities": measured["sensitivities"][:, 1:]}
  with pytest.raises(ValueError, match=r"have sensitivities \(2, 4\), should be \(2, 5\)"):
    command.check_statistics("sens", wrong, start)
  with pytest.raises(ValueError, match="the statistics are of 2 models, --models of 1"):
    command.merge("sens", made / "base", models[:1], tmp_path / "x", {}, statistics=given)
  with pytest.raises(ValueError, match="a file of --examples for each model, got 1 for 2"):
    command.measure_sensitivity(models, files[:1])
  (tmp_path / "adapter").mkdir()
  (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
  with pytest.raises(ValueError, match=r"merge the adapter .*/adapter into its base first"):
    command.measure_sensitivity([tmp_path / "adapter", models[0]], files)


def test_shares_are_finite_however_cold():
  shares = sensitivity_weights([[1.0], [1.0]], [[0.0, 1.0], [3.0, 0.0]], temperature=1e-4)
  assert shares.tolist() == [[0.0], [1.0]]

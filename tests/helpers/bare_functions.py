"""Every bare function of the slots, with arguments that it takes."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp

from lcrl import advantages, filters, losses, rewards
from lcrl.checks import BOOLEAN
from lcrl.training.rl import cropping

SIZE = {"B": 3, "G": 4, "T": 6, "K": 2, "D": 5, "V": 7}
BOOL = tuple(BOOLEAN)
TOKENS = "log_probs probs logits entropy mask tokens weights log_sum_sq"
PAIRS = "chosen rejected baselines desirable log_ratios margins"
# Of some functions the arguments have other shapes than their names tell; "" is one number.
SHAPES = {
  "bradley_terry_loss": {},
  "component_advantages": dict(components="KBG"),
  "component_average_advantage": dict(components="KBG"),
  "gdpo_advantage": dict(components="KBG"),
  "component_mix": dict(components="KBG", multipliers="K"),
  "covering_length": dict(coverage="BK", thresholds="K", expected="B", fallback=""),
  "cumulative_regret": dict(values="BK"),
  "difficulty_count": dict(mean_rewards="", history="K", seen="K"),
  "dual_price": dict(price="", mean_length=""),
  "general_preference_loss": dict(chosen_embeddings="BK", rejected_embeddings="BK"),
  "generalized_advantage": dict(rewards="BGT", values="BGT"),
  "high_covariance": dict(advantages="BGT"),
  "kto_loss": dict(baseline=""),
  "length_coverage": dict(mask="BG", thresholds="K"),
  "lmpo_margins": dict(mask="B"),
  "mean_right_length": dict(mean="B", count="B"),
  "multi_discount_return": dict(rewards="BGTK"),
  "multiplicative_reward": dict(factors="BGK"),
  "o1_pruner_reward": dict(ref_correct="BG", ref_lengths="BG"),
  "priced_reward": dict(price=""),
  "progress": dict(values="BK"),
  "progress_reward": dict(values="BGK"),
  "regret_area": dict(values="BK", ends="BK"),
  "rule_fraction_reward": dict(satisfied="BGK"),
  "sampled_weights": dict(keys="BG"),
  "score_regression_loss": dict(mask="BG"),
  "score_tokens": dict(hidden="BTD", head="DV", targets="BT", mask="BT"),
  "shortest_right_length": dict(history="B"),
  "update_multipliers": dict(returns="K", targets="K"),
  "updated_moments": dict(values="B", mask="B"),
  "dynamic_beta": dict(keep="B"),
  "typical_pairs": dict(mask="B"),
  "accuracy_price": dict(price="", accuracy=""),
  "aalc_reward": dict(progress=""),
  "adapt_think_reward": dict(reference="B"),
  "easy_share_groups": dict(share=""),
  "opening_log_probs": dict(shares="BG"),
  "place_normalized_advantage": dict(rewards="BGT"),
  "toggle_reward": dict(budgets="B"),
  "short_rl_reward": dict(best_accuracy=""),
  "leash_reward": dict(price=""),
  "budget_advantages": dict(scores="BGK"),
  "aot_loss": dict(values="B"),
  "kto_baseline": dict(kl_log_ratios="B", mask="B"),
  "win_rate_reward": dict(preferences="BGG"),
  "wpo_weights": {f"{s}_{n}": "BT" for s in ("chosen", "rejected") for n in TOKENS.split()},
}
KNOBS = dict(
  alpha=0.1, beta=0.1, buffer=2, scale=1.0, max_length=9, length=9, total=9.0, share=0.5, ngram=2,
  floor=0.5, reference=0.5, quantile=0.5, threshold=0.5,
  limits=(4, 2), thresholds=(0.5,), penalty_by_level=(0.1, 0.2), gammas=(1.0, 0.9), low=0.1,
  high=0.9, warmup=2, period=4, target=3, places=5, weights=(0.5, 1.0, 1.5),
)  # fmt: skip
OTHERS = dict(
  moments=losses.preference.Moments(jnp.zeros(()), jnp.ones(())),
  key=jax.random.key(0),
  state=rewards.Multipliers(jnp.zeros(2), jnp.zeros(2)),
)
# What takes any array, element by element; what takes Python numbers, records or a mesh.
ELEMENTWISE = (
  "discopop_link exo_link hinge_link logistic_link robust_link alpha_divergence_reward "
  "forward_kl_reward implicit_reward js_reward power_reward cosine_restarts_weight "
  "difficulty_weight"
)
NOT_HERE = "score_tokens_sharded length_thresholds expected_right cropped"
# Arguments that may be one number, or of another shape than the others.
FREE = dict(lowest=("count",), conciseness_reward=("anneal",), kto_loss=("baseline",)) | {
  "priced_reward": ("price",),
  "dual_price": ("price", "mean_length"),
  "accuracy_price": ("price", "accuracy"),
  "aalc_reward": ("progress",),
  "easy_share_groups": ("share",),
  "short_rl_reward": ("best_accuracy",),
  "leash_reward": ("price",),
  "covering_length": ("thresholds", "fallback"),
  "length_coverage": ("thresholds",),
  "difficulty_count": ("mean_rewards",),
  "log_ratio": (),
}


def functions():
  modules = (losses, losses.policy, losses.preference, rewards, advantages, filters, cropping)
  for module in modules:
    for name in module.__all__:
      f = getattr(module, name)
      if not inspect.isfunction(f) or name in f"{ELEMENTWISE} {NOT_HERE}".split():
        continue
      arrays = [
        p for p in inspect.signature(f).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
      ]
      if arrays:
        yield name, f


FUNCTIONS = dict(functions())


def named(name, ends):
  return any(name == end or name.endswith("_" + end) for end in ends)


def dims(function, name):
  if function in SHAPES and name in SHAPES[function]:
    return SHAPES[function][name]
  if named(name, TOKENS.split()) and name not in ("scores",):
    return "BGT"
  if name.split("_")[0] in ("chosen", "rejected") or named(name, PAIRS.split()):
    return "B"
  return "" if name in ("anneal", "count") else "BG"


def array(function, name):
  shape = tuple(SIZE[d] for d in dims(function, name))
  if name == "keys":
    return jax.random.split(jax.random.key(0), shape)
  x = jnp.arange(jnp.zeros(shape).size).reshape(shape) % 3
  if named(name, BOOL):
    return x > 0
  if named(name, ("tokens", "tags", "levels", "lengths", "targets", "think_end", "count", "step")):
    return x % 2 + 1
  return 0.25 * x + 0.25


def arguments(name):
  f, found = FUNCTIONS[name], {}
  for p in inspect.signature(f).parameters.values():
    if p.name in OTHERS:
      found[p.name] = OTHERS[p.name]
    elif p.kind is p.POSITIONAL_OR_KEYWORD:
      found[p.name] = array(name, p.name)
    elif p.default is p.empty and p.kind is p.KEYWORD_ONLY:
      found[p.name] = KNOBS[p.name]
  return found


def arrays_of(name):
  return [n for n, x in arguments(name).items() if isinstance(x, jax.Array) and n not in OTHERS]

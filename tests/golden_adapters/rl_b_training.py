"""Filters, losses and data of the second list of methods."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np

from lcrl import advantages, filters, losses
from lcrl.data import bucketing, selection
from lcrl.groups import Groups
from lcrl.training.rl import cropping, oversampling
from tests.golden_adapters.groups import compiled


def dynamic_sampling_filter(inputs, params):
  groups = Groups(inputs["group_id"])
  correct = groups(inputs["correct"])
  keep = filters.nonconstant_groups(correct, groups.valid, keep_lone=False)
  return {"keep": groups.rows(keep)}


WEIGHTS = {"token-mean": losses.token_mean, "seq-mean-token-mean": losses.sequence_mean}


def _loss(token_loss, inputs, weigh):
  names = ("logp", "old_logp", "advantages", "mask")
  log_probs, old, adv, mask = (jnp.array(inputs[name], float) for name in names)
  weights = weigh(mask > 0, jnp.ones(mask.shape[0], bool))
  return {"loss": jnp.sum(weights * token_loss(log_probs, old, adv, mask > 0))}


def clip_higher_loss(inputs, params):
  knobs = {name: params[name] for name in ("clip_low", "clip_high")}
  loss = partial(losses.clipped_surrogate_loss, **knobs)
  return _loss(loss, inputs, WEIGHTS[params["agg"]])


def kl_cov_loss(inputs, params):
  loss = partial(losses.kl_cov_loss, share=params["kl_cov_ratio"], beta=params["kl_coef"])
  return _loss(loss, inputs, WEIGHTS[params["agg"]])


def _padded(rows, width):
  return jnp.array([list(row) + [0.0] * (width - len(row)) for row in rows], float)


def _branches(rows):
  """Ragged branches [N][T] -> [N, T] and its mask."""
  width = max(map(len, rows))
  return _padded(rows, width), _padded([[1.0] * len(row) for row in rows], width) > 0


def _clipped(log_probs, old, weights, mask, clip, ratio):
  """Mean over rows of the clipped surrogate of a row's ratio."""
  loss = partial(losses.clipped_surrogate_loss, clip_low=clip, clip_high=clip, ratio=ratio)
  share = losses.sequence_mean(mask, jnp.ones(mask.shape[0], bool))
  return {"loss": jnp.sum(share * loss(log_probs, old, weights, mask))}


def o1_pruner_loss(inputs, params):
  # Only sums over tokens are given: spread them evenly.
  counts = inputs["num_tokens"]
  even = lambda sums: _branches([[s / n] * n for s, n in zip(sums, counts, strict=True)])
  log_probs, mask = even(inputs["sum_logp"])
  old, weights = even(inputs["sum_ref_logp"])[0], jnp.array(inputs["weight"])
  return _clipped(log_probs, old, weights, mask, params["clip"], losses.sequence_ratio)


def gto_surrogate(inputs, params):
  log_probs, mask = _branches(inputs["logp"])
  old, adv = _branches(inputs["ref_logp"])[0], jnp.array(inputs["advantage"])
  ratio = losses.sequence_ratio if params["length_normalised_ratio"] else losses.branch_ratio
  return _clipped(log_probs, old, adv, mask, params["clip"], ratio)


def gto_tree_advantage(inputs, params):
  def expected(trees):
    rows = [_branches(tree) for tree in trees]
    lengths = [losses.expected_accepted_length(*branches) for branches in rows]
    size = max(map(len, lengths))
    pad = lambda x: jnp.pad(x, (0, size - len(x)))
    present = [pad(jnp.ones(len(x), bool)) for x in lengths]
    return jnp.stack([pad(x) for x in lengths]), jnp.stack(present)

  current, ref = expected(inputs["tree_probs"]), expected(inputs["ref_tree_probs"])
  reward = losses.tree_reward(*current, eta=params["eta"])
  ref_reward = losses.tree_reward(*ref, eta=params["eta"])
  knobs = {"ddof": params["ddof"], "eps": params["eps"]}
  return {
    "reward": reward,
    "ref_reward": ref_reward,
    "debiased": reward - ref_reward,
    "advantage": losses.tree_advantage(reward, ref_reward, **knobs),
    "longest_expected_branch": jnp.argmax(current[0], -1),
  }


def mode_switch_loss(inputs, params):
  logits = {mode: jnp.array(inputs[f"logit_{mode}"]) for mode in ("long", "short")}
  preferred = logits.pop(inputs["preferred"])
  (other,) = logits.values()
  return {
    "hinge": losses.mode_switch_hinge_loss(preferred, other, margin=params["margin"]),
    "logistic": losses.mode_switch_logistic_loss(preferred, other),
  }


def gfpo(inputs, params):
  r, lengths = jnp.array([inputs["rewards"]], float), jnp.array([inputs["lengths"]])
  rank = {"length": filters.shortest, "token_efficiency": filters.most_efficient}
  valid = jnp.ones(r.shape, bool)
  rollouts = type("Rollouts", (), {"lengths": lengths, "valid": valid})
  keep, _ = rank[params["metric"]](count=params["k"]).apply((), r, rollouts)
  knobs = {"ddof": params["ddof"], "eps": params["eps"], "lone_raw": False}
  adv = advantages.group_normalized_advantage(r, keep, **knobs)
  return {"mask": keep[0], "advantage": adv[0]}


QUARTILES = ("very_hard", "hard", "medium", "easy")


def gfpo_adaptive_k(inputs, params):
  history, counts = jnp.array(inputs["history"], float), [params["k"][q] for q in QUARTILES]
  seen, mean = jnp.ones(history.shape, bool), jnp.array(inputs["mean_reward"])
  knobs = {"counts": tuple(counts), "warmup": params["warmup"]}
  return {"k": filters.difficulty_count(mean, history, seen, **knobs)}


def dot_truncation(inputs, params):
  groups = Groups(inputs["group_id"])
  r, lengths = groups(inputs["rewards"]), groups(inputs["lengths"])
  knobs = {"alpha": params["alpha"], "success": params["success_threshold"]}
  kept = cropping.outlier_kept_length(
    r, lengths, groups.valid, margin=params["min_margin"], **knobs
  )
  # The verifier's stand-in: a prefix is right if the rollout was and its answer is inside.
  inside = groups.rows(kept) > jnp.array(inputs["answer_end"])
  return {
    "kept_length": groups.rows(kept),
    "reward_after": jnp.where(inside, jnp.array(inputs["rewards"]), 0.0),
  }


def dot_predictive_sampling(inputs, params):
  knobs = {"low": params["min"], "high": params["max"]}
  knobs |= {"window": params["window"], "initial": params["initial"]}
  factor = oversampling.oversampling_factor(inputs["sampled_passed_history"], **knobs)
  prompts = oversampling.prompts_to_sample(params["train_batch_size"], factor)
  return {"factor": factor, "num_prompts": prompts}


def tops_selection(inputs, params):
  chosen = selection.tops_selection(inputs["correct"], inputs["lengths"])
  return {"sft_index": chosen.imitate, "dpo_pairs_chosen_rejected": chosen.pairs}


def long2short_pairs(inputs, params):
  pairs = selection.long2short_pairs(inputs["correct"], inputs["lengths"], **params)
  return {"pairs_chosen_rejected": pairs}


def dataset_decomposition(inputs, params):
  limits = {"min_log2": params["min_log2"], "max_log2": params["max_log2"]}
  rng = np.random.default_rng(0) if params["randomize"] else None
  pieces = bucketing.decomposed(inputs["doc_len"], rng=rng, **limits)
  return {"pieces": {str(k): cuts for k, cuts in pieces.items()}}


def dataset_decomposition_params(inputs, params):
  names = ("num_shards", "seq_per_shard", "seq_len", "batch_mult", "curriculum_odds")
  buckets = [bucketing.Bucket(*row) for row in zip(*(inputs[n] for n in names), strict=True)]
  knobs = {name: params[name] for name in ("total_tokens", "epochs", "global_batch", "workers")}
  plan = bucketing.bucket_plan(buckets, devices=params["gpus"], **knobs)
  return {
    "tokens_per_epoch": plan.tokens_per_epoch,
    "seq_per_bucket_per_epoch": plan.seq_per_epoch,
    "mix_weights": plan.mix_weights,
  }


HOST = [
  dot_predictive_sampling,
  tops_selection,
  long2short_pairs,
  dataset_decomposition,
  dataset_decomposition_params,
]
DEVICE = [
  dynamic_sampling_filter,
  clip_higher_loss,
  kl_cov_loss,
  o1_pruner_loss,
  gto_surrogate,
  gto_tree_advantage,
  mode_switch_loss,
  gfpo,
  gfpo_adaptive_k,
  dot_truncation,
]
ADAPTERS = {f"rl_b/{f.__name__}": f for f in HOST}
ADAPTERS |= {f"rl_b/{f.__name__}": compiled(f) for f in DEVICE}

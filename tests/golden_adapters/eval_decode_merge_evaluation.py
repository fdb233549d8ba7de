"""Adapters for the evaluation part of tests/golden/eval_decode_merge.json."""

import numpy as np

from lcrl.evaluation import laws, length_controlled, measures, pareto, verbosity


def pass_at_k(inputs, params):
  return {"pass_at_k": measures.pass_at_k(inputs["n"], inputs["c"], k=params["k"])}


def accuracy_length_pareto(inputs, params):
  points = inputs["accuracy"], inputs["length"]
  ref = {"ref_accuracy": params["ref_accuracy"], "ref_length": params["ref_length"]}
  return {
    "on_front": pareto.on_front(*points),
    "hypervolume": pareto.hypervolume(*points, **ref),
    "hypervolume_normalised": pareto.hypervolume(*points, **ref, normalised=True),
  }


def aes(inputs, params):
  return {"aes": pareto.accuracy_efficiency_score(**inputs, **params)}


def cap_saturation(inputs, params):
  lengths = inputs["length"]
  return {
    "csr": {str(k): measures.cap_saturation(lengths, k) for k in params["thresholds"]},
    "ecdf": measures.ecdf(lengths, params["ecdf_at"]),
    "within_prompt_var_sample": measures.within_prompt_var(lengths),
    "within_prompt_var_pop": measures.within_prompt_var(lengths, ddof=0),
    "mean": np.mean(lengths),
    "median": measures.length_summary(lengths, cap=params["cap"])["p50"],
  }


def length_summary(inputs, params):
  found = measures.length_summary(inputs["length"], cap=params["max_new_tokens"])
  return {**found, "std_pop": found["std"]}


def yap_index(inputs, params):
  scores = verbosity.yap_score(inputs["len_chars"], inputs["baseline_chars"])
  index, medians = verbosity.yap_index(scores, inputs["category"])
  return {"yap_score": scores, "category_median": medians, "yap_index": index}


def alpaca_eval_lc_glm(inputs, params):
  raw = length_controlled.win_rate(inputs["preference"])
  minimal = params["glm"] == "length_controlled_minimal"
  gamed = inputs["gamed"] and length_controlled.Gamed(
    np.array(inputs["gamed"]["std_delta_len"]), np.array(inputs["gamed"]["preference"])
  )
  found = length_controlled.length_controlled_win_rate(
    inputs["preference"],
    inputs["len_output"],
    inputs["len_baseline"],
    None if minimal else inputs["instruction_difficulty"],
    gamed,
    strength=None if isinstance(params["C"], str) else params["C"],
  )
  names = ["np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)"]
  if minimal:
    names.remove("instruction_difficulty")
  weights = dict(zip(names, found.weights, strict=True))
  return {
    "win_rate": raw.rate,
    "standard_error": raw.standard_error,
    "n_wins": raw.wins,
    "n_wins_base": raw.losses,
    "n_draws": raw.draws,
    "discrete_win_rate": raw.discrete_rate,
    "chosen_C": found.strength,
    **dict.fromkeys(("weights", "weights_exact"), weights),
    **dict.fromkeys(("length_controlled_winrate", "length_controlled_winrate_exact"), found.rate),
    **dict.fromkeys(("lc_standard_error", "lc_standard_error_exact"), found.standard_error),
  }


def alpaca_eval_lc_other_baseline(inputs, params):
  fits = inputs["weights_model"], inputs["weights_baseline"]
  rate = length_controlled.win_rate_against(*fits, inputs["instruction_difficulty"])
  return {"winrate_fraction": rate / 100}


def alpaca_eval_extreme_change(inputs, params):
  limits = {"points": params["abs_diff"], "share": params["rel_diff"]}
  return {"warn": length_controlled.extreme_change(inputs["raw"], inputs["lc"], **limits)}


def wb_reward(inputs, params):
  lengths = inputs["len_model"], inputs["len_ref"]
  rewards = verbosity.wildbench_reward(inputs["outcome"], *lengths, margin=params["K"])
  counted = ~np.asarray(inputs["skipped"])
  tags = [t for t, c in zip(inputs["tags"], counted, strict=True) if c]
  macro, by_task = verbosity.wildbench_task_macro(rewards[counted], tags)
  names = {1: "win_much", 0.5: "win", 0: "tie", -0.5: "lose", -1: "lose_much"}
  return {
    "counts": {name: (rewards[counted] == r).sum() for r, name in names.items()},
    "reward": np.where(counted, rewards, 0).mean(),
    "tag_reward": by_task,
    "task_macro_reward": macro,
  }


def wb_score(inputs, params):
  score = verbosity.wildbench_score(inputs["score"])
  return {"raw": np.mean(inputs["score"]), "adjusted": score, "leaderboard_x10": 10 * score}


def tlg_match(inputs, params):
  pairs = list(zip(inputs["target"], inputs["words"], strict=True))
  found = verbosity.ruler_scores(inputs["target"], inputs["words"])
  return {
    "pm": [verbosity.meets_length(t, w) for t, w in pairs],
    "fm": [verbosity.meets_length(t, w, flexible=True) for t, w in pairs],
    "pm_all": found["all"]["pm"],
    "fm_all": found["all"]["fm"],
    "by_level": {str(level): scores for level, scores in found["by_level"].items()},
  }


def tlg_word_count(inputs, params):
  text = inputs["text"]
  return {
    "words": verbosity.word_count(text),
    "whitespace_words": verbosity.whitespace_words(text),
  }


def mlt_assign(inputs, params):
  return {"mlt": [verbosity.length_label(words) for words in inputs["words"]]}


def longbench_write_sl(inputs, params):
  return {"score": verbosity.length_score(inputs["required"], inputs["response"])}


def length_instruction(inputs, params):
  return {"words": verbosity.whitespace_words(inputs["reference"])}


def pass_until(inputs, params):
  likeliest, unbiased = laws.pass_until(inputs["K"], passes=params["r"])
  return {"mle": likeliest, "unbiased": unbiased}


def pass_until_law(inputs, params):
  law = laws.pass_law(inputs["N"], inputs["PU"])
  return {
    "F": law.values,
    "slope": law.slope,
    "intercept": law.intercept,
    "c": law.c,
    "alpha": law.alpha,
  }


def inverted_u(inputs, params):
  task = {"operators": params["T"], "capability": params["M"], "noise_scale": params["C"]}
  best = laws.best_steps(**task)
  return {
    "accuracy": laws.steps_accuracy(inputs["N"], **task, alpha=params["alpha"]),
    "N_opt": best,
    "accuracy_at_opt": laws.steps_accuracy(best, **task, alpha=params["alpha"]),
  }


def quadratic_peak(inputs, params):
  coefficients, peak = laws.quadratic_peak(inputs["length"], inputs["accuracy"])
  return {"coef_high_to_low": coefficients, "peak": peak, "concave": coefficients[0] < 0}


def normalised_regret(inputs, params):
  curve = inputs["tokens"], inputs["pass_at_1"]
  return {"regret": laws.token_regret(*curve, budget=params["cutoff"])}


def cumulative_regret(inputs, params):
  return {
    "regret": laws.episode_regret(inputs["J_optimal"], inputs["J_prover"]),
    "progress": laws.episode_progress(inputs["J_prover"]),
  }


ADAPTERS = {
  f"eval_decode_merge/{f.__name__}": f
  for f in (
    alpaca_eval_lc_glm,
    alpaca_eval_lc_other_baseline,
    alpaca_eval_extreme_change,
    pass_at_k,
    accuracy_length_pareto,
    aes,
    cap_saturation,
    length_summary,
    yap_index,
    wb_reward,
    wb_score,
    tlg_match,
    tlg_word_count,
    mlt_assign,
    longbench_write_sl,
    length_instruction,
    pass_until,
    pass_until_law,
    inverted_u,
    quadratic_peak,
    normalised_regret,
    cumulative_regret,
  )
}

"""Adapters for the evaluation part of tests/golden/eval_decode_merge.json."""

import numpy as np

from lcrl.evaluation import laws, measures, pareto, verbosity


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

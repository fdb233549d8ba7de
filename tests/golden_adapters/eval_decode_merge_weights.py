"""Adapters for the weight-space, data and optimizer part of tests/golden/eval_decode_merge.json."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lcrl.data.bucketing import decomposed
from lcrl.data.selection import tops_selection
from lcrl.merging import activations, arithmetic, low_rank, selective, signs, thinkedit
from lcrl.policies import lora
from lcrl.policies.modules import Dense
from lcrl.tasks import chains
from lcrl.training import optimizers


def _arrays(models):
  return [np.array(x, float) for x in models]


def cot_valve(inputs, params):
  change = lora.change(jnp.array(inputs["lora_a"]), jnp.array(inputs["lora_b"]))
  theta = np.array(inputs["theta"])
  return {"theta_alpha": arithmetic.strength_merge(theta, change, strength=params["alpha"])}


def thinkedit_direction(inputs, params):
  long, short = (_arrays(inputs[f"{name}_residuals"]) for name in ("long", "short"))
  direction = thinkedit.thinking_direction(long, short)
  scores = thinkedit.head_scores(np.array(inputs["head_contrib"]), direction)
  heads = thinkedit.top_heads(scores[None], count=params["top_k"])
  return {"direction": direction, "head_score": scores, "heads": [head for _, head in heads]}


def thinkedit_projection(inputs, params):
  edited = thinkedit.without_direction(
    np.array(inputs["o_proj"]),
    np.array(inputs["direction"]),
    heads=params["heads"],
    head_dim=params["head_dim"],
    strength=params["intervention_weight"],
  )
  return {"o_proj_edited": edited}


def merge_linear(inputs, params):
  how = {"weights": params["weight"], "normalize": params["normalize"]}
  return {"merged": arithmetic.linear_merge(_arrays(inputs["models"]), **how)}


def _how(params):
  names = {"weight": "weights", "lam": "scale"}
  return {names.get(name, name): value for name, value in params.items()}


def merge_task_arithmetic(inputs, params):
  models = np.array(inputs["base"]), _arrays(inputs["models"])
  return {"merged": arithmetic.task_arithmetic_merge(*models, **_how(params))}


def merge_ties(inputs, params):
  models = np.array(inputs["base"]), _arrays(inputs["models"])
  return {"merged": signs.ties_merge(*models, **_how(params))}


def merge_dare(inputs, params):
  models = np.array(inputs["base"]), _arrays(inputs["models"]), _arrays(inputs["keep_mask"])
  how = {"weights": params["weight"], "drop": params["drop_rate"]}
  return {"merged_linear": signs.dare_merge(*models, **how)}


def merge_slerp(inputs, params):
  ends = np.array(inputs["v0"], float), np.array(inputs["v1"], float)
  return {"merged": arithmetic.slerp_merge(*ends, strength=params["t"])}


def merge_sce(inputs, params):
  changes = np.array(inputs["task_vectors"], float)
  return {"merged_task_vector": signs.sce_change(changes, topk=params["select_topk"])}


def merge_ties_l2s(inputs, params):
  models = np.array(inputs["base"]), _arrays(inputs["models"])
  how = {"rate": params["mask_rate"], "scale": params["scaling"]}
  return {"merged": signs.trimmed_ties_merge(*models, **how)}


def merge_task_arithmetic_l2s(inputs, params):
  models = np.array(inputs["base"]), _arrays(inputs["models"])
  return {"merged": arithmetic.task_arithmetic_merge(*models, scale=params["scaling"])}


def merge_lore(inputs, params):
  models = _arrays(inputs["models"])
  how = {"mu": params["mu"], "iterations": params["iterations"]}
  found = low_rank.lore(models, **how)
  return {
    "theta0": found.base,
    "deltas": found.changes,
    "merged_mean_delta": low_rank.lore_merge(models, **how, scale=params["lam"]),
  }


def low_rank_truncation(inputs, params):
  matrix, share = low_rank.truncated(np.array(inputs["task_vector"], float), rank=params["rank"])
  return {"truncated": matrix, "kept_energy": share}


def merge_aim(inputs, params):
  arrays = _arrays(inputs[name] for name in ("base", "merged", "activation_abs_mean"))
  return {"result": activations.activation_informed_merge(*arrays, omega=params["omega"])}


def merge_update_selective(inputs, params):
  how = {"fraction": params["keep_fraction"], "scale": params["scale"]}
  ends = np.array(inputs["base"], float), np.array(inputs["trained"], float)
  return {"merged": selective.selective_merge(*ends, **how, rounding=lambda x: max(1, int(x)))}


def lora_forward(inputs, params):
  """An adapter beside its kernel, as layers run it; matrices are transposed here."""
  kernel, a, b = (jnp.array(inputs[name], float).T for name in "WAB")
  how = {"alpha": params["alpha"], "rank_stabilized": params["rslora"]}
  layer = {"layers": {"query": {"kernel": kernel}}}
  both = lora.with_adapters(layer, {"query": {"a": a, "b": b}}, **how)
  dense = Dense(kernel.shape[1], ("embed", "heads"))
  x = jnp.array(inputs["x"], float)
  return {"y": dense.apply({"params": both["layers"]["query"]}, x)}


def allora_scale(inputs, params):
  b, gradient = (jnp.array(inputs[name], float).T for name in ("B", "grad"))
  one = lambda b: {"query": {"a": jnp.zeros((1, len(b))), "b": b}}
  scaled = lora.allora_gradients(one(b), one(gradient), eta=params["eta"])
  return {
    "row_scale": lora.allora_scale(b, eta=params["eta"]),
    "scaled_grad": scaled["query"]["b"].T,
  }


def lamb(inputs, params):
  optimizer = optimizers.lamb(clip_norm=np.inf, **params)
  tree = lambda x: {name: jnp.array(value, float) for name, value in x.items()}
  now = tree(inputs["params"])
  state, after = optimizer.init(now), []
  for step, grads in enumerate(inputs["grads"]):
    step = jnp.asarray(step)  # int64 with x64, and so a rate in float64
    updates, state = jax.jit(optimizer.update)(tree(grads), state, now, step=step)
    now = optax.apply_updates(now, updates)
    after.append(now)
  return {"params_after_each_step": after}


def cot_arithmetic_steps(inputs, params):
  how = {"modulus": params["modulus"]}
  steps = chains.working(inputs["question"], per_step=params["ops_per_step"], **how)
  names = ("sub_expression", "value", "expression_before", "expression_after")
  return {
    "answer": chains.value(inputs["question"], **how),
    "n_steps": len(steps),
    "steps": [dict(zip(names, step, strict=True)) for step in steps],
  }


def dataset_decomposition(inputs, params):
  pieces = decomposed(inputs["n_tokens"], **params)
  return {"chunks": {str(k): [list(piece) for piece in its] for k, its in pieces.items()}}


def shortest_correct(inputs, params):
  return {"index": tops_selection(inputs["correct"], inputs["length"]).imitate}


_here = (
  cot_valve,
  thinkedit_projection,
  thinkedit_direction,
  merge_linear,
  merge_task_arithmetic,
  merge_ties,
  merge_dare,
  merge_slerp,
  merge_sce,
  merge_ties_l2s,
  merge_task_arithmetic_l2s,
  merge_lore,
  low_rank_truncation,
  merge_aim,
  merge_update_selective,
  lora_forward,
  allora_scale,
  lamb,
  cot_arithmetic_steps,
  dataset_decomposition,
  shortest_correct,
)
ADAPTERS = {f"eval_decode_merge/{adapter.__name__}": adapter for adapter in _here}

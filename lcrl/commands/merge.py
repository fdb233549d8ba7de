"""Merges or edits models in Hugging Face folders, tensor by tensor.

  lcrl-merge --method=ties --base=BASE --models=A,B --density=0.5 --out=OUT
  lcrl-merge --method=strength --base=LONG --models=SHORT --strength=1.5 --out=OUT
  lcrl-merge --method=thinkedit --base=A --examples=rows.jsonl --heads=20 --out=OUT
  lcrl-merge --method=sens --base=BASE --models=A,B --examples=C,D --out=OUT

A model is a folder, or an adapter of the base in PEFT's layout. --base supplies config, tokenizer
and dtypes; differences between it and the models are refused by name. Memory: one tensor of each
model, and for --examples also the base model, or with sens two of the models and a gradient.
Methods and their options:

"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lcrl import policies
from lcrl.commands import command
from lcrl.evaluation.progress import Progress, to_stderr
from lcrl.merging import (
  activations,
  arithmetic,
  calibration,
  low_rank,
  selective,
  sensitivity,
  signs,
  thinkedit,
)
from lcrl.merging.arrays import per_model
from lcrl.merging.folders import (
  Model,
  Tensor,
  check_absent,
  check_alike,
  merge_folders,
  open_model,
)
from lcrl.policies.config import OPTIONS as RUNTIME
from lcrl.policies.config import Config

FLAGS = flags.FLAGS
Statistics = Mapping[str, np.ndarray]
STATISTICS = "merge_statistics.safetensors"


def _dare(name, base, models, *, weights=None, drop=0.3, scale=1.0, seed=0):
  keep = kept_entries(name, base.shape, len(models), drop, seed)
  return signs.dare_merge(base, models, keep, weights=weights, drop=drop, scale=scale)


def _dare_ties(name, base, models, *, weights=None, drop=0.3, scale=1.0, seed=0):
  keep = kept_entries(name, base.shape, len(models), drop, seed)
  return signs.dare_merge(base, models, keep, weights=weights, drop=drop, scale=scale, signs=True)


def kept_entries(
  name: str, shape: tuple[int, ...], count: int, drop: Sequence[float] | float, seed: int
) -> list[np.ndarray]:
  """Masks of the entries of a tensor that DARE keeps, one for each model, by seed and name."""
  digest = np.frombuffer(hashlib.sha256(name.encode()).digest(), np.uint32).tolist()
  draw = lambda i: np.random.default_rng([seed, i, *digest]).random(shape, np.float32)
  return [draw(i) >= chance for i, chance in enumerate(per_model(drop, count, "drop"))]


def _slerp(base, model, *, strength):
  return arithmetic.slerp_merge(base, model, strength=strength)


def _strength(base, model, *, strength):
  return arithmetic.strength_merge(base, model - base, strength=strength)


def _selective(base, model, *, fraction=0.25, scale=0.7):
  options = {"fraction": fraction, "scale": scale}
  return selective.selective_merge(base, model, **options, rounding=lambda x: max(1, int(x)))


def _aim(name, base, model, statistics, *, omega=0.4):
  if name not in statistics:
    return model
  return activations.activation_informed_merge(base, model, statistics[name], omega=omega)


def _sens(name, base, models, statistics, *, temperature=1.0, scale=1.0):
  measured = statistics["sensitivities"], statistics["distances"]
  if len(measured[0]) != len(models):
    raise ValueError(f"the statistics are of {len(measured[0])} models, --models of {len(models)}.")
  shares = sensitivity.sensitivity_weights(*measured, temperature=temperature)
  own = sensitivity.group_of(name, measured[0].shape[1] - len(sensitivity.OTHERS))
  return sensitivity.sens_merge(base, models, shares[:, own], scale=scale)


def _thinkedit(name, base, statistics, config, *, heads, strength=1.0):
  chosen = thinkedit.top_heads(statistics["scores"], count=heads)
  for layer, direction in enumerate(statistics["directions"]):
    heads_here = [head for head_layer, head in chosen if head_layer == layer]
    if heads_here and name == calibration.O_PROJ.format(layer):
      options = {"heads": heads_here, "head_dim": config.head_dim, "strength": strength}
      return thinkedit.without_direction(base, direction, **options)
  return base


METHODS: dict[str, tuple[Callable[..., np.ndarray], str]] = {
  "linear": (arithmetic.linear_merge, "weighted mean of the models"),
  "task_arithmetic": (arithmetic.task_arithmetic_merge, "weighted sum of the changes"),
  "ties": (signs.ties_merge, "largest changes that agree in sign"),
  "trimmed_ties": (signs.trimmed_ties_merge, "TIES of long-to-short merging"),
  "dare": (_dare, "changes with entries dropped at random"),
  "dare_ties": (_dare_ties, "the same, where they agree in sign"),
  "slerp": (_slerp, "arc from the base to the model"),
  "sce": (signs.sce_merge, "changes that vary most, weighted by their squares"),
  "low_rank": (low_rank.low_rank_merge, "changes of low rank"),
  "lore": (low_rank.lore_merge, "shared base and changes of low rank, of the models"),
  "selective": (_selective, "DLER: the largest changes of one model"),
  "strength": (_strength, "CoT-Valve: along the change of one model, or past it"),
  "aim": (_aim, "less change of a merged model where the base is active"),
  "sens": (_sens, "changes of each layer by how much the models' losses depend on it"),
  "thinkedit": (_thinkedit, "the base without the direction of short thinking"),
}


def options_of(method: str) -> dict[str, Any]:
  """The options of a method with their defaults; `inspect.Parameter.empty` if it has none."""
  parameters = inspect.signature(METHODS[method][0]).parameters.values()
  return {o.name: o.default for o in parameters if o.kind is o.KEYWORD_ONLY}


def inputs_of(method: str) -> list[str]:
  """The inputs of a method for each tensor: its positional arguments."""
  parameters = inspect.signature(METHODS[method][0]).parameters.values()
  return [o.name for o in parameters if o.kind is not o.KEYWORD_ONLY]


__doc__ += "\n".join(
  f"  {name:17}{text}: {', '.join(f'--{option}' for option in options_of(name))}"
  for name, (_, text) in METHODS.items()
)


def chosen_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
  """The given options of the method (None: not given), checked.

  Raises:
    ValueError: by flag, for an option that the method does not take, or one that it lacks.
  """
  known = options_of(method)
  chosen = {name: value for name, value in given.items() if value is not None}
  if unknown := sorted(chosen.keys() - known.keys()):
    takes = ", ".join(f"--{name}" for name in known)
    raise ValueError(f"--method={method} takes no --{unknown[0]}, but {takes}.")
  for name, default in known.items():
    if default is inspect.Parameter.empty and name not in chosen:
      raise ValueError(f"--method={method} needs --{name}.")
  return chosen


def merge(
  method: str,
  base: Path,
  models: Sequence[Path],
  out: Path,
  options: Mapping[str, Any],
  *,
  allow: Sequence[str] = (),
  statistics: Callable[[Model], Statistics] | None = None,
) -> None:
  """Writes the merged model into the folder `out`.

  Args:
    method: a name in METHODS.
    base, models: folders.
    out: a new folder.
    options: of the method; None means not given.
    allow: permitted differences between base and models, see `check_alike`.
    statistics: measures the base for AIM and ThinkEdit, the models for Sens-Merging.
  """
  function, inputs = METHODS[method][0], inputs_of(method)
  chosen = chosen_options(method, options)
  _check_inputs(method, inputs, len(models), statistics is not None)
  check_absent(out)
  start = open_model(base)
  others = [open_model(folder, start) for folder in models]
  for other in others:  # before the measurement
    check_alike(start, other, allow)
  measured = {} if statistics is None else statistics(start)
  shared = {"statistics": measured, "config": start.config}

  def of_one(tensor: Tensor) -> np.ndarray:
    values = [shared[name] if name in shared else getattr(tensor, name) for name in inputs]
    return function(*values, **chosen)

  def keep_statistics(folder: Path) -> None:
    if measured:
      save_file(dict(measured), folder / STATISTICS)

  merge_folders(
    out,
    start,
    others,
    of_one,
    allow=allow,
    record={
      "method": method,
      "base": str(base),
      "models": [str(folder) for folder in models],
      "options": {**{k: v for k, v in options_of(method).items() if k not in chosen}, **chosen},
    },
    extra=keep_statistics,
    progress=Progress(f"Merging by {method}", len(start.tensors.shapes), "tensors"),
  )


def _check_inputs(method: str, inputs: Sequence[str], models: int, measured: bool) -> None:
  wanted, fits = "no models", models == 0
  if "models" in inputs:
    wanted, fits = "one or more models", models >= 1
  elif "model" in inputs:
    wanted, fits = "one model", models == 1
  if not fits:
    raise ValueError(f"--method={method} takes {wanted} in --models, got {models}.")
  if "statistics" in inputs and not measured:
    raise ValueError(f"--method={method} needs --examples or --statistics.")
  if measured and "statistics" not in inputs:
    raise ValueError(f"--method={method} takes neither --examples nor --statistics.")


def measure(
  method: str, base: Path, rows: Path, *, end_of_thinking: str, above: int, below: int
) -> Statistics:
  """Statistics for AIM or ThinkEdit: the base model's activations on the examples in `rows`."""
  examples = calibration.examples(rows, policies.tokenizer(base), end_of_thinking=end_of_thinking)
  to_stderr(f"Loading {base}.")
  policy, params = policies.load(base)
  progress = Progress("Measuring activations", len(examples), "examples")
  if method == "aim":
    tokens = [example.tokens for example in examples]
    return calibration.channel_statistics(policy, params, tokens, progress)
  limits = {"above": above, "below": below}
  return calibration.thinking_statistics(policy, params, examples, **limits, progress=progress)


def measure_sensitivity(models: Sequence[Path], rows: Sequence[Path]) -> Statistics:
  """Statistics for Sens-Merging: of each model, on examples of its own.

  Raises:
    ValueError: there are not as many files of examples as models.
  """
  if len(rows) != len(models):
    raise ValueError(
      f"--method=sens needs a file of --examples for each model, got {len(rows)} for {len(models)}."
    )
  if adapters := [str(f) for f in models if (f / "adapter_config.json").is_file()]:
    raise ValueError(
      f"--method=sens reads the activations of whole models: merge the adapter {adapters[0]} into "
      "its base first, or give --statistics."
    )
  count = len(models)
  distances, found = np.zeros((count, count), np.float32), []
  for j, (folder, file) in enumerate(zip(models, rows, strict=True)):
    examples = calibration.examples(file, policies.tokenizer(folder))
    tokens = [example.tokens for example in examples]
    to_stderr(f"Loading {folder}.")
    policy, params = policies.load(folder)
    progress = Progress(f"Measuring {folder.name}", len(tokens), "examples")
    found.append(calibration.sensitivities(policy, params, tokens, progress))
    for k in set(range(count)) - {j}:
      other = policies.load(models[k])[1]
      distances[k, j] = calibration.logit_distance(policy, other, params, tokens)
  return {"sensitivities": np.stack(found), "distances": distances}


def read_statistics(path: Path) -> Statistics:
  try:
    return load_file(path)
  except SafetensorError as why:
    raise ValueError(f"{path} is not a whole safetensors file: {why}") from why


def check_statistics(method: str, statistics: Statistics, base: Model) -> Statistics:
  """The statistics, if they suit the method and the sizes of the base."""
  c = base.config
  wanted: dict[str, tuple[int, ...]] = {}
  if method == "thinkedit":
    wanted.update(directions=(c.layers, c.hidden_size), scores=(c.layers, c.heads))
  elif method == "sens":
    count = len(statistics.get("distances", ()))
    wanted = {"sensitivities": (count, len(sensitivity.groups(c.layers)))}
    wanted["distances"] = (count, count)
  else:
    wanted = {n: base.tensors.shapes[n][1:] for n in statistics if n in base.tensors.shapes}
  for name in sorted(wanted.keys() | statistics.keys() or {"anything"}):
    size = statistics[name].shape if name in statistics else None
    if name not in wanted or size != wanted[name]:
      raise ValueError(
        f"the statistics for {method} have {name} {size}, should be {wanted.get(name)}."
      )
    if not np.isfinite(statistics[name]).all():
      raise ValueError(f"the statistics for {method} have values in {name} that are not finite.")
  return statistics


def _numbers(flag: str) -> list[float] | None:
  given: list[str] | None = FLAGS[flag].value
  if given is None:
    return None
  try:
    return [float(number) for number in given]
  except ValueError:
    raise ValueError(f"--{flag} must be numbers, got {','.join(given)}.") from None


def main(_) -> None:
  names = sorted({option for method in METHODS for option in options_of(method)})
  options = {name: _numbers(name) if name in LISTS else FLAGS[name].value for name in names}
  known = ["tokenizer", *(name for name in Config.__dataclass_fields__ if name not in RUNTIME)]
  if unknown := [name for name in FLAGS.allow if name not in known]:
    raise ValueError(f"--allow={unknown[0]} is not one of {', '.join(known)}.")
  if "" in FLAGS.models:
    raise ValueError(f"--models has an empty name: {','.join(FLAGS.models)}.")
  if FLAGS.examples and FLAGS.statistics:
    raise ValueError("name either --examples or --statistics.")
  method, base, out = FLAGS.method, Path(FLAGS.base), Path(FLAGS.out)
  models = [Path(folder) for folder in FLAGS.models]

  def statistics(start: Model) -> Statistics:
    limits = {"above": FLAGS.above, "below": FLAGS.below, "end_of_thinking": FLAGS.end_of_thinking}
    if FLAGS.statistics:
      measured = read_statistics(Path(FLAGS.statistics))
    elif method == "sens":
      measured = measure_sensitivity(models, [Path(file) for file in FLAGS.examples.split(",")])
    else:
      measured = measure(method, base, Path(FLAGS.examples), **limits)
    return check_statistics(method, measured, start)

  given = statistics if FLAGS.examples or FLAGS.statistics else None
  merge(method, base, models, out, options, allow=FLAGS.allow, statistics=given)
  print(f"{method} of {', '.join(map(str, [base, *models]))} is in {out}")


LISTS = ("weights", "density", "drop")

if __name__ == "__main__":
  flags.DEFINE_enum("method", None, list(METHODS), "See above.", required=True)
  flags.DEFINE_string("base", None, "Folder that gives config and tokenizer.", required=True)
  flags.DEFINE_list("models", [], "Folders to merge.")
  flags.DEFINE_string("out", None, "New folder.", required=True)
  flags.DEFINE_list("allow", [], "Permitted differences: tokenizer, or fields of the config.")
  flags.DEFINE_list("weights", None, "One for each model, or one for all; 1.")
  flags.DEFINE_list("density", None, "Share of entries kept, for each model or for all.")
  flags.DEFINE_list("drop", None, "Share of entries dropped, for each model or for all.")
  flags.DEFINE_float("scale", None, "Factor of the whole change.")
  flags.DEFINE_bool("normalize", None, "Divide by the sum of the weights.")
  flags.DEFINE_float("rate", None, "Share of entries trimmed.")
  flags.DEFINE_float("topk", None, "Share of elements that are selected.")
  flags.DEFINE_float("fraction", None, "Share of entries that change.")
  flags.DEFINE_float("strength", None, "0: the base, 1: the model, or the whole edit.")
  flags.DEFINE_integer("rank", None, "Rank of each change.")
  flags.DEFINE_float("mu", None, "Price of the nuclear norm.")
  flags.DEFINE_integer("iterations", None, "Sweeps.")
  flags.DEFINE_float("omega", None, "Relative change of the most active channel.")
  flags.DEFINE_float("temperature", None, "The higher, the more equal are the models.")
  flags.DEFINE_integer("heads", None, "Number of heads to edit.")
  flags.DEFINE_integer("seed", None, "Seed of the dropped entries.", lower_bound=0)
  flags.DEFINE_string(
    "examples", None, "JSON lines with prompt and response, to measure on; sens: one a model."
  )
  flags.DEFINE_string("statistics", None, f"Instead: {STATISTICS} of an earlier merge.")
  flags.DEFINE_integer("above", 1000, "Long thinking has more tokens.")
  flags.DEFINE_integer("below", 100, "Short thinking has fewer tokens.")
  flags.DEFINE_string("end_of_thinking", "</think>", "Ends the thinking in a response.")
  command.run(main, "merge")

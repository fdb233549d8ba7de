"""NeMo-RL: terms for length among the right answers of a group.

  nemo_suite.py           NeMo-RL, group relative: right answers earn by how short they are.
  nemo_suite.py:extremes  NeMo-RL, extremes: the shortest right answer gains, the longest loses.
  nemo_suite.py:outliers  NeMo-RL, outliers: right answers far above the median length lose.
  nemo_suite.py:profile   NeMo-RL, profile: right answers beyond their prompt's profile lose.
  nemo_suite.py:band      NeMo-RL, band: a right answer's reward falls between two lengths.
  nemo_suite.py:gate      NeMo-RL, gate: only parts that are long on average earn by shortness.

Source  NVIDIA NeMo-RL, code and guide, whose examples give the numbers (0.1; outliers beyond 2.5;
        profile beyond 1 deviation; a band down to a half). Its recipes were not seen: sizes, the
        limits of band and gate, and the advantage are ours. A profile is the prompt's first group
        with two right answers, where NeMo-RL reads it from the data; limits are the same for all
        prompts. Any term also takes thinking and answer apart (part="think", "answer")
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/nemo_suite.py --workdir=$WORKDIR
Smoke   the same with --config=configs/nemo_suite.py:smoke or :extremes,smoke and so on
        (one CPU, under a minute)
Fits    h100:8: 52 of 80 GiB a device, at least 1,280 s a step, with sampling.slots=16,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 52 of 95 GiB a device, at least 1,659 s a step, with sampling.slots=16,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "extremes", "outliers", "profile", "band", "gate")
TERMS = {
  "": dict(fn="length_suite", relative=0.1),
  "extremes": dict(fn="length_suite", shortest_bonus=0.1, longest_penalty=0.1),
  "outliers": dict(fn="length_suite", outlier_penalty=0.1, outlier_threshold=2.5),
  "profile": dict(fn="profiled_penalty", rows=40315, penalty=0.1, deviations=1.0, min_right=2),
  "band": dict(fn="length_suite", band=(8192.0, 16384.0, 0.5)),
  "gate": dict(
    fn="length_suite",
    part="think",
    relative=0.1,
    gate=8192.0,
    base=dict(fn="length_suite", part="answer", relative=0.1, gate=512.0),
  ),
}


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  variant = variant_of(mode, VARIANTS)
  c.budget = dict(fn="fixed", target=16384)
  c.reward = TERMS[variant]
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen3-4B")
  c.task = common.deepscaler(**(dict(signals=dict(fn="think_tags")) if variant == "gate" else {}))
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=64, group_size=16, max_tokens=16384, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c)
    if variant == "profile":
      c.reward.rows = c.task.size
    if variant == "band":
      c.reward.band = (8.0, 16.0, 0.5)
    if variant == "gate":
      c.reward.gate = c.reward.base.gate = 4.0
  return c


def sweep(add, variant):
  names = {"": "relative", "extremes": "longest_penalty", "outliers": "outlier_penalty"}
  name = names | {"profile": "penalty", "gate": "relative"}
  for value in (0.1, 0.3):
    if variant == "band":
      add({"reward.band": (8192.0, 16384.0, 1.0 - value)})
    else:
      add({f"reward.{name[variant]}": value})

"""AdaptThink: half of each group is made to skip thinking, which pays where it costs no accuracy.

Source  arXiv:2505.13417 and its code (delta 0.05; 128 prompts, 16 samples, half of them begin with
        </think> and at most 4,096 tokens, the others with "Alright" and 16,384; temperature 0.6, lr
        2e-6, clip 0.2 of the sequence's ratio, no KL; one epoch)
Tier    A
Data    questions, answers and the start policy's accuracy of 16 answers as JSON lines in
        data/deepscaler_rated.jsonl (`lcrl-cold-start --kind=problems --low=0
        --high=1` writes it as pass_rate); evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/adapt_think.py --workdir=$WORKDIR
Smoke   the same with --config=configs/adapt_think.py:smoke (one CPU, under a minute)
Fits    h100:8: 66 of 80 GiB a device, at least 440 s a step, with sampling.slots=128,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 81 of 95 GiB a device, at least 608 s a step, with sampling.slots=160,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="subgroups", targets=(16384, 4096))
  c.reward = dict(
    fn="adapt_think", bonus=0.05, reference=dict(fn="signal_reference", name="start_accuracy")
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="raw")
  c.loss = dict(
    fn="forced_opening",
    shares=(0.5, 0.5),
    base=dict(fn="sequence_clipped_surrogate", clip_low=0.2, clip_high=0.2),
  )
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(
    "data/deepscaler_rated.jsonl",
    keep=("pass_rate",),
    render=dict(fn="prefix", templates=("Alright", "</think>"), counts=True),
    signals=dict(fn="row_numbers", start_accuracy="pass_rate"),
  )
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=2e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=314, prompts=128, group_size=16, max_tokens=16384, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    del c.task.signals
    shrink(c).budget.targets = (16, 12)
    c.reward.reference = dict(fn="first_accuracy_reference", rows=c.task.size)
  return c


def sweep(add):
  for bonus in (0.0, 0.02, 0.05, 0.1):
    add({"reward.bonus": bonus})

"""Light-R1's semi-on-policy DPO: verified answers over the model's own wrong ones.

Source  arXiv:2503.10460 (NCA, beta 0.3, constant rate, 32k tokens)
Data    prompt, chosen (verified right, of a stronger model), rejected (the model's own, wrong)
Run     lcrl-train --config=configs/light_r1.py --workdir=$WORKDIR
Smoke   the same with --config=configs/light_r1.py:smoke (one CPU, under a minute)
Fits    h100:32: 69 of 80 GiB a device, at least 23 s a step, with train.micro_batches=16,
        mesh.tensor=8, train.pack=32768, mesh.sequence=2
        v5p:2x4x4: 80 of 95 GiB a device, at least 49 s a step, with train.micro_batches=4,
        train.pack=32768, mesh.tensor=4
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_pairs
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "preference", "seed": 0})
  c.loss = dict(fn="nca", beta=0.3)
  c.reference = dict(fn="cached")
  c.policy = common.pretrained("Light-R1-SFT-stage2")
  c.data = dict(
    fn="pairs",
    rows=dict(fn="jsonl", path="data/light_r1_dpo.jsonl"),
    window=32768,
    max_prompt_tokens=2048,
    held_out=0.01,
  )
  c.batches = dict(fn="stratified", size=32)
  c.sampling = common.sampling(0.7)
  c.optimizer = dict(fn="adamw", learning_rate=5e-7, clip_norm=1.0)
  c.mesh = common.fsdp()
  c.train = dict(steps=300, max_tokens=1024, max_prompt_tokens=2048, micro_batches=4, pack=65536)
  c.eval = common.pairs_evaluation()
  if is_smoke(mode):
    shrink_pairs(c)
  return c


def sweep(add):
  for value in (0.1, 0.3):
    add({"loss.beta": value})

# %% [markdown]
# # Shard a run: eight fake devices, then a pod
#
# A mesh is a section of the config. Here one CPU acts as eight devices, so that you can try how a run
# is split, see that it learns the same, and see what each device holds. Then you ask whether a real
# run fits on a real machine, and get the command that starts it there. It takes about two minutes on
# two CPU cores.

# %%
import json
import logging
import math
import os
import shlex
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jax

jax.config.update("jax_platforms", "cpu")  # both before the first computation
jax.config.update("jax_num_cpu_devices", 8)

import matplotlib.pyplot as plt
from IPython.display import Image

from lcrl.commands.fit import fit, table
from lcrl.commands.launch import tpu_vm
from lcrl.training.loop import train
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read

logging.getLogger().setLevel(logging.ERROR)  # this policy is random: it is known to be never right
runs = Path(tempfile.mkdtemp())
print(len(jax.devices()), "devices:", jax.devices()[0].device_kind)

# %% [markdown]
# ## One run, four meshes
#
# A mesh has axes. Along `data` the rows of a batch are split, and every device has all parameters.
# Along `fsdp` rows and parameters are split. Along `tensor` the matrices of each layer are split, and
# all devices see all rows. The axes can be combined.

# %%
config = {
  "seed": 0,
  "budget": {"fn": "fixed", "target": 12, "cap": 51},
  "reward": {"fn": "length_penalty", "alpha": 0.02},
  "filter": {"fn": "keep_all"},
  "advantage": {"fn": "group_normalized"},
  "loss": {"fn": "clipped_surrogate"},
  "weights": {"fn": "token_mean"},
  "policy": {"fn": "fresh", "vocab_size": 20, "hidden_size": 64, "layers": 2, "mlp_size": 256},
  "tokenizer": {"fn": "sums"},
  "task": {"fn": "arithmetic", "size": 64, "seed": 0},
  "eval_task": {"fn": "arithmetic", "size": 64, "seed": 0, "held_out": True},
  "sampling": {"temperature": 1.0},
  "optimizer": {"fn": "adamw", "learning_rate": 1e-3},
  "train": {"steps": 4, "prompts": 8, "group_size": 4, "max_tokens": 51, "max_prompt_tokens": 9},
  "eval": {"prompts": 8},
  "verify": {"workers": 1},
}
meshes = {
  "one device": {"devices": 1},
  "data=8": {"data": 8, "fsdp": 1},
  "fsdp=8": {"fsdp": 8},
  "fsdp=4, tensor=2": {"fsdp": 4, "tensor": 2},
}

# %%
losses = {}
for name, mesh in meshes.items():
  train({**config, "mesh": mesh}, runs / name)
  rows = map(json.loads, (runs / name / "metrics.jsonl").read_text().splitlines())
  losses[name] = [row["loss"] for row in rows if "loss" in row]

# %% [markdown]
# The losses of all steps agree up to rounding: how a batch is cut changes the order in which numbers
# are added, and nothing else.

# %%
for name, values in losses.items():
  print(f"{name:18}", *(f"{value:10.6f}" for value in values))
largest = max(max(step) - min(step) for step in zip(*losses.values(), strict=True))
print(f"largest difference: {largest:.1e}")
assert largest < 1e-4

# %% [markdown]
# ## What a device holds
#
# The learner of a run knows the sharding of every array before any memory is used. So we can count
# the bytes of parameters and optimizer that one device holds.


# %%
def bytes_of_a_device(tree):
  """The bytes of one device's shards of all arrays."""
  shards = [(x.sharding.shard_shape(x.shape), x.dtype.itemsize) for x in jax.tree.leaves(tree)]
  return sum(math.prod(shape) * size for shape, size in shards)


held = {}
for name, mesh in meshes.items():
  state = build_learner(read({**config, "mesh": mesh})).abstract
  held[name] = [bytes_of_a_device(tree) / 1e3 for tree in (state.params, state.opt_state)]

figure, axes = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
left = [0.0] * len(held)
for i, label in enumerate(("parameters", "optimizer")):
  width = [values[i] for values in held.values()]
  axes.barh([*held], width, left=left, label=label)
  left = width
axes.invert_yaxis()
axes.set_title("kB that one device holds", loc="left")
axes.legend(frameon=False)
figure.savefig(runs / "held.png", dpi=120)
Image(runs / "held.png")

# %% [markdown]
# The picture shows one bar a mesh. `data` copies everything to every device; the other two hold an
# eighth of it.

# %% [markdown]
# ## Will it fit?
#
# The same question for a real run: LASER on a model of 1.5 billion parameters with answers of up to
# 8,192 tokens. `fit` reads no weights and needs no accelerator. On one H100 this does not fit, and
# the last lines say which fields to change.

# %%
real = {
  **config,
  "budget": {"fn": "fixed", "target": 4096, "cap": 8192},
  "reward": {"fn": "step_bonus", "alpha": 0.5},
  "policy": {"fn": "pretrained", "path": "models/DeepSeek-R1-Distill-Qwen-1.5B"},
  "tokenizer": None,
  "task": {"fn": "jsonl", "path": "data/math.jsonl", "extract": "boxed"},
  "eval_task": {"fn": "jsonl", "path": "data/math500.jsonl", "extract": "boxed"},
  "optimizer": {"fn": "adamw", "learning_rate": 1e-6},
  "mesh": {"data": 1, "fsdp": -1},
  "train": {
    "steps": 1000,
    "prompts": 128,
    "group_size": 8,
    "max_tokens": 8192,
    "max_prompt_tokens": 1024,
  },
}
real["policy"]["dtype"] = real["sampling"]["dtype"] = "bfloat16"
print(table(fit(real, topology="h100:1")))

# %% [markdown]
# A pod slice of 16 TPU v5p leaves little to change. `fit` calculates here; with `jax[tpu]` it asks the
# TPU compiler, which needs no TPU, either.

# %%
pod = "v5p:2x2x4"
for field, value in fit(real, topology=pod, calculate=True)["changes"].items():
  section, name = field.split(".")
  real[section][name] = value
  print(f"{field} = {value}")
print(table(fit(real, topology=pod, calculate=True)))

# %% [markdown]
# ## The command for a pod
#
# The config goes into a file, and one command starts the same program on all hosts of the TPU slice.
# The same command goes on with the run after a preemption. `lcrl-launch-slurm` and `lcrl-launch-gke`
# write the scripts for SLURM and for Kubernetes.

# %%
os.chdir(runs)
Path("laser.py").write_text(f"""from ml_collections import config_dict


def get_config(mode="full"):
  return config_dict.ConfigDict({real!r})
""")
given = SimpleNamespace(name="my-slice", zone="us-east5-a", project=None, folder="lcrl")
arguments = ["--config=laser.py", "--workdir=gs://my-bucket/runs/laser"]
print(shlex.join(tpu_vm.ssh(given, arguments)))

"""What is written for a cluster fits the cluster, and the script for SLURM trains."""

import contextlib
import json
import os
import shlex
import socket
import stat
import subprocess
import sys
import types
from pathlib import Path

import jsonschema
import pytest
import yaml

from lcrl.commands.launch import gke, slurm, tpu_vm
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers import stores
from tests.helpers.devices import limit_devices
from tests.helpers.rl_runs import changed

REPOSITORY = Path(__file__).parent.parent
TRAIN = ["--config=configs/laser.py:d", "--workdir=gs://bucket/runs/a", "--config.reward.alpha=0.2"]
GKE = {"name": "laser", "topology": "v5p:2x2x4", "image": "REGISTRY/IMAGE:TAG", "restarts": 10}
GKE |= {"chips_per_host": 4, "service_account": None}
SLURM = {"name": "laser", "nodes": 2, "gpus": 8, "cpus": 8, "time": "24:00:00", "folder": "."}
SLURM |= {"partition": None, "account": None, "python": "python"}
TPU_VM = {"name": "TPU", "zone": "ZONE", "project": None, "folder": "my lcrl"}


def closed(required, **properties):
  """The schema of an object without other fields."""
  schema = {"type": "object", "properties": properties, "additionalProperties": False}
  return schema | {"required": required.split()}


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
LABEL = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
LABELS = {"type": "object", "additionalProperties": TEXT}
CONTAINER = closed(
  "name image",
  name=LABEL,
  image=TEXT,
  command={"type": "array", "items": TEXT},
  ports={"type": "array", "items": closed("containerPort", containerPort=COUNT)},
  resources=closed("limits", limits={"type": "object", "additionalProperties": COUNT}),
)
POD = closed(
  "containers",
  restartPolicy={"enum": ["Never", "OnFailure"]},  # those of a Job
  terminationGracePeriodSeconds=COUNT,
  serviceAccountName=LABEL,
  nodeSelector=LABELS,
  containers={"type": "array", "items": CONTAINER, "minItems": 1},
)
JOB = closed(
  "template",
  parallelism=COUNT,
  completions=COUNT,
  backoffLimit=COUNT,
  template=closed("spec", spec=POD),
)
REPLICATED = closed("name template", name=LABEL, replicas=COUNT, template=closed("spec", spec=JOB))
JOB_SET = closed(
  "apiVersion kind metadata spec",
  apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
  kind={"const": "JobSet"},
  metadata=closed("name", name=LABEL, annotations=LABELS),
  spec=closed(
    "replicatedJobs",
    failurePolicy=closed("", maxRestarts=COUNT),
    replicatedJobs={"type": "array", "items": REPLICATED, "minItems": 1},
  ),
)


def flags(given, **changes):
  return types.SimpleNamespace(**given | changes)


def test_a_job_set_fits_its_schema(monkeypatch, capsys):
  monkeypatch.setattr(gke, "FLAGS", flags(GKE, service_account="trainer"))
  gke.main(["gke", *TRAIN])
  found = yaml.safe_load(capsys.readouterr().out)
  jsonschema.validate(found, JOB_SET)
  job = found["spec"]["replicatedJobs"][0]["template"]["spec"]
  pod = job["template"]["spec"]
  container = pod["containers"][0]
  assert job["parallelism"] == job["completions"] == 2 * 2 * 4 // 4
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
  assert container["command"] == ["python", "-m", "lcrl.commands.train", "--multihost", *TRAIN]
  assert (container["image"], pod["serviceAccountName"]) == ("REGISTRY/IMAGE:TAG", "trainer")
  assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x2x4"


@pytest.mark.parametrize(
  ("changes", "train", "said"),
  [
    ({"name": "Laser_D"}, TRAIN, "--name=Laser_D must be"),
    ({"topology": "h100:8"}, TRAIN, "--topology=h100:8 is not like v5p:2x2x4"),
    ({"topology": "v5e:4"}, TRAIN, "--topology=v5e:4 is not like"),
    ({"topology": "v5e:2x3"}, TRAIN, "--chips_per_host=4 does not divide 6 chips"),
    ({}, TRAIN[1:], "name --config=... after a lone --"),
    ({}, [TRAIN[0]], "name --workdir=... after a lone --"),
    ({}, [TRAIN[0], "--workdir=runs/a"], "--workdir=runs/a: these machines share no disk"),
    ({}, ["--config=configs/none.py", TRAIN[1]], "there is no file configs/none.py"),
  ],
)
def test_what_a_cluster_could_not_run_is_refused(changes, train, said):
  with pytest.raises(ValueError) as error:
    gke.manifest(flags(GKE, **changes), train)
  assert said in str(error.value)


@pytest.mark.parametrize("program", ["gke", "slurm", "tpu_vm"])
def test_a_missing_value_is_named(program):
  given = {"gke": "--topology=v5p:2x2x4", "slurm": "--nodes=1", "tpu_vm": "--zone=ZONE"}[program]
  command = [sys.executable, "-m", f"lcrl.commands.launch.{program}", given, "--", *TRAIN]
  run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
  assert run.returncode != 0
  assert "Flag --name must have a value" in run.stderr


def test_all_workers_of_a_tpu_vm_run_it():
  *words, remote = tpu_vm.ssh(flags(TPU_VM), TRAIN)
  assert words[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "TPU"]
  assert words[6:] == ["--zone=ZONE", "--worker=all"]
  inner = shlex.split(remote.removeprefix("--command="))
  train = [".venv/bin/python", "-m", "lcrl.commands.train", "--multihost", *TRAIN]
  assert inner == ["cd", "my lcrl", "&&", *train]


SRUN = """#!{python}
import os, subprocess, sys
job = dict(SLURM_JOB_ID="{job}", SLURM_STEP_NODELIST="localhost,other", SLURM_NTASKS="2")
task = lambda i: dict(SLURM_PROCID=str(i), SLURM_LOCALID="0", SLURM_STEP_NUM_NODES="2")
assert sys.argv[1] == "--kill-on-bad-exit=1"
runs = [subprocess.Popen(sys.argv[2:], env=os.environ | job | task(i)) for i in range(2)]
sys.exit(any([run.wait(timeout=400) for run in runs]))
"""


def free_job():
  """A job whose port, which JAX computes from its number, is free."""
  for job in range(os.getpid() % 2**12, 2**13):
    with contextlib.suppress(OSError), socket.socket() as port:
      port.bind(("localhost", job % 2**12 + 65535 - 2**12 + 1))
      return job
  raise AssertionError("no port is free")


@pytest.mark.slow
def test_the_script_for_slurm_trains_in_two_tasks(tmp_path, monkeypatch):
  """`srun` starts two tasks here, with what SLURM would say to them; both save to gs://."""
  job = free_job()
  config = changed(
    train__steps=1,
    train__group_size=2,
    train__max_tokens=4,
    eval__prompts=2,
    mesh__fsdp=2,
    budget={"fn": "fixed", "target": 3, "cap": 4},
  )
  module, srun = tmp_path / "config.py", tmp_path / "bin" / "srun"
  module.write_text(f"def get_config():\n  return {config!r}\n")
  srun.parent.mkdir()
  srun.write_text(SRUN.format(python=sys.executable, job=job))
  srun.chmod(srun.stat().st_mode | stat.S_IXUSR)
  path = [str(tmp_path), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
  (tmp_path / "sitecustomize.py").write_text(
    "from tests.helpers import stores\nstores.register()\n"
  )
  (tmp_path / "store").mkdir()
  arguments = [f"--config={module}", "--workdir=gs://bucket/run"]
  text = slurm.script(flags(SLURM, folder=REPOSITORY, python=sys.executable), arguments)
  for line in ("--nodes=2", "--ntasks-per-node=8", "--signal=TERM@300", "--requeue"):
    assert f"\n#SBATCH {line}\n" in text
  assert "partition" not in text
  changes = {
    "PATH": f"{srun.parent}:{os.environ['PATH']}",
    "PYTHONPATH": ":".join(path),
    "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1"),
    "JAX_PLATFORMS": "cpu",
  }
  limit_devices(monkeypatch, 2)
  with stores.serve(tmp_path / "store", monkeypatch):
    run = subprocess.run(
      ["bash", "-c", text], env=os.environ | changes, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "on 2 x CPU" in run.stderr
    assert json.loads(stores.read("bucket/run/summary.json"))["stopped"] is None
    # Both tasks have vouched for their share of the checkpoint.
    shares = [
      json.loads(stores.read(f"bucket/run/checkpoints/1/manifest.{i}.json")) for i in (0, 1)
    ]
    assert all(share["processes"] == 2 and share["files"] for share in shares)
    restored = Checkpoints("gs://bucket/run/checkpoints").restore(
      build_learner(read(config)).abstract
    )
    assert restored[0] == 1

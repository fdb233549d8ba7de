"""Writes a JobSet for a slice of TPUs on Google Kubernetes Engine.

lcrl-launch-gke --name=laser --topology=v5p:2x2x4 --image=REGISTRY/IMAGE:TAG \\
  -- --config=configs/laser.py:d --workdir=gs://BUCKET/runs/laser | kubectl apply -f -

The image holds the repository as its working folder, with the extra `train`, jax[tpu], fsspec and
gcsfs. When a host fails, JobSet starts all of them again, and the run goes on from its last
checkpoint. After `kubectl delete jobset NAME` the same command does so, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import yaml
from absl import flags

from lcrl.commands import command
from lcrl.commands.launch.training import training_command

FLAGS = flags.FLAGS
ACCELERATORS = {
  "v4": "tpu-v4-podslice",
  "v5e": "tpu-v5-lite-podslice",
  "v5p": "tpu-v5p-slice",
  "v6e": "tpu-v6e-slice",
}
GRACE = 600  # seconds to finish a step and to save
PORTS = (8471, 8476)  # TPU runtime; JAX's coordinator


def manifest(given: Any, arguments: Sequence[str]) -> dict[str, Any]:
  """The JobSet. `given` has the flags."""
  if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", given.name):
    raise ValueError(
      f"--name={given.name} must be lower-case letters, digits and dashes, at most 40."
    )
  kind, _, grid = given.topology.partition(":")
  if kind not in ACCELERATORS or not re.fullmatch(r"\d+(x\d+){1,2}", grid):
    known = ", ".join(ACCELERATORS)
    raise ValueError(f"--topology={given.topology} is not like v5p:2x2x4, with one of {known}.")
  chips = math.prod(map(int, grid.split("x")))
  if given.chips_per_host < 1 or chips % given.chips_per_host:
    raise ValueError(f"--chips_per_host={given.chips_per_host} does not divide {chips} chips.")
  hosts = chips // given.chips_per_host
  container = {
    "name": "train",
    "image": given.image,
    "command": training_command(arguments, remote=True),
    "ports": [{"containerPort": port} for port in PORTS],
    "resources": {"limits": {"google.com/tpu": given.chips_per_host}},
  }
  pod: dict[str, Any] = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": GRACE,
    "nodeSelector": {
      "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[kind],
      "cloud.google.com/gke-tpu-topology": grid,
    },
    "containers": [container],
  }
  if given.service_account is not None:
    pod["serviceAccountName"] = given.service_account
  job = {"parallelism": hosts, "completions": hosts, "backoffLimit": 0, "template": {"spec": pod}}
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": given.name,
      # All hosts of a slice are nodes of one pool.
      "annotations": {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
      },
    },
    "spec": {
      "failurePolicy": {"maxRestarts": given.restarts},
      "replicatedJobs": [{"name": "slice", "replicas": 1, "template": {"spec": job}}],
    },
  }


def main(argv: Sequence[str]) -> None:
  print(yaml.safe_dump(manifest(FLAGS, argv[1:]), sort_keys=False), end="")


if __name__ == "__main__":
  flags.DEFINE_string("name", None, "Name of the JobSet.", required=True)
  flags.DEFINE_string("topology", None, "The slice, such as v5p:2x2x4.", required=True)
  flags.DEFINE_string("image", None, "The container image.", required=True)
  flags.DEFINE_integer("chips_per_host", 4, "Chips of a machine of the node pool.")
  flags.DEFINE_integer("restarts", 10, "How often JobSet may start all hosts again.")
  flags.DEFINE_string("service_account", None, "Of Kubernetes; it may write to the bucket.")
  command.run(main, "gke")

"""Starts a run on many machines. The same command goes on with a run that was stopped.

lcrl-launch-slurm    writes a script for sbatch
lcrl-launch-gke      writes a JobSet for kubectl
lcrl-launch-tpu-vm   runs on all workers of a TPU VM
"""

"""Starts a run on many machines. The same command goes on with a run that was stopped.

python -m experiments.launch.slurm    writes a script for sbatch
python -m experiments.launch.gke      writes a JobSet for kubectl
python -m experiments.launch.tpu_vm   runs on all workers of a TPU VM
"""

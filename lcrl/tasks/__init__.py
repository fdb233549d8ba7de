"""Prompts and verifiers: text in, verdict out, on the host. A config names a task by `fn`."""

from lcrl.tasks.arithmetic import arithmetic
from lcrl.tasks.jsonl import jsonl
from lcrl.tasks.reasoning_gym import reasoning_gym
from lcrl.tasks.render import suffix

__all__ = ["arithmetic", "jsonl", "reasoning_gym", "suffix"]

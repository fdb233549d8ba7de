"""Tests see eight devices; most runs need one."""

import functools

import jax


def first_devices(count, *_):
  return jax.local_devices()[:count]


def limit_devices(patch, count=1):
  """Lets `jax.devices` give the first `count` devices of this process until `patch` is undone."""
  patch.setattr(jax, "devices", functools.partial(first_devices, count))

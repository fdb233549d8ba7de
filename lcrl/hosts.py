"""Exchanges of small values between the processes of a run, on the host.

A collective on the devices waits behind all that is queued there: an update, or the sampling of the
next step. The host would then stand still until the devices have caught up. These exchanges go
through the key-value store of JAX's coordination service instead, to which `jax.distributed`
connects every process. JAX has no public name for its client; only this module knows where it is.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from typing import Any

import jax

PATIENCE = 3600.0  # seconds for the slowest process to arrive

_exchanges: collections.Counter[str] = collections.Counter()  # so far, by what is exchanged


def gather(name: str, value: Any, among: Sequence[int] | None = None) -> list[Any]:
  """The values of several processes, in their order.

  The first process collects the values and stores the list, which the others read: two messages a
  process. The store keeps the last two exchanges of a name.

  Args:
    name: of what is exchanged. Every process makes the exchanges of a name in the same order, so
      threads need names of their own.
    value: of this process, as JSON can write it.
    among: the processes that take part, in increasing order, this one included; None: all.

  Raises:
    TimeoutError: a process has not arrived in time, or the coordination service has ended.
  """
  processes = range(jax.process_count()) if among is None else among
  if len(processes) == 1:
    return [value]
  from jax._src.distributed import global_state

  client: Any = global_state.client
  own, first = jax.process_index(), processes[0]
  members = "all" if len(processes) == jax.process_count() else "-".join(map(str, processes))
  place = f"lcrl/{name}/{members}"
  _exchanges[place] += 1
  number = _exchanges[place]

  def received(process: int, key: Any) -> Any:
    try:
      text = client.blocking_key_value_get(f"{place}/{number}/{key}", round(PATIENCE * 1000))
    except jax.errors.JaxRuntimeError as error:
      late = "DEADLINE_EXCEEDED" in str(error)
      why = f"within {PATIENCE:g} seconds" if late else f"({str(error).splitlines()[0]})"
      raise TimeoutError(
        f"process {own} of this run has heard nothing from process {process} about {name} {why}; "
        "the same command on all hosts goes on from the last checkpoint."
      ) from None
    return json.loads(text)

  if own != first:
    client.key_value_set(f"{place}/{number}/{own}", json.dumps(value))
    return received(first, "all")
  others = [received(process, process) for process in processes[1:]]
  values = json.dumps([value, *others])
  client.key_value_set(f"{place}/{number}/all", values)
  # Who takes part in this exchange has read the one before.
  client.key_value_delete(f"{place}/{number - 1}")
  return json.loads(values)

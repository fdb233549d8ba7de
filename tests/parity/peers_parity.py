"""The peer transformers does all that the benchmarks ask of it: tiny work, processes of its own.

Run     pytest tests/parity/peers_parity.py where torch is installed
"""

import pytest

from experiments.benchmarks import peers
from experiments.benchmarks.peers import Job, transformers

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("part", transformers.PARTS)
def test_transformers_does_its_part(part):
  sizes = dict(shape="laptop", layers=1, prompts=2, group=2, asked=4, limit=4, heavy=True, micro=1)
  job = Job(part, **sizes, repeats=1, tokens=8, hidden=4, vocab=16, remat=part == "update")
  found = peers.in_a_process("transformers", job, timeout=300)
  assert "error" not in found, found["error"]
  name = {"step": "step_s", "log_probs": "median_ms"}.get(part, "seconds")
  assert found[name] > 0
  assert {"torch", "transformers"} <= set(found["versions"])

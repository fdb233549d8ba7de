"""Groups of scripted responses, and what a revision makes of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.data import tokenizers
from lcrl.data.rows import Rows
from lcrl.mesh import make_mesh
from lcrl.registry import build
from lcrl.rollouts.grader import LocalPrompts
from lcrl.rollouts.worker import RolloutWorker
from lcrl.sampling.core import Samples
from lcrl.sampling.programs import assemble
from lcrl.tasks.task import Prompt, Task
from lcrl.training.rl import revise
from lcrl.types import Budget
from tests.helpers.methods import Here

WORDS = tokenizers.utf8()
ASKED, LIMIT, MOST = "ask", 8, 40


def says(response, reference):
  """Right if the answer's digit stands anywhere."""
  return float(reference in response)


class Scripted:
  """An engine that says what it is told, by row; a control forces what stands behind "~"."""

  max_tokens = MOST

  def __init__(self, say, mesh):
    self.say, self.mesh, self.caps = say, mesh, []

  def stream(self, params, rows, budget, key):
    shape, most = rows.lengths.shape, int(budget.cap.max())  # as wide as it must be, as an engine
    said = np.full((*shape, most), WORDS.pad_id, np.int32)
    lengths, truncated = np.zeros(shape, np.int32), np.zeros(shape, bool)
    free = np.ones((*shape, most), bool)
    rows = jax.tree.map(np.asarray, rows)
    rows = dataclasses.replace(rows, tokens=rows.tokens[..., : rows.lengths.max()])
    self.caps.append(int(budget.cap.max()))
    for b, g in np.ndindex(*shape):
      text = self.say(WORDS.decode(rows.tokens[b, g, : rows.lengths[b, g]]), b, g)
      sampled, _, forced = text.removesuffix("...").partition("~")
      tokens = [*WORDS.encode(sampled + forced), *WORDS.end_ids]
      free[b, g, len(sampled) : len(sampled + forced)] = False
      truncated[b, g] = text.endswith("...")
      lengths[b, g] = len(tokens) - truncated[b, g]
      said[b, g, : lengths[b, g]] = tokens[: lengths[b, g]]
    there = (np.arange(most) < lengths[..., None]) & free
    samples = Samples(said, there, np.where(there, -0.5, 0).astype(np.float32), lengths, truncated)
    said = assemble(rows, budget, jax.tree.map(jnp.asarray, samples), pad_id=WORDS.pad_id)
    yield said, said.valid


def played(texts, *, target=MOST, references="8", say=None):
  """(rollouts on the host, grader) of groups of responses; "..." at the end: cut at the cap."""
  mesh = make_mesh(data=1, fsdp=1, devices=jax.devices()[:1])
  task = Task("t", [], says)
  script = lambda row, b, g: texts[b][g] if row == ASKED else say(row)
  worker = RolloutWorker(task, WORDS, Scripted(script, mesh), Here(task), mesh, LIMIT)
  shape = len(texts), len(texts[0])
  full = lambda value: np.full(shape, value, np.int32)
  ask = [*WORDS.encode(ASKED), *[WORDS.pad_id] * (LIMIT - len(ASKED))]
  number = np.arange(shape[0], dtype=np.int32)
  tokens = np.broadcast_to(np.array(ask, np.int32), (*shape, LIMIT))
  rows = Rows(tokens, full(len(ASKED)), full(0), number, number, number)
  prompts = [Prompt(i, (), reference) for i, reference in enumerate(references)]
  budget = Budget(full(target), full(MOST), full(0))
  local = LocalPrompts(prompts, rows, budget)
  rollouts, grader = worker.start(None, local, jax.random.key(0)).result()
  worker.verifier.asked.clear()
  return jax.tree.map(np.asarray, rollouts), grader


def revised(spec, texts, **how):
  """(before, after, responses after, what the verifier was asked again)."""
  before, grader = played(texts, **how)
  after = build(revise, spec, field="revise").apply(before, grader)
  now = [[response.text for response in group] for group in grader.responses(after)]
  check_rows(after)
  return before, after, now, [text for text, _ in grader.worker.verifier.asked]


def check_rows(r):
  np.testing.assert_array_equal(r.lengths, r.mask.sum(-1))
  assert not r.sampler_log_probs[~r.mask].any()

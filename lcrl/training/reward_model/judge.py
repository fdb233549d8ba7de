"""Rules that a model judges: the share of them that an answer follows, as a signal of rollouts.

  c.learned = dict(rules=dict(rules="runs/rules/rules.json"))              the policy judges itself
  c.learned = dict(rules=dict(rules=[...], judge="models/Qwen2.5-7B"))     a model folder does

For each answer and rule the judge reads conversation, answer and rule, and an answer follows the
rule if Yes is the likelier next token than No: one pass forward, nothing is sampled. Source:
AutoRule, arXiv:2506.15651, whose verifier is a language model, too; the wording is ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import policies
from lcrl.masked import as_float
from lcrl.mesh import batch_sharding, param_shardings, to_global, to_local
from lcrl.policies import Policy
from lcrl.policies.hf import pretrained
from lcrl.training.build import vocabulary_of
from lcrl.training.remote import opened
from lcrl.training.rl.pipeline import Provider
from lcrl.training.scorer import on_mesh
from lcrl.training.step import score_all
from lcrl.types import PyTree, Rollouts

TEXT = "\x00"  # where conversation and answer stand in the rendered request
REQUEST = """Here is a conversation that ends with an answer.

{text}

Does the last answer follow this rule? {rule} Reply with Yes or No."""


class Asked(NamedTuple):
  tokens: jax.Array  # [B, G, L] int32, the request
  lengths: jax.Array  # [B, G] int32


def read_rules(spec: Any, field: str) -> list[str]:
  """The rules of a section: a list, or the path of a JSON file that holds one."""
  rules = spec
  if isinstance(spec, str):
    try:
      rules = json.loads(opened(spec).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
      raise ValueError(f"{field}.rules={spec!r} cannot be read: {why}") from why
  if not isinstance(rules, list | tuple) or not rules or not all(isinstance(x, str) for x in rules):
    raise ValueError(f"{field}.rules must be a list of sentences, got {rules!r:.60}.")
  return [*rules]


def provider(
  name: str, spec: Mapping[str, Any], model: Any, tokenizer: Any, pieces: int
) -> Provider:
  """The share of the rules, in float32 [B, G], as the signal `name`."""
  rules, path = read_rules(spec["rules"], f"learned.{name}"), spec.get("judge")
  policy, judge_params, reader = model.policy, None, tokenizer
  if path is not None:
    source, reader = pretrained(path, dtype="bfloat16"), policies.tokenizer(path)
    policy, shapes = source.policy, jax.eval_shape(source.policy.init, jax.random.key(0))
    judge_params = source.params(None, param_shardings(model.mesh, policy.axes, shapes))
  frames = [Frame(reader, rule) for rule in rules]
  train, longest = model.settings.train, max(frame.length for frame in frames)
  limit = train.max_prompt_tokens + train.max_tokens + longest
  end_ids = vocabulary_of(model, tokenizer).end_ids
  yes = make_yes(policy, model.mesh, first_tokens(reader), pieces)

  def read(params: PyTree, rollouts: Rollouts) -> dict[str, jax.Array]:
    judging = params if judge_params is None else judge_params
    texts = said(to_local(rollouts.tokens), to_local(rollouts.written), tokenizer, end_ids)
    ids = [[reader.encode(text) for text in group] for group in texts]
    asked = (to_global(model.mesh, frame.rows(ids, limit, reader.pad_id)) for frame in frames)
    flags = [yes(judging, rows) for rows in asked]
    return {name: sum(flags[1:], flags[0]) / len(flags)}

  return Provider((name,), read)


def said(
  tokens: np.ndarray, written: np.ndarray, tokenizer: Any, end_ids: Sequence[int]
) -> list[list[str]]:
  """Each row up to the end of its answer as text, without the end token. [B, G, T] each."""

  def text(row: np.ndarray, of: np.ndarray) -> str:
    end = len(of) - int(of[::-1].argmax()) if of.any() else int((row != tokenizer.pad_id).sum())
    ids = row[:end].tolist()
    return tokenizer.decode(ids[:-1] if ids and ids[-1] in end_ids else ids)

  return [
    [text(row, of) for row, of in zip(*group, strict=True)]
    for group in zip(tokens, written, strict=True)
  ]


class Frame:
  """The request about a rule, as tokens before and after the conversation."""

  def __init__(self, tokenizer: Any, rule: str):
    content = REQUEST.format(text=TEXT, rule=rule)
    before, found, after = tokenizer.render(({"role": "user", "content": content},)).partition(TEXT)
    if not found:
      raise ValueError("the judge's chat template changes what it renders: it cannot judge rules.")
    self.before, self.after = tokenizer.encode(before), tokenizer.encode(after)
    self.length = len(self.before) + len(self.after)

  def rows(self, ids: Sequence[Sequence[Sequence[int]]], limit: int, pad: int) -> Asked:
    """The requests about conversations [B, G]. What is too long loses its beginning."""
    shape = len(ids), len(ids[0])
    tokens, lengths = np.full((*shape, limit), pad, np.int32), np.zeros(shape, np.int32)
    for at in np.ndindex(shape):
      text = ids[at[0]][at[1]]
      row = [*self.before, *text[max(0, len(text) - limit + self.length) :], *self.after]
      tokens[at][: len(row)], lengths[at] = row, len(row)
    return Asked(tokens, lengths)  # type: ignore[arg-type]


def first_tokens(tokenizer: Any) -> tuple[int, int]:
  """The tokens with which Yes and No begin."""
  yes, no = (tokenizer.encode(word)[0] for word in ("Yes", "No"))
  if yes == no:
    raise ValueError("Yes and No begin with the same token: this tokenizer cannot judge rules.")
  return yes, no


def make_yes(policy: Policy, mesh: Any, words: tuple[int, int], pieces: int):
  """params, `Asked` -> [B, G] float32, 1 where Yes is likelier than No as the next token."""
  hidden_of = on_mesh(policy.hidden, mesh) if mesh.size > 1 else policy.hidden

  def likelier(params: PyTree, rows: Asked) -> jax.Array:
    hidden = hidden_of(params, rows.tokens)
    last = jnp.take_along_axis(hidden, rows.lengths[..., None, None] - 1, axis=-2)[..., 0, :]
    two = policy.head(params)[:, jnp.array(words)]
    logits = jnp.einsum("bgd,dw->bgw", as_float(last), as_float(two))
    return as_float(logits[..., 0] > logits[..., 1])

  def in_pieces(params: PyTree, rows: Any) -> Any:
    return score_all(likelier, params, rows, pieces=pieces)  # type: ignore[arg-type]

  return jax.jit(in_pieces, out_shardings=batch_sharding(mesh))

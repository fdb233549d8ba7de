"""What AIM, ThinkEdit and Sens-Merging measure: activations, gradients and logits on examples.

The model is in memory meanwhile; a merge itself needs one tensor of it. Statistics are named
arrays, which a file of safetensors keeps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.merging.sensitivity import groups
from lcrl.merging.thinkedit import head_scores, thinking_direction
from lcrl.policies.attention import attention, options_of
from lcrl.policies.block import Block, embed, gated, rotations
from lcrl.policies.config import Config
from lcrl.policies.families import FAMILIES
from lcrl.policies.transformer import Policy
from lcrl.protocols import Tokenizer

__all__ = [
  "Example",
  "Layer",
  "channel_statistics",
  "examples",
  "layers",
  "logit_distance",
  "sensitivities",
  "thinking_statistics",
]

O_PROJ = "model.layers.{}.self_attn.o_proj.weight"
_INPUTS = {  # the matrices that read an activation
  "attention_input": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
  "values": ("self_attn.o_proj",),
  "mlp_input": ("mlp.gate_proj", "mlp.up_proj"),
  "mlp_inner": ("mlp.down_proj",),
}
_FUSED = {"attention_input": ("self_attn.qkv_proj",), "mlp_input": ("mlp.gate_up_proj",)}


class Layer(NamedTuple):
  """Activations of one layer at T tokens."""

  attention_input: jax.Array  # [T, D]
  values: jax.Array  # [T, heads * head_dim], what the heads read, before the output matrix
  residual: jax.Array  # [T, D], after attention
  mlp_input: jax.Array  # [T, D]
  mlp_inner: jax.Array  # [T, mlp_size], before the last matrix


class Example(NamedTuple):
  """One answer of a model, by which activations and gradients are measured."""

  prompt: list[int]  # up to the thinking
  thinking: list[int] | None  # None: not closed
  tokens: list[int]  # all of it


def layers(policy: Policy, params: Any, tokens: Sequence[int]) -> Iterator[Layer]:
  """The activations of each layer in turn at one sequence of tokens.

  Raises:
    ValueError: its MLPs are mixtures of experts.

  >>> from lcrl.policies import make, tiny
  >>> policy = make(tiny(16))
  >>> found = list(layers(policy, policy.init(jax.random.key(0)), [3, 1, 4]))
  >>> len(found), found[0].mlp_inner.shape
  (2, (3, 192))
  """
  c, count = policy.config, len(tokens)
  if c.experts:
    raise ValueError(
      "activations of a model with experts are not measured: each sees other tokens."
    )
  padded = _padded(tokens)
  x = embed(c, params, padded)
  ropes = rotations(c, jnp.arange(len(padded)))
  for i, (window, rope) in enumerate(c.kinds):
    own = jax.tree.map(lambda w, i=i: w[i], params["layers"])
    x, found = _layer(c, window, own, x, ropes[rope])
    yield Layer(*(part[:count] for part in found))


def _padded(tokens: Sequence[int]) -> np.ndarray:
  """Lengths are rounded up, so that few programs are compiled; nothing reads what comes after."""
  padded = np.zeros(max(64, 1 << (len(tokens) - 1).bit_length()), np.int32)
  padded[: len(tokens)] = tokens
  return padded


@partial(jax.jit, static_argnums=(0, 1))
def _layer(c: Config, window: int | None, params, x, rope) -> tuple[jax.Array, Layer]:
  def attend(q, k, v, sinks):
    values = attention(q, k, v, window=window, sinks=sinks, **options_of(c))
    return values, values.reshape(*x.shape[:-1], -1)

  variables: dict[str, Any] = {"params": params}
  (y, values, _), kept = Block(c).apply(
    variables, x, rope, attend, capture_intermediates=True, mutable=["intermediates"]
  )
  seen = lambda name: kept["intermediates"][name]["__call__"][0]
  inner = gated(c, seen("gate"), seen("up"))
  residual = x + seen("out" if c.norms == "pre" else "attention_post_norm")
  reads = (x, residual) if c.norms == "post" else (seen("attention_norm"), seen("mlp_norm"))
  return y, Layer(reads[0], values, residual, reads[1], inner)


def channel_statistics(
  policy: Policy,
  params: Any,
  rows: Sequence[Sequence[int]],
  progress: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
  """Mean |activation| of each input channel of the layers' matrices: tensor's name -> [in].

  Args:
    policy, params: the model.
    rows: sequences of tokens; all of them count alike.
    progress: hears how many sequences are done.
  """
  sums: dict[str, np.ndarray] = {}
  inputs = _INPUTS | (_FUSED if FAMILIES[policy.config.family].fused else {})
  for done, tokens in enumerate(rows):
    progress(done)
    for i, layer in enumerate(layers(policy, params, tokens)):
      for field, matrices in inputs.items():
        wide = getattr(layer, field).astype(jnp.float32)
        total = np.asarray(jnp.abs(wide).sum(0), np.float64)
        for matrix in matrices:
          name = f"model.layers.{i}.{matrix}.weight"
          sums[name] = sums.get(name, 0.0) + total
  progress(len(rows))
  count = sum(map(len, rows))
  if not count:
    raise ValueError("there are no tokens to measure activations on.")
  return {name: (total / count).astype(np.float32) for name, total in sums.items()}


def thinking_statistics(
  policy: Policy,
  params: Any,
  rows: Sequence[Example],
  *,
  above: int = 1000,
  below: int = 100,
  progress: Callable[[int], None] = lambda done: None,
) -> dict[str, np.ndarray]:
  """ThinkEdit's "directions" [layers, D] and "scores" [layers, heads].

  Read at the positions that predict the thinking, from the last token of the prompt on.

  Args:
    policy, params: the model.
    rows: its answers; those whose thinking is not closed are left out.
    above: long thinking has more tokens than this.
    below: short thinking has fewer.
    progress: hears how many examples are done.
  """
  c = policy.config
  groups: dict[bool, list[list[tuple[np.ndarray, np.ndarray]]]] = {True: [], False: []}
  for done, row in enumerate(rows):
    progress(done)
    size = len(row.thinking or ())
    if size and row.prompt and (size > above or size < below):
      tokens = [*row.prompt, *(row.thinking or ())][:-1]
      own = slice(len(row.prompt) - 1, None)
      mean = lambda x, own=own: np.asarray(x[own].astype(jnp.float32).mean(0))
      found = [(mean(x.residual), mean(x.values)) for x in layers(policy, params, tokens)]
      groups[size > above].append(found)
  progress(len(rows))
  for is_long, name in ((True, f"above {above}"), (False, f"below {below}")):
    if not groups[is_long]:
      raise ValueError(f"no example has thinking of {name} tokens: {len(rows)} were read.")
  directions, scores = [], []
  for i in range(c.layers):
    long, short = ([one[i][0][None] for one in groups[is_long]] for is_long in (True, False))
    direction = thinking_direction(long, short)
    values = np.stack([one[i][1] for one in groups[False]])
    kernel = np.asarray(params["layers"]["out"]["kernel"][i], np.float32)
    shape = (c.heads, c.head_dim)
    written = np.einsum("nhd,hdk->nhk", values.reshape(-1, *shape), kernel.reshape(*shape, -1))
    directions.append(direction)
    scores.append(head_scores(written, direction))
  return {"directions": np.stack(directions), "scores": np.stack(scores)}


def sensitivities(
  policy: Policy,
  params: Any,
  rows: Sequence[Sequence[int]],
  progress: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
  """Sens-Merging's sensitivities of `lcrl.merging.sensitivity.groups`, [groups] float32.

  The sum of |w dL/dw| over the group's weights, averaged over sequences; L is the mean negative
  log-likelihood of a sequence's tokens. Memory: the model and its gradient.

  Args:
    policy, params: the model.
    rows: sequences of tokens, the model's own data.
    progress: hears how many sequences are done.
  """
  total = np.zeros(len(groups(policy.config.layers)))
  for done, tokens in enumerate(rows):
    progress(done)
    if len(tokens) < 2:
      raise ValueError(f"sequence {done} has {len(tokens)} tokens: none is predicted.")
    total += np.asarray(_sensitivity(policy, params, _padded(tokens), len(tokens)), np.float64)
  progress(len(rows))
  return (total / len(rows)).astype(np.float32)


@partial(jax.jit, static_argnums=0)
def _sensitivity(policy: Policy, params, tokens, count) -> jax.Array:
  def loss(params):
    log_probs = jax.nn.log_softmax(policy.apply(params, tokens[None])[0].astype(jnp.float32))
    chosen = jnp.take_along_axis(log_probs[:-1], tokens[1:, None], -1)[:, 0]
    return -jnp.sum(jnp.where(jnp.arange(len(chosen)) < count - 1, chosen, 0.0)) / (count - 1)

  worth = lambda w, g: jnp.abs(w.astype(jnp.float32) * g.astype(jnp.float32))
  found = jax.tree.map(worth, params, jax.grad(loss)(params))
  by_layer = sum(x.reshape(len(x), -1).sum(1) for x in jax.tree.leaves(found["layers"]))
  rest = [sum(map(jnp.sum, jax.tree.leaves(found.get(n, {})))) for n in ("embed", "norm", "head")]
  return jnp.concatenate([by_layer, jnp.stack([jnp.asarray(x, jnp.float32) for x in rest])])


def logit_distance(
  policy: Policy, one: Any, other: Any, rows: Sequence[Sequence[int]]
) -> np.float32:
  """Mean distance of two models' logits: over positions of a sequence, then over sequences."""
  found = [_distance(policy, one, other, _padded(tokens), len(tokens)) for tokens in rows]
  return np.float32(np.mean(found))


@partial(jax.jit, static_argnums=0)
def _distance(policy: Policy, one, other, tokens, count) -> jax.Array:
  logits = lambda params: policy.apply(params, tokens[None])[0].astype(jnp.float32)
  apart = jnp.linalg.norm(logits(one) - logits(other), axis=-1)
  return jnp.sum(jnp.where(jnp.arange(len(tokens)) < count, apart, 0.0)) / count


def examples(
  path: Path, tokenizer: Tokenizer, *, end_of_thinking: str = "</think>"
) -> list[Example]:
  """Rows of JSON as tokens: "prompt", a text or messages, and "response" (or "raw_text").

  So the answers that `lcrl-evaluate` writes are examples. Thinking ends at
  `end_of_thinking`, and starts with the response or after its "<think>".

  Raises:
    ValueError: by line, for what is no such row.
  """
  found = []
  for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
      prompt, response = row["prompt"], row.get("response", row.get("raw_text"))
      text = prompt if isinstance(prompt, str) else tokenizer.render(prompt)
      found.append(_example(tokenizer, text, response or "", end_of_thinking))
    except (ValueError, KeyError, TypeError, AttributeError) as why:
      raise ValueError(f"{path}:{number} is no row with prompt and response: {why!r}") from why
  if not found:
    raise ValueError(f"{path} holds no examples.")
  return found


def _example(tokenizer: Tokenizer, prompt: Any, response: str, end: str) -> Example:
  start = response.find("<think>") + len("<think>") if "<think>" in response else 0
  before = [*tokenizer.encode(prompt), *tokenizer.encode(response[:start])]
  thinking, closed, _ = response[start:].partition(end)
  rest = tokenizer.encode(response[start:])
  return Example(before, tokenizer.encode(thinking) if closed else None, [*before, *rest])

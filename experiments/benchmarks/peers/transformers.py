"""transformers: `generate`, and a plain GRPO update in torch, on random weights.

Sampling has weights of the job's dtype; training has float32 weights under autocast. Attention is
torch's own (sdpa), AdamW is fused, only logits of responses are made. Not packed, no prompt shared.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from typing import Any

from experiments.benchmarks import shapes
from experiments.benchmarks.peers import Job


def step(job: Job) -> dict[str, Any]:
  """A copy of the weights samples, then the update trains on its rows."""
  import torch

  trained, sampler = _model(job, "float32"), _model(job, job.dtype).eval()
  optimizer = _optimizer(trained)
  tokens, live, advantages = _rollouts(job)
  parts, warm = [], 2 if job.compile else 1
  for _ in range(warm + job.repeats):
    start = time.perf_counter()
    with torch.no_grad():
      torch._foreach_copy_(list(sampler.parameters()), list(trained.parameters()))
    rows = _generate(sampler, tokens[:, : job.asked], job)
    _wait()
    sampled = time.perf_counter()
    _train(trained, optimizer, (rows, live, advantages), job)
    _wait()
    end = time.perf_counter()
    parts.append({"step_s": end - start, "sampling_s": sampled - start, "update_s": end - sampled})
  middle = {name: statistics.median(part[name] for part in parts[warm:]) for name in parts[0]}
  times = [part["step_s"] for part in parts]
  return _found({**middle, "first_step_s": times[0], "all_s": [round(t, 4) for t in times]})


def sampling(job: Job) -> dict[str, Any]:
  """`generate` of all rows at once; where nothing is compiled, few tokens warm it up. Rows of
  unequal lengths are batched continuously."""
  if job.heavy:
    return _continuous(job)
  model, prompts = _model(job, job.dtype).eval(), _rollouts(job)[0][:, : job.asked]

  def run(limit: int):
    _generate(model, prompts, job._replace(limit=limit))
    _wait()

  few = job.limit if job.compile else min(job.limit, 4)
  found = shapes.timed(lambda: run(job.limit), job.repeats, first=lambda: run(few))
  return _found(found | {"tokens_per_s": job.work.rows * job.limit / found["seconds"]})


def _continuous(job: Job) -> dict[str, Any]:
  """One call with a cap a row, after its own warm-up: pages, prefix sharing and CUDA graphs as the
  library chooses them."""
  library, model = _library(), _model(job, job.dtype).eval()
  rows = _rollouts(job)[0][:, : job.asked].tolist()
  caps = job.work.lengths().reshape(-1).tolist()
  drawn = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=-1)
  how = library.GenerationConfig(max_new_tokens=job.limit, pad_token_id=0, **drawn)
  batching = library.ContinuousBatchingConfig(max_requests_per_batch=job.slots)
  begin = time.perf_counter()
  lengths: list[int] = []
  with model.continuous_batching_context_manager(
    generation_config=how, continuous_batching_config=batching, timeout=5
  ) as manager:
    start = time.perf_counter()
    for row, cap in zip(rows, caps, strict=True):
      manager.add_request(row, max_new_tokens=cap)
    while len(lengths) < len(rows):
      result = manager.get_result(timeout=1)
      if result and result.is_finished():
        lengths.append(len(result.generated_tokens))
      elif result is None and not manager.is_running():
        raise RuntimeError(f"It stopped after {len(lengths)} of {len(rows)} rows.")
    seconds = time.perf_counter() - start
    attention = model.config._attn_implementation
  if sum(lengths) != sum(caps):
    raise ValueError(f"The responses have {sum(lengths)} tokens, not {sum(caps)}.")
  return _found(
    {
      "seconds": seconds,
      "first_s": start - begin + seconds,
      "tokens_per_s": sum(lengths) / seconds,
      "attention": attention,
    }
  )


def update(job: Job) -> dict[str, Any]:
  """A step of the optimizer on rollouts that are there, in micro-batches."""
  model = _model(job, "float32")
  optimizer, batch = _optimizer(model), _rollouts(job)

  def run():
    _train(model, optimizer, batch, job)
    _wait()

  found = shapes.timed(run, job.repeats, warm=2)
  used = job.work.rows * job.asked + int(job.work.lengths().sum())
  return _found(found | {"tokens_per_s": used / found["seconds"]})


def log_probs(job: Job) -> dict[str, Any]:
  """Log-softmax of all logits, and the product that makes these: both ways."""
  import torch

  like = dict(device=_device(), dtype=getattr(torch, job.dtype))
  hidden = torch.randn(job.tokens, job.hidden, **like).requires_grad_()
  head = (torch.randn(job.hidden, job.vocab, **like) * job.hidden**-0.5).requires_grad_()
  targets = torch.randint(job.vocab, (job.tokens, 1), device=_device())

  def run():
    hidden.grad = head.grad = None
    logits = (hidden @ head).float()
    torch.log_softmax(logits, -1).gather(-1, targets).sum().backward()
    _wait()

  found = {"median_ms": 1e3 * shapes.timed(run, job.repeats)["seconds"]}
  if torch.cuda.is_available():
    kept = torch.cuda.memory_allocated()  # inputs and gradients
    torch.cuda.reset_peak_memory_stats()
    run()
    found["temp_gib"] = (torch.cuda.max_memory_allocated() - kept) / 2**30
  return _found(found)


PARTS = {"step": step, "sampling": sampling, "update": update, "log_probs": log_probs}


def _device() -> Any:
  import torch

  return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _wait() -> None:
  import torch

  if torch.cuda.is_available():
    torch.cuda.synchronize()


@functools.cache
def _library() -> Any:
  import torch
  import transformers

  torch.set_float32_matmul_precision("high")
  transformers.logging.set_verbosity_error()
  return transformers


def _model(job: Job, dtype: str) -> Any:
  """The job's shape with random weights of this dtype."""
  import torch

  library, c = _library(), job.config
  kinds = {"llama": library.LlamaConfig, "qwen2": library.Qwen2Config}
  if c.rope.scaling != "default" or c.family not in kinds:
    raise ValueError(f"{job.shape}: the peer would run another model.")
  config = kinds[c.family](
    vocab_size=c.vocab_size,
    hidden_size=c.hidden_size,
    intermediate_size=c.mlp_size,
    num_hidden_layers=c.layers,
    num_attention_heads=c.heads,
    num_key_value_heads=c.kv_heads,
    head_dim=c.head_dim,
    max_position_embeddings=max(c.max_length, job.asked + job.limit),
    rms_norm_eps=c.norm_eps,
    tie_word_embeddings=c.tied,
    rope_parameters={"rope_type": "default", "rope_theta": c.rope.theta},
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
  )
  torch.manual_seed(0)
  with _device():
    model = library.AutoModelForCausalLM.from_config(
      config, attn_implementation="sdpa", dtype=getattr(torch, dtype)
    )
  model.train()
  if job.remat:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
  return model


def _optimizer(model: Any) -> Any:
  import torch

  return torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)


def _rollouts(job: Job) -> tuple[Any, Any, Any]:
  """Tokens [rows, asked + limit], which of the responses' live [rows, limit], advantages [rows]."""
  import numpy as np
  import torch

  tokens, advantages = shapes.made_up(job.work, job.config.vocab_size)
  live = np.arange(job.limit) < job.work.lengths()[..., None]
  place = functools.partial(torch.as_tensor, device=_device())
  rows = place(tokens.reshape(job.work.rows, -1), dtype=torch.int64)
  return rows, place(live.reshape(job.work.rows, -1)), place(advantages.reshape(-1))


def _generate(model: Any, prompts: Any, job: Job) -> Any:
  """[rows, asked + limit]: all of the vocabulary can be drawn, nothing ends a row."""
  import torch

  with torch.inference_mode():
    rows = model.generate(
      prompts,
      attention_mask=torch.ones_like(prompts),
      max_new_tokens=job.limit,
      do_sample=True,
      temperature=1.0,
      top_k=0,
      top_p=1.0,
      **({"cache_implementation": "static"} if job.compile else {}),
    )
  if rows.shape[1] != job.asked + job.limit:
    raise ValueError(f"A response has {rows.shape[1] - job.asked} tokens, not {job.limit}.")
  return rows.clone()


def _train(model: Any, optimizer: Any, batch: tuple[Any, Any, Any], job: Job) -> None:
  """GRPO without KL on (tokens, live, advantages): each token of the batch counts alike."""
  import torch

  count = batch[1].sum()
  optimizer.zero_grad(set_to_none=True)
  for rows, live, advantages in zip(*(x.split(job.micro * job.group) for x in batch), strict=True):
    low = functools.partial(torch.autocast, _device().type, dtype=getattr(torch, job.dtype))
    with low() if job.dtype != "float32" else contextlib.nullcontext():
      logits = _forward(model, job)(rows[:, :-1], logits_to_keep=job.limit, use_cache=False).logits
    targets = rows[:, -job.limit :].reshape(-1)
    losses = torch.nn.functional.cross_entropy(
      logits.flatten(0, 1).float(), targets, reduction="none"
    )
    log_probs = -losses.view_as(live)
    ratio = torch.exp(log_probs - log_probs.detach())
    gain, clipped = (r * advantages[:, None] for r in (ratio, ratio.clamp(0.8, 1.2)))
    (-(torch.minimum(gain, clipped) * live).sum() / count).backward()
  torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
  optimizer.step()


@functools.cache
def _forward(model: Any, job: Job) -> Any:
  import torch

  return torch.compile(model) if job.compile else model


def _found(measured: dict[str, Any]) -> dict[str, Any]:
  """With where and with what."""
  import torch

  here = torch.cuda.is_available()
  peak = torch.cuda.max_memory_allocated() / 2**30 if here else None
  return {
    "device": torch.cuda.get_device_name() if here else "cpu",
    "devices": 1,
    "versions": shapes.versions("torch", "transformers", "triton"),
    **measured,
    "peak_gib": peak,
  }

# %% [markdown]
# # The losses in your own trainer
#
# The rewards, advantages and losses of `lcrl` are pure functions of arrays. They need neither its
# training loop nor its models. This notebook trains one small policy three times: with parameters in
# a dict and optax, with flax NNX, and with equinox. The lines that call `lcrl` are the same in all
# three. It takes half a minute on two quiet CPU cores.

# %%
import importlib.util
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from IPython.display import Image

from lcrl.advantages import group_normalized_advantage
from lcrl.evaluation import plots
from lcrl.losses import clipped_surrogate_loss, token_mean
from lcrl.rewards import step_bonus_reward

# %% [markdown]
# ## The task
#
# A prompt is a digit. An answer is a row of digits and an end token, and it is right if the digit of
# the prompt is among them. Two tokens are enough, and up to twelve are allowed: who writes many digits
# need not read the prompt.

# %%
END, VOCABULARY, LENGTH = 10, 11, 12
PROMPTS, GROUP, STEPS = 32, 8, 200


def read(tokens, prompts):
  """Answers [B, G, T] and prompts [B] -> mask [B, G, T], lengths and verdicts [B, G]."""
  ends = tokens == END
  mask = jnp.cumsum(ends, axis=-1) - ends == 0
  hits = jnp.any(mask & (tokens == prompts[:, None, None]), axis=-1)
  return mask, mask.sum(-1), hits & jnp.any(ends, axis=-1)


# %% [markdown]
# ## The lines that call lcrl
#
# The reward is 1 for a right answer, and half a point more if it has at most three tokens. GRPO
# compares the answers to a prompt with each other. Every token has the same weight. `log_probs` are
# those of your model, `[B, G, T]`.


# %%
def lcrl_loss(log_probs, tokens, prompts, bonus):
  mask, lengths, correct = read(tokens, prompts)
  everyone = jnp.ones(correct.shape, bool)
  target = jnp.full(lengths.shape, 3)
  rewards = step_bonus_reward(correct * 1.0, correct, lengths, target, alpha=bonus)
  advantages = group_normalized_advantage(rewards, everyone)
  old = jax.lax.stop_gradient(log_probs)
  weights = token_mean(mask, everyone)
  loss = jnp.sum(weights * clipped_surrogate_loss(log_probs, old, advantages, mask))
  return loss, {"accuracy": correct.mean(), "tokens": lengths.mean()}


# %% [markdown]
# ## What every trainer needs
#
# `logits` is your model: it reads prompt, previous token and position, of any common shape, and
# returns `[..., vocabulary]`. We sample with it, score the sampled tokens with it, and draw prompts.


# %%
def sample(logits, prompts, key):
  """Answers [B, G, T] of the policy."""

  def step(previous, inputs):
    position, key = inputs
    tokens = jax.random.categorical(key, logits(prompts[:, None], previous, position))
    return tokens, tokens

  first = jnp.full((PROMPTS, GROUP), END)
  _, tokens = jax.lax.scan(step, first, (jnp.arange(LENGTH), jax.random.split(key, LENGTH)))
  return jnp.moveaxis(tokens, 0, -1)


def score(logits, tokens, prompts):
  """The log-probs [B, G, T] of answers."""
  previous = jnp.concatenate([jnp.full_like(tokens[..., :1], END), tokens[..., :-1]], axis=-1)
  log_probs = jax.nn.log_softmax(logits(prompts[:, None, None], previous, jnp.arange(LENGTH)))
  return jnp.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]


def draw(step):
  """The prompts [B] of a step, and its key."""
  prompt_key, key = jax.random.split(jax.random.fold_in(jax.random.key(0), step))
  return jax.random.randint(prompt_key, (PROMPTS,), 0, 10), key


def curve(take_step):
  """Takes all steps; the metrics of each, for a picture."""
  rows = [take_step(jnp.asarray(step)) for step in range(STEPS)]
  names = ("accuracy", "tokens")
  return {"step": range(STEPS), **{name: [float(row[name]) for row in rows] for name in names}}


curves = {}

# %% [markdown]
# ## Parameters in a dict, and optax

# %%
optimizer = optax.adam(1e-2)
SIZES = {"prompt": 10, "previous": VOCABULARY, "position": LENGTH, "hidden": 32, "out": 32}


def init(key):
  keys = dict(zip(SIZES, jax.random.split(key, len(SIZES)), strict=True))
  wide = {name: VOCABULARY if name == "out" else 32 for name in SIZES}
  return {name: jax.random.normal(keys[name], (SIZES[name], wide[name])) * 0.2 for name in SIZES}


def plain_logits(params, prompt, previous, position):
  x = params["prompt"][prompt] + params["previous"][previous] + params["position"][position]
  return jnp.tanh(x @ params["hidden"]) @ params["out"]


@partial(jax.jit, static_argnames="bonus")
def plain_step(params, opt_state, step, bonus):
  prompts, key = draw(step)
  tokens = sample(partial(plain_logits, params), prompts, key)

  def loss(params):
    return lcrl_loss(score(partial(plain_logits, params), tokens, prompts), tokens, prompts, bonus)

  grads, metrics = jax.grad(loss, has_aux=True)(params)
  updates, opt_state = optimizer.update(grads, opt_state, params)
  return optax.apply_updates(params, updates), opt_state, metrics


def plain_run(bonus):
  params = init(jax.random.key(1))
  opt_state = optimizer.init(params)

  def take_step(step):
    nonlocal params, opt_state
    params, opt_state, metrics = plain_step(params, opt_state, step, bonus)
    return metrics

  return curve(take_step)


curves["no bonus"] = plain_run(bonus=0.0)
curves["optax"] = plain_run(bonus=0.5)
for name, rows in curves.items():
  print(f"{name:9} right {rows['accuracy'][-1]:.0%}  {rows['tokens'][-1]:.1f} tokens")

# %% [markdown]
# ## flax NNX


# %%
class Model(nnx.Module):
  def __init__(self, rngs):
    self.prompt = nnx.Embed(10, 32, rngs=rngs)
    self.previous = nnx.Embed(VOCABULARY, 32, rngs=rngs)
    self.position = nnx.Embed(LENGTH, 32, rngs=rngs)
    self.hidden = nnx.Linear(32, 32, rngs=rngs)
    self.out = nnx.Linear(32, VOCABULARY, rngs=rngs)

  def __call__(self, prompt, previous, position):
    x = self.prompt(prompt) + self.previous(previous) + self.position(position)
    return self.out(jnp.tanh(self.hidden(x)))


@nnx.jit
def nnx_step(model, optimizer, step):
  prompts, key = draw(step)
  tokens = jax.lax.stop_gradient(sample(model, prompts, key))

  def loss(model):
    return lcrl_loss(score(model, tokens, prompts), tokens, prompts, bonus=0.5)

  grads, metrics = nnx.grad(loss, has_aux=True)(model)
  optimizer.update(model, grads)
  return metrics


model = Model(nnx.Rngs(1))
nnx_optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
curves["flax NNX"] = curve(lambda step: nnx_step(model, nnx_optimizer, step))

# %% [markdown]
# ## Equinox
#
# If equinox is not there, the next cell puts it into a folder of its own, so that your environment
# stays as it is. Without a network it says so, and this part is left out.

# %%
if importlib.util.find_spec("equinox") is None:
  folder = tempfile.mkdtemp()
  packages = ["equinox", "jaxtyping", "wadler-lindig"]
  install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
  failed = subprocess.run([*install, *packages], capture_output=True).returncode
  sys.path.append(folder)
  print("equinox could not be fetched: this part is left out" if failed else "equinox is fetched")

# %%
if importlib.util.find_spec("equinox") is not None:
  import equinox as eqx

  class Equinox(eqx.Module):
    prompt: eqx.nn.Embedding
    previous: eqx.nn.Embedding
    position: eqx.nn.Embedding
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, key):
      keys = jax.random.split(key, 5)
      self.prompt = eqx.nn.Embedding(10, 32, key=keys[0])
      self.previous = eqx.nn.Embedding(VOCABULARY, 32, key=keys[1])
      self.position = eqx.nn.Embedding(LENGTH, 32, key=keys[2])
      self.hidden = eqx.nn.Linear(32, 32, key=keys[3])
      self.out = eqx.nn.Linear(32, VOCABULARY, key=keys[4])

    def __call__(self, prompt, previous, position):
      return jnp.vectorize(self.one, signature="(),(),()->(v)")(prompt, previous, position)

    def one(self, prompt, previous, position):
      x = self.prompt(prompt) + self.previous(previous) + self.position(position)
      return self.out(jnp.tanh(self.hidden(x)))

  @eqx.filter_jit
  def equinox_step(model, opt_state, step):
    prompts, key = draw(step)
    tokens = sample(model, prompts, key)

    def loss(model):
      return lcrl_loss(score(model, tokens, prompts), tokens, prompts, bonus=0.5)

    grads, metrics = eqx.filter_grad(loss, has_aux=True)(model)
    updates, opt_state = optimizer.update(grads, opt_state, model)
    return eqx.apply_updates(model, updates), opt_state, metrics

  equinox_model = Equinox(jax.random.key(1))
  equinox_state = optimizer.init(eqx.filter(equinox_model, eqx.is_array))

  def take_step(step):
    global equinox_model, equinox_state
    equinox_model, equinox_state, metrics = equinox_step(equinox_model, equinox_state, step)
    return metrics

  curves["equinox"] = curve(take_step)

# %% [markdown]
# ## All of them
#
# Each curve is the mean over the 256 answers of a step. All four policies become right. Without the
# bonus the answers grow, since more digits hit more often; with it, all three trainers learn to read
# the prompt and end at three tokens, where the bonus begins.

# %%
picture = Path(tempfile.mkdtemp()) / "curves.png"
plots.curves(picture, curves)
for name, rows in curves.items():
  print(f"{name:9} right {rows['accuracy'][-1]:.0%}  {rows['tokens'][-1]:.1f} tokens")
Image(picture)

# %% [markdown]
# **In your code.** `python -m lcrl --methods` lists the methods with their functions. A reward takes
# arrays of any leading axes; functions that compare a group take `[..., G]`. Inside `jax.shard_map`,
# give `token_mean` the names of the mesh axes that cut the batch (`axis_name=`).

"""A reward, an advantage and a loss of lcrl inside Tunix's own GRPO learner: its steps are those of
lcrl on the rollouts that it sampled, and those of Tunix's own functions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tunix.models.qwen2 import model as qwen
from tunix.rl import common, function_registry, rl_cluster
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rollout.base_rollout import RolloutConfig

from lcrl import advantages, budgets, filters, losses, recipes, rewards
from lcrl.losses import policy, weights
from lcrl.training.step import shape, update
from lcrl.types import Recipe, TokenScores, TrainState
from tests.rollouts import random_rollouts

PROMPTS, GROUP, ASKED, LIMIT, STEPS = 4, 4, 4, 6, 3
PAD, END = 0, 1
OPTIMIZER = optax.sgd(0.5, momentum=0.9)
RECIPE = Recipe(
  budgets.fixed(target=3),
  rewards.exact_length(alpha=0.1),
  filters.keep_all(),
  advantages.group_normalized(),
  policy.clipped_surrogate(),
)


@pytest.fixture(autouse=True, scope="module")
def _its_broadcasting():
  jax.config.update("jax_numpy_rank_promotion", "allow")
  yield
  jax.config.update("jax_numpy_rank_promotion", "raise")


class Numbers:
  """Text is the numbers of the tokens; Tunix masks the padding even where it was sampled."""

  bos_id = pad_id = lambda self: PAD
  eos_id = lambda self: END

  def encode(self, text, **_):
    return [int(word) for word in text.split()]

  def decode(self, ids, **_):
    return " ".join(str(i) for i in ids if i != PAD)


def verdicts(completions):
  return np.array([sum(map(int, text.split())) % 3 == 0 for text in completions])


def exact_length(prompts, completions, **_):
  """The reward: lengths are compared with 3 tokens, those at the limit were cut."""
  tokens = [text.split() for text in completions]
  lengths = np.array([len(row) for row in tokens])
  cut = np.array([str(END) not in row for row in tokens])
  found = rewards.exact_length_reward(
    verdicts(completions), lengths, np.full_like(lengths, 3), alpha=0.1, truncated=cut
  )
  return found.tolist()


@function_registry.register_advantage_estimator("lcrl")
def estimate(rewards, num_generations):
  groups = np.asarray(rewards).reshape(-1, num_generations)
  found = advantages.group_normalized_advantage(groups, np.ones(groups.shape, bool))
  return np.asarray(found).reshape(-1)


def log_probs_of(graph, state, prompts, completions, temperature=1.0):
  return common.compute_per_token_logps(
    graph, state, prompts, completions, PAD, END, stop_gradient=False, temperature=temperature
  )


@function_registry.register_policy_loss_fn("lcrl")
def loss(model, train_example, algo_config, pad_id, eos_id):
  x, mask = train_example, train_example.completion_mask
  log_probs = log_probs_of(*nnx.split(model), x.prompt_ids, x.completion_ids)
  old = jax.lax.stop_gradient(log_probs)
  weight = losses.sequence_mean(mask, jnp.ones(mask.shape[:1], bool))
  value = jnp.sum(weight * losses.clipped_surrogate_loss(log_probs, old, x.advantages, mask))
  return value, {"kl": 0.0, "pg_clipfrac": 0.0}


def make_model():
  size = dict(num_layers=1, vocab_size=16, embed_dim=16, hidden_dim=16, num_heads=2, head_dim=8)
  config = qwen.ModelConfig(
    **size, num_kv_heads=2, rope_theta=10_000, norm_eps=1e-6, use_tied_embedding=True
  )
  graph, state = nnx.split(qwen.Qwen2(config, rngs=nnx.Rngs(0)))
  # Tied and as large as they begin, they would repeat the last token.
  return nnx.merge(graph, jax.tree.map(lambda x: 0.3 * x.astype(jnp.float32), state))


class Learner(GRPOLearner):
  """Keeps what it trained on, and the parameters that sampled it."""

  def _generate_and_compute_advantage(self, training_input, mode=rl_cluster.Mode.TRAIN):
    example = super()._generate_and_compute_advantage(training_input, mode)
    self.kept.append((example, parameters(self.rl_cluster.actor_trainer.model)))
    return example


def parameters(model):
  return jax.tree.map(lambda x: np.array(x), nnx.state(model, nnx.Param))


def train(name):
  """-> examples, and the parameters before each step and after the last."""
  mesh = jax.sharding.Mesh([[jax.devices()[0]]], ("fsdp", "tp"))
  roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.REFERENCE, rl_cluster.Role.ROLLOUT)
  cluster = rl_cluster.RLCluster(
    actor=make_model(),
    tokenizer=Numbers(),
    cluster_config=rl_cluster.ClusterConfig(
      role_to_mesh=dict.fromkeys(roles, mesh),
      training_config=rl_cluster.RLTrainingConfig(
        actor_optimizer=OPTIMIZER,
        eval_every_n_steps=100,
        max_steps=STEPS,
        mini_batch_size=PROMPTS,
        train_micro_batch_size=PROMPTS,
        rollout_micro_batch_size=PROMPTS,
        compute_logps_micro_batch_size=PROMPTS,
      ),
      rollout_config=RolloutConfig(
        max_tokens_to_generate=LIMIT,
        max_prompt_length=ASKED,
        kv_cache_size=ASKED + LIMIT,
        temperature=1.0,
        top_p=1.0,
      ),
    ),
  )
  config = GRPOConfig(
    num_generations=GROUP, beta=0.0, policy_loss_fn=name, advantage_estimator=name
  )
  learner = Learner(cluster, algo_config=config, reward_fns=exact_length)
  learner.kept = []
  draw = np.random.default_rng(0)
  asked = draw.integers(2, 16, (STEPS, PROMPTS, ASKED))
  with mesh:
    texts = ([" ".join(map(str, row)) for row in rows] for rows in asked)
    learner.train([{"prompts": np.array(rows)} for rows in texts])
  examples, steps = zip(*learner.kept, strict=True)
  return examples, [*steps, parameters(cluster.actor_trainer.model)]


@pytest.fixture(scope="module")
def trained():
  return train("lcrl")


def rollouts_of(example):
  """The rollouts of lcrl, [B, G, T], that are Tunix's rows."""
  asked = example.prompt_ids.shape[1]
  cut = lambda x: jnp.asarray(x).reshape(PROMPTS, GROUP, *x.shape[1:])
  mask = cut(jnp.pad(example.completion_mask, ((0, 0), (asked, 0))))
  texts = [
    " ".join(str(token) for token, kept in zip(*row, strict=True) if kept)
    for row in zip(np.array(example.completion_ids), np.array(example.completion_mask), strict=True)
  ]
  r = random_rollouts(prompts=PROMPTS, group=GROUP, length=asked + LIMIT, prompt_length=asked)
  return dataclasses.replace(
    r,
    tokens=cut(jnp.concatenate([example.prompt_ids, example.completion_ids], 1)),
    mask=mask,
    lengths=mask.sum(-1),
    correct=cut(verdicts(texts)),
    truncated=~cut(np.any(np.array(example.completion_ids) == END, 1)),
    budget=jax.tree.map(lambda x: jnp.full_like(x, 3), r.budget),
  )


def close(got, want):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), got, want)


def test_the_steps_are_those_of_lcrl(trained):
  examples, steps = trained
  graph = nnx.graphdef(make_model())
  asked = examples[0].prompt_ids.shape[1]

  def score(params, r):
    rows = r.tokens.reshape(-1, r.tokens.shape[-1])
    found = log_probs_of(graph, params, rows[:, :asked], rows[:, asked:])
    return TokenScores(jnp.pad(found, ((0, 0), (asked, 0))).reshape(r.tokens.shape))

  @jax.jit
  def take(state, r):
    knobs = dict(weigh=weights.sequence_mean, step=state.step, key=jax.random.key(0))
    batch, _ = shape(RECIPE, state.recipe, r, **knobs)
    run = dict(score=score, recipe=RECIPE, weigh=weights.sequence_mean, optimizer=OPTIMIZER)
    return batch.advantages, update(state, batch, **run)[0]

  state = TrainState(
    step=jnp.int32(0),
    params=steps[0],
    opt_state=OPTIMIZER.init(steps[0]),
    recipe=recipes.init(RECIPE),
    position=jnp.int32(0),
    counters={},
  )
  for example, after in zip(examples, steps[1:], strict=True):
    found, state = take(state, rollouts_of(example))
    close(example.advantages, found.reshape(-1))
    assert np.abs(example.advantages).max() > 0.5
    close(after, state.params)
  moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), steps[0], steps[-1])
  assert max(jax.tree.leaves(moved)) > 0.01


def test_the_steps_are_those_of_tunix(trained):
  examples, steps = train("grpo")
  for got, want in zip(trained[0], examples, strict=True):
    np.testing.assert_array_equal(got.completion_ids, want.completion_ids)
    close(got.advantages, want.advantages)
  for got, want in zip(trained[1], steps, strict=True):
    close(got, want)

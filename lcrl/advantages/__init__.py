"""Slot 4: what a rollout is worth compared with its group, or with the batch.

Group statistics run along the last axis, over the rollouts that `keep` selects; the others get 0.
A rollout alone in its group has nothing to be compared with and gets 0, as in TRL, from bare
functions and stages alike; `lone_raw=True` keeps its raw reward, as in verl. A run refuses groups
of one; a filter may leave one alone. Inside `jax.shard_map` groups are whole on a device, and what
is taken over the batch has an `axis_name`.
"""

from lcrl.advantages.anytime import budget_advantages as budget_advantages
from lcrl.advantages.anytime import budget_relative as budget_relative
from lcrl.advantages.canon import accuracy_mix as accuracy_mix
from lcrl.advantages.canon import canon_advantage as canon_advantage
from lcrl.advantages.canon import canon_entropy as canon_entropy
from lcrl.advantages.canon import canon_length as canon_length
from lcrl.advantages.canon import cosine_restarts as cosine_restarts
from lcrl.advantages.canon import cosine_restarts_weight as cosine_restarts_weight
from lcrl.advantages.components import component_advantages as component_advantages
from lcrl.advantages.components import component_average as component_average
from lcrl.advantages.components import component_average_advantage as component_average_advantage
from lcrl.advantages.components import gdpo as gdpo
from lcrl.advantages.components import gdpo_advantage as gdpo_advantage
from lcrl.advantages.decoupled import decoupled_reward as decoupled_reward
from lcrl.advantages.decoupled import decs as decs
from lcrl.advantages.decoupled import place_normalized_advantage as place_normalized_advantage
from lcrl.advantages.difficulty import difficulty_weight as difficulty_weight
from lcrl.advantages.difficulty import difficulty_weighted as difficulty_weighted
from lcrl.advantages.difficulty import (
  difficulty_weighted_advantage as difficulty_weighted_advantage,
)
from lcrl.advantages.group import batch_scaled as batch_scaled
from lcrl.advantages.group import batch_scaled_advantage as batch_scaled_advantage
from lcrl.advantages.group import discounted_return as discounted_return
from lcrl.advantages.group import group_centered as group_centered
from lcrl.advantages.group import group_centered_advantage as group_centered_advantage
from lcrl.advantages.group import group_normalized as group_normalized
from lcrl.advantages.group import group_normalized_advantage as group_normalized_advantage
from lcrl.advantages.group import leave_one_out as leave_one_out
from lcrl.advantages.group import leave_one_out_advantage as leave_one_out_advantage
from lcrl.advantages.group import raw as raw
from lcrl.advantages.group import reinforce as reinforce
from lcrl.advantages.group import reinforce_baseline as reinforce_baseline
from lcrl.advantages.group import whitened as whitened
from lcrl.advantages.length import budget_subgroup as budget_subgroup
from lcrl.advantages.length import budget_subgroup_advantage as budget_subgroup_advantage
from lcrl.advantages.length import qglas as qglas
from lcrl.advantages.length import qglas_advantage as qglas_advantage
from lcrl.advantages.length import qglas_weight as qglas_weight
from lcrl.advantages.length import shortness_of_positive as shortness_of_positive
from lcrl.advantages.returns import block_progress as block_progress
from lcrl.advantages.returns import compression_reward as compression_reward
from lcrl.advantages.returns import dense_repetition_reward as dense_repetition_reward
from lcrl.advantages.returns import generalized_advantage as generalized_advantage
from lcrl.advantages.returns import multi_discount as multi_discount
from lcrl.advantages.returns import multi_discount_return as multi_discount_return
from lcrl.advantages.returns import thinking_compression as thinking_compression

__all__ = [
  "accuracy_mix",
  "batch_scaled",
  "batch_scaled_advantage",
  "block_progress",
  "budget_advantages",
  "budget_relative",
  "budget_subgroup",
  "budget_subgroup_advantage",
  "canon_advantage",
  "canon_entropy",
  "canon_length",
  "component_advantages",
  "component_average",
  "component_average_advantage",
  "compression_reward",
  "cosine_restarts",
  "cosine_restarts_weight",
  "decoupled_reward",
  "decs",
  "dense_repetition_reward",
  "difficulty_weight",
  "difficulty_weighted",
  "difficulty_weighted_advantage",
  "discounted_return",
  "gdpo",
  "gdpo_advantage",
  "generalized_advantage",
  "group_centered",
  "group_centered_advantage",
  "group_normalized",
  "group_normalized_advantage",
  "leave_one_out",
  "leave_one_out_advantage",
  "multi_discount",
  "multi_discount_return",
  "place_normalized_advantage",
  "qglas",
  "qglas_advantage",
  "qglas_weight",
  "raw",
  "reinforce",
  "reinforce_baseline",
  "shortness_of_positive",
  "thinking_compression",
  "whitened",
]

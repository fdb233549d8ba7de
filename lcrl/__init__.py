"""Length-controlled reinforcement learning for language models, in JAX."""

from lcrl import advantages as advantages
from lcrl import budgets as budgets
from lcrl import filters as filters
from lcrl import losses as losses
from lcrl import rewards as rewards
from lcrl.types import Batch as Batch
from lcrl.types import Budget as Budget
from lcrl.types import Recipe as Recipe
from lcrl.types import Rollouts as Rollouts
from lcrl.types import Stage as Stage
from lcrl.types import TokenScores as TokenScores

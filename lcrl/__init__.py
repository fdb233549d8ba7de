"""Length-controlled reinforcement learning for language models, in JAX.

The five slots of a method are `budgets`, `rewards`, `filters`, `advantages` and `losses`. Their
functions take and return arrays and need nothing but JAX. `recipes` puts a method together from a
config; `training`, `sampling`, `policies`, `tasks`, `data`, `evaluation` and `merging` are imported
by name.
"""

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

__version__ = "0.1.0"

__all__ = [
  "Batch",
  "Budget",
  "Recipe",
  "Rollouts",
  "Stage",
  "TokenScores",
  "__version__",
  "advantages",
  "budgets",
  "filters",
  "losses",
  "rewards",
]

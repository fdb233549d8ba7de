"""Demo, studies and benchmarks of the repository.

`python -m experiments.train` and its like run the commands of the library from a clone, too.
"""

from lcrl import commands

__path__ += commands.__path__

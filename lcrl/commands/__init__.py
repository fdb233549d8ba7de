"""The commands of the library. Each is a console script: `lcrl-train` is `lcrl.commands.train`."""

from pathlib import Path

# What a wheel holds besides the package: configs and METHODS.md, which setup.py puts there.
SHIPPED = Path(__file__).parents[1] / "shipped"

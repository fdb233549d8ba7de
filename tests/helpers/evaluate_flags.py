"""Flags of lcrl.commands.evaluate."""

import types


def flags(config=None, **given):
  """What the command line says, with its defaults."""
  names = (
    "workdir step model budgets pass_at temperature along strengths sets targets levels efforts "
    "front control task measures recipe reward"
  )
  said = {"control": None, "prompts": 6, "batch": 4, "seed": 0, "samples": 2, "out": "out", **given}
  said["config"] = config and types.SimpleNamespace(to_dict=lambda: config)
  return types.SimpleNamespace(**{**dict.fromkeys(names.split()), **said})

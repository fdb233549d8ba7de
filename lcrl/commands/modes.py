"""The mode of a config: what stands after the colon of `--config=configs/laser.py:d,smoke`.

It names a variant, where a config has VARIANTS, and a size, "full" or "smoke"; either may be left
out.
"""

from collections.abc import Sequence

from lcrl.values import nearest

SIZES = ("full", "smoke")


def is_smoke(mode: str, variants: Sequence[str] = ()) -> bool:
  """Whether a config is asked for in its smoke mode.

  >>> is_smoke("d,smoke", ("", "d"))
  True

  Raises:
    ValueError: the mode has a name that does not exist, or two that exclude each other.
  """
  return _parts(mode, variants)[1] == "smoke"


def variant_of(mode: str, variants: Sequence[str]) -> str:
  """The variant that the mode names, otherwise the first one. Raises as `is_smoke` does.

  >>> variant_of("d,smoke", ("", "d")), variant_of("smoke", ("", "d"))
  ('d', '')
  """
  return _parts(mode, variants)[0]


def _parts(mode: str, variants: Sequence[str]) -> tuple[str, str]:
  names = mode.split(",")
  known = [*filter(None, variants), *SIZES]
  for name in names:
    if name not in known:
      raise ValueError(
        f"mode must be one of {', '.join(known)}, got {name!r}{nearest(name, known) or '.'}"
      )
  for among in (variants, SIZES):
    if len(chosen := [name for name in names if name in among]) > 1:
      raise ValueError(f"mode={mode!r} must name one of {' and '.join(chosen)}.")
  variant = next((name for name in names if name in variants), variants[0] if variants else "")
  return variant, next((name for name in names if name in SIZES), SIZES[0])

"""Constraints for pip, the oldest versions that a wheel allows: `python oldest.py WHEEL`."""

import re
import sys
import zipfile


def oldest(metadata: str) -> list[str]:
  """`name==version` for each requirement with a lower bound."""
  found = re.findall(
    r"^Requires-Dist: ([\w-]+)(?:\[[\w,-]+\])?\s*>=([\w.]+)", metadata, re.MULTILINE
  )
  return sorted({f"{name}=={version}" for name, version in found})


if __name__ == "__main__":
  with zipfile.ZipFile(sys.argv[1]) as wheel:
    (name,) = (x for x in wheel.namelist() if x.endswith(".dist-info/METADATA"))
    print("\n".join(oldest(wheel.read(name).decode())))

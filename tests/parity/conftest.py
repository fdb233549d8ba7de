"""These compare with torch live: `make test-parity` runs them, in an environment of its own."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["*_parity.py"]

"""Files `*_interop.py` need other libraries: `make test-interop` runs them, in an environment of
its own."""

import importlib.util

collect_ignore_glob = [] if importlib.util.find_spec("trl") else ["*_interop.py"]

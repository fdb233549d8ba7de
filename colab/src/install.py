# The install cell of every notebook: `python -m experiments.notebooks` fills in both constants.
import importlib.util
import pathlib
import shutil
import subprocess
import sys

REPOSITORY = ""  # a git address of lcrl
PACKAGE = ""  # a wheel of lcrl-jax: its file, its address, or its name on a package index


def is_there(name):
  try:
    return importlib.util.find_spec(name) is not None
  except ModuleNotFoundError:
    return False


if all(map(is_there, ("lcrl.training", "optax", "grain"))):
  way = "nothing to install"
else:
  here = pathlib.Path.cwd()
  clone = next((p for p in (here, *here.parents) if (p / "lcrl" / "registry.py").is_file()), None)
  wheel = next(map(str, here.glob("lcrl_jax-*.whl")), PACKAGE)
  extras = "train,cuda" if shutil.which("nvidia-smi") else "train"
  if clone:
    way, what = "installed from the clone", ["--editable", f"{clone}[{extras}]"]
    sys.path.insert(0, str(clone))
  elif wheel:
    way, what = "installed from the package", [f"{wheel}[{extras}]"]
  elif REPOSITORY:
    way, what = "installed from git", [f"lcrl-jax[{extras}] @ git+{REPOSITORY}"]
  else:
    raise SystemExit("Put a wheel of lcrl-jax beside this notebook, or fill in REPOSITORY.")
  subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", *what])
  importlib.invalidate_caches()
print("lcrl:", way)

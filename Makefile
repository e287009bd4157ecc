# Two commands from a fresh machine: `make demo` and `make test`. Everything else builds on them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
IMAGES ?=
# Test processes side by side: one more than two cores, since tests of servers and jobs wait much.
# Each starts the servers that its tests need.
JOBS   ?= 3
ROOMS  := base data_prep pretrain evaluation slurm demo

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo test lint format bench soak clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# The stamp makes a second run quick: pip is asked again only when a dependency changed.
$(VENV)/.ready: pyproject.toml constraints.txt hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit("hvc needs Python 3.11 or newer, this is %d.%d; set PYTHON=" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -qq torch
	@PIP_CONSTRAINT=constraints.txt $(BIN)/pip install -qq -e '.[dev]'
	@touch $@

setup: $(VENV)/.ready ## make the virtual environment

demo: setup ## the whole way in small: shard, pretrain, track, evaluate (IMAGES=DIR: your photos)
	@$(BIN)/hvc demo $(if $(IMAGES),--images '$(IMAGES)')

test: setup ## every test, with real Slurm, S3 and MLflow servers (ARGS=... for pytest)
	@$(BIN)/python tests/services/install.py
	@$(BIN)/python -m pytest -m 'not gpu' -n $(JOBS) --dist loadfile $(ARGS)

lint: setup ## ruff and mypy strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p .lint && ln -sfn .. .lint/hvc
	@cd .lint && MYPYPATH=. ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p hvc.hvc $(ROOMS:%=-p hvc.%)

format: setup ## let ruff put things in order
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

bench: setup ## the figures in benchmarks/results that this machine can measure, again
	@$(BIN)/python tests/services/install.py
	@failed=; gpu=$$($(BIN)/python -c 'import torch; print(torch.cuda.is_available())'); \
	for script in benchmarks/bench_*.py; do \
	  case $$script$$gpu in *gpu.pyFalse) echo "== $$script: left out, no GPU"; continue;; esac; \
	  echo "== $$script"; $(BIN)/python $$script || failed="$$failed $$script"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

soak: setup ## long trials: many kills at random moments (not part of CI)
	@$(BIN)/python tests/services/install.py
	@HVC_SOAK=1 $(BIN)/python -m pytest -m soak --timeout 7200 $(ARGS)

clean: ## remove the environment and what the demo wrote
	rm -rf $(VENV) demo-output .lint .mypy_cache .ruff_cache .pytest_cache

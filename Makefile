# Everything runs from a virtual environment in .venv that the first target makes: a fresh checkout needs no other step.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# A stamp says that the environment holds what pyproject.toml asks for, per extra.
DEMO := $(VENV)/.stamp-demo
DEV := $(VENV)/.stamp-dev

.DEFAULT_GOAL := help
.PHONY: help demo peer test lint format schema proto acceptance bench clean distclean

# Two pip runs must not share one environment.
.NOTPARALLEL:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Variables: PYTHON=python3.12 (makes .venv), ARGS="tests/config -x" (goes to pytest or the acceptance run)'

demo: $(DEMO) ## Hold a phone call with sound: recording, timeline and latencies go to demo-out/
	$(BIN)/python pipelines/demo/phone_call.py $(ARGS)

peer: $(DEV) ## Build llama.cpp's own server, to compare with
	$(BIN)/python -m benchmarks.peer build

test: $(DEV) ## Run the tests
	$(BIN)/python -m pytest -m 'unit or model' $(ARGS)

lint: $(DEV) ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python proto/generate.py --check

format: $(DEV) ## Format the code and sort its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(DEV) ## Write profiles/profile.schema.json anew
	$(BIN)/python -c 'import json; from voice_llm.config.profile import profile_schema as schema; print(json.dumps(schema(), indent=2))' > $(VENV)/profile.schema.json
	mv $(VENV)/profile.schema.json profiles/profile.schema.json

proto: $(DEV) ## Generate voice_llm/_proto from the .proto files anew
	$(BIN)/python proto/generate.py

acceptance: $(DEV) ## Run the long proofs
	$(BIN)/python -m benchmarks.acceptance $(ARGS)

bench: peer ## Compare with the peers: how many calls each system holds; takes hours
	$(BIN)/python -m benchmarks.bench $(ARGS)

clean: ## Remove caches and build results; keeps .venv
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## Remove .venv too
	rm -rf $(VENV)

$(DEMO): EXTRA := demo
$(DEV): EXTRA := dev
$(DEMO) $(DEV): pyproject.toml | $(BIN)/python
	@$(BIN)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("llama_cpp") is None)' || { \
	  for tool in "$${CC:-cc}" "$${CXX:-c++}"; do \
	    command -v "$${tool%% *}" > /dev/null || { \
	      echo "No C and C++ compiler: '$$tool' is not there. It is needed to build llama-cpp-python." >&2; \
	      echo "Debian, Ubuntu: apt-get install build-essential. Fedora: dnf install gcc-c++. macOS: xcode-select --install" >&2; \
	      exit 1; \
	    }; \
	  done; \
	  echo "Setting up .venv. Building llama-cpp-python takes about six minutes on two cores, the first time only;"; \
	  echo "pip says little meanwhile."; \
	}
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[$(EXTRA)]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { \
	  found=$$($(PYTHON) --version 2> /dev/null) || found='not there'; \
	  echo "Python 3.11 or newer is needed, and '$(PYTHON)' is $$found. Name another: make PYTHON=python3.12" >&2; \
	  exit 1; \
	}
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

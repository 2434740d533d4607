# selfee: every task a contributor or a first-time user needs, one word each.
# An active virtual environment is used as it is; otherwise .venv is made here.
PYTHON ?= python3
VENV   ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN     = $(VENV)/bin
PIP     = PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet
NATIVE := $(shell find native -name '*.cpp' -o -name '*.h') CMakeLists.txt pyproject.toml constraints.txt

.PHONY: help setup demo check test bench clients docs fuzz clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.selfee-core: $(NATIVE) | $(BIN)/python
	@echo "Installing selfee (compiles its kernels, about a minute) ..." >&2
	@$(PIP) --editable .
	@touch $@

$(VENV)/.selfee-dev: $(VENV)/.selfee-core
	@echo "Installing what the tests need ..." >&2
	@$(PIP) torch==2.13.0  # first and by itself: what depends on it would take whichever is newest
	@$(PIP) --editable '.[dev,train,trl]'
	@touch $@

setup: $(VENV)/.selfee-dev  ## Make the environment, compile, install what development needs

demo: $(VENV)/.selfee-core  ## Watch a real model answer, criticise itself and revise
	$(BIN)/selfee ask "Why is the sky blue?" --min-revisions 1 --max-revisions 1 --seed 1

check: setup  ## Format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_floors.py tests/test_public_names.py tests/test_readme.py

test: check  ## All tests
	$(BIN)/python -m pytest -q

bench: setup  ## Measure and compare with the last recorded figures
	$(BIN)/python benchmarks/parser.py
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/quantizers.py
	$(BIN)/python benchmarks/delta.py
	$(BIN)/python -m benchmarks.limits
	model="$${SELFEE_TEST_MODEL:-$$($(BIN)/selfee models pull --quiet smollm2-135m)}"; \
	$(BIN)/python benchmarks/decode.py --model "$$model" --threads 1 --threads 2 && \
	$(BIN)/python benchmarks/batch.py --model "$$model" && $(BIN)/python benchmarks/prefill.py --model "$$model"

clients: setup  ## Clients of others, unmodified, against our server (needs a package index)
	$(BIN)/python tests/clients/run.py

docs: setup  ## Regenerate the pages that are made from code
	$(BIN)/python -m selfee.cli.reference

fuzz: setup  ## Ten minutes of damaged files for each container
	$(BIN)/python tests/fuzz/fuzz_gguf.py --seconds 600
	$(BIN)/python tests/fuzz/fuzz_ggml.py --seconds 600
	$(BIN)/python tests/fuzz/fuzz_tensors.py --seconds 600
	$(BIN)/python tests/fuzz/fuzz_session.py --seconds 600

clean:  ## Remove what was built
	rm -rf build .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

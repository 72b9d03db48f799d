SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
# One XLA thread, so that replicas are bit-identical and the timed runs keep a core to themselves.
# Three test files at a time, for two cores: tests of processes often wait. What needs an emulated
# WAN comes when all but quiet files end (tests/hand_out.py).
PYTEST := NPROC=1 OMP_NUM_THREADS=1 $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder
# More words for the command, e.g. make test ARGS="tests/wire -x".
ARGS ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install into .venv; as root on Debian/Ubuntu also Mininet and Fashion-MNIST
	@tools/setup.sh

.PHONY: demo
demo: setup ## the quickstart comparison: train across three centers and print the table
	@$(PY) -m experiments.demo $(ARGS)

.PHONY: test
test: setup ## the whole suite but the long tests; with root, on Mininet too
	@$(PYTEST) $(ARGS)

.PHONY: nightly
nightly: setup ## the long tests, and the property tests on fresh examples
	@$(PYTEST) -m "nightly or hypothesis" --hypothesis-profile=nightly --timeout=3600 \
	  --durations=20 $(ARGS)

.PHONY: lint
lint: setup ## ruff (rules and format) and pyright
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyright

.PHONY: format
format: setup ## let ruff format the code and mend what it can
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

.PHONY: clean
clean: ## remove .venv, caches and build products; results under outputs/ stay
	@rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

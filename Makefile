# One way to do a thing: what CI runs is what a person runs.

.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/sh
PY := .venv/bin/python
# Named here only: the program that writes the lock files is no part of the environment.
UV := uv==0.13.9
PYTHON ?=
export PYTHON
# Tests run side by side; a process that is idle takes tests from the one with most left.
# ARGS="-n 0" runs them one after the other, in one process.
SIDE_BY_SIDE := --dist worksteal --timeout 900

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## make .venv from the locked versions (nothing the second time)
	@sh scripts/setup.sh

.PHONY: demo
demo: setup ## declare, fill, kill and reopen a collection of real embeddings
	@$(PY) examples/demo.py

.PHONY: test
test: setup ## run the whole test suite
	$(PY) -m pytest -n 3 $(SIDE_BY_SIDE) $(ARGS)

.PHONY: test-unit
test-unit: setup ## run the fast tests alone
	$(PY) -m pytest tests/unit

.PHONY: test-operator
test-operator: setup ## run the tests that need a Kubernetes API server; skip none
	$(PY) -m tests.cluster.binaries
	VECSTOW_REQUIRE_CLUSTER=1 $(PY) -m pytest tests/operator tests/cluster -n 4 $(SIDE_BY_SIDE) $(ARGS)

.PHONY: test-chart
test-chart: setup ## try the Helm charts on a Kubernetes API server; skip none
	@sh scripts/chart-packages.sh
	$(PY) -m tests.chart.supplies
	VECSTOW_REQUIRE_CLUSTER=1 $(PY) -m pytest tests/chart -n 2 $(SIDE_BY_SIDE) $(ARGS)

.PHONY: charts
charts: setup ## make what of the charts is made: the definition's template, both READMEs
	$(PY) -m tests.chart.made

.PHONY: cluster
cluster: setup ## raise a Kubernetes without nodes to try things on, until Ctrl-C
	@$(PY) -m tests.cluster

.PHONY: e2e
e2e: setup ## install the charts on a real node, and try to lose data there; skip nothing
	@sh scripts/e2e-packages.sh
	$(PY) -m tests.e2e.supplies
	$(PY) -m pytest tests/e2e -n 2 --dist loadfile $(ARGS)

.PHONY: e2e-ci
e2e-ci: export VECSTOW_KILLS = 10
e2e-ci: export VECSTOW_REBOOTS = 2
e2e-ci: export VECSTOW_AWAY_SECONDS = 60
e2e-ci: e2e ## the same with fewer kills and a shorter outage

.PHONY: e2e-up
e2e-up: setup ## raise a Kubernetes with one node and the charts installed, until Ctrl-C
	@sh scripts/e2e-packages.sh
	@$(PY) -m tests.e2e

.PHONY: soak
soak: setup ## run clients at random with faults, kills and full disks (ARGS="--seconds 1800 --clients 20")
	@$(PY) -m tests.soak $(ARGS)

.PHONY: coverage
coverage: setup ## run the whole test suite and report branch coverage
	$(PY) -m pytest --cov --cov-report=term -n 3 $(SIDE_BY_SIDE) $(ARGS)

.PHONY: check
check: lint types layers ## run lint, types and layers

.PHONY: lint
lint: setup ## check style and formatting
	$(PY) -m ruff check
	$(PY) -m ruff format --check

.PHONY: types
types: setup ## check the types, strictly
	$(PY) -m mypy

.PHONY: layers
layers: setup ## check that each layer imports only what lies below it
	@.venv/bin/lint-imports --no-logo

.PHONY: format
format: setup ## format the code and mend what ruff can mend
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

.PHONY: bench
bench: setup ## measure speed; writes a table and JSON (ARGS="--help" for more)
	$(PY) -m benchmarks $(ARGS)

.PHONY: bench-operator
bench-operator: setup ## measure the operator with 1,000 and 5,000 resources (ARGS="--runs 1")
	$(PY) -m benchmarks operator $(ARGS)

# The locks name versions and hashes, never where they come from: that is pip's configuration.
LOCK := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header --no-emit-index-url --no-emit-find-links $(ARGS)

.PHONY: lock
lock: ## write the lock files anew (ARGS="--upgrade" takes newer versions)
	@test -x .venv-lock/bin/uv || { $${PYTHON:-python3} -m venv .venv-lock && .venv-lock/bin/pip install --quiet '$(UV)'; }
	$(LOCK) --all-extras --group dev pyproject.toml --output-file requirements.lock
	$(LOCK) --group pyproject.toml:build --constraints requirements.lock --output-file requirements-build.lock
	$(LOCK) --extra engine --extra operator --constraints requirements.lock pyproject.toml --output-file requirements-image.lock
	$(LOCK) tests/chart/checkov.in --output-file tests/chart/checkov.lock

DEPTH ?= ci

.PHONY: prove
prove: setup ## prove that no acknowledged write is lost (DEPTH=smoke, ci or night)
	$(PY) -m tests.crash.prove --depth $(DEPTH) $(ARGS)

.PHONY: hostile
hostile: setup ## attack each route of an engine that has 512 MiB
	$(PY) -m pytest tests/hostile -n 0 --timeout 300 $(ARGS)

.PHONY: ci
ci: check demo prove test hostile test-operator test-chart e2e-ci ## run what CI runs

.PHONY: clean
clean: ## remove .venv and everything that was made
	rm -rf .venv .venv-lock build dist .coverage .coverage.* htmlcov
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} + ; find . -name '*.egg-info' -prune -exec rm -rf {} +

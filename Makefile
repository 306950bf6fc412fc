# Everything a person or a CI does with this checkout. Each target installs what it needs first (deploy/setup.sh).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
export LC_ALL ?= C.UTF-8

BIN := .venv/bin
UV := $(BIN)/uv
PYTEST_ARGS ?=
BENCH_ARGS ?=
# More processes than cores: many tests wait for a server, a lock or a clock.
JOBS ?= 4

.PHONY: help
help: ## Shows this list.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: ## Installs system packages and .venv; the other targets do it by themselves.
	@deploy/setup.sh test

.PHONY: demo
demo: ## Makes a PDF, signs it through a sandbox server with a one-time password, and verifies it.
	@deploy/setup.sh run
	@$(BIN)/python deploy/demo/demo.py

.PHONY: run
run: ## Starts a sandbox server in build/run that stays up until Ctrl-C. For trying out, never for real keys.
	@deploy/setup.sh run
	@exec $(BIN)/python deploy/demo/run.py

.PHONY: test
test: ## Runs the tests, except those marked slow or soak. PYTEST_ARGS='-k words' picks some.
	@deploy/setup.sh test
	@$(BIN)/pytest -n $(JOBS) --dist worksteal -m 'not slow and not soak' $(PYTEST_ARGS)

.PHONY: faults
faults: ## Runs what is marked slow: kills, I/O errors, races and hostile clients, one after another, with their counts.
	@deploy/setup.sh test
	@$(BIN)/pytest -m 'slow and not soak' $(PYTEST_ARGS)

.PHONY: soak
soak: ## Runs what is marked soak: many requests through one server, counted.
	@deploy/setup.sh test
	@$(BIN)/pytest -m soak $(PYTEST_ARGS)

.PHONY: test-all
test-all: ## Runs all tests: test, faults and soak.
	@deploy/setup.sh test
	@$(BIN)/pytest $(PYTEST_ARGS)

.PHONY: bench
bench: ## Measures the service beside its token alone; the report is in build/bench. BENCH_ARGS='--quick' passes options.
	@deploy/setup.sh run
	@$(BIN)/trien bench --report build/bench/report.json $(BENCH_ARGS)

.PHONY: lint
lint: ## Checks style, types, the direction of imports, and the contract.
	@deploy/setup.sh run
	@deploy/lint.sh

.PHONY: format
format: ## Formats the Python code.
	@deploy/setup.sh run
	$(BIN)/ruff check --fix --exit-zero
	$(BIN)/ruff format

.PHONY: proto
proto: ## Generates the Python code of proto/trien/v1/*.proto.
	@deploy/setup.sh run
	$(BIN)/python proto/build.py generate

.PHONY: requirements
requirements: ## Writes docs/requirements.md anew, of the reviewed list and the tests' markers.
	@deploy/setup.sh test
	@$(BIN)/python -m tests.support.requirements

.PHONY: constraints
constraints: ## Pins the dependencies anew after a pyproject.toml changed. UPGRADE=1 takes newer versions.
	@deploy/setup.sh run || test -x $(UV)
	$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
	    --group dev --no-emit-package trien-proto --no-emit-package trien-server --no-emit-package trien-client \
	    $(if $(UPGRADE),--upgrade) pyproject.toml -o constraints.txt
	@deploy/setup.sh run

.PHONY: clean
clean: ## Removes what was built; .venv stays.
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Removes .venv too.
	rm -rf .venv

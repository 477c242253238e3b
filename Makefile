# Every target makes .venv by itself when it is missing or out of date; see scripts/make_venv.sh.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv demo test unit_tests integration_tests lint format type docs bench wheel clean

SHELL := /bin/sh
BIN := .venv/bin
WORKERS ?= 2
export PYTHON

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z_]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: # .venv, complete and up to date
	@sh scripts/make_venv.sh

demo: venv ## start a swarm of two servers here and stream an answer from it
	@echo "==> Running the demo"
	$(BIN)/langchain-petals demo

test: unit_tests integration_tests ## run all tests, in WORKERS=2 processes

unit_tests: TEST_FILE ?= tests/unit_tests
unit_tests: venv ## run the tests that need no network (narrow with TEST_FILE=...)
	@echo "==> Running the unit tests"
	$(BIN)/pytest --numprocesses $(WORKERS) --disable-socket --allow-unix-socket --record-mode=none $(TEST_FILE)

integration_tests: TEST_FILE ?= tests/integration_tests
integration_tests: venv ## run the tests that start local swarms (narrow with TEST_FILE=...)
	@echo "==> Running the integration tests"
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile $(TEST_FILE)

lint: venv ## check style with ruff, imports with import-linter; list known vulnerabilities
	@echo "==> Checking with ruff"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "==> Checking the arrows of imports"
	$(BIN)/lint-imports --no-logo
	@echo "==> Looking for known vulnerabilities (for information)"
	@sh scripts/audit.sh

format: venv ## reformat, and fix what ruff can fix
	@echo "==> Formatting with ruff"
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

type: venv ## check types with mypy: the package strictly, tests loosely
	@echo "==> Checking types with mypy"
	$(BIN)/mypy

docs: venv ## build the documentation into site/
	@echo "==> Building the documentation"
	@# mkdocs-material advertises its successor otherwise
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: venv ## run the benchmarks
	@echo "==> Running the benchmarks"
	$(BIN)/python -m benchmarks

wheel: venv ## build the wheel into dist/ and try it in an empty environment
	@sh scripts/check_wheel.sh

clean: ## remove .venv and everything else that make made
	rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Every target makes .venv by itself when it is missing or out of date, and those that start swarms make the servers'
# environment, too; see scripts/make_venv.sh.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv servers demo test unit_tests integration_tests lint format type docs notebooks bench wheel clean
.PHONY: resolution lowest newest_python docs_test

SHELL := /bin/sh
BIN := .venv/bin
WORKERS ?= 2
export PYTHON
# where `langchain-petals server install` makes the servers' environment, and LocalSwarm finds it
export LANGCHAIN_PETALS_DATA_DIR := $(CURDIR)/.servers

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z_]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: # .venv, complete and up to date
	@sh scripts/make_venv.sh

servers: # .venv and the servers' environment, complete and up to date
	@sh scripts/make_venv.sh servers

demo: servers ## start a swarm of two servers here and stream an answer from it
	@echo "==> Running the demo"
	$(BIN)/langchain-petals demo
	@echo
	@echo "==> For programs of your own, tell this shell where the two environments are:"
	@echo
	@echo 'export LANGCHAIN_PETALS_DATA_DIR="$(CURDIR)/.servers"'
	@echo '. "$(CURDIR)/.venv/bin/activate"'

test: unit_tests integration_tests ## run all tests, in WORKERS=2 processes

unit_tests: TEST_FILE ?= tests/unit_tests
unit_tests: servers ## run the tests that need no network (narrow with TEST_FILE=...)
	@echo "==> Running the unit tests"
	$(BIN)/pytest --numprocesses $(WORKERS) --disable-socket --allow-unix-socket --record-mode=none $(TEST_FILE)

integration_tests: TEST_FILE ?= tests/integration_tests
integration_tests: servers ## run the tests that start local swarms (narrow with TEST_FILE=...)
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

docs: venv ## build the documentation into site/; a broken link fails
	@echo "==> Building the documentation"
	$(BIN)/zensical build --strict --clean

notebooks: servers ## run the pages for LangChain's documentation, and write their outputs and their notebooks
	@echo "==> Running docs/notebooks"
	$(BIN)/python scripts/make_notebooks.py

bench: servers ## run the benchmarks
	@echo "==> Running the benchmarks"
	$(BIN)/python -m benchmarks

wheel: servers ## build the wheel into dist/ and try it in fresh environments
	@sh scripts/check_wheel.sh

docs_test: docs ## look at the documentation in a browser: links, search, dark mode, a phone (needs chromium)
	@echo "==> Looking at the documentation in a browser"
	$(BIN)/pytest tests/browser_tests

# not in .venv: `langchain-petals server install` prefers a uv that lies there, and uv does not read the configuration of pip
.tools/bin/uv: | venv
	@$(BIN)/python -m venv .tools
	@.tools/bin/python -m pip install --quiet uv

resolution: .tools/bin/uv ## resolve the requirements for each Python and platform, and beside other packages
	@echo "==> Resolving the requirements"
	$(BIN)/python scripts/check_resolution.py .tools/bin/uv

lowest: servers .tools/bin/uv ## run unit tests with the lowest versions of what the package needs
	@sh scripts/test_lowest.sh

newest_python: venv ## run the tests that need no torch on the newest Python found here
	@sh scripts/test_newest_python.sh

clean: ## remove .venv and everything else that make made
	rm -rf .venv .servers .tools build dist site .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

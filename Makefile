# Everything runs in .venv, which is made with the first command that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA_DIR ?= .agola-data
# Variables by which pip finds packages reach the tasks of `make run`, whose environment is otherwise clean.
PIP_VARIABLES := $(foreach name,$(filter PIP_% SSL_CERT_FILE,$(shell env | cut -d= -f1)),--env $(name))

.DEFAULT_GOAL := help

SERVERS := etcd-server etcd-client

.PHONY: help run servers test lint types rules bench check dist clean

help: ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --editable '.[cli,etcd,http,s3]' --group dev
	touch $@

run: $(VENV)/ready ## set up, then run this project's own pipeline on this machine
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/agola-core run . --data-dir $(DATA_DIR) $(PIP_VARIABLES)

servers: ## the servers that tests start, from Debian's packages (installed as root, else asked for)
	@command -v etcd >/dev/null && command -v etcdctl >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SERVERS); \
	else \
		echo "Tests that need a server will be skipped. Install: sudo apt-get install $(SERVERS)"; \
	fi

test: $(VENV)/ready servers ## set up, then run the tests
	$(BIN)/python -m pytest tests -q -n 2

lint: $(VENV)/ready ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready ## mypy, strict
	$(BIN)/mypy

rules: $(VENV)/ready ## the dependency rule
	$(BIN)/lint-imports

check: test lint types rules ## everything that CI checks

bench: $(VENV)/ready ## measure, beside references; BENCH=name for one
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m bench $(BENCH)

dist: $(VENV)/ready ## sdist and wheel in dist/
	$(BIN)/python -m build

clean: ## remove what was built; data directories stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

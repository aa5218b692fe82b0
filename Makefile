# Everything runs in .venv, which is made with the first command that needs it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA_DIR ?= .agola-data
# Variables by which pip finds packages reach the tasks of `make run`, whose environment is otherwise clean.
PIP_VARIABLES := $(foreach name,$(filter PIP_% SSL_CERT_FILE,$(shell env | cut -d= -f1)),--env $(name))

# Tests start more than a thousand processes of ours: each would compile the sources again where nothing is written.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

# Programs that tests start, each with the Debian package that has it.
SERVERS := etcd:etcd-server etcdctl:etcd-client chromium:chromium podman:podman runc:runc busybox:busybox-static bwrap:bubblewrap faketime:faketime

.PHONY: help run servers test stress lint types rules bench soak check docs dist release clean

help: ## list the commands
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one with PYTHON=" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet --editable '.[all]' --group dev
	touch $@

run: $(VENV)/ready ## set up, then run this project's own pipeline on this machine
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/agola-core run . --data-dir $(DATA_DIR) $(PIP_VARIABLES)

servers: ## the programs that tests start, from Debian's packages (installed as root, else asked for)
	@missing=""; for pair in $(SERVERS); do command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair##*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else \
		echo "Tests that need these will be skipped. Install: sudo apt-get install$$missing"; \
	fi

test: $(VENV)/ready servers ## set up, then run the tests
	TMPDIR=$$(tests/support/tmpdir.sh) $(BIN)/python -m pytest tests -q -n 6 --dist worksteal

stress: $(VENV)/ready servers ## repeat TESTS, TIMES (20) times, beside a busy core: how many runs fail
	TMPDIR=$$(tests/support/tmpdir.sh) $(BIN)/python -m tests.support.stress $(or $(TIMES),20) $(TESTS)

lint: $(VENV)/ready ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready ## mypy, strict
	$(BIN)/mypy

rules: $(VENV)/ready ## the dependency rule
	$(BIN)/lint-imports

check: test lint types rules ## everything that CI checks

bench: $(VENV)/ready ## measure, beside references; BENCH=name for one; for scale, SCALE=objects and STORAGE=posix or s3
	$(BIN)/pip install --quiet --group bench
	$(BIN)/python -m bench $(BENCH)

docs: $(VENV)/ready ## the documentation, in docs/_build
	$(BIN)/pip install --quiet --group docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

soak: $(VENV)/ready servers ## fault campaigns for SOAK_MINUTES (5), added up in bench/results/soak.json; SOAK=name for one
	-$(BIN)/pip install --quiet --group fuzz
	$(BIN)/python -m tests.soak $(SOAK)

dist: $(VENV)/ready ## sdist and wheel in dist/
	rm -rf dist
	$(BIN)/python -m build

release: dist ## check what would be released: the wheel alone, and with all extras under the example project's tests, and beside boto3 and others
	rm -rf build/alone build/release
	$(PYTHON) -m venv build/alone
	build/alone/bin/pip install --quiet dist/*.whl
	@test "$$(build/alone/bin/pip freeze | wc -l)" -le 6 || { echo "the wheel alone brings more than five packages:"; build/alone/bin/pip freeze; exit 1; }
	cd build/alone && bin/python -c 'import agola_core; agola_core.open("store", data_types=["note"]).close(); print("alone:", agola_core.__version__)'
	$(PYTHON) -m venv build/release
	build/release/bin/pip install --quiet "$$(echo dist/*.whl)[all,pytest]" ./docs/examples/testing pytest-xdist
	cd docs/examples/testing && ../../../build/release/bin/python -m pytest -q -n 2 -p no:cacheprovider
	build/release/bin/agola-core --version
	$(PYTHON) -m tests.support.resolve dist/*.whl

clean: ## remove what was built; data directories stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

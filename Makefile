# `make sweep` and `make test` do all the set-up; everything lands in .venv.
PYTHON ?= python3
BIN := .venv/bin
STORE ?= workbench.db
REPORT ?= reports/latest

.PHONY: install sweep test test-all check bench docs reference clean

# Packages of the extra `towers` stand apart, where tests/packages looks for them: beside a torch of
# another build torchvision does not load, and transformers would ask for it everywhere.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { \
	    echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "installing into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[all,dev]'
	@rm -rf .venv/towers
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    --constraint constraints.txt --target .venv/towers torchvision timm
	@$(BIN)/python -m compileall -q workbench
	@touch $@

install: .venv/.installed

# What an H100 measured comes along, and predictions take seconds: the first report. What this machine
# measures is a check, and last. A failed cell (exit 1) is reported all the same; make fails afterwards.
SWEEP = $(BIN)/workbench sweep probes/default.py --store $(STORE) --source

sweep: install
	@test -e $(STORE) || cp reports/reference/h100-80gb/records.db $(STORE)
	@$(SWEEP) predicted; swept=$$?; test $$swept -le 1 || exit $$swept; \
	    $(BIN)/workbench report $(STORE) -o $(REPORT) --no-images
	@$(SWEEP) measured; swept=$$?; test $$swept -le 1 || exit $$swept; \
	    $(BIN)/workbench report $(STORE) -o $(REPORT) || exit; \
	    echo "dashboard:  $(BIN)/workbench dashboard $(STORE)"; \
	    exit $$swept

# What a change needs, in minutes: all but the tests that are slow (tests/slow.txt).
test: install
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# The rest: the slow ones, and a minute of mutated inputs (docs/security.md).
test-all: install
	@WORKBENCH_FUZZ_S=60 $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow or fuzz"

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	@$(BIN)/python -m tests.benchmarks

# The pages of docs/ and the Python interface as a site: site/index.html.
docs: install
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "site/index.html"

# Calibrations, report, headline table and pictures of docs/ from the records that are committed.
reference: install
	@$(BIN)/python -m tests.reference
	@$(BIN)/python -m tests.pictures

clean:
	rm -rf .venv site .pytest_cache .mypy_cache .ruff_cache

# Every target sets up what it needs: git, make and Python >= 3.11 are enough. Nothing is downloaded after set-up.
# Settings: PYTHON=/path/to/python  WORKERS=5  T=tests/unit (what `make test` runs)  M=name (which mutants)
# The tests need OPA, Vault and PostgreSQL; `deploy/README.md` says where they are taken from, or how they are built.

VENV := .venv
BIN := $(VENV)/bin
WHEELHOUSE := .cache/wheelhouse
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# More than two cores can run: some tests wait.
WORKERS ?= 5
T ?= tests
PYTHON ?=
POLICIES := policies/stepgrant_policies
SERVICES := $(BIN)/python deploy/services
# In CI everything has to be there; elsewhere `make test` does not build Vault, which takes a quarter of an hour.
QUICK := $(if $(filter 1 true True TRUE,$(CI)),,--quick)
LOCK_COMMAND = $(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --all-extras --group dev --quiet \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo demo-real test test-all services-provision services-up services-down services-status check \
	bench bench-real soak mutants lock upgrade fmt clean \
	format lint types borders sizes lock-check rego coverage found-or-built

help:  ## say what each target does
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r target text; do printf '%-27s %s\n' "$$target" "$$text"; done

setup: $(READY)  ## make .venv from the hash-pinned lock (every other target does it by itself)

demo: $(READY)  ## an agent is killed twice, resumes, and each piece of work is done exactly once
	@$(BIN)/stepgrant demo

demo-real: $(READY)  ## the same beside real OPA, Vault and PostgreSQL, with two brokers (builds what is missing first)
	@$(BIN)/python deploy/services provision
	@PYTHONPATH=deploy/services:deploy/demo_real $(BIN)/python -m stepgrant_demo_real

# Not `python -m pytest`: that puts this folder on the path, where `broker` and `sdk` can be imported as packages.
# A service that cannot be made here is told about; with CI=true each test that needs it then fails.
test: $(BIN)/python  ## run all tests (T=tests/unit: only these); without Vault, those that need it are counted
	@$(MAKE) --no-print-directory --silent --jobs=2 $(READY) found-or-built
	@$(BIN)/pytest -n $(WORKERS) --dist loadfile $(T)

test-all: $(READY) services-provision  ## as test, but build what is missing first (Vault: 15 to 20 minutes, once)
	@STEPGRANT_TEST_ALL=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile $(T)

services-provision: $(BIN)/python  ## find OPA, Vault and PostgreSQL, or build them, once for this machine
	@$(SERVICES) provision

# Beside the set-up: one fetches and unpacks, the other compiles.
found-or-built: $(BIN)/python
	@$(SERVICES) provision $(QUICK) || true

services-up: services-provision  ## start OPA, Vault and PostgreSQL on loopback, and say where
	@$(SERVICES) up

services-down: $(BIN)/python  ## stop what services-up started, and remove its data
	@$(SERVICES) down

services-status: $(BIN)/python  ## what of services-up runs
	@$(SERVICES) status || true

# Two side by side, the longest first; each says what it has to say when it ends (make 3, which cannot, goes one by one).
check: $(READY)  ## format, lint, types, borders, sizes, lock, Rego, coverage
	@$(MAKE) --no-print-directory $(if $(filter output-sync,$(.FEATURES)),--jobs=2 --output-sync) \
		coverage types format lint borders sizes lock-check rego

bench: $(READY)  ## measure begin, the SDK's step, ledger verify and the log; fail where a gate is missed
	@PYTHONPATH=tests $(BIN)/python tests/bench/run.py

bench-real: $(READY)  ## the same beside real OPA and PostgreSQL, and a grant of Vault against Vault's own time
	@PYTHONPATH=tests $(BIN)/python tests/bench/real.py

soak: $(READY)  ## break everything at every point, in slices that go on where the last one stopped (K="kind kind")
	@PYTHONPATH=tests $(BIN)/python -m soak $(K)

mutants: $(READY)  ## remove one guard at a time; its named test must fail (M=name: only these)
	@$(BIN)/python tests/mutants/run.py $(M)

lock: $(READY)  ## bring requirements.lock in line with pyproject.toml, keeping the versions that still fit
	@$(LOCK_COMMAND) --output-file requirements.lock

upgrade: $(READY)  ## as lock, with the newest versions
	@$(LOCK_COMMAND) --upgrade --output-file requirements.lock

fmt: $(READY)  ## format the code and apply the safe fixes
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

clean:  ## remove what make and the tools made (.venv, .cache, dist)
	@rm -rf $(VENV) .cache dist
	@find broker policies sdk tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the parts of check ---------------------------------------------------------------------------------------------

format: $(READY)
	@$(BIN)/ruff format --check .

lint: $(READY)
	@$(BIN)/ruff check .

types: $(READY)
	@$(BIN)/mypy

borders: $(READY)
	@$(BIN)/lint-imports --no-logo --cache-dir .cache/import_linter

sizes: $(READY)
	@$(BIN)/python tests/tools/check_sizes.py

lock-check: $(READY)
	@$(BIN)/python tests/tools/check_lock.py

rego: $(READY)
	@$(BIN)/stepgrant policy check $(POLICIES)
	@$(BIN)/stepgrant policy test $(POLICIES)

# The walks of the model go through the same lines again and again, and no tree of a million leaves goes through any that
# is measured; `make test` runs them.
# Each worker writes a part; those of a run that was ended are erased first, or the figures would count them.
coverage: $(READY)
	@$(BIN)/coverage erase
	@PYTHONPATH=tests $(BIN)/pytest -p tools.measured -n $(WORKERS) --dist loadfile --quiet \
		--ignore tests/property/test_model.py --ignore tests/property/test_merkle.py tests/unit tests/property
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report
	@$(BIN)/coverage json --quiet -o .cache/coverage.json
	@$(BIN)/python tests/tools/check_coverage.py .cache/coverage.json

# --- set-up ---------------------------------------------------------------------------------------------------------

# Editable, so it is needed again only when names, entry points or packages change.
$(READY): $(INSTALLED) pyproject.toml
	@$(PIP) install --no-index --no-deps --no-build-isolation --editable .
	@touch $@

# The wheelhouse stays: the test that installs the package offline takes everything from it. The lock's own pip comes
# first: that of Python 3.11 needs 23 s to choose what the lock says, this one 9.
$(INSTALLED): $(BIN)/python requirements.lock
	@echo "Set-up: fetching and installing the locked packages (only after a change of the lock)"
	@rm -rf $(WHEELHOUSE) && mkdir -p $(WHEELHOUSE)
	@sed -n '/^pip==/,/# via/p' requirements.lock > .cache/pip.txt
	@$(PIP) install --require-hashes --no-deps --only-binary :all: --requirement .cache/pip.txt
	@$(PIP) download --progress-bar off --require-hashes --no-deps --only-binary :all: \
		--requirement requirements.lock --dest $(WHEELHOUSE)
	@$(PIP) install --no-index --find-links $(WHEELHOUSE) --require-hashes --no-deps --requirement requirements.lock
	@touch $@

# A name on the PATH can be a shim that starts nothing, so each candidate has to run and to have what is needed.
$(BIN)/python:
	@bare=''; \
	for candidate in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		"$$candidate" -c 'import ensurepip, venv' 2>/dev/null || { bare="$$candidate"; continue; }; \
		echo "Set-up: making $(VENV) with $$candidate"; exec "$$candidate" -m venv $(VENV); \
	done; \
	if [ -n "$$bare" ]; then echo "$$bare lacks venv; install it (Debian, Ubuntu: apt-get install python3-venv) and run make again" >&2; \
	else echo "Python 3.11 or newer is needed; install it (Debian, Ubuntu: apt-get install python3 python3-venv) or say make PYTHON=/path/to/python" >&2; fi; \
	exit 1

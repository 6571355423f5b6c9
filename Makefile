# nearcache: the commands of the house. `make help` lists them.
#
# Everything happens in the virtual environment .venv of this checkout, and the tests see the installed wheel, never
# the tree. Empty stamp files in .venv say what has been done, so that a second call only redoes what has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/sh
.SUFFIXES:
.DELETE_ON_ERROR:
.PHONY: help demo chaos test test-main test-all-pythons test-freethreaded lint bench hitratio sanitize tsan fuzz soak install clean

# A PYTHONPATH of the caller could put some other nearcache in front of the installed one.
unexport PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

# Directories are listed too, so that a file which was taken away is noticed.
SOURCES := pyproject.toml setup.py MANIFEST.in LICENSE CHANGELOG.md $(wildcard README.md) \
    $(wildcard tests/data/*.json) $(shell find docs ext src/nearcache ! -path '*/__pycache__*' ! -name '*.so')
STUBS := $(wildcard src/nearcache/_*.pyi)
HEADERS := $(wildcard ext/include/nearcache/*.h)
WHEEL = $$(ls dist/nearcache-*.whl)
REDIS = NEARCACHE_REDIS_SERVER="$$($(BIN)/python .ci/redis_server.py)"

help: ## say what there is
	@echo 'make COMMAND [PYTHON=python3.12]   (another PYTHON takes effect after make clean)'
	@sed -n 's/^\([a-z-]*\):.*## /  \1: /p' Makefile | awk -F': ' '{ printf "%-20s %s\n", $$1, $$2 }'

# -- the environment ---------------------------------------------------------------------------------------------

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { echo 'make: there is no $(PYTHON) on PATH; say make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) .ci/check_python.py
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q 'build>=1.2'
	@touch $@

# sdist first, then the wheel out of the sdist: what a user gets who installs from the sdist. The egg-info is taken
# away because setuptools would read into the new sdist whatever an old one lists.
$(VENV)/.built: $(VENV)/.created $(SOURCES)
	rm -rf dist build/cython build/lib.* src/nearcache.egg-info
	@mkdir -p build
	$(BIN)/python -m build --outdir dist . > build/log 2>&1 || { tail -n 50 build/log >&2; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.built
	$(BIN)/pip install -q --force-reinstall --no-deps $(WHEEL)
	$(BIN)/pip install -q "$(WHEEL)[embedded]"
	@touch $@

$(VENV)/.tools: pyproject.toml | $(VENV)/.installed
	$(BIN)/pip install -q "$(WHEEL)[test,test-values,simulation,lint]"
	@touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/.installed
	$(BIN)/pip install -q "$(WHEEL)[bench,test-values]"
	@touch $@

install: $(VENV)/.installed ## create .venv, build the wheel and install it there

# -- what people run ---------------------------------------------------------------------------------------------

demo: $(VENV)/.installed ## four workers, a slow loader, two shards, one of them killed (ARGS="--trace FILE")
	@$(REDIS) $(BIN)/python bench/demo $(ARGS)

test: lint ## lint, then all tests here, then most of them on the oldest and the newest other Python of this machine
	@$(BIN)/python .ci/suite.py main ends

test-main: $(VENV)/.installed $(VENV)/.tools ## all tests, on the Python of .venv (ARGS="-k name")
	@$(BIN)/python .ci/suite.py main -- $(ARGS)

test-all-pythons: $(VENV)/.installed $(VENV)/.tools ## unit, contract and portable integration tests on all other Pythons
	@$(BIN)/python .ci/suite.py others

test-freethreaded: $(VENV)/.installed ## unit, contract, stress tests without a GIL, on FREETHREADED=PYTHON or one built now
	@$(BIN)/python .ci/suite.py free-threaded -- $(ARGS)

# What may be uninitialised is the optimiser's guess, and some versions of gcc guess wrong about the C that Cython writes.
lint: $(VENV)/.installed $(VENV)/.tools ## ruff, mypy, stubtest, cython-lint, C headers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(if $(STUBS),$(BIN)/stubtest --mypy-config-file pyproject.toml $(STUBS:src/nearcache/%.pyi=nearcache.%))
	$(if $(wildcard ext/nearcache),PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint ext/nearcache)
	@! grep -nE '^warning: ext/|: warning: |[a-z]Warning: ' build/log | grep -v maybe-uninitialized || \
	    { echo 'make: the build warns (see build/log)' >&2; exit 1; }
	@for header in $(HEADERS); do echo "cc -fsyntax-only $$header"; \
	    echo "#include \"$$header\"" | $(CC) -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wconversion -Werror -Iext/include -I. \
	        -fsyntax-only -x c - || exit 1; done

bench: $(VENV)/.installed $(VENV)/.bench ## the measurements of bench/README.md
	@export $(REDIS); for file in bench/bench_*.py; do echo "== $$file"; \
	    if grep -q '^if __name__' $$file; then $(BIN)/python $$file; else $(BIN)/pytest -q $$file; fi || exit 1; done

hitratio: $(VENV)/.installed $(VENV)/.bench ## hit ratios on recorded and synthetic requests, with pictures (ARGS=--quick)
	@$(BIN)/python bench/hitratio $(ARGS)

TOPOLOGY ?= single
MINUTES ?= 2

chaos: $(VENV)/.installed $(VENV)/.bench ## break everything, judge every call (TOPOLOGY=single|shards|sentinel|cluster MINUTES=n)
	@$(REDIS) $(BIN)/python bench/chaos --topology $(TOPOLOGY) --minutes $(MINUTES) $(ARGS)

sanitize: $(VENV)/.built ## all compiled modules under AddressSanitizer and UBSan
	@PYTHON=$(BIN)/python .ci/sanitize.sh $(ARGS)

tsan: $(VENV)/.built ## the compiled modules without a GIL under ThreadSanitizer, on a Python built for it
	@.ci/tsan.sh $(ARGS)

fuzz: $(VENV)/.installed ## libFuzzer on C headers, decoders and parsers, FUZZ_SECONDS=60 each (ARGS="core frames message"); needs clang
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install -q --only-binary atheris "$(WHEEL)[test,test-values,fuzz]" || \
	    echo 'make: atheris cannot be installed here; the C headers alone are fuzzed'
	@PYTHON=$(BIN)/python tests/native/fuzz.sh $(ARGS)

soak: $(VENV)/.installed $(VENV)/.tools ## the models for long (SOAK_MINUTES=30), then the simulation on all cores (SOAK_EVENTS=1e8)
	@$(BIN)/python tests/simulation/model --soak
	@$(BIN)/python tests/simulation soak --events $(or $(SOAK_EVENTS),1e8) --first $(or $(SOAK_FIRST),10000000)

clean: ## remove everything that make made
	rm -rf .venv .venv-* .freethreaded build dist src/nearcache.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

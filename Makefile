# Every target makes the environment it needs; only Python (>= 3.10), a C compiler and PyPI are asked for.
.DEFAULT_GOAL := help
.PHONY: help test lint hooks types demo bench sanitize fuzz format clean

PYTHON ?= python3
VENV := .venv
DEMO_VENV := .venv-demo
BIN := $(CURDIR)/$(VENV)/bin
PIP := -m pip install --quiet --disable-pip-version-check

# What the installed package is made from: a change in any of these means installing again.
SOURCES := pyproject.toml setup.py MANIFEST.in README.md LICENSE _z4ai_hf.py z4ai_hf.pth \
    $(shell find z4ai -name '*.py' -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
# Headers that stand alone; those named after an instruction set, and symbols and differences of the chunk codec,
# are parts of the one that includes them.
HEADERS := $(filter-out %_scalar.h %_avx2.h %_avx512.h %_neon.h %/z4_chunk_symbols_encode.h \
    %/z4_chunk_symbols_decode.h %/z4_chunk_difference_encode.h %/z4_chunk_difference_decode.h, \
    $(wildcard z4ai/_fast/c/*.h))
CYTHON := $(shell find z4ai -name '*.pyx' -o -name '*.pxd')

# Tests run against the installed package and from an empty folder, so that neither they nor the
# processes they start can pick up the source tree instead; conftest.py refuses to run if they do.
RUN_DIR := $(VENV)/run
PYTEST = mkdir -p $(RUN_DIR) && cd $(RUN_DIR) && Z4AI_TEST_INSTALLED=1 $(BIN)/python -m pytest \
    -c $(CURDIR)/pyproject.toml --rootdir=$(CURDIR)

help:
	@echo "make test       install with the test requirements and run the whole suite (ARGS='-k name')"
	@echo "make demo       compress, restore and check a real model (MODEL=path for one of yours)"
	@echo "make lint       ruff, cython-lint, codespell, and the C headers under -Wall -Wextra -Werror"
	@echo "make hooks      the pre-commit hooks on every file"
	@echo "make types      mypy --strict"
	@echo "make format     rewrite Python files in the house format"
	@echo "make bench      run the benchmarks"
	@echo "make sanitize   the C parsers under AddressSanitizer and UBSan"
	@echo "make fuzz       coverage-guided fuzzing (ARGS for its options)"
	@echo "make clean      remove environments, builds and caches"

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.test: requirements/test.txt $(SOURCES) | $(VENV)/.made
	rm -rf build/lib* build/bdist*
	$(BIN)/python $(PIP) -r requirements/test.txt '.[test,maxratio]'
	touch $@

$(VENV)/.lint: requirements/lint.txt | $(VENV)/.made
	$(BIN)/python $(PIP) -r requirements/lint.txt
	touch $@

$(DEMO_VENV)/.demo: $(SOURCES)
	$(PYTHON) -m venv $(DEMO_VENV)
	rm -rf build/lib* build/bdist*
	$(DEMO_VENV)/bin/python $(PIP) '.[maxratio]'
	touch $@

test: $(VENV)/.test
	$(PYTEST) $(CURDIR)/tests $(ARGS)

bench: $(VENV)/.test
	$(PYTEST) $(CURDIR)/bench $(ARGS)

demo: $(DEMO_VENV)/.demo
	$(DEMO_VENV)/bin/python tools/demo.py $(if $(MODEL),"$(MODEL)")

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(BIN):$$PATH" cython-lint $(CYTHON)
	$(BIN)/codespell
	for header in $(HEADERS); do \
	    $(or $(CC),cc) -std=c11 -D_POSIX_C_SOURCE=200809L -O1 -Wall -Wextra -Werror -Wno-unused-function -Wno-unused-const-variable \
	        -fsyntax-only -include $$header -x c /dev/null || exit 1; \
	done

hooks: $(VENV)/.test $(VENV)/.lint
	PATH="$(BIN):$$PATH" $(BIN)/pre-commit run --all-files --show-diff-on-failure

types: $(VENV)/.test $(VENV)/.lint
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sanitize: $(VENV)/.test
	PATH="$(BIN):$$PATH" bash tools/sanitize.sh $(ARGS)

fuzz: $(VENV)/.test
	$(BIN)/python tools/fuzz.py $(ARGS)

clean:
	rm -rf $(VENV) $(DEMO_VENV) build dist *.egg-info .demo .pytest_cache .hypothesis .mypy_cache \
	    .ruff_cache .benchmarks .fuzz .sanitize
	find z4ai -name '*.so' -delete

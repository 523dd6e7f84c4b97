# The front door. Every target first makes sure that .venv holds what it needs; nothing is installed outside this folder.
#   make demo    a notebook with remote cells, run in a real sandbox, on real data
#   make test    all tests                     (TESTS="tests/kernel -k name" for some of them)
#   make check   style, types, layers, docs and the house tests, without the rest
#   make bench   the figures of docs/reference/performance.md, measured here
#   make docs    the documentation, as docs/_build/html/index.html
#   make clean   remove what was built, but keep .venv

SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
TESTS ?=
# Three files may run at once, since they wait more than they work, but for these: they have deadlines that a busy machine misses,
# or look at all of the machine. The order of the files is kept: tests/conftest.py has the long ones first.
SERIAL := tests/provisioner/test_jails.py \
	$(addprefix tests/journeys/test_,$(addsuffix .py,conformance cell_behaviour interrupt deaths function_deaths side_by_side))
# Journeys that are made once more, to another machine; only root can make one. All of them: TESTS="--elsewhere tests/journeys"
# They come before the serial ones, which are to be alone: what the first part leaves is removed meanwhile.
THERE := $(addprefix tests/journeys/test_,$(addsuffix .py,another_machine cell_behaviour))
# What starts inside a sandbox may meet a Python older than ours.
EVERYWHERE := $(addprefix kernel/remora/,errors.py frames.py wire.py guest sync)

# With it, each of thousands of processes would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check bench docs clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

$(STAMP): pyproject.toml kernel/kernelspec/kernel.json .ci/prepare
	@sh .ci/prepare $(VENV)
	@touch $(STAMP)

demo: $(STAMP)
	@$(PY) notebooks/demo.py

test: $(STAMP)
ifneq ($(TESTS),)
	@$(PY) -m pytest $(TESTS)
else
	@$(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=12 tests $(addprefix --ignore=,$(SERIAL) $(firstword $(THERE)))
	@$(PY) -m pytest --durations=12 --elsewhere $(THERE)
	@$(PY) -m pytest --durations=12 $(SERIAL)
endif

check: $(STAMP) docs
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy
	@$(PY) -m mypy --python-version 3.10 $(EVERYWHERE)
	@$(VENV)/bin/lint-imports
	@$(PY) -m pytest -q tests/house

bench: $(STAMP)
	@PYTHONPATH=tests $(PY) tests/bench/run.py

docs: $(STAMP)
	@$(PY) -m sphinx --quiet --fail-on-warning --keep-going -b html docs docs/_build/html

clean:
	rm -rf build dist demo docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find kernel provisioner backend tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +

# make .venv   a virtual environment with everything (about three minutes, 2 GB)
# make demo    fine-tune a small real model on this machine, in a chain of jobs
# make test    everything: linters and all tests, those that start a real Slurm too
# make quick   the tests that start nothing (two minutes)
# make exact   every way to train, cut and uncut, on one, two and four processes
# make jobs    every recipe of jobs/, its whole way on small parts (five minutes)
# make systems what users train, on small real models and text, cut and whole (about an hour)
# make lint    ruff and mypy
# make bench   speed beside other tools, to build/bench.json (about ten minutes)
# make bench-chain   the same for a chain of jobs on a private Slurm (ten minutes of walltimes)
# make bench-gpu     GPT-2 XL, where there is a GPU
# Any Python from 3.11 does: make test PYTHON=/path/to/python3

PYTHON ?= python3.11
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# One thread: on a shared machine more are slower, and they change the last bits.
export OMP_NUM_THREADS := 1
# Models and data are local folders; nothing is looked up.
export HF_HUB_OFFLINE := 1
export HF_DATASETS_OFFLINE := 1
# The tests start hundreds of Pythons: what one has compiled is there for the next.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: all demo test quick exact jobs systems bench bench-chain bench-gpu lint parts clean
all: test

# .venv/complete is there when everything is; torch comes first and pinned, lest another package bring a larger one.
.venv: .venv/complete
.PHONY: .venv
.venv/complete: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "hpcft needs Python 3.11 or later: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,dev]'
	touch $@

parts: .venv/complete
	$(BIN)/python jobs/demo/prepare.py build/demo

demo: parts
	$(BIN)/hpcft submit jobs/demo.yaml --cluster local --wait

lint: .venv/complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict hpcft

# Two processes: the tests on Slurm mostly wait for it, and the others compute meanwhile.
test: .venv/complete
	tests/install-system-packages
	$(MAKE) parts
	$(MAKE) lint
	$(BIN)/python -m pytest --numprocesses 2 --durations 25

quick: .venv/complete
	$(BIN)/python -m pytest --numprocesses 2 -m "not slurm and not browser and not server and not slow"

exact: .venv/complete
	HPCFT_EXACT=1 $(BIN)/python -m pytest tests/train/test_exact.py

jobs: .venv/complete
	HPCFT_JOBS=1 $(BIN)/python -m pytest tests/test_jobs.py

systems: parts
	$(BIN)/python -m tests.systems.parts build/systems
	$(BIN)/python -m tests.systems
	$(BIN)/hpcft submit tests/systems/variants.yaml --runs build/systems/runs --wait
	$(BIN)/hpcft compare tests/systems/variants.yaml --runs build/systems/runs -o build/systems/variants.svg

bench: .venv/complete
	$(BIN)/python -m tests.benchmarks

bench-chain: .venv/complete
	$(BIN)/python -m tests.benchmarks.chain

bench-gpu: .venv/complete
	$(BIN)/python -m tests.benchmarks.gpu

clean:
	rm -rf build .mypy_cache .pytest_cache .ruff_cache

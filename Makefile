# graftlab: `make help` lists the commands.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# A whole suite runs in so many processes; tests chosen by ARGS, in one, which starts sooner.
WORKERS ?= 2
SPREAD = $(if $(ARGS),,-n $(WORKERS) --dist worksteal)
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install train real test test-avx2 test-all test-base mutants check docs models pictures bench base clean

help:  ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## Create .venv and install the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)
	@echo 'installed; in every new terminal: source $(BIN)/activate'

train: install  ## Train an adapter on the embedded default (ARGS="lora.rank=8" adds overrides)
	$(BIN)/python train.py $(ARGS)

real: install  ## Fetch a real model of 98 MB and give it a voice of its own (ARGS adds overrides)
	$(BIN)/python -m graftlab.models.gguf smollm2-135m-instruct
	$(BIN)/python train.py experiment=elevator $(ARGS)

test: install  ## Run the tests (no network, no GPU)
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

test-avx2: install  ## Run the tests as on a processor without AVX-512 and bf16 units
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(BIN)/python -m pytest $(SPREAD) $(ARGS)

test-all: install  ## Run every test, the slow ones too
	$(BIN)/python -m pytest -m 'not recipe' $(SPREAD) $(ARGS)

test-base: install  ## Make the whole embedded base anew and compare it (over an hour)
	$(BIN)/python -m pytest -m recipe tests/tools/test_demo_base.py

mutants: install  ## Change FILE a little, again and again: which changes does no test notice?
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mutants]'
	$(BIN)/python tools/mutants.py $(FILE) $(TESTS)

check: install  ## Lint, format and type checks, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## Write docs/reference/ anew, from the specs and conf/
	$(BIN)/python docs/reference.py

models: install  ## Write the table of docs/models.md anew, from a miniature of every family
	$(BIN)/python docs/models.py $(ARGS)

pictures: install  ## Make the pictures of README and docs anew, from real runs (needs Chromium)
	$(BIN)/python docs/pictures.py $(ARGS)

bench: install  ## Measure training throughput and memory side by side
	$(BIN)/python benchmarks/train_throughput.py $(ARGS)

base: install  ## Rebuild both embedded base models from their recipes
	PYTHONPATH=tools $(BIN)/python -m demo_assets.pretrain
	PYTHONPATH=tools $(BIN)/python -m demo_assets.afm

clean:  ## Remove caches and build products (run folders stay)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

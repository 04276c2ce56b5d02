# Each target works as the first command on a fresh machine with Python 3.11 and make.
# ARGS is handed on, e.g.: make demo ARGS="--set ct.training.epochs=2", make test ARGS="-x -k audit"

PYTHON ?=
OUT ?= runs/demo
NOTEBOOK_OUT ?= runs/notebook
ARGS ?=

READY := .venv/.ready
RUN := .venv/bin/python -m
NOTEBOOK := notebooks/respiratory_diagnosis.ipynb

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# The targets share one environment and two processor cores; -j would only make them compete.
.NOTPARALLEL:
.PHONY: help env demo test lint vulnerable check notebook clean

help: ## Show this list
	@echo "Pulmofuse: respiratory disease from CT, chest X-ray and cough. Research use only."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

env: $(READY) ## Make .venv with all packages (the other targets do it by themselves)
	@:

$(READY): pyproject.toml constraints.txt scripts/env.sh
	@PYTHON="$(PYTHON)" sh scripts/env.sh

demo: $(READY) ## Run a whole study on a synthetic cohort; the report is runs/demo/report.html
	@.venv/bin/pulmofuse demo --out "$(OUT)" $(ARGS)

test: $(READY) ## Run the tests with branch coverage
	@$(RUN) pytest --cov --cov-branch --cov-report=term $(ARGS)

lint: $(READY) ## Check style, types, the direction of imports and unsafe calls
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@.venv/bin/bandit -q -r src -ll

vulnerable: $(READY) ## Ask the advisories whether a dependency has a known hole (needs the network)
	@.venv/bin/pip-audit --progress-spinner off

check: lint test ## Run everything that must be green: lint, then test

notebook: $(READY) ## Execute the notebook into runs/notebook
	@$(RUN) nbconvert --to notebook --execute --log-level=WARN \
		--ExecutePreprocessor.timeout=1800 --output-dir "$(NOTEBOOK_OUT)" "$(NOTEBOOK)"
	@echo "Executed: $(NOTEBOOK_OUT)/$(notdir $(NOTEBOOK))"

clean: ## Delete caches and build leftovers (.venv and runs/ stay)
	@rm -rf build dist htmlcov .coverage coverage.xml .mypy_cache .ruff_cache .pytest_cache \
		.import_linter_cache .hypothesis lightning_logs
	@find . \( -path ./.venv -o -path ./runs -o -path ./.git \) -prune \
		-o -type d -name __pycache__ -prune -exec rm -rf {} +
	@echo "Clean. To start from nothing: rm -rf .venv runs"

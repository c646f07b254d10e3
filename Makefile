# Every target but help first makes .venv by itself; Python >= 3.11 and make are all it needs.
# Another interpreter: make test PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= python3.12 python3.13 python3.11 python3.14 python3 python

# A name on the path may be a shim that does not run, or a Python without what is needed here.
RUNS := import sys; sys.exit(sys.version_info < (3, 11))
SUITS := import ensurepip, sqlite3, ssl, venv

.PHONY: help setup quickstart test lint bench
.DEFAULT_GOAL := help

help: ## what the targets are
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1|/' | \
	  while IFS='|' read -r target text; do printf '%-18s %s\n' "$$target" "$$text"; done

setup: $(STAMP) ## install the package and its tools into .venv
	@echo "$(VENV) is ready."

quickstart: $(STAMP) ## search for a block in a few minutes and compare it with known ones
	@$(BIN)/python scripts/quickstart.py

test: $(STAMP) ## run all tests, on two processes
	@$(BIN)/python -m pytest -n 2 tests

lint: $(STAMP) ## check style and types, and that the README shows the results as they are
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy elenas_jax
	@$(BIN)/python scripts/render_results.py --check

bench: $(STAMP) ## print the benchmark tables
	@$(BIN)/python scripts/benchmark_constructor.py
	@$(BIN)/python scripts/benchmark_policy.py
	@$(BIN)/python scripts/benchmark_evaluation.py --count=64 --steps=60,625

$(STAMP): pyproject.toml constraints.txt
	@python=; runs=; for name in $(PYTHON); do \
	  "$$name" -c '$(RUNS)' >/dev/null 2>&1 || continue; runs=$$name; \
	  "$$name" -c '$(SUITS)' >/dev/null 2>&1 && python=$$name && break; done; \
	if [ -z "$$runs" ]; then \
	  echo "No Python 3.11 or newer runs here (tried: $(PYTHON)); name one with PYTHON=..." >&2; exit 1; fi; \
	if [ -z "$$python" ]; then \
	  echo "$$runs lacks one of venv, ensurepip, ssl, sqlite3 (Debian, Ubuntu: apt install python3-venv)." >&2; \
	  exit 1; fi; \
	echo "Installing into $(VENV) with $$("$$python" --version): takes a minute or two."; \
	$(BIN)/python -c '$(RUNS)' >/dev/null 2>&1 || "$$python" -m venv --clear $(VENV) || exit 1; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' || exit 1; \
	touch $@

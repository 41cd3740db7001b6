# `make demo` and `make test` do the whole set-up themselves: an environment in .venv. Other versions than
# the constraints: make test PYTHON=python3.13 CONSTRAINTS=constraints-newest.txt
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin

.PHONY: demo docs test test-slow lint format

demo: .venv/installed
	$(BIN)/python launch.py --config=configs/fixmatch_digits.py

# Lint comes last and keeps no test from running; either of the two fails the target.
test: .venv/installed
	@tests=0; lint=0; \
	$(BIN)/python -m pytest || tests=$$?; \
	$(MAKE) --no-print-directory lint || lint=$$?; \
	echo "make test: exit code of pytest $$tests, of make lint $$lint"; \
	[ $$tests -eq 0 ] && [ $$lint -eq 0 ]

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The site is build/site/index.html.
docs: .venv/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'wrote build/site/index.html'

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[tensorflow,onnx,dev]'
	touch $@

.venv/docs-installed: .venv/installed
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[docs]'
	touch $@

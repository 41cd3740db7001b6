# `make demo` and `make test` do the whole set-up themselves: an environment in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint format

demo: .venv/installed
	$(BIN)/python launch.py --config=configs/fixmatch_digits.py

test: lint
	$(BIN)/python -m pytest

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[tensorflow,onnx,dev]'
	touch $@

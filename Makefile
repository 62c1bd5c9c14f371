# Everything runs in .venv, which the first target makes; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed

.PHONY: demo test test-slow lint format clean

demo: $(SETUP)
	$(BIN)/tfprune demo

test: $(SETUP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

test-slow: $(SETUP)
	$(BIN)/python -m pytest -q -m slow -n 2 --dist loadfile

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info

$(SETUP): setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

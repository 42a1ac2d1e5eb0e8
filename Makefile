# `make demo` and `make test` are all the set-up there is: each makes .venv when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test kills lint format clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,dev]' -c constraints.txt
	touch $@

demo: .venv/ready
	$(BIN)/layerstill demo --output runs/demo

test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile tests

kills: .venv/ready
	$(BIN)/python -m benchmarks.kill_campaign --kills 120

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs .pytest_cache .ruff_cache .mypy_cache

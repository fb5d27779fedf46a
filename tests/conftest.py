"""A tiny random language model with a tokenizer, in a folder, for tests that train; and what keeps tests quick."""

import gc
import importlib.util
import os
from pathlib import Path

# Before torch is imported. Products in tests are so small that a second thread only waits for the first, and where
# another process has the core, for as long as that one keeps it. Processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

from tiny_model import make_model, write_sums

if not torch.cuda.is_available():
    # Triton reads this once, when something first imports it: without a GPU its kernels run in its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"

# The same examples in every run and on every machine, and no verdict by how long one took.
UNTIMED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile("qpeft", derandomize=True, deadline=None, suppress_health_check=UNTIMED)
settings.load_profile("qpeft")

# Files that take more than four seconds of a processor: they train, start processes or repeat measurements.
# `make check` leaves them out, and what is marked slow in other files; every folder has quick ones too.
SLOW_FILES = {
    "adapters": "qtha_compiled qtha_ddp qtha_device plugins targets",
    "cli": "bad_input chat compare_command device_commands eval_tasks export_commands generate_files start",
    "comparison": "compare mending metrics report study",
    "contracts": "adapter_bad_files adapter_processes adapter_trl",
    "devices": "gradient_statistics markers",
    "devices/emulator": "emulator_faults emulator_server emulator_vendor",
    "devices/ibm": "ibm_service",
    "devices/origin": "origin_device origin_mitigation origin_order origin_outbox origin_qubits origin_questions "
    "origin_side_by_side",
    "exporting": "export_lora merge plain_peft",
    "integrations": "lm_eval trainers",
    "models": "package_model",
    "simulation": "gpu noise_pennylane",
    "training": "best billion device_training launch own_loss resume sharding train training_complaints",
}
SLOW = {f"{folder}/test_{name}.py" for folder, names in SLOW_FILES.items() for name in names.split()}
TESTS = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest looks at marks for -m
def pytest_collection_modifyitems(config, items):
    """All tests of a slow file are marked so.

    Tests marked `quantized` run where the packages are, and must run where QPEFT_QUANTIZED asks for them.
    """
    for item in items:
        if item.path.is_relative_to(TESTS) and item.path.relative_to(TESTS).as_posix() in SLOW:
            item.add_marker("slow")
        if item.get_closest_marker("quantized") and item.path.parent.name not in ("contracts", "models"):
            raise pytest.UsageError(f"{item.nodeid} is marked quantized: `make quantized` must look there too.")
    if os.environ.get("QPEFT_QUANTIZED") or all(map(importlib.util.find_spec, ("bitsandbytes", "torchao"))):
        return
    left_out = [item for item in items if item.get_closest_marker("quantized")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("quantized")]
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """After the last test of a file, what is left is no garbage, so that it is not searched for garbage again.

    transformers collects garbage after every training; among the objects of a whole run of tests that takes a second.
    """
    yield
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def pytest_unconfigure():
    """The end of the process finds all objects again: extension modules complain of those that it leaves behind."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def draw_figures():
    """The function that writes figures of a run, in whose place stands one that draws nothing.

    To draw both figures takes longer than all steps of a tiny model.
    """
    from qpeft.runs import write_atomically
    from qpeft.training import figure

    draw = figure._write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figure, "_write", lambda _, path: write_atomically(path, b"not drawn"))
        yield draw


@pytest.fixture
def with_figures(draw_figures, monkeypatch):
    """For tests that look at the figures of a run: they are drawn."""
    monkeypatch.setattr("qpeft.training.figure._write", draw_figures)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, draw_figures):
    """Folder of a two-layer Llama of width 32 with grouped keys and values, and a byte-level tokenizer."""
    return make_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def sums(tmp_path_factory):
    """JSONL file of 24 questions with numbers for answers."""
    return write_sums(tmp_path_factory.mktemp("sums") / "sums.jsonl")


@pytest.fixture
def accepted():
    """A function that fuzz tests tell whether an input was accepted; a test fails that refuses more than it should.

    Its option `at_least` is the share of all inputs that must be accepted: about half of what the test was seen to
    accept. Without it a reader that refuses everything would pass.
    """
    outcomes, shares = [], {0.0}

    def note(outcome, *, at_least):
        outcomes.append(bool(outcome))
        shares.add(at_least)

    yield note
    assert sum(outcomes) >= max(shares) * len(outcomes), f"{sum(outcomes)} of {len(outcomes)} inputs were accepted"


@pytest.fixture
def recipe(tiny_model, sums, tmp_path):
    """A function: the recipe of a six-step run into tmp_path/run, with sections changed by keyword."""
    from qpeft.training.config import parse_recipe

    def make(**sections):
        values = {
            "model": {"name": str(tiny_model)},
            "data": {"train": str(sums), "hold_out": 6},
            "adapter": {"type": "qtha", "rank": 4, "target_modules": ["q_proj", "v_proj"]},
            "training": {"steps": 6, "batch_size": 4, "log_every": 2, "checkpoint_every": 2},
            "output": {"folder": str(tmp_path / "run")},
        }
        for name, section in sections.items():
            changed = {**values.get(name, {}), **section} if isinstance(section, dict) else section
            # Another method has other options.
            values[name] = section if name == "adapter" and section.get("type", "qtha") != "qtha" else changed
        return parse_recipe(values, source="test")

    return make

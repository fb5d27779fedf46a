"""A tiny random language model with a tokenizer, in a folder, for tests that train."""

import importlib.util
import os

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


def pytest_collection_modifyitems(config, items):
    """Tests marked `quantized` run where the packages are, and must run where QPEFT_QUANTIZED asks for them."""
    if os.environ.get("QPEFT_QUANTIZED") or all(map(importlib.util.find_spec, ("bitsandbytes", "torchao"))):
        return
    left_out = [item for item in items if item.get_closest_marker("quantized")]
    if left_out:
        items[:] = [item for item in items if not item.get_closest_marker("quantized")]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
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
            values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
        return parse_recipe(values, source="test")

    return make

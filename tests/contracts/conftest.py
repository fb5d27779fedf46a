"""A row of small options for every method of ours, and models that carry it."""

import copy

import pytest
import torch
from small_adapters import SMALL, TARGETS, shake

from qpeft.adapters import ADAPTERS


@pytest.fixture(params=ADAPTERS)
def method(request):
    """Name of a method, one after the other."""
    return request.param


@pytest.fixture
def config(method):
    """A function from options to a config of the method, on q and v unless told otherwise."""

    def make(**options):
        settings = {"target_modules": TARGETS, "task_type": "CAUSAL_LM", "init_seed": 0}
        return ADAPTERS[method][0](**(SMALL[method] | settings | options))

    return make


@pytest.fixture(scope="session")
def _base_model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture
def base(_base_model):
    """A function: a fresh copy of the tiny model."""
    return lambda: copy.deepcopy(_base_model)


@pytest.fixture
def trained(base, config):
    """A function: the tiny model with an adapter of random weights, as after training, in evaluation mode."""
    from peft import get_peft_model

    def make(model=None, **options):
        return shake(get_peft_model(model or base(), config(**options))).eval()

    return make


@pytest.fixture
def tokens():
    """Three rows of seven tokens."""
    return torch.randint(3, 250, (3, 7), generator=torch.Generator().manual_seed(2))

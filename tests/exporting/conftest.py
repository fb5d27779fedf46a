"""Adapters of random weights on the tiny model, and text for it."""

import copy

import pytest
import torch
from peft import get_peft_model

TARGETS = ["q_proj", "v_proj"]


@pytest.fixture(scope="session")
def _base_model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture
def base(_base_model):
    """A function: a fresh copy of the tiny model."""
    return lambda: copy.deepcopy(_base_model)


@pytest.fixture
def trained(base):
    """A function from a PEFT config to the tiny model with an adapter of random weights, as after training."""

    def make(config, model=None, size=0.4, seed=3):
        torch.manual_seed(seed)
        model = get_peft_model(model or base(), config)
        adapters = [weight for weight in model.parameters() if weight.requires_grad]
        with torch.no_grad():
            for weight in adapters:
                weight.copy_(size * torch.randn(weight.shape))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def tokenizer(tiny_model):
    from qpeft.models import load_tokenizer

    return load_tokenizer(str(tiny_model))


@pytest.fixture(scope="session")
def texts(tokenizer, sums):
    """24 encoded examples of about 40 tokens."""
    from qpeft.data import encode_all, load_examples

    return encode_all(tokenizer, load_examples(str(sums)))


@pytest.fixture
def logits():
    """A function from model and example to logits (tokens, vocabulary)."""

    @torch.no_grad()
    def of(model, one):
        return model.eval()(input_ids=torch.tensor([one.input_ids])).logits[0]

    return of

"""Quantized base models: adapters stand beside them, learn, and are merged into them with the loss that is logged."""

import re

import pytest
import torch
from peft import get_peft_model
from small_adapters import TARGETS, logits, shake
from torch.testing import assert_close

from qpeft.adapters.bridge import BaseTunerLayer
from qpeft.errors import NotMergeableError
from tiny_model import make_model

# The vendors' own warnings: kernels that a CPU lacks, types that they cast.
pytestmark = [
    pytest.mark.quantized,
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SHARE_LOST = {"bnb4": 0.12, "bnb8": 0.01, "torchao": 0.01}
"""Bound on the relative rounding of a random weight: 4-bit NormalFloat has about 0.09, eight bits a tenth of that."""

ON_ITS_OWN = [pytest.param(kind, marks=pytest.mark.feature(kind)) for kind in SHARE_LOST]
MERGED = [pytest.param(kind, marks=pytest.mark.feature(f"merge_{kind}")) for kind in SHARE_LOST]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose widths are multiples of the block of 64 weights that bitsandbytes scales together."""
    return make_model(tmp_path_factory.mktemp("wide"), hidden_size=64, intermediate_size=128)


@pytest.fixture
def adapted(folder, config):
    """A function: from a kind of quantization to such a model with an adapter of small random weights."""
    from transformers import AutoModelForCausalLM

    def make(kind):
        quantization = quantization_config(kind)
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantization, dtype=torch.float32)
        return get_peft_model(model, config())

    return make


def quantization_config(kind):
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if kind == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    return BitsAndBytesConfig(load_in_4bit=kind == "bnb4", load_in_8bit=kind == "bnb8", bnb_4bit_quant_type="nf4")


def layers(model):
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@torch.no_grad()
def weight_seen(layer):
    """The weight that the base layer multiplies with, one column per unit vector: whatever it is stored as."""
    return layer.base_layer(torch.eye(layer.in_features)).T.clone()


@pytest.mark.parametrize("kind", ON_ITS_OWN)
def test_the_adapter_adds_to_a_quantized_base_and_learns(adapted, tokens, kind):
    model = adapted(kind).train()
    model(tokens, labels=tokens, use_cache=False).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)
    assert any(weight.grad.abs().sum() > 0 for weight in model.parameters() if weight.requires_grad)
    layer = layers(shake(model).eval())[0]
    x = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_close(layer(x), layer.base_layer(x) + layer.update("default", x), atol=1e-5, rtol=1e-5)
        assert not torch.equal(layer(x), layer.base_layer(x))


@pytest.mark.parametrize("kind", MERGED)
def test_a_merge_into_quantized_weights_says_what_it_lost(adapted, tokens, kind, merges, refusing, caplog):
    model = shake(adapted(kind)).eval()
    if not merges:
        with refusing(NotMergeableError, "Keep the adapter beside the model"):
            model.merge_adapter()
        return
    logits(model, tokens)  # bitsandbytes may reorder its weights at the first use
    before = [weight_seen(layer) for layer in layers(model)]
    updates = [layer.get_delta_weight("default").detach() for layer in layers(model)]
    model.merge_adapter()
    lost = share_lost(model, [old + update for old, update in zip(before, updates, strict=True)])
    assert 0 < lost < SHARE_LOST[kind]
    (said,) = re.findall(r"Merged into 4 quantized weights; the requantization error is (\S+) of", caplog.text)
    # The layer itself multiplies in half precision.
    assert float(said) == pytest.approx(lost, rel=0.2, abs=2e-3)
    merged = [weight_seen(layer) for layer in layers(model)]
    # Asked again: an update that is made from the base weight is one of the rounded weight now.
    updates = [layer.get_delta_weight("default").detach() for layer in layers(model)]
    model.unmerge_adapter()
    lost = share_lost(model, [old - update for old, update in zip(merged, updates, strict=True)])
    assert 0 < lost < SHARE_LOST[kind]
    assert "Unmerged from 4 quantized weights" in caplog.text
    caplog.clear()
    model.unmerge_adapter()
    assert caplog.text == ""
    assert not any(isinstance(module, BaseTunerLayer) for module in model.merge_and_unload().modules())


def test_torchao_weights_without_their_config_work_and_refuse_a_merge(folder, config, tokens, merges):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder).eval()
    quantize_(base, Int8WeightOnlyConfig())
    before = logits(base, tokens)
    model = get_peft_model(base, config(target_modules=TARGETS))
    assert torch.equal(logits(model, tokens), before)
    with pytest.raises(
        NotMergeableError, match="in a way that PEFT cannot write back" if merges else "Keep the adapter"
    ):
        model.merge_adapter()


def share_lost(model, wanted):
    """How far the weights of all layers are from those that were wanted, as a share of their norm."""
    errors = [(weight_seen(layer) - weight).norm() for layer, weight in zip(layers(model), wanted, strict=True)]
    return (torch.stack(errors).norm() / torch.stack([weight.norm() for weight in wanted]).norm()).item()

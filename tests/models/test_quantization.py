"""Base models in 4 and 8 bits: loading, training, and what is missing without bitsandbytes."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch.testing import assert_close

from qpeft.errors import ModelError, RecipeError
from qpeft.models import load_model, prepare_for_training
from qpeft.models import precision as module
from qpeft.training import train

BITS = ["4bit", "8bit"]


@pytest.fixture
def bitsandbytes():
    import bitsandbytes

    return bitsandbytes


def test_without_bitsandbytes_the_package_is_named(tiny_model, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r'4bit needs bitsandbytes: pip install "qpeft\[quantized\]"'):
        load_model(str(tiny_model), quantization="4bit")


def test_other_numbers_of_bits_are_refused(tiny_model, recipe):
    with pytest.raises(ModelError, match="must be one of 4bit, 8bit"):
        load_model(str(tiny_model), quantization="2bit")
    with pytest.raises(RecipeError, match=r"model\.quantization"):
        recipe(model={"quantization": "2bit"})


@pytest.mark.quantized
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("bits", BITS)
def test_quantized_weights_have_no_gradient_and_norms_are_float32(bitsandbytes, tiny_model, bits):
    model = prepare_for_training(
        load_model(str(tiny_model), dtype="bfloat16", quantization=bits), gradient_checkpointing=False
    )
    kind = {"4bit": bitsandbytes.nn.Linear4bit, "8bit": bitsandbytes.nn.Linear8bitLt}[bits]
    assert isinstance(model.model.layers[0].self_attn.q_proj, kind)
    assert not any(weight.requires_grad for weight in model.parameters())
    norms = [weight for name, weight in model.named_parameters() if "norm" in name]
    assert {weight.dtype for weight in norms} == {torch.float32}
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    exact = load_model(str(tiny_model)).model.layers[0].self_attn.q_proj(x)
    error = (model.model.layers[0].self_attn.q_proj(x) - exact).norm() / exact.norm()
    # NF4 is off by a tenth, or more where a matrix is as small as this one; int8 by a hundredth.
    assert 1e-4 < error < {"4bit": 0.4, "8bit": 0.03}[bits]


@pytest.mark.quantized
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_adapter_learns_in_float32_on_a_quantized_base(bitsandbytes, recipe, tmp_path, bits, checkpointing):
    training = {"gradient_checkpointing": checkpointing, "steps": 12, "checkpoint_every": None}
    run = train(recipe(model={"quantization": bits}, training=training))
    assert run.record["after"]["loss"] < run.record["before"]["loss"]
    trained = [weight for weight in run.model.parameters() if weight.requires_grad]
    assert {weight.dtype for weight in trained} == {torch.float32}
    saved = load_file(tmp_path / "run/adapter_model.safetensors")
    # Rounded to bfloat16, as TRL does it, every weight would have 16 bits of zeros.
    assert any((weight != weight.bfloat16().float()).any() for weight in saved.values())


@pytest.mark.quantized
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("bits", BITS)
def test_gradients_pass_quantized_layers_after_an_evaluation_as_before_it(bitsandbytes, tiny_model, bits):
    model = prepare_for_training(load_model(str(tiny_model), quantization=bits), gradient_checkpointing=False)
    model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    first = model.get_base_model().model.layers[0].self_attn.q_proj.lora_A["default"].weight
    gradients = []
    for _ in range(2):
        model.train()(torch.arange(40)[None]).logits.square().sum().backward()
        gradients.append(first.grad.clone())
        first.grad = None
        with torch.no_grad():
            model.eval()(torch.arange(40)[None])
    assert gradients[0].abs().max() > 0
    assert_close(gradients[1], gradients[0])

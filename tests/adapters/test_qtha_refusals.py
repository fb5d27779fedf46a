"""What a QTHA adapter cannot do, it refuses in one sentence, before it changes anything."""

import pytest
import torch
from peft import get_peft_model

from qpeft import QthaConfig, set_quantum_device, set_training_noise
from qpeft.adapters.build import add_adapter
from qpeft.devices import LocalDevice
from qpeft.errors import AdapterError, NotMergeableError
from qpeft.simulation.noise import LinearNoise


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
@pytest.mark.parametrize("safe_merge", [False, True])
def test_merging_is_refused_before_anything_changes(adapt, shake, tokens, merge, safe_merge):
    model = shake(adapt()).eval()
    with torch.no_grad():
        before = model(tokens).logits
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(NotMergeableError, match=r"cannot be merged.*Keep the adapter beside the model"):
        getattr(model, merge)(safe_merge=safe_merge)
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, before)


def test_a_single_layer_refuses_to_merge_too(adapt):
    layer = adapt().base_model.model.model.layers[0].self_attn.q_proj
    with pytest.raises(NotMergeableError, match="cannot be merged"):
        layer.merge()


def test_no_conversion_to_lora_is_promised(adapt):
    assert not adapt().supports_lora_conversion()


@pytest.mark.parametrize("elsewhere", [set_quantum_device, set_training_noise])
def test_mixed_batches_need_the_simulator(adapt, tokens, elsewhere):
    model = adapt().eval()
    names = ["default", "default", "__base__", "default"]
    what = LocalDevice() if elsewhere is set_quantum_device else LinearNoise([1.0] * 4, [0.0] * 4)
    elsewhere(model, what, shots=10)
    with pytest.raises(AdapterError, match=r"adapter_names needs circuits on the simulator.*one batch per adapter"):
        model(tokens, adapter_names=names)
    elsewhere(model, None)
    assert torch.isfinite(model(tokens, adapter_names=names).logits).all()


@pytest.mark.parametrize("via", [get_peft_model, add_adapter])
def test_an_embedding_is_refused_by_name(make_model, via):
    config = QthaConfig(target_modules=["embed_tokens"])
    with pytest.raises(AdapterError, match=r"'model.embed_tokens' is a Embedding.*Leave it out of target_modules"):
        via(make_model(), config)


@pytest.mark.parametrize("via", [get_peft_model, add_adapter])
def test_conv1d_is_refused_by_name(via):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32, n_positions=16))
    with pytest.raises(AdapterError, match=r"'transformer.h.0.attn.c_attn' is a Conv1D"):
        via(model, QthaConfig(target_modules=["c_attn"]))


def test_a_target_that_matches_nothing_names_the_linear_layers(make_model):
    with pytest.raises(AdapterError) as caught:
        add_adapter(make_model(), QthaConfig(target_modules=["query"]))
    message = str(caught.value)
    assert "target_modules query;" in message
    names = message.partition("are called ")[2].partition(".")[0].split(", ")
    assert names[0] == "q_proj"
    assert sorted(names) == ["down_proj", "gate_proj", "k_proj", "lm_head", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert "\n" not in message


def test_a_model_without_usual_targets_asks_for_some(one_linear):
    with pytest.raises(AdapterError, match="target_modules not set; the model's linear layers are called layer"):
        add_adapter(one_linear(), QthaConfig())


def test_layers_that_do_not_exist_are_an_error(make_model):
    with pytest.raises(AdapterError, match="layers_to_transform"):
        add_adapter(make_model(), QthaConfig(target_modules=["q_proj"], layers_to_transform=[7]))


def test_a_refused_target_leaves_the_model_as_it_was(make_model, tokens):
    model = make_model()
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(AdapterError):
        add_adapter(model, QthaConfig(target_modules=["q_proj", "input_layernorm"]))
    assert [name for name, _ in model.named_modules()] == names
    assert all(weight.requires_grad for weight in model.parameters())
    add_adapter(model, QthaConfig(target_modules=["q_proj"]))

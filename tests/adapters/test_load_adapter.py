"""`load_adapter`: right adapters load, all others meet one sentence."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from qpeft.adapters.load import load_adapter
from qpeft.errors import AdapterError


@pytest.fixture
def folder(adapt, shake, tmp_path):
    """A saved adapter."""
    shake(adapt()).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_saved_adapter_loads_in_evaluation_mode(make_model, adapt, shake, tokens, folder):
    loaded = load_adapter(make_model(), folder)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(tokens).logits, shake(adapt()).eval()(tokens).logits)


def test_an_adapter_with_modules_to_save_loads(make_model, adapt, shake, tokens, tmp_path):
    saved = shake(adapt(modules_to_save=["lm_head"])).eval()
    saved.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_adapter(make_model(), tmp_path)(tokens).logits, saved(tokens).logits)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning")
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "embed_tokens"]])
def test_an_adapter_of_peft_loads_too(make_model, shake, tokens, tmp_path, targets):
    saved = shake(get_peft_model(make_model(), LoraConfig(r=2, target_modules=targets))).eval()
    saved.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(load_adapter(make_model(), tmp_path)(tokens).logits, saved(tokens).logits)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(make_model, folder, missing):
    (folder / missing).unlink()
    _refused(make_model(), folder, f"holds no {missing}")


def test_a_missing_folder_is_named(make_model, tmp_path):
    _refused(make_model(), tmp_path / "nowhere", "nowhere holds no adapter_config.json")


@pytest.mark.parametrize("size", [0, 7, 200, -1])
def test_truncated_weights_are_refused(make_model, folder, size):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    _refused(make_model(), folder, "does not fit the model")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"peft_type": "NOPE"}', '{"peft_type": 3}', "\x00"])
def test_a_damaged_config_is_refused(make_model, folder, text):
    (folder / "adapter_config.json").write_text(text)
    _refused(make_model(), folder, "The adapter in")


def test_a_config_with_an_unknown_choice_names_it(make_model, folder):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"middle": "sine"}))
    _refused(make_model(), folder, "middle must be one of")


def test_missing_weights_are_refused(make_model, folder):
    _rewrite(folder, lambda weights: weights.pop(sorted(weights)[0]))
    _refused(make_model(), folder, "missing adapter keys")


def test_weights_of_another_shape_are_refused(make_model, folder):
    name = "base_model.model.model.layers.0.self_attn.q_proj.qtha_branch.classical_weight"
    _rewrite(folder, lambda weights: weights.update({name: torch.zeros(5, 5)}))
    _refused(make_model(), folder, "size mismatch for .*classical_weight")


def test_an_adapter_for_another_width_is_refused(make_model, folder):
    _refused(make_model(hidden_size=64), folder, "size mismatch")


def test_an_adapter_for_more_layers_is_refused(make_model, folder):
    _refused(make_model(num_hidden_layers=1), folder, "weights for places that the model lacks, .*layers.1.")


def test_an_adapter_for_fewer_layers_is_refused(make_model, folder):
    _refused(make_model(num_hidden_layers=3), folder, "missing adapter keys.*layers.2")


def test_an_adapter_for_modules_that_are_not_there_is_refused(folder):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64, n_positions=16))
    _refused(model, folder, "does not fit the model: Target modules .* not found")


def test_a_copy_of_the_folder_loads(make_model, folder, tokens, tmp_path):
    copied = load_adapter(make_model(), shutil.copytree(folder, tmp_path / "copy"))
    with torch.no_grad():
        assert torch.equal(copied(tokens).logits, load_adapter(make_model(), folder)(tokens).logits)


def _refused(model, folder, sentence):
    with pytest.raises(AdapterError, match=sentence) as caught:
        load_adapter(model, folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def _rewrite(folder, change):
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})

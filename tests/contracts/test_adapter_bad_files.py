"""Saved adapters that are damaged, tampered with, too new, or for another model: refused in a sentence, never run."""

import json
import pickle
import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from small_adapters import logits

from qpeft.adapters import plugins
from qpeft.adapters.load import load_adapter
from qpeft.errors import AdapterError

CODE = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n"


@pytest.fixture
def folder(trained, tmp_path):
    """A saved adapter."""
    trained().save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_saved_adapter_loads_in_evaluation_mode_and_its_files_stay(base, trained, tokens, folder):
    before = contents(folder)
    loaded = load_adapter(base(), folder)
    assert not loaded.training
    assert torch.equal(logits(loaded, tokens), logits(trained(), tokens))
    assert contents(folder) == before


def test_an_adapter_with_modules_to_save_loads(base, trained, tokens, tmp_path):
    trained(modules_to_save=["lm_head"]).save_pretrained(tmp_path)
    assert torch.equal(logits(load_adapter(base(), tmp_path), tokens), logits(trained(), tokens))


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(base, folder, missing):
    (folder / missing).unlink()
    refused(base(), folder, f"holds no {missing}")


def test_a_missing_folder_is_named(base, tmp_path):
    with pytest.raises(AdapterError, match=r"nowhere holds no adapter_config.json"):
        load_adapter(base(), tmp_path / "nowhere")


@pytest.mark.parametrize("size", [0, 7, 200, -1])
def test_truncated_weights_are_refused(base, folder, size):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    refused(base(), folder, "adapter_model.safetensors is damaged")


def test_weights_with_a_tampered_header_are_refused(base, folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"I64"', 1))
    refused(base(), folder, "adapter_model.safetensors is damaged")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("\x00", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "no options by name"),
        ("null", "no options by name"),
        ("{}", "of type None"),
        ('{"peft_type": 3}', "of type 3"),
        ('{"peft_type": "NOPE"}', "of type 'NOPE', which neither this qpeft nor its PEFT knows"),
    ],
)
def test_a_damaged_config_is_refused(base, folder, text, sentence):
    (folder / "adapter_config.json").write_text(text)
    refused(base(), folder, sentence)


def test_a_method_that_could_not_be_loaded_says_why(base, folder, monkeypatch):
    monkeypatch.setitem(plugins.FAILED, "nope", "package nope announces it, but it is broken")
    change_config(folder, peft_type="NOPE")
    refused(base(), folder, "'nope' cannot be used: package nope announces it")


def test_missing_weights_are_refused(base, folder):
    rewrite(folder, lambda weights: weights.pop(min(weights)))
    refused(base(), folder, "missing adapter keys")


def test_weights_under_another_name_are_refused(base, folder):
    rewrite(folder, lambda weights: weights.update({min(weights) + "_new": torch.ones(2)}))
    refused(base(), folder, "weights for places that the model lacks, .*_new")


def test_weights_of_another_shape_are_refused(base, folder):
    rewrite(folder, lambda weights: weights.update({min(weights): torch.zeros(3, 2)}))
    refused(base(), folder, r"_branch.default.* is \(3, 2\) in the file and \(")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(base, folder, value):
    rewrite(folder, lambda weights: weights[min(weights)].view(-1)[-1:].fill_(value))
    refused(base(), folder, "holds NaN or infinite values")


def test_an_adapter_for_another_width_is_refused_in_a_sentence_by_peft_too(folder, other_model):
    # Methods whose weights do not depend on the width know other models by a fingerprint.
    sentence = (
        r"at 'model.layers.0.self_attn.._proj', which takes 64 features and gives (32|64), .* in the file"
        "|trained beside other weights"
    )
    refused(other_model(hidden_size=64), folder, sentence)
    with pytest.raises(AdapterError, match=sentence):
        PeftModel.from_pretrained(other_model(hidden_size=64), folder)


def test_an_adapter_for_more_layers_is_refused(folder, other_model):
    # All angles of a quantum-weighted adapter are one tensor, which has a row for each layer.
    refused(
        other_model(num_hidden_layers=1),
        folder,
        "weights for places that the model lacks, .*layers.1.|for another model",
    )


def test_an_adapter_for_fewer_layers_is_refused(folder, other_model):
    refused(other_model(num_hidden_layers=3), folder, "missing adapter keys.*layers.2|for another model")


def test_an_adapter_for_modules_that_are_not_there_is_refused(folder):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64, n_positions=16))
    refused(model, folder, "does not fit the model: Target modules .* not found")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format_version": 2}, "This adapter is of format 2; this qpeft knows 1"),
        ({"dropouts": 0.5}, "an option 'dropouts' that .*Config does not .nearest: 'dropout'.. A newer qpeft"),
        ({"dropout": -1.0}, "dropout must be"),
    ],
)
def test_options_of_a_newer_qpeft_or_out_of_range_are_refused(base, folder, change, sentence):
    change_config(folder, **change)
    refused(base(), folder, sentence)


def test_an_option_that_is_gone_is_refused_by_name(base, folder):
    stored = json.loads((folder / "adapter_config.json").read_text())
    del stored["dropout"]
    (folder / "adapter_config.json").write_text(json.dumps(stored))
    refused(base(), folder, "lacks the option 'dropout'")


def test_a_config_from_before_formats_were_numbered_loads(base, trained, tokens, folder):
    stored = json.loads((folder / "adapter_config.json").read_text())
    del stored["format_version"]
    (folder / "adapter_config.json").write_text(json.dumps(stored))
    assert torch.equal(logits(load_adapter(base(), folder), tokens), logits(trained(), tokens))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_link_out_of_the_folder_is_refused_but_not_one_into_the_cache_of_a_hub(base, folder, tmp_path, name):
    cache = tmp_path / "models--some--adapter"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "blobs").mkdir()
    (folder / name).rename(cache / "blobs" / "0123")
    (folder / name).symlink_to(cache / "blobs" / "0123")
    refused(base(), folder, f"{name} leads out of its folder")
    snapshot = folder.rename(cache / "snapshots" / "4567")
    load_adapter(base(), snapshot)


def test_a_pickle_is_never_read(base, folder):
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(folder / "ran")))
    refused(base(), folder, "adapter_model.bin is a pickle, which can run code, and is never read")
    (folder / "adapter_model.bin").rename(folder / "adapter_model.safetensors")
    refused(base(), folder, "adapter_model.safetensors is damaged")
    assert not (folder / "ran").exists()


def test_what_a_config_names_is_never_imported(base, folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    (folder / "bomb.py").write_text(CODE)
    mapping = {"base_model_class": "Model", "parent_library": "bomb"}
    change_config(folder, auto_mapping=mapping, base_model_name_or_path="../bomb", revision="../../bomb")
    load_adapter(base(), folder)
    change_config(folder, custom_modules={"torch.nn.Linear": "bomb.Linear"})
    refused(base(), folder, "an option 'custom_modules'")
    assert "bomb" not in sys.modules
    assert not (folder / "bomb.ran").exists()


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


@pytest.fixture
def other_model(tiny_model):
    """A function: a model like the tiny one but for the sizes that are named."""
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(**sizes):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_model, **sizes))

    return make


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def refused(model, folder, sentence):
    before = contents(folder)
    with pytest.raises(AdapterError, match=sentence) as caught:
        load_adapter(model, folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert contents(folder) == before


def change_config(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite(folder, change):
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})

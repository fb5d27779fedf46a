"""Saved adapters of every method: they return exactly, whoever loads them, and damaged ones are refused."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file
from small_adapters import SMALL, logits

from qpeft.adapters import ADAPTERS
from qpeft.adapters.load import load_adapter
from qpeft.errors import AdapterError


def test_every_method_has_a_row_of_small_options():
    assert SMALL.keys() == ADAPTERS.keys()


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_save_and_reload_are_equal(base, trained, tokens, tmp_path, low_cpu_mem_usage):
    model = trained()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert (logits(again, tokens) - logits(model, tokens)).abs().max() == 0.0
    assert not torch.equal(logits(model, tokens), logits(base(), tokens))


def test_an_adapter_returns_under_the_name_of_one_of_its_parts(base, trained, tokens, tmp_path):
    model = trained()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base(), tmp_path, adapter_name="down")
    assert torch.equal(logits(again, tokens), logits(model, tokens))


def test_auto_peft_loads_base_and_adapter(trained, tiny_model, tokens, tmp_path):
    model = trained()
    model.peft_config["default"].base_model_name_or_path = str(tiny_model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path), tokens), logits(model, tokens))


def test_transformers_loads_and_deletes_it(base, trained, tokens, tmp_path):
    trained().save_pretrained(tmp_path)
    model = base()
    model.load_adapter(str(tmp_path), adapter_name="tuned")
    assert torch.equal(logits(model, tokens), logits(trained(), tokens))
    model.delete_adapter("tuned")
    assert torch.equal(logits(model, tokens), logits(base(), tokens))


def test_modules_to_save_are_saved(base, trained, tokens, tmp_path):
    model = trained(modules_to_save=["lm_head"])
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(2)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base(), tmp_path), tokens), logits(model, tokens))


def test_the_config_returns_whole(config, tmp_path):
    config(dropout=0.25, layers_to_transform=[1]).save_pretrained(tmp_path)
    assert type(config()).from_pretrained(tmp_path) == config(dropout=0.25, layers_to_transform=[1])


def test_weights_of_another_shape_are_refused(base, trained, tmp_path):
    trained().save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    weights = load_file(file)
    name = min(weights)
    save_file(weights | {name: torch.zeros(3, 2)}, file, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match="size mismatch"):
        load_adapter(base(), tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format_version": 2}, "This adapter is of format 2; this qpeft knows 1"),
        ({"renamed_option": 3}, "Unexpected keyword arguments .'renamed_option'."),
    ],
)
def test_a_config_of_a_newer_qpeft_is_refused(base, trained, tmp_path, change, sentence):
    trained().save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(AdapterError, match=sentence):
        load_adapter(base(), tmp_path)


def test_a_config_from_before_formats_were_numbered_loads(base, trained, tokens, tmp_path):
    trained().save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    stored = json.loads(file.read_text())
    del stored["format_version"]
    file.write_text(json.dumps(stored))
    assert torch.equal(logits(load_adapter(base(), tmp_path), tokens), logits(trained(), tokens))

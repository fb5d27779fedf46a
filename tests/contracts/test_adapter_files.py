"""Saved adapters of every method return exactly, whoever loads them."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel
from safetensors import safe_open
from small_adapters import SMALL, logits

from qpeft.adapters import ADAPTERS
from qpeft.errors import UnknownOptionError


def test_every_method_has_a_row_of_small_options():
    assert SMALL.keys() == ADAPTERS.keys()


@pytest.mark.parametrize(
    "low_cpu_mem_usage",
    [
        pytest.param(False, marks=pytest.mark.feature("save")),
        pytest.param(True, marks=pytest.mark.feature("low_memory")),
    ],
)
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


@pytest.mark.feature("auto")
def test_auto_peft_loads_base_and_adapter(trained, tiny_model, tokens, tmp_path):
    model = trained()
    model.peft_config["default"].base_model_name_or_path = str(tiny_model)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path), tokens), logits(model, tokens))


@pytest.mark.feature("transformers")
def test_transformers_adds_loads_and_deletes_it(base, config, trained, tokens, tmp_path):
    fresh = base()
    fresh.add_adapter(config(), adapter_name="fresh")
    assert torch.equal(logits(fresh, tokens), logits(base(), tokens))
    assert any("_branch.fresh." in name for name, _ in fresh.named_parameters())
    trained().save_pretrained(tmp_path)
    model = base()
    model.load_adapter(str(tmp_path), adapter_name="tuned")
    assert torch.equal(logits(model, tokens), logits(trained(), tokens))
    model.disable_adapters()
    assert torch.equal(logits(model, tokens), logits(base(), tokens))
    model.enable_adapters()
    model.delete_adapter("tuned")
    assert torch.equal(logits(model, tokens), logits(base(), tokens))


@pytest.mark.feature("modules_to_save")
def test_modules_to_save_are_saved(base, trained, tokens, tmp_path):
    model = trained(modules_to_save=["lm_head"])
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(2)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base(), tmp_path), tokens), logits(model, tokens))


@pytest.mark.feature("card")
def test_what_is_saved_is_a_card_a_config_and_weights_without_the_adapters_name(two_adapters, method, tmp_path):
    two_adapters.save_pretrained(tmp_path)
    assert "library_name: peft" in (tmp_path / "README.md").read_text(encoding="utf-8")
    (tmp_path / "README.md").unlink()
    for folder in (tmp_path, tmp_path / "second"):
        files = {file.name for file in folder.iterdir() if file.is_file()}
        assert files == {"adapter_config.json", "adapter_model.safetensors"}
        assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == method.upper()
        with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
            assert not any({"default", "second"} & set(name.split(".")) for name in weights.keys())  # noqa: SIM118


def test_the_config_returns_whole(config, tmp_path):
    config(dropout=0.25, layers_to_transform=[1]).save_pretrained(tmp_path)
    assert type(config()).from_pretrained(tmp_path) == config(dropout=0.25, layers_to_transform=[1])


@pytest.mark.parametrize(("given", "ours"), [("lora_dropout", "dropout"), ("target_module", "target_modules")])
def test_an_option_that_the_method_lacks_is_answered_with_the_nearest(config, given, ours):
    with pytest.raises(UnknownOptionError, match=f"argument '{given}'; did you mean '{ours}'"):
        config(**{given: None})


def test_peft_reads_a_newer_config_without_what_it_does_not_know(config, tmp_path):
    config().save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(stored | {"from_the_future": 1}))
    with pytest.warns(UserWarning, match="from_the_future"):
        again = PeftConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config().to_dict()

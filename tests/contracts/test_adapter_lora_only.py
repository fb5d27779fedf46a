"""What PEFT has for LoRA, or for its own methods, alone: each ends in an error, never in a wrong model."""

import pytest
from peft import PeftMixedModel
from peft.utils.hotswap import hotswap_adapter

from qpeft.errors import AdapterError


@pytest.mark.feature("mixed_model")
def test_peft_mixed_model_takes_none_of_ours(base, config, refusing):
    with refusing(ValueError, "is not compatible with the `PeftMixedModel`"):
        PeftMixedModel(base(), config())


@pytest.mark.feature("weighted")
def test_adapters_are_not_merged_into_a_weighted_one(two_adapters, refusing):
    with refusing(AdapterError, r"add_weighted_adapter would sum weights.*set_adapter\(\[\.\.\.\]\)"):
        two_adapters.add_weighted_adapter(["default", "second"], [0.5, 0.5], "both")
    assert set(two_adapters.peft_config) == {"default", "second"}


@pytest.mark.feature("hotswap")
def test_adapters_are_not_swapped_in_place(trained, refusing, tmp_path):
    model = trained()
    model.save_pretrained(tmp_path)
    with refusing(ValueError, "Hotswapping only supports LORA"):
        hotswap_adapter(model, tmp_path, "default")


@pytest.mark.feature("parameters")
def test_parameters_that_are_no_module_are_no_target(config, refusing):
    with refusing(TypeError, "target_parameters"):
        config(target_parameters=["experts.down_proj"])

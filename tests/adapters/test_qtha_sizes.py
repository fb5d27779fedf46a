"""How many parameters adapters have, counted on the meta device at the shapes of real models."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from qpeft import QthaConfig
from qpeft.adapters.build import count_layers, lora_parameters

TARGETS = ["q_proj", "v_proj"]


def test_the_paper_preset_has_752640_parameters_on_the_7b_model_and_lora_3153920():
    assert _trainable(_deepseek_r1_distill_qwen_7b(), QthaConfig.paper()) == 752_640
    assert _trainable(_deepseek_r1_distill_qwen_7b(), LoraConfig(r=10, target_modules=TARGETS)) == 3_153_920


def test_the_paper_preset_counts_a_depth_of_ten_as_the_formula_does():
    # Per layer and depth 4 x rank angles more: 9 x 40 in each of 56 layers.
    assert _trainable(_deepseek_r1_distill_qwen_7b(), QthaConfig.paper(depth=10)) == 752_640 + 56 * 9 * 40


def test_the_paper_preset_is_the_published_sum_on_one_layer():
    with torch.device("meta"):
        model = _deepseek_r1_distill_qwen_7b()
    kinds = {kind.name: kind for kind in count_layers(model, QthaConfig.paper())}
    assert (kinds["q_proj"].parameters, kinds["q_proj"].count) == (14_512, 28)
    assert (kinds["v_proj"].parameters, kinds["v_proj"].count) == (12_368, 28)


def test_the_default_saves_seventy_percent_on_smollm2_135m():
    config = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    }
    ours, lora = (
        _trainable(_skeleton(LlamaForCausalLM, LlamaConfig(**config)), adapter)
        for adapter in (QthaConfig(target_modules=TARGETS), LoraConfig(r=8, target_modules=TARGETS))
    )
    assert lora == 460_800
    assert ours <= 0.3 * lora


@pytest.mark.parametrize("width", [576, 640, 768, 896, 997, 1024, 1536, 2048, 2560, 3072, 3584, 4096])
@pytest.mark.parametrize("narrowing", [1, 3, 4])
def test_the_default_saves_seventy_percent_of_lora_at_any_width(one_linear, width, narrowing):
    with torch.device("meta"):
        model = one_linear(width, width // narrowing)
    (kind,) = count_layers(model, QthaConfig(target_modules=["layer"]))
    saved = 1 - kind.parameters / lora_parameters(kind, 8)
    assert saved >= 0.7


@pytest.mark.parametrize("rank", [4, 8, 12])
@pytest.mark.parametrize("num_cores", [2, 3, 4])
def test_sizes_left_open_use_the_share_they_may(one_linear, rank, num_cores):
    with torch.device("meta"):
        model = one_linear(2048, 2048)
    config = QthaConfig(
        rank=rank, num_cores=num_cores, parameter_share=0.3, bottleneck="none", target_modules=["layer"]
    )
    (kind,) = count_layers(model, config)
    share = (kind.parameters - rank**2) / lora_parameters(kind, rank)
    assert 0.2 < share <= 0.3


def test_counting_allocates_no_weights(one_linear):
    with torch.device("meta"):
        model = one_linear(4096, 4096)
    count_layers(model, QthaConfig(target_modules=["layer"]))
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def _trainable(model, config):
    adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
    return adapted.get_nb_trainable_parameters()[0]


def _skeleton(model_class, config):
    with torch.device("meta"):
        return model_class(config)


def _deepseek_r1_distill_qwen_7b():
    config = Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
    )
    return _skeleton(Qwen2ForCausalLM, config)

"""PEFT configs by name, and the sentences that wrong names meet."""

import math

import pytest
from peft import LoraConfig

from qpeft import QthaConfig
from qpeft.adapters.bridge import config_classes
from qpeft.adapters.build import VARIANTS, add_adapter, build_config
from qpeft.adapters.learning_rates import LEARNING_RATES, default_learning_rate
from qpeft.errors import AdapterError


def test_a_config_is_built_from_its_name_and_options():
    config = build_config("qtha", {"rank": 6, "target_modules": ["q_proj"]})
    assert isinstance(config, QthaConfig)
    assert (config.rank, config.target_modules, config.task_type) == (6, {"q_proj"}, "CAUSAL_LM")


def test_methods_of_peft_are_built_too():
    assert isinstance(build_config("lora", {"r": 2}), LoraConfig)


def test_a_method_that_is_an_option_of_another_has_a_name_of_its_own():
    config = build_config("dora", {"r": 2})
    assert isinstance(config, LoraConfig)
    assert (config.use_dora, config.r) == (True, 2)
    assert build_config("dora", {"use_dora": False}).use_dora is False
    with pytest.raises(AdapterError, match="no adapter type 'doar'; did you mean 'dora'"):
        build_config("doar", {})


@pytest.mark.parametrize(
    ("method", "options"),
    [("prompt_tuning", {"num_virtual_tokens": 2}), ("adaption_prompt", {"adapter_len": 2, "adapter_layers": 1})],
)
def test_a_method_without_layers_is_refused_by_name(make_model, method, options):
    model = make_model()
    with pytest.raises(AdapterError, match=f"{method} changes no layers"):
        add_adapter(model, build_config(method, options))


def test_a_preset_is_where_options_start_from():
    config = build_config("qtha", {"preset": "paper", "rank": 4})
    assert (config.rank, config.inner_features, config.alpha) == (4, 256, 8.0)


@pytest.mark.parametrize(
    ("method", "options", "sentence"),
    [
        ("qhta", {}, "There is no adapter type 'qhta'; did you mean 'qtha'?"),
        ("qtha", {"rnak": 4}, "adapter type 'qtha' has no option 'rnak'; did you mean 'rank'?"),
        ("qtha", {"r": 4}, "adapter type 'qtha' has no option 'r'; did you mean 'rank'?"),
        ("lora", {"alpha": 4}, "adapter type 'lora' has no option 'alpha'; did you mean 'lora_alpha'?"),
        ("qtha", {"preset": "papre"}, "qtha has no preset 'papre'; it has paper, fitted, compact, no_circuit, "),
        ("lora", {"preset": "paper"}, "lora has no preset 'paper'; it has none."),
        ("qtha", {"bottleneck": "circiut"}, "did you mean 'circuit'?"),
        ("lora", {"r": -1}, "adapter type 'lora' refuses these options: "),
    ],
    ids=str,
)
def test_a_wrong_name_or_value_is_told_what_is_near(method, options, sentence):
    if (method, options) == ("lora", {"r": -1}):
        options = {"r": 8, "loftq_config": {}, "layers_pattern": "h", "target_modules": ["q"]}
    with pytest.raises(AdapterError) as caught:
        build_config(method, options)
    assert sentence in str(caught.value)


def test_an_unknown_method_near_none_lists_the_known():
    with pytest.raises(AdapterError, match=r"no adapter type 'xyzzyx'\. Known: .*lora.*qtha"):
        build_config("xyzzyx", {})


@pytest.mark.parametrize(("method", "rate"), [("qtha", 1e-2), ("quantum_peft", 3e-2), ("vera", 1e-3)])
def test_each_method_has_a_learning_rate(method, rate):
    assert math.isclose(default_learning_rate(method).value, rate)


def test_a_learning_rate_says_where_it_comes_from():
    assert str(default_learning_rate("lora")).startswith("0.003 (default of LoRA: best of")
    assert "unmeasured for vera" in str(default_learning_rate("vera"))
    assert set(LEARNING_RATES) <= {*config_classes(), *VARIANTS}

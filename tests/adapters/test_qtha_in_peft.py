"""The adapter as PEFT and transformers handle it: saved, loaded, switched, combined, aimed."""

import json
import subprocess
import sys

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model
from safetensors import safe_open
from torch.testing import assert_close

from qpeft import QthaConfig
from qpeft.adapters.qtha import QthaLayer

VARIANTS = [
    {},
    {"middle": "frozen_circuit"},
    {"middle": "mlp", "up": "dense"},
    {"middle": "none"},
    {"rank": 8, "num_qubits": 4, "fusion": "hadamard", "init_seed": None},
]

IN_A_NEW_PROCESS = """
import sys, torch, qpeft
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, expected = sys.argv[1:]
expected = torch.load(expected)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager"), adapter)
with torch.no_grad():
    print((model(expected["tokens"]).logits - expected["logits"]).abs().max().item())
"""


@pytest.mark.parametrize("options", VARIANTS, ids=str)
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_save_and_reload_are_equal(make_model, adapt, shake, tokens, tmp_path, options, low_cpu_mem_usage):
    model = shake(adapt(**options)).eval()
    logits = _logits(model, tokens)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_model(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(_logits(again, tokens), logits)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_an_adapter_returns_under_another_name(make_model, adapt, shake, tokens, tmp_path, options):
    model = shake(adapt(**options)).eval()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_model(), tmp_path, adapter_name="other")
    again.load_adapter(tmp_path, adapter_name="down")  # also the name of a part
    for name in ("other", "down"):
        again.set_adapter(name)
        assert torch.equal(_logits(again, tokens), _logits(model, tokens))


def test_names_in_the_file_are_free_of_the_adapters_name(adapt, tmp_path):
    model = adapt()
    model.add_adapter("second", _config(target_modules=["q_proj", "v_proj"]))
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as first:
        with safe_open(tmp_path / "second" / "adapter_model.safetensors", "pt") as second:
            assert set(first.keys()) == set(second.keys())
        assert not any({"default", "second"} & set(key.split(".")) for key in first.keys())  # noqa: SIM118


@pytest.mark.slow
def test_save_and_reload_in_a_new_process_are_equal(make_model, adapt, shake, tokens, tmp_path):
    make_model().save_pretrained(tmp_path / "base")
    model = shake(adapt()).eval()
    model.save_pretrained(tmp_path / "adapter")
    torch.save({"tokens": tokens, "logits": _logits(model, tokens)}, tmp_path / "expected.pt")
    paths = [str(tmp_path / name) for name in ("base", "adapter", "expected.pt")]
    done = subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS, *paths], capture_output=True, text=True, check=True)
    assert float(done.stdout) == 0.0


def test_nothing_saved_is_pickled(adapt, tmp_path):
    adapt().save_pretrained(tmp_path)
    files = {file.name for file in tmp_path.iterdir()}
    assert files == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "QTHA"


def test_auto_peft_loads_base_and_adapter(make_model, adapt, shake, tokens, tmp_path):
    make_model().save_pretrained(tmp_path / "base")
    model = shake(adapt()).eval()
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter", attn_implementation="eager")
    assert torch.equal(_logits(again.eval(), tokens), _logits(model, tokens))


def test_transformers_adds_loads_and_deletes_it(make_model, adapt, shake, tokens, tmp_path):
    tuned = shake(adapt()).eval()
    tuned.save_pretrained(tmp_path)
    model = make_model()
    plain = _logits(model, tokens)
    model.load_adapter(str(tmp_path), adapter_name="tuned")
    assert torch.equal(_logits(model, tokens), _logits(tuned, tokens))
    model.disable_adapters()
    assert torch.equal(_logits(model, tokens), plain)
    model.enable_adapters()
    model.delete_adapter("tuned")
    assert torch.equal(_logits(model, tokens), plain)


def test_transformers_adds_a_fresh_adapter(make_model, tokens):
    model = make_model()
    plain = _logits(model, tokens)
    model.add_adapter(QthaConfig(rank=4, target_modules=["q_proj"]), adapter_name="fresh")
    assert torch.equal(_logits(model, tokens), plain)
    assert isinstance(model.model.layers[0].self_attn.q_proj, QthaLayer)


def test_two_active_adapters_add(one_linear):
    model = get_peft_model(one_linear(), _config(rank=4))
    model.add_adapter("second", _config(rank=6, middle="mlp"))
    _shake_all(model)
    x = torch.randn(5, 12)
    outputs = {}
    for names in (["default"], ["second"], ["default", "second"]):
        model.base_model.set_adapter(names)
        outputs[tuple(names)] = model(x)
    with model.disable_adapter():
        base = model(x)
    together = outputs["default", "second"] - base
    apart = (outputs["default",] - base) + (outputs["second",] - base)
    assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_switching_activates_and_trains_one_adapter(adapt, shake, tokens):
    model = adapt()
    model.add_adapter("second", _config(target_modules=["q_proj", "v_proj"]))
    shake(model)
    outputs = {}
    for name in ("default", "second", "default"):
        model.set_adapter(name)
        assert {parameter.split("qtha_branch.")[1].split(".")[0] for parameter in _trained(model)} == {name}
        if name in outputs:
            assert torch.equal(outputs[name], _logits(model, tokens))
        outputs[name] = _logits(model, tokens)
    assert not torch.equal(outputs["default"], outputs["second"])


def test_adapters_on_different_layers_live_side_by_side(adapt, shake, tokens):
    model = adapt(target_modules=["q_proj"])
    model.add_adapter("second", _config(target_modules=["v_proj"]))
    shake(model)
    model.base_model.set_adapter(["default", "second"])
    with_both = _logits(model, tokens)
    model.set_adapter("second")
    assert not torch.equal(_logits(model, tokens), with_both)


def test_a_deleted_adapter_is_gone_and_the_other_stays(adapt, shake, tokens):
    model = adapt()
    model.add_adapter("second", _config(target_modules=["q_proj", "v_proj"]))
    shake(model)
    model.set_adapter("second")
    second = _logits(model, tokens)
    model.delete_adapter("default")
    assert torch.equal(_logits(model, tokens), second)
    assert not any(".default." in name for name, _ in model.named_parameters())


def test_disable_adapter_gives_the_base_model(make_model, adapt, shake, tokens):
    base = _logits(make_model(), tokens)
    model = shake(adapt()).eval()
    tuned = _logits(model, tokens)
    with model.disable_adapter():
        assert torch.equal(_logits(model, tokens), base)
    assert torch.equal(_logits(model, tokens), tuned)
    assert not torch.equal(tuned, base)


def test_unload_gives_the_base_model_back(make_model, adapt, shake, tokens):
    base = _logits(make_model(), tokens)
    unloaded = shake(adapt()).unload()
    assert torch.equal(_logits(unloaded, tokens), base)
    assert not any(isinstance(module, QthaLayer) for module in unloaded.modules())


def test_patterns_set_rank_and_alpha_of_single_modules(adapt):
    model = adapt(rank=4, alpha=8.0, rank_pattern={"v_proj": 6}, alpha_pattern={r"layers\.1\..*v_proj": 3.0})
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QthaLayer)}
    found = {
        name.split("layers.")[1].replace(".self_attn", ""): (
            layer.qtha_branch["default"].rank,
            layer.qtha_branch["default"].scaling,
        )
        for name, layer in layers.items()
    }
    assert found == {"0.q_proj": (4, 2.0), "0.v_proj": (6, 8 / 6), "1.q_proj": (4, 2.0), "1.v_proj": (6, 0.5)}


def test_patterns_return_from_a_file(make_model, adapt, shake, tokens, tmp_path):
    model = shake(adapt(rank_pattern={"v_proj": 6}, alpha_pattern={"q_proj": 3.0})).eval()
    model.save_pretrained(tmp_path)
    assert torch.equal(_logits(PeftModel.from_pretrained(make_model(), tmp_path), tokens), _logits(model, tokens))


@pytest.mark.parametrize(
    ("options", "adapted"),
    [
        ({"target_modules": "all-linear"}, 14),
        ({"target_modules": r".*layers\.1\.self_attn\.[qk]_proj"}, 2),
        ({"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]}, 2),
        ({"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["layers.0.self_attn.q_proj"]}, 3),
        ({"target_modules": None}, 4),
        ({"target_modules": ["down_proj", "lm_head"]}, 3),
    ],
    ids=str,
)
def test_targets_are_found_as_peft_finds_them(adapt, shake, tokens, options, adapted):
    model = shake(adapt(**options)).eval()
    assert sum(isinstance(module, QthaLayer) for module in model.modules()) == adapted
    assert torch.isfinite(_logits(model, tokens)).all()


def test_modules_to_save_are_trained_in_full_and_saved(make_model, adapt, tokens, tmp_path):
    model = adapt(modules_to_save=["lm_head"])
    with torch.no_grad():
        model.base_model.model.lm_head.modules_to_save["default"].weight.mul_(2)
    model.eval().save_pretrained(tmp_path)
    assert torch.equal(_logits(PeftModel.from_pretrained(make_model(), tmp_path), tokens), _logits(model, tokens))


def test_generation_with_the_key_value_cache_equals_generation_without(adapt, shake, tokens):
    model = shake(adapt()).eval()
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(tokens)}
    with_cache, without = (model.generate(input_ids=tokens, use_cache=use, **options) for use in (True, False))
    assert torch.equal(with_cache, without)


@torch.no_grad()
def _logits(model, tokens):
    return model.eval()(tokens).logits


def _config(**options):
    return QthaConfig(**({"rank": 4, "target_modules": ["layer"], "init_seed": 1} | options))


def _trained(model):
    return [name for name, weight in model.named_parameters() if weight.requires_grad]


@torch.no_grad()
def _shake_all(model):
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "qtha_" in name:
            weight.normal_(std=0.5)

"""The axolotl plug-in, by a stub of the interface that axolotl calls and the YAML of docs/integrations.md."""

import inspect
from importlib import import_module

import axolotl_stub
import pytest
import snippets
import torch
import yaml
from pydantic import BaseModel, create_model
from safetensors.torch import load_file, save_file

from qpeft import LorettaConfig, QthaConfig
from qpeft.adapters import ADAPTERS
from qpeft.errors import AdapterError, RecipeError
from qpeft.models import load_model

pytestmark = pytest.mark.filterwarnings(r"ignore::FutureWarning:(transformers|peft)\.")


@pytest.fixture
def documented():
    """The configuration of the page, as YAML reads it."""
    (text,) = snippets.blocks("axolotl", "yaml")
    return yaml.safe_load(text)


@pytest.fixture
def plugin(monkeypatch, documented):
    axolotl_stub.install(monkeypatch)
    (name,) = documented["plugins"]
    return axolotl_stub.load_plugin(name)


@pytest.fixture
def load(plugin, documented, tiny_model):
    """A function: what the plug-in makes of the tiny model and the page's configuration with other keys."""

    def load(inference=False, config_only=False, **keys):
        cfg = axolotl_stub.DictDefault(documented | keys)
        return plugin.load_adapter(load_model(str(tiny_model)), cfg, inference=inference, config_only=config_only)

    return load


def test_the_plug_in_serves_every_method_of_ours_and_promises_nothing_of_lora(plugin):
    known = {one.name: (one.lora_like, one.relora) for one in plugin.get_adapter_capabilities()}
    assert known == dict.fromkeys(ADAPTERS, (False, False))


def test_methods_take_what_axolotl_passes(plugin):
    for name in ("get_input_args", "get_adapter_capabilities", "load_adapter"):
        ours, theirs = (inspect.signature(getattr(owner, name)) for owner in (type(plugin), axolotl_stub.BasePlugin))
        assert list(ours.parameters) == list(theirs.parameters)


def test_the_documented_options_reach_the_adapter(load, documented):
    model, config = load()
    assert isinstance(config, QthaConfig)
    assert documented["adapter"] == "qtha"
    for name, value in documented["qpeft"].items():
        assert getattr(config, name) == (set(value) if name == "target_modules" else value)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("_branch." in name for name in trained)


def test_axolotl_reads_our_keys_by_a_class_that_mixes_into_its_own(plugin, documented):
    module, _, name = plugin.get_input_args().rpartition(".")
    args = getattr(import_module(module), name)
    merged = create_model("Merged", __base__=(create_model("Theirs", adapter=(str, ...)), args))
    assert issubclass(args, BaseModel)
    assert merged.model_validate(documented).model_dump(exclude_none=True)["qpeft"] == documented["qpeft"]


def test_patterns_in_axolotls_dictionaries_survive_a_save(load, tmp_path, tiny_model):
    options = {"rank": 4, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}}
    model, _ = load(adapter="loretta", qpeft=options)
    model.save_pretrained(str(tmp_path))
    again = LorettaConfig.from_pretrained(str(tmp_path))
    assert (again.rank, again.rank_pattern) == (4, {"q_proj": 2})


def test_a_trained_adapter_is_loaded_and_trained_only_if_asked(load, tmp_path):
    model, _ = load()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_branch." in name:
                weight.normal_()
    model.save_pretrained(str(tmp_path))
    tokens = torch.arange(3, 30)[None]
    for inference in (True, False):
        again, config = load(inference=inference, lora_model_dir=str(tmp_path), qpeft=None)
        assert isinstance(config, QthaConfig)
        assert torch.equal(again.eval()(tokens).logits, model.eval()(tokens).logits)
        assert any(weight.requires_grad for weight in again.parameters()) is not inference


def test_half_an_adapter_or_another_one_is_not_trained_further(load, tmp_path):
    model, _ = load()
    model.save_pretrained(str(tmp_path))
    with pytest.raises(RecipeError, match="holds a QTHA, not the adapter 'loretta'"):
        load(adapter="loretta", lora_model_dir=str(tmp_path), qpeft=None)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    weights.pop(min(weights))
    save_file(weights, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AdapterError, match="missing adapter keys"):
        load(lora_model_dir=str(tmp_path), qpeft=None)


def test_preference_training_gets_the_config_alone(load):
    model, config = load(config_only=True)
    assert model is None
    assert isinstance(config, QthaConfig)


@pytest.mark.parametrize("adapter", [None, "lora", "mora"])
def test_other_adapters_are_left_to_others(load, adapter):
    assert load(adapter=adapter) is None


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        ({"lora_r": 8}, RecipeError, "lora_r would have no effect"),
        ({"lora_target_linear": True, "peft_use_dora": True}, RecipeError, "lora_target_linear, peft_use_dora would"),
        ({"load_in_4bit": True}, RecipeError, "load_in_4bit would have no effect"),
        ({"config_only": True, "lora_model_dir": "trained"}, RecipeError, "would be left out"),
        ({"qpeft": {"ranks": 4}}, AdapterError, "did you mean 'rank'"),
        ({"qpeft": {"target_modules": ["query"]}}, AdapterError, "linear layers are called"),
    ],
)
def test_what_would_have_no_effect_or_does_not_fit_is_refused(load, keys, error, message):
    with pytest.raises(error, match=message):
        load(**keys)


def test_a_peft_whose_files_could_not_be_loaded_again_is_refused(load, monkeypatch):
    monkeypatch.setattr("peft.__version__", "0.20.0")
    with pytest.raises(AdapterError, match=r"needs PEFT 0\.21 or newer"):
        load()


def test_keys_that_axolotl_fills_in_by_itself_are_accepted(load):
    assert load(lora_dropout=0.0, load_in_4bit=False, load_in_8bit=False, lora_modules_to_save=None) is not None

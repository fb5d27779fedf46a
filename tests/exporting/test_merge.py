"""Merged models, loaded by transformers alone, against the adapters that they came from."""

import copy
import json
import math
import shutil
import sys

import pytest
import torch
from peft import LoHaConfig, LoraConfig, PeftModel
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from qpeft import LorettaConfig, QthaConfig
from qpeft.errors import AdapterError, ModelError, NotMergeableError, OutputError
from qpeft.exporting import export_lora, merge_adapter
from qpeft.models import load_model

TARGETS = ["q_proj", "v_proj"]
LORETTA = LorettaConfig(rank=4, bond_dimension=5, num_modes=2, target_modules=TARGETS)
WAVY = QthaConfig(rank=4, target_modules=TARGETS, depth=2)


def reload(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, **options)


@pytest.mark.parametrize("config", [LORETTA, LoraConfig(r=3, target_modules="all-linear")], ids=["loretta", "lora"])
def test_a_matrix_is_merged_exactly(trained, tokenizer, texts, logits, tmp_path, config):
    model = trained(config)
    expected = logits(model, texts[0])
    report = merge_adapter(model, tokenizer, tmp_path / "merged", held_out=texts)
    assert_close(logits(reload(tmp_path / "merged"), texts[0]), expected, atol=1e-5, rtol=1e-5)
    assert report.kept == pytest.approx(1, abs=1e-6)
    assert report.reloaded.mean < 1e-5
    assert not any(layer.svd_error for layer in report.layers.values())
    again = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert again("What is 1 and 2?")["input_ids"] == tokenizer("What is 1 and 2?")["input_ids"]
    assert again.chat_template == tokenizer.chat_template


def test_all_files_of_a_tokenizer_can_be_read_by_everybody(trained, tokenizer, texts, tmp_path):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = {"default": tokenizer.chat_template, "short": "{{ messages[-1]['content'] }}"}
    merge_adapter(trained(LORETTA), tokenizer, tmp_path / "merged", held_out=texts)
    written = [tmp_path / "merged", *(tmp_path / "merged").rglob("*")]
    assert any(path.is_dir() for path in written[1:])
    assert {path.stat().st_mode & 0o777 for path in written if path.is_dir()} == {0o755}
    assert {path.stat().st_mode & 0o777 for path in written if path.is_file()} == {0o644}
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == tokenizer.chat_template


def test_a_model_with_code_of_its_own_is_read_back_with_that_code(
    trained, tiny_model, tokenizer, texts, tmp_path, monkeypatch
):
    folder = tmp_path / "own"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnForCausalLM"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": classes}))
    (folder / "own_code.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    config = LorettaConfig(rank=4, bond_dimension=5, num_modes=2, target_modules=TARGETS)
    model = trained(config, model=load_model(str(folder), trust_remote_code=True))
    report = merge_adapter(model, tokenizer, tmp_path / "merged", held_out=texts)
    assert report.reloaded.mean < 1e-5


def test_a_merge_that_is_refused_is_called_one(trained, tokenizer, texts, tmp_path):
    with pytest.raises(OutputError, match="The merged model would keep"):
        merge_adapter(trained(WAVY), tokenizer, tmp_path / "merged", calibration=texts, tolerance=0.0)


def test_a_circuit_is_merged_as_its_lora_is(trained, base, tokenizer, texts, logits, tmp_path):
    model = trained(WAVY)
    export_lora(model, tmp_path / "lora", calibration=texts, tolerance=math.inf)
    adapter = logits(model, texts[-3])
    report = merge_adapter(model, tokenizer, tmp_path / "merged", calibration=texts, tolerance=math.inf)
    merged, lora = reload(tmp_path / "merged"), PeftModel.from_pretrained(base(), tmp_path / "lora")
    found = logits(merged, texts[-3])
    assert_close(found, logits(lora, texts[-3]), atol=1e-4, rtol=1e-4)
    assert report.reloaded.maximum >= float((found - adapter).abs().max()) > 1e-3
    assert json.loads((tmp_path / "merged" / "export_report.json").read_text())["reloaded"]["tokens"] > 0


def test_a_constant_goes_into_the_bias_where_there_is_one(base, trained, tokenizer, texts, logits, tmp_path):
    from transformers import LlamaForCausalLM

    config = base().config
    config.attention_bias = True
    torch.manual_seed(1)
    with_bias = LlamaForCausalLM(config)
    model = trained(WAVY, with_bias)
    names = [name for name, weight in with_bias.named_parameters() if name.endswith("proj.base_layer.bias")]
    before = {name: with_bias.get_parameter(name).clone() for name in names}
    report = merge_adapter(model, tokenizer, tmp_path / "merged", calibration=texts, tolerance=math.inf)
    assert all(layer.keeps_constant for layer in report.layers.values())
    merged = reload(tmp_path / "merged")
    change = {name: merged.get_parameter(name.replace(".base_layer", "")) - bias for name, bias in before.items()}
    assert len(change) == 4
    assert all(bias.norm() > 1e-3 for bias in change.values())
    lost = merge_adapter(
        trained(WAVY, LlamaForCausalLM(config)),
        tokenizer,
        tmp_path / "dropped",
        calibration=texts,
        constant="drop",
        tolerance=math.inf,
    )
    assert not any(layer.keeps_constant for layer in lost.layers.values())


def test_a_base_without_biases_gets_none(trained, tokenizer, texts, tmp_path):
    report = merge_adapter(trained(WAVY), tokenizer, tmp_path / "merged", calibration=texts, tolerance=math.inf)
    assert not any(layer.keeps_constant for layer in report.layers.values())
    merged = reload(tmp_path / "merged")
    assert not merged.config.attention_bias
    assert not any(name.endswith(".bias") for name, _ in merged.named_parameters())


def test_the_files_have_the_type_asked_for(trained, tokenizer, texts, logits, tmp_path):
    model = trained(LORETTA)
    expected = logits(model, texts[0])
    report = merge_adapter(model, tokenizer, tmp_path / "merged", held_out=texts, dtype="bfloat16")
    merged = reload(tmp_path / "merged", dtype="auto")
    assert {weight.dtype for weight in merged.parameters()} == {torch.bfloat16}
    apart = (logits(merged, texts[0]).float() - expected).abs().max()
    assert 0 < apart < 0.1 * expected.abs().max()
    assert report.reloaded.maximum > report.logits.maximum


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules=["lm_head", "q_proj"]),
        LoHaConfig(r=2, target_modules=["lm_head", "q_proj"]),
        LorettaConfig(rank=2, bond_dimension=3, num_modes=2, target_modules=["lm_head", "q_proj"]),
        QthaConfig(rank=2, bottleneck="none", target_modules=["lm_head", "q_proj"]),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_an_adapted_head_no_longer_equals_the_embeddings_it_was_tied_to(
    base, trained, tokenizer, texts, logits, tmp_path, config
):
    from transformers import LlamaForCausalLM

    options = base().config
    options.tie_word_embeddings = True
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        model = trained(config, LlamaForCausalLM(options))
    expected = logits(model, texts[0])
    merge_adapter(model, tokenizer, tmp_path / "merged", held_out=texts)
    merged = reload(tmp_path / "merged")
    assert_close(logits(merged, texts[0]), expected, atol=1e-4, rtol=1e-4)
    assert not merged.config.tie_word_embeddings


def test_modules_trained_in_full_are_merged_too(trained, tokenizer, texts, logits, tmp_path):
    model = trained(LoraConfig(r=2, target_modules=TARGETS, modules_to_save=["lm_head"]))
    expected = logits(model, texts[0])
    merge_adapter(model, tokenizer, tmp_path / "merged", held_out=texts)
    assert_close(logits(reload(tmp_path / "merged"), texts[0]), expected, atol=1e-5, rtol=1e-5)


def test_a_base_out_of_a_gguf_file_is_saved_as_what_it_is(base, trained, tokenizer, texts, tmp_path):
    from transformers import GgufConfig

    model = base()
    model.config.quantization_config, model.is_quantized = GgufConfig(), True
    merge_adapter(trained(LORETTA, model), tokenizer, tmp_path / "merged", held_out=texts)
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    assert reload(tmp_path / "merged").dtype == torch.float32


def test_a_quantized_base_is_refused(trained, tokenizer, texts, tmp_path):
    model = trained(LORETTA)
    layer = model.get_base_model().model.layers[0].self_attn.q_proj.base_layer
    layer.weight = torch.nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(NotMergeableError, match=r"of torch.int8.*without quantization"):
        merge_adapter(model, tokenizer, tmp_path / "merged", held_out=texts)


def test_what_loses_more_than_the_tolerance_is_refused_and_the_adapter_stays(
    trained, tokenizer, texts, logits, tmp_path
):
    model = trained(WAVY)
    before = logits(model, texts[0])
    with pytest.raises(OutputError, match=r"would keep .*Nothing was written. The update is too far from linear"):
        merge_adapter(model, tokenizer, tmp_path / "merged", calibration=texts, tolerance=0)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(logits(model, texts[0]), before)


def test_files_that_give_back_something_else_are_not_left(trained, tokenizer, texts, tmp_path, monkeypatch):
    from qpeft.exporting import merged

    load = merged.load_model

    def load_another(name, **options):
        model = load(name, **options)
        torch.nn.init.zeros_(model.model.layers[0].self_attn.q_proj.weight)
        return model

    monkeypatch.setattr(merged, "load_model", load_another)
    with pytest.raises(OutputError, match="does not come back from its files"):
        merge_adapter(trained(LORETTA), tokenizer, tmp_path / "merged", held_out=texts)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_round_the_adapter_away_are_refused(trained, tokenizer, texts, tmp_path):
    model = trained(LORETTA, size=0.1)
    with pytest.raises(OutputError, match=r"In the merged weights.*--dtype with more digits"):
        merge_adapter(model, tokenizer, tmp_path / "merged", held_out=texts, dtype="bfloat16", tolerance=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_several_active_adapters_and_unknown_types_are_refused(trained, tokenizer, texts, tmp_path):
    model = trained(LoraConfig(r=2, target_modules=TARGETS))
    with pytest.raises(ModelError, match="dtype must be one of"):
        merge_adapter(model, tokenizer, tmp_path / "merged", held_out=texts, dtype="int8")
    model.add_adapter("second", LoraConfig(r=2, target_modules=TARGETS))
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(AdapterError, match="2 adapters are active"):
        merge_adapter(model, tokenizer, tmp_path / "merged", held_out=texts)

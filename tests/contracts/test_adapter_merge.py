"""Updates that are matrices go into the weights and out again, and into plain LoRA; the others say that they cannot."""

import pytest
import torch
from peft import PeftModel, convert_to_lora, get_peft_model, save_as_lora
from small_adapters import OneLinear, logits, shake
from torch.testing import assert_close

from qpeft.adapters.bridge import BaseTunerLayer
from qpeft.errors import NotMergeableError


@pytest.mark.feature("merge")
def test_merging_equals_the_forward_pass_or_is_refused(base, trained, tokens, merges, refusing):
    model = trained()
    before = logits(model, tokens)
    if not merges:
        with refusing(NotMergeableError, "Keep the adapter beside the model"):
            model.merge_and_unload()
        assert torch.equal(logits(model, tokens), before)
        return
    model.merge_adapter()
    assert_close(logits(model, tokens), before, atol=1e-5, rtol=1e-5)
    with model.disable_adapter():
        assert_close(logits(model, tokens), logits(base(), tokens), atol=1e-5, rtol=1e-5)
    model.merge_adapter()
    model.unmerge_adapter()
    assert_close(logits(model, tokens), before, atol=1e-5, rtol=1e-5)
    merged = model.merge_and_unload(safe_merge=True)
    assert_close(logits(merged, tokens), before, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, BaseTunerLayer) for module in merged.modules())


@pytest.mark.feature("merge_several")
def test_a_merge_takes_all_active_adapters_and_no_other(two_adapters, tokens, merges, refusing):
    two_adapters.add_adapter("idle", two_adapters.peft_config["default"])
    shake(two_adapters, seed=9).base_model.set_adapter(["default", "second"])
    before = logits(two_adapters, tokens)
    if not merges:
        with refusing(NotMergeableError, "Keep the adapter beside the model"):
            two_adapters.merge_adapter()
        return
    two_adapters.merge_adapter()
    layer = two_adapters.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.merged_adapters == ["default", "second"]
    assert_close(logits(two_adapters, tokens), before, atol=1e-5, rtol=1e-5)


@pytest.mark.feature("lora")
def test_a_conversion_to_lora_is_exact_or_refused(base, trained, tokens, merges, refusing, tmp_path):
    model = trained()
    if not merges:
        assert not model.supports_lora_conversion()
        with refusing(TypeError, "do not support LoRA conversion"):
            convert_to_lora(model, rank=4)
        return
    save_as_lora(tmp_path, model, rank=1.0)
    exported = PeftModel.from_pretrained(base(), tmp_path)
    assert exported.peft_config["default"].peft_type == "LORA"
    assert_close(logits(exported, tokens), logits(model, tokens), atol=1e-4, rtol=1e-4)


@pytest.mark.feature("merge_unknown")
def test_nothing_is_merged_if_one_weight_cannot_be_written(base, config, tokens, refusing):
    model = base()
    # A layer whose weight is a kind of tensor that nobody says how to make again.
    last = model.model.layers[1].self_attn.v_proj
    last.weight = torch.nn.Parameter(last.weight.detach().as_subclass(Foreign), requires_grad=False)
    model = shake(get_peft_model(model, config())).eval()
    state = {name: weight.clone() for name, weight in model.state_dict().items()}
    with refusing(NotMergeableError, r"(?s)layers.1.self_attn.v_proj' is a Foreign|Keep the adapter beside the model"):
        model.merge_and_unload()
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())


def test_a_merge_into_half_precision_rounds_once(config, merges):
    if not merges:
        pytest.skip("refused, see above")
    torch.manual_seed(0)
    options = {"target_modules": ["layer"], "task_type": None}
    model = get_peft_model(OneLinear().bfloat16(), config(**options))
    model.add_adapter("second", config(**options, init_seed=1))
    layer = shake(model).base_model.model.layer
    exact = layer.base_layer.weight.data.float() + sum(layer.get_delta_weight(name) for name in ("default", "second"))
    model.merge_adapter(["default", "second"])
    assert torch.equal(layer.base_layer.weight.data, exact.bfloat16())


def test_a_merge_into_a_weight_that_another_module_has_too_is_refused_with_the_way_out(
    base, config, tokens, merges, tmp_path
):
    """As a head tied to the embeddings: the merge would change these too."""
    if not merges:
        pytest.skip("refused, see above")
    model = tied(base())
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        model = shake(get_peft_model(model, config(target_modules=["lm_head", "q_proj"]))).eval()
    before, state = logits(model, tokens), {name: weight.clone() for name, weight in model.state_dict().items()}
    sentence = r"'lm_head' is also that of 'model.embed_tokens', which a merge would change too. `qpeft merge` writes"
    for merge in (model.merge_adapter, model.merge_and_unload):
        for safe in (False, True):
            with pytest.raises(NotMergeableError, match=sentence) as caught:
                merge(safe_merge=safe)
    assert all(torch.equal(weight, state[name]) for name, weight in model.state_dict().items())
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    # The way out that the sentence names, word for word.
    way_out = str(caught.value).partition("loaded: ")[2]
    first, second = way_out.removesuffix(".").split(", and for embeddings also ")
    own = tied(base())
    exec(f"{first}\n{second}", {"base": own, "torch": torch})
    merged = PeftModel.from_pretrained(own, tmp_path).merge_and_unload(safe_merge=True)
    assert_close(logits(merged, tokens), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("adapted", [["q_proj"], ["q_proj", "o_proj"]], ids=str)
def test_layers_that_share_a_weight_are_not_merged(base, config, merges, adapted):
    """As in models that use one matrix twice, whether one of the two is adapted or both."""
    if not merges:
        pytest.skip("refused, see above")
    model = base()
    attention = model.model.layers[1].self_attn
    attention.o_proj.weight = attention.q_proj.weight
    model = get_peft_model(model, config(target_modules=adapted))
    with pytest.raises(
        NotMergeableError, match=r"'model.layers.1.self_attn.q_proj' is also that of .*1.self_attn.o_proj'"
    ):
        model.merge_and_unload()


def test_a_layer_that_stands_in_two_places_is_not_merged(config, merges):
    """PEFT adapts it in the first place only, and the weight is that of both."""
    if not merges:
        pytest.skip("refused, see above")
    twice = torch.nn.Linear(12, 12)
    model = get_peft_model(
        torch.nn.Sequential(twice, torch.nn.ReLU(), twice), config(target_modules=["0"], task_type=None)
    )
    with pytest.raises(NotMergeableError, match="base weight of '0' is also that of '2'"):
        model.merge_adapter()


def test_a_shared_weight_without_an_adapter_is_in_nobodys_way(base, config, tokens, merges):
    if not merges:
        pytest.skip("refused, see above")
    model = shake(get_peft_model(tied(base()), config())).eval()
    before = logits(model, tokens)
    assert_close(logits(model.merge_and_unload(), tokens), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_a_safe_merge_of_nan_says_so_in_pefts_words(trained, merges, value, merge):
    """Which its own test-suite and programs around it look for."""
    if not merges:
        pytest.skip("refused, see above")
    model = trained()
    state = {name: weight.clone() for name, weight in model.state_dict().items() if "base_layer" in name}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_branch." in name:
                weight[0] = value
    sentence = "NaNs detected in the merged weights. The adapter default seems to be broken"
    with pytest.raises(ValueError, match=sentence):
        getattr(model, merge)(safe_merge=True)
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in state.items())


def tied(model):
    """The model with its head tied to its embeddings."""
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.model.embed_tokens.weight
    return model


class Foreign(torch.Tensor):
    """A tensor of a class that no quantization of PEFT knows."""

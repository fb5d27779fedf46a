"""What an adapter of any method does in a model: aimed, switched, added, merged, mixed, trained."""

import pytest
import torch
from peft import PeftModel, convert_to_lora, get_peft_model, save_as_lora
from small_adapters import MATRICES, TARGETS, OneLinear, logits, shake
from torch.testing import assert_close

from qpeft.adapters.bridge import BaseTunerLayer
from qpeft.errors import AdapterError, NotMergeableError


def test_a_fresh_adapter_changes_nothing(base, config, tokens):
    assert torch.equal(logits(get_peft_model(base(), config()), tokens), logits(base(), tokens))


def test_the_seed_decides_the_first_weights(base, config):
    first, second, other = (get_peft_model(base(), config(init_seed=seed)).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in first.items())


@pytest.mark.parametrize(
    ("options", "adapted"),
    [
        ({"target_modules": "all-linear"}, 14),
        ({"target_modules": r".*layers\.1\.self_attn\.[qk]_proj"}, 2),
        ({"layers_to_transform": [1]}, 2),
        ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, 3),
        ({"target_modules": None}, 4),
    ],
    ids=str,
)
def test_targets_are_found_as_peft_finds_them(trained, tokens, options, adapted):
    model = trained(**options)
    assert sum(isinstance(module, BaseTunerLayer) for module in model.modules()) == adapted
    assert logits(model, tokens).isfinite().all()


def test_what_is_not_linear_is_refused_by_name_and_nothing_changes(base, config, tokens):
    model = base()
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(AdapterError, match=r"'model.embed_tokens' is a Embedding.*Leave it out of target_modules"):
        get_peft_model(model, config(target_modules=["q_proj", "embed_tokens"]))
    assert [name for name, _ in model.named_modules()] == names


def test_conv1d_is_refused_by_name(config):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32, n_positions=16))
    with pytest.raises(AdapterError, match=r"'transformer.h.0.attn.c_attn' is a Conv1D"):
        get_peft_model(model, config(target_modules=["c_attn"]))


def test_unloading_gives_the_base_model_back(base, trained, tokens):
    unloaded = trained().unload()
    assert torch.equal(logits(unloaded, tokens), logits(base(), tokens))
    assert not any(isinstance(module, BaseTunerLayer) for module in unloaded.modules())


def test_two_active_adapters_add(config):
    torch.manual_seed(0)
    model = get_peft_model(OneLinear(), config(target_modules=["layer"], task_type=None))
    model.add_adapter("second", config(target_modules=["layer"], task_type=None, init_seed=1))
    shake(model).eval()
    x, outputs = torch.randn(5, 12), {}
    for names in (["default"], ["second"], ["default", "second"]):
        model.base_model.set_adapter(names)
        outputs[tuple(names)] = model(x)
    with model.disable_adapter():
        base = model(x)
    assert_close(
        outputs["default", "second"] - base,
        outputs["default",] + outputs["second",] - 2 * base,
        atol=1e-5,
        rtol=1e-5,
    )


def test_disabling_gives_the_base_model_and_enabling_the_adapter(base, trained, tokens):
    model = trained()
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens), logits(base(), tokens))
    assert torch.equal(logits(model, tokens), logits(trained(), tokens))


def test_a_deleted_adapter_is_gone_and_the_other_stays(two_adapters, tokens):
    two_adapters.set_adapter("second")
    second = logits(two_adapters, tokens)
    two_adapters.delete_adapter("default")
    assert torch.equal(logits(two_adapters, tokens), second)
    assert not any(".default." in name for name, _ in two_adapters.named_parameters())


def test_the_active_adapter_alone_is_trained(two_adapters):
    two_adapters.set_adapter("second")
    trained = [name for name, weight in two_adapters.named_parameters() if weight.requires_grad]
    assert trained
    assert all("_branch.second." in name for name in trained)


def test_merging_equals_the_forward_pass_or_is_refused(base, trained, tokens, merges):
    model = trained()
    before = logits(model, tokens)
    if not merges:
        with pytest.raises(NotMergeableError, match="Keep the adapter beside the model"):
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


def test_a_conversion_to_lora_is_exact_or_refused(base, trained, tokens, merges, tmp_path):
    model = trained()
    if not merges:
        assert not model.supports_lora_conversion()
        with pytest.raises(TypeError, match="do not support LoRA conversion"):
            convert_to_lora(model, rank=4)
        return
    save_as_lora(tmp_path, model, rank=1.0)
    exported = PeftModel.from_pretrained(base(), tmp_path)
    assert exported.peft_config["default"].peft_type == "LORA"
    assert_close(logits(exported, tokens), logits(model, tokens), atol=1e-4, rtol=1e-4)


def test_rows_of_a_mixed_batch_meet_their_adapters_or_are_refused(two_adapters, tokens, mixes):
    names = ["second", "__base__", "default"]
    if not mixes:
        with pytest.raises(AdapterError, match=r"no mixed batches.*one batch per adapter"):
            logits(two_adapters, tokens, adapter_names=names)
        return
    mixed = logits(two_adapters, tokens, adapter_names=names)
    for row, name in enumerate(names):
        if name == "__base__":
            with two_adapters.disable_adapter():
                alone = logits(two_adapters, tokens)[row]
        else:
            two_adapters.set_adapter(name)
            alone = logits(two_adapters, tokens)[row]
        assert_close(mixed[row], alone, atol=1e-5, rtol=1e-5)


def test_transformers_own_model_refuses_adapter_names(base, config, tokens):
    model = base()
    model.add_adapter(config(), adapter_name="one")
    with pytest.raises(AdapterError, match="would ignore adapter_names"):
        logits(model, tokens, adapter_names=["one"] * 3)


def test_checkpointed_gradients_equal_plain_ones(base, config, tokens):
    gradients = []
    for checkpointed in (False, True):
        model = base()
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model = shake(get_peft_model(model, config())).train()
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        gradients.append({name: w.grad for name, w in model.named_parameters() if w.requires_grad})
    plain, checkpointed = gradients
    assert all(gradient is not None for gradient in plain.values())
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_bfloat16_base_keeps_float32_adapters_and_its_own_type(config, autocast):
    torch.manual_seed(0)
    plain = OneLinear().bfloat16()
    model = shake(get_peft_model(plain, config(target_modules=["layer"], task_type=None))).eval()
    assert {weight.dtype for name, weight in model.named_parameters() if "_branch." in name} == {torch.float32}
    x = torch.randn(5, 12).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        halved = model(x)
    assert halved.dtype == torch.bfloat16
    exact = model.float()(x.float())
    # Two or three roundings to eight bits, of numbers that may cancel.
    assert_close(halved.float(), exact, atol=0.02 * exact.abs().max().item(), rtol=0)


@pytest.fixture
def two_adapters(trained, config):
    """A model with adapters "default" and "second" of different weights."""
    model = trained()
    model.add_adapter("second", config(target_modules=TARGETS[:1], init_seed=1))
    return shake(model, seed=4).eval()


@pytest.fixture
def merges(method):
    """Whether updates of the method are matrices."""
    return method in MATRICES


@pytest.fixture
def mixes(merges):
    """Whether the method takes mixed batches: those do whose update is a matrix."""
    return merges

"""What an adapter of any method does in a model: aimed, switched, added, trained, compiled."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from small_adapters import WITHOUT_RANDOM_NUMBERS, OneLinear, logits, shake
from torch.testing import assert_close

from qpeft.adapters import ADAPTERS
from qpeft.adapters.base import RankedConfig
from qpeft.adapters.bridge import BaseTunerLayer
from qpeft.errors import AdapterError


def test_a_fresh_adapter_changes_nothing(base, config, tokens):
    assert torch.equal(logits(get_peft_model(base(), config()), tokens), logits(base(), tokens))


def test_the_seed_decides_the_first_weights(base, config):
    first, second, other = (get_peft_model(base(), config(init_seed=seed)).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    seedless = config().peft_type.lower() in WITHOUT_RANDOM_NUMBERS
    assert seedless == all(torch.equal(weight, other[name]) for name, weight in first.items())


def test_an_adapter_with_a_seed_leaves_torchs_global_generator_alone(base, config):
    before = torch.get_rng_state()
    get_peft_model(base(), config(init_seed=5))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.feature("targets", "selectors")
@pytest.mark.parametrize(
    ("options", "adapted"),
    [
        ({"target_modules": "all-linear"}, 14),
        ({"target_modules": r".*layers\.1\.self_attn\.[qk]_proj"}, 2),
        ({"target_modules": ["down_proj", "lm_head"]}, 3),
        ({"layers_to_transform": [1]}, 2),
        ({"layers_to_transform": [1], "layers_pattern": ["layers"]}, 2),
        ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, 3),
        ({"target_modules": None}, 4),
    ],
    ids=str,
)
def test_targets_are_found_as_peft_finds_them(trained, tokens, options, adapted):
    model = trained(**options)
    assert sum(isinstance(module, BaseTunerLayer) for module in model.modules()) == adapted
    assert logits(model, tokens).isfinite().all()


@pytest.mark.feature("embedding")
def test_what_is_not_linear_is_refused_by_name_and_nothing_changes(base, config, refusing):
    model = base()
    names = [name for name, _ in model.named_modules()]
    with refusing(AdapterError, r"'model.embed_tokens' is a Embedding.*Leave it out of target_modules"):
        get_peft_model(model, config(target_modules=["q_proj", "embed_tokens"]))
    assert [name for name, _ in model.named_modules()] == names


@pytest.mark.feature("conv1d")
def test_conv1d_is_refused_by_name(config, refusing):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32, n_positions=16))
    with refusing(AdapterError, r"'transformer.h.0.attn.c_attn' is a Conv1D"):
        get_peft_model(model, config(target_modules=["c_attn"]))


@pytest.mark.feature("unload")
def test_unloading_gives_the_base_model_back(base, trained, tokens):
    unloaded = trained().unload()
    assert torch.equal(logits(unloaded, tokens), logits(base(), tokens))
    assert not any(isinstance(module, BaseTunerLayer) for module in unloaded.modules())


@pytest.mark.feature("several")
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


@pytest.mark.feature("disable")
def test_disabling_gives_the_base_model_and_enabling_the_adapter(base, trained, tokens):
    model = trained()
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens), logits(base(), tokens))
    assert torch.equal(logits(model, tokens), logits(trained(), tokens))


@pytest.mark.feature("delete")
def test_a_deleted_adapter_is_gone_and_the_other_stays(two_adapters, tokens):
    two_adapters.set_adapter("second")
    second = logits(two_adapters, tokens)
    two_adapters.delete_adapter("default")
    assert torch.equal(logits(two_adapters, tokens), second)
    assert not any(".default." in name for name, _ in two_adapters.named_parameters())


@pytest.mark.feature("switch")
def test_the_active_adapter_alone_is_trained(two_adapters):
    two_adapters.set_adapter("second")
    trained = [name for name, weight in two_adapters.named_parameters() if weight.requires_grad]
    assert trained
    assert all("_branch.second." in name for name in trained)


@pytest.mark.feature("checkpointing")
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


@pytest.mark.feature("autocast")
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


@pytest.mark.feature("autocast")
@pytest.mark.parametrize("autocast_adapter_dtype", [True, False])
def test_adapters_beside_half_precision_have_the_type_that_was_asked_for(base, config, tokens, autocast_adapter_dtype):
    model = get_peft_model(base().bfloat16(), config(), autocast_adapter_dtype=autocast_adapter_dtype)
    wanted = torch.float32 if autocast_adapter_dtype else torch.bfloat16
    assert {weight.dtype for name, weight in shake(model).named_parameters() if "_branch." in name} == {wanted}
    found = logits(model, tokens)
    assert found.dtype == torch.bfloat16
    exact = logits(model.float(), tokens)
    assert (found - exact).norm() < 0.05 * exact.norm()


@pytest.mark.feature("patterns")
def test_patterns_set_rank_and_alpha_of_single_modules(base, config, trained, tokens, method, tmp_path):
    if not issubclass(ADAPTERS[method][0], RankedConfig):
        pytest.skip("not applicable: the method has no rank")
    options = {"alpha": 8.0, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {r"layers\.1\..*v_proj": 3.0}}
    plain = config(alpha=8.0)
    found = config(**options)
    names = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in (0, 1) for name in "qv"]
    assert [found.rank_of(name) for name in names] == [plain.rank, 2, plain.rank, 2]
    assert [found.scaling_of(name) * found.rank_of(name) for name in names] == [8.0, 8.0, 8.0, 3.0]
    model, alike = trained(**options), trained(alpha=8.0)
    sizes = [[parameters(m.get_submodule(f"base_model.model.{name}")) for name in names] for m in (model, alike)]
    assert [own == other for own, other in zip(*sizes, strict=True)] == [True, False, True, False]
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base(), tmp_path), tokens), logits(model, tokens))


@pytest.mark.feature("switch")
def test_switching_gives_each_adapter_its_own_outputs_again(two_adapters, tokens):
    outputs = {}
    for name in ("default", "second", "default", "second"):
        two_adapters.set_adapter(name)
        assert torch.equal(outputs.setdefault(name, logits(two_adapters, tokens)), logits(two_adapters, tokens))
    assert not torch.equal(outputs["default"], outputs["second"])


@pytest.mark.feature("generate")
def test_generation_with_the_key_value_cache_equals_generation_without(trained, tokens):
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(tokens)}
    model = trained()
    with_cache, without = (model.generate(input_ids=tokens, use_cache=use, **options) for use in (True, False))
    assert torch.equal(with_cache, without)


def parameters(module):
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)

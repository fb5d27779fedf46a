"""Frozen factors and the inputs they are fitted to."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.testing import assert_close

import qpeft
from qpeft import QthaConfig
from qpeft.adapters.base.principal import InputSketch
from qpeft.errors import AdapterError
from qpeft.models import load_model

FROZEN = {"rank": 4, "down": "frozen", "up": "dense", "target_modules": ["q_proj", "down_proj"], "init_seed": 0}


def batches(count=6, width=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [{"input_ids": torch.randint(3, 90, (2, width), generator=generator)} for _ in range(count)]


def inputs_of(model, name, given):
    """Inputs of one layer of the model without adapters, one row a token."""
    seen = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, x: seen.append(x[0].flatten(0, -2)))
    with torch.no_grad(), model.disable_adapter():
        for batch in given:
            model(**batch)
    hook.remove()
    return torch.cat(seen).double()


@pytest.fixture
def adapted(tiny_model):
    return get_peft_model(load_model(str(tiny_model)), QthaConfig(**FROZEN))


def down_of(model, name):
    return model.get_submodule(name).branch("default").down.matrix


def test_a_sketch_finds_the_eigenvectors_of_the_second_moment():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    scales = torch.logspace(0, -3, 30, dtype=torch.float64)
    x = torch.randn(400, 30, generator=generator, dtype=torch.float64) @ (mixing * scales).T
    sketch = InputSketch(30, 14, generator)
    sketch.add(x[:100])
    sketch.add(x[100:])
    directions, moments = sketch.directions()
    values, vectors = torch.linalg.eigh(x.T @ x / 400)
    assert_close(moments, values.flip(0)[:14], rtol=1e-6, atol=0)
    assert_close((directions @ vectors.flip(1)[:, :14]).abs(), torch.eye(14, dtype=torch.float64), atol=1e-6, rtol=0)
    assert sketch.mean_square == pytest.approx(x.square().sum(1).mean().item())


def test_a_thin_sketch_finds_directions_that_stand_out():
    generator = torch.Generator().manual_seed(1)
    scales = torch.cat([torch.tensor([9.0, 6.0, 4.0]), torch.full((197,), 0.1)]).double()
    x = torch.randn(3000, 200, generator=generator, dtype=torch.float64) * scales
    sketch = InputSketch(200, 3, generator)
    sketch.add(x)
    directions, moments = sketch.directions()
    assert_close(directions[:, :3].abs(), torch.eye(3, dtype=torch.float64), atol=0.05, rtol=0)
    assert_close(moments, x.square().mean(0)[:3], rtol=0.01, atol=0)


def test_directions_that_inputs_do_not_reach_have_no_moment():
    sketch = InputSketch(8, 4, torch.Generator().manual_seed(0))
    sketch.add(torch.eye(8)[:2])
    assert sketch.directions()[1].count_nonzero() == 2
    silent = InputSketch(8, 4, torch.Generator().manual_seed(0))
    silent.add(torch.zeros(5, 8))
    assert silent.directions()[1].count_nonzero() == 0


def test_one_feature_thousands_of_times_as_large_as_the_others_does_not_hide_them():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(300, 40, generator=generator)
    x[0, 7] = 1e5
    sketch = InputSketch(40, 8, generator)
    sketch.add(x)
    moments = torch.linalg.svdvals(x.double()).square()[:8] / 300
    assert moments[1] < 1e-6 * moments[0]
    assert_close(sketch.directions()[1], moments, rtol=1e-4, atol=0)


@pytest.mark.parametrize("layer", ["q_proj", "down_proj"])
def test_fitted_rows_are_principal_directions_and_their_outputs_have_mean_square_a_third(adapted, layer):
    given = batches()
    shares = qpeft.fit_inputs(adapted, given)
    name = next(name for name in shares if name.endswith(layer))
    x = inputs_of(adapted, name, given)
    h = x @ down_of(adapted, name).double().T
    # Principal directions: uncorrelated outputs, here of equal size.
    assert_close(h.T @ h / len(h), torch.eye(4, dtype=torch.float64) / 3, atol=2e-3, rtol=0)
    values = torch.linalg.eigvalsh(x.T @ x / len(x)).flip(0)
    assert shares[name] == pytest.approx((values[:4].sum() / values.sum()).item(), rel=1e-3)


def test_padding_is_left_out(adapted):
    (batch,) = batches(1, width=30)
    qpeft.fit_inputs(adapted, [batch])
    name = adapted.targeted_module_names[0]
    name = next(full for full, _ in adapted.named_modules() if full.endswith(name))
    alone = down_of(adapted, name).clone()
    padded = torch.nn.functional.pad(batch["input_ids"], (0, 7), value=1)
    mask = torch.nn.functional.pad(torch.ones_like(batch["input_ids"]), (0, 7))
    qpeft.fit_inputs(adapted, [{"input_ids": padded, "attention_mask": mask}])
    assert_close(down_of(adapted, name), alone, atol=1e-4, rtol=1e-3)
    qpeft.fit_inputs(adapted, [{"input_ids": padded}])
    assert not torch.allclose(down_of(adapted, name), alone, atol=1e-4, rtol=1e-3)


def test_fitting_changes_nothing_else(adapted):
    (tokens,) = (batch["input_ids"] for batch in batches(1))
    adapted.train()
    adapted.get_submodule("base_model.model.model.norm").eval()
    modes = [module.training for module in adapted.modules()]
    before = {name: weight.clone() for name, weight in adapted.named_parameters()}
    with torch.no_grad():
        logits = adapted(tokens).logits
        qpeft.fit_inputs(adapted, batches())
        assert torch.equal(adapted(tokens).logits, logits)
    assert [module.training for module in adapted.modules()] == modes
    assert all(torch.equal(weight, before[name]) for name, weight in adapted.named_parameters())


def test_frozen_rows_are_not_trained_but_saved(adapted, tiny_model, tmp_path):
    qpeft.fit_inputs(adapted, batches())
    assert not [name for name, weight in adapted.named_parameters() if weight.requires_grad and ".down." in name]
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(load_model(str(tiny_model)), tmp_path)
    tokens = batches(1, seed=4)[0]["input_ids"]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(tokens).logits, adapted.eval()(tokens).logits)


def test_a_kept_product_follows_a_new_fit(adapted):
    name = next(full for full, _ in adapted.named_modules() if full.endswith("q_proj"))
    branch = adapted.eval().get_submodule(name).branch("default")
    with torch.no_grad():
        first = branch.effective_factors()[0].clone()
        qpeft.fit_inputs(adapted, batches())
        assert torch.equal(branch.effective_factors()[0], branch.down.matrix)
        assert not torch.equal(branch.effective_factors()[0], first)


def test_too_few_tokens_are_refused_and_leave_the_rows(tiny_model):
    model = get_peft_model(load_model(str(tiny_model)), QthaConfig(**FROZEN))
    before = {name: rows.clone() for name, rows in model.named_buffers() if ".down." in name}
    with pytest.raises(AdapterError, match=r"have 2 directions in 2 tokens, and the adapter's rank there is 4\. Fit"):
        qpeft.fit_inputs(model, [{"input_ids": torch.tensor([[5, 9]])}])
    assert before
    assert all(torch.equal(model.get_buffer(name), rows) for name, rows in before.items())


def test_inputs_that_are_not_finite_at_one_layer_leave_the_rows_of_all(adapted):
    before = {name: rows.clone() for name, rows in adapted.named_buffers() if ".down." in name}
    last = [module for name, module in adapted.named_modules() if name.endswith("mlp")][-1]
    last.gate_proj.weight.data.fill_(torch.nan)
    with pytest.raises(AdapterError, match=r"The inputs of .*down_proj are not finite"):
        qpeft.fit_inputs(adapted, batches())
    assert all(torch.equal(adapted.get_buffer(name), rows) for name, rows in before.items())


def test_a_layer_that_gets_tokens_of_all_rows_together_is_fitted_without_padding_alone(adapted):
    last = [module for name, module in adapted.named_modules() if name.endswith("mlp")][-1]
    last.register_forward_pre_hook(lambda _, x: (x[0].flatten(0, -2),))
    (batch,) = batches(1)
    name = next(full for full, module in adapted.named_modules() if module is last)
    one = {"input_ids": batch["input_ids"][:1], "attention_mask": torch.ones(1, 20)}
    qpeft.fit_inputs(adapted, [one])
    alone = down_of(adapted, f"{name}.down_proj").clone()
    qpeft.fit_inputs(adapted, [{"input_ids": one["input_ids"]}])
    assert torch.equal(down_of(adapted, f"{name}.down_proj"), alone)
    one["attention_mask"][0, 0] = 0
    with pytest.raises(AdapterError, match=rf"At {name}.down_proj the model gives tokens of all rows together"):
        qpeft.fit_inputs(adapted, [one])


def test_an_adapter_without_frozen_factors_is_refused(tiny_model):
    model = get_peft_model(load_model(str(tiny_model)), QthaConfig(rank=4, target_modules=["q_proj"]))
    with pytest.raises(AdapterError, match=r"'default' has no frozen factors to fit: make it with QthaConfig"):
        qpeft.fit_inputs(model, batches())


def test_no_up_factor_is_frozen():
    with pytest.raises(AdapterError, match="up must be one of mpo, bare_mpo, dense; got 'frozen'"):
        QthaConfig(up="frozen")

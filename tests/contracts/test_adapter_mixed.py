"""Batches whose rows go through different adapters, and those that cannot."""

import pytest
import torch
from small_adapters import logits, shake
from torch.testing import assert_close

from qpeft.errors import AdapterError

NAMES = ["second", "__base__", "default"]


@pytest.mark.feature("mixed")
def test_rows_of_a_mixed_batch_meet_their_adapters(two_adapters, tokens):
    mixed = logits(two_adapters, tokens, adapter_names=NAMES)
    for row, name in enumerate(NAMES):
        if name == "__base__":
            with two_adapters.disable_adapter():
                alone = logits(two_adapters, tokens)[row]
        else:
            two_adapters.set_adapter(name)
            alone = logits(two_adapters, tokens)[row]
        assert_close(mixed[row], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_beams", [1, 2])
def test_generation_mixes_rows_too(two_adapters, tokens, num_beams):
    options = {"max_new_tokens": 4, "do_sample": False, "num_beams": num_beams}
    options["attention_mask"] = torch.ones_like(tokens)
    mixed = two_adapters.generate(input_ids=tokens, adapter_names=["default", "second", "second"], **options)
    for rows, name in ((slice(0, 1), "default"), (slice(1, 3), "second")):
        two_adapters.set_adapter(name)
        assert torch.equal(two_adapters.generate(input_ids=tokens, **options)[rows], mixed[rows])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (NAMES[:2], "holds 2 names for 3 rows"),
        (["default", "third", "second"], "holds 'third'; the model has default, second, and '__base__'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_the_next_batch_is_plain(two_adapters, tokens, names, sentence):
    before = logits(two_adapters, tokens)
    with pytest.raises(AdapterError, match=sentence):
        logits(two_adapters, tokens, adapter_names=names)
    assert torch.equal(logits(two_adapters, tokens), before)


def test_mixed_batches_are_refused_in_training_while_merged_and_beside_modules_to_save(
    two_adapters, trained, tokens, merges
):
    with pytest.raises(AdapterError, match=r"call model.eval"):
        two_adapters.train()(tokens, adapter_names=NAMES)
    if merges:
        two_adapters.merge_adapter()
        with pytest.raises(AdapterError, match=r"call model.unmerge_adapter"):
            logits(two_adapters, tokens, adapter_names=NAMES)
    with pytest.raises(AdapterError, match=r"does not reach modules_to_save"):
        logits(trained(modules_to_save=["lm_head"]), tokens, adapter_names=["default"] * 3)


def test_tokens_that_left_their_rows_are_refused_also_where_they_are_as_many_as_rows(two_adapters, tokens):
    projection = two_adapters.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    three_tokens = lambda _, inputs: (inputs[0].flatten(0, 1)[:3],)  # noqa: E731  (as an expert might get them)
    projection.register_forward_pre_hook(three_tokens)
    with pytest.raises(AdapterError, match=r"At '.*q_proj' the model gives tokens of all rows together, \(3, 32\)"):
        logits(two_adapters, tokens, adapter_names=NAMES)


@pytest.mark.feature("mixed_transformers")
def test_transformers_own_model_refuses_adapter_names(base, config, tokens, refusing):
    model = base()
    model.add_adapter(config(), adapter_name="one")
    with refusing(AdapterError, "would ignore adapter_names"):
        logits(shake(model), tokens, adapter_names=["one"] * 3)

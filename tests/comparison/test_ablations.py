"""Ablations against adapters whose weights say what must come out."""

from dataclasses import replace

import pytest
import torch
from peft import get_peft_model

from qpeft import QthaConfig
from qpeft.adapters.qtha.bottleneck import AbstractBottleneck
from qpeft.comparison.trial_work import permuted, replaced_by_mean
from qpeft.data import encode_all, load_examples
from qpeft.errors import StudyError
from qpeft.evaluation import held_out_loss
from qpeft.models import load_model, load_tokenizer


@pytest.fixture(scope="module")
def encoded(tiny_model, sums):
    rows = load_examples(str(sums))
    return encode_all(load_tokenizer(str(tiny_model)), rows)


def adapted(tiny_model, **options):
    """The tiny model with a QTHA adapter whose weights are random, so that its circuits matter."""
    model = load_model(str(tiny_model))
    model = get_peft_model(model, QthaConfig(rank=4, target_modules=["q_proj", "v_proj"], **options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=generator))
    return model.eval()


def outputs(model, encoded):
    """What the first bottleneck gives at every token of single examples, as the rest of the layer sees it."""
    bottleneck = next(module for module in model.modules() if isinstance(module, AbstractBottleneck))
    found = []
    hook = bottleneck.register_forward_hook(lambda _, __, output: found.append(output.detach().flatten(0, -2)))
    # What the bottleneck gave before, while the loss was looked at, is no token of an example.
    start = model.register_forward_pre_hook(lambda *_: found.clear())
    held_out_loss(model, encoded)
    start.remove()
    hook.remove()
    return found


def test_permuting_keeps_the_outputs_and_moves_them(tiny_model, encoded):
    model = adapted(tiny_model)
    chosen = [encoded[0]]  # one example is one batch without padding
    before = outputs(model, chosen)[0]
    with permuted(model, encoded):
        after = outputs(model, chosen)[0]
    assert not torch.equal(after, before)
    assert torch.equal(after.sort(0).values, before.sort(0).values)
    assert torch.equal(outputs(model, chosen)[0], before)  # and nothing stays


def test_padding_is_no_part_of_it(tiny_model, encoded):
    model = adapted(tiny_model)
    short, padding = encoded[0], 7
    long = replace(short, input_ids=[9] * padding + short.input_ids, labels=[-100] * padding + short.labels)
    alone = torch.cat([outputs(model, [one])[0] for one in (short, long)])
    with permuted(model, encoded):
        (both,) = outputs(model, [short, long])
    kept = torch.cat([both[: len(short.input_ids)], both[len(short.input_ids) + padding :]])
    torch.testing.assert_close(kept.sum(0), alone.sum(0), rtol=1e-4, atol=1e-4)


def test_the_mean_is_that_over_all_tokens(tiny_model, encoded):
    model = adapted(tiny_model)
    expected = torch.cat([outputs(model, [one])[0] for one in encoded]).mean(0)
    with replaced_by_mean(model, encoded):
        after = outputs(model, encoded[:1])[0]
    torch.testing.assert_close(after, expected.expand_as(after), rtol=1e-4, atol=1e-5)


def test_both_change_the_loss_of_an_adapter_that_uses_its_circuit(tiny_model, encoded):
    model = adapted(tiny_model)
    before = held_out_loss(model, encoded).loss
    for ablation in (permuted, replaced_by_mean):
        with ablation(model, encoded):
            assert abs(held_out_loss(model, encoded).loss - before) > 1e-3
    assert held_out_loss(model, encoded).loss == before


def test_without_a_bottleneck_there_is_nothing_to_ablate(tiny_model, encoded):
    with pytest.raises(StudyError, match="no bottleneck"), permuted(adapted(tiny_model, bottleneck="none"), encoded):
        pass

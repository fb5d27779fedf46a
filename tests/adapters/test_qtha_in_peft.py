"""Variants of QTHA as PEFT handles them, beyond what the contracts ask of every method."""

import logging

import pytest
import torch
from peft import PeftModel

from qpeft import QthaConfig

VARIANTS = [
    {},
    {"bottleneck": "frozen_circuit"},
    {"bottleneck": "mlp", "up": "dense"},
    {"bottleneck": "none"},
    {"rank": 8, "num_qubits": 4, "fusion": "hadamard", "init_seed": None},
]


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


def test_adapters_on_different_layers_live_side_by_side(adapt, shake, tokens):
    model = adapt(target_modules=["q_proj"])
    model.add_adapter("second", QthaConfig(rank=4, target_modules=["v_proj"], init_seed=1))
    shake(model)
    model.base_model.set_adapter(["default", "second"])
    with_both = _logits(model, tokens)
    model.set_adapter("second")
    assert not torch.equal(_logits(model, tokens), with_both)


def test_usual_ranks_run_circuits_side_by_side_and_say_so(make_model, adapt, shake, tokens, tmp_path, caplog):
    """Rank 16 without a number of qubits is what 8 qubits would be, saved and loaded as such."""
    with caplog.at_level(logging.WARNING, logger="qpeft"):
        model = shake(adapt(rank=16))
    (record,) = caplog.records
    assert record.getMessage() == (
        "rank 16: 2 circuits of 8 qubits side by side in each layer, since one circuit has at most 12; num_qubits sets "
        "another number."
    )
    assert torch.equal(_logits(model, tokens), _logits(shake(adapt(rank=16, num_qubits=8)), tokens))
    caplog.clear()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_model(), tmp_path)
    assert torch.equal(_logits(again, tokens), _logits(model, tokens))
    assert again.peft_config["default"].num_qubits is None
    assert caplog.text == ""


def test_a_rank_of_one_circuit_is_split_into_none_and_says_nothing(adapt, caplog):
    model = adapt(rank=12)
    bottleneck = model.base_model.model.model.layers[0].self_attn.q_proj.branch("default").middle
    assert (bottleneck.num_circuits, bottleneck.circuit.num_qubits) == (1, 12)
    assert caplog.text == ""


@torch.no_grad()
def _logits(model, tokens):
    return model.eval()(tokens).logits

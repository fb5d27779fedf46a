"""Quantum-weighted adapters on a device: what is sent, when, what it changes, and values that are final."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch.testing import assert_close

import qpeft
from qpeft import QthaConfig, QuantumWeightedConfig
from qpeft.adapters.quantum_weighted import circuit_banks
from qpeft.devices import LocalDevice, Spsa, run_now
from qpeft.errors import AdapterError, DeviceError, GradientError

# Four qubits and depth 1: 8 angles; one circuit for each of the two layers.
OPTIONS = {"rank": 3, "num_qubits": 4, "depth": 1, "init_seed": 5, "target_modules": ["q_proj", "v_proj"]}
GROUPS, ANGLES = 2, 8


class Recorder:
    """A runner that remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, device, circuits, shots, *, key):
        self.asked.append((key.step, key.part, len(circuits)))
        return run_now(device, circuits, shots, key=key)


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def adapted(make_model):
    """A function from options to a small model with that adapter, turned as after training."""

    def make(**options):
        model = get_peft_model(make_model(), QuantumWeightedConfig(**(OPTIONS | options)))
        for bank in circuit_banks(model).values():
            with torch.no_grad():
                bank.turns += 0.3 * torch.randn(bank.turns.shape, generator=torch.Generator().manual_seed(0))
        return model

    return make


def bank_of(model):
    (bank,) = circuit_banks(model).values()
    return bank


def backward(model, tokens, parts=1):
    model.zero_grad()
    for part in tokens.chunk(parts):
        (model(part, labels=part).loss / parts).backward()
    return bank_of(model).turns.grad


@pytest.mark.parametrize("gradient", ["parameter-shift", "simulated"])
def test_an_exact_device_gives_the_outputs_and_gradients_of_the_simulator(adapted, tokens, gradient):
    model = adapted()
    logits, expected = model(tokens).logits, backward(model, tokens).clone()
    qpeft.set_quantum_device(model, LocalDevice(), shots=None, gradient=gradient)
    assert_close(model(tokens).logits, logits, atol=1e-5, rtol=0)
    assert_close(backward(model, tokens), expected, atol=1e-6, rtol=1e-4)
    qpeft.set_quantum_device(model, None)
    assert torch.equal(model(tokens).logits, logits)


@pytest.mark.parametrize(
    ("gradient", "shifted"),
    [("parameter-shift", 2 * ANGLES * GROUPS), ("simulated", 0), (Spsa(num_directions=3), 6 * GROUPS)],
)
@pytest.mark.parametrize(
    ("rows", "parts", "checkpointing"), [(1, 1, False), (4, 1, False), (4, 4, False), (4, 2, True)]
)
def test_circuits_of_a_step_depend_on_neither_tokens_nor_batches_nor_repetitions(
    adapted, tokens, recorder, gradient, shifted, rows, parts, checkpointing
):
    model = adapted().train()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    evaluator = qpeft.set_quantum_device(model, LocalDevice(seed=1), shots=50, gradient=gradient, runner=recorder)
    for step in (0, 1):
        evaluator.begin_step(step)
        backward(model, tokens[:rows], parts)
    wanted = [(step, "values", GROUPS) for step in (0, 1)] + [(step, "gradient", shifted) for step in (0, 1) if shifted]
    assert sorted(recorder.asked) == sorted(wanted)


def test_the_gradient_of_micro_batches_is_that_of_the_values_that_were_measured(adapted, tokens):
    gradients = []
    for parts in (1, 4):
        model = adapted()
        qpeft.set_quantum_device(model, LocalDevice(seed=3), shots=100, gradient="parameter-shift")
        gradients.append(backward(model, tokens, parts).clone())
    assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_more_shots_come_nearer_and_errors_are_what_the_shots_say(adapted):
    model = adapted()
    exact = bank_of(model).values(bank_of(model).turns.detach())
    for shots in (200, 20_000):
        qpeft.set_quantum_device(model, LocalDevice(seed=2), shots=shots)
        off = bank_of(model).values(bank_of(model).turns.detach()) - exact
        scores = off / ((1 - exact.square()) / (shots - 1)).sqrt()
        assert 0.5 < scores.square().mean().sqrt() < 1.6  # 16 values


def test_without_a_gradient_training_says_what_to_pass(adapted, tokens):
    model = adapted()
    qpeft.set_quantum_device(model, LocalDevice(), shots=None)
    model.eval()(tokens)
    with pytest.raises(GradientError, match="needs a gradient, such as 'parameter-shift'"):
        backward(model.train(), tokens)


def test_the_device_is_neither_saved_nor_copied(adapted, tokens, recorder, tmp_path):
    model = adapted()
    logits = model(tokens).logits
    qpeft.set_quantum_device(model, LocalDevice(seed=1), shots=20, runner=recorder)
    assert torch.equal(copy.deepcopy(model)(tokens).logits, logits)
    assert not recorder.asked


@pytest.mark.parametrize(
    ("options", "arguments", "error", "sentence"),
    [
        ({}, {"layers": ["v_proj"]}, AdapterError, "circuits of a quantum-weighted adapter serve all its layers"),
        ({"circuit": "free"}, {}, AdapterError, "no QTHA layer, no QuantumLayer and no quantum-weighted adapter"),
        ({"circuit": "linear"}, {}, AdapterError, "no QTHA layer, no QuantumLayer and no quantum-weighted adapter"),
    ],
)
def test_what_cannot_be_is_refused(adapted, options, arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        qpeft.set_quantum_device(adapted(**options), **({"device": LocalDevice()} | arguments))


def test_a_device_of_too_few_qubits_is_refused(adapted, monkeypatch):
    from dataclasses import replace

    small, capabilities = LocalDevice(), LocalDevice.capabilities
    monkeypatch.setattr(LocalDevice, "capabilities", lambda device: replace(capabilities(device), num_qubits=3))
    with pytest.raises(DeviceError, match="has 3 qubits; the circuit needs 4"):
        qpeft.set_quantum_device(adapted(), small)


def test_final_values_are_saved_with_their_errors_and_need_no_circuit(adapted, make_model, tokens, recorder, tmp_path):
    model = adapted()
    exact = model(tokens).logits
    errors = qpeft.finalize(model, LocalDevice(seed=4), shots=5_000, runner=recorder)
    assert recorder.asked == [(2**31 - 1, "values", GROUPS)]
    bank = bank_of(model)
    assert errors == {"quantum_weighted.default": bank.final_standard_errors.max().item()}
    assert_close(bank.final_standard_errors, ((1 - bank.final_values.square()) / 4_999).sqrt(), atol=1e-6, rtol=1e-5)
    logits = model(tokens).logits
    assert 0 < (logits - exact).abs().max() < 0.1 * exact.abs().max()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(make_model(), tmp_path)
    assert torch.equal(loaded(tokens).logits, logits)
    assert_close(bank_of(loaded).final_standard_errors, bank.final_standard_errors, atol=0, rtol=0)
    with torch.no_grad():
        bank_of(loaded).turns.zero_()
    assert torch.equal(loaded(tokens).logits, logits)
    assert_close(loaded.merge_and_unload()(tokens).logits, logits, atol=1e-5, rtol=0)


def test_final_adapters_are_neither_measured_again_nor_trained(adapted, make_model, tokens, tmp_path):
    model = adapted()
    qpeft.finalize(model, LocalDevice(), shots=None)
    with pytest.raises(AdapterError, match=r"quantum_weighted.default is final already"):
        qpeft.finalize(model, LocalDevice())
    with pytest.raises(AdapterError, match="is final already"):
        qpeft.set_quantum_device(model, LocalDevice())
    model.save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="values of this adapter are final"):
        PeftModel.from_pretrained(make_model(), tmp_path, is_trainable=True)(tokens)


def test_a_device_that_fails_leaves_the_adapter_as_it_was(adapted, tokens):
    model = adapted()
    logits = model(tokens).logits

    def failing(*_, **__):
        raise DeviceError("the chip is being cooled")

    with pytest.raises(DeviceError, match="cooled"):
        qpeft.finalize(model, LocalDevice(), runner=failing)
    assert torch.equal(model(tokens).logits, logits)
    assert not bank_of(model).config.finalized


def test_a_model_without_such_an_adapter_has_nothing_to_finalize(make_model):
    model = get_peft_model(make_model(), QthaConfig(rank=2, target_modules=["q_proj"]))
    with pytest.raises(AdapterError, match="no quantum-weighted adapter with circuits"):
        qpeft.finalize(model, LocalDevice())

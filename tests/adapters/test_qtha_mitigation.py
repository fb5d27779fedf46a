"""Error mitigation in QTHA layers: better outputs, more circuits, and refused before anything is sent."""

from dataclasses import replace

import pytest
import torch

import qpeft
from qpeft.devices import LocalDevice, ReadoutInversion, ZeroNoise, forward_circuits, run_now
from qpeft.errors import DeviceError
from qpeft.simulation.noise import EdgeNoise, NoiseModel, QubitNoise, ReadoutError

LAYER = "layers.1.self_attn.v_proj"
MISREADS = NoiseModel.uniform(2, qubit=QubitNoise(readout=ReadoutError(0.05, 0.1)))
NOISE = NoiseModel.uniform(2, qubit=QubitNoise(0.002, readout=ReadoutError(0.05, 0.1)), edge=EdgeNoise(0.01))


@pytest.fixture
def model(adapt, shake):
    return shake(adapt(num_qubits=2))


def test_mitigated_layers_come_closer_to_the_simulator_for_the_announced_circuits(model, tokens):
    keys, counts = [], []

    def count(device, circuits, shots, *, key):
        keys.append(key)
        counts.append(len(circuits))
        return run_now(device, circuits, shots, key=key)

    def logits(device=None, mitigation=None):
        qpeft.set_quantum_device(model, device, shots=None, layers=[LAYER], runner=count, mitigation=mitigation)
        with torch.no_grad():
            return model(tokens[:1]).logits

    exact, methods = logits(), (None, ReadoutInversion(), ZeroNoise(readout_inversion=ReadoutInversion()))
    # Noise grows from method to method: each is given what it can take out and the one before it cannot.
    devices = LocalDevice(noise=MISREADS), LocalDevice(noise=MISREADS), LocalDevice(noise=NOISE)
    plain, inverted, extrapolated = (
        (logits(device, method) - exact).abs().max() for device, method in zip(devices, methods, strict=True)
    )
    assert inverted < 1e-5 < plain / 100
    assert extrapolated < plain / 3
    circuit = model.get_submodule(f"base_model.model.model.{LAYER}").qtha_branch["default"].middle.circuit
    sent = [forward_circuits(circuit, 16, mitigation=method) for method in (None, ReadoutInversion(), ZeroNoise())]
    assert sent == [16, 16, 48]
    assert sum(counts) == sum(sent) + 2 * 2
    assert [key.part for key in keys].count("readout") == 2


def test_a_device_that_spoils_the_mitigation_is_refused_and_layers_stay_as_they_were(model, tokens):
    class Correcting(LocalDevice):
        def capabilities(self):
            return replace(super().capabilities(), corrects_readout=True)

    with torch.no_grad():
        before = model(tokens).logits
        with pytest.raises(DeviceError, match="amend=False"):
            qpeft.set_quantum_device(model, Correcting(), shots=10, mitigation=ReadoutInversion())
        assert torch.equal(model(tokens).logits, before)

"""Error mitigation on IBM's backends: refused where Qiskit's preparation spoils it, and else closer to the truth."""

import pytest
import torch

from qpeft.circuits import Circuit, Input, Operation
from qpeft.devices import ReadoutInversion, ZeroNoise, device_expectations, load_device
from qpeft.errors import DeviceError
from qpeft.simulation import expectations

LINE = Circuit(
    3,
    (
        *(Operation("RY", (qubit,), Input(qubit)) for qubit in range(3)),
        *[Operation("CNOT", (0, 1)), Operation("CNOT", (1, 2))] * 5,
    ),
    ("ZII", "IZI", "ZZZ"),
)


def values(device, inputs, mitigation):
    return device_expectations(LINE, inputs, torch.zeros(0), device, 20_000, mitigation=mitigation).values


@pytest.mark.parametrize(
    ("options", "mitigation", "advice"),
    [
        ({"optimization_level": 1, "qubits": [0, 1, 2]}, ZeroNoise(), "optimization_level=0"),
        ({"optimization_level": 0}, ReadoutInversion(), r"qubits=\[...\]"),
    ],
)
def test_preparation_that_spoils_a_method_is_refused(options, mitigation, advice):
    device = load_device("ibm", backend="aer", **options)
    with pytest.raises(DeviceError, match=advice):
        values(device, torch.zeros(1, 3), mitigation)


def test_values_of_a_fake_come_closer_to_the_exact_ones():
    device = load_device("ibm", backend="FakeManilaV2", qubits=[0, 1, 2], optimization_level=0, seed=3)
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    exact = expectations(LINE, inputs, torch.zeros(0))
    methods = (None, ReadoutInversion(), ZeroNoise((1, 3), readout_inversion=ReadoutInversion()))
    plain, inverted, both = ((values(device, inputs, method) - exact).square().mean().sqrt() for method in methods)
    assert inverted < 0.7 * plain
    assert both < 0.8 * inverted

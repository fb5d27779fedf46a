"""Circuits on qubits that the user names."""

import pytest
import torch
from test_origin_side_by_side import rings

from qpeft.circuits import Circuit, Operation, ansatz
from qpeft.devices import ReadoutInversion, device_expectations, find_blocks, run
from qpeft.errors import DeviceError, RefusedError
from qpeft.simulation import expectations


def test_qubit_k_of_a_circuit_runs_on_the_k_th_qubit_named(start_cloud, make_device):
    device = make_device(start_cloud(), qubits=[13, 12, 18, 19])
    one = Circuit(4, (Operation("X", (1,)), Operation("CNOT", (1, 2))))
    smaller = Circuit(1, (Operation("X", (0,)),))
    assert run(device, [one, smaller], 20, seconds_between_polls=0.01) == [{"0110": 1.0}, {"1": 1.0}]
    assert not device.capabilities().chooses_qubits
    assert (device.place(one), device.place(smaller)) == ((13, 12, 18, 19), (13,))
    assert make_device(device._url).place(one) is None


@pytest.mark.parametrize(
    ("options", "circuit", "message"),
    [
        ({"qubits": [0, 1, 2, 3]}, rings(1)[0], "coupler between qubits 0 and 3"),
        ({"mapping": False}, rings(1)[0], "coupler between qubits 0 and 3"),
        ({"qubits": [0, 1]}, Circuit(3, ()), "3 qubits, and qubits names"),
        ({"qubits": [0, 99]}, Circuit(2, ()), r"\[99\].*not alive"),
    ],
)
def test_a_place_where_a_circuit_cannot_run_is_refused_before_anything_is_sent(
    start_cloud, make_device, options, circuit, message
):
    cloud = start_cloud()
    with pytest.raises(RefusedError, match=message):
        make_device(cloud, **options).submit([circuit], 10)
    with pytest.raises(DeviceError, match=message):
        make_device(cloud, **options).place(circuit)
    assert cloud.stats()["jobs"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"qubits": [1, 1]}, "different qubits"),
        ({"qubits": [-1]}, "different qubits"),
        ({"qubits": [0, 1], "side_by_side": True, "amend": False}, "give one"),
        ({"qubits": [0, 1], "block": [0, 1]}, "there is no mapping"),
    ],
)
def test_options_that_contradict_each_other_are_refused(make_device, options, message):
    with pytest.raises(DeviceError, match=message):
        make_device("http://127.0.0.1:1", **options)


def test_readout_of_a_ring_on_the_best_qubits_of_wukong_is_inverted(start_cloud, make_device):
    cloud, ring = start_cloud(chip="wukong"), ansatz.ring_cz(4)
    [best] = find_blocks(ring, make_device(cloud, chip="72").calibration(), most=1)
    device = make_device(cloud, chip="72", amend=False, qubits=best)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(10, 4, generator=generator)
    weights = torch.randn(ring.num_weights, generator=generator)
    exact = expectations(ring, inputs, weights)

    def rms(mitigation):
        values = device_expectations(ring, inputs, weights, device, 4000, mitigation=mitigation).values
        return (values - exact).square().mean().sqrt()

    assert rms(ReadoutInversion()) < 0.75 * rms(None)

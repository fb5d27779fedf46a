"""Counts by hand; the same seed, the same portrait."""

import json

import pytest

from qpeft import QthaConfig
from qpeft.analysis import portrait, resources
from qpeft.analysis.portrait import longest_path
from qpeft.circuits import Circuit, Operation, Weight, ansatz
from qpeft.errors import CircuitError


def drawn(seed=0, **options):
    config = QthaConfig(ansatz="ring_cz", **options)
    return portrait(config, 3, samples=100, bins=10, seed=seed).as_dict()


def test_resources_are_those_of_the_drawing():
    found = resources(ansatz.ring_crz(8))
    assert (found.gates, found.two_qubit_gates, found.weights, found.dead_weights) == (40, 16, 32, 0)
    assert found.controlled_z == 32  # two for every CRZ
    assert resources(ansatz.ring_cz(8)).controlled_z == 8


@pytest.mark.parametrize(
    ("circuit", "expected"),
    [
        (ansatz.ring_cz(8), True),
        (ansatz.ring_cz(8, 2), False),
        (ansatz.ring_crz(8), False),
        (ansatz.ring_crz(1), True),
    ],
)
def test_only_the_shallow_ring_has_a_classical_form(circuit, expected):
    assert resources(circuit).has_classical_form is expected


def test_the_longest_path_counts_gates_that_wait_for_each_other():
    assert longest_path(()) == 0
    # RY and RY side by side, one CZ, RY and RY side by side; in front the encoding.
    assert longest_path(ansatz.ring_cz(2).operations) == 4
    # In a ring CZ(q, q+1) waits for CZ(q-1, q), so three take three steps.
    assert longest_path(ansatz.ring_cz(3).operations) == 6


def test_weights_without_effect_are_counted():
    turns = Operation("RY", (0,), Weight(0)), Operation("RZ", (0,), Weight(1))
    assert resources(Circuit(1, turns)).dead_weights == 1


def test_a_portrait_is_plain_json_and_repeats_with_its_seed():
    first = drawn()
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(drawn()))
    assert first["gradients"]["num_qubits"] == tuple(range(2, 11))
    other = drawn(seed=1)
    for measure in ("expressibility", "entangling", "spectrum"):
        assert first[measure] != other[measure]
    assert first["resources"] == other["resources"]


def test_the_config_says_whether_data_enter_once():
    assert len(drawn(depth=2)["spectrum"]["amplitudes"][0][0]) == 3
    assert len(drawn(depth=2, reupload=False)["spectrum"]["amplitudes"][0][0]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_qubits": 0}, "1 to 12 qubits; got 0"),
        ({"num_qubits": 13}, "1 to 12 qubits; got 13"),
        ({"samples": 99}, "at least 100 samples and 2 bins; got 99"),
        ({"bins": 1}, "got 5000 and 1"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    with pytest.raises(CircuitError, match=message):
        portrait(QthaConfig(), **({"num_qubits": 2} | change))

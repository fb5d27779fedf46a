"""Fourier series that can be written down by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from qpeft.analysis.spectrum import spectrum
from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.errors import CircuitError


def spectrum_of(circuit, samples=40):
    return spectrum(circuit, samples, torch.Generator().manual_seed(0))


def shallow_ring(last):
    """ring_cz of four qubits whose closing angle is a number."""
    closing = ansatz.ring_cz(4).operations[-4:]
    operations = ansatz.ring_cz(4).operations[:-4]
    return Circuit(4, operations + tuple(Operation("RY", one.qubits, last) for one in closing))


def test_a_rotation_read_by_z_is_one_cosine():
    found = spectrum_of(ansatz.ring_cz(1))  # cos(x + v + w)
    assert_close(found.amplitudes, (((0.0, 1.0),),), atol=1e-12, rtol=0)
    assert (found.interactions, found.inputs_seen, found.possible) == ((1.0,), 1, 3)
    assert found.reached == 2  # e^ix and e^-ix


def test_amplitudes_are_those_of_the_formula_at_given_angles():
    # RY(x) RX(t) RY(x) read by Z: (1 + cos t) / 2 cos 2x + (cos t - 1) / 2.
    tilt = 0.7
    turns = Operation("RY", (0,), Input(0)), Operation("RX", (0,), tilt), Operation("RY", (0,), Input(0))
    (((constant, first, second),),) = spectrum_of(Circuit(1, turns)).amplitudes
    assert constant == pytest.approx((1 - math.cos(tilt)) / 2)
    assert first == pytest.approx(0, abs=1e-12)
    assert second == pytest.approx((1 + math.cos(tilt)) / 2)


@pytest.mark.parametrize(
    ("last", "single", "triple", "reached"),
    [(0.0, 1, 0, 2), (math.pi / 2, 0, 1, 8), (math.pi / 3, 4 / 7, 3 / 7, 10)],
)
def test_the_shallow_ring_is_one_wave_and_products_of_three(last, single, triple, reached):
    # cos(w) cos(p) - sin(w) sin(p) cos(p') cos(p''): variances of cos(w)^2 / 2 and sin(w)^2 / 8.
    found = spectrum_of(shallow_ring(last))
    assert found.interactions == pytest.approx((single, 0, triple, 0), abs=1e-12)
    assert found.reached == reached


def test_a_value_of_the_shallow_ring_depends_on_itself_and_two_neighbours():
    seen = [[value > 1e-9 for value in row] for row in spectrum_of(ansatz.ring_cz(5)).dependence]
    assert seen == [[(out - place) % 5 in (0, 1, 4) for place in range(5)] for out in range(5)]


def test_every_upload_adds_a_frequency_and_one_upload_does_not():
    once, thrice = ansatz.ring_cnot(2, 3, reupload=False), ansatz.ring_cnot(2, 3)
    assert len(spectrum_of(once).by_frequency) == 2
    frequencies = spectrum_of(thrice).by_frequency
    assert len(frequencies) == 4
    assert min(frequencies) > 1e-3


def test_a_grid_that_is_too_large_leaves_single_inputs():
    found = spectrum_of(ansatz.ring_cz(9), samples=2)
    assert (found.interactions, found.reached, found.possible) == (None, None, 3**9)
    assert len(found.amplitudes[0]) == 9


def test_a_constant_has_no_interactions():
    circuit = Circuit(1, (Operation("RZ", (0,), Input(0)), Operation("RX", (0,), Weight(0))))
    assert spectrum_of(circuit).interactions is None


def test_circuits_without_inputs_and_gates_of_other_frequencies_are_refused():
    with pytest.raises(CircuitError, match="no inputs"):
        spectrum_of(Circuit(1, (Operation("H", (0,)),)))
    with pytest.raises(CircuitError, match=r"CRZ reads input 0, .* frequency 1: RX"):
        spectrum_of(Circuit(2, (Operation("CRZ", (0, 1), Input(0)),)))

"""Noise models as data, and the channels made of them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from qpeft.circuits import Circuit, Operation, ansatz
from qpeft.errors import NoiseError, SimulationError
from qpeft.simulation.noise import (
    Damping,
    EdgeNoise,
    NoiseModel,
    QubitNoise,
    ReadoutError,
    depolarising_from_fidelity,
)

LEFT, RIGHT = Damping(amplitude=0.1), Damping(amplitude=0.2)


@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf])
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (Damping, "amplitude"),
        (Damping, "phase"),
        (ReadoutError, "p1_given_0"),
        (ReadoutError, "p0_given_1"),
        (QubitNoise, "depolarising"),
        (EdgeNoise, "depolarising"),
    ],
)
def test_a_number_that_is_no_probability_is_named(kind, field, bad):
    with pytest.raises(NoiseError, match=rf"{kind.__name__}\.{field} is a probability.*got {bad}"):
        kind(**{field: bad})


def test_damping_from_times_decays_populations_by_t1_and_coherences_by_t2():
    damping = Damping.from_times(t1=15.0, t2=1.5, duration=0.03)
    assert 1 - damping.amplitude == pytest.approx(math.exp(-0.03 / 15.0))
    assert math.sqrt((1 - damping.amplitude) * (1 - damping.phase)) == pytest.approx(math.exp(-0.03 / 1.5))


def test_the_longest_possible_t2_leaves_no_phase_damping():
    assert Damping.from_times(t1=10.0, t2=20.0, duration=1.0).phase == pytest.approx(0.0, abs=1e-15)


def test_a_t2_above_twice_t1_is_refused_with_a_way_out():
    with pytest.raises(NoiseError, match=r"T2 cannot exceed 2 T1.*Use t2=min"):
        Damping.from_times(t1=10.0, t2=20.1, duration=1.0)


@pytest.mark.parametrize(
    ("t1", "t2", "duration"),
    [(0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, -1.0), (math.nan, 1.0, 1.0), (1.0, 1.0, math.inf)],
)
def test_times_that_cannot_be_are_refused(t1, t2, duration):
    with pytest.raises(NoiseError, match="must be positive"):
        Damping.from_times(t1=t1, t2=t2, duration=duration)


def test_equal_models_are_equal_whatever_order_they_were_given_in():
    qubits = {q: QubitNoise(0.01 * q) for q in range(3)}
    edges = {(0, 1): EdgeNoise(0.1), (1, 2): EdgeNoise(0.2, (LEFT, RIGHT))}
    turned = {(2, 1): EdgeNoise(0.2, (RIGHT, LEFT)), (0, 1): EdgeNoise(0.1)}
    first = NoiseModel.from_mappings(qubits, edges)
    second = NoiseModel.from_mappings(dict(reversed(qubits.items())), turned)
    assert first == second
    assert hash(first) == hash(second)
    assert first != NoiseModel.from_mappings(qubits, {(0, 1): EdgeNoise(0.1)})


def test_an_edge_is_found_from_both_ends_with_its_damping_turned():
    model = NoiseModel.from_mappings({0: QubitNoise(), 1: QubitNoise()}, {(1, 0): EdgeNoise(0.2, (RIGHT, LEFT))})
    assert model.edge(0, 1).damping == (LEFT, RIGHT)
    assert model.edge(1, 0).damping == (RIGHT, LEFT)


def test_uniform_joins_all_pairs_or_those_given():
    assert len(NoiseModel.uniform(4).edges) == 6
    chain = NoiseModel.uniform(3, edge=EdgeNoise(0.1), edges=[(0, 1), (2, 1)])
    assert chain.edge(1, 2).depolarising == 0.1
    with pytest.raises(NoiseError, match="qubits 0 and 2"):
        chain.edge(0, 2)


@pytest.mark.parametrize(
    ("qubits", "edges", "message"),
    [
        (((0, QubitNoise()), (0, QubitNoise())), (), "qubit 0 twice"),
        (
            ((0, QubitNoise()), (1, QubitNoise())),
            (((0, 1), EdgeNoise()), ((1, 0), EdgeNoise())),
            r"edge \(0, 1\) twice",
        ),
        (((0, QubitNoise()),), (((0, 1), EdgeNoise()),), r"Edge \(0, 1\) must join two different qubits"),
        (((0, QubitNoise()),), (((0, 0), EdgeNoise()),), r"Edge \(0, 0\) must join two different qubits"),
    ],
)
def test_models_that_contradict_themselves_are_refused(qubits, edges, message):
    with pytest.raises(NoiseError, match=message):
        NoiseModel(qubits, edges)


def test_a_model_without_qubits_is_refused():
    with pytest.raises(NoiseError, match="at least 1 qubit; got 0"):
        NoiseModel.uniform(0)


def test_coverage_is_checked_against_the_circuit():
    NoiseModel.uniform(4, edges=[(0, 1), (1, 2), (2, 3), (0, 3)]).check_covers(ansatz.ring_cz(4))
    with pytest.raises(NoiseError, match="nothing about qubit 3"):
        NoiseModel.uniform(3).check_covers(ansatz.ring_cz(4))
    with pytest.raises(NoiseError, match=r"gate on qubits 2 and 0.*edges \[\(0, 1\), \(1, 2\)\]"):
        NoiseModel.uniform(3, edges=[(0, 1), (1, 2)]).check_covers(Circuit(3, (Operation("CZ", (2, 0)),)))


def test_noise_errors_are_simulation_errors():
    assert issubclass(NoiseError, SimulationError)


def kraus_of(damping: Damping, depolarising_of_one: float) -> list[np.ndarray]:
    """Amplitude damping, phase damping, then depolarising, as products of Kraus operators."""
    g, p, d = damping.amplitude, damping.phase, depolarising_of_one
    amplitude = [np.diag([1, math.sqrt(1 - g)]), math.sqrt(g) * np.array([[0, 1], [0, 0]])]
    phase = [np.diag([1, math.sqrt(1 - p)]), np.diag([0, math.sqrt(p)])]
    paulis = [np.eye(2), np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]]), np.diag([1, -1])]
    mixing = [math.sqrt(1 - 0.75 * d) * paulis[0], *(math.sqrt(d / 4) * pauli for pauli in paulis[1:])]
    return [c @ b @ a for a, b, c in itertools.product(amplitude, phase, mixing)]


def test_depolarising_from_fidelity_gives_a_gate_of_this_average_fidelity():
    damping = Damping.from_times(t1=12.0, t2=1.4, duration=0.03)
    depolarising = depolarising_from_fidelity(0.98, [damping])
    # The six eigenstates of X, Y, Z are a 2-design: their mean fidelity is the average over all states.
    states = [np.array(v) / np.linalg.norm(v) for v in ([1, 0], [0, 1], [1, 1], [1, -1], [1, 1j], [1, -1j])]
    fidelities = [sum(abs(s.conj() @ k @ s) ** 2 for k in kraus_of(damping, depolarising)) for s in states]
    assert np.mean(fidelities) == pytest.approx(0.98)


def test_two_qubit_fidelity_without_damping_is_four_thirds_of_the_error():
    assert depolarising_from_fidelity(0.97, [Damping(), Damping()]) == pytest.approx(4 / 3 * 0.03)
    assert depolarising_from_fidelity(1.0, [Damping(), Damping()]) == 0.0


def test_damping_worse_than_the_fidelity_leaves_nothing_to_depolarise():
    assert depolarising_from_fidelity(0.999, [Damping(amplitude=0.1)]) == 0.0
    assert depolarising_from_fidelity(0.9, [Damping(amplitude=1.0)]) == 0.0


@pytest.mark.parametrize("fidelity", [0.0, 0.2, 1.01, math.nan])
def test_the_fidelity_of_a_dead_edge_is_refused(fidelity):
    with pytest.raises(NoiseError, match=r"from 0\.25 to 1; got .*Leave out qubits and edges that are dead"):
        depolarising_from_fidelity(fidelity, [Damping(), Damping()])

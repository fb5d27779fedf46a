"""States against textbook ones, Haar-random ones and PennyLane's."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch.testing import assert_close

from qpeft.analysis.random_angles import entangling_capability, expressibility, fidelity, meyer_wallach, reached_states
from qpeft.circuits import Circuit, Input, Operation, Weight, ansatz
from qpeft.errors import SimulationError
from qpeft.simulation.states import final_states

NOTHING = torch.zeros(1, 0, dtype=torch.float64)


def random_states(num_qubits, count, seed, *, real=False):
    """Normalised Gaussian vectors, which are distributed evenly: (2, amplitudes, tokens)."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(2, 2**num_qubits, count, generator=generator, dtype=torch.float64)
    if real:
        states[1] = 0
    return states / states.square().sum((0, 1)).sqrt()


def state_of(*operations, num_qubits):
    return final_states(Circuit(num_qubits, operations), NOTHING, NOTHING[0])


def entangled_chain(*qubits):
    first, *others = qubits
    return Operation("H", (first,)), *(Operation("CNOT", (first, other)) for other in others)


@pytest.mark.parametrize("make", [ansatz.ring_crz, ansatz.ring_cz, ansatz.ring_cnot])
def test_states_are_those_of_pennylane(make):
    pennylane = pytest.importorskip("pennylane")
    circuit = make(3, 2)
    generator = torch.Generator().manual_seed(5)
    inputs, weights = torch.randn(1, 3, generator=generator), torch.randn(circuit.num_weights, generator=generator)

    @pennylane.qnode(pennylane.device("default.qubit", wires=3))
    def theirs():
        for operation in circuit.operations:
            match operation.angle:
                case Input(index):
                    angles = [float(inputs[0, index])]
                case Weight(index):
                    angles = [float(weights[index])]
                case _:
                    angles = []
            getattr(pennylane, operation.gate_name)(*angles, wires=operation.qubits)
        return pennylane.state()

    real, imaginary = final_states(circuit, inputs.double(), weights.double())[..., 0].numpy()
    assert abs(np.vdot(theirs(), real + 1j * imaginary)) == pytest.approx(1, abs=1e-12)


def test_more_qubits_than_memory_holds_are_refused():
    with pytest.raises(SimulationError, match="at most 20 qubits; got 21"):
        state_of(num_qubits=21)


def test_fidelity_is_that_of_complex_vectors():
    first, second = random_states(3, 4, 0), random_states(3, 4, 1)
    a, b = (states[0].numpy() + 1j * states[1].numpy() for states in (first, second))
    assert_close(fidelity(first, second), torch.from_numpy(abs((a.conj() * b).sum(0)) ** 2))


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ((), 0),
        ((Operation("H", (0,)), Operation("RX", (1,), 0.3), Operation("T", (3,))), 0),
        (entangled_chain(0, 1, 2, 3), 1),
        (entangled_chain(1, 3), 1 / 2),
        ((*entangled_chain(0, 2), *entangled_chain(1, 3)), 1),
    ],
    ids=["idle", "product", "GHZ", "one Bell pair", "two Bell pairs"],
)
def test_entanglement_of_textbook_states_on_four_qubits(operations, expected):
    assert meyer_wallach(state_of(*operations, num_qubits=4)).item() == pytest.approx(expected, abs=1e-12)


def test_entanglement_of_a_w_state_is_eight_ninths():
    states = torch.zeros(2, 8, 1, dtype=torch.float64)
    states[0, [1, 2, 4]] = math.sqrt(1 / 3)  # every qubit alone: 1 with probability 1/3, so a purity of 5/9
    assert meyer_wallach(states).item() == pytest.approx(8 / 9)


@pytest.mark.parametrize("num_qubits", [1, 2, 5])
def test_evenly_drawn_states_read_what_is_said_of_haar(num_qubits):
    states = random_states(num_qubits, 8000, seed=7)
    found = expressibility(fidelity(*states.chunk(2, dim=-1)), num_qubits, bins=20)
    # Twice the divergence times the samples is chi-squared of 19 degrees of freedom: 99.9 % lie below 43.8.
    assert found.value < 43.8 / (2 * 4000)
    entangled = entangling_capability(meyer_wallach(states), num_qubits)
    assert entangled.value == pytest.approx(entangled.haar, abs=5 * entangled.standard_error + 1e-12)


def test_the_bias_of_few_samples_is_that_of_simulated_ones():
    counts = np.random.default_rng(0).multinomial(50, [1 / 10] * 10, size=4000) / 50
    shares = np.where(counts > 0, counts, 1)
    simulated = (np.where(counts > 0, counts, 0) * np.log(10 * shares)).sum(1)
    said = expressibility(torch.rand(50, dtype=torch.float64), 1, bins=10).haar
    assert said == pytest.approx(simulated.mean(), abs=4 * simulated.std() / math.sqrt(4000))


def test_the_standard_error_is_the_spread_between_samples():
    drawn = np.random.default_rng(1).beta(0.5, 3.5, size=(300, 2000))
    estimates = [expressibility(torch.from_numpy(row), 3, bins=20) for row in drawn]
    spread = np.std([one.value for one in estimates])
    assert np.mean([one.standard_error for one in estimates]) == pytest.approx(spread, rel=0.15)


def test_an_idle_circuit_has_the_largest_divergence_and_no_entanglement():
    fidelities, entanglements = reached_states(Circuit(3, ()), 100, torch.Generator())
    assert expressibility(fidelities, 3, bins=75).value == pytest.approx(math.log(75))
    assert entanglements.abs().max() < 1e-12
    assert len(fidelities) == 100
    assert len(entanglements) == 200


def test_a_deep_circuit_of_real_gates_covers_the_real_states_evenly_and_no_others():
    num_qubits, bins = 3, 20
    edges = 1 - np.linspace(0, 1, bins + 1) ** (1 / (2**num_qubits - 1))  # in F, of equal Haar probability
    shares = -np.diff(beta(1 / 2, (2**num_qubits - 1) / 2).cdf(edges))
    of_real_states = (shares * np.log(shares * bins)).sum()
    fidelities, _ = reached_states(ansatz.ring_cz(num_qubits, 6), 4000, torch.Generator().manual_seed(3))
    found = expressibility(fidelities, num_qubits, bins=bins)
    assert found.value == pytest.approx(of_real_states + found.haar, abs=5 * found.standard_error)
    complex_ones, _ = reached_states(ansatz.ring_crz(num_qubits, 6), 4000, torch.Generator().manual_seed(3))
    assert expressibility(complex_ones, num_qubits, bins=bins).value < of_real_states / 5


def test_blocks_do_not_change_the_kind_of_numbers_drawn(monkeypatch):
    monkeypatch.setattr("qpeft.analysis.random_angles.AMPLITUDES_PER_BLOCK", 64)
    fidelities, entanglements = reached_states(ansatz.ring_crz(3), 101, torch.Generator().manual_seed(0))
    assert (len(fidelities), len(entanglements)) == (101, 202)
    assert len(set(fidelities.tolist())) == 101

"""PennyLane's default.qubit gives the same values and gradients: an answer that nobody here has written."""

import pytest
import torch
from torch.testing import assert_close

from qpeft.circuits import Circuit, Input, Weight, ansatz
from qpeft.simulation import expectations

pennylane = pytest.importorskip("pennylane")

NAMES = {
    "H": "Hadamard",
    "X": "PauliX",
    "Y": "PauliY",
    "Z": "PauliZ",
    "PHASE": "PhaseShift",
    "CPHASE": "ControlledPhaseShift",
}
NAMES |= {"RXX": "IsingXX", "RYY": "IsingYY", "RZZ": "IsingZZ"}


def in_pennylane(circuit, inputs, weights):
    @pennylane.qnode(
        pennylane.device("default.qubit", wires=circuit.num_qubits), interface="torch", diff_method="backprop"
    )
    def evaluate():
        for operation in circuit.operations:
            gate = getattr(pennylane, NAMES.get(operation.gate_name, operation.gate_name))
            match operation.angle:
                case Input(index):
                    gate(inputs[:, index], wires=operation.qubits)
                case Weight(index):
                    gate(weights[index], wires=operation.qubits)
                case _:
                    gate(wires=operation.qubits)
        return [pennylane.expval(pennylane.pauli.string_to_pauli_word(letters)) for letters in circuit.observables]

    return torch.stack(evaluate(), dim=1)


def with_strings(circuit):
    return Circuit(circuit.num_qubits, circuit.operations, ("XIY", "ZZI", "YXZ"))


@pytest.mark.parametrize(
    "circuit",
    [
        ansatz.ring_crz(4),
        ansatz.ring_cz(4),
        ansatz.ring_cnot(3, 2),
        with_strings(ansatz.ring_crz(3, 2)),
        ansatz.ring_cz(2, 2),
    ],
    ids=["crz", "cz", "cnot", "strings", "two qubits"],
)
def test_values_and_gradients_equal_those_of_pennylane(circuit):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(5, circuit.num_inputs, generator=generator)
    weights, grad = (torch.randn(n, generator=generator) for n in (circuit.num_weights, circuit.num_observables))
    results = []
    for evaluate, dtype in ((expectations, torch.float32), (in_pennylane, torch.float64)):
        tensors = [tensor.detach().to(dtype).requires_grad_() for tensor in (inputs, weights)]
        values = evaluate(circuit, *tensors)
        (values * grad).sum().backward()
        results.append([values.detach().double(), *(tensor.grad.double() for tensor in tensors)])
    assert_close(results[0], results[1], atol=1e-5, rtol=1e-5)

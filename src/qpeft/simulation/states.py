"""Final states of circuits, gate by gate: no gradient, any gate, as much memory as all amplitudes take."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from qpeft.circuits import Circuit
from qpeft.errors import SimulationError
from qpeft.simulation.noise import channels

MAX_QUBITS = 20


def final_states(
    circuit: Circuit,
    inputs: Float[Tensor, "tokens num_inputs"],
    weights: Float[Tensor, " num_weights"],
) -> Float[Tensor, "2 amplitudes tokens"]:
    """What the circuit makes of |0...0>.

    Args:
        inputs, weights: angles in radians, of the type in which to compute.

    Returns:
        Real and imaginary parts of the 2**num_qubits amplitudes, qubit 0 the most significant bit.

    Raises: SimulationError: more than `MAX_QUBITS` qubits.
    """
    num_qubits = circuit.num_qubits
    if num_qubits > MAX_QUBITS:
        raise SimulationError(
            f"Sampling holds all amplitudes, for at most {MAX_QUBITS} qubits; got {num_qubits}, for which one state "
            f"of one token takes {2 ** (num_qubits + 1) * 8 / 2**20:,.0f} MiB."
        )
    # Axis 0: real and imaginary parts; axis q + 1: qubit q; then tokens.
    state = inputs.new_zeros(2 ** (num_qubits + 1), len(inputs))
    state[0] = 1
    state = state.reshape(*[2] * (num_qubits + 1), len(inputs))
    for operation in circuit.operations:
        gate, axes = channels.on_amplitudes(operation.gate_name), (0, *(qubit + 1 for qubit in operation.qubits))
        state = channels.apply(gate, channels.angle_values(operation.angle, inputs, weights), state, axes)
    return state.reshape(2, 2**num_qubits, len(inputs))

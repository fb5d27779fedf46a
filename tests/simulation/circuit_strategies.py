"""Random circuits over the whole gate table, for hypothesis.

Strategies draw plain data and `build` makes the circuit inside the test: the run-time type checker draws random
samples, which hypothesis forbids while it draws.
"""

from __future__ import annotations

from hypothesis import strategies as st

from qpeft.circuits import GATES, Circuit, Input, Operation, Weight

NUM_INPUTS, NUM_WEIGHTS = 3, 6
NAMES = {count: [name for name, gate in GATES.items() if gate.num_qubits <= count] for count in (1, 2)}
PARAMETRISED = {name for name, gate in GATES.items() if gate.is_parametrised}
ANGLES = st.one_of(
    st.tuples(st.just("input"), st.integers(0, NUM_INPUTS - 1)),
    st.tuples(st.just("weight"), st.integers(0, NUM_WEIGHTS - 1)),
    st.tuples(st.just("number"), st.floats(-7, 7, allow_nan=False)),
)


@st.composite
def circuits(draw, *, max_qubits, max_operations=25):
    """Data for `build`: number of qubits, gates, observables."""
    num_qubits = draw(st.integers(1, max_qubits))
    gates = st.tuples(st.sampled_from(NAMES[min(2, num_qubits)]), st.permutations(range(num_qubits)), ANGLES)
    strings = st.text("IXYZ", min_size=num_qubits, max_size=num_qubits)
    return num_qubits, draw(st.lists(gates, max_size=max_operations)), draw(st.lists(strings, max_size=4))


def build(data):
    num_qubits, gates, observables = data
    kinds = {"input": Input, "weight": Weight, "number": float}
    operations = [
        Operation(name, tuple(qubits[: GATES[name].num_qubits]), kinds[kind](value) if name in PARAMETRISED else None)
        for name, qubits, (kind, value) in gates
    ]
    return Circuit(num_qubits, tuple(operations), tuple(observables))

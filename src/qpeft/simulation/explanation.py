"""What a plan costs, and the text that `print(plan)` shows.

Operations are counted as the CPU kernel carries them out: a multiply-add is two, a rotation common to all tokens takes
one multiply-add per real number, its factor cos being part of the next table, and one that is the token's own takes
three operations. Bytes are those that must cross memory: inputs, values and their gradients. States stay in cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from qpeft.simulation.plan import AngleSum, PhaseLayer, Plan, RotationLayer, Term

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """Of one step, per input: what it does and floating-point operations, forwards and backwards."""

    step: str
    forward: int
    backward: int


def costs(plan: Plan) -> list[Cost]:
    """One entry per step of the plan, in order."""
    if plan.is_closed_form:
        letters = [(term.pauli.x | term.pauli.z).bit_count() for term in plan.terms]
        step = f"products   {len(plan.terms)} products of cos and sin: closed form, no state"
        return [Cost(step, 3 * sum(letters), 3 * sum(count * count for count in letters))]
    size = 2**plan.circuit.num_qubits
    found = [Cost(f"encode     RY on {plan.circuit.num_qubits} qubits: a real product state", 2 * size, 8 * size)]
    for position, layer in enumerate(plan.layers):
        if isinstance(layer, PhaseLayer):
            found.append(
                _phases(layer, size, is_real=position < plan.complex_from, is_first=position == plan.complex_from)
            )
        else:
            found.append(_rotations(layer, size, parts=1 + (position > plan.complex_from)))
    found.append(_measurement(plan.terms, size, parts=1 + (plan.complex_from < len(plan.layers))))
    return found


def _phases(layer: PhaseLayer, size: int, *, is_real: bool, is_first: bool) -> Cost:
    own = sum(bool(angle.inputs) for _, angle in layer.terms)
    sources = "signs" if is_real else _sources([angle for _, angle in layer.terms])
    step = f"phases     {len(layer.terms)} products of Z in one diagonal ({sources})"
    if is_real:
        return Cost(step, size, 2 * size)
    return Cost(step, (2 if is_first else 6) * size + 7 * own * size, 16 * size + 22 * own * size)


def _rotations(layer: RotationLayer, size: int, *, parts: int) -> Cost:
    own = sum(bool(rotation.angle.inputs) for rotation in layer.rotations)
    sources = _sources([rotation.angle for rotation in layer.rotations])
    step = f"rotations  RY on {len(layer.rotations)} bits, a Kronecker product ({sources})"
    once = parts * size * (2 * (len(layer.rotations) - own) + 3 * own)
    # Backwards: state and costate rotate back, and every rotation has a slope.
    return Cost(step, once, 2 * once + 2 * parts * size * len(layer.rotations))


def _measurement(terms: tuple[Term, ...], size: int, *, parts: int) -> Cost:
    strings = {(term.pauli.x, term.pauli.z) for term in terms}
    diagonal = sum(not x for x, _ in strings)
    folded = sum(term.angle is not None and not term.use_sin for term in terms)
    step = f"measure    {len(strings)} Pauli strings" + (f", {folded} RY folded in" if folded else "")
    once = 2 * parts * size * (len(strings) - diagonal) + (2 * parts + 3) * size * bool(diagonal)
    return Cost(step, once, (2 if folded else 1) * once + 2 * parts * size * bool(diagonal))


def _sources(angles: list[AngleSum]) -> str:
    return "weights and inputs" if any(angle.inputs for angle in angles) else "weights"


def explain(plan: Plan) -> str:
    """A table of the steps with operations and bytes per input."""
    circuit = plan.circuit
    rows = costs(plan)
    forward, backward = sum(row.forward for row in rows), sum(row.backward for row in rows)
    there = FLOAT_BYTES * (circuit.num_inputs + circuit.num_observables)
    back = there + FLOAT_BYTES * circuit.num_inputs
    lines = [
        f"Plan of {len(circuit.operations)} gates on {circuit.num_qubits} qubit(s); {circuit.num_observables} values",
        f"{circuit.num_inputs} inputs, {circuit.num_weights} weights",
        f"{'':66}{'forward':>10}{'backward':>10}",
    ]
    lines += [f"{row.step:66}{row.forward:>10,}{row.backward:>10,}" for row in rows]
    lines += [
        f"{'floating-point operations per input':66}{forward:>10,}{forward + backward:>10,}",
        f"{'bytes per input (inputs, values, gradients)':66}{there:>10,}{back:>10,}",
        "The backward pass repeats the forward pass; its totals include that.",
        f"Weights without effect: {', '.join(map(str, plan.dead_weights)) or 'none'}",
    ]
    return "\n".join(lines)

"""What a backend says of its own errors, as our noise model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from qpeft.errors import DeviceError
from qpeft.simulation.noise import Damping, EdgeNoise, NoiseModel, QubitNoise, ReadoutError, depolarising_from_fidelity

if TYPE_CHECKING:
    from qiskit.transpiler import Target

ONE_QUBIT_GATES = ("sx", "x", "u2", "r")
TWO_QUBIT_GATES = ("cz", "ecr", "cx")
"""The first that the backend has speaks for all its gates of that size."""
TURNS_ABOUT_Z = frozenset({"RZ", "PHASE", "Z", "S", "SDG", "T", "TDG"})
"""Free where RZ is: such a chip does them by counting later phases from another zero."""
WORST = 0.5
"""Errors above this are taken for dead: IBM lists dead gates with 1, and a coin reads a bit as well."""


class _Stated(NamedTuple):
    """What is listed of one gate on certain qubits: 1 - average fidelity, and seconds."""

    error: float
    duration: float


def noise_model(target: Target, properties: Any) -> NoiseModel | None:
    """The backend's living qubits and edges, by their numbers on the chip.

    Args:
        target: of the backend. A gate's stated error contains relaxation while it lasts.
        properties: Qiskit's BackendProperties, for readout errors of 0 and 1 apart; None if there are none.

    Returns: None if the backend states no coherence times, as perfect simulators.
    Raises: DeviceError if nothing is alive.
    """
    times = _times(target)
    if not times:
        return None
    gates, readouts = _living(target, ONE_QUBIT_GATES), _living(target, ("measure",))
    faulty = set(properties.faulty_qubits()) if properties is not None else set()
    qubits = {}
    for qubit in sorted(times.keys() - faulty):
        if (qubit,) in gates and (qubit,) in readouts:
            gate = gates[qubit,]
            damping = _damping(times[qubit], gate)
            depolarising = depolarising_from_fidelity(1 - gate.error, [damping])
            qubits[qubit] = QubitNoise(depolarising, damping, _readout(properties, qubit, readouts[qubit,].error))
    if not qubits:
        raise DeviceError("The backend's calibration lists no qubit that is alive.")
    edges = {}
    for (first, second), gate in _edges(target).items():
        if first in qubits and second in qubits:
            both = (_damping(times[first], gate), _damping(times[second], gate))
            edges[first, second] = EdgeNoise(depolarising_from_fidelity(1 - gate.error, both), both)
    return replace(NoiseModel.from_mappings(qubits, edges), free_gates=_free_gates(target))


def _free_gates(target: Target) -> frozenset[str]:
    listed = target["rz"].values() if "rz" in target.operation_names else ()
    takes_nothing = all(entry is not None and not entry.duration and not entry.error for entry in listed)
    return TURNS_ABOUT_Z if listed and takes_nothing else frozenset()


def _times(target: Target) -> dict[int, tuple[float, float]]:
    """T1 and T2 of qubits that have them, seconds; T2 at most 2 T1, which calibrations exceed within their error."""
    listed = enumerate(target.qubit_properties or ())
    return {
        qubit: (entry.t1, min(entry.t2, 2 * entry.t1))
        for qubit, entry in listed
        if entry is not None and entry.t1 and entry.t2 and entry.t1 > 0 and entry.t2 > 0
    }


def _living(target: Target, names: tuple[str, ...]) -> dict[tuple[int, ...], _Stated]:
    """What is stated of the first of these gates that the backend has, by the qubits that it acts on."""
    name = next((name for name in names if name in target.operation_names), None)
    entries = {} if name is None else target[name]
    # `<=` is False for NaN. A duration that is not listed is none.
    return {
        qubits: _Stated(entry.error, entry.duration or 0.0)
        for qubits, entry in entries.items()
        if qubits is not None and entry is not None and entry.error is not None and 0 <= entry.error <= WORST
    }


def _edges(target: Target) -> dict[tuple[int, int], _Stated]:
    """Smaller qubit first; of two directions the better, which the transpiler takes too."""
    best: dict[tuple[int, int], _Stated] = {}
    for (first, second), gate in _living(target, TWO_QUBIT_GATES).items():
        edge = (min(first, second), max(first, second))
        best[edge] = min(gate, best.get(edge, gate))
    return best


def _damping(times: tuple[float, float], gate: _Stated) -> Damping:
    return Damping.from_times(t1=times[0], t2=times[1], duration=gate.duration)


def _readout(properties: Any, qubit: int, error: float) -> ReadoutError:
    listed = {} if properties is None else {entry.name: entry.value for entry in properties.qubits[qubit]}
    if "prob_meas1_prep0" in listed and "prob_meas0_prep1" in listed:
        return ReadoutError(p1_given_0=listed["prob_meas1_prep0"], p0_given_1=listed["prob_meas0_prep1"])
    return ReadoutError(p1_given_0=error, p0_given_1=error)

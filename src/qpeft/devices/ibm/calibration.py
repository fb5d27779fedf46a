"""What a backend says of its own errors, as our noise model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qpeft.errors import DeviceError
from qpeft.simulation.noise import Damping, EdgeNoise, NoiseModel, QubitNoise, ReadoutError, depolarising_from_fidelity

if TYPE_CHECKING:
    from qiskit.transpiler import Target

ONE_QUBIT_GATES = ("sx", "x", "u2", "r")
TWO_QUBIT_GATES = ("cz", "ecr", "cx")
"""The first that the backend has speaks for all its gates of that size."""
WORST = 0.5
"""Errors above this are taken for dead: IBM lists dead gates with 1, and a coin reads a bit as well."""


def noise_model(target: Target, properties: Any) -> NoiseModel | None:
    """The backend's living qubits and edges, by their numbers on the chip.

    Args:
        target: of the backend. A gate's stated error is 1 - its average fidelity, and contains relaxation.
        properties: Qiskit's BackendProperties, for readout errors of 0 and 1 apart; None if there are none.

    Returns: None if the backend states no coherence times, as perfect simulators.
    Raises: DeviceError if nothing is alive.
    """
    if not target.qubit_properties or not any(entry and entry.t1 for entry in target.qubit_properties):
        return None
    times = {qubit: _times(entry) for qubit, entry in enumerate(target.qubit_properties)}
    one, two = _gate(target, ONE_QUBIT_GATES), _gate(target, TWO_QUBIT_GATES)
    faulty = set(properties.faulty_qubits()) if properties is not None else set()
    qubits = {}
    for qubit, found in times.items():
        readout = _readout(target, properties, qubit)
        stated = one.get((qubit,))
        if qubit in faulty or found is None or readout is None or not _is_alive(stated):
            continue
        damping = _damping(found, stated)
        qubits[qubit] = QubitNoise(depolarising_from_fidelity(1 - stated.error, [damping]), damping, readout)
    if not qubits:
        raise DeviceError("The backend's calibration lists no qubit that is alive.")
    return NoiseModel.from_mappings(qubits, _edges(two, qubits, times))


def _edges(stated: Mapping[tuple[int, ...], Any], qubits: Mapping[int, Any], times: Mapping[int, Any]) -> Any:
    """Noise of living edges, smaller qubit first; of two directions the better, which the transpiler takes too."""
    best: dict[tuple[int, int], Any] = {}
    for pair, entry in stated.items():
        edge = (min(pair), max(pair))
        is_alive = _is_alive(entry) and edge[0] in qubits and edge[1] in qubits
        if is_alive and (edge not in best or entry.error < best[edge].error):
            best[edge] = entry
    edges = {}
    for edge, entry in best.items():
        damping = (_damping(times[edge[0]], entry), _damping(times[edge[1]], entry))
        edges[edge] = EdgeNoise(depolarising_from_fidelity(1 - entry.error, damping), damping)
    return edges


def _gate(target: Target, names: tuple[str, ...]) -> Mapping[tuple[int, ...], Any]:
    """Stated errors of the first of these gates that the backend has, by the qubits that it acts on."""
    name = next((name for name in names if name in target.operation_names), None)
    return {} if name is None else {qubits: entry for qubits, entry in target[name].items() if qubits is not None}


def _is_alive(stated: Any) -> bool:
    # `<=` is False for NaN.
    return stated is not None and stated.error is not None and 0 <= stated.error <= WORST


def _times(entry: Any) -> tuple[float, float] | None:
    """T1 and T2 in seconds, T2 at most 2 T1 as physics has it and calibrations within their own error."""
    if entry is None or not entry.t1 or not entry.t2 or not (entry.t1 > 0 and entry.t2 > 0):
        return None
    return entry.t1, min(entry.t2, 2 * entry.t1)


def _damping(times: tuple[float, float], stated: Any) -> Damping:
    duration = stated.duration
    if duration is None or not math.isfinite(duration):
        return Damping()
    return Damping.from_times(t1=times[0], t2=times[1], duration=duration)


def _readout(target: Target, properties: Any, qubit: int) -> ReadoutError | None:
    """None if reading this qubit is as good as a coin, or unknown."""
    stated = target["measure"].get((qubit,)) if "measure" in target.operation_names else None
    if not _is_alive(stated):
        return None
    listed = {} if properties is None else {entry.name: entry.value for entry in properties.qubits[qubit]}
    if "prob_meas1_prep0" in listed and "prob_meas0_prep1" in listed:
        return ReadoutError(p1_given_0=listed["prob_meas1_prep0"], p0_given_1=listed["prob_meas0_prep1"])
    return ReadoutError(p1_given_0=stated.error, p0_given_1=stated.error)

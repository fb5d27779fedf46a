"""Hashes of circuits, batches and calibrations: equal exactly for what is equal, on every machine and in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from json import dumps

from qpeft.circuits import Circuit
from qpeft.errors import JournalError
from qpeft.simulation.noise import NoiseModel


def hash_circuit(circuit: Circuit) -> str:
    """SHA-256 of a bound circuit, angles bit by bit. Observables do not matter: devices do not see them.

    Raises: JournalError if an angle is not a number yet.
    """
    words = [str(circuit.num_qubits)]
    for operation in circuit.operations:
        angle = operation.angle
        if angle is not None and not isinstance(angle, (int, float)):
            raise JournalError(f"Only circuits whose angles are numbers can be sent; bind {angle} first.")
        exact = "" if angle is None else float(angle).hex()
        words.append(f"{operation.gate_name} {','.join(map(str, operation.qubits))} {exact}")
    return _hash("\n".join(words))


def hash_batch(circuits: Sequence[str], shots: int | None, device: str, options: str) -> str:
    """SHA-256 of what is sent: hashes of circuits in their order, shots, name of the device, canonical options."""
    return _hash(dumps([list(circuits), shots, device, options]))


def canonical_options(options: Mapping[str, object]) -> str:
    """Options of a device as JSON with sorted keys. Raises: JournalError if they are not plain values."""
    try:
        return dumps(dict(options), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise JournalError(f"Device options must be numbers, strings, lists or mappings; {error}.") from error


def hash_calibration(calibration: NoiseModel | None) -> str | None:
    """SHA-256 of what a device says of its errors, every number exactly; None if it says nothing."""
    # A repr of frozen dataclasses of numbers names every field and round-trips every float.
    return None if calibration is None else _hash(repr(calibration))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

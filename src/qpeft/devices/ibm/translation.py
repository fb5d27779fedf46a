"""Our circuits as Qiskit's, prepared for a backend once per structure, and its samples as our distributions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qpeft.circuits import Circuit, Input, unbind
from qpeft.circuits.decomposition import rewrite
from qpeft.circuits.exchange import QISKIT_NAMES
from qpeft.devices.protocol import Distribution
from qpeft.errors import DeviceError, OrderError, RefusedError

if TYPE_CHECKING:
    from qiskit import QuantumCircuit
    from qiskit.primitives import PubResult
    from qiskit.providers import BackendV2

BITS = "bits"
"""Name of the register that everything is measured into."""
NUMBER = "qpeft_number"
"""Of a bloc in its job, in the metadata of its circuit."""
KEPT_STRUCTURES = 256


def to_qiskit(circuit: Circuit) -> QuantumCircuit:
    """Return the circuit with a Qiskit parameter per input, in their order, and qubit k measured into classical bit k.

    Raises: DeviceError for a gate that is not in the table.
    """
    from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister  # noqa: PLC0415
    from qiskit.circuit import ParameterVector  # noqa: PLC0415

    bits = ClassicalRegister(circuit.num_qubits, BITS)
    translated = QuantumCircuit(QuantumRegister(circuit.num_qubits, "qubits"), bits)
    # Parameters, not numbers: transpiling takes far longer than running, and so is done once per structure.
    angles = ParameterVector("angles", circuit.num_inputs)
    for operation in circuit.operations:
        if operation.gate_name not in QISKIT_NAMES:
            raise DeviceError(f"ibm has no gate {operation.gate_name} in its table; use another ansatz.")
        angle = operation.angle
        values = () if angle is None else (angles[angle.index] if isinstance(angle, Input) else angle,)
        getattr(translated, QISKIT_NAMES[operation.gate_name])(*values, *operation.qubits)
    translated.measure(range(circuit.num_qubits), bits)
    return translated


class Translator:
    """Circuits for one backend, in its own gates and on its own qubits.

    Args:
        backend: that runs them.
        optimization_level: of Qiskit's transpiler, 0 to 3.
        qubits: of the backend, for the circuit's qubits in their order; None to let Qiskit choose.
    """

    def __init__(self, backend: BackendV2, *, optimization_level: int, qubits: Sequence[int] | None) -> None:
        self._backend, self._level, self._qubits = backend, optimization_level, qubits
        # Of this object, not of the class: a device that is let go takes its circuits along.
        self._prepared = lru_cache(KEPT_STRUCTURES)(self._prepare)

    def pubs(self, circuits: Sequence[Circuit]) -> list[tuple[Any, ...]]:
        """Return Qiskit's "primitive unified blocs": prepared circuits, with a row of values for each of ours.

        Neighbours with one structure share a bloc, so results in order of blocs and rows are in order of circuits,
        and a process that knows nothing but the job's id can read them. Each bloc has its number in its circuit's
        metadata, which comes back with its result.
        Raises: RefusedError if a circuit cannot be prepared.
        """
        blocs: list[tuple[Any, ...]] = []
        for structure, members in itertools.groupby(
            (unbind(rewrite(one, QISKIT_NAMES)) for one in circuits), key=lambda pair: pair[0]
        ):
            prepared = self._prepared(structure)
            numbered = self._numbered(prepared, len(blocs))
            angles = np.array([row for _, row in members])
            # The transpiler drops gates that no measurement sees, and their parameters with them.
            left = [parameter.index for parameter in prepared.parameters]
            if left:
                blocs.append((numbered, {tuple(numbered.parameters): angles[:, left]}))
            else:
                blocs += [(self._numbered(prepared, len(blocs) + row),) for row in range(len(angles))]
        return blocs

    @staticmethod
    def _numbered(prepared: QuantumCircuit, number: int) -> QuantumCircuit:
        copy = prepared.copy()
        copy.metadata = {**(prepared.metadata or {}), NUMBER: number}
        return copy

    def forget(self) -> None:
        """Prepare everything anew from now on, since the backend has changed."""
        self._prepared.cache_clear()

    def _prepare(self, structure: Circuit) -> QuantumCircuit:
        from qiskit.exceptions import QiskitError  # noqa: PLC0415
        from qiskit.transpiler import generate_preset_pass_manager  # noqa: PLC0415

        chosen = None if self._qubits is None else list(self._qubits[: structure.num_qubits])
        if chosen is not None and len(chosen) < structure.num_qubits:
            raise RefusedError(
                f"qubits={chosen} are too few for a circuit on {structure.num_qubits}; nothing was sent."
            )
        try:
            # A fixed seed, so that a circuit is routed the same way in every process, a resumed run included.
            manager = generate_preset_pass_manager(
                optimization_level=self._level, backend=self._backend, initial_layout=chosen, seed_transpiler=0
            )
            return manager.run(to_qiskit(structure))
        except (QiskitError, IndexError) as error:
            raise RefusedError(f"Qiskit cannot prepare the circuit, so nothing was sent: {error}") from error


def distributions(result: object) -> list[Distribution]:
    """Return one per circuit, from the results of a sampler, in the order of `Translator.pubs`.

    By the numbers of the blocs, whatever their order; by their order where none has a number, as in jobs of an older
    qpeft. Raises: DeviceError if they are not what a job of ours returns; OrderError if numbers are missing or double.
    """
    from qiskit.primitives import PrimitiveResult  # noqa: PLC0415

    if not isinstance(result, PrimitiveResult):  # the vendor's client passes on what it cannot decode
        raise DeviceError(f"The results of a sampler were expected; got {str(result)[:80]!r}.")
    blocs: list[PubResult] = list(result)
    numbers = [(bloc.metadata.get("circuit_metadata") or {}).get(NUMBER) for bloc in blocs]
    if any(number is not None for number in numbers):
        by_number = dict(zip(numbers, blocs, strict=True))
        if by_number.keys() != set(range(len(blocs))):
            raise OrderError(
                f"Each result should have the number of its circuits, 0 to {len(blocs) - 1}; got {numbers}."
            )
        blocs = [by_number[number] for number in range(len(blocs))]
    found: list[Distribution] = []
    for bloc in blocs:
        if BITS not in bloc.data:
            raise DeviceError(f"A result has no register {BITS!r} but {list(bloc.data)}; was the job sent by qpeft?")
        # One row of values in the bloc is one of our circuits, in the order in which `pubs` put them.
        bits = bloc.data[BITS]
        flat = bits.reshape(bits.size)
        for place in range(bits.size):
            counts = flat.get_counts(place)
            total = sum(counts.values())
            if not total:
                raise DeviceError(f"Circuit {place} of a bloc came back without a single sample.")
            # Qiskit prints classical bit 0, hence our qubit 0, on the right.
            found.append({text[::-1]: count / total for text, count in counts.items()})
    return found

"""Any device of PennyLane as a device of ours: its simulators, and through its plugins the clouds that they reach.

PennyLane sends and waits in one call and shows no job ids, so jobs live in memory here and die with the process.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from qpeft.circuits import GATES, Circuit
from qpeft.circuits.decomposition import bound_angle, rewrite
from qpeft.circuits.exchange import PENNYLANE_ADJOINTS, PENNYLANE_NAMES
from qpeft.devices.memory_jobs import MemoryJobs
from qpeft.devices.protocol import (
    AbstractDevice,
    Capabilities,
    Distribution,
    check_request,
    check_results,
)
from qpeft.devices.secrets import redacted
from qpeft.errors import DeviceError
from qpeft.simulation.noise import NoiseModel

if TYPE_CHECKING:
    from pennylane.devices import Device as VendorDevice
    from pennylane.operation import Operator
    from pennylane.tape import QuantumScript

LOCAL_SIMULATORS = frozenset(
    {"default.qubit", "default.mixed", "default.tensor", "default.clifford", "reference.qubit"}
    | {"lightning.qubit", "lightning.kokkos", "lightning.gpu", "lightning.tensor"}
)
"""Devices known to compute on this machine, and exactly if asked to; all others are taken for remote and sampling."""


class PennyLaneDevice(MemoryJobs, AbstractDevice):
    """A device of PennyLane, found by the name that `pennylane.device` knows it by.

    A job is sent when it is first polled, all its circuits in one call, and that call waits for the results.

    Args:
        device: PennyLane's name, such as "lightning.qubit" or that of an installed plugin, or "module:Class" of one
            that has no name.
        num_qubits: largest circuit; becomes the device's wires 0, 1, 2, ...
        seed: of the samples, for devices that take one; None to leave it to them.
        options: further keywords of the device. Keys do not belong here: plugins find them in their own files.
        is_remote: whether circuits leave this machine; by default True for all but PennyLane's own simulators.
        can_be_exact: whether `shots=None` works; by default only for PennyLane's own simulators.

    Raises: DeviceError if PennyLane is missing, does not know the device, or cannot make it with these options.
    """

    def __init__(
        self,
        *,
        device: str,
        num_qubits: int,
        seed: int | None = None,
        options: Mapping[str, Any] | None = None,
        is_remote: bool | None = None,
        can_be_exact: bool | None = None,
    ) -> None:
        if num_qubits < 1:
            raise DeviceError(f"A device needs at least 1 qubit; got num_qubits={num_qubits}.")
        # A seed only where one is given: many plugins refuse a keyword that they do not know.
        keywords = {**(options or {}), **({} if seed is None else {"seed": seed})}
        self._name, self._device = device, _make(device, num_qubits, keywords)
        self._num_qubits = num_qubits
        self._is_ours = device in LOCAL_SIMULATORS
        self._is_remote = not self._is_ours if is_remote is None else is_remote
        self._can_be_exact = self._is_ours if can_be_exact is None else can_be_exact
        super().__init__("pennylane", secrets=keywords.values())

    def capabilities(self) -> Capabilities:
        """Return all gates; limits of shots and circuits are not known here: a device that has some fails the job."""
        return Capabilities(
            name="pennylane",
            num_qubits=self._num_qubits,
            gate_names=frozenset(GATES),
            max_shots=None,
            max_circuits=None,
            can_be_exact=self._can_be_exact,
            is_remote=self._is_remote,
            recipient=f"pennylane's {self._name}",
            keeps_jobs=False,
            # What becomes of a circuit behind a plugin is not known, so the worse is taken.
            simplifies_circuits=not self._is_ours,
            chooses_qubits=not self._is_ours,
            # A plugin's answers are a list without names, put together from whatever its cloud returns.
            answers_by_place=self._is_remote,
        )

    def submit(self, circuits: Sequence[Circuit], shots: int | None, *, ticket: str | None = None) -> str:  # noqa: ARG002
        """Keep a job for its first poll.

        Args:
            circuits: bound, one or more.
            shots: per circuit; None for exact values.
            ticket: not needed, since a job ends with its process.

        Raises: as `check_request`; nothing was sent then.
        """
        shots = check_request(self.capabilities(), circuits, shots)
        kept = tuple(circuits)
        return self.add(lambda: self._run(kept, shots))

    def calibration(self) -> NoiseModel | None:
        """Return None: PennyLane has no common form for what devices say of their errors."""
        return None

    def _run(self, circuits: Sequence[Circuit], shots: int | None) -> list[Distribution]:
        import pennylane  # noqa: PLC0415

        scripts = [to_script(circuit, shots) for circuit in circuits]
        # No diff_method: gradients come from our own shift rules, and PennyLane would send circuits for its own.
        answers = pennylane.execute(scripts, self._device, diff_method=None)
        if len(answers) != len(circuits):
            raise DeviceError(f"{len(circuits)} circuits were sent and {len(answers)} results came back.")
        results: list[Distribution] = []
        for circuit, answer in zip(circuits, answers, strict=True):
            num_qubits = circuit.num_qubits
            if shots is None:
                if len(answer) != 2**num_qubits:
                    raise DeviceError(f"{num_qubits} qubit(s) have {2**num_qubits} outcomes; {len(answer)} came back.")
                # Wire 0 is the highest bit of an outcome's number, so it comes out leftmost, as ours does.
                results.append(
                    {f"{number:0{num_qubits}b}": float(share) for number, share in enumerate(answer) if share}
                )
                continue
            # The shots that came back, which a cloud may have cut, and not those that were asked for.
            total = sum(int(count) for count in answer.values())
            if not total:
                raise DeviceError(f"A circuit on {num_qubits} qubit(s) came back without a single sample.")
            results.append({str(bits): int(count) / total for bits, count in answer.items() if count})
        check_results(circuits, results)
        return results


def to_script(circuit: Circuit, shots: int | None) -> QuantumScript:
    """Return PennyLane's form of a bound circuit: counts of all qubits, or their probabilities for `shots=None`.

    PennyLane prints wire 0 leftmost, as we do. Gates that it lacks are written with others.
    """
    import pennylane  # noqa: PLC0415
    from pennylane.tape import QuantumScript  # noqa: PLC0415

    wires = range(circuit.num_qubits)
    measured = pennylane.probs(wires=wires) if shots is None else pennylane.counts(wires=wires)
    operators: list[Operator] = []
    for operation in rewrite(circuit, {*PENNYLANE_NAMES, *PENNYLANE_ADJOINTS}).operations:
        name, acted_on, angle = operation.gate_name, list(operation.qubits), bound_angle(operation)
        if name in PENNYLANE_ADJOINTS:
            operators.append(pennylane.adjoint(getattr(pennylane, PENNYLANE_ADJOINTS[name])(wires=acted_on)))
            continue
        kind = getattr(pennylane, PENNYLANE_NAMES[name])
        operators.append(kind(wires=acted_on) if angle is None else kind(float(angle), wires=acted_on))
    return QuantumScript(operators, [measured], shots=shots)


def _make(name: str, num_qubits: int, keywords: Mapping[str, Any]) -> VendorDevice:
    try:
        import pennylane  # noqa: PLC0415
    except ImportError as error:
        raise DeviceError("PennyLane is not installed: pip install 'qpeft[pennylane]'.") from error
    if ":" in name:
        # A class by "module:Class", for plugins that give PennyLane no name.
        module, _, class_name = name.partition(":")
        try:
            make = getattr(import_module(module), class_name, None)
        except ImportError as error:
            raise DeviceError(
                f"{module} cannot be imported for device {name!r}: {error}. Is the plugin installed?"
            ) from error
        if not (isinstance(make, type) and issubclass(make, pennylane.devices.Device)):
            raise DeviceError(f"{name!r} is not a class of PennyLane's devices.")
    elif name in pennylane.plugin_devices:
        make = functools.partial(pennylane.device, name)
    else:
        near = difflib.get_close_matches(name, pennylane.plugin_devices, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(pennylane.plugin_devices))}."
        raise DeviceError(f"PennyLane has no device {name!r}; {hint} Others come with plugins, to be installed first.")
    try:
        return make(wires=num_qubits, **keywords)
    except Exception as error:
        # Plugins raise what they like. Names of options only, since a value may be a key.
        text, cause = redacted(error, keywords.values())
        raise DeviceError(
            f"PennyLane cannot make {name!r} with num_qubits={num_qubits} and options {sorted(keywords)}: {text}"
        ) from cause

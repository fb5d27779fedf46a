"""The user's account at IBM, from wherever its key is kept; the key stays out of every message."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from qpeft.devices.secrets import redacted
from qpeft.errors import CredentialsError, DeviceError
from qpeft.simulation.noise import Damping, EdgeNoise, NoiseModel, QubitNoise, ReadoutError, depolarising_from_fidelity

if TYPE_CHECKING:
    from qiskit.providers import BackendV2
    from qiskit.transpiler import Target
    from qiskit_ibm_runtime import QiskitRuntimeService


TOKEN_VARIABLE = "QPEFT_IBM_TOKEN"
KEYRING_SERVICE, KEYRING_USER = "qpeft", "ibm"
WHAT_TO_DO = (
    f"Set the environment variable {TOKEN_VARIABLE} to your API key, or store it once: `keyring set {KEYRING_SERVICE} "
    f"{KEYRING_USER}`, or qiskit_ibm_runtime.QiskitRuntimeService.save_account(token=...)."
)


def open_service(instance: str | None) -> QiskitRuntimeService:
    """Return the service, with the key of the environment, the keyring or the account that Qiskit has saved.

    Args: instance: name or CRN of the instance that pays; None to let the service choose.
    Raises: CredentialsError if there is no key or it is refused; DeviceError if the service cannot be reached.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService  # noqa: PLC0415
    from qiskit_ibm_runtime.accounts import AccountNotFoundError  # noqa: PLC0415

    token = find_token()
    try:
        # None lets the client read the account that the user has saved with it.
        return QiskitRuntimeService(token=token, instance=instance)
    except Exception as error:
        text, cause = redacted(error, [token])
        code = status_code(error)
        # The vendor wraps an unreachable host and a refused key alike; what it wraps tells them apart.
        if code >= 500 or (code == 0 and any(isinstance(link, OSError) for link in _chain(error))):
            raise DeviceError(f"IBM's service cannot be reached: {text}") from cause
        what = "There is no IBM account" if isinstance(error, AccountNotFoundError) else "IBM refused the account"
        raise CredentialsError(f"{what}: {text} {WHAT_TO_DO}") from cause


def find_token() -> str | None:
    """Return the key of the environment or of the keyring; None to use the account that Qiskit has saved.

    Raises: CredentialsError if the keyring is there and cannot be read.
    """
    if token := os.environ.get(TOKEN_VARIABLE, "").strip():
        return token
    try:
        import keyring  # noqa: PLC0415
        from keyring.errors import KeyringError, NoKeyringError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return keyring.get_password(KEYRING_SERVICE, KEYRING_USER) or None
    except NoKeyringError:  # the package without a place to keep anything
        return None
    except KeyringError as error:
        raise CredentialsError(f"The keyring cannot be read: {error}. {WHAT_TO_DO}") from error


def status_code(error: BaseException) -> int:
    """Return the HTTP status that an error of the vendor goes back to; 0 if there is none."""
    for link in _chain(error):
        code = getattr(link, "status_code", None)
        if isinstance(code, int) and code > 0:
            return code
        if type(link).__name__ == "IBMNotAuthorizedError":  # the vendor's name for 401, without a number
            return 401
    return 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and what it goes back to; contexts too, since the vendor hides what it wraps."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# Backends by name: "aer", fakes such as "FakeTorino", and the machines of the service.


AER = "aer"
"""A perfect machine, simulated by qiskit-aer."""


def is_local(name: str) -> bool:
    """Whether a backend of this name is simulated on this machine."""
    return name == AER or name.lower().startswith("fake")


def local_backend(name: str) -> BackendV2:
    """Return a simulator: "aer" without errors, "FakeTorino" or "fake_torino" with those that the machine once had.

    Raises: DeviceError for an unknown name, naming the nearest.
    """
    if name == AER:
        from qiskit_aer import AerSimulator  # noqa: PLC0415

        return AerSimulator()
    from qiskit_ibm_runtime import fake_provider  # noqa: PLC0415

    fakes = {_plain(fake): fake for fake in dir(fake_provider) if fake.startswith("Fake") and "Provider" not in fake}
    if _plain(name) not in fakes:
        raise DeviceError(f"Qiskit has no fake backend {name!r}{_nearest(_plain(name), fakes)}")
    return getattr(fake_provider, fakes[_plain(name)])()


def remote_backend(service: QiskitRuntimeService, name: str, secrets: Iterable[object]) -> BackendV2:
    """Return a machine of the service.

    Args:
        service: the account's.
        name: of the machine.
        secrets: taken out of error texts.

    Raises: DeviceError if it has none of this name, naming the nearest, or fails.
    """
    from qiskit.providers.exceptions import QiskitBackendNotFoundError  # noqa: PLC0415

    try:
        try:
            return service.backend(name)
        except QiskitBackendNotFoundError:
            known = {backend.name: backend.name for backend in service.backends()}
    except Exception as error:
        text, cause = redacted(error, secrets)
        raise DeviceError(f"IBM's service cannot open backend {name!r}: {text}") from cause
    raise DeviceError(f"Your IBM account has no backend {name!r}{_nearest(name, known)}")


def _plain(name: str) -> str:
    """Return one form of a fake's class name and backend name: FakeManilaV2 and fake_manila are fakemanila."""
    return name.lower().replace("_", "").removesuffix("v2")


def _nearest(name: str, known: dict[str, str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {known[near[0]]!r}?" if near else f". Known: {', '.join(sorted(known.values())) or 'none'}."


# What a backend says of its own errors, as our noise model.


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
    """Return a noise model of the backend's living qubits and edges, by their numbers on the chip.

    Args:
        target: of the backend. A gate's stated error contains relaxation while it lasts.
        properties: Qiskit's BackendProperties, for readout errors of 0 and 1 apart; None if there are none.

    Returns: None if the backend states no coherence times, as perfect simulators.
    Raises: DeviceError if nothing is alive.
    """
    # T1 and T2 in seconds. T2 is at most 2 T1 by physics, and calibrations exceed it within their error.
    times = {
        qubit: (entry.t1, min(entry.t2, 2 * entry.t1))
        for qubit, entry in enumerate(target.qubit_properties or ())
        if entry is not None and entry.t1 and entry.t2 and entry.t1 > 0 and entry.t2 > 0
    }
    if not times:
        return None
    gates, readouts = _living(target, ONE_QUBIT_GATES), _living(target, ("measure",))
    faulty = set(properties.faulty_qubits()) if properties is not None else set()
    qubits = {}
    for qubit in sorted(times.keys() - faulty):
        if (qubit,) in gates and (qubit,) in readouts:
            gate = gates[qubit,]
            # The stated error holds relaxation while the gate lasts, so only the rest of it is depolarising.
            damping = _damping(times[qubit], gate)
            depolarising = depolarising_from_fidelity(1 - gate.error, [damping])
            qubits[qubit] = QubitNoise(depolarising, damping, _readout(properties, qubit, readouts[qubit,].error))
    if not qubits:
        raise DeviceError("The backend's calibration lists no qubit that is alive.")
    edges = {}
    best: dict[tuple[int, int], _Stated] = {}
    for (first, second), gate in _living(target, TWO_QUBIT_GATES).items():
        # A gate may be listed in both directions; the transpiler takes the better one, and so does the model.
        edge = (min(first, second), max(first, second))
        best[edge] = min(gate, best.get(edge, gate))
    for (first, second), gate in best.items():
        if first in qubits and second in qubits:
            both = (_damping(times[first], gate), _damping(times[second], gate))
            edges[first, second] = EdgeNoise(depolarising_from_fidelity(1 - gate.error, both), both)
    # Only where the backend says that RZ takes no time and makes no error; on other chips turns about Z cost a pulse.
    listed = target["rz"].values() if "rz" in target.operation_names else ()
    takes_nothing = all(entry is not None and not entry.duration and not entry.error for entry in listed)
    free_gates = TURNS_ABOUT_Z if listed and takes_nothing else frozenset[str]()
    return replace(NoiseModel.from_mappings(qubits, edges), free_gates=free_gates)


def _living(target: Target, names: tuple[str, ...]) -> dict[tuple[int, ...], _Stated]:
    """Return what is stated of the first of these gates that the backend has, by the qubits that it acts on."""
    name = next((name for name in names if name in target.operation_names), None)
    entries = {} if name is None else target[name]
    # `<=` is False for NaN. A duration that is not listed is none.
    return {
        qubits: _Stated(entry.error, entry.duration or 0.0)
        for qubits, entry in entries.items()
        if qubits is not None and entry is not None and entry.error is not None and 0 <= entry.error <= WORST
    }


def _damping(times: tuple[float, float], gate: _Stated) -> Damping:
    return Damping.from_times(t1=times[0], t2=times[1], duration=gate.duration)


def _readout(properties: Any, qubit: int, error: float) -> ReadoutError:
    listed = {} if properties is None else {entry.name: entry.value for entry in properties.qubits[qubit]}
    if "prob_meas1_prep0" in listed and "prob_meas0_prep1" in listed:
        return ReadoutError(p1_given_0=listed["prob_meas1_prep0"], p0_given_1=listed["prob_meas0_prep1"])
    return ReadoutError(p1_given_0=error, p0_given_1=error)

"""Backends by name: "aer", fakes such as "FakeTorino", and the machines of the service."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from qpeft.devices.secrets import told
from qpeft.errors import DeviceError

if TYPE_CHECKING:
    from qiskit.providers import BackendV2
    from qiskit_ibm_runtime import QiskitRuntimeService

AER = "aer"
"""A perfect machine, simulated by qiskit-aer."""


def is_local(name: str) -> bool:
    """Whether a backend of this name is simulated on this machine."""
    return name == AER or name.lower().startswith("fake")


def local_backend(name: str) -> BackendV2:
    """A simulator: "aer" without errors, "FakeTorino" or "fake_torino" with those that the machine once had.

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
    """A machine of the service. Raises: DeviceError if it has none of this name, naming the nearest, or fails."""
    from qiskit.providers.exceptions import QiskitBackendNotFoundError  # noqa: PLC0415

    try:
        try:
            return service.backend(name)
        except QiskitBackendNotFoundError:
            known = {backend.name: backend.name for backend in service.backends()}
    except Exception as error:
        text, cause = told(error, secrets)
        raise DeviceError(f"IBM's service cannot open backend {name!r}: {text}") from cause
    raise DeviceError(f"Your IBM account has no backend {name!r}{_nearest(name, known)}")


def _plain(name: str) -> str:
    """One form of the class names and the backend names of fakes: FakeManilaV2 and fake_manila are fakemanila."""
    return name.lower().replace("_", "").removesuffix("v2")


def _nearest(name: str, known: dict[str, str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {known[near[0]]!r}?" if near else f". Known: {', '.join(sorted(known.values())) or 'none'}."

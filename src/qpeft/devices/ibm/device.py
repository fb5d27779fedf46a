"""IBM's quantum computers and Qiskit's simulators of them, through Qiskit's sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from qpeft.circuits import GATES, Circuit
from qpeft.devices.ibm.jobs import LocalJobs, ServiceJobs
from qpeft.devices.ibm.service import find_token, is_local, local_backend, noise_model, open_service, remote_backend
from qpeft.devices.ibm.translation import Translator
from qpeft.devices.protocol import AbstractDevice, Capabilities, Distribution, JobStatus, check_request
from qpeft.devices.secrets import redacted
from qpeft.errors import DeviceError, RefusedError
from qpeft.simulation.noise import NoiseModel

MAX_EXECUTIONS = 10_000_000
"""Circuits times shots that the service takes in one job, by IBM's guide "Job limits"; what backends list as
`max_shots` and `max_experiments` is, by the same page, no longer enforced. Simulators are held to it as well."""


class IbmDevice(AbstractDevice):
    """A backend of IBM's service, or a simulator by Qiskit, by name.

    Args:
        backend: "ibm_..." for a machine of the service; "aer" for a perfect simulator; "FakeTorino" and its like for a
            simulator with the errors that a machine once had.
        instance: name or CRN of the instance that pays; None to let the service choose.
        max_circuits: per job, which bounds shots to 10,000,000 / max_circuits in full jobs.
        optimization_level: of Qiskit's transpiler, 0 to 3.
        qubits: of the backend, for the circuit's qubits in their order; None to let Qiskit choose.
        seed: of a simulator's samples; None for others each time.
        options: of Qiskit's SamplerV2, nested, such as {"dynamical_decoupling": {"enable": True}}.

    The key comes from the environment (QPEFT_IBM_TOKEN), the keyring, or the account that Qiskit has saved.
    Raises: CredentialsError without an account; DeviceError if Qiskit is missing or the backend unknown.
    """

    def __init__(
        self,
        *,
        backend: str,
        instance: str | None = None,
        max_circuits: int = 1000,
        optimization_level: int = 2,
        qubits: Sequence[int] | None = None,
        seed: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if max_circuits < 1 or not 0 <= optimization_level <= 3:
            raise DeviceError(
                "max_circuits is at least 1 and optimization_level from 0 to 3; "
                f"got {max_circuits} and {optimization_level}."
            )
        try:
            for package in ("qiskit", "qiskit_aer", "qiskit_ibm_runtime"):
                import_module(package)
        except ImportError as error:
            raise DeviceError(
                f"Qiskit is not installed as it should be ({error}): pip install 'qpeft[ibm]'."
            ) from error
        self._is_local, self._max_circuits = is_local(backend), max_circuits
        self._optimization_level, self._qubits = optimization_level, qubits
        self._secrets: list[object] = []
        self._jobs: LocalJobs | ServiceJobs
        if self._is_local:
            self._backend = local_backend(backend)
            self._jobs = LocalJobs(self._backend, options or {}, seed=seed)
        else:
            service = open_service(instance)
            # The key of the saved account is not ours, but the vendor's errors may print it all the same.
            self._secrets = [find_token(), (service.active_account() or {}).get("token")]
            self._backend = remote_backend(service, backend, self._secrets)
            self._jobs = ServiceJobs(service, self._backend, options or {}, secrets=self._secrets)
        self._translator = Translator(self._backend, optimization_level=optimization_level, qubits=qubits)

    def capabilities(self) -> Capabilities:
        """Return what the backend can do: all gates; samples only."""
        return Capabilities(
            name="ibm",
            num_qubits=self._backend.num_qubits,
            gate_names=frozenset(GATES),
            max_shots=MAX_EXECUTIONS,
            max_circuits=self._max_circuits,
            can_be_exact=False,
            is_remote=not self._is_local,
            keeps_jobs=not self._is_local,
            simplifies_circuits=self._optimization_level > 0,
            chooses_qubits=self._qubits is None,
        )

    def submit(self, circuits: Sequence[Circuit], shots: int | None, *, ticket: str | None = None) -> str:
        """Prepare the circuits and send them as one job, tagged with the ticket.

        Args:
            circuits: bound, one or more.
            shots: per circuit.
            ticket: becomes a tag, by which the job is found again.

        Raises: as `check_request`; RefusedError if they cannot be prepared or are too many samples; as the service.
        """
        shots = check_request(self.capabilities(), circuits, shots)
        assert shots is not None  # `check_request` has refused exact values
        if len(circuits) * shots > MAX_EXECUTIONS:
            raise RefusedError(
                f"A job is at most {MAX_EXECUTIONS:,} samples; got {len(circuits):,} circuits of {shots:,} shots. "
                f"Make the device with max_circuits={max(1, MAX_EXECUTIONS // shots)}."
            )
        return self._jobs.submit(self._translator.pubs(circuits), shots, ticket)

    def find_job(self, ticket: str) -> str | None:
        """Return the id of the job with this ticket. Raises: JobError on simulators, and if the service lists none."""
        return self._jobs.find(ticket) if isinstance(self._jobs, ServiceJobs) else super().find_job(ticket)

    def poll(self, job_id: str) -> JobStatus:
        """Return the state of a job; a simulator runs it here. Raises: JobError if it is unknown."""
        return self._jobs.poll(job_id)

    def fetch(self, job_id: str) -> list[Distribution]:
        """Return the results of a job. Raises: JobError if it is not finished; DeviceError if they cannot be read."""
        return self._jobs.fetch(job_id)

    def cancel(self, job_id: str) -> None:
        """Stop a job if it can still be stopped; nothing happens if it is over."""
        self._jobs.cancel(job_id)

    def calibration(self) -> NoiseModel | None:
        """Return the latest, by qubits of the chip; None for "aer". Circuits sent from now on are laid out by it.

        Raises: DeviceError if it cannot be had.
        """
        try:
            if not self._is_local:
                # A new calibration may name other good qubits, so circuits prepared for the old one are forgotten.
                self._backend.refresh()
                self._translator.forget()
            properties = self._backend.properties()
        except Exception as error:
            text, cause = redacted(error, self._secrets)
            raise DeviceError(f"IBM's service gives no calibration of {self._backend.name}: {text}") from cause
        return noise_model(self._backend.target, properties)

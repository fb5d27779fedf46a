"""Jobs on simulators of this machine: in memory, run when they are first asked about."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qpeft.devices.ibm.sampling import start
from qpeft.devices.ibm.translation import distributions
from qpeft.devices.memory_jobs import MemoryJobs

if TYPE_CHECKING:
    from qiskit.providers import BackendV2

SEED_STRIDE = 1_000_003
"""Between the seeds of two devices, so that their jobs seldom share samples."""


class LocalJobs(MemoryJobs):
    """Simulated jobs; samples are a function of the seed and the number of the job.

    Args:
        backend: a simulator.
        options: of the sampler.
        seed: of the samples; None for others each time.
    """

    def __init__(self, backend: BackendV2, options: Mapping[str, Any], *, seed: int | None) -> None:
        super().__init__("ibm")
        self._backend, self._options = backend, options
        self._seeds = itertools.count(secrets.randbits(30) if seed is None else seed * SEED_STRIDE)

    def submit(self, pubs: Sequence[tuple[Any, ...]], shots: int, ticket: str | None) -> str:  # noqa: ARG002
        """Keep a job for its first poll."""
        # From 1: the simulator takes 0 for no seed.
        seed = next(self._seeds) % (2**31 - 1) + 1
        options = {**self._options, "simulator": {**self._options.get("simulator", {}), "seed_simulator": seed}}
        return self.add(lambda: distributions(start(self._backend, pubs, shots, options).result()) if pubs else [])

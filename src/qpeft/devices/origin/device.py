"""A chip of Origin's cloud as a device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from qpeft.circuits import GATES, Circuit
from qpeft.circuits.origin_ir import to_origin_ir
from qpeft.devices.origin.address import DEFAULT_URL, checked_url, is_loopback
from qpeft.devices.origin.chip import Chip, chip_from, noise_model_of
from qpeft.devices.origin.cloud import Cloud
from qpeft.devices.origin.layout import Contents, split_id, suffix_of
from qpeft.devices.origin.listing import SECONDS_PER_ANSWER, chips_of
from qpeft.devices.origin.outbox import Outbox, default_folder
from qpeft.devices.origin.replies import distributions_of, status_of, task_of
from qpeft.devices.protocol import AbstractDevice, Capabilities, Distribution, JobState, JobStatus, check_request
from qpeft.errors import CredentialsError, DeviceError, JobError, RefusedError
from qpeft.simulation.noise import NoiseModel

MAX_PROGRAMS = 200
"""In one job, as the vendor states; the client does not check it."""
MAX_SHOTS = 100_000
"""Our own guard against a typing error; the vendor states no limit."""
SECONDS_ONLINE = 30.0
"""For how long the word of the cloud is taken that a chip is online."""
ALIASES = {"origin_wukong": "72"}
"""Names that the client replaces by others, under which the chip is listed."""


class OriginDevice(AbstractDevice):
    """A chip of Origin's cloud. The key comes from the environment (QPEFT_ORIGIN_KEY) or the keyring, never from here.

    Args:
        chip: name as `qpeft devices chips` lists it.
        url: of the cloud; https, or http on this machine.
        amend: let the cloud correct readout errors of the shares.
        mapping: let the cloud choose qubits and insert SWAPs; without, qubit k of a circuit is qubit k of the chip.
        optimization: let the cloud simplify circuits.
        block: qubits of the chip that mapping may use; empty for all.
        outbox: folder with a note on every submission; by default beside the journal.
        seconds_per_answer: after which a request counts as lost; the client itself gives up after 60 s, or 180 s where
            it tries three times.

    Raises: DeviceError for an address that is none or not encrypted.
    """

    def __init__(
        self,
        *,
        chip: str,
        url: str = DEFAULT_URL,
        amend: bool = True,
        mapping: bool = True,
        optimization: bool = True,
        block: Sequence[int] = (),
        outbox: str | None = None,
        seconds_per_answer: float = SECONDS_PER_ANSWER,
    ) -> None:
        self._url, self._chip_name = checked_url(url), chip
        self._options = {"amend": amend, "mapping": mapping, "optimization": optimization, "block": list(block)}
        self._outbox = Outbox(default_folder() if outbox is None else Path(outbox))
        self._cloud = Cloud(self._url, seconds_per_answer)
        self._chip: Chip | None = None
        self._seen_online = -SECONDS_ONLINE
        self._cancelled: set[str] = set()

    def capabilities(self) -> Capabilities:
        """All gates, on as many qubits as were alive when the cloud was first asked."""
        return Capabilities(
            name="origin",
            num_qubits=len(self._known_chip().qubits),
            gate_names=frozenset(GATES),
            max_shots=MAX_SHOTS,
            max_circuits=MAX_PROGRAMS,
            can_be_exact=False,
            is_remote=not is_loopback(self._url),
        )

    def submit(self, circuits: Sequence[Circuit], shots: int | None, *, ticket: str | None = None) -> str:
        """Send one job.

        Raises: as the base class. What is found before anything is sent is a RefusedError or a CredentialsError, but
            for shots and circuits that no chip takes, which `check_request` tells.
        """
        if ticket is not None:
            self._outbox.prepare(ticket)
        try:
            check_request(self.capabilities(), circuits, shots)
            self._check_online()
        except Exception as error:
            if ticket is not None:
                self._outbox.refuse(ticket, str(error))
            raise
        contents = [Contents(circuit.num_qubits) for circuit in circuits]
        arguments = {
            "chip": self._chip_name,
            "programs": [to_origin_ir(circuit) for circuit in circuits],
            "shots": shots,
            "options": self._options,
            "suffix": suffix_of(contents),
        }

        def hand_over(pid: int, started: float) -> Path | None:
            if ticket is None:
                return None
            self._outbox.hand_over(ticket, pid, started)
            return self._outbox.path(ticket)

        return self._cloud.submit(arguments, hand_over)

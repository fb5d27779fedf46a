"""Circuits through a device by way of the journal: what was paid for once is never sent again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from qpeft.circuits import Circuit
from qpeft.devices.budget import Budget
from qpeft.devices.completion import Completion
from qpeft.devices.journal import Journal, Request
from qpeft.devices.journal.hashing import hash_calibration
from qpeft.devices.protocol import AbstractDevice, CallKey, Distribution, check_request, device_shots
from qpeft.errors import DeviceError, JournalError

NO_LIMITS = Budget()


class JournalledRunner:
    """Runs the calls of one run; safe to interrupt at any moment and to resume in any process with the same journal.

        results = runner(device, circuits, shots, key=CallKey("layers.29.v_proj", step=3, call=0))

    Equal circuits of one call are sent once. A key that was answered before is answered from the journal; one that was
    interrupted goes on where it stopped. A batch that failed or was cancelled is asked about once more, and then sent
    again, when its call is made again.

    Args:
        journal: where everything is written down.
        run_id: of the run that pays; the same after a resume.
        budget: limits of the run, held against what the journal says it has spent.
        options: of the device, as in the recipe, and no secrets: they tell results apart, and `qpeft jobs` opens the
            device with them.
        seconds_between_polls: longest pause between questions to the device; it starts shorter.
        cache: take results of equal circuits from other calls and runs, if device, options, shots and calibration are
            the same. Off by default: what should be independent samples would be the same ones.
        seconds_per_calibration: with `cache`, for how long the device's word about its calibration is taken.
    """

    def __init__(
        self,
        journal: Journal,
        run_id: str,
        *,
        budget: Budget = NO_LIMITS,
        options: Mapping[str, object] | None = None,
        seconds_between_polls: float = 1.0,
        cache: bool = False,
        seconds_per_calibration: float = 300.0,
    ) -> None:
        self._journal, self._run_id, self._budget = journal, run_id, budget
        self._options = dict(options or {})
        self._longest_pause = seconds_between_polls
        self._cache, self._seconds_per_calibration = cache, seconds_per_calibration
        self._calibrations: dict[AbstractDevice, tuple[float, str]] = {}
        self._sent_to: dict[int, AbstractDevice] = {}

    def __call__(
        self, device: AbstractDevice, circuits: Sequence[Circuit], shots: int | None, *, key: CallKey
    ) -> list[Distribution]:
        """Run the circuits, or answer from the journal.

        Args:
            device: that runs them.
            circuits: bound; as many as there are, since they are split into jobs here.
            shots: per circuit; None for exact.
            key: names the call within the run.

        Returns:
            One distribution per circuit, in their order.

        Raises:
            ShotsError: the device takes no such number of shots; nothing was sent.
            BudgetError: what is left of the call does not fit into the budget; nothing more was sent.
            JobError: a job failed, was cancelled or is lost; results of the other batches are kept.
            JournalError: the key came with other circuits before, the user must settle a batch, or the file fails.
            DeviceError: the device cannot run these circuits, or its results do not fit them.
        """
        capabilities = device.capabilities()
        request = Request.of(capabilities.name, self._options, circuits, device_shots(capabilities, shots))
        call_id = self._journal.find(self._run_id, key, request)
        if call_id is None:
            call_id = self._plan(device, circuits, request, key)
        batches = self._journal.unfinished(call_id)
        if batches:
            completion = Completion(self._journal, device, request, self._budget, self._longest_pause, self._sent_to)
            completion.run(batches)
        results = self._journal.results(call_id)
        if len(results) != len(circuits):
            raise JournalError(
                f"The journal {self._journal.path} has {len(results)} results for {len(circuits)} circuits ({key})."
            )
        return results

    def _plan(self, device: AbstractDevice, circuits: Sequence[Circuit], request: Request, key: CallKey) -> int:
        capabilities = device.capabilities()
        check_request(replace(capabilities, max_circuits=None), circuits, request.shots)
        size = capabilities.circuits_per_job or max(1, len(circuits))
        calibration = self._calibration(device) if self._cache else None
        return self._journal.plan(self._run_id, key, request, size, calibration, marked=capabilities.answers_by_place)

    def _calibration(self, device: AbstractDevice) -> str:
        known = self._calibrations.get(device)
        if known is None or time.monotonic() - known[0] > self._seconds_per_calibration:
            found = hash_calibration(device.calibration())
            if found is None:
                raise DeviceError(
                    f"{device.capabilities().name} has no calibration, so nobody can tell for how long its results "
                    "hold; use it with cache=False."
                )
            self._calibrations[device] = known = (time.monotonic(), found)
        return known[1]

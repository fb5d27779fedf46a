"""The cloud's replies about a job, as our states and distributions. Bit order changes here, and nowhere else.

Its keys have classical bit 0, our qubit 0, on the right; ours have it on the left.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from qpeft.devices.origin.outbox import Contents
from qpeft.devices.origin.worker import ABOUT_KEYS
from qpeft.devices.protocol import Distribution, JobState, JobStatus
from qpeft.errors import CredentialsError, DeviceError, JobError, OrderError

STATES = {
    "1": JobState.WAITING,
    "5": JobState.WAITING,
    "2": JobState.RUNNING,
    "3": JobState.FINISHED,
    "4": JobState.FAILED,
    # Steps of compilation that the vendor's older client lists; pyqpanda3 calls them failures.
    "6": JobState.RUNNING,
    "9": JobState.RUNNING,
    "7": JobState.FAILED,
    "8": JobState.FAILED,
}
CANCELLED_WORDS = re.compile(r"cancel|取消", re.IGNORECASE)
ROUNDING = 1e-6
"""By which one share may differ between two answers."""
_KEY = re.compile(r"0x[0-9a-fA-F]+|[01]+")


def task_of(reply: Mapping[str, Any], job_id: str) -> dict[str, Any]:
    """Return what the reply says of the task of this id, the cloud's own.

    Raises: CredentialsError if the cloud refuses the key; JobError if it tells nothing of the job; DeviceError if it
        answers about another.
    """
    if reply.get("success") is not True:
        said = reply.get("message") or "no reason"
        if ABOUT_KEYS.search(str(said)):
            raise CredentialsError(f"Origin's cloud refuses the key, asked about job {job_id}: {said}")
        raise JobError(f"Origin's cloud tells nothing about job {job_id}: {said}")
    task = reply.get("obj")
    if not isinstance(task, dict):
        raise JobError(f"Origin's cloud answered about job {job_id} without saying anything of it.")
    if str(task.get("taskId") or job_id).lower() != job_id.lower():
        raise DeviceError(f"Origin's cloud was asked about job {job_id} and answered about {task['taskId']!r}.")
    return task


def status_of(task: Mapping[str, Any], job_id: str, *, was_cancelled: bool) -> JobStatus:
    """Return the state of a task.

    Args:
        task: as the cloud describes it.
        job_id: of the task, for the error.
        was_cancelled: whether the cloud has accepted that it be stopped.

    Raises: DeviceError for a state that nobody here knows; the job may still be alive.
    """
    code = str(task.get("taskState"))
    if code not in STATES:
        raise DeviceError(f"Job {job_id} is in state {code!r}, which this version does not know; ask again later.")
    message = str(task.get("errInfo") or "")
    if STATES[code] is JobState.FAILED and (was_cancelled or CANCELLED_WORDS.search(message)):
        return JobStatus(JobState.CANCELLED, message)
    return JobStatus(STATES[code], message)


def distributions_of(task: Mapping[str, Any], job_id: str, programs: Sequence[Contents] | None) -> list[Distribution]:
    """Return one distribution per circuit, in the order of the circuits.

    Args:
        task: finished.
        programs: what was sent; None if that is not known, then each program counts as one circuit.

    Raises: DeviceError if results are missing, too many, or not of the sizes that were sent.
    """
    tables, sizes = task.get("taskResult"), task.get("measureQubitSize")
    if not isinstance(tables, list) or not all(isinstance(table, str) for table in tables):
        raise DeviceError(f"Job {job_id} is finished, but its results are no list of tables.")
    if programs is None:
        if not isinstance(sizes, list):
            raise DeviceError(
                f"Job {job_id} does not say how many qubits its programs measure; add a layout: ID@4x200."
            )
        programs = [Contents(int(size)) for size in sizes]
    if len(tables) != len(programs):
        raise DeviceError(
            f"Job {job_id}: {len(programs)} programs were sent and {len(tables)} results came back; none is used."
        )
    # A list that was reordered shows itself where sizes differ; between equal sizes markers have to tell.
    if sizes and [int(size) for size in sizes] != [contents.num_bits for contents in programs]:
        raise DeviceError(f"Job {job_id}: results are of {sizes} bits, not of those that were sent; none is used.")
    found: list[Distribution] = []
    for number, (table, contents) in enumerate(zip(tables, programs, strict=True)):
        shares, size = _shares(table, contents.num_bits, f"Result {number} of job {job_id}"), contents.num_qubits
        # Circuit k of a program has the bits from k * size on; its distribution is the marginal over all other bits.
        for circuit in range(contents.num_circuits):
            marginal: defaultdict[int, float] = defaultdict(float)
            for value, share in shares.items():
                marginal[value >> circuit * size & (1 << size) - 1] += share
            # The cloud's text has classical bit 0, our qubit 0, on the right; ours has it on the left.
            found.append({f"{value:0{size}b}"[::-1]: share for value, share in marginal.items()})
    return found


def check_same(first: Sequence[Distribution], second: Sequence[Distribution], job_id: str) -> None:
    """Args:
        first: results of one answer, one per circuit.
        second: those of another answer about the same job.
        job_id: of the job, for the error.

    Raises: OrderError if two answers about one job do not say the same, with both in it.
    """
    if len(first) != len(second):  # without a layout, a reply alone says how many there are
        raise OrderError(
            f"The cloud was asked twice about job {job_id} and gave {len(first)} and {len(second)} results.",
            [list(first), list(second)],
        )
    different = [place for place, pair in enumerate(zip(first, second, strict=True)) if not _are_equal(*pair)]
    if not different:
        return
    moved = sum(any(_are_equal(first[place], other) for other in second) for place in different)
    what = "the same results in another order" if moved == len(different) else "different results"
    raise OrderError(
        f"The cloud was asked twice about job {job_id} and gave {what}: {len(different)} of {len(first)} differ, the "
        f"first of them at place {different[0]}, and nothing says which answer is right.",
        [list(first), list(second)],
    )


def _are_equal(first: Distribution, second: Distribution) -> bool:
    # Shares that the cloud corrects may be computed anew for each answer, in another order of sums.
    return all(abs(first.get(bits, 0.0) - second.get(bits, 0.0)) <= ROUNDING for bits in {*first, *second})


def _shares(text: str, num_bits: int, name: str) -> dict[int, float]:
    """Return shares by integer key, bit k of which is classical bit k."""
    try:
        table = json.loads(text)
        pairs = list(zip(table["key"], table["value"], strict=True))
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"{name} is no table of keys and values: {text[:80]!r}.") from error
    shares: dict[int, float] = {}
    for key, share in pairs:
        if not isinstance(key, str) or not _KEY.fullmatch(key) or not isinstance(share, (int, float)):
            raise DeviceError(f"{name} has the entry {key!r}: {share!r}, which is no bit string with a share.")
        # Hexadecimal as the cloud sends them; the padded binary that the vendor's client prints is read as well.
        value = int(key, 16) if key.startswith("0x") else int(key, 2)
        if value >= 2**num_bits or value in shares:
            raise DeviceError(
                f"{name} has the key {key!r}, twice or of more than the {num_bits} bits that were measured."
            )
        shares[value] = float(share)
    return shares

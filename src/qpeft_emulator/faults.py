"""Faults on request: what a bad day of a cloud looks like, switched on from outside."""

from __future__ import annotations

import threading
from itertools import zip_longest
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from qpeft.simulation.noise import SampleKey
from qpeft.simulation.noise.counter import Stream

Kind = Literal["status", "drop", "delay", "refuse", "wrong_key", "spoil", "exit", "short", "reorder", "fail_job"]
Endpoint = Literal["any", "submit", "detail", "cancel", "chip", "blocks", "resources"]
Order = Literal["reverse", "rotate", "halves", "interleave", "shuffle"]
RESULT_KINDS = ("short", "reorder")
ANSWER_KINDS = ("status", "drop", "delay", "refuse", "wrong_key", "spoil", "exit")


class Fault(BaseModel):
    """One fault.

    Attributes:
        kind: status: answers with an HTTP error; drop: closes the connection without an answer; delay: answers late;
            refuse: answers success false; wrong_key: answers as if the key were wrong; spoil: answers half of the JSON;
            exit: ends the emulator at once, as a crash does; short: leaves out the last result of a finished job;
            reorder: gives its results in another order; fail_job: a job sent now will fail.
        endpoint: which requests it meets; those of results and of failed jobs know theirs.
        after: whether the request has its effect before the fault: with `submit`, a job exists then.
        times: requests that it meets before it is gone; None for all.
        skip: requests that it lets pass first.
        probability: of meeting a request, drawn anew for each.
        status: of HTTP, for `status`; 429 for a rate limit.
        seconds: for `delay`.
        message: for `refuse`, `fail_job` and the body of `status`.
        order: of `reorder`, the same in every reply about one job: turned round, moved on by one, its halves swapped,
            one from each half in turn, or drawn.
        replies: of `short` and `reorder`, all with results, or all but the first of each job: a client that asks
            whether a job is finished and then for its results is told the truth first.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Kind
    endpoint: Endpoint = "any"
    after: bool = False
    times: Annotated[int, Field(ge=1)] | None = 1
    skip: Annotated[int, Field(ge=0)] = 0
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    status: Annotated[int, Field(ge=400, le=599)] = 503
    seconds: Annotated[float, Field(ge=0, le=3600)] = 1.0
    message: str = "a fault that was asked for"
    order: Order = "reverse"
    replies: Literal["all", "later"] = "all"


class Faults:
    """Faults that wait. Safe to share between threads."""

    def __init__(self, seed: int, faults: list[Fault] | None = None) -> None:
        self._faults = list(faults or [])
        self._lock = threading.Lock()
        self._draws = Stream(SampleKey(seed, module="faults"))

    def add(self, fault: Fault) -> None:
        """Put one more behind those that wait."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._faults.clear()

    def waiting(self) -> list[Fault]:
        """Return what has not happened yet."""
        with self._lock:
            return [fault.model_copy() for fault in self._faults]

    def take(self, endpoint: str, kinds: tuple[str, ...], *, is_first: bool = False) -> Fault | None:
        """Return the first fault of these kinds that meets this request, and count it down; None for no fault.

        Args:
            endpoint: that was asked.
            kinds: that can happen here.
            is_first: whether it is the first reply with results of its job.
        """
        with self._lock:
            for fault in self._faults:
                is_meant = fault.endpoint in ("any", endpoint) and not (is_first and fault.replies == "later")
                if fault.kind not in kinds or not is_meant:
                    continue
                # Requests that are let pass are counted only where the fault could have met them.
                if fault.skip:
                    fault.skip -= 1
                # No number is drawn for a fault that is certain, so adding one does not move the draws of others.
                elif fault.probability >= 1 or float(self._draws.uniforms(1)) < fault.probability:
                    if fault.times is not None:
                        fault.times -= 1
                        self._faults = [other for other in self._faults if other.times != 0]
                    return fault
        return None


def places(order: Order, job_id: str, total: int) -> list[int]:
    """Return which result stands at each place of a list, (total,); a draw depends on the job alone.

    Args:
        order: how results are mixed up.
        job_id: that the draw depends on.
        total: results of the job.
    """
    match order:
        case "reverse":
            return list(range(total))[::-1]
        case "rotate":
            return [*range(1, total), *range(min(1, total))]
        case "halves":
            return [*range(total // 2, total), *range(total // 2)]
        case "interleave":
            return [
                place
                for pair in zip_longest(range((total + 1) // 2), range((total + 1) // 2, total))
                for place in pair
                if place is not None
            ]
        case "shuffle":
            drawn: list[int] = Stream(SampleKey(0, module=f"order {job_id}")).uniforms(total).argsort().tolist()
            return drawn

"""Limits on what a run may spend on a device, and the sums that they are held against."""

from __future__ import annotations

from dataclasses import dataclass, fields

from qpeft.errors import BudgetError


@dataclass(frozen=True)
class Cost:
    """What is paid for.

    Attributes:
        circuits: sent to a device; each once, however many places of a call its result fills.
        shots: over all these circuits; exact evaluations have none.
        seconds: that a run spent with the device: submitting, waiting (also in the queue) and fetching.
    """

    circuits: int = 0
    shots: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.circuits + other.circuits, self.shots + other.shots, self.seconds + other.seconds)

    def __str__(self) -> str:
        return f"{self.circuits:,} circuits, {self.shots:,} shots, {self.seconds:,.0f} seconds"


@dataclass(frozen=True)
class Budget:
    """The most that a run may spend; None for no limit.

    Limits on circuits and shots are never exceeded; `max_seconds` stops the first submission after it was used up.

    Raises: BudgetError if a limit is negative or not a number.
    """

    max_circuits: int | None = None
    max_shots: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            # `not limit >= 0` also catches NaN; true would be a limit of 1.
            is_number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
            if limit is not None and not (is_number and limit >= 0):
                raise BudgetError(f"{field.name} must be a number of at least 0, or None for no limit; got {limit!r}.")

    def check(self, spent: Cost, asked: Cost) -> None:
        """Raise BudgetError if `asked` does not fit beside `spent`, saying what is spent, asked and left."""
        problems = []
        for unit in ("circuits", "shots"):
            limit, used, wanted = getattr(self, f"max_{unit}"), getattr(spent, unit), getattr(asked, unit)
            # Before the submission: what is sent is paid for, whatever comes of it.
            if limit is not None and used + wanted > limit:
                problems.append(
                    f"max_{unit}={limit:,}: {used:,} spent, {wanted:,} asked, {max(0, limit - used):,} left"
                )
        # How long a job takes is known afterwards, so seconds can only be used up.
        if self.max_seconds is not None and spent.seconds >= self.max_seconds:
            problems.append(f"max_seconds={self.max_seconds:,}: {spent.seconds:,.2f} spent, 0 left")
        if problems:
            raise BudgetError(
                f"The budget does not allow the next submission ({'; '.join(problems)}). It was not sent. "
                "Raise the limit and resume: what is paid for is kept."
            )

"""`qpeft jobs`: what was sent to quantum devices, and what to do about what did not come back."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from qpeft_cli.terminal import plain_console

if TYPE_CHECKING:
    from qpeft.devices import AbstractDevice
    from qpeft.devices.journal import Batch, Journal

jobs = typer.Typer(
    help="Look at and settle what was sent to quantum devices.", no_args_is_help=True, rich_markup_mode=None
)
JournalFile = Annotated[
    Path | None, typer.Option("--journal", help="Journal file; by default journal.sqlite in your data folder.")
]
Number = Annotated[int, typer.Argument(metavar="BATCH", help="Number of the batch, as `qpeft jobs list` shows it.")]
Run = Annotated[str | None, typer.Option(help="Only this run.")]
State = Literal["planned", "intended", "submitted", "finished", "failed", "cancelled", "lost"]
"""Values of `BatchState`, whose import takes seconds."""


@jobs.command(name="list")
def list_batches(
    journal: JournalFile = None,
    run: Run = None,
    state: Annotated[State | None, typer.Option(help="Only batches in this state.")] = None,
) -> None:
    """List batches: number, run, call, device, circuits, shots, state, job id."""
    from qpeft.devices.journal import BatchState

    table = Table(
        "batch", "run", "step", "module", "call", "part", "device", "circuits", "shots", "state", "job", "changed"
    )
    for batch in _open(journal).batches(run=run, state=None if state is None else BatchState(state)):
        table.add_row(
            *map(str, (batch.number, batch.run, batch.key.step, batch.key.module, batch.key.call, batch.key.part)),
            batch.device,
            str(batch.num_circuits),
            _shots(batch),
            batch.state.value,
            batch.job_id or "",
            _time(batch.changed_at),
        )
    plain_console(for_tables=True).print(table)


@jobs.command()
def show(number: Number, journal: JournalFile = None) -> None:
    """Show one batch and everything that happened to it."""
    from qpeft.devices.journal.reports import history, rejected

    opened, console = _open(journal), plain_console(for_tables=True)
    batch = opened.batch(number)
    console.print(f"{batch}: {batch.state.value}")
    console.print(f"shots {_shots(batch)}, options {batch.options}, hash {batch.hash}")
    # Circuits among the others whose outcome is certain: they show a device that returns results in another order.
    if markers := opened.markers(batch):
        places = ", ".join(map(str, markers))
        console.print(f"{len(markers)} of the circuits have a known outcome, which shows the order: at places {places}")
    table = Table("when", "state", "job", "message")
    for change in history(opened, batch):
        table.add_row(_time(change.at), change.state, change.job_id or "", change.message)
    console.print(table)
    for one in rejected(opened, batch=batch):
        console.print(f"not used, see `qpeft jobs export --rejected`: what came by {_time(one['at'])}. {one['reason']}")


@jobs.command()
def settle(
    number: Number,
    journal: JournalFile = None,
    resubmit: Annotated[bool, typer.Option("--resubmit", help="Send it again when its run is resumed.")] = False,
    lost: Annotated[bool, typer.Option("--lost", help="Give its results up; its run cannot pass this call.")] = False,
    job: Annotated[str | None, typer.Option(help="The device has it under this job id: fetch it on resume.")] = None,
) -> None:
    """Decide about a batch of which nobody can tell whether the device accepted it, or whose job is gone."""
    from qpeft.devices.journal import BatchState
    from qpeft.errors import JournalError

    # An empty id, as from an unset variable of a shell, must not count as a job.
    if [resubmit, lost, job is not None].count(True) != 1 or (job is not None and not job.strip()):
        raise JournalError("Say exactly one of --resubmit, --lost and --job ID.")
    # A batch that is planned is sent by its run, when that is resumed.
    state = BatchState.SUBMITTED if job else BatchState.PLANNED if resubmit else BatchState.LOST
    opened = _open(journal)
    opened.settle(opened.batch(number), state, message="settled by the user", job_id=job)
    plain_console(for_tables=True).print(f"Batch {number} is now {state.value}.")


@jobs.command()
def cancel(number: Number, journal: JournalFile = None) -> None:
    """Ask the device to stop a batch."""
    from qpeft.devices.journal import BatchState
    from qpeft.devices.queue import cancel as cancel_job
    from qpeft.errors import JournalError

    opened = _open(journal)
    batch = opened.batch(number)
    if batch.state is not BatchState.SUBMITTED:
        raise JournalError(f"{batch} is {batch.state.value}; only what is at a device can be cancelled.")
    # The device may have finished it meanwhile: what it says is what holds.
    status = cancel_job(opened, _device(batch.device, batch.options), batch)
    plain_console(for_tables=True).print(
        f"Batch {number}: the device says {status.state.value}. {status.message}".rstrip()
    )


@jobs.command()
def resume(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[BATCH]...", help="By default all at a device.")
    ] = None,
    journal: JournalFile = None,
    run: Run = None,
) -> None:
    """Fetch results of batches that are at a device, without the run that sent them. Nothing is sent."""
    from qpeft.devices.journal import BatchState
    from qpeft.devices.queue import collect
    from qpeft.errors import JobError, JournalError, QpeftError

    opened, console = _open(journal), plain_console(for_tables=True)
    # Only what a device has: whether an intended batch arrived is for `settle` to say.
    waiting = opened.batches(run=run, state=BatchState.SUBMITTED)
    chosen = waiting if not numbers else [opened.batch(number) for number in numbers]
    if not chosen:
        console.print("No batch is at a device.")
    failed = 0
    for batch in chosen:
        # One that fails must not hide the others.
        try:
            if batch.state is not BatchState.SUBMITTED:
                raise JournalError(f"{batch} is {batch.state.value}, so no device has it.")
            console.print(
                f"batch {batch.number}: {collect(opened, _device(batch.device, batch.options), batch).state.value}"
            )
        except QpeftError as error:  # noqa: PERF203
            console.print(f"batch {batch.number}: {error}")
            failed += 1
    if failed:
        raise JobError(f"{failed} of {len(chosen)} batches could not be asked about; see above.")


@jobs.command()
def export(
    journal: JournalFile = None,
    run: Run = None,
    output: Annotated[Path | None, typer.Option(help="File to write; by default standard output.")] = None,
    unused: Annotated[
        bool, typer.Option("--rejected", help="Instead, what came back in an order that cannot be trusted.")
    ] = False,
) -> None:
    """Write every circuit of every call as a line of JSON, with its result where there is one."""
    from qpeft.devices.journal.reports import rejected, rows
    from qpeft.runs import write_atomically

    opened = _open(journal)
    lines = (json.dumps(row) + "\n" for row in (rejected(opened, run=run) if unused else rows(opened, run=run)))
    # Line by line to a pipe, since a journal may be larger than the memory.
    if output is None:
        sys.stdout.writelines(lines)
    else:
        write_atomically(output, "".join(lines))


@jobs.command(name="sum")
def sum_up(journal: JournalFile = None) -> None:
    """Circuits and shots per run and device, and seconds spent with it."""
    from qpeft.devices.journal.reports import spending

    table = Table("run", "device", "circuits", "shots", "seconds")
    for run, device, cost in spending(_open(journal)):
        table.add_row(run, device, f"{cost.circuits:,}", f"{cost.shots:,}", f"{cost.seconds:,.1f}")
    plain_console(for_tables=True).print(table)


def _open(path: Path | None) -> Journal:
    from qpeft.devices.journal import Journal, default_path

    # A mistyped path must not become a new, empty journal.
    return Journal(default_path() if path is None else path, create=False)


@cache
def _device(name: str, options: str) -> AbstractDevice:
    # Once for all batches: some devices start a process each time, or ask their cloud.
    from qpeft.devices.registry import load_device

    return load_device(name, **json.loads(options))


def _shots(batch: Batch) -> str:
    return "exact" if batch.shots is None else f"{batch.shots:,}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(sep=" ", timespec="seconds")

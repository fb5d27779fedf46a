"""`qpeft devices`."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer
from rich.table import Column, Table

from qpeft_cli.terminal import plain_console

devices = typer.Typer(help="Quantum computers, and what stands in for them.", no_args_is_help=True)


@devices.command()
def chips(
    url: Annotated[str | None, typer.Option(help="Address of the cloud; by default Origin's own.")] = None,
) -> None:
    """List the chips of Origin's cloud, with what is alive on each and median fidelities."""
    from qpeft.devices.origin import DEFAULT_URL, list_chips
    from qpeft.devices.origin.cloud import written

    table = Table(Column("chip", no_wrap=True), "online", "qubits", "couplers", "1-qubit gate", "CZ", "readout")
    for listed in list_chips(url or DEFAULT_URL):
        known = listed.chip
        # The cloud lists chips of which it gives no calibration.
        columns = ["", "", "", "", ""]
        if known is not None:
            alive = f"{len(known.qubits)} of {known.num_listed}"
            columns = [alive, str(len(known.edges)), *(f"{fidelity:.4f}" for fidelity in known.median_fidelities)]
        table.add_row(written(listed.name), "yes" if listed.is_online else "no", *columns)
    plain_console(for_tables=True).print(table)


@devices.command()
def emulator(
    port: Annotated[int, typer.Option(help="To listen on; 0 lets the system choose.", min=0, max=65535)] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the chip's calibration and of all outcomes.", min=0)] = 0,
    chip: Annotated[
        Literal["wukong", "clean", "perfect"],
        typer.Option(
            help="wukong: dead qubits, uneven, with hidden effects; clean: even noise as listed; perfect: none."
        ),
    ] = "wukong",
    api_key: Annotated[str, typer.Option(help="The only key that it takes.", envvar="QPEFT_EMULATOR_KEY")] = "emulator",
    store: Annotated[Path | None, typer.Option(help="SQLite file that keeps jobs over a restart.")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="Fault as JSON; also POST /emulator/faults.")] = None,
    seconds: Annotated[float, typer.Option(help="Seconds that a job takes at least.", min=0)] = 0.15,
    offline: Annotated[bool, typer.Option("--offline", help="List the chip as offline and take no jobs.")] = False,
) -> None:
    """Run a stand-in for the Origin cloud on this machine, until Ctrl-C."""
    import torch

    from qpeft_emulator.server import open_emulator

    torch.set_num_threads(1)  # circuits are small, and sums must not depend on the number of threads
    server = open_emulator(
        port=port,
        seed=seed,
        chip=chip,
        api_key=api_key,
        store=store,
        faults=fault or [],
        seconds=seconds,
        online=not offline,
    )

    def stop_serving(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    for stop in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background jobs inherit that it is ignored
        signal.signal(stop, stop_serving)
    print(f"Origin cloud emulator, chip {server.cloud.machine.chip.chip_id!r}: {server.url}", flush=True)
    try:
        server.serve_forever(poll_interval=0.05)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        server.server_close()
        server.cloud.close()

"""An emulator from its options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from qpeft.errors import DeviceError
from qpeft_emulator import chip as chips
from qpeft_emulator.cloud import EmulatedCloud, Timing
from qpeft_emulator.faults import Faults
from qpeft_emulator.machine import HiddenEffects, Machine
from qpeft_emulator.server import EmulatorServer, parse_fault
from qpeft_emulator.store import Store

ChipName = Literal["wukong", "clean", "perfect"]


def open_machine(name: ChipName, seed: int) -> Machine:
    """Return a chip with what it hides: only Wukong hides anything, and only Wukong depends on the seed."""
    if name == "wukong":
        chip = chips.wukong(seed)
        return Machine(chip, HiddenEffects.drawn(chip, seed))
    return Machine(chips.clean() if name == "clean" else chips.perfect())


def open_emulator(
    *,
    port: int = 0,
    seed: int = 0,
    chip: ChipName = "wukong",
    api_key: str = "emulator",
    store: Path | None = None,
    faults: Sequence[str] = (),
    seconds: float = 0.15,
    online: bool = True,
) -> EmulatorServer:
    """Return a server that listens; `serve_forever` makes it answer. The caller closes it, then its `cloud`.

    Args:
        port: of the loopback address; 0 lets the system choose.
        seed: of the chip, its hidden effects and all samples.
        chip: which one.
        api_key: that requests must have.
        store: file that keeps jobs; None to keep them in memory.
        faults: JSON texts, as for POST /emulator/faults.
        seconds: how long a job takes at least; a third of it each for waiting, queuing and computing.
        online: whether the chip takes jobs.

    Raises: DeviceError if the port or the file of the store cannot be used, or a fault cannot be read.
    """
    waiting = Faults(seed, [parse_fault(text) for text in faults])
    timing = Timing(seconds / 3, 2 * seconds / 3, seconds)
    cloud = EmulatedCloud(open_machine(chip, seed), seed, Store(store), timing, is_online=online)
    # The cloud has a thread and a file by now, which a port in use must not leave open.
    try:
        return EmulatorServer(port, cloud, waiting, api_key)
    except DeviceError:
        cloud.close()
        raise

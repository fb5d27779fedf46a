"""Whether a circuit fits into memory: said before anything is allocated, with the numbers."""

from __future__ import annotations

from functools import lru_cache

import psutil  # type: ignore[import-untyped]
import torch

from qpeft.circuits import Circuit
from qpeft.errors import SimulationError
from qpeft.simulation.compiler import compile_plan
from qpeft.simulation.plan import PhaseLayer

ALWAYS_FITS = 18
"""Up to this many qubits nothing is checked: a block of tokens and its tables take a few hundred megabytes at most."""
WORKING_COPIES = 16
"""State, costate and temporaries of a backward pass, in real numbers per basis state."""


@lru_cache(maxsize=64)
def bytes_needed(circuit: Circuit, itemsize: int) -> int:
    """Memory of one block of tokens and of the tables of the torch path, at its least: one token per block."""
    plan = compile_plan(circuit)
    # Per layer its state, real and imaginary, and the sign vectors of its phases.
    tables = sum(2 + (len(layer.terms) if isinstance(layer, PhaseLayer) else 4) for layer in plan.layers)
    tables += len(plan.terms)
    return (WORKING_COPIES + tables) * itemsize << circuit.num_qubits


def check_memory(circuit: Circuit, device: torch.device, dtype: torch.dtype) -> None:
    """Raises: SimulationError if the state of one token does not fit into what `device` has free."""
    if circuit.num_qubits <= ALWAYS_FITS:
        return
    needed, free = bytes_needed(circuit, max(4, dtype.itemsize)), bytes_free(device)
    if needed > free:
        largest = circuit.num_qubits - (needed // max(1, free)).bit_length()
        raise SimulationError(
            f"Simulating {circuit.num_qubits} qubits needs {needed / 2**30:,.1f} GiB; {device} has "
            f"{free / 2**30:,.1f} GiB free, enough for about {largest} qubits. Use fewer qubits, or several "
            "circuits side by side."
        )


def bytes_free(device: torch.device) -> int:
    """Free memory of the device; of the machine for the CPU and for devices that do not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)

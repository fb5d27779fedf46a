"""Random numbers that are a function of a key, not of a history: nothing to save, nothing that depends on threads.

The generator is Philox 4x64-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011) as numpy has it.
Its 128-bit key is (seed, module), its 256-bit counter starts at (0, stream, call, step), so different keys never share
a number: a stream would have to run for 2**64 blocks to reach the next. Numbers are drawn on the CPU: the same key
gives the same numbers on every device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qpeft.errors import SimulationError
from qpeft.simulation.checks import whole_number


@dataclass(frozen=True)
class SampleKey:
    """Names one use of randomness within a run.

    Attributes:
        seed: of the run.
        step: of the training.
        module: number or name of the module that samples.
        call: how many times this module has sampled before in this step.

    Raises: SimulationError if one is no whole number from 0 to 2**64 - 1.
    """

    seed: int
    step: int = 0
    module: int | str = 0
    call: int = 0

    def __post_init__(self) -> None:
        for name in ("seed", "step", "module", "call"):
            value = getattr(self, name)
            if name == "module" and isinstance(value, str):
                continue
            number = whole_number(value)
            if number is None or not 0 <= number < 2**64:
                raise SimulationError(f"SampleKey.{name} must be a whole number from 0 to 2**64 - 1; got {value!r}.")
            object.__setattr__(self, name, number)


class Stream:
    """Numbers of one key, in order. Streams of one key with different `index` are independent."""

    def __init__(self, key: SampleKey, index: int = 0) -> None:
        counter = np.array([0, index, key.call, key.step], dtype=np.uint64)
        words = np.array([key.seed, _number(key.module)], dtype=np.uint64)
        self._generator = np.random.Philox(counter=counter, key=words)

    def uniforms(self, *shape: int) -> Tensor:
        """Uniform float64 numbers strictly between 0 and 1: the middles of 2**52 equal intervals, (*shape)."""
        # Raw words, because numpy promises those for good, but not what its distributions make of them.
        words = self._generator.random_raw(int(np.prod(shape)))
        numbers: Tensor = torch.from_numpy(((words >> np.uint64(12)) + 0.5) * 2.0**-52)
        return numbers.reshape(shape)

    def normals(self, *shape: int) -> Tensor:
        """Standard normal float64 numbers, (*shape), by inversion."""
        numbers: Tensor = torch.special.ndtri(self.uniforms(*shape))
        return numbers


def _number(module: int | str) -> int:
    if isinstance(module, int):
        return module
    return int.from_bytes(hashlib.blake2b(module.encode(), digest_size=8).digest(), "little")

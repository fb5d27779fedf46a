"""What every method of error mitigation says: which circuits it sends, and how values are read from their results."""

from __future__ import annotations

from abc import ABC, abstractmethod

from qpeft.circuits import Operation
from qpeft.devices.mitigation.reading import Readout
from qpeft.devices.protocol import AbstractDevice, CallKey, Capabilities, Runner
from qpeft.errors import DeviceError


class AbstractMitigation(ABC):
    """A way to better values from a noisy device, for more circuits or more shots.

    Each circuit is sent in one or several versions, and a value is linear in their results: the sum over versions of
    weight times mean, over bit strings, of the product of the signs of the qubits read. A sign is +1 for bit 0 and -1
    for bit 1 as it comes, or with `readout` (sign - offset) / slope.
    """

    @property
    @abstractmethod
    def weights(self) -> tuple[float, ...]:
        """Weight of each version of a circuit, sum 1: as many circuits are sent in place of one."""

    @property
    @abstractmethod
    def num_calibration_circuits(self) -> int:
        """Circuits sent besides, once per number of qubits and not per call."""

    @abstractmethod
    def check(self, capabilities: Capabilities) -> None:
        """Raises: DeviceError if the device does something that spoils the method, saying how to switch it off."""

    @abstractmethod
    def versions(self, operations: tuple[Operation, ...]) -> tuple[tuple[Operation, ...], ...]:
        """What is sent in place of a bound circuit, in the order of `weights`."""

    @abstractmethod
    def readout(
        self, device: AbstractDevice, runner: Runner, key: CallKey, *, num_qubits: int, shots: int | None
    ) -> Readout | None:
        """How signs are read from the qubits of a circuit; None for as they come.

        Args:
            device: that the circuit runs on.
            runner: by which it is sent, and whatever has to be measured for this.
            key: of the call that wants to know.
            num_qubits: of the circuit.
            shots: of the call; None for exact values.

        Raises: what the runner raises.
        """


def check_suits(mitigation: object, capabilities: Capabilities) -> None:
    """Raises: DeviceError if this is neither None nor a mitigation, or one that the device spoils."""
    if mitigation is None:
        return
    if not isinstance(mitigation, AbstractMitigation):
        raise DeviceError(
            f"mitigation is an object such as ReadoutInversion() or ZeroNoise(), or None; got {mitigation!r}."
        )
    mitigation.check(capabilities)

"""Where circuits run that are not simulated here: quantum computers, and what stands in for one."""

from qpeft.devices.budget import Budget, Cost
from qpeft.devices.chip import Comparison, Preflight, compare, find_blocks, preflight, suggest
from qpeft.devices.estimator import (
    DeviceValues,
    backward_circuits,
    device_expectations,
    device_gradients,
    forward_circuits,
)
from qpeft.devices.gradients import DeviceGradients, ParameterShift, Simulated, Spsa
from qpeft.devices.journal import Journal
from qpeft.devices.local import LocalDevice
from qpeft.devices.mitigation import AbstractMitigation, ReadoutInversion, ZeroNoise
from qpeft.devices.protocol import (
    AbstractDevice,
    CallKey,
    Capabilities,
    Distribution,
    JobState,
    JobStatus,
    Runner,
    run,
    run_now,
)
from qpeft.devices.queue import JournalledRunner
from qpeft.devices.registry import DEVICES, load_device

__all__ = [
    "DEVICES",
    "AbstractDevice",
    "AbstractMitigation",
    "Budget",
    "CallKey",
    "Capabilities",
    "Comparison",
    "Cost",
    "DeviceGradients",
    "DeviceValues",
    "Distribution",
    "JobState",
    "JobStatus",
    "Journal",
    "JournalledRunner",
    "LocalDevice",
    "ParameterShift",
    "Preflight",
    "ReadoutInversion",
    "Runner",
    "Simulated",
    "Spsa",
    "ZeroNoise",
    "backward_circuits",
    "compare",
    "device_expectations",
    "device_gradients",
    "find_blocks",
    "forward_circuits",
    "load_device",
    "preflight",
    "run",
    "run_now",
    "suggest",
]

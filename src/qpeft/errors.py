"""Every exception that qpeft raises on purpose.

QpeftError
├── CircuitError          a circuit, gate or observable that cannot exist
├── SimulationError       inputs or weights that a circuit cannot be evaluated on
│   ├── GradientError     a gradient was asked for that is not there
│   ├── NoiseError        a noise model that cannot exist or does not cover the circuit
│   └── ShotsError        a number of shots that cannot be taken
├── DeviceError           a quantum device that cannot do what is asked, or answered what it must not
│   ├── CredentialsError  a key that is missing or refused
│   ├── RefusedError      a submission that the device turned down: no job exists
│   ├── JobError          a job that failed, or that the device does not know
│   ├── OrderError        results whose order is not that of their circuits, so that none is used
│   ├── BudgetError       a submission that would exceed a limit set by the user
│   └── JournalError      a journal that cannot be read or written, or a batch that only the user can settle
├── FactorizationError    a width or a set of modes from which no tensor network can be built
├── AdapterError          an adapter configuration that does not fit itself or the model
│   ├── UnknownOptionError an option that the method does not have
│   └── NotMergeableError the update is not a matrix, so it cannot be added to the base weight
├── LaunchError           processes that would not train together as they were asked to
├── RecipeError           a recipe with an unknown key, a missing section or a value out of range
├── StudyError            a comparison that cannot be made as it is asked for
├── DataError             a data file that cannot be read as training or evaluation examples
├── TaskError             a benchmark task that cannot be scored
├── ModelError            a base model that cannot be found or loaded
├── MemoryLimitError      a step that does not fit into memory
└── OutputError           a result that cannot be written without losing something
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class QpeftError(Exception):
    """Base of all errors raised by qpeft; the command line prints its message and exits with code 2."""


class CircuitError(QpeftError, ValueError):
    """A circuit, gate or observable that cannot exist."""


class SimulationError(QpeftError, ValueError):
    """Inputs or weights that a circuit cannot be evaluated on."""


class GradientError(SimulationError):
    """A gradient was asked for that is not there."""


class NoiseError(SimulationError):
    """A noise model that cannot exist or does not cover the circuit."""


class ShotsError(SimulationError):
    """A number of shots that cannot be taken."""


class DeviceError(QpeftError, RuntimeError):
    """A quantum device that cannot do what is asked, or answered what it must not."""


class CredentialsError(DeviceError):
    """A key that is missing or refused."""


class RefusedError(DeviceError):
    """A submission that the device turned down: no job exists, and sending it again pays nothing twice."""


class JobError(DeviceError):
    """A job that failed, or that the device does not know."""


class OrderError(DeviceError):
    """Results whose order is not that of their circuits, so that none is used.

    Args:
        message: what was seen.
        replies: all that came, one list of distributions per answer of the device; it may be paid for.
    """

    def __init__(self, message: str, replies: Sequence[Sequence[Mapping[str, float]]] = ()) -> None:
        super().__init__(message)
        self.replies = replies


class BudgetError(DeviceError):
    """A submission that would exceed a limit set by the user."""


class JournalError(DeviceError):
    """A journal that cannot be read or written, or a batch that only the user can settle."""


class FactorizationError(QpeftError, ValueError):
    """A width or a set of modes from which no tensor network can be built."""


class AdapterError(QpeftError, ValueError):
    """An adapter configuration that does not fit itself or the model."""


class UnknownOptionError(AdapterError, TypeError):
    """An option that an adapter's method does not have. A TypeError too, which PEFT looks for when it reads a file."""


class NotMergeableError(AdapterError):
    """The adapter's update depends on its input, so it cannot be added to the base weight."""


class LaunchError(QpeftError, RuntimeError):
    """Processes that would not train together as they were asked to."""


class RecipeError(QpeftError, ValueError):
    """A recipe with an unknown key, a missing section or a value out of range."""


class StudyError(QpeftError, ValueError):
    """A comparison that cannot be made as it is asked for."""


class DataError(QpeftError, ValueError):
    """A data file that cannot be read as training or evaluation examples."""


class TaskError(QpeftError, ValueError):
    """A benchmark task that cannot be scored."""


class ModelError(QpeftError, ValueError):
    """A base model that cannot be found or loaded."""


class MemoryLimitError(QpeftError, MemoryError):
    """A step that does not fit into memory."""


class OutputError(QpeftError, OSError):
    """A result that cannot be written without losing something."""

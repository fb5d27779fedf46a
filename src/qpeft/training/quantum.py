"""Training steps whose circuits run on a quantum device, every result kept in the journal."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from qpeft.adapters.qtha.quantum_device import DeviceEvaluator, finalize, reachable_tokens, set_quantum_device
from qpeft.adapters.quantum_weighted import circuit_banks
from qpeft.devices import (
    AbstractDevice,
    AbstractMitigation,
    Budget,
    Cost,
    Journal,
    JournalledRunner,
    ReadoutInversion,
    ZeroNoise,
    load_device,
)
from qpeft.devices.gradients import AbstractGradient, find_gradient
from qpeft.devices.journal import default_path
from qpeft.errors import DeviceError, RecipeError
from qpeft.training.processes import number_of_processes
from qpeft.training.sections import DeviceSection


def new_run_id(folder: Path) -> str:
    """Return a name for a run in the journal that no other run has."""
    return f"{folder.name}-{uuid.uuid4().hex[:8]}"


class DeviceSession:
    """A device with the journal of one run, for as long as a process works on it.

    Args:
        section: of the recipe.
        seed: of what is drawn for gradients, unless the recipe's gradient options have their own.
        journal: that a resumed run began with, which must be there still; None for the one of the section.

    Attributes:
        device: the device.
        journal_path: absolute.

    Raises: DeviceError, JournalError or GradientError if the device, the journal or the gradient cannot be had.
    """

    def __init__(self, section: DeviceSection, *, seed: int, journal: Path | None = None) -> None:
        if (processes := number_of_processes()) > 1:
            raise DeviceError(
                f"Training on a quantum device takes one process, since jobs are told apart by step and layer; this is "
                f"one of {processes}. Start it without a launcher."
            )
        self._section = section
        self._gradient, self._mitigation = build_gradient(section, seed=seed), build_mitigation(section)
        self._budget = Budget(section.max_circuits, section.max_shots, section.max_seconds)
        self.device: AbstractDevice = load_device(section.name, **section.options)
        # As the run began with it: a path may mean another file where the folder or the environment is another.
        own = Path(section.journal).expanduser() if section.journal else default_path()
        self.journal_path = journal or own.resolve()
        # A journal that a run has paid into must be there; a new empty one in its place would have it pay twice.
        self._journal = Journal(self.journal_path, create=journal is None)

    @property
    def final_shots(self) -> int | None:
        """Shots for the values that are kept: None for exact ones, 0 if none are to be measured."""
        return None if self._section.shots is None else self._section.final_shots or 0

    def check(self, model: nn.Module) -> None:
        """Raises: DeviceError or ShotsError if the device takes no such circuits or shots."""
        # Checks come with attaching, and nothing is sent before a forward pass.
        self.attach(model, run_id="")
        set_quantum_device(model, None)

    def spent(self, run_id: str) -> Cost:
        """Return what a run has sent so far, in all its processes."""
        return self._journal.spent(run_id)

    def through(self, run_id: str) -> dict[str, Any]:
        """Return runner and mitigation for what a run sends, as options by name; the run pays for it."""
        section = self._section
        runner = JournalledRunner(
            self._journal, run_id, budget=self._budget, options=section.options, cache=section.cache
        )
        return {"runner": runner, "mitigation": self._mitigation}

    def attach(self, model: nn.Module, run_id: str) -> DeviceEvaluator:
        """Let the recipe's layers evaluate their circuits on the device from now on, and return what does it."""
        section = self._section
        evaluator = set_quantum_device(
            model,
            self.device,
            shots=section.shots,
            gradient=self._gradient,
            layers=section.layers,
            **self.through(run_id),
        )
        assert evaluator is not None
        return evaluator


class DeviceSteps:
    """Puts a model's circuits on the device for training steps, and takes them off for whatever is measured."""

    def __init__(self, session: DeviceSession, model: nn.Module, run_id: str) -> None:
        self._session, self._model, self._run_id = session, model, run_id
        self._evaluator: DeviceEvaluator | None = None

    def begin(self, step: int, inputs: Mapping[str, Any]) -> None:
        """Put circuits on the device for a batch of an optimiser step. To be called before each batch.

        Args:
            step: optimiser steps done so far.
            inputs: `labels` and perhaps `attention_mask`, (batch, sequence).
        """
        if self._evaluator is None:
            self._evaluator = self._session.attach(self._model, self._run_id)
        # Calls are told apart by step and their number in it, so numbering begins anew with a step, not with a batch.
        if self._evaluator.step != step:
            self._evaluator.begin_step(step)
        # What cannot reach the loss would be paid for and used for nothing.
        self._evaluator.tokens = reachable_tokens(inputs.get("attention_mask"), inputs["labels"])

    def pause(self) -> None:
        """Put circuits that read text on the simulator, until the next batch. Only between optimiser steps."""
        # Circuits that make weights stay: training fits the angles to the errors of the device, so that the same
        # angles on the simulator are another, worse adapter.
        if not circuit_banks(self._model):
            self.stop()

    def stop(self) -> None:
        """Put all circuits on the simulator."""
        set_quantum_device(self._model, None)
        self._evaluator = None

    def finish(self) -> dict[str, float]:
        """Stop, after measuring for good what circuits make of weights, if the recipe wants that.

        Returns:
            The largest standard error of each adapter's values; nothing where none were measured.
        """
        self.stop()
        # Circuits that read text have no final values: they run again for every text.
        shots = self._session.final_shots
        if not circuit_banks(self._model) or shots == 0:
            return {}
        options = self._session.through(self._run_id)
        return finalize(self._model, self._session.device, shots=shots, **options)

    def spent(self) -> Cost:
        """Return what the run has sent so far."""
        return self._session.spent(self._run_id)


def build_mitigation(section: DeviceSection) -> AbstractMitigation | None:
    """Return the mitigation that a recipe asks for. Readout errors are measured, not taken from the calibration."""
    readout = ReadoutInversion() if "readout" in section.mitigation else None
    return ZeroNoise(readout_inversion=readout) if "zero_noise" in section.mitigation else readout


def build_gradient(section: DeviceSection, *, seed: int) -> AbstractGradient:
    """Return the gradient of a recipe. Raises: GradientError for an unknown name, RecipeError for an option."""
    options, gradient = section.gradient_options, find_gradient(section.gradient)
    assert gradient is not None
    known = {field.name for field in dataclasses.fields(gradient)}  # type: ignore[arg-type]
    if unknown := sorted(set(options) - known):
        raise RecipeError(
            f"'device.gradient_options': {section.gradient} has no option {', '.join(unknown)}; it has "
            f"{', '.join(sorted(known)) or 'none'}."
        )
    # The recipe's own seed, so that a resumed run draws the same directions, unless the options have one.
    seeds = {"seed": seed} if "seed" in known else {}
    changed: AbstractGradient = dataclasses.replace(gradient, **{**seeds, **options})  # type: ignore[type-var]
    return changed

"""Runs that stop midway, as a killed process leaves them."""

import pytest

from qpeft.training import train
from qpeft.training.trainer import CheckpointingTrainer


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


def interrupted(recipe, monkeypatch, *, after):
    """Train until `after` steps are done, then stop as if killed; checkpoints stay."""
    step = CheckpointingTrainer.training_step

    def stopping(self, *args, **kwargs):
        if self.state.global_step == after:
            raise Killed
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointingTrainer, "training_step", stopping)
        with pytest.raises(Killed):
            train(recipe)

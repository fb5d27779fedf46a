"""Early stopping and the best adapter, decided by held-out losses that a test makes up."""

import json

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close
from training_helpers import interrupted

from qpeft.errors import RecipeError
from qpeft.evaluation.loss import HeldOutLoss
from qpeft.training import train
from qpeft.training import trainer as trainer_module
from qpeft.training.trainer import CheckpointingTrainer

LOSSES = {1: 5.0, 2: 4.0, 3: 4.5, 4: 4.2, 5: 4.1, 6: 4.4}
"""Held-out loss after every step: step 2 is the best."""


@pytest.fixture
def losses(monkeypatch):
    """Held-out losses as in LOSSES, or as in what is put into this dictionary."""
    losses = dict(LOSSES)
    evaluate = CheckpointingTrainer.evaluate

    def by_step(self, *args, **kwargs):
        monkeypatch.setattr(
            trainer_module, "held_out_loss", lambda *_, **__: HeldOutLoss(losses[self.state.global_step], 1, (), ())
        )
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(CheckpointingTrainer, "evaluate", by_step)
    return losses


@pytest.fixture
def adapters(monkeypatch):
    """The adapter after every step, copied as the step ended."""
    from peft import get_peft_model_state_dict

    seen = {}
    remember = CheckpointingTrainer.evaluate

    def copying(self, *args, **kwargs):
        weights = get_peft_model_state_dict(self.model)
        seen[self.state.global_step] = {name: weight.clone() for name, weight in weights.items()}
        return remember(self, *args, **kwargs)

    monkeypatch.setattr(CheckpointingTrainer, "evaluate", copying)
    return seen


def short(recipe, **training):
    return recipe(
        training={"eval_every": 1, "checkpoint_every": 2, "learning_rate": 0.05, "warmup": 0, **training},
        evaluation={"before": False},
    )


def test_the_adapter_saved_at_the_end_is_the_one_of_the_lowest_held_out_loss(recipe, tmp_path, losses, adapters):
    run = train(short(recipe, keep_best=True))
    saved = load_file(tmp_path / "run/adapter_model.safetensors")
    assert_close(saved, adapters[2], rtol=0, atol=0)
    with pytest.raises(AssertionError):
        assert_close(saved, adapters[6], rtol=0, atol=0)
    assert run.record["best"] == {"step": 2, "loss": 4.0, "kept": True}
    assert run.record["steps"] == 6
    # Beside the latest checkpoint, whatever keep_checkpoints says.
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["best-2", "checkpoint-6"]


def test_training_stops_when_the_held_out_loss_has_not_fallen_for_patience_evaluations(recipe, losses):
    run = train(short(recipe, early_stopping=2))
    assert run.record["steps"] == 4
    assert run.record["stopped_early"] is True
    assert [entry["step"] for entry in run.record["history"] if "loss" in entry][-1] == 4
    assert run.record["best"] == {"step": 2, "loss": 4.0, "kept": False}


def test_a_loss_that_is_no_number_is_never_the_best(recipe, losses):
    losses |= {1: float("nan"), 3: float("nan")}
    assert train(short(recipe, steps=3, keep_best=True)).record["best"]["step"] == 2


def test_the_last_step_is_evaluated_too_and_may_be_the_best(recipe, losses):
    losses[5] = 1.0
    run = train(short(recipe, steps=5, eval_every=2, keep_best=True))
    assert run.record["best"] == {"step": 5, "loss": 1.0, "kept": True}


def test_best_adapter_and_patience_survive_a_resume_bit_for_bit(recipe, tmp_path, losses, monkeypatch):
    def wanted(folder):
        return short(recipe, keep_best=True, early_stopping=3).model_copy(
            update={"output": recipe(output={"folder": str(tmp_path / folder)}).output}
        )

    undisturbed = train(wanted("undisturbed")).record
    # The latest checkpoint is of step 2, and step 3 was evaluated after it.
    interrupted(wanted("killed"), monkeypatch, after=3)
    resumed = train(wanted("killed"), resume=True).record
    for name in ("best", "steps", "stopped_early", "after"):
        assert resumed[name] == undisturbed[name]
    assert resumed["history"] == undisturbed["history"]
    killed, whole = (tmp_path / folder / "adapter_model.safetensors" for folder in ("killed", "undisturbed"))
    assert killed.read_bytes() == whole.read_bytes()


def test_a_run_killed_after_it_stopped_early_takes_no_further_step(recipe, tmp_path, losses):
    wanted = short(recipe, early_stopping=2)
    train(wanted)
    record = tmp_path / "run/run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"state": "started"}))
    again = train(wanted, resume=True)
    assert (again.record["steps"], again.record["stopped_early"]) == (4, True)
    assert again.record["seconds_per_step"] is None


@pytest.mark.parametrize("option", [{"keep_best": True}, {"early_stopping": 2}])
def test_what_goes_by_held_out_losses_needs_them(recipe, option):
    with pytest.raises(RecipeError, match=r"set training\.eval_every"):
        recipe(training={**option, "eval_every": None})
    with pytest.raises(RecipeError, match="need held-out examples to measure, and the recipe has none"):
        train(recipe(training={**option, "eval_every": 1}, data={"hold_out": None}))

"""A trainer that is not ours gets everything that a run of ours has from `RunMixin`."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from rich.console import Console
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments, set_seed

from qpeft.errors import OutputError
from qpeft.models import load_model
from qpeft.training.checkpoints import checkpoints, damaged_checkpoints
from qpeft.training.early_stopping import HeldOutWatch
from qpeft.training.health_log import HealthMonitor
from qpeft.training.trainer import RunMixin


class OtherTrainer(Trainer):
    """Trains on a loss of its own, from batches with names of its own."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: ARG002
        noise = torch.rand(())  # what a resumed run must draw as an undisturbed one does
        return model(input_ids=inputs["prompt"]).logits.float().square().mean() * noise


class OtherRun(RunMixin, OtherTrainer):
    def read_batch(self, inputs):
        return {"input_ids": inputs["prompt"], "labels": inputs["prompt"]}

    def measure_held_out(self):
        with torch.no_grad():
            return float(self.model(input_ids=torch.tensor([[1, 2, 3]], device=self.model.device)).logits.std())


class Killed(BaseException):
    """As a killed process."""


@pytest.fixture
def make(tiny_model):
    def make_trainer(folder, run="this run"):
        set_seed(0)
        model = get_peft_model(
            load_model(str(tiny_model)), LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.5)
        )
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=6,
            per_device_train_batch_size=2,
            save_steps=2,
            eval_strategy="steps",
            eval_steps=2,
            report_to="none",
            remove_unused_columns=False,
            use_cpu=True,
            disable_tqdm=True,
        )
        watch = HeldOutWatch(folder, keep_best=True, patience=None)
        health = HealthMonitor(model, every=1, warmup=0, console=Console(quiet=True))
        return OtherRun(
            model=model,
            args=arguments,
            train_dataset=[{"prompt": torch.tensor([1, 2, 3 + number % 4])} for number in range(12)],
            eval_dataset=[{"prompt": torch.tensor([1, 2, 3])}],
            watch=watch,
            health=health,
            run=run,
            callbacks=[watch, health],
        )

    return make_trainer


def test_a_killed_run_of_another_trainer_ends_with_the_same_bits(make, tmp_path, monkeypatch):
    whole = make(tmp_path / "whole")
    whole.train_from(None)

    step = OtherTrainer.compute_loss

    def killing(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise Killed
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(OtherTrainer, "compute_loss", killing)
        with pytest.raises(Killed):
            make(tmp_path / "parts").train_from(None)
    resumed = make(tmp_path / "parts")
    (last,) = checkpoints(tmp_path / "parts")
    assert last.name == "checkpoint-4"
    resumed.train_from(last)

    expected, found = get_peft_model_state_dict(whole.model), get_peft_model_state_dict(resumed.model)
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert_close(found[name], weight, rtol=0, atol=0)
    assert resumed.batch_hash.digest == whole.batch_hash.digest
    assert (resumed.watch.step, resumed.watch.loss) == (whole.watch.step, whole.watch.loss)


def test_a_checkpoint_of_another_run_is_refused_by_another_trainer_too(make, tmp_path):
    make(tmp_path).train_from(None)
    with pytest.raises(OutputError, match="another run"):
        make(tmp_path, run="another").train_from(checkpoints(tmp_path)[-1])


def test_a_tried_step_leaves_weights_gradients_and_generators_as_they_were(make, tmp_path):
    trainer = make(tmp_path)
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    drawn = torch.get_rng_state()
    trainer.try_step([0, 1])
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, weight in trainer.model.named_parameters():
        assert weight.grad is None
        assert_close(weight, before[name], rtol=0, atol=0)


def test_a_file_in_a_subfolder_of_a_checkpoint_counts(make, tmp_path):
    class WithReference(OtherRun):
        def _save(self, output_dir=None, state_dict=None):
            super()._save(output_dir, state_dict)
            (Path(output_dir) / "ref").mkdir()  # as DPO keeps its reference adapter
            (Path(output_dir) / "ref" / "adapter_config.json").write_text("{}")

    trainer = make(tmp_path)
    trainer.__class__ = WithReference
    trainer.train_from(None)
    (last,) = checkpoints(tmp_path)
    (last / "ref" / "adapter_config.json").unlink()
    assert damaged_checkpoints(tmp_path) == {"checkpoint-6": "ref/adapter_config.json is missing"}

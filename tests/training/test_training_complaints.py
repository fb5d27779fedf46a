"""What users of other tools complain of, each under its own name: resuming, seeds, evaluation, loading."""

import json
import random
import shutil

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_helpers import interrupted

from qpeft.adapters.load import load_adapter
from qpeft.errors import AdapterError, DataError, MemoryLimitError, OutputError
from qpeft.evaluation import held_out_loss
from qpeft.models import load_model, load_tokenizer
from qpeft.training import memory, train, trainer
from qpeft.training.checkpoints import checkpoints, damaged_checkpoints, seal
from qpeft.training.splits import load_held_out
from qpeft.training.trainer import CheckpointingTrainer


def into(recipe, tmp_path, folder, **sections):
    """Six steps with dropout, checkpoints after 2, 4 and 6 of which two stay."""
    return recipe(
        adapter={"dropout": 0.2},
        training={"keep_checkpoints": 2, **sections.pop("training", {})},
        evaluation={"before": False},
        output={"folder": str(tmp_path / folder)},
        **sections,
    )


def adapter_bytes(tmp_path, folder):
    return (tmp_path / folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def killed(recipe, tmp_path, monkeypatch):
    """The recipe of a run that was killed in its sixth step; checkpoints of 2 and 4 are there."""
    wanted = into(recipe, tmp_path, "killed")
    interrupted(wanted, monkeypatch, after=5)
    return wanted


@pytest.fixture
def console():
    from rich.console import Console

    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        yield Console(record=True, file=nowhere, width=300)


def scramble():
    random.seed(random.random())
    numpy.random.rand(random.randrange(1, 50))  # noqa: NPY002
    torch.rand(random.randrange(1, 50))


@pytest.mark.parametrize("grouped", [False, True])
def test_resume_loss_jumps_or_optimizer_not_restored(recipe, tmp_path, monkeypatch, grouped):
    """2n steps are n steps and, in another state of all random numbers, n steps more."""
    training = {"checkpoint_every": 3, "log_every": 1, "group_by_length": grouped, "gradient_accumulation": 2}
    whole = train(into(recipe, tmp_path, "whole", training=training)).record
    half = into(recipe, tmp_path, "half", training=training)
    interrupted(half, monkeypatch, after=3)
    scramble()
    resumed = train(half, resume=True).record
    assert resumed["history"] == whole["history"]
    assert resumed["health"] == whole["health"]
    assert adapter_bytes(tmp_path, "half") == adapter_bytes(tmp_path, "whole")


@pytest.mark.parametrize("adapter", [{"type": "qtha"}, {"type": "lora", "r": 4}], ids=lambda options: options["type"])
def test_same_seed_different_result(recipe, tmp_path, adapter):
    values = recipe().model_dump(mode="json")
    for folder in ("first", "second"):
        scramble()
        values |= {"adapter": {**adapter, "target_modules": ["q_proj"]}, "output": {"folder": str(tmp_path / folder)}}
        train(type(recipe()).model_validate(values))
    assert adapter_bytes(tmp_path, "first") == adapter_bytes(tmp_path, "second")


def test_training_on_nothing(recipe, tmp_path):
    """Every answer is cut off, and the run goes on with labels that are all masked."""
    with pytest.raises(DataError, match="wholly cut off"):
        train(recipe(data={"max_length": 5}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "options"),
    [("lora", {}), ("dora", {}), ("lokr", {}), ("vera", {}), ("psoft", {"r": 4}), ("oft", {"oft_block_size": 4})],
)
def test_only_lora_can_be_trained(recipe, tmp_path, method, options):
    """Other methods of PEFT cannot be had from the command line; here each trains, and loads as what it was."""
    wanted = recipe(training={"steps": 3, "checkpoint_every": None, "learning_rate": 0.01}).model_dump(mode="json")
    wanted["adapter"] = {"type": method, "target_modules": ["k_proj"], **options}
    record = train(type(recipe()).model_validate(wanted)).record
    assert record["after"]["loss"] != record["before"]["loss"]
    assert_loads_as_trained(recipe(), tmp_path / "run", record)


def assert_loads_as_trained(recipe, folder, record):
    """The base model with what lies in a folder has the loss that the run ended with, and without it the first one."""
    model = load_adapter(load_model(recipe.model.name), folder)
    held_out = load_held_out(recipe.data, load_tokenizer(recipe.model.name)).encoded
    assert held_out_loss(model, held_out).loss == pytest.approx(record["after"]["loss"], rel=1e-6)
    with model.disable_adapter():
        assert held_out_loss(model, held_out).loss == pytest.approx(record["before"]["loss"], rel=1e-6)


def test_adapter_silently_not_applied_when_a_trained_folder_is_loaded(recipe, tmp_path):
    """A folder loads without a word, and the model answers as its base does."""
    record = train(recipe()).record
    assert record["after"]["loss"] != pytest.approx(record["before"]["loss"], rel=1e-3)
    assert_loads_as_trained(recipe(), tmp_path / "run", record)


def test_a_truncated_optimizer_file_is_left_out_and_said_to_be(killed, recipe, tmp_path, console):
    file = tmp_path / "killed/checkpoints/checkpoint-4/optimizer.pt"
    file.write_bytes(file.read_bytes()[:-100])
    train(killed, resume=True, console=console)
    text = console.export_text()
    assert "checkpoint-4 is left out, since optimizer.pt has" in text
    assert "continuing from checkpoint-2" in text
    train(into(recipe, tmp_path, "undisturbed"))
    assert adapter_bytes(tmp_path, "killed") == adapter_bytes(tmp_path, "undisturbed")


def test_a_checkpoint_with_an_empty_or_missing_file_is_known(killed, tmp_path):
    folder = tmp_path / "killed/checkpoints"
    assert damaged_checkpoints(folder) == {}
    (folder / "checkpoint-2/adapter_model.safetensors").unlink()
    (folder / "checkpoint-4/optimizer.pt").write_bytes(b"")
    problems = damaged_checkpoints(folder)
    assert problems["checkpoint-2"] == "adapter_model.safetensors is missing"
    assert problems["checkpoint-4"].startswith("optimizer.pt has 0 of")
    seal(folder / "checkpoint-4", run="r", state={})  # of what is there, as a process beside the first would
    assert problems["checkpoint-4"] != damaged_checkpoints(folder)["checkpoint-4"] == "optimizer.pt was never in it"
    (folder / "checkpoint-4/qpeft.json").write_text("{")
    assert damaged_checkpoints(folder)["checkpoint-4"] == "qpeft.json is missing or damaged"
    assert checkpoints(folder) == []


def test_a_checkpoint_of_another_run_is_refused(killed, recipe, tmp_path, monkeypatch):
    other = into(recipe, tmp_path, "other", seed=1)
    interrupted(other, monkeypatch, after=5)
    shutil.rmtree(tmp_path / "killed/checkpoints/checkpoint-4")
    shutil.copytree(tmp_path / "other/checkpoints/checkpoint-4", tmp_path / "killed/checkpoints/checkpoint-4")
    with pytest.raises(OutputError, match=r"checkpoint-4 is a checkpoint of another run"):
        train(killed, resume=True)


def test_adapter_silently_not_applied_after_load(killed, tmp_path):
    """A checkpoint whose adapter lacks a weight, though its seal fits."""
    file = tmp_path / "killed/checkpoints/checkpoint-4/adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(sorted(weights)[0])
    save_file(weights, file, metadata={"format": "pt"})
    seal = file.with_name("qpeft.json")
    stored = json.loads(seal.read_text())
    stored["files"][file.name] = file.stat().st_size
    seal.write_text(json.dumps(stored))
    with pytest.raises(AdapterError, match="only one of them"):
        train(killed, resume=True)


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nMore words.")


def test_out_of_memory_at_the_first_evaluation_is_found_before_any_step(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "held_out_loss", out_of_memory)
    monkeypatch.setattr(CheckpointingTrainer, "train", lambda *_, **__: pytest.fail("a step was taken"))
    with pytest.raises(MemoryLimitError, match=r"Measuring held-out.*Lower data.max_length \(512\).*9.00 GiB"):
        train(recipe())
    assert not (tmp_path / "run").exists()  # so that the recipe with other values can have it


def test_out_of_memory_in_training_says_what_to_lower_and_leaves_the_checkpoint(recipe, tmp_path, monkeypatch):
    loss = CheckpointingTrainer.compute_loss

    def fourth(self, *args, **kwargs):
        return out_of_memory() if self.state.global_step == 3 else loss(self, *args, **kwargs)

    monkeypatch.setattr(CheckpointingTrainer, "compute_loss", fourth)
    advice = r"Lower training.batch_size \(4\) and raise .*, or set training.gradient_checkpointing: true"
    with pytest.raises(MemoryLimitError, match=advice):
        train(recipe())
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["checkpoint-2"]


def test_other_errors_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shapes"), memory.memory_errors("A step", "Lower it."):
        raise RuntimeError("shapes do not fit")
    with pytest.raises(MemoryLimitError, match="A step does not fit"), memory.memory_errors("A step", "Lower it."):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")


def test_a_step_that_is_only_tried_leaves_no_trace(recipe, tmp_path, monkeypatch):
    """On a GPU the longest batch is tried first: the result is that of a run which tried nothing."""
    plain = train(into(recipe, tmp_path, "plain", training={"log_every": 1})).record
    tried = []

    def with_a_step(self, _recipe, training):
        lengths = [len(one.input_ids) for one in training]
        self.try_step(sorted(range(len(lengths)), key=lengths.__getitem__)[-4:])
        tried.append(self)

    monkeypatch.setattr(CheckpointingTrainer, "try_memory", with_a_step)
    with_trial = train(into(recipe, tmp_path, "tried", training={"log_every": 1})).record
    assert len(tried) == 1
    assert with_trial["history"] == plain["history"]
    assert adapter_bytes(tmp_path, "tried") == adapter_bytes(tmp_path, "plain")

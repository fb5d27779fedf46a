"""Whole training runs of a tiny model."""

import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from rich.console import Console
from torch.testing import assert_close

from qpeft.errors import AdapterError, DataError, ModelError, OutputError
from qpeft.models import load_model
from qpeft.runs.files import used_alone
from qpeft.training import train
from qpeft.training.checkpoints import checkpoints
from qpeft.training.trainer import CheckpointingTrainer


def probe_logits(model):
    model.eval()
    with torch.no_grad():
        return model(torch.arange(40)[None]).logits


def test_a_run_leaves_an_adapter_that_loads_with_plain_peft(recipe, tmp_path):
    run = train(recipe())
    loaded = PeftModel.from_pretrained(load_model(recipe().model.name), str(tmp_path / "run"))
    assert_close(probe_logits(loaded), probe_logits(run.model), rtol=0, atol=0)


def test_a_run_learns_and_says_so(recipe, tmp_path):
    run = train(recipe(training={"steps": 60, "checkpoint_every": None}))
    assert run.record["after"]["loss"] < 0.8 * run.record["before"]["loss"]
    assert json.loads((tmp_path / "run/run.json").read_text()) == json.loads(json.dumps(run.record))


def test_a_run_stores_recipe_card_curve_and_versions(recipe, tmp_path, with_figures):
    wanted = recipe(output={"notice": "Not for use."})
    train(wanted)
    folder = tmp_path / "run"
    assert yaml.safe_load((folder / "recipe.yaml").read_text()) == wanted.model_dump(mode="json")
    card = (folder / "README.md").read_text()
    assert "import qpeft" in card
    umask = os.umask(0o022)
    os.umask(umask)
    assert (folder / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask
    assert "Not for use." in card
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((folder / "run.json").read_text())
    assert {"python", "torch", "peft", "qpeft"} <= set(record["environment"]["versions"])
    assert len(record["data"]["train"]) == 64
    assert record["precision"]["dtype"] == "float32"
    assert record["learning_rate"]["value"] == 0.01
    assert record["peak_memory"] > 1e8
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == wanted.model.name


@pytest.mark.parametrize(("steps", "log_every", "logged"), [(3, 10, [1, 2, 3]), (5, 2, [1, 2, 4, 5]), (1, 10, [1])])
def test_the_first_and_the_last_step_are_logged_whatever_log_every_is(recipe, steps, log_every, logged):
    console = Console(record=True, width=200, file=io.StringIO())
    training = {"steps": steps, "log_every": log_every, "checkpoint_every": None}
    history = train(recipe(training=training, evaluation={"before": False}), console=console).record["history"]
    assert [entry["step"] for entry in history if "loss" in entry] == logged
    assert re.findall(r"step (\d)/\d  loss", console.export_text()) == [str(step) for step in logged]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(recipe, tmp_path):
    def weights(name, seed):
        train(recipe(seed=seed, output={"folder": str(tmp_path / name)}))
        return (tmp_path / name / "adapter_model.safetensors").read_bytes()

    first = weights("a", 1)
    torch.rand(3)  # whatever was drawn before a run must not matter
    assert weights("b", 1) == first
    assert weights("c", 2) != first


def test_what_is_not_measured_before_is_said_to_be_so(recipe, tmp_path):
    run = train(recipe(evaluation={"before": False}))
    assert run.record["before"] is None
    assert f"| not measured | {run.record['after']['loss']:.4f} |" in (tmp_path / "run/README.md").read_text()


def test_batches_by_length_are_padded_less(recipe, tmp_path, monkeypatch):
    rows = [{"question": "What is one?", "answer": "one " * (1 + number % 12)} for number in range(48)]
    data = tmp_path / "lengths.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def padding(*, grouped):
        widths = []
        step = CheckpointingTrainer.training_step

        def spy(self, model, inputs, *rest):
            widths.append(int((inputs["attention_mask"] == 0).sum()))
            return step(self, model, inputs, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(CheckpointingTrainer, "training_step", spy)
            training = {"steps": 9, "group_by_length": grouped}
            train(recipe(data={"train": str(data)}, training=training, output={"folder": str(tmp_path / f"{grouped}")}))
        assert len(widths) == 9
        return sum(widths)

    assert padding(grouped=True) < 0.75 * padding(grouped=False)


@pytest.mark.parametrize(
    "options",
    [
        {"type": "lora", "r": 4},
        {"type": "qtha", "preset": "paper", "rank": 4},
        {"type": "qtha", "preset": "fitted"},
        {"type": "loretta", "rank": 4, "bond_dimension": 4},
    ],
)
def test_other_methods_and_presets_train_by_the_same_recipe(recipe, options):
    adapter = {"type": options["type"], "target_modules": ["q_proj"]}
    values = recipe().model_dump() | {"adapter": adapter | options}
    run = train(type(recipe()).model_validate(values))
    assert run.record["adapter"]["layers"] == 2
    assert run.record["after"]["loss"] < run.record["before"]["loss"]
    card = (Path(recipe().output.folder) / "README.md").read_text()
    assert ("import qpeft" in card) == (options["type"] != "lora")
    assert ("merge_and_unload" in card) == (options["type"] == "loretta")


def test_only_the_latest_checkpoints_stay_and_nothing_half_written(recipe, tmp_path):
    train(recipe(training={"keep_checkpoints": 2}))
    folder = tmp_path / "run/checkpoints"
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-4", "checkpoint-6"]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-4", "checkpoint-6"]


def test_progress_names_loss_rate_and_speed(recipe):
    console = Console(record=True, quiet=False, width=200, file=open("/dev/null", "w"))  # noqa: SIM115
    train(recipe(training={"eval_every": 3}), console=console)
    text = console.export_text()
    assert "step 6/6  loss" in text
    assert re.search(r"step 2/6 .* [\d,]+ tokens/s  0:00:\d\d left  peak memory \d\.\d\d GB", text)
    assert "base weights in float32: on most CPUs bfloat16 is several times slower" in text
    assert "learning rate 0.01 (default of QTHA" in text
    assert "step 3/6  held-out loss" in text
    console.file.close()


def test_a_folder_with_anything_in_it_is_left_alone(recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/precious.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"is not empty.*--resume"):
        train(recipe())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious.txt"]


@pytest.mark.parametrize(
    ("sections", "error", "message"),
    [
        ({"model": {"name": "./nowhere"}}, ModelError, "does not exist"),
        ({"data": {"train": "nowhere.jsonl"}}, DataError, "does not exist"),
        ({"data": {"hold_out": 24}}, DataError, "cannot be held out"),
        ({"data": {"max_length": 5}}, DataError, "wholly cut off"),
        ({"adapter": {"target_modules": ["nope"]}}, AdapterError, "linear layers are called"),
        ({"adapter": {"target_modules": ["q_proj", "vproj"]}}, AdapterError, "'vproj', .* are called v_proj, "),
        ({"adapter": {"target_modules": ".*qproj"}}, AdapterError, r"'\.\*qproj', .* are called q_proj, "),
        ({"adapter": {"target_modules": "("}}, AdapterError, r"'\(' is no regular expression"),
        ({"adapter": {"target_modules": ["embed_tokens"]}}, AdapterError, "Embedding"),
        ({"adapter": {"rank": 13}}, AdapterError, "Nearest ranks that can"),
        ({"adapter": {"rnak": 4}}, AdapterError, "did you mean 'rank'"),
        ({"adapter": {"type": "qthaa"}}, AdapterError, "did you mean 'qtha'"),
        ({"adapter": {"preset": "papr"}}, AdapterError, "it has paper"),
        ({"adapter": {"depth": 0}}, AdapterError, "depth must be"),
    ],
)
def test_a_run_that_cannot_work_says_why_and_writes_nothing(recipe, tmp_path, sections, error, message):
    with pytest.raises(error, match=message):
        train(recipe(**sections))
    assert not (tmp_path / "run").exists()


def test_a_target_that_is_not_there_is_noticed_before_data_and_weights_are_read(recipe, monkeypatch):
    for name in ("qpeft.training.recipe.load_splits", "qpeft.training.setup.load_model"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("read"))
    with pytest.raises(AdapterError, match="the model has no such module"):
        train(recipe(adapter={"target_modules": ["nope"]}))


def test_exact_match_without_a_number_to_match_is_an_error(recipe, tmp_path):
    path = tmp_path / "words.jsonl"
    path.write_text('{"question": "Who?", "answer": "Me."}\n' * 3)
    with pytest.raises(DataError, match="ends on none"):
        train(recipe(data={"eval": str(path), "hold_out": None}, evaluation={"exact_match": True}))


def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays(recipe, tmp_path, monkeypatch):
    import transformers

    save = transformers.Trainer._save_checkpoint

    def full(trainer, model, trial):
        if trainer.state.global_step == 4:
            raise OSError(28, "No space left on device")
        save(trainer, model, trial)

    monkeypatch.setattr(transformers.Trainer, "_save_checkpoint", full)
    with pytest.raises(OutputError, match="No space left on device"):
        train(recipe())
    assert [path.name for path in Path(tmp_path / "run/checkpoints").iterdir()] == ["checkpoint-2"]


def test_a_checkpoint_that_does_not_fit_on_the_disk_is_an_output_error(recipe, tmp_path):
    resource = pytest.importorskip("resource", reason="needs a limit on file sizes, which this system has not")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the optimiser's state is larger
    try:
        with pytest.raises(OutputError, match="Cannot write"):
            train(recipe())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any((tmp_path / "run/checkpoints").iterdir())


def test_a_folder_that_another_process_writes_to_is_left_alone(recipe, tmp_path):
    with used_alone(tmp_path / "run"), pytest.raises(OutputError, match="Another process is writing"):
        train(recipe())
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_run_again(recipe):
    train(recipe())
    with pytest.raises(OutputError, match="is finished"):
        train(recipe(), resume=True)


def test_a_run_killed_after_its_last_step_is_only_saved_again(recipe, tmp_path):
    train(recipe())
    adapter = tmp_path / "run/adapter_model.safetensors"
    first, record = adapter.read_bytes(), tmp_path / "run/run.json"
    adapter.unlink()
    record.write_text(json.dumps(json.loads(record.read_text()) | {"state": "started"}))
    again = train(recipe(), resume=True)
    assert adapter.read_bytes() == first
    assert again.record["steps"] == 6
    assert again.record["seconds_per_step"] is None


def test_resuming_with_another_recipe_or_other_data_is_refused(recipe, sums, tmp_path):
    data = tmp_path / "own.jsonl"
    shutil.copy(sums, data)
    wanted = recipe(data={"train": str(data)})
    train(wanted)
    record = tmp_path / "run/run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"state": "started"}))
    with pytest.raises(OutputError, match=r"other values of adapter.rank"):
        train(recipe(data={"train": str(data)}, adapter={"rank": 2}), resume=True)
    with data.open("a") as file:
        file.write('{"question": "What is 9 and 9?", "answer": "18"}\n')
    with pytest.raises(OutputError, match="data changed"):
        train(wanted, resume=True)

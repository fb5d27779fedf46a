"""Adapters, recipes, runs and journals that an earlier version wrote are read still; `write.py` says how they came."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from write import OPTIONS, small_model

from qpeft.adapters.load import load_adapter
from qpeft.devices import Journal
from qpeft.devices.journal import BatchState
from qpeft.runs.catalogue import find_runs
from qpeft.training import train
from qpeft.training.config import parse_recipe
from tiny_model import make_model

KEPT = Path(__file__).parent / "kept"


@pytest.mark.parametrize("method", OPTIONS)
def test_an_adapter_says_what_it_said(method):
    model = load_adapter(small_model(), KEPT / "adapters" / method)
    logits = model(torch.arange(1, 15).reshape(2, 7)).logits[0, -1, :8]
    expected = torch.tensor(json.loads((KEPT / "logits.json").read_text())[method])
    torch.testing.assert_close(logits, expected, atol=1e-6, rtol=1e-5)
    with model.disable_adapter():
        assert (model(torch.arange(1, 15).reshape(2, 7)).logits[0, -1, :8] - expected).abs().max() > 2e-5


def test_an_option_that_was_renamed_is_read_with_a_note(caplog):
    config = json.loads((KEPT / "adapters/qtha/adapter_config.json").read_text())
    assert config["middle"] == "frozen_circuit"
    assert "bottleneck" not in config
    model = load_adapter(small_model(), KEPT / "adapters/qtha")
    assert model.peft_config["default"].bottleneck == "frozen_circuit"
    assert "'middle' of qtha is called 'bottleneck' now" in caplog.text
    assert "middle" not in model.peft_config["default"].to_dict()


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A copy of what was kept, with its model, as the working folder."""
    folder = tmp_path / "kept"
    shutil.copytree(KEPT, folder)
    make_model(folder / "model")
    record = folder / "on_device/run.json"
    record.write_text(record.read_text().replace("JOURNAL", str(folder / "journal.sqlite")))
    monkeypatch.chdir(folder)
    return folder


def recipe(name, **output):
    values = yaml.safe_load(Path(f"{name}.yaml").read_text())
    assert "middle" in values["adapter"]
    return parse_recipe(values | ({"output": output} if output else {}), source=f"{name}.yaml")


def test_a_run_that_was_stopped_is_listed_and_ends_as_one_of_today(kept):
    assert {run.folder.name: run.state for run in find_runs(kept)} == dict.fromkeys(
        ("stopped", "on_device"), "unfinished, step 2"
    )
    train(recipe("stopped"), resume=True)
    train(recipe("stopped", folder="whole"))
    weights = [Path(folder, "adapter_model.safetensors").read_bytes() for folder in ("stopped", "whole")]
    assert weights[0] == weights[1]
    assert json.loads(Path("stopped/adapter_config.json").read_text())["bottleneck"] == "circuit"


def test_a_journal_answers_for_what_it_was_paid_for(kept):
    journal = Journal(kept / "journal.sqlite")
    before = {batch.key: batch.state for batch in journal.batches()}
    assert {key.step for key in before} == {0, 1}
    assert set(before.values()) == {BatchState.FINISHED}
    spent = journal.spent("on_device-" + json.loads(Path("on_device/run.json").read_text())["device"]["run"][-8:])
    record = train(recipe("on_device"), resume=True).record["device"]
    after = [batch for batch in journal.batches() if batch.key not in before]
    assert {batch.key.step for batch in after} == {2, 3}
    assert record["circuits"] == spent.circuits + sum(batch.num_circuits for batch in after)

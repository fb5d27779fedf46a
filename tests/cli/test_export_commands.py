"""`qpeft export` and `qpeft merge` as a user meets them."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from qpeft.exporting import ExportReport
from qpeft.exporting.report import LayerReport, LogitsDifference
from qpeft_cli.export import show


@pytest.fixture
def run(qpeft, recipe_file, tmp_path):
    """Folder of a trained QTHA adapter."""
    code, out, _ = qpeft("train", recipe_file, "--training.learning_rate", "0.05", "--training.steps", "12")
    assert code == 0, out
    return tmp_path / "run"


def test_export_and_merge_report_and_write(qpeft, run, tmp_path, sums):
    code, out, err = qpeft("export", run, tmp_path / "lora", "--calibration-tokens", "400", "--force")
    assert code == 0, err
    assert "layers of model.layers.*.self_attn:" in out
    assert {"q_proj", "v_proj"} <= {line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")}
    assert "variance explained" in out
    assert "model.layers.1.self_attn.v_proj" in (tmp_path / "lora" / "README.md").read_text()
    assert "kept:" in out
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 4)
    code, out, err = qpeft(
        "merge", run, tmp_path / "merged", "--calibration", sums, "--data", sums, "--limit", "4", "--force"
    )
    assert code == 0, err
    assert "read back from the files" in out
    assert (tmp_path / "merged" / "model.safetensors").exists()
    assert (tmp_path / "merged" / "tokenizer.json").exists()


def test_refusals_are_one_sentence_and_leave_nothing(qpeft, run, tmp_path):
    code, out, err = qpeft("export", run, tmp_path / "lora", "--rank", "1", "--tolerance", "0")
    assert code == 2, out
    assert "Nothing was written. Raise --rank" in err
    assert not (tmp_path / "lora").exists()
    assert qpeft("export", run, tmp_path / "lora", "--rank", "1", "--tolerance", "0", "--force")[0] == 0
    code, _, err = qpeft("export", run, tmp_path / "lora")
    assert (code, "is not empty" in err) == (2, True)
    assert qpeft("export", run, tmp_path / "other", "--rank", "0")[0] == 2
    assert qpeft("export", run, tmp_path / "other", "--format", "gguf")[0] == 2


def test_an_adapter_of_another_base_is_refused(qpeft, run, tmp_path):
    path = run / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "owner/other"}))
    code, _, err = qpeft("merge", run, tmp_path / "merged")
    assert code == 2
    assert "names the base model 'owner/other'" in err


def test_other_text_stands_in_where_that_of_the_run_is_gone(qpeft, run, tmp_path, sums):
    path = run / "run.json"
    path.write_text(path.read_text().replace(json.dumps(str(sums)), '"gone.jsonl"'))
    code, _, err = qpeft("export", run, tmp_path / "lora", "--data", sums, "--force")
    assert (code, "gone.jsonl" in err) == (2, True)
    code, out, err = qpeft("export", run, tmp_path / "lora", "--data", sums, "--calibration", sums, "--force")
    assert code == 0, err
    assert "saved lora" in out


def shown(layers, *, columns=80):
    """Cells of the report's table by kind of layer, and all its lines."""
    difference = LogitsDifference(maximum=1.0, mean=0.5, divergence=0.1, tokens=8)
    report = ExportReport("qtha", layers, base_logits=difference, logits=difference, losses=None, calibration_tokens=8)
    console = Console(width=columns, record=True, file=io.StringIO())
    show(report, Path("folder"), console)
    lines = console.export_text().splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    return rows, lines


@pytest.mark.parametrize("columns", [80, 100])
def test_the_report_of_many_layers_fits_and_breaks_no_name(columns):
    names = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    layers = {
        f"model.layers.{number}.{name}": LayerReport(4, 1e-7, 0.9 + number / 1000, 0.1, 0.2 + number / 1000)
        for number in range(48)
        for name in names
    }
    rows, lines = shown(layers, columns=columns)
    assert [row[0] for row in rows] == names
    assert {row[1] for row in rows} == {"48"}
    assert rows[0][2:] == ["4", "1.0e-07", "90.00%", "10.0%", "24.7%"]
    assert max(len(line) for line in lines if line.startswith(("│", "┃"))) <= columns
    assert "layers of model.layers.*:" in lines


def test_names_without_anything_in_common_are_broken_at_their_dots():
    layers = {f"{part}.encoder.block_of_layers.1.attention.query": LayerReport(4, 0.0) for part in ("vision", "text")}
    rows, _ = shown(layers)
    assert [row[0] for row in rows if row[1]] == ["vision.encoder.", "text.encoder."]
    assert "".join(row[0] for row in rows) == "".join(
        f"{part}.encoder.block_of_layers.*.attention.query" for part in ("vision", "text")
    )


def test_a_lora_is_exported_at_once_without_its_data(qpeft, recipe_file, tmp_path):
    code, out, err = qpeft(
        "train", recipe_file, "--adapter", "{type: lora, r: 8, target_modules: [q_proj, v_proj]}",
        "--training.learning_rate", "0.05",
    )  # fmt: skip
    assert code == 0, err
    run = tmp_path / "run"
    path = run / "run.json"
    record = json.loads(path.read_text())
    record["recipe"]["data"]["train"] = "gone.jsonl"
    path.write_text(json.dumps(record))
    code, out, err = qpeft("export", run, tmp_path / "lora")
    assert code == 0, err
    assert "copied as they are" in out
    own, written = (load_file(folder / "adapter_model.safetensors") for folder in (run, tmp_path / "lora"))
    assert own.keys() == written.keys()
    assert all(torch.equal(weight, written[name]) for name, weight in own.items())
    config = json.loads((tmp_path / "lora/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (8, 8, {})
    code, _, err = qpeft("export", run, tmp_path / "cut", "--rank", "2")
    assert (code, "gone.jsonl" in err) == (2, True)  # what loses something is measured


def test_progress_goes_to_the_terminal_and_not_into_a_file(qpeft, run, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # stands for a terminal, as rich takes it
    code, _, err = qpeft("export", run, tmp_path / "lora", "--force")
    assert code == 0
    for stage in ("loading the base model", "reading the text", "calibration text", "linear maps", "logits", "writing"):
        assert stage in err
    monkeypatch.delenv("FORCE_COLOR")
    code, _, err = qpeft("export", run, tmp_path / "again", "--force")
    assert (code, err) == (0, "")

"""`qpeft export` and `qpeft merge` as a user meets them."""

import io
import json

import pytest
from rich.console import Console

from qpeft.exporting import ExportReport
from qpeft.exporting.report import LayerReport, LogitsDifference
from qpeft_cli.exports import show


@pytest.fixture
def run(qpeft, recipe_file, tmp_path):
    """Folder of a trained QTHA adapter."""
    code, out, _ = qpeft("train", recipe_file, "--training.learning_rate", "0.05", "--training.steps", "12")
    assert code == 0, out
    return tmp_path / "run"


def test_export_and_merge_report_and_write(qpeft, run, tmp_path, sums):
    code, out, err = qpeft("export", run, tmp_path / "lora", "--calibration-tokens", "400", "--force")
    assert code == 0, err
    assert "model.layers.1.self_attn.v_proj" in out
    assert "variance explained" in out
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


def test_the_report_names_layers_in_full_on_a_narrow_terminal():
    difference = LogitsDifference(maximum=1.0, mean=0.5, divergence=0.1, tokens=8)
    layers = {f"model.layers.0.self_attn.{name}_proj": LayerReport(4, 0.0, 0.9, 0.1, 0.2) for name in "qv"}
    report = ExportReport("qtha", layers, base_logits=difference, logits=difference, losses=None, calibration_tokens=8)
    console = Console(width=80, record=True, file=io.StringIO())
    show(report, console)
    # A name may be folded over lines of its cell; what stands in the first column must still be all of it.
    cells = [line.split("│")[1].strip() for line in console.export_text().splitlines() if line.startswith("│")]
    assert "".join(cells) == "".join(layers)

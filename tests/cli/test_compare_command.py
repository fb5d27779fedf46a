"""`qpeft compare` and `qpeft report`, with runs in this process instead of many."""

import json
import shutil

import pytest
import yaml

from qpeft.comparison.trial_jobs import Job


@pytest.fixture
def study_file(tiny_model, sums, tmp_path, monkeypatch):
    monkeypatch.setattr(Job, "run_alone", lambda self, **_: self.run())
    study = {
        "name": "Tiny",
        "recipe": {
            "model": {"name": str(tiny_model)},
            "data": {"train": str(sums)},
            "training": {"steps": 2, "checkpoint_every": None},
        },
        "common": {"target_modules": ["q_proj"]},
        "methods": {"LoRA": {"type": "lora", "r": 2}, "QTHA": {"type": "qtha", "rank": 4}},
        "reference": "LoRA",
        "learning_rates": [0.01],
        "seeds": [0],
        "margin": 100,
        "test": str(tmp_path / "test.jsonl"),
        "output": {"folder": str(tmp_path / "study")},
    }
    rows = [{"question": f"Add {a} to {b}.", "answer": str(a + b)} for a in range(4) for b in range(3)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def test_compare_runs_and_reports_and_report_does_it_again(qpeft, study_file, tmp_path):
    code, out, err = qpeft("compare", study_file, "--recipe.training.steps", "1")
    assert code == 0, err
    assert "QTHA: no worse than LoRA by the margin of 100 nats per token" in out
    folder = tmp_path / "study"
    assert {"study.json", "report.html", "report.md", "results.json"} <= {file.name for file in folder.iterdir()}
    assert json.loads((folder / "study.json").read_text())["study"]["recipe"]["training"]["steps"] == 1
    before = (folder / "report.html").read_bytes()
    code, out, _ = qpeft("report", folder, "--html", tmp_path / "page.html")
    assert code == 0
    assert "no worse than LoRA" in out
    assert (tmp_path / "page.html").read_bytes() == before
    shutil.copy(folder / "results.json", tmp_path / "evidence.json")
    code, out, _ = qpeft("report", tmp_path / "evidence.json")
    assert code == 0
    assert "no worse than LoRA" in out
    assert (tmp_path / "evidence.html").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "none.yaml"), "The study none.yaml cannot be read"),
        (("report", "none"), "none holds no study.json"),
    ],
)
def test_what_is_not_there_is_named(qpeft, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = qpeft(*arguments)
    assert code == 2
    assert message in err


def test_an_unknown_key_names_the_nearest(qpeft, study_file):
    code, _, err = qpeft("compare", study_file, "--sedes", "[1]")
    assert code == 2
    assert "did you mean 'seeds'?" in err

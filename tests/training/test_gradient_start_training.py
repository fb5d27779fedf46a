"""Training runs of an adapter that starts from the gradient."""

import io

import pytest
from rich.console import Console
from safetensors.torch import load_file
from training_helpers import interrupted

from qpeft.training import train

GRADIENT = {"down": "dense", "up": "dense", "init": "gradient", "init_batches": 2}


def test_a_run_starts_there_as_the_base_model_and_goes_on_with_the_same_bytes(recipe, tmp_path, monkeypatch):
    folder = tmp_path / "undisturbed"
    said = io.StringIO()
    whole = train(recipe(adapter=GRADIENT, output={"folder": str(folder)}), console=Console(file=said, width=200))
    batch = whole.record["recipe"]["training"]["batch_size"]
    assert f"started from the gradient of {2 * batch} training examples" in said.getvalue()
    usual = train(recipe(adapter=GRADIENT | {"init": "random"}, output={"folder": str(tmp_path / "usual")}))
    # Both measure the base model before the first step, and go other ways from there.
    assert whole.record["before"]["loss"] == pytest.approx(usual.record["before"]["loss"], abs=1e-12)
    assert whole.record["after"]["loss"] != usual.record["after"]["loss"]

    interrupted(recipe(adapter=GRADIENT), monkeypatch, after=4)
    train(recipe(adapter=GRADIENT), resume=True)
    weights = [load_file(one / "adapter_model.safetensors") for one in (folder, tmp_path / "run")]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])

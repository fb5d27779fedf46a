import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from qpeft_cli.main import main


@pytest.fixture
def qpeft(monkeypatch, capsys):
    """A function: run the command line on so many columns; (exit code, standard output, standard error)."""

    def run(*arguments, columns="200"):
        monkeypatch.setattr(sys, "argv", ["qpeft", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", columns)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def recipe_file(recipe, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe().model_dump(mode="json")))
    return path


@pytest.fixture(scope="session")
def talkative(tiny_model, sums, tmp_path_factory):
    """Folder of an adapter with random weights: its answers are nonsense, and other nonsense than the base model.s."""
    from qpeft.training import train
    from qpeft.training.config import parse_recipe

    folder = tmp_path_factory.mktemp("talkative") / "run"
    values = {
        "model": {"name": str(tiny_model)},
        "data": {"train": str(sums), "hold_out": 6},
        "adapter": {"type": "qtha", "rank": 4, "target_modules": "all-linear"},
        "training": {"steps": 1, "checkpoint_every": None},
        "output": {"folder": str(folder)},
    }
    train(parse_recipe(values, source="test"))
    weights, generator = load_file(folder / "adapter_model.safetensors"), torch.Generator().manual_seed(1)
    noisy = {name: weight + 0.2 * torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
    save_file(noisy, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder

"""Training runs of an adapter whose frozen factors are fitted to the data."""

import io

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import qpeft
from qpeft import QthaConfig
from qpeft.adapters.build import add_adapter
from qpeft.data import encode_all, hold_out, load_examples
from qpeft.models import load_model, load_tokenizer
from qpeft.training import train
from qpeft.training.trainer import CheckpointingTrainer

FROZEN = {"down": "frozen", "up": "dense", "init_seed": 0}


def rows(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    return {name: weight for name, weight in weights.items() if ".down." in name}


def test_a_run_fits_them_to_its_training_data_and_leaves_them_so(recipe, tmp_path):
    wanted = recipe(adapter=FROZEN)
    said = io.StringIO()
    run = train(wanted, console=Console(file=said, width=160))
    assert "frozen factors fitted to the inputs of 18 training examples" in said.getvalue()
    examples, _ = hold_out(load_examples(wanted.data.train), 6)
    encoded = encode_all(load_tokenizer(wanted.model.name), examples)
    fresh = add_adapter(
        load_model(wanted.model.name),
        QthaConfig(rank=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **FROZEN),
    )
    random = {name: weight.clone() for name, weight in fresh.state_dict().items() if ".down." in name}
    qpeft.fit_inputs(fresh, ({"input_ids": torch.tensor([one.input_ids])} for one in encoded))
    fitted = {name: weight for name, weight in fresh.state_dict().items() if ".down." in name}
    assert not any(torch.equal(fitted[name], random[name]) for name in fitted)
    trained = {name: weight for name, weight in run.model.state_dict().items() if ".down." in name}
    assert all(torch.equal(trained[name], weight) for name, weight in fitted.items())
    assert len(rows(tmp_path / "run")) == len(fitted)


def test_an_interrupted_run_goes_on_with_the_rows_it_had(recipe, tmp_path, monkeypatch):
    undisturbed = recipe(adapter=FROZEN, output={"folder": str(tmp_path / "undisturbed")})
    train(undisturbed)
    step = CheckpointingTrainer.training_step

    def interrupted(self, *arguments, **options):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointingTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(adapter=FROZEN))
    train(recipe(adapter=FROZEN), resume=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()

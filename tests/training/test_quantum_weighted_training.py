"""Training whose circuits make weights: what a run sends, that it resumes, and values measured at its end."""

import json

import pytest
import torch
from safetensors.torch import load_file
from training_helpers import interrupted

from qpeft.devices import Journal, LocalDevice
from qpeft.errors import DeviceError
from qpeft.training import train

# Four qubits and depth 1: 8 angles in each of the tiny model's two layers.
ADAPTER = {
    "type": "quantum_weighted",
    "rank": 4,
    "num_qubits": 4,
    "depth": 1,
    "target_modules": "all-linear",
}
GROUPS, ANGLES = 2, 8


@pytest.fixture
def on_device(recipe, tmp_path):
    """A function: a recipe of four steps with circuits on the local device."""

    def make(folder="run", *, device=None, **training):
        section = {"name": "local", "shots": 50, "journal": str(tmp_path / "journal.sqlite"), "options": {"seed": 3}}
        # Without warm-up, whose first step has a rate of 0 and repeats the circuits of the start.
        settings = {"steps": 4, "batch_size": 2, "learning_rate": 0.05, "warmup": 0}
        return recipe(
            adapter=ADAPTER,
            device=section | (device or {}),
            output={"folder": str(tmp_path / folder)},
            training=settings | training,
        )

    return make


def weights(tmp_path, folder):
    return (tmp_path / folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(("gradient", "backward"), [("simulated", 0), ("parameter-shift", 2 * ANGLES * GROUPS)])
@pytest.mark.parametrize(
    "training", [{}, {"batch_size": 1, "gradient_accumulation": 3}, {"gradient_checkpointing": True}]
)
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")
def test_a_step_sends_what_the_bill_says_whatever_the_batches(on_device, gradient, backward, training):
    bills = []
    recipe = on_device(device={"gradient": gradient}, **training)
    sent = train(recipe, confirm=bills.append).record["device"]["circuits"]
    (bill,) = bills
    assert not bill.text_enters
    assert bill.prices["a step"].circuits == GROUPS + backward
    at_most = bill.prices["this run, 4 steps, at most"].circuits
    assert bill.prices["the final values"].circuits == GROUPS
    assert at_most == 4 * (GROUPS + backward) + GROUPS
    # Equal circuits of one call are sent once, and at the start those of both layers are equal.
    assert at_most - 1 - backward // 2 <= sent <= at_most


def test_exact_values_from_a_device_train_what_the_simulator_trains(on_device, recipe, tmp_path):
    there = train(on_device(device={"shots": None, "gradient": "parameter-shift"})).record
    settings = {"steps": 4, "batch_size": 2, "learning_rate": 0.05, "warmup": 0}
    here = train(recipe(adapter=ADAPTER, output={"folder": str(tmp_path / "here")}, training=settings)).record
    assert there["after"]["loss"] == pytest.approx(here["after"]["loss"], abs=1e-4)
    assert here["after"]["loss"] < here["before"]["loss"]


def test_an_interrupted_run_ends_as_an_undisturbed_one_and_pays_once(on_device, tmp_path, monkeypatch):
    undisturbed = train(on_device("undisturbed", device={"gradient": "spsa"}, checkpoint_every=1)).record["device"]
    fetch, calls = LocalDevice.fetch, []

    def interrupted(device, job_id):
        calls.append(job_id)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fetch(device, job_id)

    monkeypatch.setattr(LocalDevice, "fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(on_device(device={"gradient": "spsa"}, checkpoint_every=1))
    record = train(on_device(device={"gradient": "spsa"}, checkpoint_every=1), resume=True).record["device"]
    batches = Journal(tmp_path / "journal.sqlite").batches(run=record["run"])
    finished = {}
    for batch in batches:
        if batch.state.value == "finished":
            finished[(batch.key.step, batch.key.call, batch.key.part)] = batch.num_circuits
    assert sum(finished.values()) == undisturbed["circuits"]


def test_the_adapter_that_is_kept_has_the_values_that_the_device_measured(on_device, tmp_path):
    run = train(on_device(device={"final_shots": 400}, eval_every=2))
    assert json.loads((tmp_path / "run" / "adapter_config.json").read_text())["finalized"] is True
    found = load_file(tmp_path / "run" / "adapter_model.safetensors")
    (values,) = (tensor for name, tensor in found.items() if name.endswith("final_values"))
    assert torch.equal((values * 400 % 2).round() % 2, torch.zeros_like(values))  # means of 400 signs
    batches = Journal(tmp_path / "journal.sqlite").batches()
    # Two evaluations between steps ask for values of their own, and the end for those that are kept.
    assert sorted((batch.key.step, batch.key.call, batch.key.part) for batch in batches) == [
        (0, 0, "values"),
        (1, 0, "values"),
        (1, 1, "values"),
        (2, 0, "values"),
        (3, 0, "values"),
        (3, 1, "values"),
        (2**31 - 1, 0, "values"),
    ]
    circuits = run.record["device"]["circuits"]
    train(on_device("without", device={"final_shots": None}))
    assert json.loads((tmp_path / "without" / "adapter_config.json").read_text())["finalized"] is False
    assert circuits == 7 * GROUPS - 1


def test_a_budget_below_the_first_step_sends_nothing(on_device):
    with pytest.raises(DeviceError, match="max_circuits"):
        train(on_device(device={"max_circuits": 1, "gradient": "parameter-shift"}))


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bytes(recipe, tmp_path, monkeypatch):
    def make(folder):
        settings = {"steps": 4, "batch_size": 2, "learning_rate": 0.05, "checkpoint_every": 1, "warmup": 0}
        return recipe(adapter=ADAPTER, output={"folder": str(tmp_path / folder)}, training=settings)

    train(make("whole"))
    interrupted(make("parts"), monkeypatch, after=2)
    train(make("parts"), resume=True)
    assert weights(tmp_path, "parts") == weights(tmp_path, "whole")
    found = load_file(tmp_path / "whole" / "adapter_model.safetensors")
    assert sorted(name.rpartition(".")[2] for name in found) == ["fingerprint", "turns"]
    assert json.loads((tmp_path / "whole" / "adapter_config.json").read_text())["init_seed"] is not None
    (turns,) = (tensor for name, tensor in found.items() if name.endswith("turns"))
    assert torch.count_nonzero(turns) == GROUPS * ANGLES

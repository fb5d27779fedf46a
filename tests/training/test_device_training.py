"""Training with circuits on a quantum device: what is sent, what it costs, and what stays on the simulator."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from qpeft.devices import Journal, LocalDevice
from qpeft.devices.journal import BatchState
from qpeft.errors import AdapterError, BudgetError, DeviceError, GradientError, JournalError, OutputError, RecipeError
from qpeft.training import train
from qpeft.training.cost_estimate import Price, reachable
from qpeft.training.sections import AdapterSection
from qpeft.training.trainer import CheckpointingTrainer

LAYER = "layers.1.self_attn.v_proj"


@pytest.fixture
def on_device(recipe, tmp_path):
    """A function: the recipe with one layer on the local device, exact unless told otherwise."""

    def make(folder="run", **device):
        section = {"name": "local", "shots": None, "layers": [LAYER], "journal": str(tmp_path / "journal.sqlite")}
        return recipe(
            device=section | device, output={"folder": str(tmp_path / folder)}, training={"steps": 4, "batch_size": 2}
        )

    return make


def weights(tmp_path, folder):
    return (tmp_path / folder / "adapter_model.safetensors").read_bytes()


def bill_of(recipe):
    """The bill that a user is shown; nothing is sent."""
    found = []

    def refuse(bill):
        found.append(bill)
        raise DeviceError("no")

    with pytest.raises(DeviceError, match="no"):
        train(recipe, confirm=refuse)
    return found[0]


@pytest.mark.parametrize("gradient", ["simulated", "parameter-shift"])
def test_exact_values_from_a_device_train_what_the_simulator_trains(on_device, recipe, tmp_path, gradient):
    there = train(on_device(gradient=gradient)).record
    here = train(recipe(output={"folder": str(tmp_path / "here")}, training={"steps": 4, "batch_size": 2})).record
    assert there["after"]["loss"] == pytest.approx(here["after"]["loss"], abs=1e-4)
    assert there["device"]["circuits"] > 0
    assert here["device"] is None


def test_no_more_is_sent_than_the_bill_said_and_only_equal_circuits_less(on_device, tmp_path):
    prices = bill_of(on_device()).prices
    sent = train(on_device()).record["device"]["circuits"]
    at_most = prices["this run, 4 steps, at most"].circuits
    assert 0.5 * at_most < sent <= at_most
    assert sent == Journal(tmp_path / "journal.sqlite").spent(train_id(tmp_path)).circuits


def train_id(tmp_path):
    [batch, *_] = Journal(tmp_path / "journal.sqlite").batches()
    return batch.run


@pytest.mark.parametrize(("gradient", "per_row"), [("simulated", 0), ("parameter-shift", 24), ("spsa", 2)])
def test_the_bill_counts_values_and_gradients_of_every_token_that_reaches_the_loss(on_device, gradient, per_row):
    recipe = on_device(gradient=gradient, shots=100)
    bill = bill_of(recipe.model_copy(update={"adapter": recipe.adapter.model_copy(update={"ansatz": "ring_cz"})}))
    # 18 questions of one length: every step is the largest.
    assert bill.prices["a step of average length"].circuits % (1 + per_row) == 0
    assert bill.prices["a generated token"] == Price(circuits=1, shots=100, jobs=1)
    rows = bill.prices["a step of average length"].circuits // (1 + per_row)
    assert bill.prices["an epoch"].circuits == pytest.approx(9 * rows * (1 + per_row), rel=0.2)


def test_tokens_from_the_last_trained_one_on_cannot_reach_the_loss():
    from qpeft.data import Encoded

    assert reachable(Encoded([5, 6, 7, 8, 9], [-100, -100, 7, 8, -100], 0, (), "")) == 3


def test_what_is_measured_stays_on_the_simulator(on_device, tmp_path):
    recipe = on_device()
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"eval_every": 1})})
    train(recipe)
    batches = Journal(tmp_path / "journal.sqlite").batches()
    assert sorted({batch.key.step for batch in batches}) == [0, 1, 2, 3]
    assert len(batches) == 4


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")
def test_passes_that_checkpointing_repeats_are_answered_and_accumulated_batches_are_calls_of_their_own(
    on_device, tmp_path
):
    recipe = on_device(shots=20, gradient="spsa")
    training = {
        "steps": 2,
        "batch_size": 1,
        "gradient_accumulation": 2,
        "gradient_checkpointing": True,
        "eval_every": 1,
    }
    adapter = recipe.adapter.model_copy(update={"dropout": 0.1})
    train(recipe.model_copy(update={"training": recipe.training.model_copy(update=training), "adapter": adapter}))
    keys = [batch.key for batch in Journal(tmp_path / "journal.sqlite").batches()]
    found = sorted((key.step, key.call, key.part.split(":")[0]) for key in keys)
    # A fresh layer's values do not matter yet, so the first step has no gradient.
    parts = [(0, "values"), (1, "gradient"), (1, "values")]
    assert found == sorted((step, call, part) for step, part in parts for call in (0, 1))


@pytest.mark.parametrize("gradient", ["parameter-shift", "spsa"])
def test_an_interrupted_run_ends_as_an_undisturbed_one_and_pays_once(on_device, tmp_path, monkeypatch, gradient):
    options = {"shots": 50, "gradient": gradient, "options": {"seed": 3}}
    undisturbed = train(on_device("undisturbed", **options)).record["device"]
    fetch, calls = LocalDevice.fetch, []

    def interrupted(device, job_id):
        calls.append(job_id)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return fetch(device, job_id)

    monkeypatch.setattr(LocalDevice, "fetch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(on_device("run", **options))
    record = train(on_device("run", **options), resume=True).record["device"]
    # Its jobs end with their process, so the one that was lost is run again.
    assert undisturbed["circuits"] < record["circuits"] < 2 * undisturbed["circuits"]
    finished = Journal(tmp_path / "journal.sqlite").batches(run=record["run"], state=BatchState.FINISHED)
    assert sum(batch.num_circuits for batch in finished) == undisturbed["circuits"]


@pytest.mark.parametrize(
    ("mitigation", "times"), [(["readout"], 1), (["zero_noise"], 3), (["readout", "zero_noise"], 3)]
)
def test_mitigation_is_in_the_bill_and_in_what_is_sent(on_device, tmp_path, mitigation, times):
    plain = bill_of(on_device(shots=50)).prices
    recipe = on_device(shots=50, mitigation=mitigation)
    prices = bill_of(recipe).prices
    assert prices["an epoch"].circuits == times * plain["an epoch"].circuits
    assert prices["an epoch"].shots == times * plain["an epoch"].shots
    sent = train(recipe).record["device"]["circuits"]
    at_most = prices["this run, 4 steps, at most"]
    assert at_most.circuits - 4 * times * plain["the largest step"].circuits == 2 * ("readout" in mitigation)
    assert 0.5 * at_most.circuits < sent <= at_most.circuits


def test_circuits_of_known_outcome_are_in_the_bill_and_in_what_is_sent(on_device, tmp_path, monkeypatch):
    recipe = on_device(gradient="parameter-shift", shots=20)
    plain, own = bill_of(recipe), LocalDevice.capabilities
    monkeypatch.setattr(
        LocalDevice, "capabilities", lambda device: replace(own(device), answers_by_place=True, max_circuits=100)
    )
    bill = bill_of(recipe)
    assert "1 circuit to 49 others" in bill.table().caption
    for name, price in bill.prices.items():
        before = plain.prices[name]
        assert before.circuits * 50 / 49 - 16 < price.circuits <= before.circuits * 50 / 49
        assert price.shots == 20 * price.circuits
        assert price.jobs >= price.circuits / 100
    record = train(recipe).record["device"]
    journal = Journal(tmp_path / "journal.sqlite")
    batches = journal.batches()
    markers = sum(len(journal.markers(batch)) for batch in batches)
    assert markers >= 4
    assert all(50 * len(journal.markers(batch)) <= batch.num_circuits <= 100 for batch in batches)
    assert record["circuits"] == sum(batch.num_circuits for batch in batches)
    assert record["circuits"] <= bill.prices["this run, 4 steps, at most"].circuits


def test_a_budget_stops_a_run_and_a_higher_one_lets_it_go_on(on_device):
    price = bill_of(on_device()).prices["the largest step"].circuits
    with pytest.raises(BudgetError, match="max_circuits"):
        train(on_device(max_circuits=2 * price))
    record = train(on_device(max_circuits=5 * price), resume=True).record
    assert record["state"] == "finished"
    assert record["device"]["circuits"] <= 5 * price


def test_resuming_with_another_device_option_is_refused(on_device):
    with pytest.raises(BudgetError):
        train(on_device(max_circuits=1))
    with pytest.raises(OutputError, match=r"device\.shots"):
        train(on_device(shots=7), resume=True)


def test_a_resumed_run_goes_on_with_the_journal_that_it_began_with_wherever_it_is_started(
    on_device, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    recipe = on_device(max_circuits=1, journal="paid.sqlite")
    with pytest.raises(BudgetError):
        train(recipe)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(BudgetError):
        train(recipe, resume=True)
    assert not (tmp_path / "elsewhere" / "paid.sqlite").exists()
    (tmp_path / "paid.sqlite").unlink()
    with pytest.raises(JournalError, match=r"no journal at .*paid\.sqlite"):
        train(recipe, resume=True)


def test_resuming_without_the_device_or_an_option_of_the_adapter_is_refused(on_device):
    recipe = on_device(max_circuits=1)
    with pytest.raises(BudgetError):
        train(recipe)
    with pytest.raises(OutputError, match=r"device\.layers"):
        train(recipe.model_copy(update={"device": None}), resume=True)
    with pytest.raises(OutputError, match=r"adapter\.rank"):
        train(recipe.model_copy(update={"adapter": AdapterSection(target_modules=["q_proj", "v_proj"])}), resume=True)


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ({"name": "locl"}, DeviceError, "did you mean 'local'"),
        ({"options": {"sed": 1}}, DeviceError, "did you mean 'seed'"),
        ({"layers": ["layers.1.self_attn.w_proj"]}, AdapterError, "did you mean"),
        ({"gradient": "spsaa"}, GradientError, "did you mean 'spsa'"),
        ({"gradient": "spsa", "gradient_options": {"directions": 2}}, RecipeError, "num_directions"),
        ({"options": {"num_qubits": 3}}, DeviceError, "has 3 qubits"),
    ],
)
def test_a_device_that_cannot_be_had_is_named_before_anything_is_written(on_device, tmp_path, device, error, message):
    with pytest.raises(error, match=message):
        train(on_device(**device))
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(on_device, monkeypatch):
    monkeypatch.setattr("qpeft.training.quantum.number_of_processes", lambda: 2)
    with pytest.raises(DeviceError, match="one process"):
        train(on_device())


def test_a_batch_that_is_divided_among_gpus_is_refused():
    trainer = SimpleNamespace(_device_steps=object())
    with pytest.raises(DeviceError, match="CUDA_VISIBLE_DEVICES=0"):
        CheckpointingTrainer.begin_batch(trainer, torch.nn.DataParallel(torch.nn.Linear(1, 1)), {})


def test_circuits_and_prices_are_shown_before_and_after(on_device):
    text = io.StringIO()
    train(on_device(), console=Console(file=text, width=120))
    assert "a step of average length" in text.getvalue()
    assert "sent to the device in all" in text.getvalue()

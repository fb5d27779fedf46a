"""Packed rows are trained on as their examples are alone."""

import pytest
import torch
from rich.console import Console

from qpeft.adapters.build import build_config
from qpeft.data import PackedExamples, encode_all, load_examples, pad_batch
from qpeft.errors import RecipeError
from qpeft.evaluation import held_out_loss
from qpeft.models import load_model, load_tokenizer
from qpeft.training.dry_run import require_separate_examples
from qpeft.training.setup import adapted_model, make_trainer


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(str(tiny_model)).eval()


@pytest.fixture(scope="module")
def encoded(tiny_model, sums):
    return encode_all(load_tokenizer(str(tiny_model)), load_examples(str(sums)))


def token_losses(logits, labels):
    """Cross entropy of each trained token, in the order of the tokens."""
    wanted = labels[1:] != -100
    return torch.nn.functional.cross_entropy(logits[:-1][wanted], labels[1:][wanted], reduction="none")


def test_packed_losses_equal_those_of_each_example_alone(model, encoded):
    rows = PackedExamples(encoded, capacity=160)
    assert max(len(row.lengths) for row in rows) > 2
    batch = pad_batch(rows[:], packed=True)
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        alone = [
            token_losses(model(input_ids=torch.tensor([one.input_ids])).logits[0], torch.tensor(one.labels))
            for one in encoded
        ]
    losses = torch.cat([token_losses(*row) for row in zip(packed, batch["labels"], strict=True)])
    torch.testing.assert_close(losses.sort().values, torch.cat(alone).sort().values, atol=1e-5, rtol=0)


def test_rows_without_restarting_positions_would_give_other_losses(model, encoded):
    (row, *_) = PackedExamples(encoded, capacity=160)
    batch = pad_batch([row], packed=True)
    with torch.no_grad():
        apart = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        together = model(input_ids=batch["input_ids"], use_cache=False).logits
    assert (apart - together)[0, row.lengths[0] :].abs().max() > 1e-2


def test_a_model_whose_tokens_see_the_example_before_theirs_is_refused(model, monkeypatch):
    require_separate_examples(model)
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda input_ids, **_: forward(input_ids=input_ids))
    with pytest.raises(RecipeError, match=r"llama with sdpa attention lets packed .* Set training.packing: false"):
        require_separate_examples(model)


@pytest.mark.slow
def test_a_packed_run_trains_and_its_trainer_takes_the_mean_over_trained_tokens(recipe, model, encoded):
    made = recipe(
        training={"packing": True, "steps": 30, "learning_rate": 0.02},
        data={"max_length": 160, "hold_out": None},
    )
    adapted = adapted_model(made, build_config(made.adapter.type, made.adapter.options))
    tokenizer, rows = load_tokenizer(made.model.name), PackedExamples(encoded, 160)
    trainer, _ = make_trainer(made, adapted, tokenizer, rows, None, None, Console(quiet=True), None)
    batch = next(iter(trainer.get_train_dataloader()))
    loss = trainer.compute_loss(trainer.model, dict(batch))
    assert loss.item() == pytest.approx(held_out_loss(model, encoded).loss, rel=1e-5)
    trainer.train_from(None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.5

"""The trainers of TRL and transformers with our adapters, by the snippets of docs/integrations.md."""

import json
import math

import datasets
import pytest
import snippets
import torch
from peft import PeftModel

from qpeft.models import load_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore::FutureWarning:(transformers|peft|trl)\."),
    pytest.mark.filterwarnings("ignore:.pin_memory. argument is set:UserWarning"),
]
METHODS = {"qtha": "QthaConfig", "loretta": "LorettaConfig"}


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_model):
    """A folder with the page's data files, as working directory; what to replace in its snippets."""
    sums = [(f"What is {a} and {b}?", f" {a + b}", f" {a + b + 1}") for a in range(4) for b in range(4)]
    for name, keys in {"train": ("prompt", "completion"), "preferences": ("prompt", "chosen", "rejected")}.items():
        lines = [json.dumps(dict(zip(keys, row, strict=False))) + "\n" for row in sums]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return {snippets.MODEL: str(tiny_model)}


@pytest.mark.parametrize("config", METHODS.values(), ids=METHODS)
def test_sft_trains_the_adapter_alone_and_saves_what_it_trained(here, config, tiny_model):
    names = snippets.run("TRL: supervised fine-tuning", here | {"QthaConfig": config, **on_cpu("sft-adapter")})
    trained = names["trainer"].model.eval()
    assert_learned(trained, tiny_model)
    assert torch.equal(logits(names["model"].eval()), logits(trained))


@pytest.mark.parametrize("config", METHODS.values(), ids=METHODS)
def test_dpo_starts_at_the_base_model_and_moves_away_from_it(here, config, tiny_model):
    names = snippets.run("TRL: preferences", here | {"QthaConfig": config, **on_cpu("dpo-adapter")})
    history = names["trainer"].state.log_history
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert history[-2]["loss"] < math.log(2)
    assert_learned(names["trainer"].model.eval(), tiny_model)


@pytest.mark.parametrize("config", METHODS.values(), ids=METHODS)
def test_trainer_trains_the_adapter_alone_and_saves_what_it_trained(here, config, tiny_model, tmp_path):
    names = snippets.run("transformers: Trainer", here | {"QthaConfig": config})
    trained = names["model"].eval()
    assert_learned(trained, tiny_model)
    again = PeftModel.from_pretrained(load_model(str(tiny_model)), str(tmp_path / "trainer-adapter")).eval()
    assert torch.equal(logits(again), logits(trained))


def on_cpu(folder):
    """What the page tells those without a GPU to add."""
    return {f'("{folder}", ': f'("{folder}", use_cpu=True, bf16=False, '}


def assert_learned(model, base):
    """The adapter changes the logits, and without it they are still those of the base model on disk."""
    untouched = logits(load_model(str(base)))
    assert (logits(model) - untouched).abs().max() > 1e-3
    with model.disable_adapter():
        assert torch.equal(logits(model), untouched)


@torch.no_grad()
def logits(model):
    return model(torch.arange(3, 40)[None].to(model.device)).logits.float()

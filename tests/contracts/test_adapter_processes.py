"""Adapters leave the process that made them; qpeft is imported first, last, twice, in a worker, or forgotten."""

import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from other_process import PEFT_FIRST, load_everything, load_odd_options
from peft import get_peft_model
from small_adapters import SMALL, TARGETS, logits, shake

from qpeft.adapters import ADAPTERS

INTEGRATIONS = Path(__file__).parents[2] / "docs/integrations.md"


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    """Folder with the adapter of every method, in a folder of its name, and what the model then says."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("saved")
    tokens = torch.randint(3, 250, (2, 7), generator=torch.Generator().manual_seed(2))
    for name, (config_class, _) in ADAPTERS.items():
        config = config_class(**SMALL[name], target_modules=TARGETS, task_type="CAUSAL_LM", init_seed=0)
        model = shake(get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config))
        model.save_pretrained(folder / name)
        torch.save({"tokens": tokens, "logits": logits(model, tokens)}, folder / name / "expected.pt")
    return folder


@pytest.fixture(scope="module")
def worker():
    """One spawned process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as workers:
        yield workers


@pytest.fixture(scope="module")
def spawned(worker, saved, tiny_model):
    """What a spawned process found that had nothing but qpeft."""
    return worker.submit(load_everything, tiny_model, saved).result()


@pytest.fixture(scope="module")
def odd(spawned, worker, tmp_path_factory):
    """What was wrong where options of saved adapters were replaced by odd values."""
    return worker.submit(load_odd_options, tmp_path_factory.mktemp("odd")).result()


@pytest.fixture(scope="module")
def peft_first(saved):
    """What a process found that imported PEFT before qpeft."""
    done = subprocess.run([sys.executable, "-c", PEFT_FIRST, saved], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.feature("new_process")
def test_an_adapter_is_the_same_in_a_spawned_process(spawned, method):
    assert spawned[method][0] == 0.0


@pytest.mark.feature("compile")
def test_a_compiled_layer_gives_the_same(spawned, method):
    assert spawned[method][1] <= 1e-5


def test_any_option_of_any_type_loads_or_is_refused_in_a_sentence(odd, method):
    assert odd[method] == []


def test_without_qpeft_peft_stops_with_the_error_that_docs_and_model_card_quote(peft_first, method):
    assert peft_first[method][0] == f"KeyError: '{method.upper()}'"
    if method == "qtha":
        assert f"`{peft_first[method][0]}`" in INTEGRATIONS.read_text(encoding="utf-8")


def test_qpeft_may_come_after_peft_and_twice(peft_first, method):
    assert peft_first[method][1] == method.upper()

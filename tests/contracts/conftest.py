"""A row of small options for every method of ours, models that carry it, and the table of what they can do."""

import copy
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from feature_table import FEATURES, is_deliberate, outcome, render
from small_adapters import MATRICES, SMALL, TARGETS, shake

from qpeft.adapters import ADAPTERS

OUTCOMES = pytest.StashKey()
REFUSALS = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--feature-table", metavar="FILE", help="write the table of methods and features to this file")


def pytest_configure(config):
    config.addinivalue_line("markers", "feature(name): a row of the table of methods and features")
    config.stash[OUTCOMES], config.stash[REFUSALS] = defaultdict(list), defaultdict(dict)


def pytest_collection_modifyitems(items):
    for item in items:
        for mark in item.iter_markers("feature"):
            if not set(mark.args) <= FEATURES.keys():
                raise pytest.UsageError(f"{item.nodeid}: tests/contracts/feature_table.py has no feature {mark.args}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    name = getattr(getattr(item, "callspec", None), "params", {}).get("method")
    if name and (report.when == "call" or report.skipped or report.failed):
        # Methods that say the same of themselves are quoted once.
        refusals = {said.replace(name.upper(), ""): said for key, said in item.user_properties if key == "refusal"}
        for feature in (feature for mark in item.iter_markers("feature") for feature in mark.args):
            item.config.stash[OUTCOMES][feature, name].append(outcome(report, refusals))
            item.config.stash[REFUSALS][feature] = refusals | item.config.stash[REFUSALS][feature]
    return report


def pytest_sessionfinish(session):
    if file := session.config.getoption("--feature-table", default=None):
        # Of pytest-xdist's processes each sees its own share of the outcomes, and the one that waits sees none.
        if session.config.getoption("numprocesses", default=None) or hasattr(session.config, "workerinput"):
            raise pytest.UsageError("--feature-table needs all tests in one process: leave out -n.")
        sentences = {feature: set(said.values()) for feature, said in session.config.stash[REFUSALS].items()}
        page = render(list(ADAPTERS), session.config.stash[OUTCOMES], sentences)
        Path(file).write_text(page, encoding="utf-8")


@pytest.fixture
def refusing(request):
    """A function like `pytest.raises` for a feature that the method refuses, as the table then says."""

    @contextmanager
    def refused(error, sentence):
        with pytest.raises(error, match=sentence) as caught:
            yield
        assert is_deliberate(caught.value), f"met by accident: {caught.value!r}"
        request.node.user_properties.append(("refusal", " ".join(str(caught.value).split())))

    return refused


@pytest.fixture(params=ADAPTERS)
def method(request):
    """Name of a method, one after the other."""
    return request.param


@pytest.fixture
def config(method):
    """A function from options to a config of the method, on q and v unless told otherwise."""

    def make(**options):
        settings = {"target_modules": TARGETS, "task_type": "CAUSAL_LM", "init_seed": 0}
        return ADAPTERS[method][0](**(SMALL[method] | settings | options))

    return make


@pytest.fixture(scope="session")
def _base_model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture
def base(_base_model):
    """A function: a fresh copy of the tiny model."""
    return lambda: copy.deepcopy(_base_model)


@pytest.fixture
def trained(base, config):
    """A function: the tiny model with an adapter of random weights, as after training, in evaluation mode."""
    from peft import get_peft_model

    def make(model=None, **options):
        return shake(get_peft_model(model or base(), config(**options))).eval()

    return make


@pytest.fixture
def tokens():
    """Three rows of seven tokens."""
    return torch.randint(3, 250, (3, 7), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def two_adapters(trained, config):
    """A model with adapters "default" and "second" of different weights."""
    model = trained()
    model.add_adapter("second", config(target_modules=TARGETS[:1], init_seed=1))
    return shake(model, seed=4).eval()


@pytest.fixture
def merges(method):
    """Whether updates of the method are matrices."""
    return method in MATRICES

"""Methods of other packages: the documented one works wherever it is imported, and a broken one breaks nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import qpeft
from qpeft import LorettaConfig, LorettaModel, QthaConfig, QthaModel
from qpeft.adapters import ADAPTERS, plugins, register_adapter
from qpeft.adapters.build import build_config
from qpeft.errors import AdapterError

EXAMPLE = Path(__file__).parents[2] / "examples/outside_adapter"

PROGRAM = """
import importlib, json, sys, warnings
first, base, folder = sys.argv[1:]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    importlib.import_module(first)
    import qpeft
said = [str(warning.message) for warning in caught if "adapter" in str(warning.message)]
import torch
from peft import PeftModel
from qpeft.adapters import ADAPTERS
from qpeft.adapters.build import add_adapter, build_config
from qpeft.adapters.load import load_adapter
from qpeft.errors import AdapterError
from pathlib import Path
from transformers import AutoModelForCausalLM
load = lambda: AutoModelForCausalLM.from_pretrained(base)
try:
    build_config("broken", {})
except AdapterError as error:
    refusal = str(error)
tokens = torch.arange(3, 17).reshape(2, 7)
model = add_adapter(load(), build_config("diagonal", {"target_modules": ["q_proj", "v_proj"]}))
optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
losses = []
for _ in range(2):
    loss = model(tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
model.eval().save_pretrained(folder)
with torch.no_grad():
    logits = model(tokens).logits
    reloaded = (load_adapter(load(), Path(folder))(tokens).logits - logits).abs().max().item()
    merged = (model.merge_and_unload()(tokens).logits - logits).abs().max().item()
print(json.dumps([list(ADAPTERS), said, refusal, losses, reloaded, merged]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder where the example is installed, and beside it a package whose adapter cannot be imported."""
    folder = tmp_path_factory.mktemp("site")
    install(folder, "qpeft_diagonal", points=announced(EXAMPLE / "pyproject.toml"))
    (folder / "qpeft_diagonal.py").write_text((EXAMPLE / "qpeft_diagonal.py").read_text(encoding="utf-8"))
    install(folder, "qpeft_broken", points="[qpeft.adapters]\nbroken = qpeft_broken\n")
    (folder / "qpeft_broken.py").write_text("import a_package_that_is_not_there\n")
    install(folder, "qpeft_silent", points="[qpeft.adapters]\nsilent = qpeft_silent\n")
    (folder / "qpeft_silent.py").touch()
    return folder


def announced(pyproject):
    """The entry points of a project, as an installed package lists them."""
    lines = pyproject.read_text(encoding="utf-8").splitlines()
    at = lines.index('[project.entry-points."qpeft.adapters"]')
    return f"[qpeft.adapters]\n{lines[at + 1]}\n".replace('"', "")


def install(site, package, *, points):
    """Write what an installer would leave of a package, but for its modules."""
    folder = site / f"{package}-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text(points)


@pytest.mark.parametrize("first", ["qpeft", "qpeft_diagonal"])
def test_the_example_trains_saves_reloads_and_merges_beside_a_broken_one(installed, tiny_model, tmp_path, first):
    paths = [str(installed), str(Path(qpeft.__file__).parents[1])]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}\n{PROGRAM}", first, tiny_model, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names, said, refusal, losses, reloaded, merged = json.loads(done.stdout)
    assert names == [*ADAPTERS, "diagonal"]
    assert losses[1] < losses[0]
    assert reloaded == 0.0
    assert merged < 1e-5
    silent, broken = sorted(said, reverse=True)
    assert broken == refusal
    assert "package qpeft-silent announces it, but qpeft_silent registers no such adapter" in silent
    assert "'broken' cannot be used: package qpeft-broken announces it, but ModuleNotFoundError" in refusal


@pytest.mark.parametrize(
    ("name", "config_class", "model_class", "sentence"),
    [
        ("Other", QthaConfig, QthaModel, "a lower-case word"),
        ("other", dict, QthaModel, "'other' needs a class of AdapterConfig; got <class 'dict'>"),
        ("other", QthaConfig, QthaConfig, "'other' needs a class of AbstractAdapterModel"),
        ("other", QthaConfig, QthaModel, "model_class.prefix must be 'other_'; got 'qtha_'"),
        ("qtha", LorettaConfig, QthaModel, "peft_type of its config must be 'QTHA'; got .*LORETTA"),
        ("qtha", type("Mine", (QthaConfig,), {}), QthaModel, "The name 'qtha' is taken: PEFT already has"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(name, config_class, model_class, sentence):
    before = dict(ADAPTERS)
    with pytest.raises(AdapterError, match=sentence):
        register_adapter(name, config_class, model_class)
    assert before == ADAPTERS


def test_the_same_classes_once_more_change_nothing():
    before = dict(ADAPTERS)
    register_adapter("loretta", LorettaConfig, LorettaModel)
    assert list(before.items()) == list(ADAPTERS.items())


def test_one_that_could_not_be_loaded_says_so_when_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(plugins.FAILED, "sine", "package waves announces it, but ImportError: no numbers")
    with pytest.raises(AdapterError, match="'sine' cannot be used: package waves announces it"):
        build_config("sine", {})

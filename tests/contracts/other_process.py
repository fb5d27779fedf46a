"""What contracts let a fresh process do; spawned processes find it here by name."""

import itertools
import json
import sys
from pathlib import Path

from small_adapters import SMALL, OneLinear


def load_everything(base, folder):
    """Load the saved adapters of every method in a process that has nothing but qpeft, and compile a layer.

    Args:
        base: folder of the base model.
        folder: a folder a method, with the adapter and `expected.pt`, tokens and logits.

    Returns:
        Method to the largest differences: reloaded from expected logits, compiled from plain layer.
    """
    assert "peft" not in sys.modules
    import qpeft  # noqa: F401

    # isort: split
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    found = {}
    for adapter in sorted(Path(folder).iterdir()):
        expected = torch.load(adapter / "expected.pt")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
        layer = model.base_model.model.model.layers[0].self_attn.q_proj
        # The back end that needs no C++ compiler.
        compiled, x = torch.compile(layer, backend="aot_eager"), torch.randn(5, layer.in_features)
        with torch.no_grad():
            logits = model(expected["tokens"]).logits
            difference = (compiled(x) - layer(x)).abs().max().item()
        found[adapter.name] = ((logits - expected["logits"]).abs().max().item(), difference)
    return found


ODD_VALUES = (None, -3, 0.5, "x", [], {}, [[]], {"a": "b"})


def load_odd_options(folder):
    """Load adapters of every method with every option replaced by every odd value, where nothing checks types.

    Returns:
        Method to "option=value: exception" for each exception that is no AdapterError or runs over several lines.
    """
    from peft import get_peft_model

    from qpeft.adapters import ADAPTERS
    from qpeft.adapters.load import load_adapter
    from qpeft.errors import AdapterError

    found = {}
    for method, (config_class, _) in ADAPTERS.items():
        config = config_class(**SMALL[method], target_modules=["layer"])
        get_peft_model(OneLinear(), config).save_pretrained(Path(folder) / method)
        file = Path(folder) / method / "adapter_config.json"
        stored = json.loads(file.read_text())
        found[method] = []
        for name, value in itertools.product(stored, ODD_VALUES):
            file.write_text(json.dumps(stored | {name: value}))
            try:
                load_adapter(OneLinear(), file.parent)
            except Exception as error:
                if not isinstance(error, AdapterError) or "\n" in str(error):
                    found[method].append(f"{name}={value!r}: {error!r}")
    return found


PEFT_FIRST = """
import contextlib, importlib, io, json, sys, traceback
from pathlib import Path
from peft import PeftConfig, PeftModel
from torch import nn
found = {}
for adapter in Path(sys.argv[1]).iterdir():
    try:
        PeftModel.from_pretrained(nn.Linear(1, 1), adapter)
    except KeyError as error:
        found[adapter.name] = [traceback.format_exception_only(error)[-1].strip()]
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    import qpeft
    importlib.reload(qpeft.adapters)
    importlib.reload(qpeft)
assert said.getvalue() == "", said.getvalue()
for adapter in Path(sys.argv[1]).iterdir():
    found[adapter.name].append(PeftConfig.from_pretrained(adapter).peft_type.value)
print(json.dumps(found))
"""
"""A program: loads adapters without qpeft, and their configs after importing it twice, which must print nothing."""

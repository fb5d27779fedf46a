"""An exported LoRA where qpeft is not installed: plain PEFT loads it and computes the same."""

import os
import subprocess
import sys

import pytest
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from qpeft import LorettaConfig, QthaConfig
from qpeft.exporting import export_lora, merge_adapter

BLOCK = """
import sys
class NoQpeft:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "qpeft":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoQpeft())
"""

LOAD = """
import sys
try:
    import qpeft
except ModuleNotFoundError:
    pass
else:
    sys.exit("qpeft is there")
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
base, lora, merged, expected = sys.argv[1:]
expected = load_file(expected)
for kind, folder in (("lora", base), ("merged", merged)):
    model = AutoModelForCausalLM.from_pretrained(folder)
    if kind == "lora":
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, lora)
    with torch.no_grad():
        logits = model.eval()(input_ids=expected["input_ids"]).logits
    print(kind, float((logits - expected[kind]).abs().max()), float((logits - expected["adapter"]).abs().max()))
print(sorted(name for name in sys.modules if name.startswith("qpeft")))
"""

CONFIGS = {
    "loretta": LorettaConfig(rank=4, bond_dimension=5, num_modes=2, target_modules=["q_proj", "v_proj"]),
    "qtha": QthaConfig(rank=4, target_modules=["q_proj", "v_proj"]),
}


def plain_python(script):
    """A command that runs a script without qpeft: in the environment named for that, or in ours with it shut out."""
    if interpreter := os.environ.get("QPEFT_PLAIN_PYTHON"):
        return [interpreter, "-I", "-c", script]
    return [sys.executable, "-I", "-c", BLOCK + script]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_loads_without_qpeft_and_gives_the_same_logits(
    trained, base, tokenizer, tiny_model, texts, logits, tmp_path, config
):
    model, one = trained(config), texts[0]
    adapter = logits(model, one)
    export_lora(model, tmp_path / "lora", calibration=texts, tolerance=1)
    merge_adapter(model, tokenizer, tmp_path / "merged", calibration=texts, tolerance=1)
    import torch

    expected = {
        "input_ids": torch.tensor([one.input_ids]),
        "adapter": adapter[None],
        "lora": logits(PeftModel.from_pretrained(base(), tmp_path / "lora"), one)[None],
        "merged": logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), one)[None],
    }
    save_file({name: value.contiguous() for name, value in expected.items()}, tmp_path / "expected.safetensors")
    folders = [str(tmp_path / name) for name in ("lora", "merged", "expected.safetensors")]
    command = [*plain_python(LOAD), str(tiny_model), *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    for line in lines:
        _, apart, from_adapter = line.split()
        assert float(apart) <= 1e-5  # sums of other threads round otherwise
        if isinstance(config, LorettaConfig):
            assert float(from_adapter) < 1e-4
    assert [line.split()[0] for line in lines] == ["lora", "merged"]

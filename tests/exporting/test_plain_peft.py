"""An exported LoRA where qpeft is not installed: plain PEFT loads it and computes the same."""

import os
import subprocess
import sys

import torch
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
base, *folders = sys.argv[1:]
for folder in folders:
    expected = load_file(folder + "/expected.safetensors")
    for kind, weights in (("lora", base), ("merged", folder + "/merged")):
        model = AutoModelForCausalLM.from_pretrained(weights)
        if kind == "lora":
            from peft import PeftModel
            model = PeftModel.from_pretrained(model, folder + "/lora")
        with torch.no_grad():
            logits = model.eval()(input_ids=expected["input_ids"]).logits
        apart = [float((logits - expected[name]).abs().max()) for name in (kind, "adapter")]
        print(kind, *apart)
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


def test_it_loads_without_qpeft_and_gives_the_same_logits(
    trained, base, tokenizer, tiny_model, texts, logits, tmp_path
):
    one = texts[0]
    for name, config in CONFIGS.items():
        folder, model = tmp_path / name, trained(config)
        adapter = logits(model, one)
        export_lora(model, folder / "lora", calibration=texts, tolerance=1)
        merge_adapter(model, tokenizer, folder / "merged", calibration=texts, tolerance=1)
        expected = {
            "input_ids": torch.tensor([one.input_ids]),
            "adapter": adapter[None],
            "lora": logits(PeftModel.from_pretrained(base(), folder / "lora"), one)[None],
            "merged": logits(AutoModelForCausalLM.from_pretrained(folder / "merged"), one)[None],
        }
        save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    # One process for all: most of its time goes into importing transformers and peft.
    command = [*plain_python(LOAD), str(tiny_model), *(str(tmp_path / name) for name in CONFIGS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    found = [(kind, float(apart), float(from_adapter)) for kind, apart, from_adapter in map(str.split, lines)]
    assert [kind for kind, _, _ in found] == ["lora", "merged"] * len(CONFIGS)
    assert all(apart <= 1e-5 for _, apart, _ in found)  # sums of other threads round otherwise
    of_loretta = found[2 * list(CONFIGS).index("loretta") :][:2]
    assert all(from_adapter < 1e-4 for _, _, from_adapter in of_loretta)

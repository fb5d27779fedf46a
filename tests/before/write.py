"""What a version of before wrote, kept here: python tests/before/write.py FOLDER, with that version on the path.

Written once by commit fef312c (November 2026): an adapter of every method on a tiny model, what that model then says, a
recipe in the words of its time, a run that was stopped after half of its steps, and the journal of a run on a device.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
import yaml
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.append(str(Path(__file__).parents[1]))
from qpeft.adapters import ADAPTERS
from qpeft.training import train
from qpeft.training.config import parse_recipe
from qpeft.training.trainer import CheckpointingTrainer
from tiny_model import make_model, write_sums

OPTIONS = {
    "qtha": {"rank": 4, "middle": "frozen_circuit"},
    "loretta": {"rank": 4, "bond_dimension": 5, "num_modes": 2},
    "quanta": {"num_axes": 3},
    "tt_lora": {"rank": 4, "num_modes": 2},
    "qpa": {"rank": 4, "chunk_size": 8, "hidden_size": 3, "depth": 2},
    "quantum_peft": {"rank": 4, "depth": 2},
}


def small_model():
    """A language model with the same random weights in every version of torch that draws the same numbers."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_key_value_heads=2, pad_token_id=0, **sizes)).eval()
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            # A formula and no generator: the same numbers for good.
            weight.copy_((torch.arange(weight.numel()) * (0.37 + number)).sin().reshape(weight.shape) / 6)
    return model


def write(folder):
    """Everything, into a new folder."""
    tokens = torch.arange(1, 15).reshape(2, 7)
    logits = {}
    for method, options in OPTIONS.items():
        config = ADAPTERS[method][0](target_modules=["q_proj", "v_proj"], init_seed=0, task_type="CAUSAL_LM", **options)
        model = get_peft_model(small_model(), config)
        with torch.no_grad():
            for number, (name, weight) in enumerate(model.named_parameters()):
                if "_branch." in name:
                    weight.copy_((torch.arange(weight.numel()) * (0.21 + number)).cos().reshape(weight.shape) / 3)
            logits[method] = model.eval()(tokens).logits[0, -1, :8].tolist()
        model.save_pretrained(folder / "adapters" / method)
        (folder / "adapters" / method / "README.md").unlink()
    (folder / "logits.json").write_text(json.dumps(logits, indent=1) + "\n")

    make_model(folder / "model")
    write_sums(folder / "sums.jsonl")
    for name, device in (("stopped", None), ("on_device", {"name": "local", "shots": 20, "options": {"seed": 1}})):
        values = {
            "model": {"name": "model"},
            "data": {"train": "sums.jsonl", "hold_out": 6},
            "adapter": {"type": "qtha", "rank": 2, "middle": "circuit", "target_modules": ["v_proj"]},
            "training": {"steps": 4, "batch_size": 2, "checkpoint_every": 2, "log_every": 1, "report_to": "none"},
            "evaluation": {"before": False},
            "output": {"folder": name},
        }
        if device is not None:
            values["device"] = device | {"layers": ["layers.1.self_attn.v_proj"], "journal": "journal.sqlite"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        step = CheckpointingTrainer.training_step

        def stopping(self, *args, step=step, **kwargs):
            if self.state.global_step == 2:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        CheckpointingTrainer.training_step = stopping
        try:
            train(parse_recipe(values, source="test"))
        except KeyboardInterrupt:
            pass
        finally:
            CheckpointingTrainer.training_step = step
        record = json.loads((folder / name / "run.json").read_text())
        # No path of the machine that wrote it; tests put theirs in.
        record["environment"]["command"] = ["write.py"]
        if record["device"] is not None:
            record["device"]["journal"] = "JOURNAL"
        (folder / name / "run.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        for card in (folder / name).rglob("README.md"):
            card.unlink()
    shutil.rmtree(folder / "model")  # as tests make it


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    target.mkdir()
    os.chdir(target)
    write(Path())

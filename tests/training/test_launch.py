"""Training in two processes of a launcher, on a CPU: the same run as in one."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from safetensors.torch import load_file
from torch.testing import assert_close

from qpeft.training import train

FAILING = """
import os
from qpeft.training.trainer import CheckpointingTrainer
from qpeft_cli.main import main

step = CheckpointingTrainer.training_step

def fail_in_the_second(self, *args, **kwargs):
    if os.environ["RANK"] == "1" and self.state.global_step == 4:
        raise RuntimeError("the second process fails")
    return step(self, *args, **kwargs)

CheckpointingTrainer.training_step = fail_in_the_second
main()
"""
UNCALLED = """
from torch.nn.functional import linear, silu
from transformers.models.llama.modeling_llama import LlamaMLP
from qpeft_cli.main import main

LlamaMLP.forward = lambda self, x: self.down_proj(silu(linear(x, self.gate_proj.weight)) * self.up_proj(x))
main()
"""
TRAINING = {"log_every": 1, "eval_every": 3, "group_by_length": True, "learning_rate": 0.01}


def launch(*arguments):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--main_process_port", "0", *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.fixture
def file_of(tmp_path):
    """A function: a recipe as a file."""

    def write(recipe):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        return str(path)

    return write


def losses(record):
    return [entry.get("loss", entry.get("eval_loss")) for entry in record["history"] if "train_runtime" not in entry]


@pytest.mark.slow
def test_two_processes_one_of_which_failed_give_the_run_of_one(recipe, file_of, tmp_path):
    data = {"hold_out": 8}  # 16 are left: whole batches
    alone = train(recipe(data=data, training=TRAINING | {"batch_size": 4}, output={"folder": str(tmp_path / "one")}))
    folder, program = tmp_path / "two", tmp_path / "failing.py"
    file = file_of(recipe(data=data, training=TRAINING | {"batch_size": 2}, output={"folder": str(folder)}))
    program.write_text(FAILING)

    failed = launch(str(program), "train", file)
    assert failed.returncode != 0
    assert "the second process fails" in failed.stderr
    assert not (folder / "adapter_model.safetensors").exists()

    resumed = launch("-m", "qpeft_cli", "train", file, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("continuing from checkpoint-4") == 1
    assert resumed.stdout.count("saved to") == 1
    together = json.loads((folder / "run.json").read_text())
    assert together["processes"] == 2
    assert_close(losses(together), losses(alone.record), rtol=1e-4, atol=0)
    assert_close(together["after"]["loss"], alone.record["after"]["loss"], rtol=1e-4, atol=0)
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("two", "one")]
    assert_close(*weights, rtol=1e-2, atol=1e-4)  # AdamW divides by gradients that may be tiny
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["checkpoint-6"]
    with pytest.raises(OSError, match="is finished"):
        train(recipe(output={"folder": str(folder)}), resume=True)


@pytest.mark.slow
def test_what_stops_all_processes_is_said_once(recipe, file_of, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/precious.txt").write_text("mine")
    stopped = launch("-m", "qpeft_cli", "train", file_of(recipe()))
    assert stopped.returncode != 0
    assert stopped.stderr.count("is not empty") == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_adapter_that_would_never_act_is_refused_before_a_folder_is_made(processes, recipe, file_of, tmp_path):
    (tmp_path / "program.py").write_text(UNCALLED)
    arguments = [str(tmp_path / "program.py"), "train", file_of(recipe(adapter={"target_modules": ["gate_proj"]}))]
    if processes == 1:
        stopped = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=300)
        assert stopped.returncode == 2
    else:
        stopped = launch(*arguments)
        assert "exitcode  : 2" in stopped.stderr  # of the process that failed, as the launcher says
    said = " ".join(stopped.stderr.split())
    assert said.count("2 of 2 adapted layers are not called by the model's forward pass") == 1
    assert not (tmp_path / "run").exists()

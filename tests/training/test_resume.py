"""Runs that are killed and continued, in processes of their own."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import yaml

STEPS = 40
# Jobs in the background of a shell inherit a SIGINT that is ignored.
QPEFT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from qpeft_cli.main import main
main()
"""


@pytest.fixture
def start(recipe, tmp_path):
    """A function: `qpeft train` in a new process, into tmp_path/NAME."""

    def run(name, *arguments):
        wanted = recipe(
            training={
                "steps": STEPS,
                "checkpoint_every": 1,
                "eval_every": 7,
                "learning_rate": 0.01,
                "group_by_length": True,
            },
            adapter={"dropout": 0.1},
            output={"folder": str(tmp_path / name)},
        )
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(wanted.model_dump(mode="json")))
        command = [sys.executable, "-c", QPEFT, "train", str(file), *arguments]
        hash_seed = "1" if name == "undisturbed" else "2"  # sets are walked in another order
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": hash_seed}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return run


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_a_run_killed_three_times_ends_with_the_bytes_of_an_undisturbed_one(start, tmp_path):
    finish(start("undisturbed"))
    moments = sorted(random.Random(7).sample(range(2, STEPS - 2), 3))
    for moment in moments:
        process = start("killed", "--resume")
        while process.poll() is None and _latest(tmp_path / "killed") < moment:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    output = finish(start("killed", "--resume"))
    assert "continuing from checkpoint-" in output
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_can_be_continued(start, tmp_path):
    process = start("interrupted")
    while process.poll() is None and _latest(tmp_path / "interrupted") < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in output
    assert "Traceback" not in output
    finish(start("interrupted", "--resume"))


def _latest(folder):
    """Step of the latest checkpoint, by name alone."""
    found = (folder / "checkpoints").glob("checkpoint-*")
    return max((int(path.name.split("-")[1]) for path in found), default=0)

"""What a launcher says that accelerate would not do on a machine without GPUs."""

import json

import pytest
import torch

from qpeft.errors import LaunchError, OutputError
from qpeft.training import train
from qpeft.training.processes import busy_cores

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="on GPUs accelerate does what it is told")


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_sharding_that_a_cpu_would_leave_out_is_refused(recipe, tmp_path, monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(LaunchError, match=r"which accelerate has on GPUs only.*qpeft\.training\.processes"):
        train(recipe())
    assert not (tmp_path / "run").exists()


def test_a_launcher_that_starts_one_process_for_several_is_refused(recipe, tmp_path, monkeypatch):
    for name, value in {"ACCELERATE_USE_CPU": "False", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=r"started one.*--multi_gpu --num_processes N"):
        train(recipe())
    assert not (tmp_path / "run").exists()


def test_a_run_of_two_processes_is_not_continued_by_one(recipe, tmp_path):
    train(recipe(training={"steps": 1}))
    record = tmp_path / "run/run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"state": "started", "processes": 2}))
    with pytest.raises(OutputError, match="started with 2 processes, this is 1"):
        train(recipe(training={"steps": 1}), resume=True)


def test_an_epoch_is_shared_by_the_processes(recipe):
    options = recipe(training={"steps": None, "epochs": 2, "batch_size": 4, "gradient_accumulation": 2}).training
    assert options.num_steps(64) == 16
    assert options.num_steps(64, num_processes=2) == 8
    assert options.num_steps(65, num_processes=4) == 6  # five batches of 16, two a step


@pytest.mark.parametrize(
    ("threads", "load", "device", "is_said"),
    [(2, 4.5, "cpu", True), (2, 4.0, "cpu", False), (1, 9.0, "cpu", False), (2, 9.0, "meta", False)],
)
def test_a_busy_machine_is_said_once_where_several_threads_compute(monkeypatch, threads, load, device, is_said):
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    said = busy_cores(torch.device(device))
    assert (said is not None) == is_said
    if said is not None:
        assert "load of 4.5 on 4 cores" in said
        assert "OMP_NUM_THREADS=1" in said


def test_a_machine_that_does_not_tell_its_load_is_not_called_busy(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.delattr("os.getloadavg", raising=False)
    assert busy_cores(torch.device("cpu")) is None

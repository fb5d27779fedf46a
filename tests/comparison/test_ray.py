"""Studies on a Ray cluster: one on this machine, with two workers."""

import json
import os
import re
import signal
import threading
import time

import pytest

from qpeft.comparison.ray_jobs import RayCluster
from qpeft.comparison.study import parse_study
from qpeft.comparison.trial_jobs import run_all
from qpeft.comparison.trials import plan_trials, read_inputs
from qpeft.errors import StudyError

ray = pytest.importorskip("ray")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield RayCluster("local", cpus=1)
    ray.shutdown()


def jobs_of(study_values, folder, **training):
    values = study_values(folder, learning_rates=[0.01], seeds=[0])
    values["recipe"]["training"] |= training
    study = parse_study(values, source="test")
    return [trial.job for trial in plan_trials(study, read_inputs(study))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_worker_that_is_killed_is_replaced_and_all_bytes_are_those_of_one_machine(cluster, study_values, tmp_path):
    training = {"steps": 60, "checkpoint_every": 5}
    jobs = jobs_of(study_values, tmp_path / "ray", **training)
    killed = []

    def kill_one():
        # Once it has a checkpoint, so in the middle.
        while not killed:
            if any(jobs[0].folder.glob("run/checkpoints/checkpoint-*")):
                killed.append(int(re.search(r"process (\d+)", jobs[0].log_file.read_text()).group(1)))
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.02)

    threading.Thread(target=kill_one, daemon=True).start()
    ended = []
    cluster.run_all(jobs, on_end=ended.append)
    assert {job.title for job in ended} == {job.title for job in jobs}
    processes = re.findall(r"process (\d+)", jobs[0].log_file.read_text())
    assert len(set(processes)) == 2
    assert int(processes[0]) == killed[0]

    local = jobs_of(study_values, tmp_path / "local", **training)
    run_all(local, processes=None)
    for one, other in zip(jobs, local, strict=True):
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            assert (one.folder / "run" / name).read_bytes() == (other.folder / "run" / name).read_bytes()
        found, expected = (json.loads((job.folder / "run" / "run.json").read_text()) for job in (one, other))
        assert found["after"] == expected["after"]
        assert found["order"] == expected["order"]


@pytest.mark.slow
def test_more_than_a_node_has_is_refused(cluster, study_values, tmp_path):
    with pytest.raises(StudyError, match="no node has them: 2 CPUs"):
        RayCluster("local", cpus=3).run_all(jobs_of(study_values, tmp_path))
    assert not any(tmp_path.glob("trials/*/*.json"))

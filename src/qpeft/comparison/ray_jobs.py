"""The jobs of a study as Ray tasks, on a cluster that is there: its scheduler, its resources, its retries.

A job does the same as in a process of this machine, in a worker of its own, and writes into the same folder; so nodes
must share the study's folder and data under one path, and have qpeft installed.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qpeft.comparison.trial_jobs import Job
from qpeft.errors import StudyError
from qpeft.runs import make_folder, write_atomically


@dataclass(frozen=True)
class RayCluster:
    """Where trainings run, and what each of them is given.

    Args:
        address: of a cluster: 'auto' for the one that this machine is part of, 'ray://HOST:10001' for one elsewhere,
            'local' for one that is started here and ends with the study.
        cpus: of one training; whole ones are also its threads.
        gpus: of one training; Ray hides all others from it, so with 0 it is trained on CPUs. 0.5 puts two on one.
        retries: how often a job is begun again whose worker or node died; it goes on from its last checkpoint.
    """

    address: str = "auto"
    cpus: float = 1
    gpus: float = 0
    retries: int = 2

    def run_all(self, jobs: Sequence[Job], *, on_end: Callable[[Job], None] = lambda _: None) -> None:
        """Run the jobs that have no result yet, and return when all have ended, well or not.

        Args:
            jobs: in the order in which they are handed to Ray.
            on_end: told of each that has ended.

        Raises: StudyError if there is no cluster, no node of it has so many CPUs and GPUs, or a node does not see the
        folder of the jobs.
        """
        waiting = [job for job in jobs if job.result() is None]
        if not waiting:
            return
        with self._connected() as ray:
            self._require_room(ray)
            _require_shared(ray, waiting[0].folder)
            # max_calls: a worker that had a job before holds its threads and its memory; one a job is as without Ray.
            work = ray.remote(max_calls=1, num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries)(_work)
            tasks = {work.remote(_described(job), os.getcwd()): job for job in waiting}
            while tasks:
                (ended,), _ = ray.wait(list(tasks), num_returns=1)
                job = tasks.pop(ended)
                try:
                    ray.get(ended)
                except ray.exceptions.RayError as error:
                    job.fail(f"Ray gave it up after {self.retries} retries: {' '.join(str(error).split())[:300]}")
                on_end(job)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            import ray  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise StudyError("--ray needs Ray, which is not installed: pip install 'qpeft[ray]'.") from error
        if ray.is_initialized():  # by a program that uses it for more than this
            yield ray
            return
        try:
            ray.init(address=self.address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise StudyError(
                f"There is no Ray cluster at {self.address!r} ({' '.join(str(error).split())[:200]}). Start one with "
                "`ray start --head`, give the address of another, or take --ray local."
            ) from error
        try:
            yield ray
        finally:
            # A job that is interrupted leaves its checkpoints, and the same study goes on from them.
            ray.shutdown()

    def _require_room(self, ray: Any) -> None:
        # Ray itself would wait for such a node for ever, with a line in a log.
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= self.cpus and node.get("GPU", 0) >= self.gpus for node in nodes):
            most = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            raise StudyError(
                f"A training is to have {self.cpus:g} CPUs and {self.gpus:g} GPUs, and no node has them: {most}. Set "
                "--ray-cpus and --ray-gpus to what a node has."
            )


def _described(job: Job) -> dict[str, Any]:
    # Where this process runs says nothing about where the worker does.
    return asdict(job) | {"folder": str(job.folder.absolute())}


def _work(description: dict[str, Any], place: str) -> None:
    """Do a job in a worker of Ray; what goes wrong in it is its result, as in a process of its own."""
    os.chdir(place)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    job = Job(**description | {"folder": Path(description["folder"])})
    make_folder(job.folder)
    # A worker that died after its last step has told nobody; then there is nothing to do again.
    if job.result() is not None:
        return
    job.result_file.unlink(missing_ok=True)
    log = os.open(job.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, f"in process {os.getpid()} on {socket.gethostname()}\n".encode())
    # The worker ends with this job, so nothing else would be written there.
    os.dup2(log, 1)
    os.dup2(log, 2)
    job.run()


def _sees(file: str) -> bool:
    return Path(file).exists()


def _require_shared(ray: Any, folder: Path) -> None:
    """Raises: StudyError if a node does not have what is written here."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415  (an extra)

    mark = folder.absolute().parent / f".shared-{uuid.uuid4().hex}"
    make_folder(mark.parent)
    write_atomically(mark, "")
    try:
        look = ray.remote(num_cpus=0)(_sees)
        nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        asked = {
            name: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False)).remote(str(mark))
            for key, name in nodes.items()
        }
        blind = [name for name, answer in asked.items() if not ray.get(answer)]
    finally:
        mark.unlink()
    if blind:
        raise StudyError(
            f"{', '.join(blind)} of the cluster does not see {mark.parent}. Put study, data and models into a folder "
            "that all nodes share under one path, and give absolute paths."
        )

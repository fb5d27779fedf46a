"""A study from beginning to end: plan, train, choose, judge, compare."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from rich.console import Console

from qpeft.comparison.holdout import require_holdout
from qpeft.comparison.ray_jobs import RayCluster
from qpeft.comparison.results import Results, gather
from qpeft.comparison.study import Study
from qpeft.comparison.study_log import StudyLog
from qpeft.comparison.trial_jobs import Job, run_all
from qpeft.comparison.trials import (
    Choice,
    Trial,
    choose,
    chosen,
    halve,
    loss_of,
    measure_job,
    plan_others,
    plan_trials,
    read_inputs,
)
from qpeft.evaluation import find_task
from qpeft.runs.bars import Bars
from qpeft.runs.files import used_alone


def compare(
    study: Study, *, processes: int | None = 1, console: Console | None = None, cluster: RayCluster | None = None
) -> Results:
    """Return the results that `run_study` returns, without the log.

    Args:
        study, processes, console, cluster: as there.
    """
    return run_study(study, processes=processes, console=console, cluster=cluster)[0]


def run_study(
    study: Study, *, processes: int | None = 1, console: Console | None = None, cluster: RayCluster | None = None
) -> tuple[Results, StudyLog]:
    """Run the part of a study that has not been run, and return its results.

    Args:
        study: the study, continued if its folder holds it already.
        processes: how many runs at the same time, each in a process of its own; None for all in this one.
        console: where progress goes; None for nowhere.
        cluster: runs them in place of processes here; None for none.

    Returns:
        What was found; runs that failed are gaps in it. And what happened to the study.

    Raises:
        StudyError: the study, its data or its folder are at odds; nothing has then been overwritten.
        DataError: an example, also of the test, that cannot be read or asked; nothing has then been trained.
        QpeftError: of the kind that fits.
    """
    folder, console = Path(study.output.folder), console or Console(quiet=True)
    run = partial(_run, run_jobs=cluster.run_all if cluster else partial(run_all, processes=processes), console=console)
    # Two processes in one folder would train the same runs twice.
    with used_alone(folder):
        if (task := study.base().evaluation.task_name) is not None:
            find_task(task).require_packages()  # not after hours of training
        inputs = read_inputs(study)
        tuning = plan_trials(study, inputs)
        log = StudyLog.begin(study, inputs)

        def judging(choices: Sequence[Choice], trials: Sequence[Trial]) -> list[Job]:
            """Return the jobs that measure the base model and the chosen runs, as far as they are known by now."""
            trained = [trial for choice in choices for trial in chosen(choice, trials) if loss_of(trial) is not None]
            base = measure_job(study, trials[0], inputs, base=True)
            return [base] + [measure_job(study, one, inputs) for one in trained]

        # A finished study is reported again although the model or the data may be gone, so nothing of them is read.
        choices, trials = choose(study, inputs)
        if any(job.result() is None for job in [*(one.job for one in trials), *judging(choices, trials)]):
            for note in require_holdout(tuning[0].recipe, study.test, study.test_items):
                console.print(f"note: {note}")
        log.save()

        for _ in study.halving or ():
            # Which rates the next short trainings have is known when those before have ended.
            run([trial.job for trial in halve(study, inputs).trials], what="short trainings that halve the rates")
        tuning = plan_trials(study, inputs)
        # Only when every rate has run is it known at which one the other seeds are to run.
        run([trial.job for trial in tuning], what="training at every rate")
        rates = {choice.method: choice.rate for choice in choose(study, inputs)[0]}
        console.print("learning rates chosen: " + "; ".join(f"{method}: {rate}" for method, rate in rates.items()))
        others = [trial.job for trial in plan_others(study, inputs, rates)]
        run(others, what="training with the other seeds")

        choices, trials = choose(study, inputs)
        jobs = judging(choices, trials)
        waiting = [job for job in jobs if job.result() is None]
        # Written down before the test is read: a process that is killed while it reads has read it.
        is_reading = study.test is not None and bool(waiting)
        if is_reading:
            log.note_test_reading(rates)
        run(jobs, what="judging")
        if is_reading:
            log.note_judged(sum(job.result() is not None for job in waiting))
        log.require_data(study)  # a training file may have been edited meanwhile
        return gather(study, trials, choices, inputs), log


def load_results(folder: Path) -> tuple[Results, StudyLog]:
    """Return what the study in a folder has found so far; nothing is run, and no data are read.

    Raises: OutputError if there is none; StudyError if data files that are still there are not those it was made with.
    """
    log = StudyLog.read(folder)
    study, inputs = log.study, log.inputs
    log.require_data(study)
    choices, trials = choose(study, inputs)
    return gather(study, trials, choices, inputs), log


def _run(jobs: Sequence[Job], *, run_jobs: Callable[..., None], console: Console, what: str) -> None:
    """Run the jobs that have no result yet, and say after each how it ended and how long the others may take.

    Args:
        jobs: all, those with a result too.
        run_jobs: runs some, and tells `on_end` of each.
        console: where progress goes.
        what: they do, for its lines.
    """
    waiting = [job for job in jobs if job.result() is None]
    if len(waiting) < len(jobs):
        console.print(f"{len(jobs) - len(waiting)} of {len(jobs)} are there already")
    ended, start = 0, time.monotonic()

    def tell(job: Job) -> None:
        nonlocal ended
        ended += 1
        found, missing = job.result() or {}, len(waiting) - ended
        # Runs of a study take about equally long, so those that ended tell how long the others may.
        left = timedelta(seconds=round((time.monotonic() - start) / ended * missing))
        if (failure := job.failure()) is not None:
            said = f"failed: {failure}"
        elif "final" in found:
            said = f"loss {found['final']['loss']:.4f}"
        else:
            said = f"trained in {found['seconds']:.0f} s"
        console.print(f"{ended}/{len(waiting)}  {job.title}: {said}" + (f", about {left} left" if missing else ""))
        bars(what, ended, len(waiting))

    if waiting:
        console.print(f"{what}: {len(waiting)} runs")
    with Bars(console) as bars:
        bars(what, 0, len(waiting))
        run_jobs(waiting, on_end=tell)

"""Kills and faults: whether a run on a quantum computer ends as an undisturbed one, and pays for nothing twice.

    python benchmarks/hardware_faults.py [--method qtha] [--kills 20] [--aimed 5] [--parts random aimed faults] [--save]

A tiny language model is trained by `qpeft train` with one layer (qtha), or the circuits that make the weights of all
(quantum_weighted), on the emulator of the Origin cloud, through the vendor's own client. Its results
depend on how many jobs came before, so a job too many shows in the trained adapter.

1. The training process is killed (SIGKILL) at random moments and resumed, until it is done.
2. Trainer and worker are both killed while the cloud has accepted a job and not answered: the one case that nobody
   but the user can settle. The run must stop, and go on once it is settled.
3. Faults of the cloud, one run each.

Every claim is checked; the exit code is 1 if one does not hold.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from rich.console import Console
from rich.table import Table
from timing import save

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from tiny_model import make_model, write_sums

QPEFT = [sys.executable, "-c", "from qpeft_cli.main import main; main()"]
KEY = "emulator"


OPTIONS = {
    "qtha": {"rank": 4, "ansatz": "ring_cz"},
    "quantum_weighted": {"rank": 4, "num_qubits": 4, "depth": 1, "share": "layer"},
}
"""Of a small adapter of each method."""


class Emulator:
    """The emulator's command, on one port for as long as it may be restarted."""

    def __init__(self, folder: Path) -> None:
        self._store, self._port = folder / "cloud.sqlite", 0
        self.start()

    def start(self) -> None:
        command = ["devices", "emulator", "--seed", "3", "--seconds", "0.15", "--port", str(self._port)]
        self._process = subprocess.Popen(
            [*QPEFT, *command, "--store", str(self._store)], stdout=subprocess.PIPE, text=True, env=environment()
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]
        self._port = int(self.url.rsplit(":", 1)[1])
        atexit.register(self.stop)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/emulator/stats", timeout=30) as reply:
            found: dict[str, Any] = json.loads(reply.read())
            return found

    def fault(self, **fault: Any) -> None:
        body = json.dumps(fault).encode()
        with urllib.request.urlopen(f"{self.url}/emulator/faults", data=body, timeout=30) as reply:
            reply.read()


def environment(folder: Path | None = None) -> dict[str, str]:
    """Of every process, with a data folder of its own."""
    data = {} if folder is None else {"XDG_DATA_HOME": str(folder / "data")}
    return os.environ | {"OMP_NUM_THREADS": "1", "QPEFT_ORIGIN_KEY": KEY, "QPEFT_EMULATOR_KEY": KEY, **data}


class Run:
    """A training run with an emulator of its own, in a folder of its own."""

    def __init__(self, folder: Path, name: str, *, method: str, steps: int) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.cloud = Emulator(self.folder)
        recipe = {
            "model": {"name": str(folder / "model")},
            "data": {"train": str(folder / "sums.jsonl"), "hold_out": 4},
            "adapter": {"type": method, "target_modules": ["q_proj", "v_proj"], **OPTIONS[method]},
            # Without warm-up, whose first step has a rate of 0: circuits without data would be sent again as they were.
            "training": {"steps": steps, "batch_size": 2, "checkpoint_every": 1, "learning_rate": 0.01, "warmup": 0},
            "evaluation": {"before": False},
            "device": {
                "name": "origin",
                "options": {"url": self.cloud.url, "chip": "72"},
                "layers": ["layers.1.self_attn.v_proj"] if method == "qtha" else None,
                "shots": 200,
                "gradient": "spsa",
                "gradient_options": {"num_directions": 2},
            },
            "output": {"folder": str(self.folder / "run")},
        }
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def start(self) -> subprocess.Popen[str]:
        """`qpeft train --resume`, which begins where there is nothing to resume."""
        command = [*QPEFT, "train", str(self.folder / "recipe.yaml"), "--resume"]
        CONSOLE.print(f"{time.monotonic() - START:6.0f} s  {self.folder.name} starts", style="dim")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(self.folder)
        )
        return self.process

    def finish(self) -> tuple[int, str]:
        """Exit code and output of a start that is left alone."""
        output, _ = self.start().communicate(timeout=900)
        return self.process.returncode, output

    def jobs(self, *arguments: str) -> str:
        """`qpeft jobs`."""
        found = subprocess.run(
            [*QPEFT, "jobs", *arguments], capture_output=True, text=True, check=True, env=environment(self.folder)
        )
        return found.stdout

    def wait_until(self, condition: Callable[[], bool], seconds: float = 300) -> bool:
        """False if the process ended first."""
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                return False
            assert time.monotonic() < deadline, "the run hangs"
            time.sleep(0.01)
        return True

    def kill(self) -> list[psutil.Process]:
        """SIGKILL for the trainer; the processes that it had started."""
        with suppress(psutil.NoSuchProcess):
            children: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(signal.SIGKILL)
            self.process.communicate()
            return children
        return []

    def is_killed(self) -> bool:
        return self.process.returncode == -signal.SIGKILL

    def sent(self) -> dict[str, int]:
        """How often the cloud accepted each program."""
        programs = [one for job in self.cloud.stats()["per_job"].values() for one in job["programs"]]
        return {one: programs.count(one) for one in programs}

    def adapter(self) -> bytes:
        return (self.folder / "run" / "adapter_model.safetensors").read_bytes()


@dataclass
class Findings:
    """What was claimed and whether it held."""

    rows: list[tuple[str, str, bool]] = field(default_factory=list)

    def claim(self, case: str, found: str, holds: bool) -> None:
        self.rows.append((case, found, holds))
        CONSOLE.print(f"{'ok  ' if holds else 'FAIL'}  {case}: {found}")


CONSOLE, START = Console(highlight=False, soft_wrap=True), time.monotonic()


def random_kills(run: Run, kills: int, seed: int) -> int:
    """Kill the trainer at random moments until it was killed so often; the number of kills that hit."""
    chance, hits = random.Random(seed), 0
    while hits < kills:
        run.start()
        # From the first sign that this process computes, so that most kills hit jobs and not imports.
        before = run.cloud.stats()["jobs"]
        if not run.wait_until(lambda before=before: run.cloud.stats()["jobs"] > before):  # type: ignore[misc]
            break
        time.sleep(chance.uniform(0, 1.2))
        run.kill()
        if not run.is_killed():
            break
        hits += 1
    return hits


def same_as(run: Run, undisturbed: Run) -> tuple[str, bool]:
    """Adapter and number of programs compared."""
    ours, theirs = run.sent(), undisturbed.sent()
    same, extra = run.adapter() == undisturbed.adapter(), sum((Counter(ours) - Counter(theirs)).values())
    adapter = f"adapter {'byte-equal' if same else 'differs'}"
    text = f"{adapter}, {sum(ours.values()):,} circuits accepted of {sum(theirs.values()):,} undisturbed, {extra} extra"
    return text, same and ours == theirs


def killed_at_random(findings: Findings, run: Run, undisturbed: Run, kills: int) -> None:
    """The trainer alone: its worker brings the call to its end."""
    hits = random_kills(run, kills, seed=11)
    code, output = run.finish()
    assert code == 0 or "is finished" in output, output
    text, holds = same_as(run, undisturbed)
    findings.claim(f"{hits} kills of the trainer at random moments", text, holds and hits == kills)
    run.cloud.stop()


def killed_in_the_window(findings: Findings, run: Run, undisturbed: Run, kills: int) -> None:
    """Trainer and worker, while the cloud has a job and its answer is on the way."""
    for number in range(kills):
        run.cloud.fault(kind="delay", endpoint="submit", after=True, seconds=5, skip=number % 2)
        before = run.cloud.stats()["jobs"] + number % 2
        run.start()
        assert run.wait_until(lambda before=before: run.cloud.stats()["jobs"] > before)  # type: ignore[misc]
        for child in run.kill():
            child.kill()
        accepted = run.cloud.stats()["jobs"]
        code, output = run.finish()
        stopped = code == 2 and "may or may not have a job" in output
        silent = run.cloud.stats()["jobs"] != accepted
        findings.claim(
            f"trainer and worker killed in the window, {number + 1}",
            f"{'stopped and said so' if stopped else output[-300:]}, "
            f"{'sent again without a word' if silent else 'nothing sent again'}",
            stopped and not silent,
        )
        # As a user does who looks at the cloud's own list.
        rows = [line.split() for line in run.jobs("list", "--state", "intended").splitlines() if line.startswith("│")]
        [batch] = [row[1] for row in rows]
        run.jobs("settle", batch, "--job", f"{list(run.cloud.stats()['per_job'])[-1]}")
    code, output = run.finish()
    assert code == 0, output
    text, holds = same_as(run, undisturbed)
    findings.claim("and settled by hand each time", text, holds)
    run.cloud.stop()


FAULTS: dict[str, tuple[dict[str, Any], bool]] = {
    "HTTP 503 on submit, not accepted": ({"kind": "status", "endpoint": "submit"}, False),
    "rate limit (429) on submit": ({"kind": "status", "endpoint": "submit", "status": 429}, False),
    "HTTP 503 on submit, accepted": ({"kind": "status", "endpoint": "submit", "after": True}, False),
    "connection closed after acceptance": ({"kind": "drop", "endpoint": "submit", "after": True}, False),
    "half an answer to a submission, accepted": ({"kind": "spoil", "endpoint": "submit", "after": True}, False),
    "submission refused": ({"kind": "refuse", "endpoint": "submit", "message": "no credit left"}, False),
    "an answer of unknown words to a submission": ({"kind": "refuse", "endpoint": "submit"}, False),
    "wrong key on submit": ({"kind": "wrong_key", "endpoint": "submit"}, False),
    "five HTTP 503 while waiting": ({"kind": "status", "endpoint": "detail", "times": 5}, True),
    "connection closed while waiting": ({"kind": "drop", "endpoint": "detail"}, True),
    "half an answer while waiting": ({"kind": "spoil", "endpoint": "detail"}, True),
    "a result too few": ({"kind": "short"}, False),
    "results turned round in one reply": ({"kind": "reorder"}, False),
    "results shuffled in all replies but the first": (
        {"kind": "reorder", "order": "shuffle", "replies": "later"},
        False,
    ),
    "a job that fails": ({"kind": "fail_job"}, False),
}
"""What the cloud does, and whether a run must get through it by itself."""


def faults(findings: Findings, folder: Path, method: str) -> None:
    """One run for each, resumed once if it stopped."""
    undisturbed = Run(folder, "without-fault", steps=2, method=method)
    assert undisturbed.finish()[0] == 0
    undisturbed.cloud.stop()
    for number, (name, (fault, must_go_on)) in enumerate(FAULTS.items()):
        run = Run(folder, f"fault-{number}", steps=2, method=method)
        run.cloud.fault(**fault, skip=1)
        code, output = run.finish()
        text = "went on by itself" if code == 0 else "stopped: " + " ".join(output.split("error:")[-1].split())[:160]
        if code != 0:
            accepted = run.cloud.stats()["jobs"]
            code, again = run.finish()
            output += again
            more = run.cloud.stats()["jobs"] - accepted
            text += f" | resumed: {'finished' if code == 0 else 'stopped again'}, {more} more jobs"
        if code == 0:
            text += f" | adapter {'as' if run.adapter() == undisturbed.adapter() else 'not as'} without the fault"
        twice = sum(count - 1 for count in run.sent().values())
        clear = ("Traceback" not in output and "stopped" in text) or "went on" in text
        # A job that failed has to be sent again; nothing else may be.
        once = twice == 0 or fault["kind"] == "fail_job"
        # A job that is sent again is another job, and its samples are others; nothing else may change what is trained.
        same = "not as" not in text or fault["kind"] == "fail_job"
        findings.claim(name, f"{text} | programs accepted twice: {twice}", clear and once and same)
        if must_go_on:
            findings.claim(f"{name}: needs nobody", text, "went on" in text and "not as" not in text)
        run.cloud.stop()


def main() -> int:
    """Everything, then the table; 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=OPTIONS, default="qtha")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--aimed", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["random", "aimed", "faults"])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/hardware_faults_METHOD.json")
    options = parser.parse_args()
    findings = Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder / "model")
        write_sums(folder / "sums.jsonl")
        if {"random", "aimed"} & set(options.parts):
            kind = {"steps": options.steps, "method": options.method}
            undisturbed = Run(folder, "undisturbed", **kind)
            code, output = undisturbed.finish()
            assert code == 0, output
            if "random" in options.parts:
                killed_at_random(findings, Run(folder, "random", **kind), undisturbed, options.kills)
            if "aimed" in options.parts:
                killed_in_the_window(findings, Run(folder, "aimed", **kind), undisturbed, options.aimed)
            undisturbed.cloud.stop()
        if "faults" in options.parts:
            faults(findings, folder, options.method)
    table = Table("case", "found", "holds")
    for case, found, holds in findings.rows:
        table.add_row(case, found, "yes" if holds else "NO")
    CONSOLE.print(table)
    if options.save:
        save(
            f"hardware_faults_{options.method}",
            [dict(zip(("case", "found", "holds"), row, strict=True)) for row in findings.rows],
        )
    return 0 if all(holds for _, _, holds in findings.rows) else 1


if __name__ == "__main__":
    sys.exit(main())

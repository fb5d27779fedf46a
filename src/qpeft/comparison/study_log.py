"""study.json: what a study is, from when on it must stay as it is, and everything that happened to it.

The test must not decide what is tried. So nothing that a test result depends on changes once there is one.
Before that, a study that cannot go on (a test with a row that cannot be read, examples that are too long) may be
mended, since no one has learned anything from the test. Every change is written down either way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from qpeft.comparison.study import Study, parse_study
from qpeft.comparison.trial_jobs import FINISHED
from qpeft.comparison.trials import Inputs, changed_files
from qpeft.errors import OutputError, StudyError
from qpeft.runs import environment, make_folder, write_atomically

FILE_NAME = "study.json"
CLAIMS = ("reference", "margin", "halving")
"""The claims of a report rest on these. They stay once a run has finished, whose losses hint at the test's."""
JUDGED = ("recipe", "common", "test", "test_items")
"""These stay once something has been judged. More methods, rates and seeds may come, and are written down."""


class StudyLog:
    """The study of a folder. `values`: all that study.json holds; `save` writes it.

    Raises: OutputError or StudyError from the functions that make one.
    """

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder, self.values = folder, values

    @classmethod
    def read(cls, folder: Path) -> StudyLog:
        """Return the study in a folder. Raises: OutputError if there is none."""
        try:
            return cls(folder, json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise OutputError(f"{folder} holds no {FILE_NAME}, so it is no folder of a study.") from error
        except (OSError, ValueError) as error:
            raise OutputError(f"{folder / FILE_NAME} cannot be read: {error}.") from error

    @classmethod
    def begin(cls, study: Study, inputs: Inputs) -> StudyLog:
        """Return a new study, or the one in its folder continued; `save` writes it.

        Raises: StudyError if the folder's is another one; OutputError if it holds anything else.
        """
        folder = Path(study.output.folder)
        if not (folder / FILE_NAME).exists():
            # Not into a folder of something else, whose files might be taken for results.
            if folder.exists() and any(folder.iterdir()):
                raise OutputError(f"{folder} holds something other than a study. Choose another with --output.folder.")
            values = {
                "study": study.model_dump(mode="json"),
                "digest": study.digest(),
                "inputs": asdict(inputs),
                "begun": _now(),
                "environment": environment(),
                "amendments": [],
                "test_readings": [],
                "failed_readings": [],
            }
            return cls(folder, values)

        # This study takes the place of the stored one, with a note of what changed, if it still may change.
        log = cls.read(folder)
        # A process may have been killed before it could say that a reading gave nothing.
        ended = [*log._states("*/measured-????????????.json"), *log._states("trials/*/measured-????????????.json")]
        if ended and FINISHED not in ended:
            log._forget_readings_without_result()
        has_trained = FINISHED in log._states("trials/*/trained.json")
        # Without a test the held-out tenth judges, which every finished run has been measured on.
        is_judged = bool(log.values["test_readings"]) if log.study.test is not None else has_trained

        stored, dumped = log.study.model_dump(mode="json"), study.model_dump(mode="json")
        changed = [name for name in dumped if name != "output" and dumped[name] != stored[name]]
        closed = (*(CLAIMS if has_trained else ()), *(JUDGED if is_judged else ()))
        if fixed := [name for name in changed if name in closed]:
            raise StudyError(
                f"The study in {log.folder} was begun with another {', '.join(fixed)}, which must not change once "
                "there are results. Set it back, or begin a new study in another --output.folder."
            )
        if is_judged:
            log.require_data(study)
        elif any(log.inputs.hashes.get(source, digest) != digest for source, digest in inputs.hashes.items()):
            changed.append("data files")
        if inputs.versions != log.inputs.versions:
            changed.append("versions of packages")
        if changed:
            readings = len(log.values["test_readings"])
            log.values["amendments"].append({"when": _now(), "changed": changed, "test_readings_before": readings})
            log.values |= {"study": dumped, "digest": study.digest(), "inputs": asdict(inputs)}
        return log

    @property
    def inputs(self) -> Inputs:
        """Return the inputs with which the runs were last planned."""
        return Inputs(**self.values["inputs"])

    @property
    def study(self) -> Study:
        """Return the study as it was last run, in the folder where it is now."""
        # A folder may have been moved since, and its study with it.
        values = self.values["study"] | {"output": {"folder": str(self.folder)}}
        return parse_study(values, source=str(self.folder / FILE_NAME))

    def require_data(self, study: Study) -> None:
        """Raise StudyError if a data file is not as it was when the study began."""
        if edited := changed_files(study, self.inputs):
            raise StudyError(
                f"Data were edited since the study in {self.folder} was begun: {', '.join(edited)} has another "
                "SHA-256. Bring the old file back, or begin a new study in another --output.folder."
            )

    def note_test_reading(self, chosen: Mapping[str, float | None]) -> None:
        """Write down that runs are about to be judged by the test, and which, by method and rate."""
        self.values["test_readings"].append({"when": _now(), "chosen": dict(chosen)})
        self.save()

    def note_judged(self, results: int) -> None:
        """Write down how many results the reading that was noted last has given."""
        self.values["test_readings"][-1]["results"] = results
        if not results:
            self._forget_readings_without_result()
        self.save()

    def save(self) -> None:
        """Write study.json, in a new folder if need be."""
        make_folder(self.folder)
        write_atomically(self.folder / FILE_NAME, json.dumps(self.values, indent=2, ensure_ascii=False) + "\n")

    def _states(self, files: str) -> list[str]:
        """Return how the jobs of these files ended."""
        return [json.loads(file.read_text(encoding="utf-8"))["state"] for file in self.folder.glob(files)]

    def _forget_readings_without_result(self) -> None:
        """Set those readings apart that ended before anything was measured, as if the test had not been read."""
        for reading in [one for one in self.values["test_readings"] if not one.get("results")]:
            self.values["test_readings"].remove(reading)
            self.values.setdefault("failed_readings", []).append(reading)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")

"""study.json: what was fixed before the first run, and everything that happened to it afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from qpeft.comparison.plan import Inputs, changed_files
from qpeft.comparison.study import Study, parse_study
from qpeft.errors import OutputError, StudyError
from qpeft.runs import environment, make_folder, write_atomically

FILE_NAME = "study.json"
FIXED = ("recipe", "common", "reference", "margin", "test", "test_items")
"""What may not change once a study has begun. More methods, rates and seeds may come, and are written down."""


class Ledger:
    """The study of a folder. Raises: OutputError or StudyError from the functions that make one."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder, self.values = folder, values

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """The study in a folder. Raises: OutputError if there is none."""
        try:
            return cls(folder, json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise OutputError(f"{folder} holds no {FILE_NAME}, so it is no folder of a study.") from error
        except (OSError, ValueError) as error:
            raise OutputError(f"{folder / FILE_NAME} cannot be read: {error}.") from error

    @classmethod
    def begin(cls, study: Study, inputs: Inputs) -> Ledger:
        """A new study, or the one in its folder continued. Raises: StudyError if that is another one."""
        folder = Path(study.output.folder)
        if (folder / FILE_NAME).exists():
            ledger = cls.read(folder)
            ledger._go_on(study, inputs)
            return ledger
        if folder.exists() and any(folder.iterdir()):
            raise OutputError(f"{folder} holds something other than a study. Choose another with --output.folder.")
        make_folder(folder)
        values = {
            "study": study.model_dump(mode="json"),
            "digest": study.digest(),
            "inputs": asdict(inputs),
            "begun": _now(),
            "environment": environment(),
            "amendments": [],
            "test_readings": [],
        }
        ledger = cls(folder, values)
        ledger._save()
        return ledger

    @property
    def inputs(self) -> Inputs:
        """What the runs were last planned with."""
        return Inputs(**self.values["inputs"])

    @property
    def study(self) -> Study:
        """The study as it was last run, in the folder where it is now."""
        values = self.values["study"] | {"output": {"folder": str(self.folder)}}
        return parse_study(values, source=str(self.folder / FILE_NAME))

    def require_data(self, study: Study) -> None:
        """Raises: StudyError if a data file is not as it was when the study began."""
        if edited := changed_files(study, self.inputs):
            raise StudyError(
                f"Data were edited since the study in {self.folder} was begun: {', '.join(edited)} has another "
                "SHA-256. Bring the old file back, or begin a new study in another --output.folder."
            )

    def _go_on(self, study: Study, inputs: Inputs) -> None:
        stored, dumped = self.study.model_dump(mode="json"), study.model_dump(mode="json")
        changed = [name for name in dumped if name != "output" and dumped[name] != stored[name]]
        if fixed := [name for name in changed if name in FIXED]:
            raise StudyError(
                f"The study in {self.folder} was begun with another {', '.join(fixed)}, which must not change once "
                "there are results. Set it back, or begin a new study in another --output.folder."
            )
        self.require_data(study)
        if inputs.versions != self.inputs.versions:
            changed.append("versions of packages")
        if changed:
            readings = len(self.values["test_readings"])
            self.values["amendments"].append({"when": _now(), "changed": changed, "test_readings_before": readings})
            self.values |= {"study": dumped, "digest": study.digest(), "inputs": asdict(inputs)}
            self._save()

    def note_test_reading(self, chosen: Mapping[str, float | None]) -> None:
        """Write down that runs are about to be judged by the test, and which."""
        self.values["test_readings"].append({"when": _now(), "chosen": dict(chosen)})
        self._save()

    def _save(self) -> None:
        write_atomically(self.folder / FILE_NAME, json.dumps(self.values, indent=2, ensure_ascii=False) + "\n")


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")

"""The process that talks to Origin's cloud by the vendor's client. It is run as a file and needs nothing of qpeft.

A process of its own, because the client holds Python's lock in every call, prints where it likes and can crash. On
standard input come lines of JSON, first the key and the address, then questions; one line answers each on standard
output. When the input ends, since whoever asked is gone, it finishes what it was told to do and ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

Json = dict[str, Any]

HANDED_OVER = "handed over"
"""State of a submission that this process may send."""
SENDING, SENT, REFUSED, UNCLEAR = "sending", "sent", "refused", "unclear"
"""States of a submission, as noted here; "refused" is certain."""

NEVER_SENT = ("resolve host", "resolve proxy", "connect to server", "SSL certificate problem")
"""Parts of what libcurl says when no request has left the machine."""
REFUSALS = re.compile(
    # Whole words: a reply that is cut off lacks a "quotation mark", and that is no quota.
    r"\b(?:offline|maintenance|not support(?:ed)?|unsupported|at most|exceed(?:s|ed)?|too (?:many|large|long)|quota"
    r"|credits?|balance|insufficient|permission|not allowed|no chip)\b"
    r"|离线|维护|不支持|超出|超过|上限|余额|不足|权限",
    re.IGNORECASE,
)
"""What a cloud says that took no job."""
DOUBTS = re.compile(
    r"\btime|timed|deadline|connect|server|gateway|internal|exception|already|duplicate|unexpected|response"
    r"|curl|http|parse|json|in string|document"
    r"|超时|连接|服务器|网关|内部|异常|重复|已提交|已存在",
    re.IGNORECASE,
)
"""What a message says that leaves it open, whatever else it says."""
ABOUT_KEYS = re.compile(r"api.?key|unauthori|authenticat|credential|\btoken\b|密钥|鉴权|认证|未授权", re.IGNORECASE)


def words_of(error: object, key: str) -> str:
    """Return what an error says, or a message, never with the key in it."""
    return str(error).replace(key, "<key>")


def kind_of(error: Exception) -> str:
    """Return what an error of the client means.

    Returns: "refused" or "credentials" if words say that the cloud will not; "unreachable" if no request was sent;
        "rejected" for an HTTP error that will come again; "unclear" for everything else: the request may have had its
        effect.
    """
    if not isinstance(error, RuntimeError):
        return "unclear"
    message = str(error).removeprefix("query chip_info failed: ")
    if status := re.match(r"QCloud HTTP request failed with status (\d+)", message):
        code = int(status[1])
        if code in (401, 403):
            return "credentials"
        return "rejected" if 400 <= code < 500 and code not in (408, 429) else "unclear"
    if message.startswith("curl_easy_perform failed"):
        return "unreachable" if any(words.lower() in message.lower() for words in NEVER_SENT) else "unclear"
    # The client raises the cloud's own message without anything around it, and gives its own the same form: only words
    # tell them apart. Those that nobody knows are no refusal, since one of them would pay for a job twice.
    known = "" if DOUBTS.search(message) else message
    return "credentials" if ABOUT_KEYS.search(known) else "refused" if REFUSALS.search(known) else "unclear"


def write_note(path: Path, note: Mapping[str, Any], *, outlives_power_cut: bool) -> None:
    """Replace a file by this note in one step, readable by its user only.

    Args:
        path: of the file.
        note: what it is to hold.
        outlives_power_cut: whether to wait until the disk has it.
    """
    # A file of this process's own, renamed when it is whole: a reader finds the old note or the new one, never half.
    new = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(note, file)
        file.flush()
        if outlives_power_cut:
            os.fsync(file.fileno())
    new.replace(path)
    if outlives_power_cut and os.name == "posix":
        # The file is on disk; its new name is only when the folder is.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Client:
    """The vendor's client with one key; its calls by name of the question.

    Raises: ImportError if it is not installed; ValueError if it does not take the key.
    """

    def __init__(self, key: str, url: str) -> None:
        # By name, since its stubs do not say what these modules have.
        self._qcloud: Any = import_module("pyqpanda3.qcloud")
        self._compiler: Any = import_module("pyqpanda3.intermediate_compiler")
        self._key, self._service = key, self._qcloud.QCloudService(key, url)

    def chips(self) -> Json:
        """Return the name of every chip to whether it is online."""
        try:
            return {name: bool(online) for name, online in self._service.backends().items()}
        except RuntimeError as error:
            if not str(error).startswith("value is not array"):
                raise
            # An error in place of the list, which the client does not show; of a job it shows it.
            reply = json.loads(self._qcloud.QCloudJob("0").query().origin_data())
            raise RuntimeError(reply.get("message") or str(error)) from error

    def chip(self, name: str) -> Json:
        """Return what is known of a chip, in the vendor's units: fidelities, microseconds, nanoseconds."""
        info = self._service.backend(name).chip_info()
        return {
            "name": info.chip_id(),
            "num_qubits": info.qubits_num(),
            "available": info.available_qubits(),
            "gate_times": [info.get_single_gate_timing(), info.get_double_gate_timing()],
            "edges": [[*edge.get_qubits(), edge.get_fidelity()] for edge in info.double_qubits_info()],
            "qubits": [
                [int(one.get_qubit_id()), one.get_readout_fidelity(), one.get_single_gate_fidelity(), *times]
                for one in info.single_qubit_info()
                for times in [(one.get_t1(), one.get_t2())]
            ],
        }

    def detail(self, job: str) -> Json:
        """Return the cloud's whole reply about a job. Never `result()`, which waits with the lock held."""
        reply = json.loads(self._qcloud.QCloudJob(job).query().origin_data())
        if not isinstance(reply, dict):
            raise RuntimeError("value is not an object")
        # What is shown and written down; not the results, in which a short key would hit what is none.
        for part, name in ((reply, "message"), (reply.get("obj"), "errInfo")):
            if isinstance(part, dict) and part.get(name):
                part[name] = words_of(part[name], self._key)
        return reply

    def cancel(self, job: str) -> bool:
        """Whether the cloud accepted it."""
        return bool(self._qcloud.QCloudJob.cancel_task(job))

    def submit(self, chip: str, programs: list[str], shots: int, options: Json, suffix: str, note: str | None) -> Json:
        """Send one job. The outcome is an answer, never an error; it is in the file `note` before it is answered.

        Args:
            chip: its number, or the name of a simulator.
            programs: in OriginIR.
            shots: of each program.
            options: of the vendor's client.
            suffix: of the job's name, by which it is told from others.
            note: file that keeps the outcome; None for none.
        """
        path = Path(note) if note else None
        try:
            # All that can fail without the network stands here, where a failure is certain to leave no job.
            chosen = self._qcloud.QCloudOptions()
            chosen.set_amend(options["amend"])
            chosen.set_mapping(options["mapping"])
            chosen.set_optimization(options["optimization"])
            chosen.set_specified_block(options["block"])
            backend = self._service.backend(chip)
            parsed = [self._compiler.convert_originir_string_to_qprog(text) for text in programs]
            base = json.loads(path.read_text()) if path else {}
            if path:
                if base["state"] != HANDED_OVER:
                    raise RuntimeError("another process has given this submission up")
                write_note(path, {**base, "state": SENDING}, outlives_power_cut=True)
        except Exception as error:
            return {"state": REFUSED, "job": None, "why": words_of(error, self._key), "kind": "refused"}
        # From here on the cloud may have the job, whatever the client says: it raises the same RuntimeError for a
        # refusal, a lost answer and a gateway that gave up. It never sends twice, and neither does this process.
        try:
            job = str(backend.run(parsed, shots, chosen).job_id())
        except Exception as error:
            kind = kind_of(error)
            state = REFUSED if kind in ("refused", "credentials", "unreachable") else UNCLEAR
            outcome: Json = {"state": state, "job": None, "why": words_of(error, self._key), "kind": kind}
        else:
            outcome = {"state": SENT, "job": job + suffix, "why": "", "kind": ""}
            if not job:
                why = "the cloud took a job and gave it no id"
                outcome = {"state": UNCLEAR, "job": None, "why": why, "kind": "unclear"}
        if path:
            try:
                write_note(path, {**base, **outcome}, outlives_power_cut=True)
            except OSError as error:  # whoever waits for the answer has the outcome all the same
                sys.stderr.write(f"{path} cannot be written: {error}\n")
        return outcome


def main() -> None:
    """Answer until the input ends; then remove the working directory, which is this process's own."""
    # Answers get standard output for themselves: what the client prints there goes nowhere.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    first = sys.stdin.readline()
    # Without its end, whoever started this process died while writing it: there is nobody to serve.
    opening: Json = json.loads(first) if first.endswith("\n") else {}
    client: Client | None = None
    for line in sys.stdin if opening else ():
        if not line.endswith("\n"):  # whoever asked died in the middle of it
            break
        question = json.loads(line)
        try:
            client = client or Client(opening["key"], opening["url"])
            answer = {"answer": getattr(client, question["do"])(**question["with"])}
        except Exception as error:
            # To make a client takes an installed package and a key that it can read; the cloud is not asked yet.
            kind = kind_of(error) if client else "missing" if isinstance(error, ImportError) else "credentials"
            answer = {"error": kind, "message": words_of(error, opening["key"])}
        text = json.dumps({"number": question["number"], **answer})
        try:
            answers.write(text + "\n")
            answers.flush()
        except BrokenPipeError:  # nobody listens any more; what must be known is in the notes
            break
    folder = Path.cwd()
    os.chdir(folder.parent)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.path and Path(sys.path[0] or ".").resolve() == Path(__file__).resolve().parent:
        del sys.path[0]  # the folder of this file: its neighbours are no modules of the top level
    main()

"""A language model that judges answers, behind any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message as Headers
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from qpeft.data import Message
from qpeft.devices.origin.account import is_loopback, is_server
from qpeft.errors import OutputError, TaskError
from qpeft.evaluation.tasks.cpsycoune import LARGEST, MalformedVerdictError, read_verdict, request
from qpeft.runs.files import disk_errors

KEY_VARIABLE = "QPEFT_JUDGE_KEY"
ATTEMPTS = 5
LONGEST_WAIT = 60.0
MAX_REASON = 300
TRY_AGAIN = (408, 409, 425, 429)
"""Besides those from 500 on, which are the server's own."""


@dataclass(frozen=True)
class Judge:
    """A model behind a server.

    `url`: the part of its address before /chat/completions. `model`: its name there. `key`: what the server knows the
    user by, or None; never shown or stored. `timeout`: seconds that one answer may take.

    Raises: TaskError if the address or the key is none, or the key would travel in the clear over a network.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if not is_server(self.url):
            raise TaskError(f"The address of a judge is such as https://host/v1; got {self.url!r}.")
        # The HTTP client would refuse it too, in an error that shows it.
        if self.key and not re.fullmatch("[!-~]+", self.key):
            raise TaskError(
                f"The key in {KEY_VARIABLE} holds a space, the end of a line or a letter beyond ASCII, which no key "
                "does. Set it anew; nothing was sent."
            )
        if urlsplit(self.url).scheme == "http" and self.key and not self.is_here:
            raise TaskError(
                f"{self.url} is not encrypted, and the key in {KEY_VARIABLE} would travel in the clear. Use https://."
            )

    @property
    def is_here(self) -> bool:
        """Whether what is sent stays on this machine, as far as its address tells."""
        return is_loopback(self.url)

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The judge's reply, at temperature 0. Busy and failing servers are asked up to `ATTEMPTS` times.

        Raises: TaskError if the server refuses, cannot be reached, or does not speak as it should.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._content(self._post({"model": self.model, "messages": list(messages), "temperature": 0}))
            except HTTPError as error:
                reason = f"{error.code} {error.reason}: {self._excerpt(_body(error))}"
                if error.code < 500 and error.code not in TRY_AGAIN:
                    raise TaskError(f"The judge at {self.url} refuses: {reason}") from error
                wait = _wait(error.headers, attempt)
            except (OSError, HTTPException) as error:
                reason, wait = " ".join(str(error).split()) or type(error).__name__, float(2**attempt)
            if attempt + 1 < ATTEMPTS:
                time.sleep(wait)
        raise TaskError(
            f"The judge at {self.url} did not answer in {ATTEMPTS} attempts; the last ended with {reason}. What it "
            "judged so far is kept: give the same command again later."
        )

    def _post(self, body: Mapping[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = Request(f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
        # A server that sends us elsewhere would have texts and key sent there too, which nobody agreed to.
        opener = build_opener(_NoRedirect, *([ProxyHandler({})] if self.is_here else []))
        with opener.open(request, timeout=self.timeout) as response:
            answer: bytes = response.read()
        return answer

    def _content(self, body: bytes) -> str:
        """The text of the first choice; empty where the judge says nothing."""
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise TaskError(
                f"{self.url} does not answer as a server of chat completions does: {self._excerpt(body)}"
            ) from error
        return content if isinstance(content, str) else ""

    def _excerpt(self, body: bytes) -> str:
        """The beginning of what a server says, without the key, which some repeat."""
        said = " ".join(body.decode("utf-8", "replace").split()) or "nothing"
        return (said.replace(self.key, "[the key]") if self.key else said)[:MAX_REASON]


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """None makes an error of it."""


def _wait(headers: Headers, attempt: int) -> float:
    """Seconds, as the server asks for; else twice as long each time."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(headers.get("Retry-After", ""))))
    except ValueError:  # none, or a date
        return float(2**attempt)


def _body(error: HTTPError) -> bytes:
    """What came with an error; nothing if the server broke off."""
    try:
        return error.read()
    except (OSError, HTTPException):
        return b""


# Verdicts of a judge, in a file that grows with each: what has been judged is not paid for again.


REPLIES = 3
"""Times that a judge is asked for one verdict, if what it says is none."""


@dataclass(frozen=True)
class Judgement:
    """Marks by criterion; None if the judge gave none, for `problem`."""

    marks: Mapping[str, int] | None
    problem: str | None = None


class VerdictFile:
    """Verdicts by all that they depend on: judge, request and reply. Order and run do not matter.

    Raises: OutputError if the file is damaged or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path.parent):
            data = path.read_bytes() if path.exists() else b""
            if not data.endswith(b"\n") and data:
                # A line without an end was being written when the evaluation was interrupted.
                os.truncate(path, data.rfind(b"\n") + 1)
        lines = data.split(b"\n")[:-1]
        self._marks = dict(_stored(line, f"{path}:{number}") for number, line in enumerate(lines, start=1))

    def find(self, key: str) -> dict[str, int] | None:
        """Marks that were given before."""
        return self._marks.get(key)

    def add(self, key: str, marks: Mapping[str, int], reply: str) -> None:
        """Keep marks, and the judge's words.

        Args:
            key: of the reply that was judged.
            marks: by aspect.
            reply: the judge's words.

        Raises: OutputError if the disk refuses.
        """
        line = json.dumps({"key": key, "marks": marks, "judge": reply}, ensure_ascii=False) + "\n"
        with disk_errors(self.path.parent), self.path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self._marks[key] = dict(marks)


def _stored(line: bytes, place: str) -> tuple[str, dict[str, int]]:
    try:
        stored = json.loads(line)
        return stored["key"], {name: stored["marks"][name] for name in LARGEST}
    except (ValueError, LookupError, TypeError) as error:
        raise OutputError(f"{place} is damaged: {error}. Move the file away to judge anew.") from error


def judge_reply(judge: Judge, history: Sequence[Message], reply: str, verdicts: VerdictFile) -> Judgement:
    """The verdict on one reply, from the file or from the judge; a judge that gives none leaves a gap, not zeros.

    Args:
        judge: the language model that is asked.
        history: dialogue up to the reply.
        reply: that is judged.
        verdicts: file that keeps what was judged before.

    Raises: TaskError if the judge cannot be asked; OutputError.
    """
    messages = request(history, reply)
    key = hashlib.sha256(json.dumps([judge.url.rstrip("/"), judge.model, messages]).encode()).hexdigest()
    if (marks := verdicts.find(key)) is not None:
        return Judgement(marks)
    problem = ""
    for _ in range(REPLIES):
        said = judge.ask(messages)
        try:
            marks = read_verdict(said)
        except MalformedVerdictError as error:
            problem = f"{error} in {said[:200]!r}"
            continue
        verdicts.add(key, marks, said)
        return Judgement(marks)
    return Judgement(None, problem)

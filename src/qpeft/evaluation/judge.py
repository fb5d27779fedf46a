"""A language model that judges answers, behind any server that speaks OpenAI's chat completions."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from qpeft.data import Message
from qpeft.devices.secrets import is_loopback, is_server
from qpeft.errors import OutputError, TaskError
from qpeft.evaluation.tasks.cpsycoune import LARGEST, MalformedVerdictError, read_verdict, request
from qpeft.runs.files import disk_errors

KEY_VARIABLE = "QPEFT_JUDGE_KEY"
ATTEMPTS = 5
MAX_REASON = 300
REPLIES = 3
"""Times that a judge is asked for one verdict, if its replies hold none."""


@dataclass(frozen=True)
class Judge:
    """A model behind a server.

    `url`: the part of its address before /chat/completions. `model`: its name there. `key`: what the server knows the
    user by, or None; never shown or stored. `timeout`: seconds that one answer may take.

    Raises: TaskError for a wrong address or key, or if the key would travel in the clear over a network.
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
        """Return the judge's reply at temperature 0, empty where it says nothing.

        Raises: TaskError if the openai package is missing, or the server refuses, cannot be reached, keeps failing
            after `ATTEMPTS` requests, or does not speak as it should.
        """
        try:
            import openai  # noqa: PLC0415  (optional, and takes a second to import)
        except ImportError as error:
            raise TaskError(
                f"A judge is asked through the package openai, which cannot be imported: {error}. pip install "
                '"qpeft[eval]" brings it. Nothing was sent.'
            ) from error
        # Variables for OpenAI's own service say nothing of this server, and must not reach it.
        unsent = ["OpenAI-Organization", "OpenAI-Project", *([] if self.key else ["Authorization"])]
        client = openai.OpenAI(
            base_url=self.url,
            api_key=self.key or "none",
            max_retries=ATTEMPTS - 1,
            timeout=self.timeout,
            # A server that redirects would have texts and key sent there too, which nobody agreed to; and for this
            # machine no proxy is wanted.
            http_client=openai.DefaultHttpxClient(follow_redirects=False, trust_env=not self.is_here),
        )
        body = ""
        try:
            # Raw, since the client takes any JSON for an answer.
            answer = client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=list(messages),  # type: ignore[arg-type]
                temperature=0,
                extra_headers={name: openai.Omit() for name in unsent},
            )
            body = answer.text
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise TaskError(
                f"{self.url} does not answer as a server of chat completions does: {self._excerpt(body)}"
            ) from error
        except openai.APIError as error:
            # Its own message without a status is "Connection error."; the reason is what that came from.
            reason = self._excerpt(str(error.__cause__ or error))
            if isinstance(error, openai.APIStatusError):
                reason = f"{error.status_code} {error.response.reason_phrase}: {self._excerpt(error.response.text)}"
                # The client tries the others again by itself, as late as the server says.
                if error.status_code < 500 and error.status_code not in (408, 409, 429):
                    raise TaskError(f"The judge at {self.url} refuses: {reason}") from error
            raise TaskError(
                f"The judge at {self.url} did not answer in {ATTEMPTS} attempts; the last ended with {reason}. What it "
                "judged so far is kept: give the same command again later."
            ) from error
        finally:
            client.close()
        return content if isinstance(content, str) else ""

    def _excerpt(self, said: str) -> str:
        """Return the beginning of what a server says, without the key, which some repeat."""
        said = " ".join(said.split()) or "nothing"
        return (said.replace(self.key, "[the key]") if self.key else said)[:MAX_REASON]


@dataclass(frozen=True)
class Judgement:
    """Marks by criterion; None if the judge gave none, for `problem`."""

    marks: Mapping[str, int] | None
    problem: str | None = None


class VerdictFile:
    """Verdicts by all that they depend on: judge, request and reply. Order and run do not matter.

    Every verdict is a line of the file at once: what has been judged is not paid for again.

    Raises: OutputError if the file is damaged or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors(path.parent):
            data = path.read_bytes() if path.exists() else b""
            if not data.endswith(b"\n") and data:
                # A line without an end was being written when the evaluation was interrupted.
                os.truncate(path, data.rfind(b"\n") + 1)
        self.marks: dict[str, dict[str, int]] = {}
        for number, line in enumerate(data.split(b"\n")[:-1], start=1):
            try:
                stored = json.loads(line)
                self.marks[stored["key"]] = {name: stored["marks"][name] for name in LARGEST}
            except (ValueError, LookupError, TypeError) as error:  # noqa: PERF203
                raise OutputError(f"{path}:{number} is damaged: {error}. Move the file away to judge anew.") from error

    def add(self, key: str, marks: Mapping[str, int], reply: str) -> None:
        """Keep marks, and the judge's words.

        Args:
            key: of the reply that was judged.
            marks: by criterion.
            reply: the judge's words.

        Raises: OutputError if the disk refuses.
        """
        line = json.dumps({"key": key, "marks": marks, "judge": reply}, ensure_ascii=False) + "\n"
        with disk_errors(self.path.parent), self.path.open("ab") as file:
            file.write(line.encode())
            # A verdict that was paid for outlives a crash of the machine too.
            file.flush()
            os.fsync(file.fileno())
        self.marks[key] = dict(marks)


def judge_reply(judge: Judge, history: Sequence[Message], reply: str, verdicts: VerdictFile) -> Judgement:
    """Return the verdict on one reply, from the file or from the judge; a judge without one leaves a gap, not zeros.

    Args:
        judge: the language model that is asked.
        history: dialogue up to the reply.
        reply: that is judged.
        verdicts: file that keeps what was judged before.

    Raises: TaskError if the judge cannot be asked; OutputError.
    """
    messages = request(history, reply)
    # The request's wording is in the messages, so a changed one is judged anew.
    key = hashlib.sha256(json.dumps([judge.url.rstrip("/"), judge.model, messages]).encode()).hexdigest()
    if key in verdicts.marks:
        return Judgement(verdicts.marks[key])
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

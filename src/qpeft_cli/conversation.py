"""A conversation at the terminal: questions, answers as they are made, and commands that begin with a slash."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from enum import Enum

from rich.console import Console

from qpeft.data import Message
from qpeft.errors import DataError, QpeftError
from qpeft.evaluation.dialogue import Sampling, ShownText, context_length, fitting, stream_answer
from qpeft_cli.adapted import AdaptedModel


class Speaker(Enum):
    """Who answers; the value is how the conversation calls it."""

    BASE = "base model"
    ADAPTER = "with adapter"


class Conversation:
    """Keeps the dialogue, and prints it as it goes on.

    All who answer get the same dialogue. Where both do, it goes on with the adapter's answer.

    Args:
        adapted: the model.
        console: without markup, since models write square brackets.
        system: system message; empty or None for that of the chat template.
        max_new_tokens: where an answer is cut off that has not ended by itself.
        sampling: how tokens are chosen.

    Raises: DataError if max_new_tokens leaves no room for a question.
    """

    def __init__(
        self, adapted: AdaptedModel, console: Console, *, system: str | None, max_new_tokens: int, sampling: Sampling
    ) -> None:
        context = context_length(adapted.model)
        if context is not None and max_new_tokens >= context:
            raise DataError(
                f"The model reads {context:,} tokens at once, so an answer of {max_new_tokens:,} leaves no room for a "
                "question. Lower --max-new-tokens."
            )
        self._room = None if context is None else context - max_new_tokens
        self._adapted, self._console = adapted, console
        self._max_new_tokens, self._sampling = max_new_tokens, sampling
        self._system = (system or "").strip()
        self._turns: list[Message] = []
        self._speakers: tuple[Speaker, ...] = (Speaker.ADAPTER,)

    def run(self, lines: Iterable[str]) -> None:
        """Answer line by line, until there are no more or one says /exit."""
        self._note("/help lists the commands.")
        for line in lines:
            text = line.strip()
            if text.split(maxsplit=1)[:1] in (["/exit"], ["/quit"]):
                return
            try:
                if text.startswith("/"):
                    self._obey(text)
                elif text:
                    self._answer(text)
            except QpeftError as error:
                self._note(f"error: {error}")
            except KeyboardInterrupt:
                self._note("stopped")

    def _obey(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, [*COMMANDS, "/exit"], n=1)
            self._note(f"There is no command {name}" + (f"; did you mean {near[0]}?" if near else "; see /help."))
            return
        COMMANDS[name][0](self, argument.strip())

    def _answer(self, question: str) -> None:
        system = [Message("system", self._system)] if self._system else []
        asked = [*system, *self._turns, Message("user", question)]
        messages, dropped = fitting(self._adapted.tokenizer, asked, room=self._room)
        if dropped:
            self._note(f"the dialogue is too long for the model; its {dropped} oldest messages are forgotten")
        self._turns = messages[len(system) :]
        answers: list[str] = []
        try:
            answers = [self._speak(speaker, messages) for speaker in self._speakers]
        finally:
            # A question without an answer must not stay: templates want user and assistant by turns.
            answered = answers and answers[-1]
            self._turns = [*self._turns, Message("assistant", answers[-1])] if answered else self._turns[:-1]

    def _speak(self, speaker: Speaker, messages: list[Message]) -> str:
        if len(self._speakers) > 1 or speaker is Speaker.BASE:
            self._note(f"[{speaker.value}]")
        # Not `print`, which would fold long lines and take :words: between colons for pictures.
        shown = ShownText(self._adapted.tokenizer, lambda text: self._console.out(text, end="", highlight=False))
        stopped = False
        try:
            with self._adapted.without_adapter(speaker is Speaker.BASE):
                stream_answer(
                    self._adapted.model,
                    self._adapted.tokenizer,
                    messages,
                    shown,
                    max_new_tokens=self._max_new_tokens,
                    sampling=self._sampling,
                )
        except KeyboardInterrupt:
            stopped = True
        self._console.print()
        if stopped or not shown.text.strip():
            self._note("stopped" if stopped else "(an empty answer)")
        return shown.text.strip()

    def _note(self, text: str) -> None:
        self._console.print(text, style="dim")

    def _let_speak(self, *speakers: Speaker) -> None:
        self._speakers = speakers
        self._note(f"answering: {' and '.join(speaker.value for speaker in speakers)}")

    def _set_system(self, text: str) -> None:
        self._system = text
        self._note(f"system message: {text}" if text else "no system message but that of the chat template")

    def _reset(self, _: str) -> None:
        self._turns = []
        self._note("a new dialogue")

    def _help(self, _: str) -> None:
        self._note("\n".join(f"{name:9} {meaning}" for name, (_, meaning) in COMMANDS.items()))
        self._note(f"{'/exit':9} leave; Ctrl-D does too\nCtrl-C stops an answer.")
        self._let_speak(*self._speakers)
        self._note(f"messages so far: {len(self._turns)}" + (f"; system: {self._system}" if self._system else ""))


Obey = Callable[[Conversation, str], None]
COMMANDS: dict[str, tuple[Obey, str]] = {
    "/reset": (Conversation._reset, "forget the dialogue"),
    "/adapter": (lambda self, _: self._let_speak(Speaker.ADAPTER), "the model answers with its adapter"),
    "/base": (lambda self, _: self._let_speak(Speaker.BASE), "the base model answers, without the adapter"),
    "/both": (lambda self, _: self._let_speak(Speaker.BASE, Speaker.ADAPTER), "both answer, one below the other"),
    "/system": (Conversation._set_system, "TEXT: set the system message; without a text, take it away"),
    "/help": (Conversation._help, "show this"),
}

"""A conversation at the terminal: questions, answers as they are made, and commands that begin with a slash."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from enum import Enum

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from qpeft.data import Message
from qpeft.errors import DataError, QpeftError
from qpeft.evaluation.generation import Sampling, ShownText, context_length, fitting, stream_answer
from qpeft_cli.adapted import AdaptedModel

WIDE = 100
"""Columns of a terminal that has room for two answers side by side."""


class Speaker(Enum):
    """Who answers; the value is how the conversation calls it."""

    BASE = "base model"
    ADAPTER = "with adapter"


COMMANDS = {
    "/reset": "forget the dialogue",
    "/adapter": "the model answers with its adapter",
    "/base": "the base model answers, without the adapter",
    "/both": "both answer, side by side if there is room",
    "/system": "TEXT: set the system message; without a text, take it away",
    "/help": "show this",
}
SPEAKERS = {"/adapter": (Speaker.ADAPTER,), "/base": (Speaker.BASE,), "/both": (Speaker.BASE, Speaker.ADAPTER)}


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
        # Prompt and answer share what the model reads at once.
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
                    name, _, argument = text.partition(" ")
                    self._obey(name, argument.strip())
                elif text:
                    self._answer(text)
            except QpeftError as error:
                self._note(f"error: {error}")
            except KeyboardInterrupt:
                self._note("stopped")

    def _obey(self, name: str, argument: str) -> None:
        if name == "/reset":
            self._turns = []
            self._note("a new dialogue")
        elif name in SPEAKERS:
            self._let_speak(*SPEAKERS[name])
        elif name == "/system":
            self._system = argument
            self._note(f"system message: {argument}" if argument else "no system message but that of the chat template")
        elif name == "/help":
            self._note("\n".join(f"{name:9} {meaning}" for name, meaning in COMMANDS.items()))
            self._note(f"{'/exit':9} leave; Ctrl-D does too\nCtrl-C stops an answer.")
            self._let_speak(*self._speakers)
            self._note(f"messages so far: {len(self._turns)}" + (f"; system: {self._system}" if self._system else ""))
        else:
            near = difflib.get_close_matches(name, [*COMMANDS, "/exit"], n=1)
            self._note(f"There is no command {name}" + (f"; did you mean {near[0]}?" if near else "; see /help."))

    def _let_speak(self, *speakers: Speaker) -> None:
        # Merged weights have no base model beside them: then this raises, and nobody else begins to speak.
        names = self._adapted.names(Speaker.BASE in speakers)
        self._speakers = speakers
        self._note(f"answering: {' and '.join(names if len(names) == len(speakers) else [Speaker.BASE.value])}")

    def _answer(self, question: str) -> None:
        system = [Message("system", self._system)] if self._system else []
        asked = [*system, *self._turns, Message("user", question)]
        messages, dropped = fitting(self._adapted.tokenizer, asked, room=self._room)
        # Forgotten for good, so that the next question is not asked of another past.
        if dropped:
            self._note(f"the dialogue is too long for the model; its {dropped} oldest messages are forgotten")
        self._turns = messages[len(system) :]
        has_columns = len(self._speakers) > 1 and self._console.is_terminal and self._console.width >= WIDE
        answers: list[str] = []
        try:
            answers = self._speak_beside(messages) if has_columns else self._speak_in_turn(messages)
        finally:
            # A question without an answer must not stay: templates want user and assistant by turns.
            answered = answers and answers[-1]
            self._turns = [*self._turns, Message("assistant", answers[-1])] if answered else self._turns[:-1]

    def _speak_in_turn(self, messages: list[Message]) -> list[str]:
        """Show answers as they are made, one below the other."""
        answers = []
        for speaker in self._speakers:
            if len(self._speakers) > 1 or speaker is Speaker.BASE:
                self._note(f"[{speaker.value}]")
            # Not `print`, which would fold long lines and take :words: between colons for pictures.
            text, note = self._stream(speaker, messages, lambda new: self._console.out(new, end="", highlight=False))
            self._console.print()
            if note:
                self._note(note)
            answers.append(text)
        return answers

    def _speak_beside(self, messages: list[Message]) -> list[str]:
        """Show answers as they are made, a column each."""
        shown = {speaker: Text(overflow="fold") for speaker in self._speakers}
        table = Table(*(f"[{speaker.value}]" for speaker in shown), box=None, expand=True, header_style="dim")
        for column in table.columns:
            column.ratio = 1
        table.add_row(*shown.values())
        answers = []
        # Refreshed here alone: a thread of its own would read a text while it is added to.
        with Live(table, console=self._console, auto_refresh=False) as live:
            for speaker, answer in shown.items():

                def show(new: str, answer: Text = answer) -> None:
                    answer.append(new)
                    live.refresh()

                text, note = self._stream(speaker, messages, show)
                answer.append(f"\n{note}" if note else "", style="dim")
                answers.append(text)
        return answers

    def _stream(
        self, speaker: Speaker, messages: list[Message], on_text: Callable[[str], None]
    ) -> tuple[str, str | None]:
        """Return an answer, which was given on as it was made, and what there is to note of it."""
        shown, stopped = ShownText(self._adapted.tokenizer, on_text), False
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
        # What was said until Ctrl-C counts as the answer, and stays in the dialogue.
        text = shown.text.strip()
        return text, "stopped" if stopped else None if text else "(an empty answer)"

    def _note(self, text: str) -> None:
        self._console.print(text, style="dim")

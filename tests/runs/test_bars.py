"""Progress: bars on a terminal, a line now and then elsewhere, and nothing at all where nobody listens."""

import io
import re

import pytest
from rich.console import Console

from qpeft.runs import bars
from qpeft.runs.bars import Bars


@pytest.fixture
def clock(monkeypatch):
    """A list whose one number is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    return now


def screen(*, terminal, quiet=False):
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, quiet=quiet, highlight=False)


def test_a_terminal_gets_a_bar_of_which_nothing_stays():
    console = screen(terminal=True)
    with Bars(console) as told:
        told("linear maps", 0, 4)
        told("linear maps", 3, 4)
        told._progress.refresh()
    out = console.file.getvalue()
    assert "linear maps" in out
    assert "3/4" in out
    assert out.rstrip().endswith(("\x1b[2K", "\x1b[?25h", "\x1b[1A\x1b[2K"))


def test_a_training_s_bar_stays_above_those_of_its_evaluations():
    console = screen(terminal=True)
    with Bars(console) as told:
        told("training", 5, 10)
        for _ in range(2):
            told("held-out loss", 0, 3)
            told("held-out loss", 3, 3)
        told("training", 6, 10)
        shown = {task.description: task.visible for task in told._progress.tasks}
        assert shown == {"training": True, "held-out loss": False}
        told("held-out loss", 1, 3)
        assert [task.completed for task in told._progress.tasks] == [6, 1]


def test_an_interruption_gives_the_cursor_back():
    console = screen(terminal=True)

    def work():
        with Bars(console) as told:
            told("training", 1, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert console.file.getvalue().rindex("\x1b[?25h") > console.file.getvalue().rindex("\x1b[?25l")


def test_a_file_gets_no_bar_and_few_lines(clock):
    console = screen(terminal=False)
    with Bars(console) as told:
        for done in range(1000):
            told("answers", done, 1000)
            clock[0] += 1
    lines = console.file.getvalue().splitlines()
    assert "\x1b" not in console.file.getvalue()
    assert len(lines) == 1 + (1000 - 11) // 60
    assert lines[0] == "answers: 10 of 1,000, about 0:16:30 left"


def test_what_is_soon_done_is_not_worth_a_line(clock):
    console = screen(terminal=False)
    with Bars(console) as told:
        for stage in ("loading", "logits", "linear maps"):
            told(stage, 0, 2)
            clock[0] += 9
            told(stage, 2, 2)
        told("writing", 0, 0)
    assert console.file.getvalue() == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_a_quiet_console_stays_quiet(clock, terminal):
    console = screen(terminal=terminal, quiet=True)
    with Bars(console) as told:
        told("answers", 0, 3)
        clock[0] += 500
        told.of("base model")("answers", 1, 3)
    assert console.file.getvalue() == ""


def test_names_in_brackets_are_no_markup():
    console = screen(terminal=True)
    with Bars(console) as told:
        told("[bold]judging[/bold] x", 0, 2)
        told._progress.refresh()
    assert "[bold]judging[/bold] x" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", console.file.getvalue())

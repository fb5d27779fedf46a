"""benchmarks/house.py counts what its docstring says, by hand on a folder of two files; and files called slow exist."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/house.py"

# 16 lines: 4 blank, 2 of comment, 10 of code.
ROOMS = '''"""Rooms."""

# A comment; the next one shares its line with code.
LIMIT = 3  # not a line of its own


def area(width, depth, height):
    """Return the area.

    Args:
        width: in metres.
    """
    return _product(width, depth)  # _product, in a comment, is no use of it
def _product(a, b): return a * b
def _unused(): pass
    # indented
'''

# 14 lines, all of code. `_late` is read twice; `Hidden` and functions inside functions are not public.
DOORS = '''class Door:
    def open(self, by, until, fast=True): return self._late(by) or self._late(until)
    def _late(self, by): return by
    @staticmethod
    def describe(a, b, c, d):
        """:param a: first."""
        def inner(a, b, c): return a
        return inner(a, b, c)
    def close(self, by, until): "No third argument."
class _Hidden:
    def open(self, a, b, c): pass
if True:
    async def knock(times, *, loud, text): "Knock."
    def ring(times: Annotated[int, typer.Option(help="How often.")], by: Who, at: When): "Ring, as a command."
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rooms.py").write_text(ROOMS, encoding="utf-8")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/doors.py").write_text(DOORS, encoding="utf-8")
    for left_out in ("__pycache__", ".venv"):
        (tmp_path / left_out).mkdir()
        (tmp_path / left_out / "other.py").write_text("def f(a, b, c): pass\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text("def f(): pass\n", encoding="utf-8")
    return tmp_path


def test_every_figure_is_the_one_counted_by_hand(folder):
    rows = runpy.run_path(str(SCRIPT))["measure"](folder).rows()
    assert list(rows.values()) == [
        "2",
        "30",
        "366.7",  # 11 functions
        "8.3",  # 2 comments on 24 lines of code
        "9.1",  # _product
        "40.0",  # of area, open, describe, knock and ring: open and knock
    ]


def test_the_command_prints_a_column_a_folder_and_the_names_behind_the_shares(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["house.py", "--names", str(folder), str(folder / "inner")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    assert "| files | 2 | 1 |" in printed
    assert f"used once: {folder}/rooms.py:14 _product\n" in printed
    assert f"without Args: {folder}/inner/doors.py:2 open\n" in printed
    assert "area" not in printed.partition("without Args")[2]


def test_a_folder_that_is_not_there_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["house.py", "nowhere"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "no folder nowhere" in capsys.readouterr().err


def test_every_slow_file_is_there_and_every_folder_has_quick_ones(request):
    tests = Path(__file__).parent
    slow = request.config.pluginmanager.get_plugin(str(tests / "conftest.py")).SLOW
    files = {path.relative_to(tests).as_posix() for path in tests.rglob("test_*.py")}
    assert slow <= files
    assert {path.rpartition("/")[0] for path in files} == {path.rpartition("/")[0] for path in files - slow}


def test_the_house_grows_no_worse():
    """Ratchets: lower them where the code has become better, and never raise them to let it become worse."""
    house = runpy.run_path(str(SCRIPT))["measure"](SCRIPT.parents[1] / "src")
    assert house.files <= 280, "merge small files into the neighbour that they serve"
    assert 1000 * house.functions / house.lines <= 56, "write functions that read downwards; inline what is used once"
    assert 100 * house.comment_lines / house.code_lines >= 2.9, "say why, where the mathematics is dense"
    assert len(house.without_args) / house.public_of_three <= 0.30, (
        "describe arguments: python benchmarks/house.py --names"
    )

"""`qpeft devices chips` as a user meets it."""

import sys

import pytest

from qpeft_cli.main import main


def chips(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["qpeft", "devices", "chips", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


def test_chips_are_shown_with_what_lives_on_them(start_cloud, monkeypatch, capsys):
    assert chips(monkeypatch, "--url", start_cloud(chip="wukong", online=True).url) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "72" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:3] == ["72 (or origin_wukong)", "yes", "66 of 72"]
    assert 95 < int(cells[3]) < 115
    assert all(0.9 < float(fidelity) < 1 for fidelity in cells[4:])


def test_without_a_key_or_with_an_open_address_nothing_is_asked(monkeypatch, capsys):
    monkeypatch.delenv("QPEFT_ORIGIN_KEY", raising=False)
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert chips(monkeypatch, "--url", "http://127.0.0.1:1") == 2
    assert "keyring set qpeft origin" in capsys.readouterr().err
    assert chips(monkeypatch, "--url", "http://cloud.example") == 2
    assert "in the clear" in capsys.readouterr().err

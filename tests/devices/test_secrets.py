"""Keys do not come out in messages, nor in the errors that these are raised from."""

import traceback

import pytest

from qpeft.devices.secrets import redacted

KEY = "k3y-0f-t3sts"


def test_an_error_without_a_key_is_told_and_kept_as_the_cause():
    error = ValueError("no such chip")
    assert redacted(error, [KEY, None, 7]) == ("ValueError: no such chip", error)


def test_a_key_is_blanked_and_its_error_is_no_cause():
    text, cause = redacted(ValueError(f"header oqcs_auth={KEY} refused"), [KEY])
    assert text == "ValueError: header oqcs_auth=... refused"
    assert cause is None


def test_a_key_further_back_is_no_cause_either():
    try:
        try:
            raise OSError(KEY)
        except OSError as first:
            raise ValueError("refused") from first
    except ValueError as error:
        text, cause = redacted(error, [KEY])
    assert (text, cause) == ("ValueError: refused", None)


def test_of_two_keys_the_longer_is_blanked_whole():
    assert redacted(ValueError(f"{KEY}-long {KEY}"), [KEY, f"{KEY}-long"])[0] == "ValueError: ... ..."


def test_a_traceback_shows_no_key():
    def ask():
        try:
            raise OSError(f"token {KEY}")
        except OSError as error:
            text, cause = redacted(error, [KEY])
            raise RuntimeError(text) from cause

    with pytest.raises(RuntimeError) as caught:
        ask()
    assert KEY not in "".join(traceback.format_exception(caught.value))

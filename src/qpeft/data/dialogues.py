"""Lists of turns, as `messages` (role, content) and ShareGPT (from, value) write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qpeft.data.example import ROLES, Message
from qpeft.data.fields import message, optional_text
from qpeft.data.rows import Row, kind, listed, quote
from qpeft.errors import DataError

COLUMNS = ("messages", "conversations")
TOOL_ROLES = ("tool", "function", "function_call", "function_response", "observation", "tool_call", "ipython")
NOT_READ = {
    "tool_calls": "leave such dialogues out, or write the call into the turn's text",
    "function_call": "leave such dialogues out, or write the call into the turn's text",
    "reasoning_content": "write it into the turn's text, between <think> and </think>",
    "thinking": "write it into the turn's text, between <think> and </think>",
}
"""Keys of a turn that some chat templates print and we do not; to drop them silently would change what is learned."""


@dataclass(frozen=True)
class TurnKeys:
    """The keys of a turn in one format, and what its role names mean: one of `ROLES` for each."""

    role: str
    content: str
    roles: Mapping[str, str]


OPENAI = TurnKeys("role", "content", {**{role: role for role in ROLES}, "developer": "system"})
SHAREGPT = TurnKeys(
    "from",
    "value",
    {
        **{role: role for role in ROLES},
        "human": "user",
        **dict.fromkeys(("gpt", "chatgpt", "model", "bot", "bing", "bard"), "assistant"),
    },
)


def keys_of(turns: object, otherwise: TurnKeys) -> TurnKeys:
    """The keys that the first turn has."""
    first = turns[0] if isinstance(turns, list) and turns else None
    return next((keys for keys in (OPENAI, SHAREGPT) if isinstance(first, dict) and keys.role in first), otherwise)


def turns_of(row: Row) -> object:
    """What the row's column of turns holds; None without one."""
    return next((row.structure(column) for column in COLUMNS if row.is_given(column)), None)


def read_dialogue(row: Row, keys: TurnKeys, roles: Mapping[str, str]) -> list[Message]:
    """The turns up to the last answer. What a user says after it is not trained on, so it is left out, blank or not.

    Args:
        row: with a list of turns in one of `COLUMNS`, and perhaps a `system` message beside it.
        keys: of a turn.
        roles: what further role names mean.

    Raises: DataError for a turn that is none, or an unknown role.
    """
    there = [column for column in COLUMNS if column in row.values] or [COLUMNS[0]]
    column = next(filter(row.is_given, there), there[0])
    return _with_system(read_turns(_listed_turns(turns_of(row), column, row), row, keys, roles), column, row)


def read_question(turns: object, column: str, row: Row, roles: Mapping[str, str]) -> list[Message]:
    """The turns up to where the assistant is to speak, an answer at their end left out, in either format.

    Args:
        turns: what `column` of the row holds; beside it there may be a `system` message.
        column: for errors.
        row: where the turns stand.
        roles: what further role names mean.

    Raises: DataError for a turn that is none, an unknown role, or if nobody asks.
    """
    found = _listed_turns(turns, column, row)
    keys = keys_of(found, OPENAI if column == COLUMNS[0] else SHAREGPT)
    known = {**keys.roles, **roles}
    asked = found[:-1] if _is_answer(found[-1], keys, known) else found
    read = [_turn(turn, f"turn {number}", row, keys, known) for number, turn in enumerate(asked, start=1)]
    if not read or read[-1].role != "user":
        raise DataError(f"{row.source}: the user must speak last, or last before the answer.")
    return _with_system(_said(read, row), column, row)


def read_turns(turns: Sequence[object], row: Row, keys: TurnKeys, roles: Mapping[str, str]) -> list[Message]:
    """The turns up to the last answer, of which there is one that is trained on. Raises: DataError."""
    known = {**keys.roles, **roles}
    read = [_turn(turn, f"turn {number}", row, keys, known) for number, turn in enumerate(turns, start=1)]
    length = max((number for number, turn in enumerate(read, start=1) if turn.role == "assistant"), default=0)
    if length == 0:
        raise DataError(f"{row.source}: the dialogue has no assistant turn, so there is nothing to train on.")
    if not any(turn.trained for turn in read if turn.role == "assistant"):
        raise DataError(f"{row.source}: every answer is marked as not to be trained on, which leaves nothing.")
    return _said(read[:length], row)


def _listed_turns(turns: object, column: str, row: Row) -> list[object]:
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{row.source}: '{column}' must be a list of turns; got {kind(turns)}.")
    tools = row.values.get("tools")
    # Data sets that keep the definitions as text write none as a blank or as an empty list.
    if tools.strip() not in ("", "[]", "null") if isinstance(tools, str) else tools:
        raise DataError(f"{row.source}: 'tools' defines tools, which are not read; leave such dialogues out.")
    return turns


def _with_system(messages: list[Message], column: str, row: Row) -> list[Message]:
    system = optional_text("system", row)
    if system and messages[0].role == "system":
        raise DataError(f"{row.source}: a system message stands both in 'system' and in '{column}'; keep one.")
    return [message("system", system, "'system'", row), *messages] if system else messages


def _said(turns: Sequence[Message], row: Row) -> list[Message]:
    """The same turns, none of which is blank."""
    return [
        message(turn.role, turn.content, f"turn {number}", row, trained=turn.trained)
        for number, turn in enumerate(turns, start=1)
    ]


def _is_answer(turn: object, keys: TurnKeys, roles: Mapping[str, str]) -> bool:
    role = turn.get(keys.role) if isinstance(turn, dict) else None
    return isinstance(role, str) and roles.get(role) == "assistant"


def _turn(turn: object, where: str, row: Row, keys: TurnKeys, roles: Mapping[str, str]) -> Message:
    """A turn whose text may still be blank."""
    expected = f"'{keys.role}' and '{keys.content}'"
    if not isinstance(turn, dict):
        raise DataError(f"{row.source}: {where} must be an object with {expected}; got {kind(turn)}.")
    for key, advice in NOT_READ.items():
        if turn.get(key):
            raise DataError(f"{row.source}: {where} has '{key}', which is not read; {advice}.")
    if keys.role not in turn or keys.content not in turn:
        raise DataError(f"{row.source}: {where} has the keys {listed(turn)}; expected {expected}.")
    role = turn[keys.role]
    if not isinstance(role, str) or role not in roles:
        raise DataError(f"{row.source}: {where} has the role {quote(role)}; {_role_advice(role, roles)}")
    return Message(roles[role], _content(turn[keys.content], where, row), _is_trained(turn, where, row))


def _role_advice(role: object, roles: Mapping[str, str]) -> str:
    if role in TOOL_ROLES:
        return (
            "calls of tools and their results have no place in a dialogue of system, user and assistant. Leave such "
            f"dialogues out, or say whose turn it is to be, as in data.roles: {{{role}: user}}."
        )
    return f"expected one of {listed(roles)}; data.roles: {{name: user}} makes others known."


def _content(content: object, where: str, row: Row) -> str:
    """Text, or a list of text parts as OpenAI writes them."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content if part.get("type") == "text"]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            return "".join(map(str, texts))
    raise DataError(f"{row.source}: the content of {where} must be text; got {kind(content)}.")


def _is_trained(turn: Mapping[str, object], where: str, row: Row) -> bool:
    """False where the data say so: `weight: 0` as OpenAI, or `train: false` as axolotl writes it."""
    for key in ("weight", "train"):
        value = turn.get(key)
        if value is not None and value not in (0, 1):
            raise DataError(f"{row.source}: '{key}' of {where} must be 0 or 1, false or true; got {value!r}.")
        if value is not None and not value:
            return False
    return True

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
    """The keys of a turn in one format, and the one of `ROLES` that each of its role names means."""

    role: str
    content: str
    roles: Mapping[str, str]


OURS = {role: role for role in ROLES}
OPENAI = TurnKeys("role", "content", OURS | {"developer": "system"})
SHAREGPT = TurnKeys(
    "from",
    "value",
    OURS | {"human": "user"} | dict.fromkeys(("gpt", "chatgpt", "model", "bot", "bing", "bard"), "assistant"),
)


def keys_of(turns: object, otherwise: TurnKeys) -> TurnKeys:
    """Return the keys that the first turn has; `otherwise` where it does not tell."""
    # Either column may hold either format, so the turns decide and not its name.
    first = turns[0] if isinstance(turns, list) and turns else None
    return next((keys for keys in (OPENAI, SHAREGPT) if isinstance(first, dict) and keys.role in first), otherwise)


def turns_of(row: Row) -> object:
    """Return what the row's column of turns holds; None without one."""
    return next((row.structure(column) for column in COLUMNS if row.is_given(column)), None)


def read_dialogue(row: Row, keys: TurnKeys, roles: Mapping[str, str]) -> list[Message]:
    """Return the turns up to the last answer. A question after it is not trained on, so it is left out, blank or not.

    Args:
        row: with a list of turns in one of `COLUMNS`, and perhaps a `system` message beside it.
        keys: those of its turns.
        roles: further role names of the data, and the role that each stands for.

    Raises: DataError for a malformed turn or an unknown role.
    """
    there = [column for column in COLUMNS if column in row.values] or [COLUMNS[0]]
    column = next(filter(row.is_given, there), there[0])
    return _with_system(read_turns(_listed_turns(turns_of(row), column, row), row, keys, roles), column, row)


def read_question(turns: object, column: str, row: Row, roles: Mapping[str, str]) -> list[Message]:
    """Return the turns up to where the assistant is to speak, without an answer at their end, in either format.

    Args:
        turns: what `column` of the row holds; beside it there may be a `system` message.
        column: its name, for errors.
        row: where the turns stand.
        roles: further role names of the data, and the role that each stands for.

    Raises: DataError for a malformed turn, an unknown role, or if nobody asks.
    """
    found = _listed_turns(turns, column, row)
    keys = keys_of(found, OPENAI if column == COLUMNS[0] else SHAREGPT)
    known = {**keys.roles, **roles}
    # The answer is dropped before it is read: a blank one is common here, and not an error.
    last = found[-1].get(keys.role) if isinstance(found[-1], dict) else None
    asked = found[:-1] if isinstance(last, str) and known.get(last) == "assistant" else found
    read = [_turn(turn, f"turn {number}", row, keys, known) for number, turn in enumerate(asked, start=1)]
    if not read or read[-1].role != "user":
        raise DataError(f"{row.source}: the user must speak last, or last before the answer.")
    return _with_system(_not_blank(read, row), column, row)


def read_turns(turns: Sequence[object], row: Row, keys: TurnKeys, roles: Mapping[str, str]) -> list[Message]:
    """Return the turns up to the last answer; at least one answer is trained on.

    Args:
        turns: objects with `keys`.
        row: where the turns stand, for errors.
        keys: those of the turns.
        roles: further role names of the data, and the role that each stands for.

    Raises: DataError for a malformed turn, an unknown role, or if there is nothing to train on.
    """
    known = {**keys.roles, **roles}
    read = [_turn(turn, f"turn {number}", row, keys, known) for number, turn in enumerate(turns, start=1)]
    # What follows the last answer is not learned from.
    length = max((number for number, turn in enumerate(read, start=1) if turn.role == "assistant"), default=0)
    if length == 0:
        raise DataError(f"{row.source}: the dialogue has no assistant turn, so there is nothing to train on.")
    if not any(turn.trained for turn in read if turn.role == "assistant"):
        raise DataError(f"{row.source}: every answer is marked as not to be trained on, which leaves nothing.")
    return _not_blank(read[:length], row)


def _listed_turns(turns: object, column: str, row: Row) -> list[object]:
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{row.source}: '{column}' must be a list of turns; got {kind(turns)}.")
    tools = row.values.get("tools")
    # Data sets that keep the definitions as text write a blank or an empty list where there are none.
    if tools.strip() not in ("", "[]", "null") if isinstance(tools, str) else tools:
        raise DataError(f"{row.source}: 'tools' defines tools, which are not read; leave such dialogues out.")
    return turns


def _with_system(messages: list[Message], column: str, row: Row) -> list[Message]:
    system = optional_text("system", row)
    if system and messages[0].role == "system":
        raise DataError(f"{row.source}: a system message stands both in 'system' and in '{column}'; keep one.")
    return [message("system", system, "'system'", row), *messages] if system else messages


def _not_blank(turns: Sequence[Message], row: Row) -> list[Message]:
    """Return the same turns. Raises: DataError if one is blank."""
    return [
        message(turn.role, turn.content, f"turn {number}", row, trained=turn.trained)
        for number, turn in enumerate(turns, start=1)
    ]


def _turn(turn: object, where: str, row: Row, keys: TurnKeys, roles: Mapping[str, str]) -> Message:
    """Return a turn as a message whose text may still be blank."""
    expected = f"'{keys.role}' and '{keys.content}'"
    if not isinstance(turn, dict):
        raise DataError(f"{row.source}: {where} must be an object with {expected}; got {kind(turn)}.")
    for key, advice in NOT_READ.items():
        if turn.get(key):
            raise DataError(f"{row.source}: {where} has '{key}', which is not read; {advice}.")
    if keys.role not in turn or keys.content not in turn:
        raise DataError(f"{row.source}: {where} has the keys {listed(turn)}; expected {expected}.")

    role, content = turn[keys.role], turn[keys.content]
    if not isinstance(role, str) or role not in roles:
        advice = f"expected one of {listed(roles)}; data.roles: {{name: user}} makes others known."
        if role in TOOL_ROLES:
            advice = (
                "calls of tools and their results have no place in a dialogue of system, user and assistant. Leave "
                f"such dialogues out, or say whose turn it is to be, as in data.roles: {{{role}: user}}."
            )
        raise DataError(f"{row.source}: {where} has the role {quote(role)}; {advice}")

    # OpenAI writes content as a list of parts too, of which those of another type than text cannot be read.
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        texts = [part.get("text") for part in content if part.get("type") == "text"]
        if len(texts) == len(content) and all(isinstance(text, str) for text in texts):
            content = "".join(map(str, texts))
    if not isinstance(content, str):
        raise DataError(f"{row.source}: the content of {where} must be text; got {kind(content)}.")

    # `weight: 0` as OpenAI, or `train: false` as axolotl writes it: the first of them that is given and false decides.
    trained = True
    for key in ("weight", "train"):
        value = turn.get(key) if trained else None
        if value is not None and value not in (0, 1):
            raise DataError(f"{row.source}: '{key}' of {where} must be 0 or 1, false or true; got {value!r}.")
        trained = trained and (value is None or bool(value))
    return Message(roles[role], content, trained)

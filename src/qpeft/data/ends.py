"""Where an answer ends: at what training teaches a model to say after one, whatever the model itself calls its end."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qpeft.data.example import Example, Message
from qpeft.data.turns import ChatTemplate, added_tokens
from qpeft.errors import DataError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


@dataclass(frozen=True)
class AnswerEnds:
    """What ends an answer: any of `tokens`, or any of `texts`, which are several ordinary tokens each.

    `tokens` begin with the end of turn of the chat template; the tokenizer's and the model's own ends of text follow.
    `news`: one sentence, where the model by itself would not stop there; else "".
    """

    tokens: tuple[int, ...]
    texts: tuple[str, ...]
    news: str

    def cut(self, tokens: list[int]) -> tuple[list[int], bool]:
        """Return the tokens of an answer up to the first that ends it, and whether there was one."""
        place = next((place for place, token in enumerate(tokens) if token in self.tokens), len(tokens))
        return tokens[:place], place < len(tokens)

    def cut_text(self, text: str) -> tuple[str, bool]:
        """Return an answer up to the first of `texts`, and whether there was one."""
        place = min((text.find(end) for end in self.texts if end in text), default=len(text))
        return text[:place], place < len(text)


def answer_ends(tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None) -> AnswerEnds:
    """Return what ends an answer, by the template and the tokenizer as `encode` trains on it, and by the model itself.

    Args:
        tokenizer: with or without a chat template; text without one ends with the tokenizer's end of text.
        generation: the model's own, or None.
    """
    ids = generation.eos_token_id if generation is not None else None
    own: list[int] = [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
    template, earlier, last = ChatTemplate(tokenizer), "", ""
    system, exchange = Message("system", "Be kind."), (Message("user", "Hello"), Message("assistant", "Good day"))
    # What the template prints after an answer that others follow, and after the last. Templates may refuse some of
    # these dialogues: those that want a system message, and those of one question only.
    refusal = None
    for turns in ((*exchange, *exchange), (system, *exchange, *exchange), exchange, (system, *exchange)):
        example = Example(turns, {}, "a dialogue")
        try:
            found = template.find_turns(example, template.render(example))
        except DataError as error:
            refusal = error
            continue
        earlier, last, refusal = found[0].ending, found[-1].ending, None
        break
    known, texts = [], []
    # A template may end earlier answers otherwise than the last, as gpt-oss's does, where that mark also stands between
    # thinking and answer. A model that knows the end of the last one stops where it always did.
    is_known = bool(last) and _token(tokenizer, last) in own
    for ending in (last, "" if is_known else earlier):
        token = _token(tokenizer, ending)
        if token is not None:
            known.append(token)
        elif ending:
            # A line break before a mark stays: "###" alone is a heading in many an answer.
            texts.append(ending.strip(" ").rstrip())
    ends_of_text = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    tokens = tuple(dict.fromkeys([*known, *ends_of_text, *own]))

    new = dict.fromkeys([*(tokenizer.convert_ids_to_tokens(token) for token in known if token not in own), *texts])
    # Not an error here: the template may accept the user's own dialogues, and if not, that error names their place.
    news = (
        f"it is not known how the chat template ends answers, since it refuses plain ones ({refusal})"
        if refusal
        else ""
    )
    if new:
        # A model may name a number that its tokenizer does not have.
        names = zip(tokenizer.convert_ids_to_tokens(own), own, strict=True)
        theirs = ", ".join(str(token or number) for token, number in names)
        other = f"the model by itself stops at {theirs}" if own else "the model by itself stops nowhere"
        ends = ", ".join(map(repr, new))
        news = f"answers end at {ends}, as the chat template ends them and training teaches; {other}"
    return AnswerEnds(tokens, tuple(dict.fromkeys(texts)), news)


def settle_ends(generation: GenerationConfig | None, ends: AnswerEnds) -> None:
    """Make a model stop at these tokens by itself, if it has a generation config.

    At texts it cannot: `stop_strings` needs the tokenizer in each call.
    """
    if generation is not None:
        generation.eos_token_id = list(ends.tokens) or None


def save_ends(generation: GenerationConfig | None, ends: AnswerEnds, folder: Path) -> None:
    """Write generation_config.json, so that a saved model stops where its answers end.

    Args:
        generation: the model's own, of which all but the ends is kept; None for none.
        ends: where answers end.
        folder: of the saved model.

    Raises: OSError.
    """
    from transformers import GenerationConfig  # noqa: PLC0415  (takes seconds to import)

    settled = GenerationConfig() if generation is None else copy.deepcopy(generation)
    settle_ends(settled, ends)
    # Not `save_pretrained`, which refuses what it would load: a config at odds with itself is the base model's own.
    (folder / "generation_config.json").write_text(settled.to_json_string(), encoding="utf-8")


def ends_note(ends: AnswerEnds) -> str:
    """Return a sentence for model cards on ends that no generation_config.json can name; "" where there are none."""
    if not ends.texts:
        return ""
    texts = ", ".join(map(repr, ends.texts))
    return (
        f"The chat template ends answers by text that is several tokens: call `model.generate(..., "
        f"stop_strings=[{texts}], tokenizer=tokenizer)`."
    )


def _token(tokenizer: PreTrainedTokenizerBase, ending: str) -> int | None:
    """Return the number of an end of turn that is one token; None if it is several, or empty."""
    mark = ending.strip()
    return int(tokenizer.convert_tokens_to_ids(mark)) if mark in added_tokens(tokenizer) else None

"""What learning rates are chosen by, and what the chosen runs are judged by: never the same, and never trained on."""

from __future__ import annotations

from qpeft.data import Example
from qpeft.errors import StudyError
from qpeft.training.sections import DataSection
from qpeft.training.splits import RecipeExamples

SHARE = 0.1
"""Of the training file: what chooses the learning rate, by a hash of the text."""


def judged_by(data: DataSection, test: str, items: int | None) -> DataSection:
    """A data section that holds the test out, read as the recipe reads its own data."""
    return data.model_copy(update={"hold_out": None, "eval": test, "eval_limit": items})


def require_apart(data: DataSection, test: str, items: int | None) -> None:
    """Raises: StudyError if the test asks questions of the training file; DataError if either cannot be read."""
    examples = RecipeExamples(judged_by(data, test, items).model_copy(update={"limit": None}), seed=0)
    asked = {_question(example): example for example in examples.training(once=True)}
    judged = examples.held_out()
    if shared := [one for one in judged if _question(one) in asked]:
        raise StudyError(
            f"{len(shared)} of {len(judged)} test items are asked in the training file too, {shared[0].source} and "
            f"{asked[_question(shared[0])].source} first. Take them out of one of the files."
        )


def _question(example: Example) -> tuple[tuple[str, str], ...] | str:
    """What two examples have in common that ask the same; a plain text asks for itself."""
    return tuple((message.role, message.content) for message in example.question) or example.digest

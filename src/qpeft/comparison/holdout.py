"""The examples that choose learning rates, and those that judge the chosen runs: never the same, never trained on."""

from __future__ import annotations

from qpeft.data import Example
from qpeft.errors import StudyError
from qpeft.models import load_skeleton, load_tokenizer
from qpeft.training.readable import require_readable
from qpeft.training.sections import DataSection, EvaluationSection, Recipe
from qpeft.training.splits import RecipeExamples, load_held_out, load_splits

SHARE = 0.1
"""Of the training file: what chooses the learning rate, by a hash of the text."""


def holdout_data(data: DataSection, test: str, items: int | None) -> DataSection:
    """Return a data section that holds the test out, read as the recipe reads its own data.

    Args:
        data: of the recipe.
        test: file or Hub name.
        items: the first so many of it; None for all.
    """
    return data.model_copy(update={"hold_out": None, "eval": test, "eval_limit": items})


def require_holdout(recipe: Recipe, test: str | None, items: int | None) -> list[str]:
    """Read, tokenise and check all that runs are trained on and judged by, as they will, so that none ends in an error.

    Args:
        recipe: of any run of the study, with what the study asks to be measured.
        test: what the chosen runs are judged by; None for what the recipe holds out.
        items: the first so many of it; None for all.

    Returns:
        What a user should know of the examples, a sentence each.

    Raises: StudyError, DataError, ModelError or TaskError.
    """
    options = recipe.model
    tokenizer = load_tokenizer(
        options.name, chat_template=options.chat_template, trust_remote_code=options.trust_remote_code
    )
    if test is not None:
        # No question of the test may be trained on. One beyond the recipe's limit counts too, so that raising the limit
        # later is safe.
        whole = holdout_data(recipe.data, test, items).model_copy(update={"limit": None})
        examples = RecipeExamples(whole, seed=0, tokenizer=tokenizer)
        asked = {_question(example): example for example in examples.training(once=True)}
        tested = examples.held_out()
        if shared := [one for one in tested if _question(one) in asked]:
            raise StudyError(
                f"{len(shared)} of {len(tested)} test items are asked in the training file too, {shared[0].source} and "
                f"{asked[_question(shared[0])].source} first. Take them out of one of the files."
            )
    skeleton = load_skeleton(options.name, trust_remote_code=options.trust_remote_code)
    training, chosen = load_splits(recipe.data, tokenizer, seed=recipe.seed)
    assert chosen is not None, "every trial holds a part out"
    judged = chosen if test is None else load_held_out(holdout_data(recipe.data, test, items), tokenizer)
    assert judged is not None, "a test that is empty has been refused"
    if len(judged.encoded) < 2:
        raise StudyError(
            f"{judged.source} is one item, from which nothing can be told of others. Judge by a larger test."
        )
    # The examples that choose a rate are measured by their loss alone, so their answers need not be readable.
    silent = recipe.model_copy(update={"evaluation": EvaluationSection()})
    notes = require_readable(silent, skeleton, tokenizer, training, chosen)
    notes += require_readable(recipe, skeleton, tokenizer, training, judged)
    return list(dict.fromkeys(notes))


def _question(example: Example) -> tuple[tuple[str, str], ...] | str:
    # Two examples that ask the same have this in common, whatever is answered; a plain text asks for itself.
    return tuple((message.role, message.content) for message in example.question) or example.digest

"""A trained adapter whose circuits run on a quantum device while it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from qpeft.adapters.qtha.quantum_device import DeviceEvaluator, set_quantum_device
from qpeft.data import Message
from qpeft.evaluation.generation import prompts
from qpeft.training.bill import generation_bill
from qpeft.training.config import override
from qpeft.training.quantum import DeviceSession, new_run_id
from qpeft.training.sections import DeviceSection, Recipe
from qpeft_cli.adapted import AdaptedModel
from qpeft_cli.consent import asking


@contextmanager
def answering_on(
    recipe: Recipe,
    section: DeviceSection,
    adapted: AdaptedModel,
    folder: Path,
    questions: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    yes: bool,
    console: Console,
) -> Iterator[None]:
    """Circuits of the adapter on the device within this block, after the bill and the user's consent.

    Args:
        recipe: that made the adapter.
        section: device, shots and layers.
        adapted: the model.
        folder: of the adapter, for the name of the run that pays.
        questions: that will be answered.
        max_new_tokens: of each answer.
        yes: whether the user has agreed already.
        console: for the bill before and the sum after.
    """
    session, run_id = DeviceSession(section, seed=recipe.seed), new_run_id(folder)
    asked = adapted.tokenizer(prompts(adapted.tokenizer, questions), add_special_tokens=False)
    lengths = [len(ids) for ids in asked["input_ids"]]
    bill = generation_bill(section, session.device.capabilities(), adapted.model, lengths, max_new_tokens)
    console.print(bill.table())
    asking(console, yes=yes)(bill)
    evaluator = session.attach(adapted.model, run_id)
    hook = adapted.model.register_forward_pre_hook(_only_what_is_read(evaluator), with_kwargs=True)
    try:
        yield
    except BaseException:
        # Not the sum: it is the journal that may have failed, and its message must come through.
        console.print(f"interrupted; `qpeft jobs list --run {run_id}` shows what was sent", style="dim")
        raise
    finally:
        hook.remove()
        set_quantum_device(adapted.model, None)
    console.print(f"sent to {section.name} as run {run_id}: {session.spent(run_id)}", style="dim")


def _only_what_is_read(evaluator: DeviceEvaluator) -> Callable[..., None]:
    """Before each forward pass: padding has no influence, so it is not sent."""

    def choose(_: nn.Module, __: tuple[Any, ...], inputs: Mapping[str, Any]) -> None:
        new = inputs["input_ids"].shape[1]
        evaluator.tokens = inputs["attention_mask"][:, -new:].bool()

    return choose


def section_for(recipe: Recipe, device: str, options: Sequence[str]) -> DeviceSection:
    """The device section that the adapter was trained with, or a new one for another device, with these options.

    Raises: RecipeError if an option is none, or there are no circuits to be put there.
    """
    if recipe.device is None or recipe.device.name != device:
        recipe = recipe.model_copy(update={"device": DeviceSection(name=device)})
    section = override(recipe, [f"--device.{option}" for option in options]).device
    assert section is not None
    return section

"""A trained adapter whose circuits run on a quantum device while it answers, and what the user must agree to first."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from filelock import FileLock
from rich.console import Console
from torch import nn

from qpeft.adapters.qtha.quantum_device import set_quantum_device
from qpeft.data import Message
from qpeft.devices.journal import default_path
from qpeft.devices.secrets import is_loopback
from qpeft.errors import DeviceError, RecipeError
from qpeft.evaluation.generation import prompts
from qpeft.runs import write_atomically
from qpeft.training.config import override
from qpeft.training.cost_estimate import CostEstimate, generation_cost
from qpeft.training.quantum import DeviceSession, new_run_id
from qpeft.training.sections import DeviceSection, Recipe
from qpeft_cli.adapted import AdaptedModel

NOTICE = (
    "Rotation angles computed from your text will leave this machine: {device} gets them with every circuit. Texts and "
    "weights do not, but angles depend on them."
)
NO_TEXT = "What {device} gets are trained angles: no text of yours enters them, so nothing has to be agreed to."


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
    """Run the adapter's circuits on the device within this block, after a cost estimate and the user's consent.

    Args:
        recipe: that made the adapter.
        section: device, shots and layers.
        adapted: the model.
        folder: of the adapter, for the name of the run that pays.
        questions: that will be answered.
        max_new_tokens: of each answer.
        yes: whether the user has agreed already.
        console: for the estimate before and the sum after.
    """
    # A run of its own in the journal: what answers cost is not counted as training.
    session, run_id = DeviceSession(section, seed=recipe.seed), new_run_id(folder)
    asked = adapted.tokenizer(prompts(adapted.tokenizer, questions), add_special_tokens=False)
    lengths = [len(ids) for ids in asked["input_ids"]]
    estimate = generation_cost(section, session.device.capabilities(), adapted.model, lengths, max_new_tokens)
    console.print(estimate.table())
    asking(console, yes=yes)(estimate)
    evaluator = session.attach(adapted.model, run_id)

    # Padding has no influence on answers, so it is not sent.
    def choose_tokens(_: nn.Module, __: tuple[Any, ...], inputs: Mapping[str, Any]) -> None:
        # With a cache, only the last tokens are new, and the mask is of all.
        new = inputs["input_ids"].shape[1]
        evaluator.tokens = inputs["attention_mask"][:, -new:].bool()

    hook = adapted.model.register_forward_pre_hook(choose_tokens, with_kwargs=True)
    try:
        yield
    except BaseException:
        # Not the sum: it is the journal that may have failed, and its message must come through.
        console.print(f"interrupted; `qpeft jobs list --run {run_id}` shows what was sent", style="dim")
        raise
    finally:
        # What is asked behind the block, such as the base model, is answered by the simulator again.
        hook.remove()
        set_quantum_device(adapted.model, None)
    console.print(f"sent to {section.name} as run {run_id}: {session.spent(run_id)}", style="dim")


def section_for(recipe: Recipe, device: str, options: Sequence[str]) -> DeviceSection:
    """Return the device section that the adapter was trained with, or a new one for another device, with these options.

    Args:
        recipe: that made the adapter.
        device: name of the quantum device.
        options: KEY=VALUE of its section.

    Raises: RecipeError for a wrong option, for an adapter without circuits, or if the folder alone names an address:
        it would get the user's key, and the folder may be anybody's.
    """
    # Options of one device mean nothing to another, so they are kept for the same one alone.
    if recipe.device is None or recipe.device.name != device:
        recipe = recipe.model_copy(update={"device": DeviceSection(name=device)})
    section = override(recipe, [f"--device.{option}" for option in options]).device
    assert section is not None
    url = section.options.get("url")
    is_said = any(option.startswith(("options.url=", "options=")) for option in options)
    if url is not None and not is_said and not is_loopback(str(url)):
        raise RecipeError(
            f"The training run used {device} at {url}, which would get your key. If that is the address that you want, "
            f"say --device-option options.url={url}. Nothing was sent."
        )
    return section


def asking(console: Console, *, yes: bool) -> Callable[[CostEstimate], None]:
    """Return a function that lets an estimate pass if no text leaves the machine or the user agrees to it.

    A user is asked once for each recipient.
    """

    def confirm(estimate: CostEstimate) -> None:
        # The recipient and not the device's name alone: the same name may lead to another address tomorrow.
        device = estimate.capabilities.recipient or estimate.capabilities.name
        if not estimate.capabilities.is_remote or device in _agreed():
            return
        if not estimate.text_enters:
            console.print(NO_TEXT.format(device=device))
            return
        _ask(console, NOTICE.format(device=device), f"angles go to {device}", yes=yes)
        _remember(device)

    return confirm


def agree_to_texts(console: Console, notice: str, *, recipient: str, texts: str, yes: bool) -> None:
    """Return if the user agrees that texts leave this machine, or did so before for the same texts and recipient.

    Args:
        console: where the notice goes, in any case: how much is sent may be another.
        notice: what is sent where, in words.
        recipient: its address.
        texts: SHA-256 of them.
        yes: whether the user agreed on the command line.

    Raises: DeviceError if not; nothing may then be sent.
    """
    # Consent is for these texts: another file for the same judge is asked about anew.
    name = f"{recipient} for the texts {texts}"
    if name in _agreed():
        console.print(notice)
        return
    _ask(console, notice, f"texts go to {recipient}", yes=yes)
    _remember(name)


def _ask(console: Console, notice: str, what: str, *, yes: bool) -> None:
    console.print(notice)
    # In a pipe or a batch job, a question would wait for ever or take the next line of input for an answer.
    if not yes and not sys.stdin.isatty():
        raise DeviceError(f"Nobody is here to agree that {what}. Say --yes. Nothing was sent.")
    if not yes and not typer.confirm("Go on?"):
        raise DeviceError("You did not agree. Nothing was sent.")


def _path() -> Path:
    return default_path().with_name("agreed.json")


def _agreed() -> dict[str, str]:
    """Return the recipients that the user agreed to, and when."""
    try:
        agreed = json.loads(_path().read_text(encoding="utf-8"))
        # JSON of another kind, such as a list of names, says nothing of when and to what.
        if not isinstance(agreed, dict):
            raise ValueError("it holds no names with dates")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"{_path()} cannot be read, so it is unknown what you agreed to: {error}. Delete it to be asked again; "
            "nothing was sent."
        ) from error
    return agreed


def _remember(device: str) -> None:
    _path().parent.mkdir(parents=True, exist_ok=True)
    # Other processes may be told of other devices at the same time.
    with FileLock(_path().with_suffix(".lock")):
        now = datetime.now().isoformat(timespec="seconds")
        write_atomically(_path(), json.dumps(_agreed() | {device: now}) + "\n")

"""`qpeft finalize`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from qpeft_cli.options import AdapterFolder, TrustRemoteCode


def finalize(
    folder: AdapterFolder,
    device: Annotated[str, typer.Option(help="Quantum device that measures the values.")],
    device_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of a recipe's device section, such as shots=50000 or options.url=..."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Measure a quantum-weighted adapter's values once more, and keep them with it: a plain matrix from then on.

    One circuit for each group of layers is sent, with trained angles and no text in them. The adapter in the folder is
    replaced, whole or not at all. The same command after an interruption pays for nothing twice.
    """
    from qpeft.adapters.qtha.quantum_device import finalize as finalize_adapter
    from qpeft.errors import AdapterError
    from qpeft.runs import hash_file, read_record, write_record
    from qpeft.training.cost_estimate import generation_cost
    from qpeft.training.quantum import DeviceSession
    from qpeft.training.saving import replace_adapter
    from qpeft_cli.adapted import load_adapted
    from qpeft_cli.on_device import (
        asking,
        section_for,
    )

    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    adapted = load_adapted(folder, trust_remote_code=trust_remote_code)
    if getattr(adapted.adapter.active_peft_config, "finalized", False):
        raise AdapterError(f"The adapter in {folder} is final already. Take it as it was before, to measure it anew.")
    section = section_for(adapted.recipe, device, device_option or ())
    session = DeviceSession(section, seed=adapted.recipe.seed)
    bill = generation_cost(section, session.device.capabilities(), adapted.adapter, (), 1)
    console.print(bill.table())
    asking(console, yes=False)(bill)
    # Named after the weights: an interrupted command finds what it has paid for, and another adapter does not.
    run_id = f"{folder.name}-final-{hash_file(folder / 'adapter_model.safetensors')[:8]}"
    errors = finalize_adapter(adapted.adapter, session.device, shots=section.shots, **session.through(run_id))
    replace_adapter(adapted.adapter, folder)
    spent = session.spent(run_id)
    measured = {"device": device, "shots": section.shots, "run": run_id, "largest_standard_error": max(errors.values())}
    write_record(folder, read_record(folder) | {"final": measured | vars(spent)})
    console.print(f"sent to {device} as run {run_id}: {spent}; largest standard error {max(errors.values()):.4f}")
    console.print(f"the adapter in {folder} is final: it needs no circuit any more")

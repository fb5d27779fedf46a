"""Processes that train together, as a launcher starts them: who writes, who decides, and models in shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import DistributedType, broadcast_object_list
from peft import PeftModel
from torch import Tensor
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from qpeft.adapters.base import FactoredBranch
from qpeft.errors import AdapterError, LaunchError, OutputError, QpeftError
from qpeft.runs.files import staged

T = TypeVar("T")


def join_processes() -> None:
    """Meet the other processes of a launcher: over its GPUs, or over gloo where there are none.

    Raises: LaunchError if they would not train as the launcher was told; accelerate itself would not say so.
    """
    # What accelerate leaves in the environment where it was asked for several processes and starts one.
    launched, address = "ACCELERATE_USE_CPU" in os.environ, {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    if launched and address and not {"LOCAL_RANK", "WORLD_SIZE"} & os.environ.keys():
        raise LaunchError(
            "The launcher was asked for several processes and started one, as accelerate does without GPUs. Start them "
            "with `accelerate launch --multi_gpu --num_processes N ...`, which works on CPUs too."
        )
    # Without `cpu`, accelerate lets each process of a machine without GPUs train alone.
    state = PartialState(cpu=computes_on_cpu())
    if state.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU):
        return
    for name, variable in (("FSDP", "ACCELERATE_USE_FSDP"), ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED")):
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise LaunchError(
                f"The launcher's configuration asks for {name}, which accelerate has on GPUs only: on this machine it "
                f"would leave it out without a word. Launch without {name} (--multi_gpu gives one whole model per "
                "process), or shard in a script of your own with qpeft.training.processes."
            )


def computes_on_cpu() -> bool:
    """Whether this is one of a launcher's processes, on a machine without GPUs."""
    return "LOCAL_RANK" in os.environ and not torch.accelerator.is_available()


def number_of_processes() -> int:
    """How many processes train together."""
    return int(PartialState().num_processes)


def is_main_process() -> bool:
    """Whether this is the one that writes and prints: the first, or the only one."""
    return bool(PartialState().is_main_process)


def busy_cores(device: torch.device) -> str | None:
    """Return a warning if torch's threads would wait for one another, since others use the cores they share.

    None where the machine does not tell its load, where one thread computes, and on a GPU.
    """
    threads, cores = torch.get_num_threads(), os.cpu_count()
    if device.type != "cpu" or threads == 1 or not cores or not hasattr(os, "getloadavg"):
        return None
    # The average of the last minute: the longer ones still count what ran before.
    load = os.getloadavg()[0]
    if load <= cores:
        return None
    return (
        f"warning: this machine is busy, with a load of {load:.1f} on {cores} cores. Torch's {threads} threads wait "
        "for one another then, which can take many times as long: set OMP_NUM_THREADS=1, or end what else runs."
    )


def wait_for_all() -> None:
    """Go on when all processes are here."""
    PartialState().wait_for_everyone()


def from_main(decide: Callable[[], T]) -> T:
    """Return in all processes what `decide` returns in the main one; the others do not call it.

    Raises: in all of them, the error of ours that it raises there.
    """
    if number_of_processes() == 1:
        return decide()
    # Errors travel too: a process that waited for an answer which never comes would wait for ever.
    said: list[Any] = [None, None]
    if is_main_process():
        try:
            said = [decide(), None]
        except QpeftError as error:
            said = [None, error]
    broadcast_object_list(said)
    value, failure = said
    if failure is not None:
        raise failure
    decided: T = value
    return decided


@contextmanager
def staged_together(folder: Path) -> Iterator[Path]:
    """Give all processes one temporary folder, as `staged` does; the main process renames it in the end.

    Before the end of its block, the main process has to wait for what others write there.
    """
    with staged(folder) if is_main_process() else nullcontext(folder) as own:
        yield from_main(lambda: own)


def require_as_many_processes(folder: Path, record: dict[str, Any]) -> None:
    """Raises: OutputError if the run of this record was started by another number of processes."""
    # Records of before say nothing of processes: there was one.
    stored, found = record.get("processes", 1), number_of_processes()
    if stored != found:
        raise OutputError(
            f"The run in {folder} was started with {stored} process{'es' * (stored > 1)}, this is {found}: batches and "
            f"random numbers would be others. Continue it with {stored}, or choose another --output.folder."
        )


def shard(model: PeftModel) -> None:
    """Split all weights of an adapted model among the processes, in place; a decoder layer is whole while it computes.

    Base and adapter keep their types. Optimizers are made afterwards, from the model's parameters. The model is
    called as before, each process with a batch of its own; gradients are means over processes.

    Raises: LaunchError where processes have not met; AdapterError if the model does not say what its layers are.
    """
    if not dist.is_initialized():
        raise LaunchError(
            "There are no processes to split the model among. Start the script with torchrun, and call "
            "torch.distributed.init_process_group first."
        )
    names = set(getattr(model.get_base_model(), "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise AdapterError(
            f"{type(model.get_base_model()).__name__} does not say what its decoder layers are (_no_split_modules). "
            "Call torch's fully_shard on each layer, then on the model."
        )
    for layer in layers:
        fully_shard(layer)
    fully_shard(model)
    # Factors that a branch keeps from one call to the next would be those of weights that are elsewhere by then.
    for module in model.modules():
        if isinstance(module, FactoredBranch):
            module.keeps_factors = False
    # Embeddings belong to the whole model, which `generate` goes past.
    register_fsdp_forward_method(model, "generate")


def whole_weights(model: PeftModel) -> dict[str, Tensor]:
    """Return `model.state_dict()` to save an adapter from: trained weights whole, none of the base if it is sharded.

    weights = whole_weights(model)  # in every process
    if dist.get_rank() == 0:
        model.save_pretrained(folder, state_dict=weights)
    """
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    return {
        name: weight.full_tensor() if isinstance(weight, DTensor) else weight
        for name, weight in model.state_dict().items()
        if name in trained or not isinstance(weight, DTensor)
    }

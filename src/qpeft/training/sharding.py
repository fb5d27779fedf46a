"""Adapted models whose weights are split among processes (FSDP2), and their adapters put together again."""

from __future__ import annotations

import torch.distributed as dist
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from qpeft.adapters.base import FactoredBranch
from qpeft.errors import AdapterError, LaunchError


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
    for layer in _decoder_layers(model):
        fully_shard(layer)
    fully_shard(model)
    for module in model.modules():
        if isinstance(module, FactoredBranch):
            module.keeps_factors = False
    # Embeddings belong to the whole model, which `generate` goes past.
    register_fsdp_forward_method(model, "generate")


def whole_weights(model: PeftModel) -> dict[str, Tensor]:
    """`model.state_dict()` to save an adapter from: trained weights whole, and none of the base if it is sharded.

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


def _decoder_layers(model: PeftModel) -> list[nn.Module]:
    names = set(getattr(model.get_base_model(), "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise AdapterError(
            f"{type(model.get_base_model()).__name__} does not say what its decoder layers are (_no_split_modules). "
            "Call torch's fully_shard on each layer, then on the model."
        )
    return layers

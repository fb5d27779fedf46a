"""All middles by the name that a config gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qpeft.adapters.qtha.controls import ClassicalFormMiddle, ConstantMiddle, HilbertMiddle, MlpMiddle, UnitMiddle
from qpeft.adapters.qtha.middle import AbstractMiddle, CircuitMiddle
from qpeft.circuits import Circuit
from qpeft.circuits.ansatz import ANSATZE
from qpeft.errors import AdapterError

if TYPE_CHECKING:
    from qpeft.adapters.qtha.config import QthaConfig


@dataclass(frozen=True)
class NamedMiddle:
    """How to make a middle of a rank, and whether it has the size of the circuit that the config describes."""

    make: Callable[[QthaConfig, int], AbstractMiddle | None]
    has_circuits_size: bool = False


def _circuit(config: QthaConfig, rank: int) -> tuple[Circuit, int]:
    """The circuit of a config, and how many of it run side by side."""
    num_qubits = config.qubits_per_circuit(rank)
    return ANSATZE[config.ansatz](num_qubits, config.depth, reupload=config.reupload), rank // num_qubits


def _trained(
    middle_class: type[CircuitMiddle] | type[ClassicalFormMiddle], config: QthaConfig, rank: int
) -> AbstractMiddle:
    scaling, offset = config.input_scaling, config.encoding_offset
    return middle_class(
        *_circuit(config, rank), trained=True, input_scaling=scaling, offset=offset, init=config.angle_init
    )


def _frozen(config: QthaConfig, rank: int) -> AbstractMiddle:
    scaling, offset = config.input_scaling, config.encoding_offset
    return CircuitMiddle(*_circuit(config, rank), trained=False, input_scaling=scaling, offset=offset, init="uniform")


def _units(function: Callable[[Tensor], Tensor], config: QthaConfig, rank: int) -> AbstractMiddle:
    circuit, _ = _circuit(config, rank)
    per_channel, left_over = divmod(circuit.num_weights, circuit.num_qubits)
    if left_over:
        raise AdapterError(
            f"middle={config.middle!r} shares the circuit's parameters among its channels, but {config.ansatz!r} has "
            f"{circuit.num_weights} for {circuit.num_qubits} qubits. Choose another ansatz or num_qubits."
        )
    return UnitMiddle(rank, per_channel, function)


MIDDLES = {
    "circuit": NamedMiddle(partial(_trained, CircuitMiddle), has_circuits_size=True),
    "frozen_circuit": NamedMiddle(_frozen, has_circuits_size=True),
    "classical_form": NamedMiddle(partial(_trained, ClassicalFormMiddle), has_circuits_size=True),
    "sinusoid": NamedMiddle(partial(_units, torch.sin), has_circuits_size=True),
    "tanh": NamedMiddle(partial(_units, torch.tanh), has_circuits_size=True),
    "hilbert": NamedMiddle(lambda _, rank: HilbertMiddle(rank)),
    "mlp": NamedMiddle(lambda config, rank: MlpMiddle(rank, config.mlp_layers)),
    "constant": NamedMiddle(lambda _, rank: ConstantMiddle(rank)),
    "none": NamedMiddle(lambda _config, _rank: None),
}

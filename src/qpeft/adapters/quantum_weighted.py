"""Quantum-weighted adapters: circuits that never see the text make the weights of the update.

    q = values of strings of Z after the circuit with trained angles theta          (one row per group of layers)
    y = J^+ (q(theta) - q(theta_0))     or   gain (q(theta) - q(theta_0))           numbers that start at zero
    R_m = sum_k y_k P_mk                                                            (rank x rank), fixed random P_mk
    update_m = U_m S_m R_m V_m^T                                                    U, S, V: top of the layer's own SVD

Only the angles are trained. They are the same for all tokens, so a step costs one evaluation per group of layers,
whatever the batch, the model and the number of layers; and the update is a matrix of the rank, so it merges exactly.

Sources: TinyLoRA, arXiv:2602.04118, for free numbers y; docs/quantum_weighted.md for the reading and its measurements.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, islice, product
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.base import (
    AbstractMatrixLayer,
    AbstractMatrixModel,
    AdapterConfig,
    check_counts,
    option,
)
from qpeft.adapters.base.branch import AbstractMatrixBranch
from qpeft.adapters.base.config import check_numbers
from qpeft.circuits import Circuit
from qpeft.circuits.ansatz import cnot_chain, cz_ring, two_design
from qpeft.circuits.circuit import Input, Operation, Weight
from qpeft.errors import AdapterError
from qpeft.simulation import expectations
from qpeft.simulation.noise.counter import SampleKey, Stream

ANSATZE = {"cz_ring": cz_ring, "cnot_chain": cnot_chain, "two_design": two_design}
"""Circuits without data whose states are real, by the name that `ansatz` gives them."""

CIRCUITS = ("trained", "free", "product", "linear")
READINGS = ("calibrated", "plain")
MAPPINGS = ("random", "train")
SHARES = ("model", "kind", "layer", "block", "module")
STARTS = ("clifford", "random")

MAX_DEFAULT_STRINGS = 255
"""All strings of 8 qubits. More need more shots to be told from zero, and the matrices P grow with them."""
MAX_SEARCHED_STRINGS = 4095
"""All strings of 12 qubits; a Clifford start keeps one per angle of them."""


@dataclass
class QuantumWeightedConfig(AdapterConfig, method="quantum_weighted"):
    """Configuration of a quantum-weighted adapter.

        y = base(x) + U S R V^T dropout(x);   R = sum over k of numbers_k(theta) P_k

    The angles theta of a circuit make the numbers; the rest is frozen, as the module's head says. Trained are the
    angles of one circuit for each group of layers that `share` makes, and the matrices P with `mapping='train'`. A
    fresh adapter leaves the model as it is. Frozen parts follow from the base weights and `init_seed`; a file holds the
    angles and a fingerprint of the frozen parts.

    Raises: AdapterError for a value out of range, an unknown name, or more strings than the qubits have.
    Source: docs/quantum_weighted.md; with `circuit='free'` it is TinyLoRA (arXiv:2602.04118).
    """

    rank: int = option(8, "Singular directions of each layer that the update mixes.")
    num_qubits: int = option(8, "Qubits of each circuit.")
    depth: int = option(2, "Layers of entangling gates, between depth + 1 layers of RY.")
    ansatz: str = option("cz_ring", "Circuit: cz_ring, cnot_chain or two_design.")
    start: str = option("clifford", "Angles to start from: clifford (0 or pi/2, slopes of 1) or random.")
    share: str = option("layer", "Who shares a circuit: model, kind (of module), layer, block (of a layer) or module.")
    num_strings: int | None = option(
        None, "Strings of Z that are read, by number of Z, then place; unset: all, at most 255, or one per angle."
    )
    reading: str = option("calibrated", "calibrated: through the inverse of the slope at the start; plain: times gain.")
    gain: float = option(
        4.0, "What is read is multiplied by this; more keeps angles near their start, and takes more shots."
    )
    ridge: float = option(0.05, "Slopes far below this part of the largest are not inverted (calibrated reading).")
    mapping: str = option(
        "random", "From numbers to matrices: random (fixed, as TinyLoRA) or train (a trained tensor train)."
    )
    bond_dimension: int = option(4, "Of the tensor train.")
    circuit: str = option("trained", "trained; or a control: free (TinyLoRA), product (no entangling), linear.")
    finalized: bool = option(False, "Set by `finalize`: the values are measured, and the file holds them.")
    save_factors: bool = option(False, "Whether the frozen singular vectors are saved too, to load on other weights.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts({name: getattr(self, name) for name in ("rank", "num_qubits", "depth", "bond_dimension")})
        check_numbers({"gain": self.gain, "ridge": self.ridge})
        choices = {
            "ansatz": tuple(ANSATZE),
            "start": STARTS,
            "share": SHARES,
            "mapping": MAPPINGS,
            "reading": READINGS,
            "circuit": CIRCUITS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise AdapterError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}.")
        if self.ridge < 0:
            raise AdapterError(f"ridge must be 0 or more; got {self.ridge}.")
        if self.num_strings is not None:
            check_counts({"num_strings": self.num_strings})
            if self.num_strings > 2**self.num_qubits - 1:
                raise AdapterError(
                    f"{self.num_qubits} qubits have {2**self.num_qubits - 1} strings of Z; got num_strings "
                    f"{self.num_strings}. Take fewer strings or more qubits."
                )

    def build_circuit(self) -> Circuit:
        """The circuit of every group: angles are its inputs, so that all groups are rows of one batch."""
        made = ANSATZE[self.ansatz](self.num_qubits, self.depth)
        operations = [
            Operation(op.gate_name, op.qubits, Input(op.angle.index)) if isinstance(op.angle, Weight) else op
            for op in made.operations
            if self.circuit != "product" or len(op.qubits) == 1
        ]
        strings = tuple(z_strings(self.num_qubits, self.num_strings or self._default_strings()))
        return Circuit(self.num_qubits, tuple(operations), strings)

    def _default_strings(self) -> int:
        # A Clifford start reads one string per angle, of any number of Z, so all are looked at.
        limit = MAX_SEARCHED_STRINGS if self.start == "clifford" else MAX_DEFAULT_STRINGS
        return min((1 << self.num_qubits) - 1, limit)

    def group_of(self, name: str) -> str:
        """The group that the layer called `name` belongs to."""
        if self.share == "module":
            return name
        if self.share in ("kind", "block"):
            return name.rpartition(".")[2 if self.share == "kind" else 0]
        number = re.search(r"\.(\d+)\.", f".{name}.")
        # Layers outside the numbered ones, such as a head, share one circuit of their own.
        return "" if self.share == "model" else number[1] if number else "-"


def z_strings(num_qubits: int, count: int) -> list[str]:
    """The first `count` strings of Z and I but for the identity: by number of Z, then by place, qubit 0 first."""
    strings: list[str] = []
    for weight in range(1, num_qubits + 1):
        for places in combinations(range(num_qubits), weight):
            if len(strings) == count:
                return strings
            strings.append("".join("Z" if qubit in places else "I" for qubit in range(num_qubits)))
    return strings


def slopes(circuit: Circuit, angles: Float[Tensor, "*batch angles"]) -> Float[Tensor, "*batch strings angles"]:
    """Derivatives of all observables by all angles of a circuit of RY.

    Half the difference at a quarter turn either side is exact, since each angle turns at two frequencies.
    """
    shifts = torch.eye(angles.shape[-1]).to(angles) * (torch.pi / 2)
    shifted = angles[..., None, None, :] + torch.stack([shifts, -shifts])  # (*batch, 2, angles, angles)
    values = expectations(circuit, shifted, angles.new_empty(0))
    return ((values[..., 0, :, :] - values[..., 1, :, :]) / 2).transpose(-1, -2)


@lru_cache(maxsize=32)
def clifford_start(circuit: Circuit) -> tuple[float, ...] | None:
    """Angles of 0 and pi/2 at which each angle moves one string of its own, with slope 1 or -1; None if none is found.

    There the circuit is of Clifford gates, so its state is a stabiliser state: a string of Z is 1, -1 or 0, and slopes
    are 1, -1 or 0 too. If they have full rank, every angle has a string that no other angle moves, so the numbers read
    are free numbers to first order, without an inverse that would multiply the noise of shots.
    """
    num_angles, num_qubits = circuit.num_inputs, circuit.num_qubits
    layers = -(-num_angles // num_qubits)
    # Whole layers first, all pi/2 before others: found at once for rings of 7 qubits or more, up to depth 3.
    patterns = [
        [angle for angle in layer_angles for _ in range(num_qubits)][:num_angles]
        for layer_angles in islice(product((torch.pi / 2, 0.0), repeat=layers), 64)
    ]
    stream = Stream(SampleKey(seed=0, module="Clifford points"))
    patterns += (torch.pi / 2 * (stream.uniforms(4096, num_angles) < 0.6)).tolist()
    for some in batched(patterns, 64):
        ranks = torch.linalg.matrix_rank(slopes(circuit, torch.tensor(some)), atol=0.1)
        if (ranks == num_angles).any():
            return tuple(some[int((ranks == num_angles).int().argmax())])
    return None


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Slices of `size` items, the last one shorter. Python 3.12 has it."""
    return (items[first : first + size] for first in range(0, len(items), size))


@dataclass
class _Reading:
    """How expectation values q (groups, strings) become numbers y (groups, numbers); None in `inverse` for plain."""

    origin: Tensor
    inverse: Tensor | None
    slope: Tensor
    gain: float

    def numbers(self, q: Tensor) -> Tensor:
        away = q - self.origin
        return self.gain * (away if self.inverse is None else torch.einsum("gks,gs->gk", self.inverse, away))

    def back(self, grad: Tensor) -> Tensor:
        """Gradient of q from that of y: the transpose of `numbers`."""
        return self.gain * (grad if self.inverse is None else torch.einsum("gks,gk->gs", self.inverse, grad))


@runtime_checkable
class BankEvaluator(Protocol):
    """Values of circuits from elsewhere, and their gradients."""

    @property
    def step(self) -> int:
        """Number of the training step; values are asked for anew when it changes."""

    def values(self, circuit: Circuit, angles: Tensor) -> Tensor:
        """Values of all observables, (groups, strings), for angles (groups, angles)."""

    def gradients(self, circuit: Circuit, angles: Tensor, grad: Tensor) -> Tensor:
        """Gradient of sum(values * grad) by the angles, (groups, angles).

        Args:
            circuit: of every group.
            angles: (groups, angles), radians.
            grad: from above, (groups, strings).
        """


@dataclass(frozen=True)
class _Constants:
    """What a bank is made of beside its weights: angles (groups, angles) at the start, how values are read, the
    matrices P (layers, numbers, rank * rank) unless they are trained, and the group of each layer.
    """

    start: Tensor
    reading: _Reading
    mixers: Tensor | None
    group: Tensor


@dataclass
class _Made:
    """Matrices of all layers, and the weights they were made from."""

    weights: tuple[Tensor, ...]
    versions: tuple[Any, ...]
    matrices: tuple[Tensor, ...] = ()
    was_differentiated: bool = False

    def is_of(self, weights: Sequence[Tensor]) -> bool:
        """Whether the weights have the same values still, whatever their versions say."""
        self.was_differentiated = False
        return all(
            then.device == now.device and torch.equal(then, now)
            for then, now in zip(self.weights, weights, strict=True)
        )


_IN_THE_MAKING: ContextVar[CircuitBank] = ContextVar("bank")
"""The bank of the adapter that PEFT is just putting into a model, layer by layer."""


class CircuitBank(nn.Module):
    """The circuits of one adapter, one per group of layers, and the matrices R that they give to its layers.

    Lives in the branch of the first layer, which saves it; all other branches of the adapter refer to it.

    Attributes:
        turns: trained, (num_groups, num_angles): how far each angle has turned from its start, radians. Zero at first
            in any type, which the angles themselves would not be after rounding.
        fingerprint: of the frozen parts of each layer, (num_layers,), as they were when the adapter was trained.
    """

    def __init__(self, config: QuantumWeightedConfig) -> None:
        super().__init__()
        self.config, self.circuit = config, config.build_circuit()
        self._clifford = self._clifford_start() if config.start == "clifford" and config.circuit != "free" else None
        self.groups: dict[str, int] = {}
        self.layers: list[str] = []
        self.group_of_layer: list[int] = []
        self.turns = nn.Parameter(torch.empty(0, self.circuit.num_inputs))
        self.cores = self._make_cores() if config.mapping == "train" else nn.ParameterList()
        self.register_buffer("fingerprint", torch.empty(0, dtype=torch.float32))
        self.fingerprint: Tensor
        # Measured once and for all by `finalize`; empty where circuits are evaluated still.
        for name in ("values", "standard_errors"):
            empty = torch.empty(0, self.circuit.num_observables)
            self.register_buffer(f"final_{name}", empty if config.finalized else None)
        self.final_values: Tensor | None
        self.final_standard_errors: Tensor | None
        self._computed: dict[int, float] = {}
        self._loaded = False
        self._constants: _Constants | None = None
        self._made: _Made | None = None
        self._evaluator: BankEvaluator | None = None

    def _make_cores(self) -> nn.ParameterList:
        """Cores of the tensor train P[layer, number, row, column]; that of the layers grows as they join."""
        rank, bond = self.config.rank, self.config.bond_dimension
        shapes = [(0, bond), (bond, self.num_numbers, bond), (bond, rank, bond), (bond, rank)]
        return nn.ParameterList(self._core(f"core {place}", *shape) for place, shape in enumerate(shapes))

    def _core(self, name: str, *shape: int) -> Tensor:
        # Each entry of P is a sum of bond**3 products of four entries, and is to have the variance of a random P.
        size = (self.scale / self.config.bond_dimension**1.5) ** 0.25
        normals = (
            Stream(SampleKey(seed=self._seed, module=name)).normals(*shape) if math.prod(shape) else torch.empty(shape)
        )
        core: Tensor = (size * normals).to(torch.float32)
        return core

    @property
    def scale(self) -> float:
        """Of entries of P: R of unit y has entries of variance 1 / rank."""
        return 1 / math.sqrt(self.num_numbers * self.config.rank)

    def _clifford_start(self) -> tuple[float, ...]:
        found = clifford_start(self.circuit)
        if found is not None and self.config.reading == "calibrated" and self.config.num_strings is None:
            moved = slopes(self.circuit, torch.tensor(found)).abs().amax(1) > 0.5
            kept = tuple(string for string, is_moved in zip(self.circuit.observables, moved, strict=True) if is_moved)
            self.circuit = Circuit(self.circuit.num_qubits, self.circuit.operations, kept)
        if found is None:
            raise AdapterError(
                f"No Clifford start is known for {self.config.ansatz} of {self.config.num_qubits} qubits and depth "
                f"{self.config.depth} with {self.circuit.num_observables} strings. Rings of 7 and more qubits have one "
                "at depth 1 and 2, rings of 8 or 10 at depth 3 too. Take start='random', or other sizes."
            )
        return found

    @property
    def num_numbers(self) -> int:
        """Entries of y: one per angle if the reading is calibrated, else one per string."""
        is_plain = self.config.reading == "plain" and self.config.circuit != "free"
        return self.circuit.num_observables if is_plain else self.circuit.num_inputs

    @property
    def exact(self) -> torch.dtype:
        """The type that matrices are made in: of the angles, and at least float32."""
        return torch.promote_types(self.turns.dtype, torch.float32)

    def join(self, name: str) -> int:
        """Make room for one more layer; returns its place among the layers."""
        group = self.config.group_of(name)
        if group not in self.groups:
            self.groups[group] = len(self.groups)
            self.turns = _grown(self.turns, torch.zeros(1, self.circuit.num_inputs))
            if self.final_values is not None and self.final_standard_errors is not None:
                row = self.final_values.new_zeros(1, self.circuit.num_observables)
                self.final_values = torch.cat([self.final_values, row])
                self.final_standard_errors = torch.cat([self.final_standard_errors, row])
        if len(self.cores):
            self.cores[0] = _grown(self.cores[0], self._core(f"core of {name}", 1, self.config.bond_dimension))
        self.layers.append(name)
        self.group_of_layer.append(self.groups[group])
        self.fingerprint = torch.cat([self.fingerprint, self.fingerprint.new_zeros(1)])
        self._constants = self._made = None
        return len(self.layers) - 1

    def matrix(self, place: int) -> Float[Tensor, "rank rank"]:
        """R of one layer. All layers' are made together, once for each state of the turns."""
        weights = tuple(self.parameters())
        # Optimizers may change weights without a trace (fused AdamW does), so once per pass values are compared.
        if self._made is not None and (place == 0 or self._made.was_differentiated):
            self._made = self._made if self._made.is_of(weights) else None
        needs_gradient = torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)
        if needs_gradient and self.config.finalized:
            raise AdapterError(
                "The values of this adapter are final: they were measured, and its angles no longer matter. To train "
                "on, take the adapter as it was before `finalize`."
            )
        # A device measures anew in each step, also while warm-up keeps the angles where they are: a resumed run does.
        step = 0 if self._evaluator is None else self._evaluator.step
        versions = (step, needs_gradient, *((weight.data_ptr(), weight._version) for weight in weights))
        if self._made is None or self._made.versions != versions:
            made = _Made(tuple(weight.detach().clone() for weight in weights), versions)
            # Weights are multiplied in their own type, whatever autocast does to tokens.
            with torch.autocast(self.turns.device.type, enabled=False):
                made.matrices = _Matrices.apply(self, made, *weights).unbind(0)
            self._made = made
        return self._made.matrices[place]

    def check_fingerprint(self, place: int, computed: float) -> None:
        """Note a layer's fingerprint, or compare it with that of a loaded adapter.

        Raises: AdapterError if the adapter was trained beside other weights.
        """
        self._computed[place] = computed
        if not self._loaded:
            self.fingerprint[place] = computed
        else:
            self._compare(place)

    def _compare(self, place: int) -> None:
        if self.config.save_factors:
            return  # what is frozen comes from the file
        computed, stored = self._computed[place], float(self.fingerprint[place])
        if abs(computed - stored) > 1e-3 * max(abs(stored), 1e-3) + 1e-6:
            raise AdapterError(
                f"The adapter was trained beside other weights: at {self.layers[place]!r} their fingerprint is "
                f"{stored:.6g} in the file and {computed:.6g} here. Load the same base model in the same precision "
                "and quantization, or train with save_factors=True, which keeps the directions with the adapter."
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}fingerprint" in state_dict:
            self._loaded = True
            for place in self._computed:
                self._compare(place)

    @torch.no_grad()
    def finalize(self, values: Tensor, standard_errors: Tensor) -> None:
        """Take these values, (groups, strings), from now on; they are saved with the adapter, and angles are not used.

        Args:
            values: measured, of every string of every group.
            standard_errors: of the values.
        """
        self.config.finalized, self._evaluator, self._made = True, None, None
        self.register_buffer("final_values", values.to(self.turns.device, torch.float32))
        self.register_buffer("final_standard_errors", standard_errors.to(self.turns.device, torch.float32))
        self.turns.requires_grad_(False)

    def set_evaluator(self, evaluator: BankEvaluator | None) -> None:
        """Evaluate the circuits elsewhere from now on; None for the simulator. Neither saved nor copied."""
        self._evaluator, self._made = evaluator, None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_made": None, "_evaluator": None}

    def _apply(self, fn: Any, recurse: bool = True) -> CircuitBank:
        # PEFT gives a new adapter the type of the base weights, in which a fingerprint would not be known again and
        # measured values would be others. Angles are made float32 again by PEFT itself.
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            moved = self._buffers[name]
            assert moved is not None
            self._buffers[name] = buffer.to(moved.device)
        self._constants = self._made = None
        return self

    def _start(self, group: str) -> Tensor:
        """Angles theta_0 of a group, (1, num_angles): a Clifford point, the same for all, or uniform in [-pi, pi]."""
        if self._clifford is not None:
            return torch.tensor([self._clifford], dtype=torch.float64)
        stream = Stream(SampleKey(seed=self._seed, module=f"angles of {group}"))
        return 2 * torch.pi * (stream.uniforms(1, self.circuit.num_inputs) - 0.5)

    @property
    def _seed(self) -> int:
        assert self.config.init_seed is not None
        return self.config.init_seed % 2**64

    def constants(self) -> _Constants:
        """What is frozen, on the device and in the type that matrices are made in."""
        device, exact = self.turns.device, self.exact
        if self._constants is None or (self._constants.start.device, self._constants.start.dtype) != (device, exact):
            start = torch.cat([self._start(group) for group in self.groups]).to(device, exact)
            mixers = None
            if not len(self.cores):
                size = self.config.rank**2
                mixers = torch.stack([self.mixers(name) for name in self.layers]).reshape(-1, self.num_numbers, size)
                mixers = mixers.to(device, exact)
            group = torch.tensor(self.group_of_layer, device=device)
            self._constants = _Constants(start, self._make_reading(start), mixers, group)
        return self._constants

    def mixers(self, name: str) -> Float[Tensor, "numbers rank rank"]:
        """The fixed random matrices P of the layer called `name`."""
        stream = Stream(SampleKey(seed=self._seed, module=f"matrices of {name}"))
        return self.scale * stream.normals(self.num_numbers, self.config.rank, self.config.rank)

    def angles(self) -> Float[Tensor, "groups angles"]:
        """The angles as they are now, without a gradient."""
        return self.constants().start + self.turns.detach().to(self.exact)

    def _make_reading(self, start: Tensor) -> _Reading:
        # Exact ones, also for a device: on a biased chip the update then starts slightly off zero.
        origin = expectations(self.circuit, start, start.new_empty(0))
        slope = slopes(self.circuit, start)
        if self.config.reading == "plain":
            return _Reading(origin, None, slope, self.config.gain)
        # Damped rather than cut off: a singular value beside a cut-off would fall on either side of it by rounding,
        # and two machines would read two adapters from one file.
        u, s, vh = torch.linalg.svd(slope.double(), full_matrices=False)
        damped = s / (s.square() + (self.config.ridge * s[:, :1]).square()).clamp_min(1e-30)
        inverse = (vh.transpose(1, 2) * damped[:, None]) @ u.transpose(1, 2)
        return _Reading(origin, inverse.to(self.exact), slope, self.config.gain)

    def values(self, turns: Tensor) -> Tensor:
        """Values of all strings, (groups, strings), of circuits turned so far, (groups, angles), from their start."""
        angles = self.constants().start + turns
        if self._evaluator is not None:
            return self._evaluator.values(self.circuit, angles)
        return expectations(self.circuit, angles, angles.new_empty(0))

    def gradients(self, turns: Tensor, grad: Tensor) -> Tensor:
        """Gradient of sum(values * grad) by the turns, (groups, angles)."""
        angles = self.constants().start + turns
        if self._evaluator is not None:
            return self._evaluator.gradients(self.circuit, angles, grad)
        with torch.enable_grad():
            angles.requires_grad_()
            return torch.autograd.grad(expectations(self.circuit, angles, angles.new_empty(0)), angles, grad)[0]


class _Matrices(torch.autograd.Function):
    """From the angles of all groups to the matrices R of all layers, and back.

    Nothing goes through `save_for_backward`, which would be freed by the first backward pass: the same matrices serve
    all micro-batches of a step, and each of them has a backward pass of its own.
    """

    @staticmethod
    def forward(ctx: Any, bank: CircuitBank, made: _Made, turns: Tensor, *cores: Tensor) -> Tensor:
        constants, config = bank.constants(), bank.config
        ctx.bank, ctx.made, ctx.turns = bank, made, turns.detach()
        exact, reading = ctx.turns.to(bank.exact), constants.reading
        match config.circuit:
            case "free":
                numbers = config.gain * exact
            case "linear":
                numbers = reading.numbers(reading.origin + torch.einsum("gsa,ga->gs", reading.slope, exact))
            case _ if bank.final_values is not None:
                numbers = reading.numbers(bank.final_values.to(bank.exact))
            case _:
                numbers = reading.numbers(bank.values(exact))
        ctx.numbers, ctx.cores = numbers, [core.detach().to(bank.exact) for core in cores]
        mixers = _contracted(ctx.cores) if cores else constants.mixers
        matrices: Tensor = numbers[constants.group][:, None] @ mixers
        return matrices.reshape(-1, config.rank, config.rank)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bank: CircuitBank = ctx.bank
        constants, config, reading = bank.constants(), bank.config, bank.constants().reading
        ctx.made.was_differentiated = True
        grad = grad.reshape(len(grad), -1)
        core_grads: list[Tensor] = []
        mixers = constants.mixers
        if ctx.cores:
            with torch.enable_grad():
                leaves = [core.requires_grad_() for core in ctx.cores]
                whole = _contracted(leaves)
                of_mixers = ctx.numbers[constants.group][:, :, None] * grad[:, None]
                core_grads = list(torch.autograd.grad(whole, leaves, of_mixers))
            mixers = whole.detach()
        assert mixers is not None
        by_layer = (mixers @ grad[:, :, None]).squeeze(2)
        numbers = by_layer.new_zeros(len(bank.groups), bank.num_numbers).index_add_(0, constants.group, by_layer)
        match config.circuit:
            case "free":
                by_turns = config.gain * numbers
            case "linear":
                by_turns = torch.einsum("gsa,gs->ga", reading.slope, reading.back(numbers))
            case _:
                by_turns = bank.gradients(ctx.turns.to(bank.exact), reading.back(numbers))
        return None, None, by_turns.to(ctx.turns.dtype), *core_grads


def _contracted(cores: Sequence[Tensor]) -> Float[Tensor, "layers numbers entries"]:
    """The matrices P of all layers from the cores of their tensor train, rows and columns flattened."""
    return torch.einsum("ma,akb,bic,cj->mkij", *cores).flatten(2)


def _grown(weight: nn.Parameter, rows: Tensor) -> nn.Parameter:
    """A parameter with more rows, trained if it was; without values where it has none."""
    whole = torch.cat([weight.detach(), rows.to(weight)])
    return nn.Parameter(whole, requires_grad=weight.requires_grad)


class QuantumWeightedBranch(AbstractMatrixBranch):
    """The update of one layer: `update = U S R V^T x`, R from the bank of circuits.

    Shapes: x (..., in_features); down = V^T (rank, in_features); up = (U S)^T (rank, out_features), frozen.
    """

    bank: CircuitBank

    def __init__(self, layer: QuantumWeightedLayer, bank: CircuitBank) -> None:
        super().__init__()
        self.place = bank.join(layer.name)
        # Registered with the first layer only: one tensor in files, one parameter for optimizers.
        if self.place == 0:
            self.bank = bank
        else:
            object.__setattr__(self, "bank", bank)
        self.dropout = nn.Dropout(bank.config.dropout)
        self._layer = (layer,)
        self._factors: tuple[Tensor, Tensor] | None = None
        if not layer.get_base_layer().weight.is_meta:
            self.factors(layer.get_base_layer().weight.device)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the angles, and of x and the update."""
        return self.bank.turns.dtype

    def forward(self, x: Float[Tensor, "*batch in_features"]) -> Float[Tensor, "*batch out_features"]:
        """The update for inputs x, in their type."""
        down, up = self.factors(x.device)
        # R is multiplied into V^T rather than the tokens: a small product of weights, whatever the batch.
        with torch.autocast(x.device.type, enabled=False):
            mixed = self.bank.matrix(self.place).to(x.device) @ down
        return nn.functional.linear(self.dropout(x), mixed.to(x.dtype)) @ up.to(x.dtype)

    def matrix(self) -> Float[Tensor, "out_features in_features"]:
        """U S R V^T, of rank `rank` at most."""
        down, up = self.factors(self.bank.turns.device)
        if not self.bank.turns.isfinite().all():
            # The simulator refuses such angles, and a merge then reports what is broken in words of its own.
            return up.T @ down * torch.nan
        return up.T @ self.bank.matrix(self.place) @ down

    def factors(self, device: torch.device) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "rank out"]]:
        """V^T and (U S)^T of the base weight, computed at the first call.

        Raises: AdapterError if the layer has a smaller rank, or other weights than the adapter was trained beside.
        """
        if self._factors is None:
            layer, config = self._layer[0], self.bank.config
            if config.rank > min(layer.in_features, layer.out_features):
                raise AdapterError(
                    f"rank {config.rank} is above what {layer.name!r} has: {layer.in_features} features in and "
                    f"{layer.out_features} out. Take a smaller rank, or leave the layer out by exclude_modules."
                )
            down, up = top_singular_vectors(_weight_of(layer), config.rank)
            self._factors = (down.to(self.bank.exact), up.to(self.bank.exact))
            self.bank.check_fingerprint(self.place, self._fingerprint(down, up))
        if self._factors[0].device != device or self._factors[0].dtype != self.bank.exact:
            down, up = self._factors
            self._factors = (down.to(device, self.bank.exact), up.to(device, self.bank.exact))
        return self._factors

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Not buffers: PEFT would round them to the type of the base, and DDP would send them around at every step.
        if self.bank.config.save_factors:
            down, up = self.factors(self.bank.turns.device)
            destination |= {f"{prefix}down": down, f"{prefix}up": up}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if self.bank.config.save_factors and f"{prefix}down" in state_dict:
            self._factors = (state_dict[f"{prefix}down"].float(), state_dict[f"{prefix}up"].float())

    def _fingerprint(self, down: Tensor, up: Tensor) -> float:
        """One number that changes with every entry of the frozen parts: r^T (U S) P V^T s for fixed random r, P, s."""
        stream = Stream(SampleKey(seed=self.bank._seed, module=f"fingerprint of {self._layer[0].name}"))
        rank = len(down)
        mixed = stream.normals(up.shape[1]).to(up) @ up.T @ stream.normals(rank, rank).to(up) @ down
        return float(mixed @ stream.normals(down.shape[1]).to(down))


@torch.no_grad()
def _weight_of(layer: QuantumWeightedLayer) -> Float[Tensor, "out_features in_features"]:
    """The weight that the base layer multiplies with, dequantized."""
    try:
        return layer.get_base_weight()
    except TypeError:
        # A quantization that PEFT cannot read: the layer's answers to unit vectors are the weight's columns.
        base = layer.get_base_layer()
        answers: Tensor = base(torch.eye(layer.in_features, dtype=base.weight.dtype, device=base.weight.device))
        return (answers if base.bias is None else answers - base.bias).T


def top_singular_vectors(weight: Tensor, rank: int) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "rank out"]]:
    """V^T and (U S)^T of the largest singular values, float64; the largest entry of each row of V^T is positive.

    In float64 because neighbouring singular values of real layers come as close as 1e-5 of each other, and in float32
    their vectors would then turn from machine to machine.
    """
    exact = weight.detach().double()
    # From the smaller of the two products: half the work, and exact enough for the largest values.
    is_wide = exact.shape[0] < exact.shape[1]
    _, vectors = torch.linalg.eigh(exact @ exact.T if is_wide else exact.T @ exact)
    top = vectors[:, -rank:].flip(1).T  # rows, largest first
    if is_wide:
        projected = top @ exact
        norms = torch.linalg.vector_norm(projected, dim=1, keepdim=True).clamp_min(1e-300)
        down, up = projected / norms, norms * top
    else:
        down, up = top, top @ exact.T
    signs = down.gather(1, down.abs().argmax(1, keepdim=True)).sign()
    return signs * down, signs * up


class QuantumWeightedLayer(AbstractMatrixLayer, method="quantum_weighted"):
    """A linear layer plus the updates of its active quantum-weighted adapters; see `QuantumWeightedBranch`.

    Shapes: x (..., in_features), y (..., out_features) in the type that the base layer returns.
    """

    def make_branch(self, config: QuantumWeightedConfig) -> QuantumWeightedBranch:
        """A branch in the bank of the adapter that is being made; its update is zero."""
        bank = _IN_THE_MAKING.get()
        assert bank.config is config or bank.config == config
        return QuantumWeightedBranch(self, bank)


class QuantumWeightedModel(AbstractMatrixModel, layer=QuantumWeightedLayer):
    """Made by `get_peft_model(model, QuantumWeightedConfig(...))`.

    Raises: AdapterError for a target that is not linear or of smaller rank, and for mixed batches that cannot be.
    """

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> Any:
        """As PEFT's, with one bank of circuits for all layers that get this adapter."""
        config = self.peft_config[adapter_name]
        if config.init_seed is None:
            # The frozen parts must be found again when the adapter is loaded, so the seed is drawn now and saved.
            config.init_seed = int(torch.randint(2**31, (), device="cpu"))
        token = _IN_THE_MAKING.set(CircuitBank(config))
        try:
            return super().inject_adapter(model, adapter_name, *args, **kwargs)
        finally:
            _IN_THE_MAKING.reset(token)


def circuit_banks(model: nn.Module) -> dict[str, CircuitBank]:
    """Banks of a model whose circuits can run on a device, by the names that a journal has for them."""
    banks = {name: module for name, module in model.named_modules() if isinstance(module, CircuitBank)}
    return {
        f"quantum_weighted.{name.split('.')[-2]}": bank
        for name, bank in banks.items()
        if bank.config.circuit in ("trained", "product")
    }

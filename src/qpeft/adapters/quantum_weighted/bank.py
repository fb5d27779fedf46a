"""The circuits of one adapter, evaluated once per step, and the matrices that they give to all its layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qpeft.adapters.quantum_weighted.config import QuantumWeightedConfig
from qpeft.adapters.quantum_weighted.mappings import MAPPINGS, grown
from qpeft.adapters.quantum_weighted.reading import Reading, clifford_start, read_at, slopes
from qpeft.circuits import Circuit
from qpeft.errors import AdapterError
from qpeft.simulation import expectations
from qpeft.simulation.noise.counter import SampleKey, Stream


@runtime_checkable
class BankEvaluator(Protocol):
    """Values of circuits from elsewhere, and their gradients."""

    @property
    def step(self) -> int:
        """Number of the training step; values are asked for anew when it changes."""

    def values(self, circuit: Circuit, angles: Tensor) -> Tensor:
        """Return values of all observables, (groups, strings), for angles (groups, angles)."""

    def gradients(self, circuit: Circuit, angles: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of sum(values * grad) by the angles, (groups, angles).

        Args:
            circuit: of every group.
            angles: (groups, angles), radians.
            grad: from above, (groups, strings).
        """


@dataclass(frozen=True)
class _Constants:
    """What is frozen: angles (groups, angles) at the start, how values are read, and the group of each layer."""

    start: Tensor
    reading: Reading
    group: Tensor


@dataclass
class _Made:
    """Matrices of all layers, and the weights they were made from."""

    weights: tuple[Tensor, ...]
    versions: tuple[Any, ...]
    matrices: tuple[Tensor, ...] = ()
    was_differentiated: bool = False

    def is_of(self, weights: Sequence[Tensor]) -> bool:
        """Return whether the weights have the same values still, whatever their versions say."""
        self.was_differentiated = False
        return all(
            then.device == now.device and torch.equal(then, now)
            for then, now in zip(self.weights, weights, strict=True)
        )


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
        # Called cores in files, since the first mapping with trained weights was a tensor train.
        self.cores = MAPPINGS[config.mapping](config, self.num_numbers, self._seed)
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
        """How many numbers a group has: one per angle if the reading is calibrated, else one per string."""
        is_plain = self.config.reading == "plain" and self.config.circuit != "free"
        return self.circuit.num_observables if is_plain else self.circuit.num_inputs

    @property
    def exact(self) -> torch.dtype:
        """Type that matrices are made in: of the angles, and at least float32."""
        return torch.promote_types(self.turns.dtype, torch.float32)

    def join(self, name: str) -> int:
        """Make room for one more layer; return its place among the layers."""
        group = self.config.group_of(name)
        if group not in self.groups:
            self.groups[group] = len(self.groups)
            self.turns = grown(self.turns, torch.zeros(1, self.circuit.num_inputs))
            if self.final_values is not None and self.final_standard_errors is not None:
                row = self.final_values.new_zeros(1, self.circuit.num_observables)
                self.final_values = torch.cat([self.final_values, row])
                self.final_standard_errors = torch.cat([self.final_standard_errors, row])
        self.cores.add_layer(name)
        self.layers.append(name)
        self.group_of_layer.append(self.groups[group])
        self.fingerprint = torch.cat([self.fingerprint, self.fingerprint.new_zeros(1)])
        self._constants = self._made = None
        return len(self.layers) - 1

    def matrix(self, place: int) -> Float[Tensor, "rank rank"]:
        """Return R of one layer. All layers' are made together, once for each state of the turns."""
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
        """Return what is frozen, on the device and in the type that matrices are made in."""
        device, exact = self.turns.device, self.exact
        if self._constants is None or (self._constants.start.device, self._constants.start.dtype) != (device, exact):
            start = torch.cat([self._start(group) for group in self.groups]).to(device, exact)
            reading = read_at(self.circuit, start, self.config)
            self._constants = _Constants(start, reading, torch.tensor(self.group_of_layer, device=device))
        return self._constants

    def angles(self) -> Float[Tensor, "groups angles"]:
        """Return the angles as they are now, without a gradient."""
        return self.constants().start + self.turns.detach().to(self.exact)

    def values(self, turns: Tensor) -> Tensor:
        """Return values of all strings, (groups, strings), for turns (groups, angles) away from the start."""
        angles = self.constants().start + turns
        if self._evaluator is not None:
            return self._evaluator.values(self.circuit, angles)
        return expectations(self.circuit, angles, angles.new_empty(0))

    def gradients(self, turns: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of sum(values * grad) by the turns, (groups, angles)."""
        angles = self.constants().start + turns
        if self._evaluator is not None:
            return self._evaluator.gradients(self.circuit, angles, grad)
        with torch.enable_grad():
            angles.requires_grad_()
            return torch.autograd.grad(expectations(self.circuit, angles, angles.new_empty(0)), angles, grad)[0]

    def numbers(self, turns: Tensor) -> Float[Tensor, "groups numbers"]:
        """Return the numbers of every group for circuits turned so far, (groups, angles), from their start."""
        reading = self.constants().reading
        match self.config.circuit:
            case "free":
                return self.config.gain * turns
            case "linear":
                return reading.numbers(reading.origin + torch.einsum("gsa,ga->gs", reading.slope, turns))
            case _ if self.final_values is not None:
                return reading.numbers(self.final_values.to(self.exact))
            case _:
                return reading.numbers(self.values(turns))

    def numbers_back(self, turns: Tensor, grad: Tensor) -> Float[Tensor, "groups angles"]:
        """Return the gradient by the turns.

        Args:
            turns: (groups, angles), radians.
            grad: gradient by the numbers, (groups, numbers).
        """
        reading = self.constants().reading
        match self.config.circuit:
            case "free":
                return self.config.gain * grad
            case "linear":
                return torch.einsum("gsa,gs->ga", reading.slope, reading.back(grad))
            case _:
                return self.gradients(turns, reading.back(grad))


class _Matrices(torch.autograd.Function):
    """From the turns of all groups and the weights of the mapping to the matrices R of all layers, and back.

    Nothing goes through `save_for_backward`, which would be freed by the first backward pass: the same matrices serve
    all micro-batches of a step, and each of them has a backward pass of its own.
    """

    @staticmethod
    def forward(ctx: Any, bank: CircuitBank, made: _Made, turns: Tensor, *weights: Tensor) -> Tensor:
        ctx.bank, ctx.made, ctx.type = bank, made, turns.dtype
        ctx.turns, *ctx.weights = (weight.detach().to(bank.exact) for weight in (turns, *weights))
        ctx.numbers = bank.numbers(ctx.turns)
        matrices = bank.cores.matrices(ctx.numbers[bank.constants().group], ctx.weights)
        return matrices.reshape(-1, bank.config.rank, bank.config.rank)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        bank, group = ctx.bank, ctx.bank.constants().group
        ctx.made.was_differentiated = True
        # The mapping is a few small products, so it is computed once more rather than kept for every micro-batch.
        with torch.enable_grad():
            leaves = [leaf.detach().requires_grad_() for leaf in (ctx.numbers[group], *ctx.weights)]
            matrices = bank.cores.matrices(leaves[0], leaves[1:])
            by_layer, *by_weights = torch.autograd.grad(matrices, leaves, grad.flatten(1))
        # A group's numbers serve all its layers.
        by_numbers = torch.zeros_like(ctx.numbers).index_add_(0, group, by_layer)
        return None, None, bank.numbers_back(ctx.turns, by_numbers).to(ctx.type), *by_weights

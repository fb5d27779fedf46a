"""Options of a QTHA adapter, as PEFT stores them in adapter_config.json."""

from __future__ import annotations

import difflib
import itertools
import logging
import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, ClassVar

from pydantic.json_schema import SkipJsonSchema

from qpeft.adapters.base import GradientStartConfig, check_counts, option
from qpeft.adapters.base.config import check_numbers, is_number
from qpeft.circuits import Circuit
from qpeft.circuits.ansatz import ANSATZE, find_ansatz
from qpeft.errors import AdapterError, CircuitError

logger = logging.getLogger(__name__)

MAX_QUBITS = 12
"""Beyond this many qubits per circuit a simulated layer costs tens of times what LoRA costs."""

CIRCUIT_SIZED = ("circuit", "frozen_circuit", "classical_form", "sinusoid", "tanh")
"""Bottlenecks of the size of the circuit that the config describes."""

BOTTLENECKS = (*CIRCUIT_SIZED, "hilbert", "mlp", "constant", "none")
"""What may stand between the factors; `branch` makes it."""

FORMS = ("paper", "fitted", "compact")
"""Whole forms of QTHA, each a class method of `QthaConfig` with its own rank and modules."""

# QTHA and its ablations as compositions of blocks, by name.
#
# Each entry names only the blocks in which it differs from QTHA, so a study changes one thing at a time; sizes, first
# values and learning come from the other options. docs/qtha.md has the table with formulas.
_LORA_FACTORS = {"down": "dense", "up": "dense"}

COMPOSITIONS: dict[str, dict[str, Any]] = {
    "no_circuit": {"bottleneck": "none"},
    "frozen_circuit": {"bottleneck": "frozen_circuit"},
    "hilbert_twin": {"bottleneck": "hilbert"},
    "sinusoid_twin": {"bottleneck": "sinusoid"},
    "tanh_twin": {"bottleneck": "tanh"},
    "mlp_twin": {"bottleneck": "mlp"},
    "constant_twin": {"bottleneck": "constant"},
    "classical_form": {"bottleneck": "classical_form", "ansatz": "ring_cz"},
    "hadamard_fusion": {"fusion": "hadamard"},
    "tensor_network_only": {"down": "bare_mpo", "up": "bare_mpo", "bottleneck": "none", "classical_path": False},
    "lora_mixing_matrix": _LORA_FACTORS | {"bottleneck": "none"},
    "lora_circuit_only": _LORA_FACTORS | {"classical_path": False},
    "lora_circuit": dict(_LORA_FACTORS),
    "lora_mlp": _LORA_FACTORS | {"bottleneck": "mlp"},
}

PRESETS = (*FORMS, *COMPOSITIONS)
"""Names that `QthaConfig.preset` knows."""

CHOICES = {
    "down": ("mpo", "bare_mpo", "dense", "frozen"),
    "up": ("mpo", "bare_mpo", "dense"),
    "bottleneck": BOTTLENECKS,
    "fusion": ("linear", "hadamard"),
    "input_scaling": ("none", "tanh"),
    "angle_init": ("near_zero", "uniform"),
    "factor_init": ("orthogonal", "kaiming"),
}


@dataclass
class QthaConfig(GradientStartConfig, method="qtha"):
    """Configuration of a QTHA adapter.

        h = down(dropout(x));   z = fusion(bottleneck(h), classical(h));   y = base(x) + alpha / rank * up(z)

    Shapes: x (..., in_features), h and z (..., rank), y (..., out_features). A fresh adapter leaves the model as it is.
    Sizes left at None follow the width of each layer, so that `down` and `up` together hold about `parameter_share` of
    the parameters that LoRA of the same rank would.

    Raises: AdapterError for a value that is unknown, out of range or at odds with another, naming the way out.
    Source: arXiv:2503.12790. `QthaConfig.paper()` is the published form; docs/qtha.md lists where defaults depart.
    `QthaConfig.compact()` has no tensor networks and rank 1, `QthaConfig.fitted()` trains one side alone.
    `QthaConfig.preset(name)` gives any of them, or an ablation, by its name.
    """

    down: str = option(
        "mpo",
        "'mpo' (a small matrix times a matrix product operator), 'bare_mpo' (the operator alone), 'dense' (a rank x "
        "in_features matrix) or 'frozen' (a dense one that is not trained: the principal directions of the layer's "
        "inputs after `qpeft.fit_inputs`, as `qpeft train` does; orthogonal rows before).",
    )
    up: str = option("mpo", "'mpo', 'bare_mpo' or 'dense' (an out_features x rank matrix).")
    num_cores: int = option(3, "Cores of each matrix product operator.")
    inner_features: int | None = option(
        None, "Width between bottleneck and operator of 'mpo'; None for a power of two, at least rank."
    )
    bond_dimension: int | None = option(
        None, "Bond dimension of each operator; None for the largest within parameter_share."
    )
    parameter_share: float = option(0.22, "Share of LoRA's parameters that sizes left at None aim at.")
    factor_init: str = option(
        "orthogonal", "'orthogonal' (unit inputs give angles of variance 1/3) or 'kaiming' (as published)."
    )

    bottleneck: str = option(
        "circuit",
        "'circuit', or a control in its place: 'frozen_circuit', 'classical_form' (the same function without a "
        "simulator), 'sinusoid' or 'tanh' (units of the circuit's number of parameters), 'hilbert', 'mlp', 'constant' "
        "(a trained value, the same for every token) or 'none'.",
    )
    mlp_layers: int = option(2, "Matrices of bottleneck='mlp', a SiLU between each two.", added=True)
    ansatz: str | dict[str, Any] | SkipJsonSchema[Circuit] = option(
        "ring_crz",
        "Family of the circuit: 'ring_crz', 'ring_cz' or 'ring_cnot', or one of an installed package; or a circuit of "
        "your own, a `Circuit` or what its `to_dict` gives; in a recipe also a .qasm file.",
    )
    num_qubits: int | None = option(
        None,
        "Qubits of one circuit; rank / num_qubits run side by side. None for rank, or above 12 for its largest divisor "
        "up to 12: 8 at rank 16, 32 and 64.",
    )
    depth: int = option(1, "Layers of the circuit.")
    reupload: bool = option(True, "Whether data enter in every layer of the circuit or only in the first.")
    input_scaling: str = option("none", "Angles from h: 'none' (h itself) or 'tanh' (pi/2 tanh h).")
    encoding_offset: float = option(
        math.pi / 2, "Added to every input angle, radians. At 0 the circuit is even in h and has no slope there."
    )
    angle_init: str = option("near_zero", "Trained angles start 'near_zero' (normal, 0.1) or 'uniform' in [-pi, pi].")

    classical_path: bool = option(
        True, "Whether h also passes a trained rank x rank matrix beside the bottleneck. Without either, z is h."
    )
    fusion: str = option("linear", "'linear': W_q q + W_c h; 'hadamard': their elementwise product.")

    middle: InitVar[str | None] = None  # what `bottleneck` was called in adapters and recipes of before
    renamed: ClassVar[Mapping[str, str]] = {"middle": "bottleneck"}

    def __post_init__(self, middle: str | None = None) -> None:  # noqa: RUF033 - type-checking tests call it bare
        super().__post_init__()
        if middle is not None:
            logger.warning("The option 'middle' of qtha is called 'bottleneck' now; it is read all the same.")
            self.bottleneck = middle
        self._check_choices()
        self._check_ansatz()
        self._check_numbers()
        self._check_combinations()
        self._check_ranks()

    @classmethod
    def preset(cls, name: str, **options: Any) -> QthaConfig:
        """A form of QTHA (one of `FORMS`) or an ablation of it (one of `COMPOSITIONS`) by its name.

        An ablation changes blocks only. `options` override any field. Raises: AdapterError for another name.
        """
        if name not in PRESETS:
            raise AdapterError(f"qtha has no preset {name!r}; it has {', '.join(PRESETS)}.")
        if name in FORMS:
            form: QthaConfig = getattr(cls, name)(**options)
            return form
        return cls(**(COMPOSITIONS[name] | options))

    @classmethod
    def compact(cls, rank: int = 1, **options: Any) -> QthaConfig:
        """LoRA's matrices around a circuit, at rank 1 on the value and MLP output matrices instead of 8 on q and v.

        On SmolLM2-135M 86,640 trained parameters, a fifth of those of LoRA of rank 8 on q_proj and v_proj.
        docs/evidence.md compares it with that and with LoRA on the same modules. `options` override any field; alpha is
        2 rank.
        """
        chosen: dict[str, Any] = {
            "rank": rank,
            "alpha": 2.0 * rank,
            "down": "dense",
            "up": "dense",
            "target_modules": ["v_proj", "down_proj"],
        }
        return cls(**(chosen | options))

    @classmethod
    def fitted(cls, rank: int = 2, **options: Any) -> QthaConfig:
        """Few directions on all attention matrices: `down` is fitted and frozen, all that is trained stands after it.

        `qpeft train` fits it by itself; elsewhere call `qpeft.fit_inputs` on the fresh adapter, since until then its
        directions are random. On SmolLM2-135M 94,080 trained parameters, a fifth of those of LoRA of rank 8 on
        q_proj and v_proj. docs/evidence.md compares the two. `options` override any field; alpha is 2 rank.
        """
        chosen: dict[str, Any] = {
            "rank": rank,
            "alpha": 2.0 * rank,
            "down": "frozen",
            "up": "dense",
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        }
        return cls(**(chosen | options))

    @classmethod
    def paper(cls, rank: int = 10, depth: int = 1, **options: Any) -> QthaConfig:
        """The published form: 4 cores, inner width 256, bond dimension 8, Kaiming init, uniform angles, alpha 2 rank.

        Rebuilt from the released code of the method's authors (docs/qtha.md); 752,640 trainable parameters on q_proj
        and v_proj of DeepSeek-R1-Distill-Qwen-7B. `options` override any field; sizes that their factors lack are left
        out, so QthaConfig.paper(**COMPOSITIONS[name]) is an ablation in the published sizes.
        """
        factors = {options.get("down", "mpo"), options.get("up", "mpo")}
        published: dict[str, Any] = {
            "rank": rank,
            "depth": depth,
            "alpha": 2.0 * rank,
            "num_cores": 4,
            "inner_features": 256 if "mpo" in factors else None,
            "bond_dimension": None if factors == {"dense"} else 8,
            "factor_init": "kaiming",
            "encoding_offset": 0.0,
            "angle_init": "uniform",
            "target_modules": ["q_proj", "v_proj"],
        }
        return cls(**(published | options))

    def circuit_of(self, rank: int) -> tuple[Circuit, int]:
        """Return the circuit that a layer of this rank has, and how many of it run side by side.

        Each reads its own num_inputs entries of h, so rank is that many times num_inputs.

        Raises: AdapterError as `qubits_per_circuit`, or if rank is no multiple of an own circuit's inputs.
        """
        if isinstance(self.ansatz, str):
            num_qubits = self.qubits_per_circuit(rank)
            return ANSATZE[self.ansatz](num_qubits, self.depth, reupload=self.reupload), rank // num_qubits
        circuit = self.ansatz if isinstance(self.ansatz, Circuit) else Circuit.from_dict(self.ansatz)
        if rank % circuit.num_inputs:
            raise AdapterError(
                f"The circuit reads {circuit.num_inputs} inputs, so rank must be a multiple of that; got {rank}. Take "
                f"rank={max(1, round(rank / circuit.num_inputs)) * circuit.num_inputs}."
            )
        return circuit, rank // circuit.num_inputs

    def qubits_per_circuit(self, rank: int) -> int:
        """Qubits of each of the circuits that a layer of this rank runs side by side.

        Raises: AdapterError if rank is no multiple of num_qubits, or the circuit would have more than 12 qubits, or,
        without num_qubits, if rank has no divisor from 2 to 12: single qubits cannot be entangled.
        """
        if self.bottleneck not in CIRCUIT_SIZED:
            return rank if self.num_qubits is None else self.num_qubits
        if not isinstance(self.ansatz, str):
            return self.circuit_of(rank)[0].num_qubits
        valid = _circuit_sizes(rank)
        if self.num_qubits is None:
            if rank == 1 or valid[-1] > 1:
                return valid[-1]
            near = [next(n for n in itertools.count(rank, step) if _circuit_sizes(n)[-1] > 1) for step in (-1, 1)]
            raise AdapterError(
                f"rank {rank} cannot be split into circuits of 2 to {MAX_QUBITS} qubits: it has no such divisor. "
                f"Nearest ranks that can: {near[0]} or {near[1]}. num_qubits=1 is {rank} circuits of one qubit each."
            )
        num_qubits = self.num_qubits
        if num_qubits in valid:
            return num_qubits
        near = sorted(sorted(valid, key=lambda n: abs(n - num_qubits))[:2])
        size = min(num_qubits, MAX_QUBITS)
        ranks = sorted({max(1, rank // size) * size, (rank // size + 1) * size})
        raise AdapterError(
            f"rank {rank} cannot be split into circuits of {num_qubits} qubit(s): num_qubits must divide rank and "
            f"be at most {MAX_QUBITS}. Nearest valid num_qubits for rank {rank}: {' or '.join(map(str, near))}; "
            f"nearest valid rank for {size} qubit(s): {' or '.join(map(str, ranks))}."
        )

    def _check_choices(self) -> None:
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                near = difflib.get_close_matches(str(value), known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                raise AdapterError(f"{name} must be one of {', '.join(known)}; got {value!r}{hint}")

    def _check_ansatz(self) -> None:
        """Turn whatever is no family of ours into a circuit as data, which is what files of adapters hold."""
        if isinstance(self.ansatz, str) and self.ansatz in ANSATZE:
            return
        try:
            if isinstance(self.ansatz, str):
                # A family of another package is asked once, now: whoever loads the adapter need not have the package.
                build = find_ansatz(self.ansatz)
                built = build(self.num_qubits or self.rank, self.depth, reupload=self.reupload)
                self.num_qubits, self.depth, self.reupload = None, 1, True
            else:
                built = self.ansatz if isinstance(self.ansatz, Circuit) else Circuit.from_dict(self.ansatz)
        except CircuitError as error:
            raise AdapterError(f"ansatz: {error}") from error
        if self.num_qubits is not None or self.depth != 1 or not self.reupload:
            raise AdapterError(
                "num_qubits, depth and reupload belong to families of circuits. An own circuit says all of them "
                "itself: leave them out."
            )
        if not built.num_inputs:
            raise AdapterError(
                "The circuit reads no inputs, so it would say the same of every token. Give gates the angle Input(k); "
                "quantum_weighted is the adapter for circuits that never see the text."
            )
        if built.num_qubits > MAX_QUBITS:
            raise AdapterError(f"A circuit in an adapter has at most {MAX_QUBITS} qubits; got {built.num_qubits}.")
        self.ansatz = built.to_dict()

    def _check_numbers(self) -> None:
        given = {name: getattr(self, name) for name in ("num_cores", "depth")}
        sizes = {name: getattr(self, name) for name in ("num_qubits", "inner_features", "bond_dimension")}
        given |= {name: value for name, value in sizes.items() if value is not None}
        check_counts(given)
        if type(self.mlp_layers) is not int or self.mlp_layers < 2:
            raise AdapterError(f"mlp_layers must be a whole number of at least 2; got {self.mlp_layers!r}.")
        check_numbers({"encoding_offset": self.encoding_offset})
        if not is_number(self.parameter_share) or not 0 < self.parameter_share <= 1:
            raise AdapterError(f"parameter_share must be above 0 and at most 1; got {self.parameter_share!r}.")
        for name in ("reupload", "classical_path"):
            if not isinstance(getattr(self, name), bool):
                raise AdapterError(f"{name} must be true or false; got {getattr(self, name)!r}.")

    def _check_ranks(self) -> None:
        for rank in self.ranks:
            self.qubits_per_circuit(rank)  # with an own circuit this looks at its inputs
            if self.bottleneck == "hilbert" and rank < 3:
                raise AdapterError(
                    f"bottleneck='hilbert' needs a rank of at least 3; got {rank}, at which the Hilbert transform is "
                    "zero."
                )

    def _check_combinations(self) -> None:
        if self.fusion == "hadamard" and (self.bottleneck == "none" or not self.classical_path):
            raise AdapterError("fusion='hadamard' multiplies two paths: it needs a bottleneck and classical_path=True.")
        if self.down in ("dense", "frozen") and self.up == "dense" and (self.inner_features or self.bond_dimension):
            raise AdapterError(
                "inner_features and bond_dimension belong to 'mpo'; with dense factors leave them unset."
            )
        if self.inner_features and "mpo" not in (self.down, self.up):
            raise AdapterError("inner_features belongs to 'mpo'; the inner width of a 'bare_mpo' is the rank.")
        if self.mlp_layers != 2 and self.bottleneck != "mlp":
            raise AdapterError(f"mlp_layers belongs to bottleneck='mlp'; with {self.bottleneck!r} leave it at 2.")
        if self.bottleneck == "classical_form" and (self.ansatz, self.depth) != ("ring_cz", 1):
            raise AdapterError(
                "bottleneck='classical_form' is written out for ansatz='ring_cz' of depth=1 alone; got "
                f"{self.ansatz!r} of depth {self.depth}. Choose those, or bottleneck='circuit'."
            )


def _circuit_sizes(rank: int) -> list[int]:
    """Qubits that circuits side by side may have at a rank, from 1 up."""
    return [n for n in range(1, min(rank, MAX_QUBITS) + 1) if rank % n == 0]

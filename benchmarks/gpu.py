"""The GPU kernels: registers and spills, and times against the torch path, gate-by-gate autograd and PennyLane.

    python benchmarks/gpu.py                          # needs a CUDA GPU; without one it says so and exits with 2
    python benchmarks/gpu.py --registers              # compiles for compute capability 9.0; needs Triton, but no GPU
    python benchmarks/gpu.py --qubits 4 6 8 --tokens 1024 65536 --circuit ring_cz --depth 2

Times are medians of CUDA events, forward and backward together, after values and gradients were compared with the torch
path. Prints a table and writes JSON with `--json`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from timing import machine
from torch import Tensor

from qpeft.circuits import Circuit, Input, Weight, ansatz
from qpeft.simulation import compile_plan, torch_path
from qpeft.simulation.gpu import runner
from qpeft.simulation.gpu.inspection import resources
from qpeft.simulation.plan import costs

Evaluation = Callable[[Tensor, Tensor], Tensor]
FLOAT32_LANES = {(7, 0): 64, (7, 5): 64, (8, 0): 64}
"""Fused multiply-adds per clock and multiprocessor, by compute capability, where they are not 128."""
KEEP_INPUTS_ONLY = {"kernel", "torch path"}
MAX_SAVED_AMPLITUDES = 2**24
"""The others let autograd save the state after every gate, and are left out beyond this many amplitudes per state."""
TOLERANCES = {"kernel": 2e-5}
"""Differences from the torch path in double precision, relative to the largest number if that is more than 1."""
LOOSE_TOLERANCE = 1e-3
"""For the others: enough to see that they compute the same. Their sums over tokens are plain float32."""


def main() -> int:
    """Prints what the options ask for; returns the exit code."""
    options = _options()
    if options.registers:
        return _print_registers(options)
    if not torch.cuda.is_available():
        print("There is no CUDA GPU here, so nothing was timed. --registers works without one.", file=sys.stderr)
        return 2
    print(torch.cuda.get_device_name(), f"- float32 limit {_arithmetic_limit() / 1e12:.1f} TFLOP/s")
    rows = []
    for row in _rows(options):
        rows.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        if options.json:
            options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qubits", type=int, nargs="+", default=list(range(4, 13)))
    parser.add_argument("--tokens", type=int, nargs="+", default=[2**k for k in range(10, 17)])
    parser.add_argument("--circuit", choices=ansatz.ANSATZE, default="ring_crz")
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--registers", action="store_true", help="only compile, and print what the kernels need")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _print_registers(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("triton") is None:
        print("Triton is not installed, so there is nothing to compile.", file=sys.stderr)
        return 2
    print("qubits  tokens  warps  kernel    registers  spill bytes  shared bytes")
    for num_qubits in options.qubits:
        circuit = ansatz.ANSATZE[options.circuit](num_qubits, options.depth)
        tokens, warps = runner.launch_shape(circuit)
        for which in ("forward", "backward"):
            found = resources(circuit, which, tokens=tokens, num_warps=warps)
            numbers = f"{found.registers:9}  {found.spill_bytes:11}  {found.shared_bytes:12}"
            print(f"{num_qubits:6}  {tokens:6}  {warps:5}  {which:8}  {numbers}", flush=True)
    return 0


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for num_qubits in options.qubits:
        circuit = ansatz.ANSATZE[options.circuit](num_qubits, options.depth)
        flops = sum(2 * cost.forward + cost.backward for cost in costs(compile_plan(circuit)))
        tokens_per_program, warps = runner.launch_shape(circuit)
        needs = resources(
            circuit, "backward", tokens=tokens_per_program, num_warps=warps, capability=_capability_number()
        )
        for tokens in options.tokens:
            fits = tokens << num_qubits <= MAX_SAVED_AMPLITUDES
            times = {
                name: _milliseconds(circuit, tokens, name, run) if fits or name in KEEP_INPUTS_ONLY else None
                for name, run in _simulators(circuit).items()
            }
            kernel = times["kernel"]
            assert kernel is not None
            rate = 1e3 * tokens / kernel
            yield {
                "qubits": num_qubits,
                "tokens": tokens,
                "registers": needs.registers,
                "spill bytes": needs.spill_bytes,
                **{f"{name} ms": None if time is None else round(time, 3) for name, time in times.items()},
                "million tokens/s": round(rate / 1e6, 2),
                "share of limit": round(rate * flops / _arithmetic_limit(), 3),
            }


def _simulators(circuit: Circuit) -> dict[str, Evaluation]:
    simulators: dict[str, Evaluation] = {
        "kernel": lambda inputs, weights: _Path.apply(runner, circuit, inputs, weights),
        "torch path": lambda inputs, weights: _Path.apply(torch_path, circuit, inputs, weights),
        "gate by gate": lambda inputs, weights: gate_by_gate(circuit, inputs, weights),
    }
    if importlib.util.find_spec("pennylane") is not None:
        simulators["PennyLane"] = _pennylane(circuit)
    return simulators


class _Path(torch.autograd.Function):
    """One path, whatever `expectations` would choose, so that the kernel is also timed beyond its limit."""

    @staticmethod
    def forward(ctx: Any, path: Any, circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
        ctx.path, ctx.circuit = path, circuit
        ctx.save_for_backward(inputs, weights)
        values: Tensor = path.values(circuit, inputs, weights)
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor, Tensor]:
        return None, None, *ctx.path.gradients(ctx.circuit, *ctx.saved_tensors, grad)


def gate_by_gate(circuit: Circuit, inputs: Tensor, weights: Tensor) -> Tensor:
    """Expectations of Z of every qubit by complex64 matrices, one gate after the other, under plain autograd."""
    state = torch.zeros(len(inputs), 2**circuit.num_qubits, dtype=torch.complex64, device=inputs.device)
    state[:, 0] = 1
    state = state.reshape(-1, *[2] * circuit.num_qubits)
    for operation in circuit.operations:
        matrix = _matrix(operation, inputs, weights)
        axes = [1 + qubit for qubit in operation.qubits]
        front = state.movedim(axes, list(range(1, 1 + len(axes))))
        flat = matrix @ front.reshape(len(front), matrix.shape[-1], -1)
        state = flat.reshape(front.shape).movedim(list(range(1, 1 + len(axes))), axes)
    probabilities = state.abs().square()
    marginals = [probabilities.movedim(1 + q, 1).reshape(len(state), 2, -1).sum(2) for q in range(circuit.num_qubits)]
    return torch.stack([marginal[:, 0] - marginal[:, 1] for marginal in marginals], dim=1)


def _matrix(operation: Any, inputs: Tensor, weights: Tensor) -> Tensor:
    """(tokens or 1, 2**k, 2**k)."""
    gate = operation.gate
    match operation.angle:
        case None:
            return torch.as_tensor(gate.matrix, dtype=torch.complex64, device=inputs.device)[None]
        case Input(index):
            angle = inputs[:, index]
        case Weight(index):
            angle = weights[index].reshape(1)
        case number:
            angle = inputs.new_full((1,), number)
    total = torch.zeros((), device=inputs.device)
    for level, projector in gate.spectrum:
        half = 0.5 * level * angle
        phase = torch.complex(half.cos(), -half.sin())[:, None, None]
        total = total + phase * torch.as_tensor(projector, dtype=torch.complex64, device=inputs.device)
    return total


def _pennylane(circuit: Circuit) -> Evaluation:
    import pennylane as qml  # noqa: PLC0415

    names = {"CNOT": qml.CNOT, "CZ": qml.CZ, "CRZ": qml.CRZ, "RY": qml.RY, "RZ": qml.RZ}

    @qml.qnode(qml.device("default.qubit", wires=circuit.num_qubits), interface="torch", diff_method="backprop")
    def node(inputs: Tensor, weights: Tensor) -> list[Any]:
        for operation in circuit.operations:
            arguments = []
            if isinstance(operation.angle, Input):
                arguments = [inputs[:, operation.angle.index]]
            elif isinstance(operation.angle, Weight):
                arguments = [weights[operation.angle.index]]
            names[operation.gate_name](*arguments, wires=list(operation.qubits))
        return [qml.expval(qml.Z(qubit)) for qubit in range(circuit.num_qubits)]

    def run(inputs: Tensor, weights: Tensor) -> Tensor:
        with torch.device("cuda"):  # PennyLane makes its first state on the default device
            return torch.stack(list(node(inputs, weights)), dim=1)

    return run


def _milliseconds(circuit: Circuit, tokens: int, name: str, run: Evaluation, *, repeats: int = 20) -> float:
    """Median of forward and backward.

    Raises: SystemExit if values or gradients differ from those of the torch path in double precision.
    """
    generator = torch.Generator("cuda").manual_seed(0)
    shapes = (tokens, circuit.num_inputs), (circuit.num_weights,), (tokens, circuit.num_observables)
    inputs, weights, grad = (torch.randn(shape, device="cuda", generator=generator) for shape in shapes)
    exact = [tensor.double() for tensor in (inputs, weights, grad)]
    reference = torch_path.values(circuit, *exact[:2]), *torch_path.gradients(circuit, *exact)
    leaves = [inputs.requires_grad_(), weights.requires_grad_()]
    times = []
    for attempt in range(repeats + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        values = run(*leaves)
        gradients = torch.autograd.grad(values, leaves, grad.to(values.dtype))
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
        if attempt == 0:
            for found, expected in zip((values, *gradients), reference, strict=True):
                error = float((found.detach() - expected).abs().max()) / max(1.0, float(expected.abs().max()))
                if not error <= TOLERANCES.get(name, LOOSE_TOLERANCE):
                    raise SystemExit(f"{circuit.num_qubits} qubits, {tokens} tokens: {name} is off by {error:.1e}.")
    return statistics.median(times[3:])


def _arithmetic_limit() -> float:
    """Floating-point operations per second, from multiprocessors, lanes and the highest clock."""
    from triton.runtime import driver  # noqa: PLC0415

    properties = driver.active.utils.get_device_properties(torch.cuda.current_device())
    lanes = FLOAT32_LANES.get(torch.cuda.get_device_capability(), 128)
    return 2e3 * lanes * properties["multiprocessor_count"] * properties["sm_clock_rate"]  # the clock is in kHz


def _capability_number() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


if __name__ == "__main__":
    sys.exit(main())

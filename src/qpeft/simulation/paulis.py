"""Pauli operators as bit masks: products, commutation, and how they move through permutations of the basis.

A mask is an int whose bit `num_qubits - 1 - q` belongs to qubit q, so that qubit 0 is the most significant bit, as in
the index of a state vector.
"""

from __future__ import annotations

from dataclasses import dataclass


def parity(mask: int) -> int:
    """Number of set bits, modulo 2."""
    return mask.bit_count() & 1


@dataclass(frozen=True)
class Pauli:
    """i**power X**x Z**z: first signs by the bits of `z`, then flips of the bits of `x`."""

    x: int
    z: int
    power: int = 0

    def __matmul__(self, other: Pauli) -> Pauli:
        power = self.power + other.power + 2 * parity(self.z & other.x)
        return Pauli(self.x ^ other.x, self.z ^ other.z, power % 4)

    def commutes_with(self, other: Pauli) -> bool:
        return parity(self.x & other.z) == parity(self.z & other.x)

    def times_i(self, power: int) -> Pauli:
        return Pauli(self.x, self.z, (self.power + power) % 4)

    @property
    def sign(self) -> float:
        """+1 or -1: what stands before the Hermitian operator i**(number of Y) X**x Z**z."""
        power = (self.power - (self.x & self.z).bit_count()) % 4
        assert power in (0, 2), f"{self} is not Hermitian"
        return 1.0 - power

    def letters(self, num_qubits: int) -> str:
        """The operator as a Pauli string, without its sign."""
        bits = [1 << (num_qubits - 1 - qubit) for qubit in range(num_qubits)]
        return "".join("IXZY"[bool(self.x & bit) + 2 * bool(self.z & bit)] for bit in bits)


class Frame:
    """Where each qubit's bit is found after permutations that were never carried out.

    CNOT, SWAP and X only rename basis states, so amplitudes stay where they are and the frame remembers that the bit of
    qubit q is the parity of the stored index under `rows[q]`, flipped if `flips[q]`, and that XOR with `directions[q]`
    flips this bit and no other.
    """

    def __init__(self, num_qubits: int) -> None:
        self.rows = [1 << (num_qubits - 1 - qubit) for qubit in range(num_qubits)]
        self.directions = list(self.rows)
        self.flips = [0] * num_qubits

    def flip(self, qubit: int) -> None:
        self.flips[qubit] ^= 1

    def add(self, control: int, target: int) -> None:
        """CNOT: the bit of `target` becomes its sum with that of `control`."""
        self.rows[target] ^= self.rows[control]
        self.flips[target] ^= self.flips[control]
        self.directions[control] ^= self.directions[target]

    def x(self, qubit: int) -> Pauli:
        return Pauli(self.directions[qubit], 0)

    def z(self, qubit: int) -> Pauli:
        return Pauli(0, self.rows[qubit], 2 * self.flips[qubit])

    def y(self, qubit: int) -> Pauli:
        return (self.x(qubit) @ self.z(qubit)).times_i(1)

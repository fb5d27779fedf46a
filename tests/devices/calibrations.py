"""What an emulated chip lists of itself, as a noise model, and listed fidelities to compare with."""

from dataclasses import replace

from qpeft.simulation.noise import NoiseModel, ReadoutError
from qpeft_emulator.machine import Machine


def calibration_of(chip):
    """Gates such that each has its listed fidelity, symmetric readout errors; the dead are left out."""
    listed = Machine(chip).gate_noise
    misread = {qubit: 1 - chip.qubits[qubit].readout_fidelity for qubit in chip.qubits}
    qubits = {q: replace(noise, readout=ReadoutError(misread[q], misread[q])) for q, noise in listed.qubits}
    return NoiseModel.from_mappings(qubits, dict(listed.edges))

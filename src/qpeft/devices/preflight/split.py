"""The same fidelities as another mixture of errors, since a calibration lists fidelities and not mixtures."""

from __future__ import annotations

from dataclasses import replace

from qpeft.simulation.noise import Damping, EdgeNoise, NoiseModel, QubitNoise, depolarising_from_fidelity
from qpeft.simulation.noise.channels import average_fidelity, gate_noise


def depolarising_only(calibration: NoiseModel) -> NoiseModel:
    """A model in which every gate has the same average fidelity and errs by depolarising alone; readout as it was.

    Dephasing spares Z, depolarising spares nothing, so of all mixtures with these fidelities that relax towards no
    particular value this one predicts the smallest slopes, or nearly so. The calibration as it is and this model give
    a range for what the chip may do.
    """
    qubits = {}
    for index, noise in calibration.qubits:
        fidelity = average_fidelity(gate_noise(calibration, (index,)))
        qubits[index] = QubitNoise(depolarising_from_fidelity(fidelity, [Damping()]), readout=noise.readout)
    edges = {}
    for edge, _ in calibration.edges:
        fidelity = average_fidelity(gate_noise(calibration, edge))
        edges[edge] = EdgeNoise(depolarising_from_fidelity(fidelity, [Damping(), Damping()]))
    return replace(NoiseModel.from_mappings(qubits, edges), free_gates=calibration.free_gates)

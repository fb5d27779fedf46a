"""Replies in the shapes that the vendor's client reads."""

from __future__ import annotations

import json
from typing import Any

from qpeft_emulator.chip import DOUBLE_GATE_NS, SINGLE_GATE_NS, EmulatedChip
from qpeft_emulator.outcomes import Outcome

Json = dict[str, Any]

STATES = {"WAITING": "1", "COMPUTING": "2", "FINISHED": "3", "FAILED": "4", "QUEUING": "5"}
"""States of a job, as taskState has them."""


def refusal(message: str, code: int) -> Json:
    """Return what the client raises as a RuntimeError with this message."""
    return {"success": False, "code": code, "message": message, "obj": None}


def chip_info(chip: EmulatedChip) -> Json:
    """Return the calibration. adjMatrix lists dead couplers with weight 0; QubitParams lists living qubits only."""
    # From both ends, as the vendor lists couplers.
    adjacency: dict[str, list[Json]] = {str(qubit): [] for qubit in range(chip.num_qubits)}
    for (first, second), fidelity in chip.edges.items():
        adjacency[str(first)].append({"v": second, "w": round(fidelity, 4)})
        adjacency[str(second)].append({"v": first, "w": round(fidelity, 4)})
    return {
        "ChipID": chip.chip_id,
        "QubitCount": chip.num_qubits,
        "AvailableQubits": sorted(chip.qubits),
        "HighFrequencyQubit": [qubit for qubit in sorted(chip.qubits) if chip.qubits[qubit].frequency > 4500],
        "BasicQGate": ["RPhi", "CZ"],
        "adjMatrix": adjacency,
        "QubitParams": [
            {
                "qubitId": str(qubit),
                "Frequency": chip.qubits[qubit].frequency,
                "ReadoutFidelity": chip.qubits[qubit].readout_fidelity,
                "SingleGateFidelity": chip.qubits[qubit].gate_fidelity,
                "T1": chip.qubits[qubit].t1,
                "T2": chip.qubits[qubit].t2,
            }
            for qubit in sorted(chip.qubits)
        ],
        # Empty as a whole: a pair with an empty object kills the process of the vendor's client.
        "CompensateAngle": {},
        "QGateClock": [
            {"gateType": "RPhi", "IntValue": SINGLE_GATE_NS},
            {"gateType": "CZ", "IntValue": DOUBLE_GATE_NS},
        ],
    }


def task_detail(task_id: str, state: str, outcomes: list[Outcome], message: str, programs: list[str]) -> Json:
    """Return state and, if it is over, results of a job: one JSON text per program, keys hexadecimal.

    Args:
        task_id: of the job.
        state: of the job, in the cloud's words.
        outcomes: one per program, once it is over.
        message: why it failed.
        programs: their texts.
    """
    # The client splits no mapping: each is one text for the whole job.
    places = [{str(qubit): place for qubit, place in outcome.places.items()} for outcome in outcomes]
    return {
        "taskId": task_id,
        "taskState": STATES[state],
        "taskResult": [_table(outcome.shares) for outcome in outcomes],
        "probCount": [_table(outcome.counts) for outcome in outcomes],
        "measureQubitSize": [outcome.num_measured for outcome in outcomes],
        "mappingQubit": json.dumps(places),
        "convertQProg": json.dumps(programs),
        "errCode": 0 if not message else 1,
        "errInfo": message,
    }


def _table(values: dict[int, int] | dict[int, float]) -> str:
    return json.dumps({"key": [hex(key) for key in values], "value": list(values.values())})

"""What client and cloud say to each other: bodies of requests, checked, and replies in the shapes the client reads."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qpeft.errors import DeviceError
from qpeft_emulator.chip import DOUBLE_GATE_NS, SINGLE_GATE_NS, EmulatedChip
from qpeft_emulator.outcomes import Outcome

MAX_PROGRAMS = 200
"""In one job: the limit that the vendor states."""
MAX_SHOTS = 100_000
"""Per program. The vendor states none; this one keeps a typing error from filling memory."""
CHIP = "5"
"""QMachineType of a real chip; other values are simulators of the cloud."""


class RequestError(DeviceError):
    """A request that the emulator answers with an error, by HTTP status and a code of the reply."""

    def __init__(self, message: str, *, status: int = 200, code: int = 1) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Body(BaseModel):
    # Fields that nobody here needs are let pass, since the client has several; those that are needed are not converted,
    # so that a wrong type is seen here and not in the cloud.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Configuration(_Body):
    """How programs are to be run."""

    shots: Annotated[int, Field(alias="shot")]
    amend_flag: Annotated[int, Field(alias="amendFlag", ge=0, le=3)] = 1
    mapping: Annotated[bool, Field(alias="mappingFlag")] = True
    optimise: Annotated[bool, Field(alias="circuitOptimization")] = True
    # Not strict: JSON has lists only, which a strict tuple refuses.
    specified_block: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), strict=False)


class Submission(_Body):
    """A job: programs in OriginIR."""

    programs: Annotated[list[str], Field(alias="QProg")] = []
    machine_type: Annotated[str, Field(alias="QMachineType")]
    chip_id: Annotated[str, Field(alias="ChipID")] = ""
    configuration: Annotated[Configuration, Field(alias="Configuration")]


class TaskQuestion(_Body):
    """About one job."""

    task_id: Annotated[str, Field(alias="taskId", pattern="^[ -~]*$")]


class ChipQuestion(_Body):
    """About one chip."""

    chip_id: Annotated[str, Field(alias="ChipID")]


class BlocksQuestion(_Body):
    """For good blocks of qubits."""

    chip_id: Annotated[str, Field(alias="chipId")]
    size: Annotated[int, Field(alias="qubitNum", ge=1)]
    label: int = 1
    count: Annotated[int, Field(alias="qubitBlockNum", ge=1, le=72)] = 1


AnyBody = TypeVar("AnyBody", bound=_Body)


def parse_object(raw: bytes) -> dict[str, object]:
    """Return the JSON object in a body. Raises: RequestError with status 400 if there is none."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body is not JSON: {error}.", status=400) from error
    if not isinstance(value, dict):
        raise RequestError(f"The body must be a JSON object; got a {type(value).__name__}.", status=400)
    return value


def parse_body(kind: type[AnyBody], raw: bytes) -> AnyBody:
    """Return a checked body. Raises: RequestError that names the first field that is wrong."""
    try:
        return kind.model_validate(parse_object(raw))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise RequestError(f"{place}: {first['msg']}; got {str(first['input'])[:60]!r}.", status=400) from error


# Replies, in the shapes that the vendor's client reads.

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

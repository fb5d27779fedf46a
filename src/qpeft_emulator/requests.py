"""Bodies of requests as the vendor's client sends them, checked."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qpeft.errors import DeviceError

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

"""The cloud's HTTP interface on this machine's loopback address: six endpoints of the vendor, two of ours.

POST /emulator/faults takes a fault, GET lists them, DELETE forgets them; GET /emulator/stats says what was accepted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qpeft.errors import DeviceError
from qpeft_emulator import messages
from qpeft_emulator.cloud import EmulatedCloud, Timing
from qpeft_emulator.faults import ANSWER_KINDS, RESULT_KINDS, Fault, Faults, places
from qpeft_emulator.machine import ChipName, open_machine
from qpeft_emulator.messages import BlocksQuestion, ChipQuestion, RequestError, TaskQuestion, parse_body
from qpeft_emulator.store import Store

MAX_BODY_BYTES = 64 * 2**20
EXIT_CODE_OF_A_CRASH = 70
WRONG_KEY = "The API key is wrong."
log = logging.getLogger(__name__)

ENDPOINTS = {
    "/oqcs/task/getResourceList.json": ("resources", "GET"),
    "/oqcs/task/origin/submit.json": ("submit", "POST"),
    "/oqcs/task/origin/taskDetail.json": ("detail", "POST"),
    "/oqcs/task/cancelTask.json": ("cancel", "POST"),
    "/oqcs/task/origin/chipInfo.json": ("chip", "POST"),
    "/oqcs/task/management/bestQubitBlocks.json": ("blocks", "POST"),
}
"""Of the vendor, by path: the name that faults give it, and its method of HTTP."""


class EmulatorServer(ThreadingHTTPServer):
    """Listens on 127.0.0.1. Raises: DeviceError if the port is in use."""

    daemon_threads = True

    def __init__(self, port: int, cloud: EmulatedCloud, faults: Faults, api_key: str) -> None:
        self.cloud, self.faults, self.api_key = cloud, faults, api_key
        self.answered: set[str] = set()  # jobs whose results were asked for before
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            raise DeviceError(
                f"Cannot listen on port {port}: {error}. Choose another; 0 lets the system choose."
            ) from error

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log what goes wrong after a client is gone; the base class would print it."""
        log.info("the connection of %s ended: %s", client_address, sys.exc_info()[1])

    @property
    def url(self) -> str:
        """Return the address to give to a device."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    """One connection; any request gets one JSON answer, or what a fault makes of it."""

    server: EmulatorServer
    protocol_version = "HTTP/1.1"
    server_version = "qpeft-emulator"
    # Headers and body are two writes; with Nagle's algorithm the second waits 40 ms for the client's acknowledgement.
    disable_nagle_algorithm = True
    timeout = 600

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name is the base class's)
        log.debug(format, *args)

    def _handle(self) -> None:
        method, path = self.command, self.path.split("?")[0]
        try:
            length = self.headers.get("Content-Length", "0")
            if not length.isdecimal() or int(length) > MAX_BODY_BYTES or "Transfer-Encoding" in self.headers:
                self.close_connection = True  # where the next request begins is not known
                raise RequestError(f"A body needs a Content-Length of at most {MAX_BODY_BYTES}.", status=413)
            body = self.rfile.read(int(length))
            if path == "/emulator/stats":
                self._send(200, self.server.cloud.stats())
            elif path == "/emulator/faults":
                if method == "DELETE":
                    self.server.faults.clear()
                elif method == "POST":
                    self.server.faults.add(parse_fault(body))
                self._send(200, {"faults": [fault.model_dump() for fault in self.server.faults.waiting()]})
            else:
                self._handle_vendor(method, path, body)
        except RequestError as error:
            self._send(error.status, messages.refusal(str(error), error.code))
        except (ConnectionError, TimeoutError):  # the client is gone
            self.close_connection = True
        except Exception:  # an answer without inner workings; those are in the log
            log.exception("%s %s", method, path)
            self._send(500, messages.refusal("The emulator failed; its log says how.", 1))

    # The base class calls do_ and the method's name; other methods get its answer that they are not supported.
    do_GET = do_POST = do_DELETE = _handle  # noqa: N815  (the names are the base class's)

    def _handle_vendor(self, method: str, path: str, body: bytes) -> None:
        if path not in ENDPOINTS:
            raise RequestError(f"There is no {path[:80]!r} here.", status=404)
        name, expected = ENDPOINTS[path]
        if method != expected:
            raise RequestError(f"{path} takes {expected}; got {method}.", status=405)
        fault = self.server.faults.take(name, ANSWER_KINDS)
        # A fault before the effect leaves no job behind, one after it does: a client cannot tell the two apart.
        if fault is not None and not fault.after:
            self._suffer(fault, lambda: _answer(self.server, name, body))
            return
        self._check_key()
        reply = _answer(self.server, name, body)
        if fault is None:
            self._send(200, reply)
        else:
            self._suffer(fault, lambda: reply)

    def _suffer(self, fault: Fault, answer: Callable[[], Any]) -> None:
        """Send what the client sees of a fault; `answer` has the effect of the request, if it is to have one."""
        match fault.kind:
            case "exit":
                # Not sys.exit: a crash runs no handlers, and the store must hold what was acknowledged.
                os._exit(EXIT_CODE_OF_A_CRASH)
            case "drop":
                self.close_connection = True
            case "status":
                self._send(fault.status, messages.refusal(fault.message, fault.status))
            case "refuse":
                raise RequestError(fault.message, code=fault.status)
            case "wrong_key":
                raise RequestError(WRONG_KEY, code=401)
            case "delay":
                time.sleep(fault.seconds)
                self._check_key()
                self._send(200, answer())
            case "spoil":
                self._check_key()
                self._send(200, answer(), spoiled=True)

    def _check_key(self) -> None:
        sent = self.headers.get("Authorization", "")
        # In the header as the vendor's client sends it, and compared in constant time as any secret.
        if not compare_digest(sent.encode(), f"oqcs_auth={self.server.api_key}".encode()):
            raise RequestError(WRONG_KEY, code=401)

    def _send(self, status: int, reply: Any, *, spoiled: bool = False) -> None:
        text = json.dumps(reply)
        # With the length of the half, so that the client waits for no more and its parser sees what there is.
        data = (text[: len(text) // 2] if spoiled else text).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _answer(server: EmulatorServer, endpoint: str, body: bytes) -> Any:
    """Return what an endpoint of the vendor replies to a body, having done what is asked."""
    cloud = server.cloud
    obj: Any = {}
    match endpoint:
        case "resources":
            # The one reply that is a bare array: the client reads no "success" around it.
            return cloud.resources()
        case "submit":
            failing = server.faults.take("submit", ("fail_job",))
            obj = {"taskId": cloud.submit(body, will_fail=failing.message if failing else "")}
        case "cancel":
            cloud.cancel(parse_body(TaskQuestion, body).task_id)
        case "chip":
            obj = cloud.chip_info(parse_body(ChipQuestion, body).chip_id)
        case "blocks":
            obj = cloud.blocks(parse_body(BlocksQuestion, body))
        case "detail":
            job_id = parse_body(TaskQuestion, body).task_id
            obj = cloud.detail(job_id)
            if obj["taskState"] == messages.STATES["FINISHED"]:
                fault = server.faults.take("detail", RESULT_KINDS, is_first=job_id not in server.answered)
                # A client polls, then fetches, so it gets results twice; "later" faults spare the first time.
                server.answered.add(job_id)
                # All three lists stand for the programs in their order, so all are cut or reordered alike.
                if fault is not None:
                    for name in ("taskResult", "probCount", "measureQubitSize"):
                        order = places(fault.order, job_id, len(obj[name]))
                        kept = order if fault.kind == "reorder" else range(len(order) - 1)
                        obj[name] = [obj[name][place] for place in kept]
    return {"success": True, "code": 0, "message": "", "obj": obj}


def parse_fault(text: str | bytes) -> Fault:
    """Return a fault from JSON. Raises: RequestError that names what is wrong."""
    try:
        return Fault.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "fault"
        raise RequestError(f"{place}: {first['msg']}.", status=400) from error


def open_emulator(
    *,
    port: int = 0,
    seed: int = 0,
    chip: ChipName = "wukong",
    api_key: str = "emulator",
    store: Path | None = None,
    faults: Sequence[str] = (),
    seconds: float = 0.15,
    online: bool = True,
) -> EmulatorServer:
    """Return a server that listens; `serve_forever` makes it answer. The caller closes it, then its `cloud`.

    Args:
        port: of the loopback address; 0 lets the system choose.
        seed: of the chip, its hidden effects and all samples.
        chip: which one.
        api_key: that requests must have.
        store: file that keeps jobs; None to keep them in memory.
        faults: JSON texts, as for POST /emulator/faults.
        seconds: how long a job takes at least; a third of it each for waiting, queuing and computing.
        online: whether the chip takes jobs.

    Raises: DeviceError if the port or the file of the store cannot be used, or a fault cannot be read.
    """
    waiting = Faults(seed, [parse_fault(text) for text in faults])
    timing = Timing(seconds / 3, 2 * seconds / 3, seconds)
    cloud = EmulatedCloud(open_machine(chip, seed), seed, Store(store), timing, is_online=online)
    # The cloud has a thread and a file by now, which a port in use must not leave open.
    try:
        return EmulatorServer(port, cloud, waiting, api_key)
    except DeviceError:
        cloud.close()
        raise

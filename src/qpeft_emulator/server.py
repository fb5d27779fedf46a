"""The cloud's HTTP interface on this machine's loopback address: six endpoints of the vendor, two of ours.

POST /emulator/faults takes a fault, GET lists them, DELETE forgets them; GET /emulator/stats says what was accepted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import ValidationError

from qpeft.errors import DeviceError
from qpeft_emulator import replies
from qpeft_emulator.cloud import EmulatedCloud
from qpeft_emulator.faults import ANSWER_KINDS, RESULT_KINDS, Fault, Faults, places
from qpeft_emulator.requests import BlocksQuestion, ChipQuestion, RequestError, TaskQuestion, parse_body

MAX_BODY_BYTES = 64 * 2**20
EXIT_CODE_OF_A_CRASH = 70
log = logging.getLogger(__name__)


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
            if path in OWN_ROUTES:
                self._send(200, OWN_ROUTES[path](self.server, method, body))
            else:
                self._handle_vendor(method, path, body)
        except RequestError as error:
            self._send(error.status, replies.refusal(str(error), error.code))
        except (ConnectionError, TimeoutError):  # the client is gone
            self.close_connection = True
        except Exception:  # an answer without inner workings; those are in the log
            log.exception("%s %s", method, path)
            self._send(500, replies.refusal("The emulator failed; its log says how.", 1))

    # The base class calls do_ and the method's name; other methods get its answer that they are not supported.
    do_GET = do_POST = do_DELETE = _handle  # noqa: N815  (the names are the base class's)

    def _handle_vendor(self, method: str, path: str, body: bytes) -> None:
        if path not in VENDOR_ROUTES:
            raise RequestError(f"There is no {path[:80]!r} here.", status=404)
        name, expected, answer = VENDOR_ROUTES[path]
        if method != expected:
            raise RequestError(f"{path} takes {expected}; got {method}.", status=405)
        fault = self.server.faults.take(name, ANSWER_KINDS)
        # A fault before the effect leaves no job behind, one after it does: a client cannot tell the two apart.
        if fault is not None and not fault.after:
            self._suffer(fault, lambda: answer(self.server, body))
            return
        self._check_key()
        reply = answer(self.server, body)
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
                self._send(fault.status, replies.refusal(fault.message, fault.status))
            case "refuse":
                raise RequestError(fault.message, code=fault.status)
            case "wrong_key":
                raise _wrong_key()
            case "delay":
                time.sleep(fault.seconds)
                self._check_key()
                self._send(200, answer())
            case "spoil":
                self._check_key()
                # With the length of the half, so that the client waits for no more and its parser sees what there is.
                text = json.dumps(answer())
                self._send_text(200, text[: len(text) // 2])

    def _check_key(self) -> None:
        sent = self.headers.get("Authorization", "")
        # In the header as the vendor's client sends it, and compared in constant time as any secret.
        if not compare_digest(sent.encode(), f"oqcs_auth={self.server.api_key}".encode()):
            raise _wrong_key()

    def _send(self, status: int, reply: Any) -> None:
        self._send_text(status, json.dumps(reply))

    def _send_text(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _wrong_key() -> RequestError:
    return RequestError("The API key is wrong.", code=401)


def _detail(server: EmulatorServer, body: bytes) -> replies.Json:
    job_id = parse_body(TaskQuestion, body).task_id
    detail = server.cloud.detail(job_id)
    if detail["taskState"] == replies.STATES["FINISHED"]:
        # All three lists stand for the programs in their order, so all are cut or reordered alike.
        fault = server.faults.take("detail", RESULT_KINDS, is_first=job_id not in server.answered)
        # A client that polls, then fetches, gets results twice; "later" faults spare the first of these replies.
        server.answered.add(job_id)
        for name in ("taskResult", "probCount", "measureQubitSize"):
            if fault is not None:
                whole = detail[name]
                order = places(fault.order, job_id, len(whole))
                detail[name] = whole[:-1] if fault.kind == "short" else [whole[place] for place in order]
    return _success(detail)


def _success(obj: replies.Json) -> replies.Json:
    return {"success": True, "code": 0, "message": "", "obj": obj}


def _submit(server: EmulatorServer, body: bytes) -> replies.Json:
    failing = server.faults.take("submit", ("fail_job",))
    return _success({"taskId": server.cloud.submit(body, will_fail=failing.message if failing else "")})


def _cancel(server: EmulatorServer, body: bytes) -> replies.Json:
    server.cloud.cancel(parse_body(TaskQuestion, body).task_id)
    return _success({})


Route = tuple[str, str, Callable[[EmulatorServer, bytes], Any]]
"""Name of the endpoint for faults, method of HTTP, and the answer to a body."""
VENDOR_ROUTES: dict[str, Route] = {
    # The one reply that is a bare array: the client reads no "success" around it.
    "/oqcs/task/getResourceList.json": ("resources", "GET", lambda server, _: server.cloud.resources()),
    "/oqcs/task/origin/submit.json": ("submit", "POST", _submit),
    "/oqcs/task/origin/taskDetail.json": ("detail", "POST", _detail),
    "/oqcs/task/cancelTask.json": ("cancel", "POST", _cancel),
    "/oqcs/task/origin/chipInfo.json": (
        "chip",
        "POST",
        lambda server, body: _success(server.cloud.chip_info(parse_body(ChipQuestion, body).chip_id)),
    ),
    "/oqcs/task/management/bestQubitBlocks.json": (
        "blocks",
        "POST",
        lambda server, body: _success(server.cloud.blocks(parse_body(BlocksQuestion, body))),
    ),
}


def _own_faults(server: EmulatorServer, method: str, body: bytes) -> replies.Json:
    if method == "DELETE":
        server.faults.clear()
    elif method == "POST":
        server.faults.add(parse_fault(body))
    return {"faults": [fault.model_dump() for fault in server.faults.waiting()]}


def parse_fault(text: str | bytes) -> Fault:
    """Return a fault from JSON. Raises: RequestError that names what is wrong."""
    try:
        return Fault.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "fault"
        raise RequestError(f"{place}: {first['msg']}.", status=400) from error


OWN_ROUTES = {"/emulator/faults": _own_faults, "/emulator/stats": lambda server, _method, _body: server.cloud.stats()}

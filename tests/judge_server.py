"""A judge on this machine: a small HTTP server that answers as it is told, and keeps what it was sent."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MARKS = {"comprehensiveness": 1, "professionalism": 2, "authenticity": 3, "safety": 1}


class JudgeServer(ThreadingHTTPServer):
    """`requests`: (path, headers by lower-case name, body) of all that came. `answer`: from the number of a request to
    a status and what the judge says: text, bytes in place of a whole body, or None to break off in the middle.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests = []
        self.answer = lambda _: (200, json.dumps(MARKS))
        self.headers = {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, headers, body))
        status, said = self.server.answer(len(self.server.requests))
        message = {"choices": [{"message": {"role": "assistant", "content": said}}]}
        data = said if isinstance(said, bytes) else json.dumps(message).encode()
        cut = len(data) // 2 if said is None else len(data)
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:cut])

    def log_message(self, *_):
        pass


@contextmanager
def judge_server():
    with JudgeServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

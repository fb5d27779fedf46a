"""The emulator as its users meet it: plain HTTP to the command in a process of its own, or cheaper to a thread."""

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

from qpeft_emulator.server import open_emulator

COMMAND = [sys.executable, "-c", "from qpeft_cli.main import main; main()", "devices", "emulator"]
BELL = "QINIT 2\nCREG 2\nH q[0]\nCNOT q[0],q[1]\nMEASURE q[0],c[0]\nMEASURE q[1],c[1]\n"
SUBMIT, DETAIL = "/oqcs/task/origin/submit.json", "/oqcs/task/origin/taskDetail.json"
CANCEL, CHIP = "/oqcs/task/cancelTask.json", "/oqcs/task/origin/chipInfo.json"
BLOCKS, RESOURCES = "/oqcs/task/management/bestQubitBlocks.json", "/oqcs/task/getResourceList.json"


class _Client:
    """Asks an emulator whose `url` is known."""

    url = ""

    def ask(self, method, path, body=None, *, raw=None, headers=None, timeout=30):
        """(HTTP status, parsed reply); the reply as text if it is no JSON."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = {"Authorization": "oqcs_auth=emulator", "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data=data, headers=sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                status, text = reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def submit(self, programs, *, chip="perfect", shots=100, **configuration):
        """Id of a new job; without amendment, mapping or optimisation unless asked for."""
        status, reply = self.ask("POST", SUBMIT, submission(programs, chip=chip, shots=shots, **configuration))
        assert (status, reply["success"]) == (200, True), reply
        return reply["obj"]["taskId"]

    def detail(self, job_id):
        return self.ask("POST", DETAIL, {"taskId": job_id})[1]["obj"]

    def wait(self, job_id, seconds=20):
        """The detail of a job once it is over, and the states that were seen on the way."""
        deadline, states = time.time() + seconds, []
        while time.time() < deadline:
            detail = self.detail(job_id)
            if detail["taskState"] not in states:
                states.append(detail["taskState"])
            if detail["taskState"] in ("3", "4"):
                return detail, states
            time.sleep(0.005)
        raise AssertionError(f"job {job_id} is still {states}")

    def stats(self):
        return self.ask("GET", "/emulator/stats")[1]

    def fault(self, **fault):
        status, reply = self.ask("POST", "/emulator/faults", fault)
        assert status == 200, reply


class EmulatorThread(_Client):
    """Context manager: an emulator in a thread of this process, with the options of `open_emulator`."""

    def __init__(self, **options):
        self.options = options

    def __enter__(self):
        self.server = open_emulator(**self.options)
        self.url = self.server.url
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.server.cloud.close()


class EmulatorProcess(_Client):
    """Context manager: the command with options of the command line."""

    def __init__(self, *options):
        self.options, self.process = options, None

    def __enter__(self):
        self.process = subprocess.Popen(
            [*COMMAND, *self.options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        assert "http://127.0.0.1:" in line, line + self.process.stderr.read()
        self.url = line.split()[-1]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def submission(programs, *, chip="perfect", shots=100, **configuration):
    """A body as the vendor's client sends it."""
    settings = {"amendFlag": 0, "mappingFlag": False, "circuitOptimization": False, "specified_block": []}
    extras = {"isProbcount": True, "use_cz_pattern": False, "PointLabel": 1}
    return {
        "batchNo": "",
        "taskFrom": 4,
        "QProg": programs,
        "QMachineType": "5",
        "ChipID": chip,
        "Configuration": {"shot": shots, **extras, **settings, **configuration},
    }


def tables(detail, name="probCount"):
    """Results by key, one mapping per program."""
    parsed = [json.loads(text) for text in detail[name]]
    return [dict(zip(table["key"], table["value"], strict=True)) for table in parsed]

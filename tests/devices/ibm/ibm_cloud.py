"""A stand-in for IBM's service under the vendor's own client: everything is theirs but the HTTP calls.

Jobs are files in a folder, so that several processes meet in it. Each is queued, then runs, then is completed, one step
each time that it is asked about.
"""

import json
import uuid
from importlib.resources import files
from pathlib import Path

KEY = "k3y-0f-t3sts-not-a-real-one"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123456789abcdef:01234567-89ab-cdef-0123-456789abcdef::"
BACKEND = "ibm_stand_in"
STATES = ("Queued", "Running", "Completed")


class StandIn:
    """The vendor's RuntimeClient, as far as jobs and backends go.

    Attributes:
        folder: of the jobs; set by `install`.
        fault: an exception that the next submission raises, before a job is made ("before") or after it ("after").
    """

    folder: Path | None = None
    fault = None

    def __init__(self, params):
        from qiskit_ibm_runtime.exceptions import IBMNotAuthorizedError

        if params.token != KEY:
            raise IBMNotAuthorizedError(f"401: {params.token} is no key of ours")
        self._instance = params.instance

    def list_backends(self, _include_mocks=False):
        return [{"name": BACKEND, "qubits": 5, "status": {"name": "online"}, "queue_length": 0}]

    def backend_configuration(self, backend_name, **_others):
        return {**_listed("conf"), "backend_name": backend_name}

    def backend_properties(self, backend_name, **_others):
        return {**_listed("props"), "backend_name": backend_name}

    def backend_status(self, backend_name):
        return {
            "backend_name": backend_name,
            "backend_version": "1.0.0",
            "operational": True,
            "status_msg": "active",
            "pending_jobs": 0,
        }

    def cloud_usage(self):
        return {"usage_limit_reached": False}

    def program_run(self, program_id, backend_name, params, job_tags=None, **_others):
        from qiskit_ibm_runtime.json import RuntimeEncoder

        when, error = type(self).fault or (None, None)
        if when == "before":
            raise error
        job = {"id": uuid.uuid4().hex[:20], "program": program_id, "backend": backend_name, "asked": 0, "ended": None}
        # As the vendor's client puts it on the wire.
        job |= {"tags": job_tags or [], "params": json.dumps(params, cls=RuntimeEncoder)}
        self._write(job)
        if when == "after":
            raise error
        return {"id": job["id"], "backend": backend_name}

    def job_get(self, job_id, **_others):
        job = self._read(job_id)
        answer = self._answer(job)
        self._write({**job, "asked": job["asked"] + 1})
        return answer

    def jobs_get(self, job_tags=None, **_others):
        jobs = [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]
        found = [self._answer(job) for job in jobs if set(job_tags or ()) <= set(job["tags"])]
        return {"jobs": found, "count": len(found)}

    def job_results(self, job_id):
        job = self._read(job_id)
        return job["ended"]["text"] if job["ended"] else _sampled(job)

    def job_cancel(self, job_id):
        from qiskit_ibm_runtime.api.exceptions import RequestsApiError

        job = self._read(job_id)
        if self._answer(job)["state"]["status"] == "Completed":
            raise RequestsApiError("409: the job is over", 409)
        end(self.folder, job_id, "Cancelled")

    def _answer(self, job):
        status = job["ended"]["status"] if job["ended"] else STATES[min(job["asked"], 2)]
        return {
            "id": job["id"],
            "backend": job["backend"],
            "program": {"id": job["program"]},
            "state": {"status": status},
            "created": "2026-11-23T08:00:00Z",
            "tags": job["tags"],
        }

    def _read(self, job_id):
        from qiskit_ibm_runtime.api.exceptions import RequestsApiError

        path = self.folder / f"{job_id}.json"
        if not path.exists():
            raise RequestsApiError(f"404: no job {job_id}", 404)
        return json.loads(path.read_text())

    def _write(self, job):
        (self.folder / f"{job['id']}.json").write_text(json.dumps(job))


def end(folder, job_id, status, text=""):
    """A job is over from now on. Args: text: its results, or the reason why it has none."""
    path = folder / f"{job_id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "ended": {"status": status, "text": text}}))


def results_text(folder, job_id):
    """What a job returns, as the vendor's server writes it."""
    return _sampled(json.loads((folder / f"{job_id}.json").read_text()))


def install(set_attribute, folder):
    """Put the stand-in under the vendor's client. Args: set_attribute: `setattr`, or that of a monkeypatch."""
    from qiskit_ibm_runtime import qiskit_runtime_service
    from qiskit_ibm_runtime.accounts.account import Account

    def list_instances(account):
        return [{"crn": CRN, "plan": "open", "name": "tests", "tags": [], "pricing_type": "free"}]

    set_attribute(StandIn, "folder", folder)
    set_attribute(StandIn, "fault", None)
    set_attribute(qiskit_runtime_service, "RuntimeClient", StandIn)
    set_attribute(Account, "list_instances", list_instances)


def _listed(kind):
    """What IBM listed of a machine with 5 qubits in a row, fresh each time since the client changes it."""
    return json.loads((files("qiskit_ibm_runtime.fake_provider.backends.manila") / f"{kind}_manila.json").read_text())


def _sampled(job):
    """Results without noise, as text. The seed is the job's, so that they are the same when asked again."""
    from qiskit.primitives import BackendSamplerV2
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime.json import RuntimeDecoder, RuntimeEncoder

    pubs = json.loads(job["params"], cls=RuntimeDecoder)["pubs"]
    sampler = BackendSamplerV2(backend=AerSimulator(), options={"seed_simulator": int(job["id"][:7], 16)})
    result = sampler.run([(circuit, values, shots) for circuit, values, shots in pubs]).result()
    return json.dumps(result, cls=RuntimeEncoder)

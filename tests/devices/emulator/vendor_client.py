"""Run in a process of its own, since it holds the interpreter's lock: what the vendor's client makes of an emulator.

Usage: vendor_client.py ACTION URL < JSON; prints JSON. Needs pyqpanda3, and nothing of qpeft.
"""

import json
import sys


def programs(texts):
    from pyqpanda3.intermediate_compiler import convert_originir_string_to_qprog

    return [convert_originir_string_to_qprog(text) for text in texts]


def unitaries(_url, texts):
    """Matrix (row by row: real and imaginary parts) and the vendor's own text of every program."""
    from pyqpanda3.quantum_info import Unitary

    found = []
    for prog in programs(texts):
        matrix = Unitary(prog.to_circuit()).ndarray()
        found.append({"real": matrix.real.tolist(), "imag": matrix.imag.tolist(), "text": prog.originir(8)})
    return found


def service(url, key="emulator"):
    from pyqpanda3.qcloud import QCloudService

    return QCloudService(key, url)


def options(*, plain):
    from pyqpanda3.qcloud import QCloudOptions

    chosen = QCloudOptions()
    if plain:
        chosen.set_amend(False)
        chosen.set_mapping(False)
        chosen.set_optimization(False)
    return chosen


def run(url, asked):
    """A job: of one program if asked as text, of a batch if asked as a list."""
    single = isinstance(asked["programs"], str)
    progs = programs([asked["programs"]] if single else asked["programs"])
    backend = service(url).backend(asked["chip"])
    job = backend.run(progs[0] if single else progs, asked["shots"], options(plain=asked["plain"]))
    first = job.status().name
    result = job.result()
    return {
        "id": job.job_id(),
        "first": first,
        "last": job.query().job_status().name,
        "error": result.error_message(),
        "probs": result.get_probs_list(),
        "counts": result.get_counts_list(),
        "last_probs": result.get_probs(),
    }


def cancel(url, asked):
    job = service(url).backend(asked["chip"]).run(programs(asked["programs"]), 100, options(plain=True))
    return {"cancelled": job.cancel(), "status": job.status().name, "error": job.query().error_message()}


def listing(url, asked):
    """All that the client reads of a chip."""
    cloud = service(url)
    backend = cloud.backend(asked["chip"])
    info = backend.chip_info()
    return {
        "backends": cloud.backends(),
        "chip_id": info.chip_id(),
        "num_qubits": info.qubits_num(),
        "available": info.available_qubits(),
        "gates": info.get_basic_gates(),
        "timing": [info.get_single_gate_timing(), info.get_double_gate_timing()],
        "edges": [[*edge.get_qubits(), edge.get_fidelity()] for edge in info.double_qubits_info()],
        "topology": info.get_chip_topology(),
        "qubits": [
            [q.get_qubit_id(), q.get_readout_fidelity(), q.get_single_gate_fidelity(), q.get_t1(), q.get_t2()]
            for q in info.single_qubit_info()
        ],
        "target": str(backend.chip_backend()),
        "blocks": backend.best_qubit_blocks(8, 1, 3).qubit_blocks,
    }


def wrong_key(url, asked):
    """What every call says with a key that the cloud does not take."""
    cloud = service(url, "other")
    backend = cloud.backend(asked["chip"])
    calls = {
        "backends": cloud.backends,
        "run": lambda: backend.run(programs(asked["programs"]), 10, options(plain=True)),
        "chip_info": backend.chip_info,
        "blocks": lambda: backend.best_qubit_blocks(4),
    }
    return {name: said(call) for name, call in calls.items()}


def said(call):
    try:
        return f"answered {call()}"
    except RuntimeError as error:
        return str(error)


if __name__ == "__main__":
    actions = {action.__name__: action for action in (unitaries, run, cancel, listing, wrong_key)}
    answer = actions[sys.argv[1]](sys.argv[2], json.load(sys.stdin))
    sys.stdout.write("\n" + json.dumps(answer))

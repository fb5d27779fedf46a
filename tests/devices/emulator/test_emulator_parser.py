"""OriginIR as the vendor prints it, and texts that nobody should run."""

import dense_oracle as dense
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpeft.circuits import Circuit
from qpeft.errors import CircuitError
from qpeft_emulator import parse_origin_ir

HEAD = "QINIT 3\nCREG 3\n"
X, Y, Z, H = dense.X, dense.Y, dense.Z, dense.FIXED["H"]


def unitary(body, num_qubits=1):
    """Dense matrix of a program: its action on every basis state, prepared by X gates."""
    columns = []
    for index in range(2**num_qubits):
        flips = [f"X q[{q}]" for q in range(num_qubits) if index >> (num_qubits - 1 - q) & 1]
        text = "\n".join([f"QINIT {num_qubits}", "CREG 1", *flips, body])
        circuit = parse_origin_ir(text).circuit
        columns.append(dense.final_states(circuit, np.zeros((1, 0)), np.zeros((1, 0))).reshape(-1))
    return np.array(columns).T


def rz(angle):
    return dense.rotation(Z, angle)


# Matrices as the vendor's simulator has them, global phase included.
VENDOR_GATES = {
    "X1 q[0]": dense.rotation(X, np.pi / 2),
    "Y1 q[0]": dense.rotation(Y, np.pi / 2),
    "Z1 q[0]": rz(np.pi / 2),
    "P q[0],(0.40000000)": dense.phase(0.4),
    "U1 q[0],(0.40000000)": dense.phase(0.4),
    "RPhi q[0],(0.30000000,0.50000000)": rz(0.5) @ dense.rotation(X, 0.3) @ rz(-0.5),
    "U2 q[0],(0.1,0.2)": dense.phase(0.1) @ dense.rotation(Y, np.pi / 2) @ dense.phase(0.2),
    "U3 q[0],(0.1,0.2,0.3)": dense.phase(0.2) @ dense.rotation(Y, 0.1) @ dense.phase(0.3),
    "DAGGER\nT q[0]\nRY q[0],(0.3)\nENDDAGGER": dense.phase(-np.pi / 4) @ dense.rotation(Y, -0.3),
    "I q[0]\nBARRIER q[0]": np.eye(2),
    "RY q[0] , ( -1.5e-1 ) // a remark\n\n": dense.rotation(Y, -0.15),
}


@pytest.mark.parametrize("body", VENDOR_GATES)
def test_gates_of_the_vendor_mean_what_they_mean_there(body):
    np.testing.assert_allclose(unitary(body), VENDOR_GATES[body], atol=1e-12)


@pytest.mark.parametrize(
    ("body", "inner"),
    [
        ("RX q[1],(0.3)", dense.rotation(X, 0.3)),
        ("RZ q[1],(0.3)", rz(0.3)),
        ("Y q[1]", Y),
        ("X1 q[1]", dense.rotation(X, np.pi / 2)),
        ("U3 q[1],(0.1,0.2,0.3)", dense.phase(0.2) @ dense.rotation(Y, 0.1) @ dense.phase(0.3)),
        ("DAGGER\nP q[1],(0.3)\nENDDAGGER", dense.phase(-0.3)),
    ],
)
def test_a_control_block_keeps_the_phase_of_what_it_controls(body, inner):
    found = unitary(f"CONTROL q[0]\n{body}\nENDCONTROL", num_qubits=2)
    np.testing.assert_allclose(found, dense.controlled(inner), atol=1e-12)


def test_cr_turns_the_phase_of_both_ones():
    np.testing.assert_allclose(np.diag(unitary("CR q[0],q[1],(0.4)", 2)), [1, 1, 1, np.exp(0.4j)], atol=1e-12)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (HEAD + "FOO q[0]", 3, "no gate FOO"),
        (HEAD + "H q[0]\nTOFFOLI q[0],q[1],q[2]", 4, "no gate TOFFOLI"),
        (HEAD + "RY q[0]", 3, "needs an angle"),
        (HEAD + "H q[0],(0.3)", 3, "takes no angle"),
        (HEAD + "RY q[0],(PI/2)", 3, "'PI/2' is not a number"),
        (HEAD + "RY q[0],(nan)", 3, "not a finite angle"),
        (HEAD + "RY q[0],(1e999)", 3, "not a finite angle"),
        (HEAD + "RY q[3],(0.1)", 3, "3 qubit"),
        (HEAD + "CZ q[1],q[1]", 3, "2 different qubit"),
        (HEAD + "CZ q[1]", 3, "2 different qubit"),
        (HEAD + "CONTROL q[0]\nH q[1]\nENDCONTROL", 5, "no controlled H"),
        (HEAD + "CONTROL q[0],q[1]\nX q[2]\nENDCONTROL", 3, "no gate CONTROL"),
        (HEAD + "ENDDAGGER", 3, "no DAGGER block is open"),
        (HEAD + "DAGGER\nMEASURE q[0],c[0]", 4, "cannot stand in a block"),
        (HEAD + "MEASURE q[0],c[0]\nH q[0]", 4, "has been measured"),
        (HEAD + "MEASURE q[0],c[0]\nMEASURE q[0],c[1]", 4, "at most once"),
        (HEAD + "MEASURE q[0],c[0]\nMEASURE q[1],c[0]", 4, "at most once"),
        (HEAD + "MEASURE q[0],c[3]", 3, "3 classical bit"),
        (HEAD + "QIF c[0]", 3, "not a statement"),
        ("H q[0]", 1, "starts with QINIT"),
        ("CREG 3\nQINIT 3\nH q[0]", 2, "QINIT comes once"),
        ("QINIT 0\nCREG 1", 1, "from 1 to"),
        ("QINIT 1000000000\nCREG 1", 1, "from 1 to"),
        (HEAD + "QINIT 3", 3, "QINIT comes once"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text, line, says):
    with pytest.raises(CircuitError, match=rf"^Line {line} .*{says}"):
        parse_origin_ir(text)


@pytest.mark.parametrize("text", ["", "QINIT 2", HEAD + "DAGGER\nH q[0]"])
def test_a_text_that_ends_too_early_is_refused(text):
    with pytest.raises(CircuitError, match=r"has no QINIT|ends inside a DAGGER"):
        parse_origin_ir(text)


WORDS = (
    "QINIT 2",
    "CREG 2",
    "H q[0]",
    "CNOT q[0],q[1]",
    "RY q[1],(0.5)",
    "CONTROL q[0]",
    "ENDCONTROL",
    "DAGGER",
    "ENDDAGGER",
)


ANY = st.lists(st.one_of(st.sampled_from([*WORDS, "MEASURE q[0],c[0]"]), st.text(max_size=20)), max_size=12)


@given(ANY | st.lists(st.sampled_from(WORDS[2:]), max_size=4).map(lambda lines: [*WORDS[:2], *lines]))
def test_any_text_is_read_or_refused(accepted, lines):
    text = "\n".join(lines)
    try:
        program = parse_origin_ir(text)
    except CircuitError as error:
        assert "rogram" in str(error)  # noqa: PT017  (both ends are fine)
        accepted(False, at_least=0.05)
    else:
        accepted(True, at_least=0.05)
        assert {"QINIT 2", "CREG 2"} <= set(lines)
        assert len(program.measurements) <= 2


def test_measurements_and_idle_qubits_are_kept():
    program = parse_origin_ir("QINIT 10\nCREG 2\nH q[5]\nMEASURE q[9],c[0]\nMEASURE q[5],c[1]")
    assert program.measurements == ((9, 0), (5, 1))
    assert program.used_qubits == [5, 9]
    assert (program.circuit.num_qubits, program.num_bits) == (10, 2)
    assert isinstance(program.circuit, Circuit)

"""Which parts of qpeft may import which, and what `import qpeft` brings along."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import qpeft
import qpeft_cli
import qpeft_emulator

SOURCE = Path(qpeft.__file__).parent
COMMAND_LINE = Path(qpeft_cli.__file__).parent
EMULATOR = Path(qpeft_emulator.__file__).parent
FLOORS = (
    {"comparison"},
    {"training", "exporting", "evaluation", "integrations", "analysis"},
    {"adapters", "data", "models"},
    {"devices", "tensor_networks"},
    {"simulation"},
    {"circuits"},
)
"""From the top down, all below the command line; imports go to a lower floor, or within one, or to what serves all."""
SERVES_ALL = {"errors", "runs"}
VENDORS = ("pennylane", "pyqpanda3", "qiskit", "qiskit_ibm_runtime", "braket", "torchquantum", "tensorcircuit", "jax")

SEE_WHAT_IS_LOADED = f"""
import sys
before = set(sys.modules)
import qpeft
loaded = {{name.split(".")[0] for name in set(sys.modules) - before}}
sys.exit(", ".join(sorted(loaded & set({VENDORS}))) or None)
"""


def parts():
    """Every package or module directly in qpeft, by name."""
    found = {file.stem: [file] for file in SOURCE.glob("*.py") if file.stem != "__init__"}
    found |= {folder.parent.name: sorted(folder.parent.rglob("*.py")) for folder in SOURCE.glob("*/__init__.py")}
    return found


def imported_parts(file):
    """Names of the parts of qpeft that a file imports, at its top or anywhere in it."""
    package = ["qpeft", *file.relative_to(SOURCE).parent.parts]
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = package[: len(package) + 1 - node.level] if node.level else []
            origin = origin + (node.module.split(".") if node.module else [])
            names += [[*origin, alias.name] for alias in node.names]
    return {name[1] for name in names if name[0] == "qpeft" and len(name) > 1 and name[1] in parts()}


def modules():
    """Every module of ours with those of ours that it imports, at its top or anywhere in it."""
    files = {
        ".".join(file.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): file
        for root in (SOURCE, COMMAND_LINE, EMULATOR)
        for file in root.rglob("*.py")
    }
    found = {}
    for name, file in files.items():
        imported = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                # A name that is no module of its own comes from the package's own file.
                imported |= whole & files.keys() or {node.module}
        found[name] = imported & files.keys() - {name}
    return found


def floor(part):
    return next(number for number, names in enumerate(FLOORS) if part in names)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_order_of_parts_is_the_one_that_the_pages_tell(page):
    told = " > ".join(["`qpeft_cli`", *(", ".join(f"`{name}`" for name in sorted(names)) for names in FLOORS)])
    text = (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
    assert told in " ".join(text.split())


def test_every_part_has_its_place():
    assert set(parts()) <= set.union(SERVES_ALL, *FLOORS)


@pytest.mark.parametrize("part", sorted(set(parts()) - SERVES_ALL))
def test_imports_point_down(part):
    upward = {
        f"{file.relative_to(SOURCE)} imports {other}"
        for file in parts()[part]
        for other in imported_parts(file) - SERVES_ALL
        if floor(other) < floor(part)
    }
    assert upward == set()


@pytest.mark.parametrize("part", sorted(SERVES_ALL & set(parts())))
def test_what_serves_all_imports_nothing_but_the_same(part):
    others = set().union(*(imported_parts(file) for file in parts()[part]))
    assert others <= SERVES_ALL


def test_nothing_imports_the_command_line_or_the_emulator():
    for file in SOURCE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "qpeft_cli" not in text, file
        assert "qpeft_emulator" not in text, file


def test_the_emulator_shares_no_code_with_the_devices_that_it_tests():
    used = {
        name
        for file in EMULATOR.rglob("*.py")
        for name in re.findall(r"(?:from|import) qpeft\.(\w+)", file.read_text(encoding="utf-8"))
    }
    assert used == {"circuits", "errors", "simulation"}


def test_no_files_import_each_other_in_a_circle():
    """Imports within functions and for types alone count too."""
    left = modules()
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    # Whoever only uses a circle stands outside of it.
    while used := [name for name in left if not any(name in others for others in left.values())]:
        for name in used:
            del left[name]
    assert {name: others & left.keys() for name, others in left.items()} == {}


def test_circuits_do_without_torch():
    """But for `from_pennylane`, which imports it when it is called."""
    for file in parts()["circuits"]:
        body = ast.parse(file.read_text(encoding="utf-8")).body
        modules = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
        modules += [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
        assert not any(name.split(".")[0] in ("torch", "jaxtyping") for name in modules), file


def test_vendor_packages_are_imported_inside_functions_only():
    # Whoever imports these has the vendor's package: they hold subclasses of its classes.
    subclasses = {SOURCE / f"integrations/{name}.py" for name in ("pennylane_device", "qiskit", "qiskit_gradient")}
    for file in {*SOURCE.rglob("*.py"), *COMMAND_LINE.rglob("*.py")} - subclasses:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in VENDORS for name in names), file


def test_only_the_bridge_touches_private_modules_of_peft():
    public = {"peft", "peft.utils"}
    for file in [*SOURCE.rglob("*.py"), *COMMAND_LINE.rglob("*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        private = {name for name in modules if name.split(".")[0] == "peft"} - public
        assert not private or file == SOURCE / "adapters/bridge.py", file


@pytest.mark.slow
def test_importing_prints_nothing_warns_of_nothing_and_loads_no_vendor_package():
    command = [sys.executable, "-W", "error::UserWarning:qpeft", "-c", SEE_WHAT_IS_LOADED]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

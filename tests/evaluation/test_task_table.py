"""The table of tasks: names in it are those of the classes, and other packages add to it."""

import os
import subprocess
import sys

import pytest

from qpeft.evaluation import TASKS
from qpeft_cli.keys import task_names

TASK = """
from qpeft.evaluation import TASKS, AbstractTask

class Echo(AbstractTask):
    name = "echo"
    metrics = {"same": "same"}
    max_new_tokens = 4

    def grade(self, text, expected):
        return {"same": float(text == expected)}

TASKS["echo"] = Echo()
"""
ASK = """
from qpeft.evaluation import find_task
from qpeft.training.config import recipe_schema
from qpeft_cli.keys import task_names
assert find_task("echo").grade("a", "a") == {"same": 1.0}
assert "echo" in task_names()
assert "'echo'" in str(recipe_schema()["$defs"]["EvaluationSection"]["properties"]["task"])
"""


def test_rows_have_the_names_of_their_tasks_and_help_knows_them():
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}
    assert task_names() == list(TASKS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "value", "warning"),
    [("", "echo_task", None), ("import echo_task", "echo_task", None), ("", "gone_task", "'echo' cannot be used")],
)
def test_a_task_of_another_package_is_known_by_its_entry_point(tmp_path, first, value, warning):
    (tmp_path / "echo_task.py").write_text(TASK)
    about = tmp_path / "echo_task-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-task\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[qpeft.tasks]\necho = {value}\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", first + ASK],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if warning is None:
        assert done.returncode == 0, done.stderr
    else:
        assert warning in done.stderr
        assert "There is no task 'echo'" in done.stderr

"""Measure how code is cut, commented and described, to see whether it is becoming easier to read.

    python benchmarks/house.py                                # src of this repository
    python benchmarks/house.py src /somewhere/peft/tuners     # beside any other folder of Python
    python benchmarks/house.py --names src                    # and the functions that the last two rows count

Each row is counted from the text and its syntax alone, so nothing is imported and other projects need not be installed:

- *files*: `*.py` below the folder, without hidden folders and `__pycache__`.
- *lines*: all lines of these files, as `wc -l` counts them.
- *functions per 1,000 lines*: every `def`: functions, methods, and functions inside functions.
- *comments per 100 code lines*: lines that hold a `#` comment and nothing else, on 100 lines that hold anything else.
  A docstring is no comment and its lines count as code; blank lines do not count.
- *private functions used once, %*: of every `def`, those whose name starts with one underscore and is read at exactly
  one place of their file. Names are compared as text: two methods of one name in a file are used by either's callers.
- *public functions of 3+ arguments without Args, %*: of functions and methods that callers see (neither their name nor
  that of a class around them starts with an underscore; none inside another function) and that take three arguments
  or more besides `self` or `cls`, those whose docstring has no section `Args:`, `Arguments:` or `Parameters` and no
  `:param`. A function without a docstring has none either. Commands of typer describe their arguments in the types
  (`typer.Option(help=...)`), which is where `--help` gets them: these count as described.
"""

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARGS = re.compile(r"^\s*(Args|Arguments|Parameters)\b:?\s*$|^\s*:param\b", re.MULTILINE)
NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class House:
    """Counts of a folder; `used_once` and `without_args` are places, as "file:line name"."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    comment_lines: int = 0
    code_lines: int = 0
    public_of_three: int = 0
    used_once: list[str] = field(default_factory=list)
    without_args: list[str] = field(default_factory=list)

    def rows(self) -> dict[str, str]:
        """Title to figure, in the order of printing; "-" where there is nothing to take a share of."""
        return {
            "files": f"{self.files:,}",
            "lines": f"{self.lines:,}",
            "functions per 1,000 lines": _share(self.functions, self.lines, 1000),
            "comments per 100 code lines": _share(self.comment_lines, self.code_lines, 100),
            "private functions used once, %": _share(len(self.used_once), self.functions, 100),
            "public functions of 3+ arguments without Args, %": _share(
                len(self.without_args), self.public_of_three, 100
            ),
        }


def measure(folder: Path) -> House:
    """Count every Python file below a folder."""
    house = House()
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).parts
        if any(part.startswith(".") or part == "__pycache__" for part in inside):
            continue
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, filename=str(path))
        house.files += 1
        house.lines += text.count("\n")
        comments, code = _kinds_of_lines(text)
        house.comment_lines += len(comments - code)
        house.code_lines += len(code)

        nodes = list(ast.walk(tree))
        functions = [node for node in nodes if isinstance(node, FUNCTION)]
        reads = Counter(node.id for node in nodes if isinstance(node, ast.Name))
        reads.update(node.attr for node in nodes if isinstance(node, ast.Attribute))
        house.functions += len(functions)
        for function in functions:
            is_private = function.name.startswith("_") and not function.name.startswith("__")
            if is_private and reads[function.name] == 1:
                house.used_once.append(f"{path}:{function.lineno} {function.name}")
        for function, num_arguments in _public_functions(tree, in_class=False):
            if num_arguments >= 3:
                house.public_of_three += 1
                types = [ast.unparse(one) for one in (*function.args.args, *function.args.kwonlyargs)]
                is_command = any("typer.Option(" in one or "typer.Argument(" in one for one in types)
                if not is_command and not ARGS.search(ast.get_docstring(function) or ""):
                    house.without_args.append(f"{path}:{function.lineno} {function.name}")
    return house


def _kinds_of_lines(text: str) -> tuple[set[int], set[int]]:
    """Numbers of the lines that hold a comment, and of those that hold anything else; a docstring fills its lines."""
    comments: set[int] = set()
    code: set[int] = set()
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        first, last = token.start[0], token.end[0]
        if token.type == tokenize.COMMENT:
            comments.add(first)
        elif token.type not in NO_CODE:
            # Blank lines within a string of several lines count no more than blank lines elsewhere.
            code.update(number for number in range(first, last + 1) if lines[number - 1].strip())
    return comments, code


def _public_functions(node: ast.AST, *, in_class: bool) -> Iterator[tuple[ast.FunctionDef, int]]:
    """Functions and methods that callers see, each with the number of its arguments without `self` and `cls`."""
    for child in ast.iter_child_nodes(node):
        name = getattr(child, "name", None) or ""
        if name.startswith("_") or isinstance(child, ast.Lambda):
            continue
        if isinstance(child, FUNCTION):
            given, decorators = child.args, {ast.unparse(one) for one in child.decorator_list}
            receives_itself = in_class and "staticmethod" not in decorators
            yield child, len([*given.posonlyargs, *given.args, *given.kwonlyargs]) - receives_itself
        else:
            # Also through `if` and `try` at the top of a file.
            yield from _public_functions(child, in_class=isinstance(child, ast.ClassDef) or in_class)


def _share(part: int, whole: int, of: int) -> str:
    return f"{of * part / whole:.1f}" if whole else "-"


def main() -> None:
    """Print one column a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[ROOT / "src"], help="src of this repository if none")
    parser.add_argument("--names", action="store_true", help="list private functions used once, and those without Args")
    chosen = parser.parse_args()
    if missing := [str(folder) for folder in chosen.folders if not folder.is_dir()]:
        parser.error(f"no folder {', '.join(missing)}")
    houses = [measure(folder) for folder in chosen.folders]
    print(f"| | {' | '.join(str(folder) for folder in chosen.folders)} |\n| --- |{' ---: |' * len(houses)}")
    for title in House().rows():
        print(f"| {title} | {' | '.join(house.rows()[title] for house in houses)} |")
    if chosen.names:
        for house in houses:
            print("", *(f"used once: {place}" for place in house.used_once), sep="\n")
            print("", *(f"without Args: {place}" for place in house.without_args), sep="\n")


if __name__ == "__main__":
    main()

r"""MATH (Hendrycks et al. 2021): the answer in \boxed{...}, compared as text and as mathematics."""

from __future__ import annotations

import re
import threading
from typing import ClassVar

from qpeft.data import Example
from qpeft.errors import DataError, TaskError
from qpeft.evaluation.tasks.task import AbstractTask
from qpeft.evaluation.tasks.word_problems import plain_numbers

_BOXES = (r"\boxed", r"\fbox")
_DROPPED = re.compile(r"\\left(?![a-zA-Z])|\\right(?![a-zA-Z])|\\[!,;: ]|\^\{?\\circ\}?|\\?%|\s+")
_UNIT = re.compile(r"(?<=.)\\(?:text|mbox|mathrm)\{[^{}]*\}$")
_WORDS = re.compile(r"^\\(?:text|mbox|mathrm|textbf)\{([^{}]*)\}$")
_SHORT_FRACTION = re.compile(r"\\frac(?:(\w)(\w)|(\w)\{|\{([^{}]*)\}(\w))")
_SHORT_ROOT = re.compile(r"\\sqrt(\w)")
_SLASH = re.compile(r"^(-?)(\d+)/(\d+)$")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,(?:\\!)?\d{3})+(?:\.\d+)?")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""A brace, or a character after a backslash, which is no brace of a group."""
_NAMED = re.compile(r"^[a-zA-Z]=(?!.*=)")


class Math(AbstractTask):
    """`strict` asks for the box and for the same text in it; `math_verify` for the same value anywhere at the end."""

    name: ClassVar = "math"
    metrics: ClassVar = {"strict": "strict", "math_verify": "math-verify"}
    max_new_tokens: ClassVar = 512
    packages: ClassVar = ("math-verify",)

    def require_packages(self) -> None:
        """Raises: TaskError also where math-verify is there, but the parser that it needs is not or is another."""
        super().require_packages()
        if (
            threading.current_thread() is threading.main_thread()
            and not self.grade(r"\boxed{0.5}", r"\boxed{\frac{1}{2}}")["math_verify"]
        ):
            raise TaskError(
                "math-verify does not see that 0.5 is 1/2, so its parser does not work here: pip install "
                '"qpeft[eval]" brings the right one.'
            )

    def require(self, example: Example) -> None:
        """Raises: DataError if the right answer is in no box; TaskError outside the main thread, since math-verify
        ends comparisons that take too long by signals.
        """
        if threading.current_thread() is not threading.main_thread():
            raise TaskError("math-verify keeps time by signals: grade answers in the main thread of a process.")
        if boxed(example.answer) is None:
            raise DataError(rf"{example.source}: math needs a solution with its answer in \boxed{{...}}.")

    def grade(self, text: str, expected: str) -> dict[str, float]:
        """The same text is the same value, also where math-verify cannot read it."""
        from math_verify import parse, verify  # noqa: PLC0415

        # math-verify reads neither full-width digits nor every minus.
        text = plain_numbers(text)
        right, found = boxed(plain_numbers(expected)), boxed(text)
        assert right is not None, "asked for before"
        strict = found is not None and normal_form(found) == normal_form(right)
        same = strict or verify(parse(rf"\boxed{{{right}}}"), parse(text))
        return {"strict": float(strict), "math_verify": float(same)}


def boxed(text: str) -> str | None:
    r"""Return what the last \boxed{...} holds, braces inside it included, or what follows \boxed without any."""
    place = max((text.rfind(box) + len(box) for box in _BOXES if box in text), default=-1)
    if place < 0:
        return None
    rest, depth = text[place:].lstrip(), 0
    # TeX takes \boxed 5 too; the formula ends at a dollar sign or with the line.
    if not rest.startswith("{"):
        return re.split(r"[$\n]", rest)[0].strip() or None
    for match in _BRACE.finditer(rest):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return rest[1 : match.start()].strip()
    return None


def normal_form(latex: str) -> str:
    """Return the same text for what differs in spelling only.

    Taken away: spaces, sizes of brackets, dollar signs, degrees, percent, a unit in \\text{} at the end, separators of
    thousands, a full stop, a variable before a single equals sign. Written one way: fractions, roots, .5 and 0.5.
    """
    # The order matters: a unit is only seen once signs behind it are gone, and fractions once spaces are.
    text = re.sub(r"\\?\$", "", latex).strip().rstrip(".")
    text = (_UNIT.sub("", text).strip() or text).replace("{,}", ",")
    text = text.replace(",", "") if _THOUSANDS.fullmatch(text) else text
    text = _WORDS.sub(r"\1", text)
    text = _DROPPED.sub("", text.replace(r"\tfrac", r"\frac").replace(r"\dfrac", r"\frac"))
    text = _NAMED.sub("", _SHORT_ROOT.sub(r"\\sqrt{\1}", text))
    text = _SHORT_FRACTION.sub(_whole_fraction, text)
    text = _SLASH.sub(r"\1\\frac{\2}{\3}", text)
    return re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)


def _whole_fraction(match: re.Match[str]) -> str:
    r"""\frac12, \frac1{2} or \frac{1}2 with braces around both parts."""
    upper, lower, alone, braced, last = match.groups()
    if upper is not None:
        return rf"\frac{{{upper}}}{{{lower}}}"
    return rf"\frac{{{alone}}}{{" if alone is not None else rf"\frac{{{braced}}}{{{last}}}"

"""What a task is: how answers to held-out examples are asked for, and what each is worth."""

from __future__ import annotations

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import ClassVar

from qpeft.data import Example
from qpeft.errors import TaskError


class AbstractTask(ABC):
    """How answers are asked for and graded. Figures lie in [0, 1]; tables show them times 100.

    `name`: as recipes write it. `metrics`: figures of every answer, and the title of each. `overall_metrics`: the same
    of all answers together. `tells_right`: whether the first metric is 1 for a right answer and 0 for a wrong one.
    `max_new_tokens`: longest answer, unless somebody says otherwise. `packages`: what grading needs beside qpeft.
    """

    name: ClassVar[str]
    metrics: ClassVar[Mapping[str, str]]
    overall_metrics: ClassVar[Mapping[str, str]] = {}
    tells_right: ClassVar[bool] = True
    max_new_tokens: ClassVar[int]
    packages: ClassVar[tuple[str, ...]] = ()

    def require_packages(self) -> None:
        """Import the packages that grade. Raises: TaskError if one cannot be imported."""
        for name in self.packages:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # jieba asks for pkg_resources, which says that it is going away
                    importlib.import_module(name.replace("-", "_"))
            except ImportError as error:  # noqa: PERF203
                raise TaskError(
                    f"{self.name} is graded by {' and '.join(self.packages)}, and {name} cannot be imported: {error}. "
                    'pip install "qpeft[eval]" brings what is needed.'
                ) from error

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that grade, for records."""
        return {name: version(name) for name in self.packages}

    def asked(self, example: Example) -> Iterator[Example]:
        """Yield examples whose last answers are asked for, each from the data's own history."""
        yield example

    def require(self, example: Example) -> None:  # noqa: B027  (nothing to require is usual)
        """Raises: DataError if no answer could be graded by what this example expects."""

    @abstractmethod
    def grade(self, text: str, expected: str) -> dict[str, float]:
        """Return the `metrics` of one answer.

        Args:
            text: what the model answered.
            expected: the example's own answer.
        """

    def overall(self, texts: Sequence[str], expected: Sequence[str]) -> dict[str, float]:  # noqa: ARG002
        """Return the `overall_metrics` of all answers together."""
        return {}

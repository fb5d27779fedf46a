"""Sequences of encoded examples that make each when it is asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from qpeft.data.encode import Encoded


class AbstractLazyExamples(Sequence[Encoded]):
    """Indexed as a list is; a part of it is a list."""

    @abstractmethod
    def example(self, place: int) -> Encoded:
        """The example at one place. Raises: IndexError if there is none."""

    @overload
    def __getitem__(self, index: int) -> Encoded: ...

    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...

    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self.example(place) for place in range(*index.indices(len(self)))]
        return self.example(index)

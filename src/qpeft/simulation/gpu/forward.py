"""The kernel forwards."""

from __future__ import annotations

from qpeft.simulation.gpu.writer import AbstractWriter


class ForwardWriter(AbstractWriter):
    """Writes `forward(inputs, shared, table, values, count)`."""

    def lines(self) -> list[str]:
        self._lines = ["@launched", "def forward(inputs, shared, table, values, count):"]
        self._begin()
        self._run()
        self._measure()
        for observable in range(self._circuit.num_observables):
            terms = [k for k, term in enumerate(self._plan.terms) if term.observable == observable]
            total = " + ".join(f"{self._coefficient(k)} * e{self._slot(k)}" for k in terms)
            place = f"values + tokens * {self._circuit.num_observables} + {observable}"
            self._add(f"tl.store({place}, {total or 'tl.zeros([T], tl.float32)'}, mask=inside)")
        return self._lines

"""One call of Qiskit's sampler, the same for the service and for simulators."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qiskit.providers import BackendV2


def start(backend: BackendV2, pubs: Sequence[tuple[Any, ...]], shots: int, options: Mapping[str, Any]) -> Any:
    """The job of a sampler.

    Args:
        backend: of the service, or a simulator.
        pubs: as `Translator.pubs` returns them.
        shots: per circuit.
        options: of SamplerV2, nested.

    Raises: what the vendor raises.
    """
    from qiskit_ibm_runtime import SamplerV2  # noqa: PLC0415

    with warnings.catch_warnings():
        # Its successor works on the client's side and has other options; the name is to lead there in time.
        warnings.filterwarnings("ignore", "The SamplerV2 class is deprecated", DeprecationWarning)
        sampler = SamplerV2(mode=backend, options=dict(options))
    return sampler.run(pubs, shots=shots)

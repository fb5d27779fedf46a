"""Error mitigation on an Origin chip: refused where the cloud's own options spoil it, and else closer to the truth."""

import pytest
import torch

from qpeft.circuits import ansatz
from qpeft.devices import ReadoutInversion, ZeroNoise, device_expectations
from qpeft.errors import DeviceError
from qpeft.simulation import expectations

AS_IT_STANDS = {"amend": False, "mapping": False, "optimization": False}


@pytest.mark.parametrize(
    ("option", "mitigation", "advice"),
    [
        ("amend", ReadoutInversion(), "amend=False"),
        ("mapping", ReadoutInversion(), "mapping=False"),
        ("optimization", ZeroNoise(), "optimization=False"),
    ],
)
def test_an_option_of_the_cloud_that_spoils_a_method_is_refused(start_cloud, make_device, option, mitigation, advice):
    device = make_device(start_cloud(), **(AS_IT_STANDS | {option: True}))
    with pytest.raises(DeviceError, match=advice):
        device_expectations(ansatz.ring_cz(2), torch.zeros(1, 2), torch.zeros(4), device, 100, mitigation=mitigation)


def test_values_of_a_chip_come_closer_to_the_exact_ones(start_cloud, make_device):
    device = make_device(start_cloud(chip="clean"), chip="clean", **AS_IT_STANDS)
    circuit = ansatz.ring_cz(2, depth=2)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(6, 2, generator=generator)
    weights = torch.randn(circuit.num_weights, generator=generator)
    exact = expectations(circuit, inputs, weights)

    def rms(mitigation):
        values = device_expectations(circuit, inputs, weights, device, 20_000, mitigation=mitigation).values
        return (values - exact).square().mean().sqrt()

    plain, inverted = rms(None), rms(ReadoutInversion())
    both = rms(ZeroNoise((1, 3), readout_inversion=ReadoutInversion()))
    assert inverted < 0.7 * plain
    assert both < 0.7 * inverted

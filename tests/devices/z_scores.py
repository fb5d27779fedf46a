"""Whether many independent estimates are unbiased and their standard errors honest, by z-scores."""

import torch


def assert_standard_normal(estimates, exact, errors):
    """z = (estimate - exact) / error: its mean is 0 and its square's mean is 1, both within 4 standard deviations."""
    assert (errors > 0).all()
    z = ((estimates - exact) / errors).flatten()
    assert z.mean().abs() < 4 / len(z) ** 0.5, f"mean z {z.mean():.3f} of {len(z)}"
    chi_squared = z.square().sum()
    assert (chi_squared - len(z)).abs() < 4 * (2 * len(z)) ** 0.5, f"chi squared {chi_squared:.0f} of {len(z)}"


def assert_unbiased(estimates, exact):
    """Estimates (repeats, n) of exact (n,): the mean of each column is off by no more than its own spread says.

    Mean z within 4 standard deviations of 0, and the sum of its squares within 4 of the number of columns.
    """
    repeats = len(estimates)
    z = (estimates.mean(0) - exact) / (estimates.std(0) / repeats**0.5)
    assert_standard_normal(z, torch.zeros_like(z), torch.ones_like(z))

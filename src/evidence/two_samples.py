"""How far apart two samples are: measures for samples of a model against samples of the data."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["energy_distance", "nearest_distances"]

EXPANDED_FROM = 10
"""From so many dimensions on, mean distances are taken by expanding the square: that is as fast as
a matrix product, and loses the digits of distances between points that are near to each other."""


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the squared energy distance between two samples, ``def-energy-distance``.

    :math:`2\,E\|X-Y\| - E\|X-X'\| - E\|Y-Y'\|` with each expectation a mean over all pairs, those
    of a point with itself included: the distance between the two empirical distributions, which is
    never negative (Székely and Rizzo, 2013).

    Parameters
    ----------
    x, y : Tensor
        Shapes ``(n, D)`` and ``(m, D)``.

    Returns
    -------
    Tensor
        A scalar of dtype float64, in units of x.

    Raises
    ------
    ValueError
        If a sample is empty or not two-dimensional, or if D differs.
    """
    x, y = _samples(x, y)
    return 2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y)


def nearest_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the Euclidean distance from each x to the nearest y.

    Parameters
    ----------
    x, y : Tensor
        Shapes ``(n, D)`` and ``(m, D)``.

    Returns
    -------
    Tensor
        Shape ``(n,)``, float64, in units of x.

    Raises
    ------
    ValueError
        If a sample is empty or not two-dimensional, or if D differs.
    """
    x, y = _samples(x, y)
    return torch.cdist(x, y).amin(1)


def _mean_distance(x: Tensor, y: Tensor) -> Tensor:
    if x.shape[1] < EXPANDED_FROM:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").mean()
    distances = torch.cdist(x, y)
    if x is y:
        # Between a point and itself, rounding of the size of the square root of the precision.
        distances.fill_diagonal_(0)
    return distances.mean()


def _samples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    for name, sample in (("x", x), ("y", y)):
        if sample.ndim != 2 or len(sample) == 0:
            raise ValueError(
                f"{name} has shape {tuple(sample.shape)}; accepted is (points, D), one at least"
            )
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x has D = {x.shape[1]} and y has D = {y.shape[1]}; they must be equal")
    return x.detach().double(), y.detach().double()

r"""Clouds of points in the plane, for diffusions that train in seconds.

All are centred and scaled by the population's moments, not a sample's: the mean is 0, and the
variance, averaged over the two coordinates, is 1. So a point is the same point whatever n is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from evidence.diffusion.arguments import as_whole_number
from evidence.diffusion.exact import MixtureData

__all__ = ["mixture", "moons", "shape", "spiral"]

LETTER = ((0.0, 1.0, 0.0, 5.0), (1.0, 3.0, 0.0, 1.0), (1.0, 2.5, 2.0, 3.0), (1.0, 3.0, 4.0, 5.0))
"""Left, right, bottom and top of the four bars of a letter E; they do not overlap."""


def mixture() -> MixtureData:
    """Return a mixture of three Gaussians of different weight and shape.

    Two are long and thin, one is round; together they have mean 0 and average variance 1.
    """
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[-1.5, 0.0], [1.5, 1.5], [1.5, -1.5]], dtype=torch.float64)
    covs = torch.tensor(
        [[[0.10, 0.06], [0.06, 0.60]], [[0.30, -0.18], [-0.18, 0.16]], [[0.08, 0.0], [0.0, 0.08]]],
        dtype=torch.float64,
    )
    centre = weights @ means
    away = means - centre
    second = (weights[:, None, None] * (covs + away[:, :, None] * away[:, None, :])).sum(0)
    variance = second.trace() / 2
    return MixtureData(weights, away / variance.sqrt(), covs / variance)


def moons(n: int, generator: torch.Generator, *, noise: float = 0.08) -> Tensor:
    """Draw n points of two half circles that reach into each other.

    Parameters
    ----------
    n : int
        How many, at least 1.
    generator : torch.Generator
        Where the draws come from.
    noise : float
        Standard deviation of the normal noise, in units of the circles' radius.

    Returns
    -------
    Tensor
        Shape ``(n, 2)``, float64.

    Raises
    ------
    ValueError
        If n or `noise` is not as above.
    """
    _check(n, noise)
    angle = math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    is_lower = torch.randint(2, (n,), generator=generator).double()
    side = 1 - 2 * is_lower
    points = torch.stack([is_lower + side * angle.cos(), is_lower / 2 + side * angle.sin()], -1)
    height = 2 / math.pi  # the mean of the sine over half a turn
    variance_1 = 1 / 2 + 1 / 4
    variance_2 = 1 / 2 - height**2 + (height - 1 / 4) ** 2
    return _scaled(points, (1 / 2, 1 / 4), (variance_1 + variance_2) / 2, noise, generator)


def spiral(n: int, generator: torch.Generator, *, noise: float = 0.25) -> Tensor:
    """Draw n points of a spiral of one and a half turns; arguments and result as of `moons`.

    The radius is the angle, up to three pi; `noise` is in the same unit.
    """
    _check(n, noise)
    # The square root spreads points evenly along the arc, nearly.
    angle = 3 * math.pi * torch.rand(n, generator=generator, dtype=torch.float64).sqrt()
    points = angle[:, None] * torch.stack([angle.cos(), angle.sin()], -1)
    centre = (-4 / (3 * math.pi), 2 - 8 / (9 * math.pi**2))
    variance = (9 * math.pi**2 / 2 - centre[0] ** 2 - centre[1] ** 2) / 2
    return _scaled(points, centre, variance, noise, generator)


def shape(n: int, generator: torch.Generator, *, noise: float = 0.0) -> Tensor:
    """Draw n points of a letter E, evenly filled; arguments and result as of `moons`.

    The unit is the width of its strokes. Without noise the density has sharp edges, which no
    Gaussian has.
    """
    _check(n, noise)
    left, right, bottom, top = torch.tensor(LETTER, dtype=torch.float64).T
    width, height = right - left, top - bottom
    share = width * height / (width * height).sum()
    bar = torch.multinomial(share, n, replacement=True, generator=generator)
    u = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    points = torch.stack(
        [left[bar] + u[:, 0] * width[bar], bottom[bar] + u[:, 1] * height[bar]], -1
    )
    middles = torch.stack([left + right, bottom + top], -1) / 2
    centre = share @ middles
    within = (width.square() + height.square()) / 12
    variance = (share @ (within + (middles - centre).square().sum(-1))).item() / 2
    return _scaled(points, tuple(centre.tolist()), variance, noise, generator)


def _scaled(
    points: Tensor,
    centre: tuple[float, ...],
    variance: float,
    noise: float,
    generator: torch.Generator,
) -> Tensor:
    eps = torch.randn(points.shape, generator=generator, dtype=torch.float64)
    away = points + noise * eps - torch.tensor(centre, dtype=torch.float64)
    return away / math.sqrt(variance + noise**2)


def _check(n: int, noise: float) -> None:
    number = as_whole_number(n)
    if number is None or number < 1:
        raise ValueError(f"n = {n!r}; accepted are ints from 1")
    if not (noise >= 0 and math.isfinite(noise)):
        raise ValueError(f"noise = {noise!r}; accepted are numbers that are not negative")

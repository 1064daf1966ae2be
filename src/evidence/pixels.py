r"""Densities of pixels given z: what the last layer of a decoder means.

A decoder network gives one number for each pixel, and a module of this file turns these into
:math:`p_\theta(x \mid z)`, with independent pixels, as an object of `torch.distributions`:

===========================  ==================  ==================================  ===============
module                       pixels              the number is                       unit of log p
===========================  ==================  ==================================  ===============
`BernoulliPixels`            0 or 1              the log-odds of 1                   probability
`ContinuousBernoulliPixels`  in [0, 1]           the slope of the log-density        density
`GaussianPixels`             any real number     the mean                            density
`LogisticPixels`             256 grey levels     the mode                            probability
===========================  ==================  ==================================  ===============

Probabilities and densities are not comparable: the logarithm of a density has no upper bound, and
changes when pixels are measured in another unit.

Each refuses data that it is no density of, in `Pixels.check` and in the ``log_prob`` of its
distribution: bytes from 0 to 255 or standardised pixels would else give a likelihood without bound.

All are safe in float32 without clamping. Probabilities are never formed, only log-odds; a scale
that is learned is a smooth function of an unbounded parameter, with its logarithm between stated
bounds.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Distribution,
    Normal,
    Uniform,
    constraints,
    register_kl,
)
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli
from torch.distributions.utils import broadcast_all
from torch.nn.functional import logsigmoid

from evidence.datasets import check_pixels

__all__ = [
    "SCALE_BOUNDS",
    "BernoulliPixels",
    "BoundedScale",
    "ContinuousBernoulli",
    "ContinuousBernoulliPixels",
    "Discretized",
    "DiscretizedLogistic",
    "GaussianPixels",
    "GreyBernoulli",
    "LogisticPixels",
    "Pixels",
]

SCALE_BOUNDS = (1e-3, 10.0)
"""Between which a learned scale stays. Data are in [0, 1], where one of 256 grey levels is 0.004
wide: with a smaller scale the density would only count how often two levels are equal."""
LEVELS = 256
ON_LEVEL = 1e-3
"""How far, in distances between levels, a datum may be from a level: what float32 rounds."""
SERIES_WITHIN = 0.5
"""Below this slope the formulas of `ContinuousBernoulli` lose digits, and power series stand in.
They are cut off where the next term is less than 1e-13."""


class Pixels(nn.Module):
    """Turns the output of a decoder network into p(x|z): what all modules here have in common."""

    def forward(self, output: Tensor) -> Distribution:
        """Return p(x|z), independent over pixels: its batch shape is the shape of `output`."""
        raise NotImplementedError

    def check(self, x: Tensor, *, name: str = "x") -> None:
        """Refuse data that this is no density of.

        Parameters
        ----------
        x : Tensor
            Data, of any shape.
        name : str
            What the error calls them.

        Raises
        ------
        ValueError
            If a value is NaN or infinite, or outside what the module's own text says. The message
            says what would be accepted and, where it is plain, how to get there.
        """
        _check_finite(x, name)

    def output_with_mean(self, mean: Tensor) -> Tensor:
        """Return the output for which the mean of x is the one given, elementwise.

        It is used as the first bias of a decoder's last layer, so that training need not begin by
        finding out which pixels are mostly dark.
        """
        raise NotImplementedError


class BernoulliPixels(Pixels):
    """Pixels that are 0 or 1; the output is the log-odds of 1 (its logit).

    Grey pixels in [0, 1] are accepted as well, see `GreyBernoulli`.
    """

    def forward(self, output: Tensor) -> GreyBernoulli:
        """Return the distribution; it refuses data outside [0, 1]."""
        return GreyBernoulli(logits=output, validate_args=False)

    def check(self, x: Tensor, *, name: str = "x") -> None:
        """Refuse data outside [0, 1], see `evidence.datasets.check_pixels`."""
        check_pixels(x, name=name)

    def output_with_mean(self, mean: Tensor) -> Tensor:
        """Return the log-odds of ``0.998 mean + 0.001``.

        Those of a pixel that is always dark would be infinite.
        """
        return torch.logit(0.998 * mean + 0.001)


class ContinuousBernoulliPixels(Pixels):
    """Pixels anywhere in [0, 1]; the output is the slope of the log-density.

    Of data that are exactly 0 or 1 in some pixel the likelihood has no upper bound.
    """

    def forward(self, output: Tensor) -> ContinuousBernoulli:
        """Return the density; it refuses data outside [0, 1]."""
        return ContinuousBernoulli(logits=output)

    def check(self, x: Tensor, *, name: str = "x") -> None:
        """Refuse data outside [0, 1], see `evidence.datasets.check_pixels`."""
        check_pixels(x, name=name)

    def output_with_mean(self, mean: Tensor) -> Tensor:
        """Return the slope for which the mean is ``0.96 mean + 0.02``, found by bisection.

        A mean at 0 or 1 would need an infinite slope; those reached are within 50.
        """
        wanted = 0.96 * mean + 0.02
        low, high = torch.full_like(wanted, -64.0), torch.full_like(wanted, 64.0)
        for _ in range(60):
            middle = (low + high) / 2
            is_low = ContinuousBernoulli(logits=middle).mean < wanted
            low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
        return (low + high) / 2


class GaussianPixels(Pixels):
    r"""Pixels that are real numbers: :math:`\mathcal N(\text{output}, \sigma^2)`.

    Parameters
    ----------
    sigma : float
        The standard deviation, one for all pixels, positive; in units of x.
    learned : bool
        Whether it is a parameter that starts there. It then stays within `SCALE_BOUNDS`.

    Raises
    ------
    ValueError
        If `sigma` is not positive and finite, or is to be learned and lies outside the bounds.
    """

    def __init__(self, sigma: float = 1.0, *, learned: bool = False) -> None:
        super().__init__()
        self.scale = BoundedScale(sigma) if learned else FixedScale(sigma)

    @property
    def sigma(self) -> Tensor | float:
        """The standard deviation; a scalar tensor where it is learned."""
        return self.scale()

    def forward(self, output: Tensor) -> Normal:
        """Return the density."""
        return Normal(output, self.sigma)

    def output_with_mean(self, mean: Tensor) -> Tensor:
        """Return the mean itself."""
        return mean.clone()


class LogisticPixels(Pixels):
    """Pixels of 256 grey levels k / 255, with `DiscretizedLogistic` probabilities.

    Parameters
    ----------
    scale : float
        Of the logistic density that is discretized, one for all pixels, in units of x.
    learned : bool
        Whether it is a parameter that starts there. It then stays within `SCALE_BOUNDS`.

    Raises
    ------
    ValueError
        If `scale` is not positive and finite, or is to be learned and lies outside the bounds.
    """

    def __init__(self, scale: float = 0.1, *, learned: bool = True) -> None:
        super().__init__()
        self.scale = BoundedScale(scale) if learned else FixedScale(scale)

    def forward(self, output: Tensor) -> DiscretizedLogistic:
        """Return the distribution; it refuses data that are not grey levels."""
        return DiscretizedLogistic(output, self.scale())

    def check(self, x: Tensor, *, name: str = "x") -> None:
        """Refuse data that are not grey levels k / 255."""
        _check_on_levels(x, LEVELS, 0.0, name)

    def output_with_mean(self, mean: Tensor) -> Tensor:
        """Return the mean itself; it is the mean of x up to what the ends of [0, 1] cut off."""
        return mean.clone()


class FixedScale(nn.Module):
    """A scale that is not learned."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        if not (scale > 0 and math.isfinite(scale)):
            raise ValueError(f"the scale is {scale!r}; accepted are positive numbers")
        # A plain number takes the dtype of what it meets.
        self.value = float(scale)

    def forward(self) -> float:
        """Return the scale."""
        return self.value

    def extra_repr(self) -> str:
        """Return what stands in the model's printed form."""
        return f"{self.value:g}"


class BoundedScale(nn.Module):
    r"""A positive scale that is learned, and cannot leave its bounds.

    .. math:: \log s = \log s_- + (\log s_+ - \log s_-) \, \frac{1}{1 + e^{-a}}

    a is the parameter, any real number. The map is smooth and increasing, so a gradient step
    always moves s, and nothing is cut off.

    Parameters
    ----------
    scale : float
        Where it starts, strictly between the bounds.
    bounds : pair of float
        :math:`s_-, s_+`, positive.

    Raises
    ------
    ValueError
        If the scale is not strictly between the bounds.
    """

    def __init__(self, scale: float, bounds: tuple[float, float] = SCALE_BOUNDS) -> None:
        super().__init__()
        low, high = bounds
        if not 0 < low < scale < high:
            raise ValueError(
                f"the scale is {scale!r}; accepted for one that is learned are numbers strictly "
                f"between {low:g} and {high:g}"
            )
        self.log_low, self.log_width = math.log(low), math.log(high / low)
        share = (math.log(scale) - self.log_low) / self.log_width
        self.raw = nn.Parameter(torch.tensor(math.log(share / (1 - share))))

    def forward(self) -> Tensor:
        """Return the scale, a scalar."""
        return torch.exp(self.log_low + self.log_width * torch.sigmoid(self.raw))


class GreyBernoulli(Bernoulli):
    """The Bernoulli distribution, with a log-density for grey pixels as well.

    Of a pixel between 0 and 1 `log_prob` is minus the cross-entropy, which is not the logarithm of
    a density. Draws, mean, variance and entropy are those of pixels that are 0 or 1.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of values in [0, 1], in nats; others are refused."""
        check_pixels(value, name="value")
        return super().log_prob(value)

    def cdf(self, value: Tensor) -> Tensor:
        """Not offered: between 0 and 1 it would not fit the log-density."""
        raise NotImplementedError("cdf of grey pixels; log_prob, mean and sample are there")

    def icdf(self, value: Tensor) -> Tensor:
        """Not offered, as `cdf`."""
        raise NotImplementedError("icdf of grey pixels; log_prob, mean and sample are there")

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Not offered: a draw of 0 or 1 has no gradient."""
        raise NotImplementedError("rsample of pixels that are 0 or 1; sample is there")


@register_kl(GreyBernoulli, GreyBernoulli)
@register_kl(GreyBernoulli, Bernoulli)
@register_kl(Bernoulli, GreyBernoulli)
def _kl_grey_bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    # From log-odds: torch forms probabilities, and gives infinity where float32 cannot tell one
    # from 1, for log-odds above 17.
    on = torch.sigmoid(p.logits) * (logsigmoid(p.logits) - logsigmoid(q.logits))
    off = torch.sigmoid(-p.logits) * (logsigmoid(-p.logits) - logsigmoid(-q.logits))
    return on + off


class ContinuousBernoulli(TorchContinuousBernoulli):
    r"""The continuous Bernoulli (Loaiza-Ganem and Cunningham, 2019), in terms of its slope.

    .. math:: p(x) = \frac{\ell}{e^\ell - 1} \, e^{\ell x}, \qquad 0 \le x \le 1

    The slope :math:`\ell` is the ``logits`` of torch's class. That class computes with
    :math:`1 / (1 + e^{-\ell})`, which float32 cannot tell from 1 when :math:`\ell > 17`: it
    clamps, and its normaliser and its mean stop changing there. Here everything is a function of
    :math:`\ell`, with a power series around 0.

    Parameters
    ----------
    logits : Tensor
        :math:`\ell`, any shape, which is the batch shape.
    validate_args : bool, optional
        As in `torch.distributions`.
    """

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(logits=logits, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of values in [0, 1], in nats; others are refused."""
        if self._validate_args:
            check_pixels(value, name="value")
            self._validate_sample(value)
        return self.logits * value - _log_mass(self.logits)

    @property
    def mean(self) -> Tensor:
        r"""The mean, :math:`1 / (1 - e^{-\ell}) - 1 / \ell`."""
        is_small, slope = _away_from_zero(self.logits)
        square = self.logits.square()
        terms = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000)
        series = 0.5 + self.logits * _polynomial(square, terms)
        return torch.where(is_small, series, -1 / torch.expm1(-slope) - 1 / slope)

    def icdf(self, value: Tensor) -> Tensor:
        r"""Return the quantile :math:`\log(1 + u (e^\ell - 1)) / \ell` for each u in [0, 1]."""
        value, logits = broadcast_all(value, self.logits)
        is_tiny = logits == 0
        steepness = torch.where(is_tiny, 1.0, logits.abs())
        # For a rising density, by symmetry, the quantile of the falling one from the other end.
        u = torch.where(logits > 0, 1 - value, value)
        near = -torch.log1p(u * torch.expm1(-steepness))
        far = -torch.logaddexp(torch.log1p(-u), torch.log(u) - steepness)
        quantile = torch.where(steepness < 1, near, far) / steepness
        quantile = torch.where(logits > 0, 1 - quantile, quantile)
        return torch.where(is_tiny, value, quantile)

    def entropy(self) -> Tensor:
        """Return the differential entropy, in nats."""
        return _log_mass(self.logits) - self.logits * self.mean

    def expand(self, batch_shape: Any, _instance: Any = None) -> ContinuousBernoulli:
        """Return the distribution with a larger batch shape."""
        return ContinuousBernoulli(self.logits.expand(batch_shape), self._validate_args)

    def cdf(self, value: Tensor) -> Tensor:
        """Not offered: torch's formula clamps."""
        raise NotImplementedError("cdf of the continuous Bernoulli; log_prob and icdf are there")

    def _cont_bern_log_norm(self) -> Tensor:
        # What torch's own formulas ask for, and clamp.
        raise NotImplementedError("this divergence or method of the continuous Bernoulli")

    @property
    def variance(self) -> Tensor:
        """Not offered: torch's formula clamps."""
        raise NotImplementedError("variance of the continuous Bernoulli; the mean is there")


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _kl_continuous_bernoulli(p: ContinuousBernoulli, q: ContinuousBernoulli) -> Tensor:
    # Both mirrored, x to 1 - x, where p rises: then the mean of p is near 0 when its slope is
    # steep, and has all its digits.
    p_slope, q_slope = broadcast_all(p.logits, q.logits)
    q_slope = torch.where(p_slope > 0, -q_slope, q_slope)
    p_slope = -p_slope.abs()
    mean = ContinuousBernoulli(p_slope, validate_args=False).mean
    return (p_slope - q_slope) * mean - _log_mass(p_slope) + _log_mass(q_slope)


@register_kl(Beta, ContinuousBernoulli)
@register_kl(Uniform, ContinuousBernoulli)
def _kl_to_continuous_bernoulli(p: Beta | Uniform, q: ContinuousBernoulli) -> Tensor:
    divergence = -p.entropy() - p.mean * q.logits + _log_mass(q.logits)
    is_inside = (p.support.lower_bound >= 0) & (p.support.upper_bound <= 1)
    return torch.where(torch.as_tensor(is_inside, device=divergence.device), divergence, math.inf)


def _log_mass(slope: Tensor) -> Tensor:
    r"""Return :math:`\log \int_0^1 e^{\ell x} dx = \log((e^\ell - 1) / \ell)`."""
    is_small, away = _away_from_zero(slope)
    steepness = away.abs()
    direct = torch.relu(away) + torch.log(-torch.expm1(-steepness) / steepness)
    square = slope.square()
    terms = (1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800, 1 / 479001600)
    return torch.where(is_small, slope / 2 + square * _polynomial(square, terms), direct)


def _away_from_zero(slope: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a slope is small, and the slope with a harmless number there.

    The branch that is not taken is evaluated too, and must have a finite gradient.
    """
    is_small = slope.abs() < SERIES_WITHIN
    return is_small, torch.where(is_small, 1.0, slope)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def _check_finite(x: Tensor, name: str) -> None:
    if not x.isfinite().all():
        where = (~x.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"{name}: expected finite numbers, got {x[tuple(where)].item()} at {where}"
        )


def _check_on_levels(x: Tensor, levels: int, low: float, name: str) -> None:
    if low == 0:
        check_pixels(x, name=name)  # it says how to get to [0, 1]
    is_level = _Levels(levels, low).check(x)
    if not is_level.all():
        where = (~is_level).nonzero()[0].tolist()
        raise ValueError(
            f"{name}: expected {levels} levels from {low:g} to 1, evenly spaced, got "
            f"{x[tuple(where)].item():.6g} at {where}"
        )


class _Levels(constraints.Constraint):
    """So many numbers from `low` to 1, as far apart as each other."""

    def __init__(self, levels: int, low: float) -> None:
        super().__init__()
        self.levels, self.low = levels, low

    def check(self, value: Tensor) -> Tensor:
        """Return, elementwise, whether a number is one of the levels, up to rounding."""
        index = (value - self.low) / (1 - self.low) * (self.levels - 1)
        is_inside = (value >= self.low) & (value <= 1)
        return is_inside & ((index - index.round()).abs() < ON_LEVEL)


class Discretized(Distribution):
    """A density on the line, of which each level gets the mass that is nearest to it.

    The first level gets all mass to its left and the last all to its right, so the probabilities
    sum to 1. A subclass says with `low` where the levels begin, and gives `log_masses`. Mean,
    variance and entropy are sums over the levels; draws are made from their probabilities. Each
    needs as many numbers as there are levels, for each pixel.

    Parameters
    ----------
    loc : Tensor
        Any shape, in units of x; it may lie beyond the levels.
    scale : Tensor or float
        Positive, of a shape that broadcasts.
    levels : int
        2 or more, from `low` to 1.
    validate_args : bool, optional
        As in `torch.distributions`: whether values that are not levels are refused.

    Raises
    ------
    ValueError
        If `levels` is not a whole number from 2.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    has_enumerate_support = True
    low = 0.0

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor | float,
        levels: int = LEVELS,
        validate_args: bool | None = None,
    ) -> None:
        check_levels(levels)
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The levels."""
        return _Levels(self.levels, self.low)

    def log_masses(self, value: Tensor, half: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logarithms of the masses below, about and above each value.

        Below ``value + half``, between ``value - half`` and ``value + half``, and above
        ``value - half``.
        """
        raise NotImplementedError

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of each level, in nats; other values are refused."""
        if self._validate_args:
            _check_on_levels(value, self.levels, self.low, "value")
        half = self._half
        below, about, above = self.log_masses(value, half)
        is_first, is_last = value < self.low + half, value > 1 - half
        return torch.where(is_first, below, torch.where(is_last, above, about))

    @property
    def _half(self) -> float:
        return (1 - self.low) / 2 / (self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """The mean over the levels."""
        return (self._probabilities() * self.enumerate_support(expand=False)).sum(0)

    @property
    def variance(self) -> Tensor:
        """The variance over the levels."""
        apart = self.enumerate_support(expand=False) - self.mean
        return (self._probabilities() * apart.square()).sum(0)

    def entropy(self) -> Tensor:
        """Return the entropy, in nats."""
        return torch.special.entr(self._probabilities()).sum(0)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probability of all levels up to each level given."""
        if self._validate_args:
            _check_on_levels(value, self.levels, self.low, "value")
        below, _, _ = self.log_masses(value, self._half)
        return torch.where(value > 1 - self._half, 1.0, below.exp())

    def icdf(self, value: Tensor) -> Tensor:
        """Not offered: a quantile would be one of the levels, by convention."""
        raise NotImplementedError("icdf of levels; cdf, log_prob and sample are there")

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Not offered: a draw of a level has no gradient."""
        raise NotImplementedError("rsample of levels; sample is there")

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw levels."""
        shape = self._extended_shape(torch.Size(sample_shape))
        table = self._probabilities().reshape(self.levels, -1).T
        count = torch.Size(sample_shape).numel()
        index = torch.multinomial(table, count, replacement=True).T.reshape(shape)
        return self.enumerate_support(expand=False).flatten()[index]

    def expand(self, batch_shape: Any, _instance: Any = None) -> Discretized:
        """Return the distribution with a larger batch shape."""
        return type(self)(
            self.loc.expand(batch_shape),
            self.scale.expand(batch_shape),
            self.levels,
            self._validate_args,
        )

    def _probabilities(self) -> Tensor:
        """Return that of each level, shape ``(levels, *batch_shape)``."""
        return self.log_prob(self.enumerate_support()).exp()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all levels, shape ``(levels, *batch_shape)``, or with ones if not expanded."""
        index = torch.arange(self.levels, dtype=self.loc.dtype, device=self.loc.device)
        values = (1 - self.low) * index / (self.levels - 1) + self.low
        values = values.view(-1, *[1] * self.loc.ndim)
        return values.expand(-1, *self.batch_shape) if expand else values


class DiscretizedLogistic(Discretized):
    r"""A logistic density, of which each grey level gets the mass that is nearest to it.

    With :math:`F(v) = 1 / (1 + e^{-(v - \mu) / s})` and levels :math:`x = k / 255`,

    .. math:: P(x) = F\bigl(x + \tfrac1{510}\bigr) - F\bigl(x - \tfrac1{510}\bigr)

    except that the first level has all mass to its left and the last all to its right, so that the
    probabilities sum to 1 (Kingma et al., 2016; Salimans et al., 2017). The difference is taken as

    .. math:: \log\bigl(\sigma(b) - \sigma(a)\bigr) = \log \sigma(b) + \log \sigma(-a)
              + \log\bigl(1 - e^{-(b - a)}\bigr)

    where nothing cancels: far from the level the logarithm just goes on falling linearly.

    Its parameters are those of `Discretized`; `loc` is :math:`\mu` and `scale` is s.
    """

    def log_masses(self, value: Tensor, half: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logarithms of the masses below, about and above each value."""
        below = logsigmoid((value + half - self.loc) / self.scale)
        above = logsigmoid((self.loc - value + half) / self.scale)
        inside = torch.log(-torch.expm1(-2 * half / self.scale))
        return below, below + above + inside, above

    @property
    def mean(self) -> Tensor:
        """The mean, ``sum_k P(x >= k / 255) / 255``; it needs 255 numbers for each pixel."""
        edges = (self.enumerate_support(expand=False)[1:] - 0.5 / (self.levels - 1)).to(self.loc)
        return torch.sigmoid((self.loc - edges) / self.scale).sum(0) / (self.levels - 1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw levels: the logistic density's draws, rounded to the nearest level."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            drawn = self.loc + self.scale * torch.logit(u)
            # What lies beyond the ends belongs to the first and the last level by definition.
            return (drawn.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)


@register_kl(Discretized, Discretized)
def _kl_discretized(p: Discretized, q: Discretized) -> Tensor:
    if (p.levels, p.low) != (q.levels, q.low):
        raise NotImplementedError(
            f"KL between distributions on different levels: {p.levels} from {p.low:g}, and "
            f"{q.levels} from {q.low:g}"
        )
    levels = p.enumerate_support(expand=False)
    log_p, log_q = p.log_prob(levels), q.log_prob(levels)
    return torch.where(log_p == -math.inf, 0.0, log_p.exp() * (log_p - log_q)).sum(0)


def check_levels(levels: int) -> None:
    """Raise a ValueError if `levels` is not a whole number from 2."""
    if isinstance(levels, bool) or not isinstance(levels, int) or levels < 2:
        raise ValueError(f"levels = {levels!r}; accepted are ints from 2")

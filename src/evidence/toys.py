r"""The toys of the book: latent-variable models about which everything is known exactly.

================  ==============================  ==========================================
model             latent z                        evidence :math:`p_\theta(x)` by
================  ==============================  ==========================================
`CurvedToy`       one normal number               the trapezoidal rule on a grid of z
`LinearToy`       d normal numbers                a closed form (probabilistic PCA), any D, d
`DiscreteToy`     d bits                          enumeration of all :math:`2^d` states
================  ==============================  ==========================================

All work in float64, take their densities from `torch.distributions`, and are differentiable in
their parameters: give a parameter as a tensor that requires a gradient. Logarithms are natural, so
log densities are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

__all__ = [
    "CurvedToy",
    "DiscreteToy",
    "LinearToy",
    "all_bits",
    "random_discrete_toy",
    "random_linear_toy",
]

GRID_HALF_WIDTH = 12.0
GRID_POINTS = 4001
GRID_ACCURACY = 1e-9
"""Twice the step may change the log evidence by this much. The rule itself is then exact to
rounding: its error on a smooth, vanishing function falls faster than every power of the step."""
MOST_BITS = 20


class CurvedToy:
    r"""The one-dimensional toy: a normal number, bent by a polynomial, with noise.

    .. math:: z \sim \mathcal N(0, 1), \qquad x \mid z \sim \mathcal N(f(z), \sigma^2), \qquad
              f(z) = \theta_0 + \theta_1 z + \theta_2 z^2 + \dots

    With the default :math:`f(z) = z^2 + z/4 - 1` two values of z explain one x above about -0.8
    almost equally well, so the posterior is bimodal there, and has a single mode below. With
    two coefficients the model is linear and its evidence is
    :math:`\mathcal N(\theta_0, \theta_1^2 + \sigma^2)`.

    Parameters
    ----------
    theta : Tensor or sequence of float
        Coefficients, lowest power first, shape ``(k,)``; a tensor is float64.
    sigma : Tensor or float
        Standard deviation of the noise, positive, a scalar.

    Raises
    ------
    TypeError
        If a tensor is not float64.
    ValueError
        If a shape is not as above, a number is not finite, or `sigma` is not positive.
    """

    def __init__(
        self,
        theta: Tensor | Sequence[float] = (-1.0, 0.25, 1.0),
        sigma: Tensor | float = 0.5,
    ) -> None:
        self.theta = _parameter("theta", theta, ("k",))
        self.sigma = _positive("sigma", sigma)

    def mean(self, z: Tensor) -> Tensor:
        r"""Return :math:`f(z)`, elementwise, for z of any shape."""
        z = _float64("z", z)
        value = torch.zeros_like(z)
        for coefficient in self.theta.flip(0):
            value = value * z + coefficient
        return value

    def p_z(self) -> Normal:
        """Return the prior, a standard normal."""
        return Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))

    def p_x_given_z(self, z: Tensor) -> Normal:
        """Return the density of x for each z, of the shape of z."""
        return Normal(self.mean(z), self.sigma)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        r"""Return :math:`\log p_\theta(x, z)`, ``eq-joint``; x and z of shapes that broadcast."""
        return self.p_z().log_prob(_float64("z", z)) + self.p_x_given_z(z).log_prob(
            _float64("x", x)
        )

    def log_p_x(self, x: Tensor) -> Tensor:
        r"""Return the log evidence, ``eq-evidence``, by the trapezoidal rule.

        Differentiable in `theta`, `sigma` and `x`, and checked: where the grid of
        4,001 points on [-12, 12] does not settle the value to 1e-9, nothing is returned.

        Parameters
        ----------
        x : Tensor
            Any shape, float64.

        Returns
        -------
        Tensor
            The shape of x, in nats.

        Raises
        ------
        ValueError
            If the integrand is too narrow for the grid or has not vanished at its ends.
        """
        x = _float64("x", x)
        z = torch.linspace(-GRID_HALF_WIDTH, GRID_HALF_WIDTH, GRID_POINTS, dtype=torch.float64)
        log_joint = self.log_joint(x[..., None], z)
        step = 2 * GRID_HALF_WIDTH / (GRID_POINTS - 1)
        log_p_x = log_joint.logsumexp(-1) + math.log(step)
        with torch.no_grad():
            coarse = log_joint[..., ::2].logsumexp(-1) + math.log(2 * step)
            ends = torch.maximum(log_joint[..., 0], log_joint[..., -1])
            unsettled = ~((coarse - log_p_x).abs() <= GRID_ACCURACY)
            cut_off = ends - log_p_x > math.log(1e-13)
            if (unsettled | cut_off).any():
                worst = x[unsettled | cut_off].flatten()[0].item()
                raise ValueError(
                    f"x = {worst:g} with sigma = {self.sigma.item():g}: the integrand over z is "
                    f"{'cut off by' if cut_off.any() else 'too narrow for'} the grid of "
                    f"{GRID_POINTS} points on [-{GRID_HALF_WIDTH:g}, {GRID_HALF_WIDTH:g}]; "
                    "accepted are larger sigma, or x nearer to the values of f"
                )
        return log_p_x

    def log_posterior(self, z: Tensor, x: Tensor) -> Tensor:
        r"""Return :math:`\log p_\theta(z \mid x)`, ``def-posterior``; shapes that broadcast."""
        return self.log_joint(x, z) - self.log_p_x(x)

    def sample(self, num_samples: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw z from the prior and x given z; return ``(x, z)``, each ``(num_samples,)``."""
        z = torch.randn(num_samples, generator=generator, dtype=torch.float64)
        eps = torch.randn(num_samples, generator=generator, dtype=torch.float64)
        return self.mean(z) + self.sigma * eps, z


class LinearToy:
    r"""The linear toy: probabilistic PCA, exact for every D and d (Tipping and Bishop, 1999).

    .. math:: z \sim \mathcal N(0, I_d), \qquad x \mid z \sim \mathcal N(Wz + b, \sigma^2 I_D)

    Parameters
    ----------
    W : Tensor
        Shape ``(D, d)``, float64; D may be smaller than d.
    b : Tensor, optional
        Shape ``(D,)``, float64; 0 by default.
    sigma : Tensor or float
        Standard deviation of the noise, positive, a scalar.

    Raises
    ------
    TypeError
        If a tensor is not float64.
    ValueError
        If a shape is not as above, a number is not finite, or `sigma` is not positive.
    """

    def __init__(self, W: Tensor, b: Tensor | None = None, sigma: Tensor | float = 1.0) -> None:  # noqa: N803
        self.W = _parameter("W", W, ("D", "d"))
        self.D, self.d = self.W.shape
        self.b = (
            torch.zeros(self.D, dtype=torch.float64) if b is None else _parameter("b", b, (self.D,))
        )
        self.sigma = _positive("sigma", sigma)

    def mean(self, z: Tensor) -> Tensor:
        """Return ``W z + b`` for z of shape ``(..., d)``; shape ``(..., D)``."""
        return _last_axis("z", z, self.d) @ self.W.mT + self.b

    def p_z(self) -> Independent:
        """Return the prior over ``(d,)``, a standard normal."""
        return _standard_normal(self.d)

    def p_x_given_z(self, z: Tensor) -> Independent:
        """Return the density over ``(D,)`` for each z of ``(batch, d)``."""
        return Independent(Normal(self.mean(z), self.sigma), 1)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        r"""Return :math:`\log p_\theta(x, z)`, ``eq-joint``.

        Parameters
        ----------
        x, z : Tensor
            Shapes ``(..., D)`` and ``(..., d)``, float64; the leading shapes broadcast.

        Returns
        -------
        Tensor
            The leading shape, in nats.
        """
        x = _last_axis("x", x, self.D)
        return self.p_z().log_prob(_last_axis("z", z, self.d)) + self.p_x_given_z(z).log_prob(x)

    def p_x(self) -> LowRankMultivariateNormal:
        r"""Return the evidence as a density over ``(D,)``, ``eq-evidence-linear``.

        Its covariance :math:`WW^\top + \sigma^2 I` is never formed: the cost of one density is of
        order :math:`D d^2`, ``eq-evidence-low-rank``.
        """
        return LowRankMultivariateNormal(self.b, self.W, self.sigma.square().expand(self.D))

    def log_p_x(self, x: Tensor) -> Tensor:
        """Return the log evidence of x, shape ``(batch, D)``, in nats; shape ``(batch,)``."""
        return self.p_x().log_prob(_last_axis("x", x, self.D))

    def posterior(self, x: Tensor) -> MultivariateNormal:
        r"""Return the posterior over ``(d,)`` for each x of ``(batch, D)``.

        :math:`\mathcal N(M^{-1} W^\top (x - b), \sigma^2 M^{-1})` with
        :math:`M = W^\top W + \sigma^2 I_d`, ``eq-posterior-linear``.
        """
        x = _last_axis("x", x, self.D)
        M = self.W.mT @ self.W + self.sigma.square() * torch.eye(self.d, dtype=torch.float64)  # noqa: N806
        mu = torch.linalg.solve(M, self.W.mT @ (x - self.b)[..., None])[..., 0]
        return MultivariateNormal(mu, precision_matrix=M / self.sigma.square())

    def log_posterior(self, z: Tensor, x: Tensor) -> Tensor:
        r"""Return :math:`\log p_\theta(z \mid x)`; the leading shapes of z and x broadcast."""
        return self.posterior(x).log_prob(_last_axis("z", z, self.d))

    def sample(self, num_samples: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw z, then x; return ``(x, z)``, shapes ``(num_samples, D)``, ``(num_samples, d)``."""
        z = torch.randn(num_samples, self.d, generator=generator, dtype=torch.float64)
        eps = torch.randn(num_samples, self.D, generator=generator, dtype=torch.float64)
        return self.mean(z) + self.sigma * eps, z


class DiscreteToy:
    r"""The discrete toy: d independent bits z, and D bits x that are independent given z.

    .. math:: p(z) = \prod_j \pi_j^{z_j} (1 - \pi_j)^{1 - z_j}, \qquad
              p_\theta(x_i = 1 \mid z) = \frac{1}{1 + e^{-(Wz + b)_i}}

    Parameters
    ----------
    pi : Tensor
        Shape ``(d,)``, float64, each strictly between 0 and 1; d is 20 at most.
    W : Tensor
        Shape ``(D, d)``, float64: how many nats each bit of z adds to the log-odds of each x.
    b : Tensor
        Shape ``(D,)``, float64.

    Raises
    ------
    TypeError
        If a tensor is not float64.
    ValueError
        If a shape is not as above, a number is not finite or a probability is out of range.
    """

    def __init__(self, pi: Tensor, W: Tensor, b: Tensor) -> None:  # noqa: N803
        self.pi = _parameter("pi", pi, ("d",))
        self.d = len(self.pi)
        if not ((self.pi > 0) & (self.pi < 1)).all():
            raise ValueError(
                f"pi is {self.pi.tolist()}; numbers strictly between 0 and 1 are accepted"
            )
        if self.d > MOST_BITS:
            raise ValueError(
                f"pi has d = {self.d} bits, so 2^{self.d} states to enumerate; "
                f"{MOST_BITS} bits at most are accepted"
            )
        self.W = _parameter("W", W, ("D", self.d))
        self.D = len(self.W)
        self.b = _parameter("b", b, (self.D,))

    def states(self) -> Tensor:
        """Return all values of z, shape ``(2 ** d, d)``, in the order of binary counting."""
        return all_bits(self.d)

    def p_z(self) -> Independent:
        """Return the prior over ``(d,)``."""
        return Independent(Bernoulli(self.pi), 1)

    def p_x_given_z(self, z: Tensor) -> Independent:
        """Return the distribution over ``(D,)`` for each z of ``(batch, d)``."""
        logits = _bits("z", z, self.d) @ self.W.mT + self.b
        return Independent(Bernoulli(logits=logits), 1)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        r"""Return :math:`\log p_\theta(x, z)`; shapes ``(..., D)`` and ``(..., d)`` broadcast."""
        x = _bits("x", x, self.D)
        return self.p_z().log_prob(_bits("z", z, self.d)) + self.p_x_given_z(z).log_prob(x)

    def log_p_x(self, x: Tensor) -> Tensor:
        """Return the log evidence of x, ``(batch, D)``, by enumeration; shape ``(batch,)``."""
        x = _bits("x", x, self.D)
        return self.log_joint(x[..., None, :], self.states()).logsumexp(-1)

    def log_posterior(self, z: Tensor, x: Tensor) -> Tensor:
        r"""Return :math:`\log p_\theta(z \mid x)`; the leading shapes of z and x broadcast."""
        return self.log_joint(x, z) - self.log_p_x(x)

    def sample(self, num_samples: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw z, then x; return ``(x, z)``, shapes ``(num_samples, D)``, ``(num_samples, d)``."""
        z = _draw_bits(self.pi.detach().expand(num_samples, self.d), generator)
        x = _draw_bits(self.p_x_given_z(z).mean.detach(), generator)
        return x, z


def all_bits(num_bits: int) -> Tensor:
    """Return all rows of bits, float64, shape ``(2 ** num_bits, num_bits)``."""
    if not 1 <= num_bits <= MOST_BITS:
        raise ValueError(f"num_bits is {num_bits}; accepted are 1 to {MOST_BITS} bits")
    powers = 2 ** torch.arange(num_bits - 1, -1, -1)
    return (torch.arange(2**num_bits)[:, None] // powers % 2).double()


def random_linear_toy(D: int, d: int, *, sigma: float = 0.5, seed: int) -> LinearToy:  # noqa: N803
    r"""Return a linear toy with :math:`W, b` of independent standard normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(D, d, generator=generator, dtype=torch.float64)  # noqa: N806
    return LinearToy(W, torch.randn(D, generator=generator, dtype=torch.float64), sigma)


def random_discrete_toy(D: int, d: int, *, scale: float = 2.0, seed: int) -> DiscreteToy:  # noqa: N803
    """Return a discrete toy with priors in (0.2, 0.8) and normal weights of the given scale."""
    generator = torch.Generator().manual_seed(seed)
    pi = 0.2 + 0.6 * torch.rand(d, generator=generator, dtype=torch.float64)
    W = scale * torch.randn(D, d, generator=generator, dtype=torch.float64)  # noqa: N806
    return DiscreteToy(pi, W, torch.randn(D, generator=generator, dtype=torch.float64))


def _standard_normal(d: int) -> Independent:
    zeros = torch.zeros(d, dtype=torch.float64)
    return Independent(Normal(zeros, torch.ones_like(zeros)), 1)


def _draw_bits(probability: Tensor, generator: torch.Generator) -> Tensor:
    # torch.distributions draws from the global generator only.
    return torch.bernoulli(probability, generator=generator)


def _float64(name: str, value: Tensor) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != torch.float64:
        given = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} is of type {given}; a tensor of dtype torch.float64 is accepted")
    return value


def _last_axis(name: str, value: Tensor, size: int) -> Tensor:
    value = _float64(name, value)
    if value.ndim == 0 or value.shape[-1] != size:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; accepted is (batch, {size})")
    return value


def _bits(name: str, value: Tensor, size: int) -> Tensor:
    value = _last_axis(name, value, size)
    if not ((value == 0) | (value == 1)).all():
        raise ValueError(f"{name} holds values other than 0 and 1, which alone are accepted")
    return value


def _parameter(name: str, value: Tensor | Sequence[float], shape: tuple[int | str, ...]) -> Tensor:
    """Return a finite float64 parameter; a text in `shape` stands for any size from 1."""
    if not isinstance(value, Tensor):
        value = torch.tensor(value, dtype=torch.float64)
    value = _float64(name, value)
    fits = value.ndim == len(shape) and all(
        size >= 1 and (isinstance(wanted, str) or size == wanted)
        for size, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        accepted = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{name} has shape {tuple(value.shape)}; accepted is {accepted}")
    if not value.isfinite().all():
        raise ValueError(f"{name} has values that are not finite; finite numbers are accepted")
    return value


def _positive(name: str, value: Tensor | float) -> Tensor:
    value = _parameter(name, value, ())
    if value <= 0:
        raise ValueError(f"{name} is {value.item():g}; a number above 0 is accepted")
    return value

r"""Estimates of the evidence :math:`\log p_\theta(x)` of a model that is given: two of them.

`importance_sampled`
    The logarithm of a mean of weights :math:`p_\theta(x, z) / q(z \mid x)`.
`annealed`
    The same with weights that are collected on a path of distributions from q to the posterior
    (Neal, 2001), which needs no q that is near the posterior.

A model is anything with a method ``log_joint(x, z)``; `evidence.models.VAE` and the toys have it.
It takes x of shape ``(n, ...)`` and z of shape ``(K, n, ...)``, and returns ``(K, n)``. A
distribution over z for n data has batch shape ``(n,)``; a further axis, as that of `VAE.q_z`, is
taken for independent latents.

Both estimates of p(x) are unbiased. Their logarithms therefore are bounds in expectation: too low
on average, by about half the squared standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from evidence.estimators import drawing_from
from evidence.precision import as_double, double_device

__all__ = ["AnnealedEvidence", "LogEvidence", "Model", "annealed", "importance_sampled"]

DRAWS_AT_ONCE = 2048
TARGET_ACCEPTANCE = 0.65
"""Where Hamiltonian Monte Carlo moves farthest for its cost (Beskos et al., 2013)."""
ADAPTATION_RATE = 0.2
FIRST_STEP_SIZE = 0.5
PILOT_CHAINS = 4
PATH_SHARPNESS = 4.0


class Model(Protocol):
    """What is asked of a model."""

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x, z)."""


Proposal = Distribution | Callable[[Tensor], Distribution]


@dataclass(frozen=True)
class LogEvidence:
    r"""Estimates of log p(x), one for each x, in nats.

    Attributes
    ----------
    log_p_x : Tensor
        The estimates :math:`\log \hat p, \; \hat p = \frac1K \sum_k w_k`, shape ``(n,)``, float64.
    standard_error : Tensor
        Of each, by the delta method: the standard error of :math:`\hat p` over :math:`\hat p`,

        .. math:: \sqrt{\frac{1}{K - 1} \left( \frac{K \sum_k w_k^2}{(\sum_k w_k)^2} - 1 \right)}

        NaN with one draw. It is itself an estimate, too small where the few large weights that
        matter have not been met: mistrust it where the effective sample size is below about 10.
    effective_sample_size : Tensor
        :math:`(\sum_k w_k)^2 / \sum_k w_k^2`, from 1 to K.
    elbo : Tensor
        The mean of the K log weights: with weights from q, an estimate of the ELBO of q.
    elbo_standard_error : Tensor
        Of the mean of the log weights. NaN with one draw.
    num_samples : int
        K.
    """

    log_p_x: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor
    elbo: Tensor
    elbo_standard_error: Tensor
    num_samples: int

    @property
    def mean(self) -> float:
        """The mean of log p(x) over the data."""
        return self.log_p_x.mean().item()

    @property
    def mean_standard_error(self) -> float:
        """Standard error of `mean` from the draws of z alone, the data being given."""
        return self.standard_error.square().sum().sqrt().item() / len(self.standard_error)

    @property
    def mean_sampling_error(self) -> float:
        """Standard error of `mean` from the choice of the data; the noise of z is in it too.

        NaN with one datum, of which nothing can be said about others.
        """
        if len(self.log_p_x) < 2:
            return math.nan
        return self.log_p_x.std().item() / len(self.log_p_x) ** 0.5

    @property
    def bias(self) -> Tensor:
        """How much too low each `log_p_x` is on average, to second order: a negative number."""
        return -self.standard_error.square() / 2


@dataclass(frozen=True)
class AnnealedEvidence(LogEvidence):
    """What `annealed` returns: `LogEvidence` from K chains, and how the chains moved.

    Attributes
    ----------
    acceptance : Tensor
        Mean acceptance of the transitions for each x, ``(n,)``; NaN with a single temperature step.
    step_sizes : Tensor
        Those used, ``(num_temperatures - 1, n)``, in units of the standard deviation of the start.
    """

    acceptance: Tensor
    step_sizes: Tensor


@torch.no_grad()
def importance_sampled(
    model: Model,
    x: Tensor,
    *,
    num_samples: int,
    generator: torch.Generator,
    q_z: Proposal | None = None,
    draws_at_once: int = DRAWS_AT_ONCE,
) -> LogEvidence:
    r"""Estimate log p(x) by importance sampling, in memory that does not grow with K or n.

    .. math:: \log \frac1K \sum_{k=1}^K \frac{p_\theta(x, z_k)}{q(z_k \mid x)},
              \qquad z_k \sim q(z \mid x)

    The sums are kept relative to the largest weight so far, in float64.

    Parameters
    ----------
    model : Model
        See the module.
    x : Tensor
        Shape ``(n, ...)``.
    num_samples : int
        K, 1 or more; the literature on MNIST uses 5,000.
    generator : torch.Generator
        Of the draws.
    q_z : Distribution or callable, optional
        The proposal: for all x; or a function of some x, as the default ``model.q_z``.
    draws_at_once : int
        How many pairs of x and z are evaluated at a time. The draws depend on it. If a distribution
        is given for all x, at least one draw for each x is.

    Returns
    -------
    LogEvidence
        For each x.

    Raises
    ------
    ValueError
        If a number is out of range, the distribution or what the model returns has another shape,
        or a weight is NaN or infinite.
    """
    _check_count("num_samples", num_samples)
    _check_count("draws_at_once", draws_at_once)
    parts = []
    for x_part, q in _in_parts(model, x, q_z, draws_at_once, num_samples):
        weights = _RunningWeights()
        for count in _pieces(num_samples, draws_at_once // len(x_part)):
            z = draw(q, count, generator)
            weights.add(_log_joint(model, x_part, z) - log_density(q, z))
        parts.append(weights.figures())
    return LogEvidence(*(torch.cat(columns) for columns in zip(*parts, strict=True)), num_samples)


@torch.no_grad()
def annealed(
    model: Model,
    x: Tensor,
    *,
    num_temperatures: int,
    num_chains: int,
    generator: torch.Generator,
    start: Proposal | None = None,
    leapfrog_steps: int = 5,
    draws_at_once: int = DRAWS_AT_ONCE,
) -> AnnealedEvidence:
    r"""Estimate log p(x) by annealed importance sampling (Neal, 2001; Wu et al., 2017).

    A chain starts at a draw :math:`z_0` from a distribution :math:`q_0` and goes along

    .. math:: f_t(z) = q_0(z)^{1 - b_t} \, p_\theta(x, z)^{b_t},
              \qquad 0 = b_0 < b_1 < \dots < b_T = 1

    Between two weights it makes a transition that leaves :math:`f_t` as it is: Hamiltonian Monte
    Carlo with a Metropolis test. The weight of a chain is

    .. math:: w = \prod_{t=1}^T \frac{f_t(z_{t-1})}{f_{t-1}(z_{t-1})},
              \qquad \mathbb E[w] = p_\theta(x)

    however badly the chain mixes. With T = 1 this is importance sampling from :math:`q_0`.

    The step sizes are adapted by `PILOT_CHAINS` chains of their own, once for each x and t, and
    then held: a chain that adapted its own steps would leave nothing as it is, and its weights
    would not be unbiased.

    Parameters
    ----------
    model : Model
        See the module. Its log joint has a gradient in z.
    x : Tensor
        Shape ``(n, ...)``.
    num_temperatures : int
        T, 1 or more. The :math:`b_t` are spaced by a logistic curve, closer at both ends.
    num_chains : int
        K, 1 or more.
    generator : torch.Generator
        Of the draws.
    start : Distribution or callable, optional
        :math:`q_0`, as `q_z` of `importance_sampled`. Its standard deviations are the units of the
        steps. For the prior, give ``model.p_z()`` expanded to the batch shape of x.
    leapfrog_steps : int
        Of one transition, each with one gradient.
    draws_at_once : int
        How many chains are run at a time, over all x.

    Returns
    -------
    AnnealedEvidence
        For each x; K is the number of chains.

    Raises
    ------
    ValueError
        As `importance_sampled`.
    """
    for name, value in (
        ("num_temperatures", num_temperatures), ("num_chains", num_chains),
        ("leapfrog_steps", leapfrog_steps), ("draws_at_once", draws_at_once),
    ):  # fmt: skip
        _check_count(name, value)
    path = _path(num_temperatures)
    figures, acceptances, step_sizes = [], [], []
    for x_part, q in _in_parts(model, x, start, draws_at_once, num_chains):
        chains = _Chains(model, x_part, q, path, leapfrog_steps, generator)
        _, _, steps = chains.run(PILOT_CHAINS, None)
        weights, accepted = _RunningWeights(), []
        for count in _pieces(num_chains, draws_at_once // len(x_part)):
            log_w, acceptance, _ = chains.run(count, steps)
            weights.add(log_w)
            accepted.append(count * acceptance)
        figures.append(weights.figures())
        acceptances.append(torch.stack(accepted).sum(0) / num_chains)
        step_sizes.append(steps)
    return AnnealedEvidence(
        *(torch.cat(columns) for columns in zip(*figures, strict=True)),
        num_chains,
        acceptance=torch.cat(acceptances),
        step_sizes=torch.cat(step_sizes, dim=1),
    )


def draw(q: Distribution, num_samples: int, generator: torch.Generator) -> Tensor:
    """Draw from a distribution with a generator; shape ``(num_samples, *batch, *event)``."""
    if isinstance(q, Normal):
        shape = (num_samples, *q.loc.shape)
        eps = torch.randn(shape, generator=generator, dtype=q.loc.dtype, device=q.loc.device)
        return torch.addcmul(q.loc, q.scale, eps)
    with drawing_from(generator):
        return q.sample((num_samples,))


def log_density(q: Distribution, z: Tensor) -> Tensor:
    """Return log q(z), summed over independent latents: shape ``(K, n)`` for z ``(K, n, ...)``."""
    return _rows(q.log_prob(z)).sum(-1)


def encoder_of(model: Model) -> Callable[[Tensor], Distribution]:
    """Return ``model.q_z``, or raise a ValueError that says what to give in its place."""
    if not hasattr(model, "q_z"):
        raise ValueError(
            f"model of type {type(model).__name__} has no q_z; give a distribution over z, or "
            "a function that returns one"
        )
    return model.q_z


# What they share. ---------------------------------------------------------------------------------


class _RunningWeights:
    """Sums over the weights of K draws for n data, whose logarithms come in pieces."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, log_w: Tensor) -> None:
        """Take the log weights ``(some, n)``."""
        log_w = as_double(log_w)
        if (log_w.isnan() | (log_w == math.inf)).any():
            raise ValueError(
                "model gives a log weight that is NaN or infinite; accepted are numbers, and minus "
                "infinity where x is impossible"
            )
        if self.count == 0:
            zeros = torch.zeros_like(log_w[0])
            self.top, self.first, self.second = zeros - math.inf, zeros, zeros
            self.mean, self.squares = zeros, zeros
        top = torch.maximum(self.top, log_w.amax(0))
        origin = torch.where(top == -math.inf, 0.0, top)
        shrink = torch.exp(self.top - origin)
        w = torch.exp(log_w - origin)
        self.first = self.first * shrink + w.sum(0)
        self.second = self.second * shrink.square() + w.square().sum(0)
        self.top = top
        # Mean and squared deviations of the log weights, by Chan's rule for joining two samples. A
        # weight of zero makes the mean minus infinity, whichever comes first, and then no spread.
        count, mean = len(log_w), log_w.mean(0)
        total, apart = self.count + count, mean - self.mean
        self.squares = (
            self.squares
            + (log_w - mean).square().sum(0)
            + apart.square() * self.count * count / total
        )
        self.mean = (self.mean * self.count + mean * count) / total
        self.count = total

    def figures(self) -> tuple[Tensor, ...]:
        """Return log p(x), its standard error, the effective sample size, the mean and its error.

        In the order of the attributes of `LogEvidence`.
        """
        share = self.second / self.first.square()
        # At least 0 by Cauchy and Schwarz, but for rounding, when all weights are equal.
        spread = torch.clamp(self.count * share - 1, min=0)
        divisor = self.count - 1 if self.count > 1 else math.nan
        return (
            self.top + self.first.log() - math.log(self.count),
            (spread / divisor).sqrt(),
            1 / share,
            self.mean,
            (self.squares / (divisor * self.count)).sqrt(),
        )


class _Chains:
    """Chains of `annealed` for some x."""

    def __init__(
        self,
        model: Model,
        x: Tensor,
        start: Distribution,
        path: list[float],
        leapfrog_steps: int,
        generator: torch.Generator,
    ) -> None:
        self.model, self.x, self.start, self.path = model, x, start, path
        self.leapfrog_steps, self.generator = leapfrog_steps, generator
        self.unit = start.stddev

    def run(self, count: int, steps: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Run some chains along the path.

        Parameters
        ----------
        count : int
            How many for each x.
        steps : Tensor or None
            The step sizes ``(T - 1, n)``; None to adapt them on the way.

        Returns
        -------
        log_w : Tensor
            ``(count, n)``.
        acceptance : Tensor
            The mean over chains and transitions, ``(n,)``.
        steps : Tensor
            The step sizes used.
        """
        z = draw(self.start, count, self.generator)
        log_step = torch.full((len(self.x),), math.log(FIRST_STEP_SIZE), dtype=z.dtype).to(z.device)
        log_w = torch.zeros(z.shape[:2], dtype=torch.float64, device=double_device(z.device))
        used, accepted = [], []
        for t, (here, there) in enumerate(zip(self.path[:-1], self.path[1:], strict=True)):
            log_ratio = _log_joint(self.model, self.x, z) - log_density(self.start, z)
            log_w += (there - here) * as_double(log_ratio)
            if there == 1:
                break
            step = log_step.exp() if steps is None else steps[t]
            z, acceptance = self._transition(z, there, step)
            used.append(step)
            accepted.append(acceptance)
            log_step = log_step + ADAPTATION_RATE * (acceptance - TARGET_ACCEPTANCE)
        if not used:
            return log_w, log_w.new_full(log_w.shape[1:], math.nan), log_w.new_zeros(0, len(self.x))
        return log_w, torch.stack(accepted).mean(0), torch.stack(used)

    def _transition(self, z: Tensor, b: float, step: Tensor) -> tuple[Tensor, Tensor]:
        """Make one transition at b; return the new z and the mean acceptance for each x."""
        momentum = torch.randn(z.shape, generator=self.generator, dtype=z.dtype, device=z.device)
        move = step.view(1, -1, *[1] * (z.ndim - 2)) * self.unit
        log_f, slope = self._log_f(z, b)
        before = log_f - _rows(momentum).square().sum(-1) / 2
        new = z
        for _ in range(self.leapfrog_steps):
            momentum = momentum + move / 2 * slope
            new = new + move * momentum
            log_f, slope = self._log_f(new, b)
            momentum = momentum + move / 2 * slope
        after = log_f - _rows(momentum).square().sum(-1) / 2
        # A step that left the finite numbers has an energy of NaN, and is rejected.
        chance = torch.exp(torch.clamp(after - before, max=0)).nan_to_num(nan=0.0)
        uniform = torch.rand(
            chance.shape, generator=self.generator, dtype=chance.dtype, device=chance.device
        )
        is_accepted = (uniform < chance).view(*chance.shape, *[1] * (z.ndim - 2))
        return torch.where(is_accepted, new, z), chance.mean(0)

    def _log_f(self, z: Tensor, b: float) -> tuple[Tensor, Tensor]:
        """Return the log of the bridging density, ``(count, n)``, and its gradient in z."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            log_f = b * _log_joint(self.model, self.x, z) + (1 - b) * log_density(self.start, z)
            (slope,) = torch.autograd.grad(log_f.sum(), z)
        return log_f.detach(), slope


def _path(num_temperatures: int) -> list[float]:
    """Return 0 = b_0 < ... < b_T = 1 on a logistic curve."""
    t = torch.linspace(-PATH_SHARPNESS, PATH_SHARPNESS, num_temperatures + 1, dtype=torch.float64)
    curve = torch.sigmoid(t)
    path = (curve - curve[0]) / (curve[-1] - curve[0])
    return [0.0, *path[1:-1].tolist(), 1.0]


def _in_parts(
    model: Model, x: Tensor, q_z: Proposal | None, draws_at_once: int, draws_each: int
) -> Iterable[tuple[Tensor, Distribution]]:
    """Return pairs of some x and the distribution over z for them."""
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"x has the shape {tuple(x.shape)}; accepted is (n, ...) with n >= 1")
    if isinstance(q_z, Distribution):
        return [(x, _checked(q_z, x))]
    if q_z is None:
        q_z = encoder_of(model)
    parts = x.split(max(1, draws_at_once // draws_each))
    return ((part, _checked(q_z(part), part)) for part in parts)


def _checked(q: Distribution, x: Tensor) -> Distribution:
    if not q.batch_shape or q.batch_shape[0] != len(x):
        raise ValueError(
            f"the distribution over z has the batch shape {tuple(q.batch_shape)}; accepted for "
            f"{len(x)} data is ({len(x)},), or ({len(x)}, d) for independent latents"
        )
    return q


def _pieces(total: int, most: int) -> list[int]:
    """Split a number into nearly equal parts of `most` at most, or of 1."""
    parts = math.ceil(total / max(1, most))
    return [total // parts + (i < total % parts) for i in range(parts)]


def _log_joint(model: Model, x: Tensor, z: Tensor) -> Tensor:
    log_joint = model.log_joint(x, z)
    # Checked because another shape would be broadcast against log q, and averaged all the same.
    if log_joint.shape != z.shape[:2]:
        raise ValueError(
            f"model.log_joint gives the shape {tuple(log_joint.shape)} for x of shape "
            f"{tuple(x.shape)} and z of shape {tuple(z.shape)}; accepted is {tuple(z.shape[:2])}"
        )
    return log_joint


def _rows(values: Tensor) -> Tensor:
    """Give values ``(K, n, ...)`` the shape ``(K, n, any)``."""
    return values.reshape(*values.shape[:2], -1)


def _check_count(name: str, value: int) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}; accepted are whole numbers from 1")

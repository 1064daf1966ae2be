r"""How fast the signal fades: noise schedules of a variance-preserving chain.

With :math:`\alpha_t = 1 - \beta_t` and :math:`\bar\alpha_t = \prod_{s \le t} \alpha_s`,

.. math:: x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon, \qquad
          \mathrm{SNR}_t = \frac{\bar\alpha_t}{1 - \bar\alpha_t}, \qquad
          \bar\alpha = \frac{1}{1 + e^{-\lambda}}, \quad \lambda = \ln \mathrm{SNR}

`Schedule` holds a chain of T steps. Its tensors are float64, have length T + 1 and are indexed by t
itself, so ``schedule.alpha_bar[t]`` is :math:`\bar\alpha_t`, and ``schedule.alpha_bar[0]`` is 1.

A schedule in continuous time is a function from :math:`\tau \in [0, 1]` to :math:`\lambda`,
falling from little noise at 0 to much at 1: `linear_log_snr`, `cosine_log_snr`, `LearnedLogSNR`.
`discretize` makes a chain of it, of which step 1 is at :math:`\tau = 0` and step T at
:math:`\tau = 1`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from evidence.diffusion.arguments import as_whole_number
from evidence.precision import double_device, like

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "LearnedLogSNR",
    "LogSNROfTime",
    "Schedule",
    "at_step",
    "cosine",
    "cosine_log_snr",
    "discretize",
    "from_log_snr",
    "linear",
    "linear_log_snr",
    "stratified_uniform",
    "with_slope",
]

LogSNROfTime = Callable[[Tensor], Tensor]
"""A schedule in continuous time: float64 times in [0, 1] to log-SNR, elementwise, falling."""

AGREEMENT = 1e-12
"""By how much a given log-SNR and a given alpha_bar may disagree."""


@dataclass(frozen=True, eq=False)
class Schedule:
    r"""A chain of T steps, told by :math:`\bar\alpha_t`.

    Parameters
    ----------
    alpha_bar : Tensor
        Shape ``(T + 1,)``, float64; 1 at t = 0, then strictly decreasing and positive.
    log_snr : Tensor, optional
        :math:`\ln \mathrm{SNR}_t`, shape ``(T + 1,)``, float64, infinite at t = 0. By default it
        is computed from `alpha_bar`, which in the first steps holds :math:`1 - \bar\alpha_t` only
        to an absolute 1e-16. A maker that knows it better gives it, and all other quantities are
        computed from it.

    Raises
    ------
    TypeError
        If a tensor is not float64.
    ValueError
        If `alpha_bar` is not as above; the first bad t is named. If `log_snr` contradicts it.
    """

    alpha_bar: Tensor
    log_snr: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        alpha_bar = self.alpha_bar
        if not isinstance(alpha_bar, Tensor) or alpha_bar.dtype != torch.float64:
            raise TypeError(f"alpha_bar is {_kind(alpha_bar)}; accepted is a float64 tensor")
        if alpha_bar.ndim != 1 or len(alpha_bar) < 2:
            raise ValueError(
                f"alpha_bar has shape {tuple(alpha_bar.shape)}; accepted is (T + 1,) with T >= 1"
            )
        if alpha_bar[0] != 1:
            raise ValueError(
                f"alpha_bar[0] = {alpha_bar[0].item()!r}; accepted is 1: at t = 0 there is no noise"
            )
        # Written so that nan is bad too.
        is_good = (alpha_bar[1:] > 0) & (alpha_bar[1:] < alpha_bar[:-1])
        if not is_good.all():
            t = 1 + int((~is_good).nonzero()[0])
            raise ValueError(
                f"alpha_bar[{t}] = {alpha_bar[t].item()!r} after alpha_bar[{t - 1}] = "
                f"{alpha_bar[t - 1].item()!r}; accepted are positive numbers that strictly decrease"
            )
        if self.log_snr is None:
            log_snr = torch.log(alpha_bar) - torch.log1p(-alpha_bar)
            object.__setattr__(self, "log_snr", log_snr)
            return
        log_snr = self.log_snr
        if not isinstance(log_snr, Tensor) or log_snr.dtype != torch.float64:
            raise TypeError(f"log_snr is {_kind(log_snr)}; accepted is a float64 tensor")
        if log_snr.shape != alpha_bar.shape:
            raise ValueError(
                f"log_snr has shape {tuple(log_snr.shape)}; accepted is that of alpha_bar, "
                f"{tuple(alpha_bar.shape)}"
            )
        is_good = (torch.sigmoid(log_snr) - alpha_bar).abs() <= AGREEMENT * alpha_bar
        is_good[0] &= log_snr[0] == math.inf
        is_good[1:] &= log_snr[1:] < log_snr[:-1]
        if not is_good.all():
            t = int((~is_good).nonzero()[0])
            raise ValueError(
                f"log_snr[{t}] = {log_snr[t].item()!r} where alpha_bar[{t}] = "
                f"{alpha_bar[t].item()!r}; accepted is the decreasing logarithm of "
                "alpha_bar / (1 - alpha_bar)"
            )

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.alpha_bar) - 1

    @cached_property
    def log_alpha_bar(self) -> Tensor:
        r""":math:`\ln \bar\alpha_t`; accurate where :math:`\bar\alpha_t` is nearly 1."""
        return logsigmoid(self.log_snr)

    @cached_property
    def sqrt_alpha_bar(self) -> Tensor:
        r""":math:`\sqrt{\bar\alpha_t}`: how much of :math:`x_0` is left."""
        return torch.exp(self.log_alpha_bar / 2)

    @cached_property
    def sigma(self) -> Tensor:
        r""":math:`\sqrt{1 - \bar\alpha_t}`: the standard deviation of the noise."""
        return torch.exp(logsigmoid(-self.log_snr) / 2)

    @cached_property
    def sigma_squared(self) -> Tensor:
        r""":math:`1 - \bar\alpha_t`, without the cancellation."""
        return torch.sigmoid(-self.log_snr)

    @cached_property
    def snr(self) -> Tensor:
        r""":math:`\mathrm{SNR}_t`; infinite at t = 0."""
        return torch.exp(self.log_snr)

    @cached_property
    def beta(self) -> Tensor:
        r""":math:`\beta_t`, the variance that step t adds; ``beta[0]`` is 0."""
        steps = -torch.expm1(self.log_alpha_bar.diff())
        return torch.cat([torch.zeros_like(steps[:1]), steps])

    @cached_property
    def alpha(self) -> Tensor:
        r""":math:`\alpha_t = 1 - \beta_t`; ``alpha[0]`` is 1."""
        return torch.cat([torch.ones_like(self.beta[:1]), torch.exp(self.log_alpha_bar.diff())])

    @cached_property
    def posterior_variance(self) -> Tensor:
        r""":math:`\tilde\beta_t = \beta_t (1 - \bar\alpha_{t-1}) / (1 - \bar\alpha_t)`.

        The variance of :math:`q(x_{t-1} \mid x_t, x_0)`: 0 at t = 1, and nan at t = 0, where
        there is nothing before.
        """
        values = self.beta[1:] * self.sigma_squared[:-1] / self.sigma_squared[1:]
        return torch.cat([torch.full_like(values[:1], math.nan), values])

    def respaced(self, steps: Sequence[int] | np.ndarray | Tensor) -> Schedule:
        r"""Return the chain that visits only these steps, and 0.

        Its :math:`\bar\alpha` are those of this chain, so a denoiser trained for this one serves.

        Parameters
        ----------
        steps : sequence of int
            From 1 to T, strictly increasing: a list, a range, an array or tensor of ints. New step
            i is the old step ``steps[i - 1]``.

        Raises
        ------
        TypeError
            If a step is not a whole number, or `steps` is no sequence.
        ValueError
            If there are none, or they are not as above; the first bad one is named.
        """
        try:
            given = list(steps)
        except TypeError:  # a number, or a tensor or array of one
            raise TypeError(f"steps is {steps!r}; accepted is a sequence of ints") from None
        if not given:
            raise ValueError("steps is empty; accepted is at least one step")
        steps = [as_whole_number(step) for step in given]
        before = 0
        for i, step in enumerate(steps):
            if step is None:
                raise TypeError(f"steps[{i}] is {given[i]!r}; accepted are ints")
            if not before < step <= self.num_steps:
                raise ValueError(
                    f"steps[{i}] = {step} after {before}; accepted are strictly increasing steps "
                    f"from 1 to {self.num_steps}"
                )
            before = step
        kept = torch.tensor([0, *steps])
        return Schedule(self.alpha_bar[kept], self.log_snr[kept])

    def check_steps(self, t: int | Tensor, *, first: int = 1, why: str = "") -> None:
        """Raise unless t is a step, or a step for each datum, from `first` to T.

        Raises
        ------
        TypeError
            If t is neither an int nor an int64 tensor.
        ValueError
            If a tensor is not of shape ``(batch,)``, or a step is outside.
        """
        if isinstance(t, Tensor):
            if t.dtype != torch.int64:
                raise TypeError(f"t is a tensor of {t.dtype}; accepted is torch.int64")
            if t.ndim != 1 or len(t) == 0:
                raise ValueError(f"t has shape {tuple(t.shape)}; accepted is (batch,) or an int")
            is_bad = (t < first) | (t > self.num_steps)
            bad = t[is_bad][0].item() if is_bad.any() else None
        elif as_whole_number(t) is None:
            raise TypeError(f"t is {t!r}; accepted are an int and an int64 tensor (batch,)")
        else:
            bad = None if first <= t <= self.num_steps else t
        if bad is not None:
            raise ValueError(
                f"t = {bad}; accepted are steps from {first} to {self.num_steps}"
                + (f": {why}" if why else "")
            )


def at_step(values: Tensor, t: int | Tensor, x: Tensor) -> Tensor:
    """Return ``values[t]``, shaped to multiply x and in its dtype.

    Parameters
    ----------
    values : Tensor
        Shape ``(T + 1,)``, one of a schedule's tensors.
    t : int or Tensor
        A step, or one for each datum, int64 of shape ``(batch,)``; see `Schedule.check_steps`.
    x : Tensor
        Shape ``(batch, ...)``, any event shape.

    Returns
    -------
    Tensor
        Shape ``()`` for an int, else ``(batch, 1, ..., 1)``.

    Raises
    ------
    ValueError
        If t has another batch than x.
    """
    if not isinstance(t, Tensor):
        return like(values[t], x)
    if x.ndim == 0 or len(t) != len(x):
        raise ValueError(
            f"t has shape {tuple(t.shape)} and x {tuple(x.shape)}; accepted is one step for each x"
        )
    return like(values[t.to(values.device)], x).reshape(-1, *[1] * (x.ndim - 1))


def linear(num_steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
    r"""Return the schedule of DDPM (Ho et al., 2020): :math:`\beta_t` rises linearly.

    Parameters
    ----------
    num_steps : int
        T, at least 1; with T = 1 the only step is `first`.
    first, last : float
        :math:`\beta_1` and :math:`\beta_T`, strictly between 0 and 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    num_steps = _whole_num_steps(num_steps, 1)
    for name, value in (("first", first), ("last", last)):
        if not 0 < value < 1:
            raise ValueError(f"{name} = {value!r}; accepted are numbers strictly between 0 and 1")
    return _from_beta(torch.linspace(first, last, num_steps, dtype=torch.float64))


def cosine(num_steps: int, offset: float = 0.008, largest_beta: float = 0.999) -> Schedule:
    r"""Return the schedule of improved DDPM (Nichol and Dhariwal, 2021).

    .. math:: \beta_t = \min\Bigl(1 - \frac{f(t)}{f(t - 1)},\ \beta_{\max}\Bigr), \qquad
              f(t) = \cos^2 \Bigl(\frac{t / T + s}{1 + s} \cdot \frac\pi2 \Bigr)

    Parameters
    ----------
    num_steps : int
        T, at least 1.
    offset : float
        s, not negative: keeps the first steps from being too small.
    largest_beta : float
        Strictly between 0 and 1. :math:`f(T) = 0`, so without it the last step would be 1 and
        nothing of :math:`x_0` would be left.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    num_steps = _whole_num_steps(num_steps, 1)
    if not (offset >= 0 and math.isfinite(offset)):
        raise ValueError(f"offset = {offset!r}; accepted are numbers that are not negative")
    if not 0 < largest_beta < 1:
        raise ValueError(
            f"largest_beta = {largest_beta!r}; accepted are numbers strictly between 0 and 1"
        )
    time = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    f = torch.cos((time + offset) / (1 + offset) * (math.pi / 2)).square()
    return _from_beta((1 - f[1:] / f[:-1]).clamp(max=largest_beta))


def from_log_snr(log_snr: Tensor) -> Schedule:
    r"""Return the schedule with these :math:`\ln \mathrm{SNR}_t`, :math:`t = 1, \dots, T`.

    Parameters
    ----------
    log_snr : Tensor
        Shape ``(T,)``, float64, finite and strictly decreasing; differentiable.

    Raises
    ------
    TypeError
        If it is not a float64 tensor.
    ValueError
        If it is not as above, or exceeds about 36, where float64 cannot tell
        :math:`\bar\alpha_t` from 1.
    """
    if not isinstance(log_snr, Tensor) or log_snr.dtype != torch.float64:
        raise TypeError(f"log_snr is {_kind(log_snr)}; accepted is a float64 tensor")
    if log_snr.ndim != 1 or len(log_snr) == 0:
        raise ValueError(f"log_snr has shape {tuple(log_snr.shape)}; accepted is (T,) with T >= 1")
    is_bad = ~log_snr.isfinite()
    is_bad[1:] |= log_snr[1:] >= log_snr[:-1]
    if is_bad.any():
        i = int(is_bad.nonzero()[0])
        raise ValueError(
            f"log_snr of t = {i + 1} is {log_snr[i].item()!r}; accepted are finite numbers that "
            "strictly decrease"
        )
    log_snr = torch.cat([torch.full_like(log_snr[:1], math.inf), log_snr])
    return Schedule(torch.sigmoid(log_snr), log_snr)


def linear_log_snr(highest: float = 10.0, lowest: float = -10.0) -> LogSNROfTime:
    r"""Return :math:`\lambda(\tau) = \lambda_{\max} + (\lambda_{\min} - \lambda_{\max}) \tau`.

    Raises
    ------
    ValueError
        Unless ``lowest < highest``, both finite.
    """
    _check_ends(highest, lowest)

    def log_snr(tau: Tensor) -> Tensor:
        # A weighted mean, so that both ends are exact.
        return (1 - tau) * highest + tau * lowest

    return log_snr


def cosine_log_snr(highest: float = 10.0, lowest: float = -10.0) -> LogSNROfTime:
    r"""Return the cosine schedule of continuous time, between two ends.

    .. math:: \lambda = -2 \ln \tan \theta, \qquad
              \theta(\tau) = \theta_0 + (\theta_1 - \theta_0) \tau, \qquad
              \theta_{0, 1} = \arctan e^{-\lambda_{\max, \min} / 2}

    so :math:`\sqrt{\bar\alpha} = \cos\theta`, and the point :math:`(\sqrt{\bar\alpha}, \sigma)`
    moves along the unit circle at constant speed.

    Raises
    ------
    ValueError
        Unless ``lowest < highest``, both finite.
    """
    _check_ends(highest, lowest)
    start, end = math.atan(math.exp(-highest / 2)), math.atan(math.exp(-lowest / 2))

    def log_snr(tau: Tensor) -> Tensor:
        return -2 * torch.log(torch.tan((1 - tau) * start + tau * end))

    return log_snr


def discretize(log_snr_of_time: LogSNROfTime, num_steps: int) -> Schedule:
    r"""Return the chain with :math:`\lambda_t = \lambda\bigl(\frac{t - 1}{T - 1}\bigr)`.

    Step 1 has the highest SNR and step T the lowest, whatever T is: chains of different length
    then have the same two ends, and differ only in how finely they go from one to the other.

    Parameters
    ----------
    log_snr_of_time : callable
        From float64 times of shape ``(T,)`` to log-SNR, strictly decreasing.
    num_steps : int
        T, at least 2.

    Raises
    ------
    TypeError, ValueError
        If `num_steps` is not as above, or the function's values are refused by `from_log_snr`.
    """
    num_steps = _whole_num_steps(num_steps, 2)
    tau = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    return from_log_snr(log_snr_of_time(tau))


class LearnedLogSNR(nn.Module):
    r"""A schedule that is learned: a monotone network of time (Kingma et al., 2021).

    .. math:: g(\tau) = a \tau + \sum_j c_j \, \sigma(b_j \tau + d_j), \quad a, b_j, c_j > 0,
              \qquad \lambda(\tau) = \lambda_{\max}
              - (\lambda_{\max} - \lambda_{\min}) \frac{g(\tau) - g(0)}{g(1) - g(0)}

    It falls strictly whatever its parameters are. Its ends are parameters as well: they are what
    the bound in continuous time depends on, the path between them is what its variance depends on.

    Parameters
    ----------
    highest, lowest : float
        Log-SNR at :math:`\tau = 0` and 1, at the start; finite, ``lowest < highest``.
    hidden : int
        Number of sigmoids, at least 1.
    learn_ends : bool
        Whether the two ends are learned too. They never cross.
    seed : int
        Of the first parameters.

    Raises
    ------
    ValueError
        If an argument is not as above.
    """

    def __init__(
        self,
        highest: float = 10.0,
        lowest: float = -10.0,
        *,
        hidden: int = 64,
        learn_ends: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_ends(highest, lowest)
        number = as_whole_number(hidden)
        if number is None or number < 1:
            raise ValueError(f"hidden = {hidden!r}; accepted are ints from 1")
        hidden = number
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.highest = nn.Parameter(torch.tensor(float(highest), dtype=torch.float64))
        self.log_span = nn.Parameter(torch.tensor(highest - lowest, dtype=torch.float64).log())
        self.highest.requires_grad_(learn_ends)
        self.log_span.requires_grad_(learn_ends)
        self.raw_slope = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.raw_in = nn.Parameter(normal(hidden))
        self.shift = nn.Parameter(normal(hidden))
        # Small at first, so that the path starts nearly straight.
        self.raw_out = nn.Parameter(normal(hidden) - 4 - math.log(hidden))

    def forward(self, tau: Tensor) -> Tensor:
        """Return the log-SNR at float64 times of any shape, in [0, 1]."""
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        start, end = self._rise(ends)
        share = (self._rise(tau) - start) / (end - start)
        return self.highest - torch.exp(self.log_span) * share

    def _rise(self, tau: Tensor) -> Tensor:
        inner = torch.sigmoid(softplus(self.raw_in) * tau[..., None] + self.shift)
        return softplus(self.raw_slope) * tau + (softplus(self.raw_out) * inner).sum(-1)

    def discretize(self, num_steps: int) -> Schedule:
        """Return the chain of this many steps; see `discretize`. Gradients flow through it."""
        return discretize(self, num_steps)


def stratified_uniform(
    num_samples: int,
    generator: torch.Generator,
    *,
    shape: tuple[int, ...] = (),
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Draw numbers from [0, 1), one in each of as many equal parts, in order.

    Each for itself would be uniform if the parts were mixed; a mean over them has less variance
    than one over independent numbers.

    Parameters
    ----------
    num_samples : int
        How many.
    generator : torch.Generator
        Of the draws.
    shape : tuple of int
        So many independent sets of them.
    dtype : torch.dtype, optional
        Of the numbers.

    Returns
    -------
    Tensor
        Shape ``(num_samples, *shape)``, on the device of the generator. Float64 of a device that
        has none is on the CPU, made of float32 draws.
    """
    device = generator.device
    if dtype == torch.float64 and double_device(device) != device:
        within = torch.rand(num_samples, *shape, generator=generator, device=device).cpu().double()
        parts = torch.arange(num_samples, dtype=dtype).view(-1, *[1] * len(shape))
        return (parts + within) / num_samples
    kind = {"device": device, "dtype": dtype}
    within = torch.rand(num_samples, *shape, generator=generator, **kind)
    parts = torch.arange(num_samples, **kind).view(-1, *[1] * len(shape))
    return (parts + within) / num_samples


def with_slope(log_snr_of_time: LogSNROfTime, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Return a schedule's log-SNR and its slope in time, on the CPU.

    Parameters
    ----------
    log_snr_of_time : callable
        Falling and differentiable; gradients of its parameters flow through both.
    tau : Tensor
        Times, shape ``(n,)``.

    Returns
    -------
    log_snr, slope : Tensor
        Shape ``(n,)`` each.

    Raises
    ------
    ValueError
        If it does not fall at one of the times.
    """
    tau = tau.detach().cpu()
    level = log_snr_of_time(tau)
    # A schedule that is learned gets its gradient through the slope too; a fixed one has no graph.
    is_learned = level.requires_grad
    with torch.enable_grad():
        tau = tau.requires_grad_()
        total = log_snr_of_time(tau).sum()
        (slope,) = torch.autograd.grad(total, tau, create_graph=is_learned)
    if (slope >= 0).any():
        raise ValueError(
            "log_snr_of_time has slope "
            f"{slope.max().item():g} at tau = {tau[slope.argmax()].item():g}; accepted are "
            "functions that fall"
        )
    return level, slope


def _from_beta(beta: Tensor) -> Schedule:
    log_alpha_bar = torch.log1p(-beta).cumsum(0)
    # ln abar - ln(1 - abar), the second logarithm without cancellation.
    log_snr = log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))
    return from_log_snr(log_snr)


def _whole_num_steps(num_steps: int, least: int) -> int:
    number = as_whole_number(num_steps)
    if number is None:
        raise TypeError(f"num_steps is {num_steps!r}; accepted are ints from {least}")
    if number < least:
        raise ValueError(f"num_steps = {num_steps}; accepted are ints from {least}")
    return number


def _check_ends(highest: float, lowest: float) -> None:
    if not (math.isfinite(highest) and math.isfinite(lowest) and lowest < highest):
        raise ValueError(
            f"highest = {highest!r}, lowest = {lowest!r}; accepted are finite numbers with "
            "lowest < highest"
        )


def _kind(value: object) -> str:
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"{value!r}"

r"""Ways from noise to data, for any denoiser, exact or trained; and the likelihood of one of them.

All samplers start at :math:`x_T` and end at :math:`x_0`. They differ in what they do with
:math:`\hat x_0` and :math:`\hat\varepsilon`, of which one gives the other:

====================  ==========================  ===================  ===========================
sampler               a step                      draws                error of T steps
====================  ==========================  ===================  ===========================
`ancestral`           p(x_{t-1} | x_t), Gaussian  at every t but 1     of order 1/T, in law
`ddim`, eta = 1       the same, other algebra     at every t but 1     the same
`ddim`, eta = 0       Euler in (y, r)             nothing              of order 1/T
`heun`                trapezium in (y, r)         nothing              of order 1/T^2
`probability_flow`    Runge-Kutta in log-SNR      nothing              held below a tolerance
====================  ==========================  ===================  ===========================

Here :math:`y = x/\sqrt{\bar\alpha}` and :math:`r = \sqrt{(1-\bar\alpha)/\bar\alpha}`, in which the
probability-flow ODE is :math:`dy/dr = \hat\varepsilon`.

**No digits are lost on the way.** Every step is
:math:`x_{t-1} = a_{t-1} \hat x_0 + d_t\, \hat\varepsilon + \varsigma_t \varepsilon`, where
:math:`a = \sqrt{\bar\alpha}`, with coefficients of 1 at most. Of a denoiser that predicts x_0 or v
both terms are combinations of its prediction and :math:`x_t` that stay bounded at every noise
level; of one that predicts eps :math:`\hat x_0` divides by :math:`a_t`, and a step is refused in a
dtype in which that leaves nothing: see `LOST`.

**The last step is not noisy.** From t = 1 all step samplers go to
:math:`\hat x_0 = (x_1 - \sqrt{1-\bar\alpha_1}\,\hat\varepsilon)/\sqrt{\bar\alpha_1}` and stop.
Noise added there would only be noise on the result.

**States are indexed by t.** With ``trajectory=True`` the answer has shape ``(T + 1, batch, ...)``
and ``states[t]`` is :math:`x_t`: the result is ``states[0]``, the start ``states[T]``.

A guided denoiser is a denoiser too: see `evidence.diffusion.guidance.Guided`.
"""

# x_T is the book's name for the end of the chain.
# ruff: noqa: N803

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from evidence.diffusion.arguments import as_whole_number
from evidence.diffusion.prediction import Denoiser, native
from evidence.diffusion.process import posterior_coefficients
from evidence.diffusion.schedule import Schedule
from evidence.precision import like, on_cpu

__all__ = [
    "FlowLikelihood",
    "ancestral",
    "ancestral_step",
    "ddim",
    "ddim_step",
    "heun",
    "ode_log_likelihood",
    "ode_velocity",
    "probability_flow",
]

REVERSE_VARIANCES = ("posterior", "beta")
LOST = 1 / 8
"""A step is refused if it would make more than this of what one rounding does to a state of size 1.

For an eps-network that goes to x_0 in one step: from log-SNRs below -7 in bfloat16, -11 in float16,
-29 in float32 and -69 in float64."""
NUMBERS_AT_ONCE = 2**18
"""Derivatives are taken for as many vectors together as have about this many elements."""

SOLVERS = ("RK45", "RK23", "DOP853", "LSODA", "Radau", "BDF")


# One step. -----------------------------------------------------------------------------------


def ancestral_step(
    x_t: Tensor,
    eps_hat: Tensor,
    schedule: Schedule,
    t: int,
    eps: Tensor,
    *,
    reverse_variance: str = "posterior",
) -> Tensor:
    r"""Return :math:`x_{t-1}` of the DDPM chain (arXiv 2006.11239, algorithm 2).

    .. math:: x_{t-1} = \frac1{\sqrt{\alpha_t}} \Big(x_t
        - \frac{\beta_t}{\sqrt{1-\bar\alpha_t}} \hat\varepsilon\Big) + s_t \varepsilon

    and at t = 1 without the last term.

    Parameters
    ----------
    x_t, eps_hat : Tensor
        The state and the denoiser's prediction of its noise, both ``(batch, ...)``.
    schedule : Schedule
        With T steps.
    t : int
        From 1 to T: where the state is, not where the step leads.
    eps : Tensor
        Standard normal noise, ``(batch, ...)``; not looked at if t = 1.
    reverse_variance : {"posterior", "beta"}
        :math:`s_t^2`: the variance of :math:`q(x_{t-1}|x_t,x_0)`, right for data that are one
        point, or :math:`\beta_t`, right for data that are standard normal.

    Returns
    -------
    Tensor
        Shape ``(batch, ...)``.

    Raises
    ------
    ValueError
        If t is out of range, the variance has another name, or in the dtype of x_t this step has no
        digits left (see `LOST`).
    """
    _check_t(t, schedule)
    keep, of_eps_hat, noise = _ancestral_coefficients(schedule, reverse_variance)
    _check_digits(keep[t], t, schedule, x_t.dtype)
    mean = keep[t] * x_t + of_eps_hat[t] * eps_hat
    return mean if t == 1 else mean + noise[t] * eps


def ddim_step(
    x_t: Tensor,
    eps_hat: Tensor,
    schedule: Schedule,
    t: int,
    eps: Tensor | None = None,
    *,
    eta: float = 0.0,
) -> Tensor:
    r"""Return :math:`x_{t-1}` of DDIM (arXiv 2010.02502, equation 12).

    .. math:: x_{t-1} = \sqrt{\bar\alpha_{t-1}}\, \hat x_0
        + \sqrt{1 - \bar\alpha_{t-1} - \varsigma_t^2}\; \hat\varepsilon + \varsigma_t \varepsilon,
        \qquad \varsigma_t = \eta \sqrt{\tilde\beta_t}

    Parameters
    ----------
    x_t, eps_hat, schedule, t
        As in `ancestral_step`.
    eps : Tensor, optional
        Standard normal noise, ``(batch, ...)``; not looked at if eta = 0 or t = 1.
    eta : float
        0 takes an Euler step of the ODE, 1 the step of the DDPM chain with the posterior variance;
        what lies between, and a little above 1, is accepted too.

    Returns
    -------
    Tensor
        Shape ``(batch, ...)``.

    Raises
    ------
    ValueError
        If t is out of range, if eta is negative or so large that the second root has no real
        value, if noise is needed and not given, or if in the dtype of x_t this step has no digits
        left (see `LOST`).
    """
    _check_t(t, schedule)
    keep, of_eps_hat, noise = _ddim_coefficients(schedule, eta)
    _check_digits(keep[t], t, schedule, x_t.dtype)
    x_before = keep[t] * x_t + of_eps_hat[t] * eps_hat
    if noise[t] == 0:
        return x_before
    if eps is None:
        raise ValueError(f"eps is None; with eta = {eta:g} a step from t = {t} needs noise")
    return x_before + noise[t] * eps


# Whole chains. -------------------------------------------------------------------------------


@torch.no_grad()
def ancestral(
    denoiser: Denoiser,
    x_T: Tensor | Sequence[int],
    schedule: Schedule,
    generator: torch.Generator,
    *,
    reverse_variance: str = "posterior",
    trajectory: bool = False,
) -> Tensor:
    """Sample the DDPM chain from x_T down to x_0, by `ancestral_step`.

    Parameters
    ----------
    denoiser : Denoiser
        Asked once a step, for what it predicts by itself
        (`evidence.diffusion.prediction.native`).
    x_T : Tensor or sequence of int
        The start, ``(batch, ...)``, of floating point; or a shape, and the start is drawn from
        N(0, I) in torch's default dtype.
    schedule : Schedule
        With T steps. A respaced one samples in fewer steps than the denoiser was trained with.
    generator : torch.Generator
        Of the start, if it is not given, and then of one draw a step but the last.
    reverse_variance : {"posterior", "beta"}
        See `ancestral_step`.
    trajectory : bool
        Return all states.

    Returns
    -------
    Tensor
        x_0, ``(batch, ...)``; with `trajectory` all states, ``(T + 1, batch, ...)``, indexed by t.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong kind, or a step of an eps-network would have
        no digits left in the dtype of x_T (see `LOST`).
    ArithmeticError
        If what comes out is not finite.
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is {generator!r}; accepted is a torch.Generator")
    coefficients = _ancestral_coefficients(schedule, reverse_variance, native(denoiser))
    start = x_T if isinstance(x_T, Tensor) else _noise_of_shape(x_T, generator)
    return _walk(denoiser, start, schedule, coefficients, generator, trajectory)


@torch.no_grad()
def ddim(
    denoiser: Denoiser,
    x_T: Tensor,
    schedule: Schedule,
    *,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    """Sample by DDIM from x_T down to x_0, by `ddim_step`.

    At eta = 1 it is `ancestral` with the posterior variance: from the same start and a generator
    in the same state the two return the same.

    Parameters
    ----------
    denoiser : Denoiser
        Asked once a step, for what it predicts by itself
        (`evidence.diffusion.prediction.native`).
    x_T : Tensor
        The start, ``(batch, ...)``, of floating point.
    schedule : Schedule
        With T steps; often `Schedule.respaced`.
    eta : float
        See `ddim_step`.
    generator : torch.Generator, optional
        Needed if eta > 0: one draw a step but the last.
    trajectory : bool
        Return all states.

    Returns
    -------
    Tensor
        x_0, ``(batch, ...)``; with `trajectory` all states, ``(T + 1, batch, ...)``, indexed by t.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong kind, if eta > 0 without a generator, or if a
        step of an eps-network would have no digits left in the dtype of x_T (see `LOST`).
    ArithmeticError
        If what comes out is not finite.
    """
    coefficients = _ddim_coefficients(schedule, eta, native(denoiser))
    if eta > 0 and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator is {generator!r}; with eta = {eta:g} accepted is a torch.Generator"
        )
    return _walk(denoiser, x_T, schedule, coefficients, generator, trajectory)


@torch.no_grad()
def heun(
    denoiser: Denoiser, x_T: Tensor, schedule: Schedule, *, trajectory: bool = False
) -> Tensor:
    r"""Integrate the probability-flow ODE from x_T to x_0 by Heun's rule.

    A step from :math:`r_t` to :math:`r_{t-1}` goes along the mean of the slope
    :math:`\hat\varepsilon` at its start and the slope at the place where Euler's step would end
    (arXiv 2206.00364, algorithm 1). The step from t = 1 is Euler's: at r = 0 there is no noise for
    a denoiser to predict. That costs one order in one step, and so none in the whole.

    Parameters
    ----------
    denoiser : Denoiser
        Asked 2 T - 1 times, for what it predicts by itself
        (`evidence.diffusion.prediction.native`).
    x_T : Tensor
        The start, ``(batch, ...)``, of floating point.
    schedule : Schedule
        With T steps.
    trajectory : bool
        Return all states.

    Returns
    -------
    Tensor
        x_0, ``(batch, ...)``; with `trajectory` all states, ``(T + 1, batch, ...)``, indexed by t.

    Raises
    ------
    ValueError, TypeError
        If an argument is of the wrong kind, or a step would have no digits left in the dtype of
        x_T (see `LOST`): Heun's rule multiplies differences between two noise levels by the ratio
        of their r, whatever the denoiser predicts.
    ArithmeticError
        If what comes out is not finite.
    """
    prediction = native(denoiser)
    keep, of_hat, _ = _ddim_coefficients(schedule, 0.0, prediction)
    _check_state("x_T", x_T)
    _check_chain(keep, prediction, schedule, x_T.dtype)
    log_snr = schedule.log_snr
    # The second slope moves Euler's step by this multiple of the change of x_0 hat from its start
    # to its end, as eps hat changes there by 1 / r times as much, the other way.
    gaps = torch.expm1((log_snr.roll(1) - log_snr) / 2)
    of_change = (schedule.sqrt_alpha_bar.roll(1) / 2 * gaps).tolist()
    a, sigma = schedule.sqrt_alpha_bar.tolist(), schedule.sigma.tolist()
    if prediction != "eps":
        for t in range(2, schedule.num_steps + 1):
            _check_digits(of_change[t], t, schedule, x_T.dtype, "Heun's rule for this step")

    def x_0_hat(x: Tensor, hat: Tensor, t: int) -> Tensor:
        return hat if prediction == "x_0" else a[t] * x - sigma[t] * hat

    x = x_T
    states = [x]
    for t in range(schedule.num_steps, 0, -1):
        hat = _ask(denoiser, x, log_snr[t], prediction)
        x_before = keep[t] * x + of_hat[t] * hat
        if t > 1:
            hat_there = _ask(denoiser, x_before, log_snr[t - 1], prediction)
            if prediction == "eps":
                x_before = keep[t] * x + of_hat[t] * (hat + hat_there) / 2
            else:
                change = x_0_hat(x_before, hat_there, t - 1) - x_0_hat(x, hat, t)
                x_before = x_before + of_change[t] * change
        x = x_before
        if trajectory:
            states.append(x)
    _check_result(x)
    return torch.stack(states[::-1]) if trajectory else x


# The ODE, to a tolerance. --------------------------------------------------------------------


def ode_velocity(denoiser: Denoiser, x: Tensor, log_snr: Tensor) -> Tensor:
    r"""Return the right side of the probability-flow ODE with the log-SNR for time.

    .. math:: \frac{dx}{d\lambda} = \frac\sigma2 (\sigma x - \hat\varepsilon)
        = \frac{\sigma^2}2 (x + s), \qquad \sigma^2 = 1 - \bar\alpha = \mathrm{sigmoid}(-\lambda)

    It is the ODE of `ddim` and `heun` (arXiv 2011.13456, equation 13), in a time in which the state
    stays of the size of the data. It is zero at standard normal data. From x_0 and v it is
    :math:`\frac a2 (\hat x_0 - a x)` and :math:`-\frac{a \sigma}2 \hat v`, with
    :math:`a = \sqrt{\bar\alpha}`.

    Parameters
    ----------
    denoiser : Denoiser
        Asked once, for what it predicts by itself (`evidence.diffusion.prediction.native`).
    x : Tensor
        The state, ``(batch, ...)``.
    log_snr : Tensor
        :math:`\lambda`, a scalar.

    Returns
    -------
    Tensor
        Shape ``(batch, ...)``.
    """
    prediction = native(denoiser)
    return _velocity(_ask(denoiser, x, log_snr, prediction), x, log_snr, prediction)


@torch.no_grad()
def probability_flow(
    denoiser: Denoiser,
    x: Tensor,
    log_snr: Sequence[float] | Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    method: str = "RK45",
    trajectory: bool = False,
) -> Tensor:
    """Carry states along the probability-flow ODE, with steps chosen to keep to a tolerance.

    ``log_snr=(-10, 10)`` makes data from noise, ``(10, -10)`` finds the noise of data. The end is a
    state at the last log-SNR named, not x_0: at 10 it holds noise of standard deviation 0.0067.
    ``denoiser.predict(x, log_snr, "x_0")`` takes the step that is left, as `ddim` does at t = 1.

    Parameters
    ----------
    denoiser : Denoiser
        Asked as often as the solver wants, in the dtype of x; the rest is float64.
    x : Tensor
        States at ``log_snr[0]``, ``(batch, ...)``, of floating point.
    log_snr : sequence of float, or Tensor
        Two or more, finite, all rising or all falling: where the states are, where they are wanted
        in between (see `trajectory`), and where they shall go.
    rtol, atol : float
        The tolerance of `scipy.integrate.solve_ivp`: the error that a step seems to make, over
        ``atol + rtol |x|``, is 1 at most as a root mean square over the whole batch, which is
        solved as one system. So a single state may be worse, and states depend on their batch
        to within the tolerance. A float32 network repays no tolerance below 1e-6.
    method : str
        One of scipy's: "RK45", "RK23", "DOP853", "LSODA", "Radau", "BDF".
    trajectory : bool
        Return the states at all of `log_snr`. Those within are read off the solver's interpolant.

    Returns
    -------
    Tensor
        Shape ``(batch, ...)``, of the dtype of x; with `trajectory` ``(len(log_snr), batch, ...)``.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong kind.
    ArithmeticError
        If the denoiser returns a value that is not finite, or the solver gives up.
    """
    _check_state("x", x)
    points = _check_points(log_snr)
    prediction = native(denoiser)

    def slope(time: float, flat: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(flat).reshape(x.shape)
        log_snr = torch.tensor(time, dtype=torch.float64)
        hat = _ask(denoiser, like(state, x), log_snr, prediction)
        return _flat(_velocity(on_cpu(hat), state, log_snr, prediction))

    states, _ = _solve(slope, _flat(x), points, rtol, atol, method)
    states = like(torch.from_numpy(states), x).reshape(len(points), *x.shape)
    return states if trajectory else states[-1].clone()


@dataclass(frozen=True)
class FlowLikelihood:
    """What `ode_log_likelihood` found, for a batch.

    Attributes
    ----------
    log_prob : Tensor
        ``(batch,)``, float64, nats: the sum of the next two.
    log_prior : Tensor
        ``(batch,)``: the log density of N(0, I) at the noisy end.
    log_volume : Tensor
        ``(batch,)``: the log determinant of the flow's derivative, by which the density at the
        start exceeds the one at the end.
    end : Tensor
        ``(batch, ...)``: the states at the noisy end.
    standard_error : Tensor or None
        ``(batch,)``: of log_prob, over the probes; None if the trace is exact.
    num_evaluations : int
        How often the denoiser was asked.
    """

    log_prob: Tensor
    log_prior: Tensor
    log_volume: Tensor
    end: Tensor
    standard_error: Tensor | None
    num_evaluations: int


def ode_log_likelihood(
    denoiser: Denoiser,
    x: Tensor,
    *,
    highest: float,
    lowest: float,
    trace: str = "exact",
    num_probes: int = 16,
    generator: torch.Generator | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    method: str = "RK45",
) -> FlowLikelihood:
    r"""Return the log density that the probability-flow ODE gives to states at the least noise.

    .. math:: \log p(x_{\lambda_1}) = \log N(x_{\lambda_0}; 0, I)
        + \int_{\lambda_1}^{\lambda_0} \nabla \cdot \frac{dx}{d\lambda}\, d\lambda

    with :math:`\lambda_1` the highest log-SNR, :math:`\lambda_0` the lowest (arXiv 1806.07366,
    2011.13456). Both ends are to be read for what they are:

    - The model is the one that *starts* from N(0, I) at the lowest log-SNR. If that is not low
      enough for the data to be forgotten, log_prior says so, and so does the result.
    - The density is that of :math:`x_{\lambda_1} = \sqrt{\bar\alpha} x_0 + \sigma\varepsilon`, data
      with a little noise, and not of :math:`x_0`, whose density need not exist. `x` should be
      drawn so, by `evidence.diffusion.process.diffuse`. Clean data may be given too; then they are
      judged by a density that is theirs to within that noise. In the units of x_0, of
      :math:`x/\sqrt{\bar\alpha}`, it is larger by :math:`\tfrac D2 \ln\bar\alpha`, which is
      next to nothing.

    It is the likelihood of the ODE, neither of the chain nor a bound on that.

    Parameters
    ----------
    denoiser : Denoiser
        Differentiable in x_t, and treating the entries of a batch apart.
    x : Tensor
        States at the highest log-SNR, ``(batch, ...)``, of floating point.
    highest, lowest : float
        The log-SNR at the two ends.
    trace : {"exact", "hutchinson"}
        The divergence by D derivatives an evaluation, or estimated by `num_probes` of them: a mean
        of :math:`v^\top J v` over vectors v of independent signs, the same all along the path.
    num_probes : int
        Of the estimate, 2 or more, so that it has a standard error.
    generator : torch.Generator, optional
        Of the signs; needed with ``trace="hutchinson"``.
    rtol, atol, method
        As in `probability_flow`; log_volume is part of the system.

    Returns
    -------
    FlowLikelihood
        Its log_prob in nats, one number a datum.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong kind.
    ArithmeticError
        If the denoiser returns a value that is not finite, or the solver gives up.
    """
    _check_state("x", x)
    points = _check_points((highest, lowest))
    if not highest > lowest:
        raise ValueError(f"highest is {highest!r}, lowest {lowest!r}; accepted is highest > lowest")
    batch, dim = len(x), math.prod(x.shape[1:])
    if trace == "exact":
        probes = like(torch.eye(dim), x).reshape(dim, 1, *x.shape[1:]).expand(dim, *x.shape)
    elif trace == "hutchinson":
        probes = _signs(x, num_probes, generator)
    else:
        raise ValueError(f"trace is {trace!r}; accepted are 'exact' and 'hutchinson'")
    # The exact trace is the sum over coordinates, so one number a datum is enough to carry.
    columns = 1 if trace == "exact" else num_probes

    def slope(time: float, flat: np.ndarray) -> np.ndarray:
        state = torch.from_numpy(flat[: x.numel()]).reshape(x.shape)
        log_snr = torch.tensor(time, dtype=torch.float64)
        products, velocity = _products(denoiser, state, like(state, x), log_snr, probes)
        rates = products.sum(0, keepdim=True) if trace == "exact" else products
        return np.concatenate([_flat(velocity), _flat(rates)])

    start = np.concatenate([_flat(x), np.zeros(columns * batch)])
    states, num_evaluations = _solve(slope, start, points, rtol, atol, method)
    end = torch.from_numpy(states[-1, : x.numel()]).reshape(x.shape)
    volumes = torch.from_numpy(states[-1, x.numel() :]).reshape(columns, batch)

    log_prior = -end.square().flatten(1).sum(1) / 2 - dim / 2 * math.log(2 * math.pi)
    log_volume = volumes.mean(0)
    return FlowLikelihood(
        log_prob=log_prior + log_volume,
        log_prior=log_prior,
        log_volume=log_volume,
        end=like(end, x),
        standard_error=None if trace == "exact" else volumes.std(0) / math.sqrt(columns),
        num_evaluations=num_evaluations,
    )


# Parts. --------------------------------------------------------------------------------------

Coefficients = tuple[list[float], list[float], list[float]]
"""Of x_t, of the prediction and of the noise, each indexed by t: what a step is made of."""


def _ancestral_coefficients(
    schedule: Schedule, reverse_variance: str, prediction: str = "eps"
) -> Coefficients:
    _check_schedule(schedule)
    if reverse_variance not in REVERSE_VARIANCES:
        raise ValueError(
            f"reverse_variance is {reverse_variance!r}; accepted are {', '.join(REVERSE_VARIANCES)}"
        )
    beta = schedule.beta
    variance = schedule.posterior_variance if reverse_variance == "posterior" else beta
    # The mean of q(x_{t-1} | x_t, x_0) at x_0 hat.
    of_x_0, of_x_t = posterior_coefficients(schedule)
    match prediction:
        case "x_0":
            keep, of_hat = of_x_t, of_x_0
        case "v":
            keep = of_x_t + of_x_0 * schedule.sqrt_alpha_bar
            of_hat = -of_x_0 * schedule.sigma
        case _:
            keep = 1 / schedule.alpha.sqrt()
            of_hat = -keep * beta / schedule.sigma
    return keep.tolist(), of_hat.tolist(), _silent_at_one(variance.sqrt())


def _ddim_coefficients(schedule: Schedule, eta: float, prediction: str = "eps") -> Coefficients:
    _check_schedule(schedule)
    if isinstance(eta, bool) or not isinstance(eta, Real) or not 0 <= eta < math.inf:
        raise ValueError(f"eta is {eta!r}; accepted is a finite number, 0 or more")
    variance = eta**2 * schedule.posterior_variance
    noise_before = schedule.sigma_squared.roll(1)
    # 1 - alpha_bar[t-1] - variance[t], as a sum that cannot cancel where eta is 1.
    kept = schedule.alpha * noise_before / schedule.sigma_squared
    direction = noise_before * (1 - eta**2 + eta**2 * kept)
    too_much = (direction[1:] < 0).nonzero()
    if len(too_much):
        t = too_much[0].item() + 1
        raise ValueError(
            f"eta is {eta!r}; at t = {t} its noise would have the variance {variance[t]:.3g}, and "
            f"accepted is up to 1 - alpha_bar[{t - 1}] = {noise_before[t]:.3g}"
        )
    # As Song et al. write it: so much of the predicted datum, and so much of the predicted noise.
    of_x_0, of_eps = schedule.sqrt_alpha_bar.roll(1), direction.sqrt()
    a, sigma = schedule.sqrt_alpha_bar, schedule.sigma
    match prediction:
        case "x_0":
            keep, of_hat = of_eps / sigma, of_x_0 - of_eps * torch.exp(schedule.log_snr / 2)
        case "v":
            keep, of_hat = of_x_0 * a + of_eps * sigma, of_eps * a - of_x_0 * sigma
        case _:
            keep, of_hat = of_x_0 / a, of_eps - of_x_0 * torch.exp(-schedule.log_snr / 2)
    return keep.tolist(), of_hat.tolist(), _silent_at_one(variance.sqrt())


def _silent_at_one(noise: Tensor) -> list[float]:
    """Return the noise of each step, that of the last step left out."""
    noise = noise.clone()
    noise[:2] = 0
    return noise.tolist()


def _walk(
    denoiser: Denoiser,
    x_T: Tensor,
    schedule: Schedule,
    coefficients: Coefficients,
    generator: torch.Generator | None,
    trajectory: bool,
) -> Tensor:
    _check_state("x_T", x_T)
    prediction = native(denoiser)
    keep, of_hat, noise = coefficients
    _check_chain(keep, prediction, schedule, x_T.dtype)
    log_snr = schedule.log_snr
    x = x_T
    states = [x]
    for t in range(schedule.num_steps, 0, -1):
        x = keep[t] * x + of_hat[t] * _ask(denoiser, x, log_snr[t], prediction)
        if noise[t] > 0:
            eps = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + noise[t] * eps
        if trajectory:
            states.append(x)
    _check_result(x)
    return torch.stack(states[::-1]) if trajectory else x


def _ask(denoiser: Denoiser, x: Tensor, log_snr: Tensor, prediction: str) -> Tensor:
    hat = denoiser.predict(x, log_snr, wanted=prediction)
    if hat.shape != x.shape:
        raise ValueError(
            f"denoiser returned shape {tuple(hat.shape)} for states of shape "
            f"{tuple(x.shape)}; accepted is the same shape"
        )
    return hat


def _velocity(hat: Tensor, x: Tensor, log_snr: Tensor, prediction: str) -> Tensor:
    """Return the ODE's right side, which is linear in the prediction and x together."""
    level = on_cpu(log_snr)
    a, sigma = torch.sigmoid(level).sqrt().item(), torch.sigmoid(-level).sqrt().item()
    match prediction:
        case "x_0":
            return a / 2 * (hat - a * x)
        case "v":
            return -a * sigma / 2 * hat
        case _:
            return sigma / 2 * (sigma * x - hat)


def _products(
    denoiser: Denoiser, state: Tensor, x: Tensor, log_snr: Tensor, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """Return v^T J v for each probe v, ``(probes, batch)``, and the velocity, both in float64.

    `state` is float64, and x the same as the denoiser is to see it.
    """
    prediction = native(denoiser)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        hat = _ask(denoiser, x, log_snr, prediction)
        products = []
        for part in probes.split(max(1, NUMBERS_AT_ONCE // x.numel())):
            if len(part) > 1:
                (rows,) = torch.autograd.grad(
                    hat, x, part, retain_graph=True, is_grads_batched=True
                )
            else:
                (row,) = torch.autograd.grad(hat, x, part[0], retain_graph=True)
                rows = row[None]
            # As the velocity is linear, its derivative along v is made as it is.
            part = on_cpu(part)
            rows = _velocity(on_cpu(rows), part, log_snr, prediction)
            products.append((rows * part).flatten(2).sum(2))
    return torch.cat(products), _velocity(on_cpu(hat.detach()), state, log_snr, prediction)


def _signs(x: Tensor, num_probes: int, generator: torch.Generator | None) -> Tensor:
    number = as_whole_number(num_probes)
    if number is None or number < 2:
        raise ValueError(f"num_probes is {num_probes!r}; accepted is a whole number, 2 or more")
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator is {generator!r}; with trace = 'hutchinson' accepted is a torch.Generator"
        )
    bits = torch.randint(0, 2, (num_probes, *x.shape), generator=generator, device=x.device)
    return (2 * bits - 1).to(x.dtype)


def _solve(
    slope: Callable[[float, np.ndarray], np.ndarray],
    start: np.ndarray,
    points: list[float],
    rtol: float,
    atol: float,
    method: str,
) -> tuple[np.ndarray, int]:
    """Return the states at all points, ``(points, size)``, and the number of evaluations."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        # Below this scipy would put a tolerance of its own in place of the one given.
        if isinstance(value, bool) or not isinstance(value, Real) or not 1e-13 <= value < math.inf:
            raise ValueError(f"{name} is {value!r}; accepted is a finite number, 1e-13 or more")
    if method not in SOLVERS:
        raise ValueError(f"method is {method!r}; accepted are {', '.join(SOLVERS)}")

    def finite_slope(time: float, state: np.ndarray) -> np.ndarray:
        value = slope(time, state)
        if not np.isfinite(value).all():
            raise ArithmeticError(
                f"the ODE's right side is not finite at log_snr = {time:g}: the denoiser returned "
                "a value, or has a derivative, that is not"
            )
        return value

    # Imported only here: it takes a second, which whoever solves no ODE need not wait.
    from scipy.integrate import solve_ivp

    solution = solve_ivp(
        finite_slope,
        (points[0], points[-1]),
        start,
        method=method,
        t_eval=points,
        rtol=rtol,
        atol=atol,
    )
    if solution.status != 0:
        raise ArithmeticError(
            f"the solver gave up on the way from log_snr = {points[0]:g} to {points[-1]:g}, after "
            f"{solution.nfev} evaluations: {solution.message}"
        )
    return np.ascontiguousarray(solution.y.T), solution.nfev


def _flat(x: Tensor) -> np.ndarray:
    return on_cpu(x.detach()).reshape(-1).numpy()


def _noise_of_shape(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    try:
        sizes = tuple(shape)
    except TypeError:
        sizes = ()
    numbers = [as_whole_number(size) for size in sizes]
    if not sizes or any(number is None or number < 1 for number in numbers):
        raise TypeError(
            f"x_T is {shape!r}; accepted are a tensor (batch, ...) and a shape of positive ints"
        )
    return torch.randn(numbers, generator=generator, device=generator.device)


def _check_state(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a {type(x).__name__}; accepted is a Tensor (batch, ...)")
    if not x.is_floating_point():
        raise TypeError(f"{name} has dtype {x.dtype}; accepted is floating point")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}; accepted is (batch, ...) with one entry at least"
        )
    if not x.isfinite().all():
        raise ValueError(f"{name} has entries that are not finite; accepted are finite ones")


def _check_chain(
    keep: list[float], prediction: str, schedule: Schedule, dtype: torch.dtype
) -> None:
    """Raise unless every step of an eps-network has digits left; of others all have."""
    if prediction == "eps":
        for t in range(1, schedule.num_steps + 1):
            _check_digits(keep[t], t, schedule, dtype)


def _check_digits(
    factor: float,
    t: int,
    schedule: Schedule,
    dtype: torch.dtype,
    what: str = "the step from the predicted eps",
) -> None:
    if not dtype.is_floating_point:
        raise TypeError(f"x_t: expected floating point, got {dtype}")
    accepted = 2 * LOST / torch.finfo(dtype).eps
    if abs(factor) <= accepted:
        return
    where, there = schedule.log_snr[t].item(), schedule.log_snr[t - 1].item()
    advice = "a denoiser that predicts x_0 or v" if "eps" in what else "ddim"
    raise ValueError(
        f"schedule: expected steps that {dtype}, the dtype of the states, has the digits for, got "
        f"one from t = {t} at log-SNR {where:.4g} to {there:.4g}, where {what} multiplies rounding "
        f"by {factor:.3g}; accepted is up to {accepted:.3g}. Take smaller steps, a higher lowest "
        f"log-SNR, a dtype with more digits, or {advice}"
    )


def _check_result(x: Tensor) -> None:
    if not x.isfinite().all():
        raise ArithmeticError(
            f"x_0: expected finite numbers, got {int((~x.isfinite()).sum())} that are not: the "
            f"denoiser returned some, or a state left the range of {x.dtype}"
        )


def _check_schedule(schedule: Schedule) -> None:
    if not isinstance(schedule, Schedule):
        raise TypeError(f"schedule is a {type(schedule).__name__}; accepted is a Schedule")


def _check_t(t: int, schedule: Schedule) -> None:
    _check_schedule(schedule)
    if isinstance(t, Tensor):
        raise TypeError("t is a tensor; accepted is an int, the same for all")
    schedule.check_steps(t)


def _check_points(log_snr: Sequence[float] | Tensor) -> list[float]:
    points = on_cpu(log_snr)
    if points.ndim != 1 or len(points) < 2 or not points.isfinite().all():
        raise ValueError(f"log_snr is {log_snr!r}; accepted are two or more finite numbers")
    gaps = points.diff()
    if not ((gaps > 0).all() or (gaps < 0).all()):
        raise ValueError(f"log_snr is {log_snr!r}; accepted are numbers all rising or all falling")
    return points.tolist()

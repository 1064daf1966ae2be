r"""The bound of a diffusion model, term by term, in nats.

The chain is a hierarchical latent-variable model whose encoder q is fixed. Its reverse steps are
:math:`p_\theta(x_{t-1} \mid x_t) = \mathcal N(\mu_\theta, s_t^2 I)`, where :math:`\mu_\theta` is
the mean of :math:`q(x_{t-1} \mid x_t, x_0)` with the prediction :math:`\hat x_0(x_t)` for
:math:`x_0`. The bound has three parts,

.. math:: -\mathrm{ELBO}(x_0) &= L_T + \sum_{t=2}^T L_{t-1} + L_0 \\
          L_T &= \mathrm{KL}\bigl(q(x_T \mid x_0) \,\|\, p(x_T)\bigr) \\
          L_{t-1} &= E_{q(x_t \mid x_0)} \mathrm{KL}\bigl(q(x_{t-1} \mid x_t, x_0)
          \,\|\, p_\theta(x_{t-1} \mid x_t)\bigr) \\
          L_0 &= E_{q(x_1 \mid x_0)} [-\log p_\theta(x_0 \mid x_1)]

`prior_term`, `step_term` and `reconstruction_term` are these, and `elbo` adds them up. All are sums
over the coordinates of a datum, accumulated in float64 (for data on a device that has none, on the
CPU): one number for each datum, shape ``(batch,)``. `step_term` and `reconstruction_term` return
what stands inside the expectation, for the noise that they are given; the mean over standard normal
noise is the term.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal
from torch.special import log_ndtr

from evidence.diffusion.arguments import as_whole_number, check_data
from evidence.diffusion.prediction import Denoiser, check_prediction, eps_error_for, native
from evidence.diffusion.process import diffuse
from evidence.diffusion.schedule import (
    LogSNROfTime,
    Schedule,
    at_step,
    from_log_snr,
    stratified_uniform,
    with_slope,
)
from evidence.pixels import Discretized, check_levels
from evidence.precision import as_double, double_device, like

__all__ = [
    "BoundTerms",
    "Decoder",
    "DiscretizedGaussian",
    "DiscretizedGaussianDecoder",
    "GaussianDecoder",
    "bits_per_dim",
    "continuous_elbo",
    "elbo",
    "prior_term",
    "reconstruction_term",
    "reverse_variances",
    "step_term",
    "step_weight",
]


@dataclass(frozen=True, eq=False)
class BoundTerms:
    r"""The three parts of :math:`-\mathrm{ELBO}`, each ``(batch,)``, float64, in nats.

    Parameters
    ----------
    prior : Tensor
        :math:`L_T`.
    steps : Tensor
        :math:`\sum_{t=2}^T L_{t-1}`, or the integral in its place.
    reconstruction : Tensor
        :math:`L_0`; of a density it may be negative.
    """

    prior: Tensor
    steps: Tensor
    reconstruction: Tensor

    @property
    def negative_elbo(self) -> Tensor:
        """The sum of the three, shape ``(batch,)``."""
        return self.prior + self.steps + self.reconstruction

    @property
    def elbo(self) -> Tensor:
        """The bound itself, at most the log-evidence in expectation, shape ``(batch,)``."""
        return -self.negative_elbo


def prior_term(x_0: Tensor, schedule: Schedule) -> Tensor:
    r"""Return :math:`L_T`, what is left of the datum in :math:`x_T`; exact.

    .. math:: L_T = \tfrac12 \sum_d \bigl[\bar\alpha_T x_{0,d}^2 - \bar\alpha_T
              - \ln(1 - \bar\alpha_T)\bigr]

    Parameters
    ----------
    x_0 : Tensor
        Shape ``(batch, ...)``.
    schedule : Schedule
        Of T steps.

    Returns
    -------
    Tensor
        Shape ``(batch,)``, float64, in nats; not negative.

    Raises
    ------
    ValueError
        If `x_0` has no event dimension.
    """
    _check_data(x_0)
    x_0 = as_double(x_0)
    alpha_bar = schedule.alpha_bar[-1].to(x_0.device)
    constant = -alpha_bar - torch.log1p(-alpha_bar)
    return 0.5 * _sum(alpha_bar * x_0.square() + constant)


def reverse_variances(schedule: Schedule, reverse_variance: str) -> Tensor:
    r"""Return :math:`s_t^2`, shape ``(T + 1,)``, nan at t = 0.

    Parameters
    ----------
    schedule : Schedule
        Of T steps.
    reverse_variance : str
        ``"posterior"`` for :math:`\tilde\beta_t`, which is right when :math:`x_0` is known, or
        ``"beta"`` for :math:`\beta_t`, which is right for data that are standard normal.

    Raises
    ------
    ValueError
        If `reverse_variance` is another name.
    """
    if reverse_variance == "posterior":
        return schedule.posterior_variance
    if reverse_variance == "beta":
        return torch.cat([schedule.posterior_variance[:1], schedule.beta[1:]])
    raise ValueError(
        f"reverse_variance = {reverse_variance!r}; accepted are 'posterior' and 'beta'"
    )


def step_term(
    denoiser: Denoiser,
    x_0: Tensor,
    schedule: Schedule,
    t: int | Tensor,
    eps: Tensor,
    *,
    reverse_variance: str = "posterior",
    label: Tensor | None = None,
) -> Tensor:
    r"""Return the KL divergence of step t, whose mean over `eps` is :math:`L_{t-1}`.

    .. math:: \mathrm{KL}\bigl(q(x_{t-1} \mid x_t, x_0) \,\|\, p_\theta(x_{t-1} \mid x_t)\bigr)
              = \frac{\beta_t^2}{2 s_t^2 \alpha_t (1 - \bar\alpha_t)}
              \lVert \varepsilon - \hat\varepsilon(x_t) \rVert^2
              + \frac D2 \Bigl[\ln \frac{s_t^2}{\tilde\beta_t} + \frac{\tilde\beta_t}{s_t^2} - 1
              \Bigr]

    Parameters
    ----------
    denoiser : Denoiser
        Asked at :math:`x_t` for what it predicts by itself
        (`evidence.diffusion.prediction.native`). For x_0 and v the error has another weight, that
        of `step_weight`, and the same value.
    x_0, eps : Tensor
        Data and standard normal noise, both of shape ``(batch, ...)``.
    schedule : Schedule
        Of T steps.
    t : int or Tensor
        From 2 to T; a tensor is int64 of shape ``(batch,)``.
    reverse_variance : str
        Which :math:`s_t^2`: see `reverse_variances`. With ``"posterior"`` the constant is 0.
    label : Tensor, optional
        For a conditional denoiser.

    Returns
    -------
    Tensor
        Shape ``(batch,)``, float64, in nats; not negative.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above. Step 1 has no such term: see `reconstruction_term`.
    """
    variance = reverse_variances(schedule, reverse_variance)
    schedule.check_steps(t, first=2, why="the term of step 1 is L_0, the reconstruction term")
    _check_data(x_0)
    t = t.cpu() if isinstance(t, Tensor) else t
    prediction = native(denoiser)
    error = _squared_error(denoiser, x_0, schedule, t, eps, label)
    # As a function of t alone, so it may be looked up before it is multiplied.
    ratio = schedule.posterior_variance / variance
    weight = _weights(schedule)[prediction] * ratio
    constant = 0.5 * (ratio - 1 - ratio.log())
    dim = x_0[0].numel()
    return weight[t].to(error) * error + dim * constant[t].to(error)


def step_weight(schedule: Schedule, t: int | Tensor, prediction: str) -> Tensor:
    r"""Return the weight of a squared error in :math:`L_{t-1}`, at :math:`s_t^2 = \tilde\beta_t`.

    ===========  ===================================================================
    prediction   weight
    ===========  ===================================================================
    ``"x_0"``    :math:`\frac12 (\mathrm{SNR}_{t-1} - \mathrm{SNR}_t)`
    ``"eps"``    :math:`\frac12 (\mathrm{SNR}_{t-1} / \mathrm{SNR}_t - 1)`
    ``"v"``      :math:`\frac12 (\mathrm{SNR}_{t-1} - \mathrm{SNR}_t) (1 - \bar\alpha_t)`
    ``"score"``  :math:`\frac12 (\mathrm{SNR}_{t-1} / \mathrm{SNR}_t - 1) (1 - \bar\alpha_t)`
    ===========  ===================================================================

    Parameters
    ----------
    schedule : Schedule
        Of T steps.
    t : int or Tensor
        From 2 to T; a tensor is int64 of shape ``(batch,)``.
    prediction : str
        Whose squared error, summed over coordinates, is to be weighted.

    Returns
    -------
    Tensor
        Shape ``()`` or ``(batch,)``, float64.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above. At t = 1 the weight would be infinite.
    """
    check_prediction("prediction", prediction)
    schedule.check_steps(t, first=2, why="the weight of step 1 is infinite, and its term is L_0")
    return _weights(schedule)[prediction][t]


class Decoder(Protocol):
    r"""What :math:`L_0` needs: a density of the datum given its prediction at step 1."""

    def distribution(self, x_0_hat: Tensor, schedule: Schedule) -> Distribution:
        r"""Return :math:`p_\theta(x_0 \mid x_1)`, of the shape of `x_0_hat`, float64."""
        ...


@dataclass(frozen=True)
class GaussianDecoder:
    r"""A normal density around :math:`\hat x_0(x_1)`, for data that are real numbers.

    Parameters
    ----------
    sigma : float, optional
        Its standard deviation, positive, in units of x. By default that of the noise of step 1,
        :math:`\sqrt{\beta_1}`.

    Raises
    ------
    ValueError
        If `sigma` is not positive and finite.
    """

    sigma: float | None = None

    def __post_init__(self) -> None:
        _check_sigma(self.sigma)

    def distribution(self, x_0_hat: Tensor, schedule: Schedule) -> Normal:
        r"""Return :math:`p_\theta(x_0 \mid x_1)`."""
        mu = as_double(x_0_hat)
        return Normal(mu, _decoder_sigma(self.sigma, schedule, mu))


@dataclass(frozen=True)
class DiscretizedGaussianDecoder:
    r"""Probabilities of grey levels, from a normal density around :math:`\hat x_0(x_1)`.

    The decoder of Ho et al. (2020): see `DiscretizedGaussian`.

    Parameters
    ----------
    levels : int
        How many, at least 2; they are evenly spaced from -1 to 1.
    sigma : float, optional
        Standard deviation of the density, positive, in units of x. By default
        :math:`\sqrt{\beta_1}`.

    Raises
    ------
    ValueError
        If an argument is not as above.
    """

    levels: int = 256
    sigma: float | None = None

    def __post_init__(self) -> None:
        check_levels(self.levels)
        _check_sigma(self.sigma)

    def check_data(self, x_0: Tensor) -> None:
        """Raise a ValueError if an element of the data is none of the levels."""
        wide = as_double(x_0)
        is_level = DiscretizedGaussian(wide, 1.0, self.levels).support.check(wide)
        if not is_level.all():
            others = wide[~is_level]
            bad = others[others.abs().argmax()].item()
            raise ValueError(
                f"x_0: expected {self.levels} levels from -1 to 1, as of k = 0 to "
                f"{self.levels - 1} by 2 k / {self.levels - 1} - 1, got {bad:g} among numbers from "
                f"{x_0.min().item():g} to {x_0.max().item():g}"
            )

    def distribution(self, x_0_hat: Tensor, schedule: Schedule) -> DiscretizedGaussian:
        r"""Return :math:`P_\theta(x_0 \mid x_1)`; it refuses data that are no levels."""
        mu = as_double(x_0_hat)
        return DiscretizedGaussian(mu, _decoder_sigma(self.sigma, schedule, mu), self.levels)


def reconstruction_term(
    denoiser: Denoiser,
    x_0: Tensor,
    schedule: Schedule,
    eps: Tensor,
    decoder: Decoder,
    *,
    label: Tensor | None = None,
) -> Tensor:
    r"""Return :math:`-\log p_\theta(x_0 \mid x_1)`, whose mean over `eps` is :math:`L_0`.

    Step 1 is not a KL divergence: :math:`q(x_0 \mid x_1, x_0)` is a point. The model needs a
    density of data of its own there, and what the bound is worth depends on it.

    Parameters
    ----------
    denoiser : Denoiser
        Asked for ``"x_0"`` at :math:`x_1`.
    x_0, eps : Tensor
        Data and standard normal noise, both of shape ``(batch, ...)``.
    schedule : Schedule
        Of T steps.
    decoder : Decoder
        `GaussianDecoder` or `DiscretizedGaussianDecoder`.
    label : Tensor, optional
        For a conditional denoiser.

    Returns
    -------
    Tensor
        Shape ``(batch,)``, float64, in nats.

    Raises
    ------
    ValueError
        If shapes do not fit, or the decoder refuses the data.
    """
    _check_data(x_0, decoder)
    x_1 = diffuse(x_0, eps, schedule, 1)
    x_0_hat = denoiser.predict(x_1, schedule.log_snr[1], "x_0", **_labelled(label))
    return -_sum(decoder.distribution(x_0_hat, schedule).log_prob(as_double(x_0)))


def elbo(
    denoiser: Denoiser,
    x_0: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    *,
    decoder: Decoder,
    num_times: int | None = None,
    reverse_variance: str = "posterior",
    label: Tensor | None = None,
) -> BoundTerms:
    r"""Return an unbiased estimate of the bound, in its three parts.

    The prior's part is exact. The others are for one draw of noise at each step that is visited;
    for a smaller error repeat the data.

    Parameters
    ----------
    denoiser : Denoiser
        The model.
    x_0 : Tensor
        Data, shape ``(batch, ...)``.
    schedule : Schedule
        Of T steps.
    generator : torch.Generator
        Where noise and steps are drawn from.
    decoder : Decoder
        `GaussianDecoder` or `DiscretizedGaussianDecoder`.
    num_times : int, optional
        At how many steps each datum is looked at, at least 1. They are stratified: steps 2 to T
        are cut into as many equal parts, and one is drawn in each. By default all T - 1 steps are
        visited and summed.
    reverse_variance : str
        See `reverse_variances`.
    label : Tensor, optional
        For a conditional denoiser.

    Returns
    -------
    BoundTerms
        Each part of shape ``(batch,)``, float64, in nats.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.
    """
    _check_data(x_0, decoder)
    num_times = _whole_num_times(num_times)
    # A chain of one step has no term to look up, but a wrong name is wrong there too.
    reverse_variances(schedule, reverse_variance)
    batch, num_terms = len(x_0), schedule.num_steps - 1
    steps = torch.zeros(batch, dtype=torch.float64, device=double_device(x_0.device))
    if num_times is None:
        visits: list[int | Tensor] = list(range(2, schedule.num_steps + 1))
        factor = 1.0
    elif num_terms == 0:
        visits, factor = [], 1.0
    else:
        place = stratified_uniform(num_times, generator, shape=(batch,), dtype=torch.float64)
        # The largest place below 1 may round up to the end when it is multiplied.
        visits = list(2 + (place * num_terms).long().clamp(max=num_terms - 1).cpu())
        factor = num_terms / num_times
    for t in visits:
        eps = _noise_like(x_0, generator)
        steps = steps + factor * step_term(
            denoiser, x_0, schedule, t, eps, reverse_variance=reverse_variance, label=label
        )
    eps = _noise_like(x_0, generator)
    return BoundTerms(
        prior=prior_term(x_0, schedule),
        steps=steps,
        reconstruction=reconstruction_term(denoiser, x_0, schedule, eps, decoder, label=label),
    )


def continuous_elbo(
    denoiser: Denoiser,
    x_0: Tensor,
    log_snr_of_time: LogSNROfTime,
    generator: torch.Generator,
    *,
    decoder: Decoder,
    num_times: int = 32,
    label: Tensor | None = None,
) -> BoundTerms:
    r"""Return an unbiased estimate of the bound of infinitely many steps (Kingma et al., 2021).

    .. math:: \sum_{t=2}^T L_{t-1} \;\to\; \frac12 \int_0^1 E \lVert \varepsilon
              - \hat\varepsilon(x_\tau) \rVert^2 \Bigl(-\frac{d \lambda}{d \tau}\Bigr) d\tau

    The ends are those of `discretize`: the datum is decoded at :math:`\tau = 0`, and the prior
    meets :math:`\tau = 1`. As an integral over :math:`\lambda` it depends on the schedule through
    these two ends only.

    Parameters
    ----------
    denoiser : Denoiser
        The model.
    x_0 : Tensor
        Data, shape ``(batch, ...)``.
    log_snr_of_time : callable
        From float64 times to log-SNR, falling and differentiable; gradients of its parameters
        flow through.
    generator : torch.Generator
        Where noise and times are drawn from.
    decoder : Decoder
        `GaussianDecoder` or `DiscretizedGaussianDecoder`.
    num_times : int
        At how many times each datum is looked at, at least 1; one in each of as many equal parts
        of [0, 1].
    label : Tensor, optional
        For a conditional denoiser.

    Returns
    -------
    BoundTerms
        Each part of shape ``(batch,)``, float64, in nats.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above, or the schedule does not fall.
    """
    _check_data(x_0, decoder)
    num_times = _whole_num_times(num_times)
    ends = from_log_snr(log_snr_of_time(torch.tensor([0.0, 1.0], dtype=torch.float64)))
    steps = torch.zeros(len(x_0), dtype=torch.float64, device=double_device(x_0.device))
    times = stratified_uniform(num_times, generator, shape=(len(x_0),), dtype=torch.float64)
    for tau in times:
        level, slope = with_slope(log_snr_of_time, tau)
        error = _error_at(denoiser, x_0, level, _noise_like(x_0, generator), label)
        steps = steps + 0.5 * error * -slope.to(error) / num_times
    eps = _noise_like(x_0, generator)
    return BoundTerms(
        prior=prior_term(x_0, ends),
        steps=steps,
        reconstruction=reconstruction_term(denoiser, x_0, ends, eps, decoder, label=label),
    )


def bits_per_dim(
    nats: Tensor | float,
    dim: int,
    *,
    levels: int | None = None,
    low: float = -1.0,
    high: float = 1.0,
) -> Tensor | float:
    r"""Return nats of a datum, such as :math:`-\mathrm{ELBO}`, in bits for each coordinate.

    .. math:: \text{bits/dim} = \frac{\text{nats}}{D \ln 2} + \log_2 \frac{k}{h - l}

    The second part is for a density of dequantised data: k levels, with uniform noise that fills
    the gap to the next, scaled so that all of them fill :math:`[l, h]`. A level is then a cell of
    width :math:`(h - l) / k`, and the density times that width is what bounds its probability. For
    256 levels on [-1, 1] the constant is 7. For probabilities, as of a discretized decoder, there
    is no such part.

    Parameters
    ----------
    nats : Tensor or float
        A negative log-probability or log-density of a whole datum, any shape.
    dim : int
        D, at least 1.
    levels : int, optional
        k, at least 2, for a density; by default `nats` is of a probability.
    low, high : float
        l and h; used with `levels` only.

    Raises
    ------
    ValueError
        If an argument is not as above.
    """
    number = as_whole_number(dim)
    if number is None or number < 1:
        raise ValueError(f"dim = {dim!r}; accepted are ints from 1")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"low = {low!r}, high = {high!r}; accepted are finite, low < high")
    constant = 0.0
    if levels is not None:
        check_levels(levels)
        constant = math.log2(levels / (high - low))
    return nats / (number * math.log(2)) + constant


class DiscretizedGaussian(Discretized):
    r"""A normal density, of which each level gets the mass that is nearest to it.

    With levels :math:`x = -1 + 2j / (k - 1)` and half their distance :math:`h = 1 / (k - 1)`,

    .. math:: P(x) = \Phi\Bigl(\frac{x + h - \mu}{\sigma}\Bigr)
              - \Phi\Bigl(\frac{x - h - \mu}{\sigma}\Bigr)

    except that the first level has all mass to its left and the last all to its right, so that
    the probabilities sum to 1 (Ho et al., 2020, equation 13). The difference is taken in logarithms
    and in the lower tail, so far from the mean nothing underflows.

    Its parameters are those of `Discretized`; `loc` is :math:`\mu` and `scale` is :math:`\sigma`.
    """

    low = -1.0

    def log_masses(self, value: Tensor, half: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logarithms of the masses below, about and above each value."""
        left = (value - half - self.loc) / self.scale
        right = (value + half - self.loc) / self.scale
        # The mass between left and right is that between -right and -left: take the lower tail.
        is_upper = left + right > 0
        lower = torch.where(is_upper, -right, left)
        upper = torch.where(is_upper, -left, right)
        log_upper = log_ndtr(upper)
        about = log_upper + torch.log(-torch.expm1(log_ndtr(lower) - log_upper))
        return log_ndtr(right), about, log_ndtr(-left)


def _weights(schedule: Schedule) -> dict[str, Tensor]:
    """Return the weights of squared errors, ``(T + 1,)`` each: nan at 0, infinite at 1."""
    # As a difference of log-SNR: in the ratio of two SNR what they differ by would be rounded off.
    rise = -schedule.log_snr.diff()
    nothing = torch.full_like(rise[:1], math.nan)
    of_eps = torch.cat([nothing, 0.5 * torch.expm1(rise)])
    # From the SNR before, because the ratio to the one behind may be too large for any number.
    of_x_0 = torch.cat([nothing, 0.5 * schedule.snr[:-1] * -torch.expm1(-rise)])
    return {
        "x_0": of_x_0,
        "eps": of_eps,
        "v": of_x_0 * schedule.sigma_squared,
        "score": of_eps * schedule.sigma_squared,
    }


def _squared_error(
    denoiser: Denoiser,
    x_0: Tensor,
    schedule: Schedule,
    t: int | Tensor,
    eps: Tensor,
    label: Tensor | None,
) -> Tensor:
    x_t = diffuse(x_0, eps, schedule, t)
    a, sigma = at_step(schedule.sqrt_alpha_bar, t, x_0), at_step(schedule.sigma, t, x_0)
    return _error(denoiser, x_0, eps, x_t, schedule.log_snr[t], a, sigma, label)


def _error_at(
    denoiser: Denoiser, x_0: Tensor, log_snr: Tensor, eps: Tensor, label: Tensor | None
) -> Tensor:
    """Return the squared error of eps, by way of what the denoiser predicts by itself."""
    level = log_snr.reshape(-1, *[1] * (x_0.ndim - 1))
    a = like(torch.sigmoid(level).sqrt(), x_0)
    sigma = like(torch.sigmoid(-level).sqrt(), x_0)
    x_t = a * x_0 + sigma * eps
    error = _error(denoiser, x_0, eps, x_t, log_snr, a, sigma, label)
    return error * eps_error_for(native(denoiser), log_snr).to(error)


def _error(
    denoiser: Denoiser,
    x_0: Tensor,
    eps: Tensor,
    x_t: Tensor,
    log_snr: Tensor,
    a: Tensor,
    sigma: Tensor,
    label: Tensor | None,
) -> Tensor:
    """Return the squared error of what the denoiser predicts by itself, for each datum."""
    prediction = native(denoiser)
    true = {"eps": eps, "x_0": x_0}.get(prediction)
    if true is None:
        true = a * eps - sigma * x_0
    return _sum((true - denoiser.predict(x_t, log_snr, prediction, **_labelled(label))).square())


def _labelled(label: Tensor | None) -> dict[str, Any]:
    """Return the keyword for a label, and none without: a denoiser need not know of labels."""
    return {} if label is None else {"label": label}


def _sum(values: Tensor) -> Tensor:
    if double_device(values.device) != values.device:
        values = as_double(values)
    return values.flatten(1).sum(1, dtype=torch.float64)


def _noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)


def _decoder_sigma(sigma: float | None, schedule: Schedule, x: Tensor) -> Tensor:
    # At t = 1 the noise so far, 1 - abar_1, is beta_1.
    return (
        schedule.sigma[1].to(x)
        if sigma is None
        else torch.tensor(sigma, dtype=x.dtype, device=x.device)
    )


def _check_data(x_0: Tensor, decoder: Decoder | None = None) -> None:
    check_data("x_0", x_0, least_dims=2)
    # A decoder of one's own need not have the method: it may still refuse data in its log_prob.
    if decoder is not None and hasattr(decoder, "check_data"):
        decoder.check_data(x_0)


def _whole_num_times(num_times: int | None) -> int | None:
    if num_times is None:
        return None
    number = as_whole_number(num_times)
    if number is None or number < 1:
        raise ValueError(f"num_times = {num_times!r}; accepted are ints from 1")
    return number


def _check_sigma(sigma: float | None) -> None:
    if sigma is not None and not (sigma > 0 and math.isfinite(sigma)):
        raise ValueError(f"sigma = {sigma!r}; accepted are positive numbers")

r"""What a denoiser is trained on: a loss for `evidence.training.train`.

Settings are bound with `functools.partial`::

    loss = partial(denoising_loss, log_snr_of_time=cosine_log_snr(10, -10))
    train(NetworkDenoiser(network, "v"), x, loss, ...)
"""

from __future__ import annotations

import torch
from torch import Tensor

from evidence.diffusion.arguments import check_data
from evidence.diffusion.networks import NO_LABEL
from evidence.diffusion.prediction import NetworkDenoiser, eps_error_for, note_labels
from evidence.diffusion.schedule import LogSNROfTime, Schedule, stratified_uniform, with_slope
from evidence.precision import as_double, like, on_cpu

__all__ = ["denoising_loss"]

WEIGHTINGS = ("simple", "elbo")

LARGE = 100.0
"""Data of this size are raw ones, unless the noise at the end of the chain covers them too."""


def denoising_loss(
    model: NetworkDenoiser,
    batch: Tensor | tuple[Tensor, Tensor],
    generator: torch.Generator,
    *,
    log_snr_of_time: LogSNROfTime | None = None,
    schedule: Schedule | None = None,
    weighting: str = "simple",
    label_dropout: float = 0.1,
) -> Tensor:
    r"""Return the squared error of a denoiser at random noise levels, one for each datum.

    With ``weighting="simple"`` it is the error of what the network predicts,

    .. math:: \frac1B \sum_n \bigl\| y_n - \hat y(x_{t_n}, \lambda_{t_n}) \bigr\|^2,
              \qquad y \in \{\epsilon, x_0, v\},

    which for the noise is :math:`L_{simple}` of DDPM (arXiv 2006.11239, equation 14), and no bound.
    With ``weighting="elbo"`` it is an unbiased estimate of the bound's sum over steps, in nats,
    whatever the network predicts. In continuous time (arXiv 2107.00630, equation 18)

    .. math:: \frac1B \sum_n \tfrac12 \Bigl(-\frac{d\lambda}{d\tau}\Bigr)
              \bigl\| \epsilon_n - \hat\epsilon_n \bigr\|^2;

    for a schedule T times :math:`\tfrac12 (\mathrm{SNR}_{t-1} - \mathrm{SNR}_t)
    \| x_0 - \hat x_0 \|^2`. At t = 1, where this weight is infinite and the bound has a decoder,
    it is :math:`\tfrac12 \mathrm{SNR}_1`: a Gaussian decoder of variance
    :math:`1 / \mathrm{SNR}_1`, without its constant.

    The times of a batch are stratified: one in each of B equal parts, so that every batch sees all
    noise levels.

    Parameters
    ----------
    model : NetworkDenoiser
        The denoiser.
    batch : Tensor or tuple of two Tensors
        x_0, shape ``(batch, ...)``; or x_0 and labels ``(batch,)``, int64.
    generator : torch.Generator
        Of the times, the noise and the dropped labels.
    log_snr_of_time : callable, optional
        Takes times in [0, 1], ``(batch,)``, and returns log-SNRs that fall with time. Times are
        continuous. For ``"elbo"`` it must be differentiable. It is not trained: no gradient
        reaches its weights, if it has any.
    schedule : Schedule, optional
        Times are its steps 1..T. Exactly one of the two is given.
    weighting : str
        ``"simple"`` or ``"elbo"``.
    label_dropout : float
        The probability, in [0, 1], with which a label is hidden, so that one network learns to
        denoise with and without (arXiv 2207.12598).

    Returns
    -------
    Tensor
        A scalar: a sum over dimensions and a mean over data.

    Raises
    ------
    TypeError
        If x_0 is not of floating point, or a label not int64.
    ValueError
        If neither or both of the noise levels are given, a setting is unknown, for ``"elbo"`` the
        log-SNR does not fall, a shape does not fit, x_0 has an element that is not finite, or is
        so large that the noise at the end does not cover it.
    """
    if (log_snr_of_time is None) == (schedule is None):
        given = "neither" if schedule is None else "both"
        raise ValueError(f"of log_snr_of_time and schedule {given} is given; accepted is one")
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting is {weighting!r}; accepted are 'simple' and 'elbo'")
    check_label_dropout(label_dropout)
    x_0, label = data_and_label(batch)
    _check_size(x_0, log_snr_of_time, schedule)
    tau = stratified_uniform(len(x_0), generator, dtype=torch.float64)
    # Half precision has too few digits for a time.
    time_dtype = torch.promote_types(x_0.dtype, torch.float32)
    if schedule is not None:
        log_snr, eps_weight = _at_steps(schedule, tau)
    elif weighting == "elbo":
        log_snr, slope = with_slope(log_snr_of_time, tau.to(time_dtype))
        eps_weight = -slope.detach() / 2
    else:
        log_snr = log_snr_of_time(tau.to(time_dtype))
    log_snr = like(log_snr.detach(), x_0)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    over_data = (-1,) + (1,) * (x_0.ndim - 1)
    signal = torch.sigmoid(log_snr).sqrt().view(over_data)
    noise = torch.sigmoid(-log_snr).sqrt().view(over_data)
    x_t = signal * x_0 + noise * eps
    if label is not None:
        label = hide_labels(label, label_dropout, generator, x_0.dtype)
    note_labels(model, label, NO_LABEL)

    inputs = (x_t, log_snr) if label is None else (x_t, log_snr, label)
    predicted = model.network(*inputs)
    target = {"x_0": x_0, "eps": eps}.get(model.prediction)
    if target is None:
        target = signal * eps - noise * x_0
    error = (predicted - target).square().flatten(1).sum(1)
    if weighting == "simple":
        return error.mean()
    error_64 = as_double(error)
    of_eps = eps_error_for(model.prediction, log_snr).to(error_64.device)
    return like((error_64 * eps_weight.to(error_64.device) * of_eps).mean(), error)


def data_and_label(batch: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return x_0 and the labels of a batch, or None for them; refuse what cannot be noised."""
    if isinstance(batch, tuple) and len(batch) != 2:
        raise ValueError(f"batch: expected x_0, or x_0 and labels, got a tuple of {len(batch)}")
    x_0, label = batch if isinstance(batch, tuple) else (batch, None)
    check_data("x_0", x_0)
    if label is not None:
        if not isinstance(label, Tensor) or label.dtype != torch.int64:
            kind = label.dtype if isinstance(label, Tensor) else repr(label)
            raise TypeError(f"label: expected an int64 tensor (batch,), got {kind}")
        if label.shape != x_0.shape[:1]:
            raise ValueError(
                f"label: expected the shape {tuple(x_0.shape[:1])}, one for each x_0, got "
                f"{tuple(label.shape)}"
            )
    return x_0, label


def _check_size(
    x_0: Tensor, log_snr_of_time: LogSNROfTime | None, schedule: Schedule | None
) -> None:
    """Raise a ValueError if the noise at the end leaves raw data as they are.

    A chain whose end is not N(0, I) trains without complaint, and samples start elsewhere.
    """
    largest = x_0.detach().abs().max().item()
    if largest <= LARGE:
        return
    if schedule is not None:
        lowest = schedule.log_snr[-1].detach()
    else:
        with torch.no_grad():
            lowest = on_cpu(log_snr_of_time(torch.ones(1, dtype=torch.float64)))[0]
    left = torch.sigmoid(lowest).sqrt().item() * largest
    if left > 1:
        raise ValueError(
            f"x_0: expected data of about unit size, got a number of size {largest:g}, of which "
            f"{left:.3g} is left beside noise of variance 1 at the lowest log-SNR, "
            f"{lowest.item():g}; scale the data (grey levels from 0 to 255: x / 127.5 - 1)"
        )


def check_label_dropout(label_dropout: float) -> None:
    """Raise a ValueError if it is no probability."""
    if not 0 <= label_dropout <= 1:
        raise ValueError(f"label_dropout is {label_dropout!r}; accepted are numbers in [0, 1]")


def hide_labels(
    label: Tensor, label_dropout: float, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Return labels ``(batch,)`` of which some, drawn in a dtype, are `NO_LABEL`.

    The dtype is that of the data, so that the draws do not depend on torch's default.
    """
    u = torch.rand(label.shape, generator=generator, device=label.device, dtype=dtype)
    return label.masked_fill(u < label_dropout, NO_LABEL)


def _at_steps(schedule: Schedule, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-SNRs of random steps, and T times the weights of their errors of eps."""
    t = (tau * schedule.num_steps).long() + 1
    log_snr = schedule.log_snr.to(tau.device)[t]
    # SNR_{t-1} / SNR_t - 1, from logarithms: their difference keeps its digits where both are large
    ratio = torch.expm1(schedule.log_snr.to(tau.device)[t - 1] - log_snr)
    return log_snr, schedule.num_steps / 2 * torch.where(t == 1, 1.0, ratio)

r"""Flow matching on the straight path, and that it is diffusion in other coordinates.

The path is :math:`x_\tau = (1-\tau) x_0 + \tau \varepsilon`: data at :math:`\tau = 0`, noise at
:math:`\tau = 1`. What is learned is the mean of its velocity,
:math:`u(x, \tau) = E[\varepsilon - x_0 | x_\tau = x]`, and a sample is made by following u from
noise to data (arXiv 2210.02747, 2209.03003).

Divided by :math:`n = \sqrt{(1-\tau)^2 + \tau^2}`, the state is one of the variance-preserving path:

.. math:: \sqrt{\bar\alpha} = \frac{1-\tau}n, \quad \sigma = \frac\tau n, \quad
    \lambda = 2 \ln \frac{1-\tau}\tau, \quad
    u = (\sigma - \sqrt{\bar\alpha})\, \frac{x_\tau}{n} + (\sigma + \sqrt{\bar\alpha})\, \hat v

so any denoiser is a velocity (`velocity_from`) and any velocity a denoiser (`FlowNetwork`). Both
ODEs have the same curves, run through at another speed and drawn at another scale.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evidence.diffusion.arguments import as_whole_number, check_data
from evidence.diffusion.losses import check_label_dropout, data_and_label, hide_labels
from evidence.diffusion.networks import NO_LABEL
from evidence.diffusion.prediction import (
    Denoiser,
    check_trained_with_label,
    check_trained_without_label,
    convert,
    log_snr_for,
    note_labels,
    register_label_record,
)
from evidence.diffusion.schedule import stratified_uniform
from evidence.precision import like, on_cpu

if TYPE_CHECKING:
    from evidence.diffusion.exact import MixtureData

__all__ = [
    "FlowNetwork",
    "exact_velocity",
    "flow_loss",
    "integrate",
    "log_snr_at",
    "straight_path",
    "tau_at",
    "velocity_from",
]

Velocity = Callable[[Tensor, float], Tensor]
METHODS = ("euler", "heun")

TIME_SPAN = 10.0
"""A `FlowNetwork` tells its network 10 (1 - 2 tau): made for log-SNRs, it gets a number of their
size, which falls as they do and, unlike them, is finite at both ends."""


def straight_path(x_0: Tensor, eps: Tensor, tau: float | Tensor) -> Tensor:
    r"""Return :math:`x_\tau = (1-\tau) x_0 + \tau\varepsilon`.

    Parameters
    ----------
    x_0, eps : Tensor
        Data and noise, ``(batch, ...)``.
    tau : float or Tensor
        In [0, 1], a scalar or ``(batch,)``.

    Returns
    -------
    Tensor
        Shape ``(batch, ...)``.

    Raises
    ------
    ValueError
        If tau is out of range or has another shape.
    """
    check_data("x_0", x_0)
    if eps.shape != x_0.shape or eps.dtype != x_0.dtype:
        raise ValueError(
            f"eps: expected the shape and dtype of x_0, {tuple(x_0.shape)} and {x_0.dtype}, got "
            f"{tuple(eps.shape)} and {eps.dtype}"
        )
    tau = _over_events(_check_tau(tau, x_0), x_0)
    return (1 - tau) * x_0 + tau * eps


def log_snr_at(tau: Tensor) -> Tensor:
    r"""Return :math:`2\ln((1-\tau)/\tau)`: infinite at 0, minus infinity at 1; any shape."""
    return 2 * (torch.log1p(-tau) - torch.log(tau))


def tau_at(log_snr: Tensor) -> Tensor:
    r"""Return the time :math:`\tau = \mathrm{sigmoid}(-\lambda/2)` of a log-SNR; any shape."""
    return torch.sigmoid(-log_snr / 2)


def velocity_from(denoiser: Denoiser, x: Tensor, tau: float | Tensor) -> Tensor:
    r"""Return the velocity :math:`u(x, \tau)` that a denoiser of the other path implies.

    Parameters
    ----------
    denoiser : Denoiser
        Asked once for v, of which u is a combination that stays finite at both ends.
    x : Tensor
        States of the straight path, ``(batch, ...)``.
    tau : float or Tensor
        A scalar or ``(batch,)``, above 0 and below 1: at the ends the log-SNR is infinite.

    Returns
    -------
    Tensor
        Shape ``(batch, ...)``.

    Raises
    ------
    ValueError
        If tau is out of range or has another shape.
    """
    tau = _check_tau(tau, x)
    if not ((tau > 0) & (tau < 1)).all():
        raise ValueError(
            f"tau goes from {tau.min().item():g} to {tau.max().item():g}; accepted for a denoiser "
            "is above 0 and below 1, where the log-SNR is finite"
        )
    scale, signal, noise = _scales(tau, x)
    x_t = x / scale
    v = denoiser.predict(x_t, log_snr_at(tau), wanted="v")
    return (noise - signal) * x_t + (noise + signal) * v


def exact_velocity(data: MixtureData, x: Tensor, tau: float | Tensor) -> Tensor:
    r"""Return :math:`E[\varepsilon - x_0 | x_\tau = x]` of a Gaussian mixture.

    Computed on the straight path itself: within a component velocity and state are jointly
    Gaussian, and the components' means are averaged by their posterior probabilities. So it holds
    at :math:`\tau = 0` and :math:`\tau = 1` too.

    Parameters
    ----------
    data : MixtureData
        With K components in D dimensions.
    x : Tensor
        Shape ``(batch, D)``.
    tau : float or Tensor
        In [0, 1], a scalar or ``(batch,)``.

    Returns
    -------
    Tensor
        Shape ``(batch, D)``.

    Raises
    ------
    ValueError
        If tau is out of range or has another shape.
    """
    tau = like(_check_tau(tau, x), x).reshape(-1, 1, 1)
    weights, means, covs = (like(part, x) for part in (data.weights, data.means, data.covs))
    identity = torch.eye(means.shape[1]).to(x)
    cov_x = ((1 - tau) ** 2)[..., None] * covs + (tau**2)[..., None] * identity
    cov_u_x = tau[..., None] * identity - (1 - tau)[..., None] * covs
    from_mean = x[:, None] - (1 - tau) * means
    component = torch.distributions.MultivariateNormal((1 - tau) * means, cov_x)
    posterior = (component.log_prob(x[:, None]) + weights.log()).softmax(1)
    whitened = torch.linalg.solve(cov_x, from_mean[..., None])
    means_of_u = (cov_u_x @ whitened)[..., 0] - means
    return (posterior[..., None] * means_of_u).sum(1)


class FlowNetwork(nn.Module):
    """A network that predicts the velocity; through `predict`, a denoiser for all samplers.

    Parameters
    ----------
    network : nn.Module
        Called as ``network(x, time (batch,))``, with ``label=`` if there are labels; returns the
        shape of x. Its second argument is `TIME_SPAN` (1 - 2 tau).

    Attributes
    ----------
    trained_with_label, trained_without_label : Tensor
        Whether `flow_loss` has trained it so; stored with the weights.
    """

    prediction = "v"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        register_label_record(self)

    def forward(self, x: Tensor, tau: float | Tensor, label: Tensor | None = None) -> Tensor:
        """Return the velocity at states ``(batch, ...)`` and times in [0, 1], ends included."""
        tau = _check_tau(tau, x).expand(len(x))
        extra = {} if label is None else {"label": label}
        return self.network(x, like(TIME_SPAN * (1 - 2 * tau), x), **extra)

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor | float,
        wanted: str = "eps",
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """Return what a denoiser of the variance-preserving path is asked for.

        Parameters
        ----------
        x_t : Tensor
            States of the variance-preserving path, ``(batch, ...)``.
        log_snr : Tensor or float
            A scalar or ``(batch,)``.
        wanted : {"eps", "x_0", "v", "score"}
            What is to be predicted.
        label : Tensor, optional
            int64 ``(batch,)``, passed on.

        Returns
        -------
        Tensor
            Shape ``(batch, ...)``.
        """
        (check_trained_without_label if label is None else check_trained_with_label)(self)
        tau = tau_at(log_snr_for(log_snr, x_t))
        if tau.ndim:
            tau = tau.flatten()
        scale, signal, noise = _scales(tau, x_t)
        u = self(scale * x_t, tau, label)
        v = (u - (noise - signal) * x_t) / (noise + signal)
        return v if wanted == "v" else convert(v, x_t, log_snr, given="v", wanted=wanted)


def flow_loss(
    model: FlowNetwork,
    batch: Tensor | tuple[Tensor, Tensor],
    generator: torch.Generator,
    *,
    label_dropout: float = 0.1,
) -> Tensor:
    r"""Return the squared error of the velocity at random times, for `evidence.training.train`.

    .. math:: \frac1B \sum_n \bigl\| \varepsilon_n - x_{0,n} - \hat u(x_{\tau_n}, \tau_n) \bigr\|^2,
              \qquad \tau_n \sim U(0, 1)

    Its minimum is the mean velocity, though its value there is not zero: it regresses on the
    velocity of one pair where a place is crossed by many. The times are stratified, as
    in `evidence.diffusion.losses.denoising_loss`.

    Parameters
    ----------
    model : FlowNetwork
        What is trained.
    batch : Tensor or tuple of two Tensors
        x_0, ``(batch, ...)``; or x_0 and labels, int64 ``(batch,)``.
    generator : torch.Generator
        Of the times, the noise and the dropped labels.
    label_dropout : float
        The probability, in [0, 1], with which a label is hidden.

    Returns
    -------
    Tensor
        A scalar: a sum over dimensions and a mean over data.

    Raises
    ------
    TypeError, ValueError
        If `label_dropout` is no probability, or the data or labels are refused.
    """
    check_label_dropout(label_dropout)
    x_0, label = data_and_label(batch)
    tau = stratified_uniform(len(x_0), generator, dtype=x_0.dtype)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    if label is not None:
        label = hide_labels(label, label_dropout, generator, x_0.dtype)
    note_labels(model, label, NO_LABEL)
    u_hat = model(straight_path(x_0, eps, tau), tau, label)
    return (eps - x_0 - u_hat).square().flatten(1).sum(1).mean()


@torch.no_grad()
def integrate(
    velocity: Velocity,
    x: Tensor,
    steps: int,
    method: str = "euler",
    *,
    start: float = 1.0,
    stop: float = 0.0,
    trajectory: bool = False,
) -> Tensor:
    """Follow a velocity in equal steps of tau, by default from noise to data.

    Parameters
    ----------
    velocity : callable
        ``velocity(x, tau)`` with x ``(batch, ...)`` and a float; a `FlowNetwork`, or
        ``functools.partial(velocity_from, denoiser)``, which needs ends within (0, 1): Euler's
        rule asks for the velocity at `start` but not at `stop`, Heun's at both.
    x : Tensor
        States at `start`, ``(batch, ...)``.
    steps : int
        1 or more.
    method : {"euler", "heun"}
        Of first order with one evaluation a step, or of second with two.
    start, stop : float
        In [0, 1] and not equal; ``start=0, stop=1`` carries data to noise.
    trajectory : bool
        Return all states.

    Returns
    -------
    Tensor
        States at `stop`, ``(batch, ...)``; with `trajectory` ``(steps + 1, batch, ...)``, in the
        order of the walk, the states at ``linspace(start, stop, steps + 1)``.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    number = as_whole_number(steps)
    if number is None or number < 1:
        raise ValueError(f"steps is {steps!r}; accepted is a whole number, 1 or more")
    check_data("x", x)
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; accepted are {', '.join(METHODS)}")
    for name, value in (("start", start), ("stop", stop)):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:
            raise ValueError(f"{name} is {value!r}; accepted is a number in [0, 1]")
    if start == stop:
        raise ValueError(f"start and stop are both {start!r}; accepted are two different times")
    taus = torch.linspace(start, stop, number + 1, dtype=torch.float64).tolist()
    states = [x]
    for tau, tau_next in pairwise(taus):
        slope = velocity(x, tau)
        x_next = x + (tau_next - tau) * slope
        if method == "heun":
            x_next = x + (tau_next - tau) * (slope + velocity(x_next, tau_next)) / 2
        x = x_next
        if trajectory:
            states.append(x)
    return torch.stack(states) if trajectory else x


def _scales(tau: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return n, sqrt(alpha_bar) and sigma at tau, shaped to multiply x."""
    scale = ((1 - tau).square() + tau.square()).sqrt()
    return tuple(_over_events(part, x) for part in (scale, (1 - tau) / scale, tau / scale))


def _check_tau(tau: float | Tensor, x: Tensor) -> Tensor:
    tau = on_cpu(tau)
    if tau.shape not in ((), x.shape[:1]):
        raise ValueError(
            f"tau has shape {tuple(tau.shape)}; accepted is a scalar or {tuple(x.shape[:1])}"
        )
    if not ((tau >= 0) & (tau <= 1)).all():
        raise ValueError(
            f"tau goes from {tau.min().item():g} to {tau.max().item():g}; accepted is 0 to 1"
        )
    return tau


def _over_events(tau: Tensor, x: Tensor) -> Tensor:
    tau = like(tau, x)
    return tau.reshape(-1, *[1] * (x.ndim - 1)) if tau.ndim else tau

r"""The forward chain: densities that add noise, and the one that undoes a step given the datum.

.. math:: q(x_t \mid x_0) &= \mathcal N\bigl(\sqrt{\bar\alpha_t}\, x_0, (1 - \bar\alpha_t) I\bigr)\\
          q(x_t \mid x_{t-1}) &= \mathcal N\bigl(\sqrt{\alpha_t}\, x_{t-1}, \beta_t I\bigr) \\
          q(x_{t-1} \mid x_t, x_0) &= \mathcal N\bigl(\tilde\mu_t, \tilde\beta_t I\bigr), \qquad
          \tilde\mu_t = \frac{\sqrt{\bar\alpha_{t-1}}\, \beta_t\, x_0
          + \sqrt{\alpha_t}\, (1 - \bar\alpha_{t-1})\, x_t}{1 - \bar\alpha_t}

All densities are `torch.distributions.Normal` of the shape of x, one for each coordinate; sum their
log-densities over the coordinates. Data have shape ``(batch, ...)``; t is a step, or one for each
datum. Coefficients are computed in float64 and applied in the dtype of x. Data that are not of
floating point, or not finite, are refused.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Normal

from evidence.diffusion.arguments import check_data
from evidence.diffusion.schedule import Schedule, at_step

__all__ = ["diffuse", "posterior_coefficients", "q_before", "q_step", "q_x_t"]


def diffuse(x_0: Tensor, eps: Tensor, schedule: Schedule, t: int | Tensor) -> Tensor:
    r"""Return :math:`x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon`.

    Parameters
    ----------
    x_0, eps : Tensor
        Shape ``(batch, ...)``, both the same, of one dtype.
    schedule : Schedule
        Of T steps.
    t : int or Tensor
        From 1 to T; a tensor is int64 of shape ``(batch,)``.

    Raises
    ------
    TypeError, ValueError
        If t is not as above, or x_0 and eps have different shapes or dtypes.
    """
    schedule.check_steps(t)
    check_data("x_0", x_0)
    _check_pair("eps", eps, "x_0", x_0)
    return at_step(schedule.sqrt_alpha_bar, t, x_0) * x_0 + at_step(schedule.sigma, t, x_0) * eps


def q_x_t(x_0: Tensor, schedule: Schedule, t: int | Tensor) -> Normal:
    r"""Return :math:`q(x_t \mid x_0)`, of the shape of x_0; t from 1 to T.

    Raises
    ------
    TypeError, ValueError
        If t is no such step, or the data are refused.
    """
    schedule.check_steps(t)
    check_data("x_0", x_0)
    sigma = at_step(schedule.sigma, t, x_0).expand_as(x_0)
    return Normal(at_step(schedule.sqrt_alpha_bar, t, x_0) * x_0, sigma)


def q_step(x_before: Tensor, schedule: Schedule, t: int | Tensor) -> Normal:
    r"""Return :math:`q(x_t \mid x_{t-1})` for ``x_before`` :math:`= x_{t-1}`; t from 1 to T.

    Raises
    ------
    TypeError, ValueError
        If t is no such step, or the data are refused.
    """
    schedule.check_steps(t)
    check_data("x_before", x_before)
    sigma = at_step(schedule.beta.sqrt(), t, x_before).expand_as(x_before)
    return Normal(at_step(schedule.alpha.sqrt(), t, x_before) * x_before, sigma)


def q_before(x_0: Tensor, x_t: Tensor, schedule: Schedule, t: int | Tensor) -> Normal:
    r"""Return :math:`q(x_{t-1} \mid x_t, x_0)`; t from 2 to T.

    Parameters
    ----------
    x_0, x_t : Tensor
        Shape ``(batch, ...)``, both the same, of one dtype.
    schedule : Schedule
        Of T steps.
    t : int or Tensor
        From 2 to T; a tensor is int64 of shape ``(batch,)``.

    Raises
    ------
    TypeError, ValueError
        If t is not as above, or x_0 and x_t have different shapes or dtypes. At t = 1 the
        density is a point, :math:`x_0` itself.
    """
    schedule.check_steps(t, first=2, why="x_0 given x_1 and x_0 is a point, without a density")
    check_data("x_0", x_0)
    check_data("x_t", x_t)
    _check_pair("x_t", x_t, "x_0", x_0)
    of_x_0, of_x_t = posterior_coefficients(schedule)
    mu = at_step(of_x_0, t, x_0) * x_0 + at_step(of_x_t, t, x_0) * x_t
    return Normal(mu, at_step(schedule.posterior_variance.sqrt(), t, x_0).expand_as(x_0))


def posterior_coefficients(schedule: Schedule) -> tuple[Tensor, Tensor]:
    r"""Return the factors of :math:`x_0` and :math:`x_t` in :math:`\tilde\mu_t`.

    Each of shape ``(T + 1,)``, indexed by t; nan at t = 0, and exactly 1 and 0 at t = 1.
    """
    variance = schedule.sigma_squared
    of_x_0 = schedule.sqrt_alpha_bar[:-1] * schedule.beta[1:] / variance[1:]
    of_x_t = schedule.alpha[1:].sqrt() * variance[:-1] / variance[1:]
    # beta_1 and 1 - abar_1 are the same number, reached by two roundings.
    of_x_0 = torch.cat([torch.ones_like(of_x_0[:1]), of_x_0[1:]])
    nothing = torch.full_like(of_x_0[:1], torch.nan)
    return torch.cat([nothing, of_x_0]), torch.cat([nothing, of_x_t])


def _check_pair(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor like {other_name}, got {value!r}")
    if value.shape != other.shape:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; accepted is that of {other_name}, "
            f"{tuple(other.shape)}"
        )
    if value.dtype != other.dtype:
        raise TypeError(
            f"{name} is of {value.dtype}; accepted is that of {other_name}, {other.dtype}"
        )

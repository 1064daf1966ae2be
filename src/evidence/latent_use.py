r"""What a trained model does with its latents: which are used, how many nats they carry.

The rate of x is :math:`\mathrm{KL}(q_\phi(z \mid x) \| p(z))`. Its mean over the data splits into

.. math:: \mathbb E_x \, \mathrm{KL}\bigl(q_\phi(z \mid x) \,\|\, p(z)\bigr)
          = I_q(x; z) + \mathrm{KL}\bigl(q_\phi(z) \,\|\, p(z)\bigr),
          \qquad q_\phi(z) = \frac1N \sum_n q_\phi(z \mid x_n)

where :math:`q_\phi(z)` is the *aggregate posterior* (Hoffman and Johnson, 2016).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from evidence.likelihood import draw, log_density
from evidence.models import VAE

__all__ = [
    "LatentUse",
    "RatePoint",
    "RateSplit",
    "latent_use",
    "log_aggregate_posterior",
    "rate_point",
    "split_rate",
]

ACTIVE_ABOVE = 0.01
PAIRS_AT_ONCE = 2**18


@dataclass(frozen=True)
class LatentUse:
    """How each latent is used, all of shape ``(d,)``.

    Attributes
    ----------
    variance_of_means : Tensor
        Variance over the data of the mean of q(z|x).
    rate : Tensor
        Mean over the data of the KL of q(z|x) to the prior, in nats.
    """

    variance_of_means: Tensor
    rate: Tensor

    @property
    def active(self) -> Tensor:
        """Which latents are active by Burda's measure: their means vary by more than 0.01."""
        return self.variance_of_means > ACTIVE_ABOVE

    @property
    def num_active(self) -> int:
        """How many are."""
        return int(self.active.sum())


@dataclass(frozen=True)
class RatePoint:
    """Mean rate and distortion over some data, in nats, with standard errors of the means.

    Their sum is minus the mean ELBO. The rate is exact for each x; its error is that of the choice
    of the data, that of the distortion has the noise of z in it as well.
    """

    rate: float
    distortion: float
    rate_error: float
    distortion_error: float


@dataclass(frozen=True)
class RateSplit:
    """The mean rate and its two parts, in nats.

    Attributes
    ----------
    rate : float
        Exact, over the data given.
    mutual_information : float
        Between the index of a datum and z: at most log N. An estimate.
    kl_to_prior : float
        Of the aggregate posterior of these data. An estimate.
    standard_error : float
        Of `mutual_information`, from the draws of z and the choice of data together.
    """

    rate: float
    mutual_information: float
    kl_to_prior: float
    standard_error: float


@torch.no_grad()
def latent_use(model: VAE, x: Tensor) -> LatentUse:
    """Measure which latents are used (Burda, Grosse and Salakhutdinov, arXiv 1509.00519).

    Parameters
    ----------
    model : VAE
        The model.
    x : Tensor
        Shape ``(n, D)``, n at least 2.

    Returns
    -------
    LatentUse
        For each latent.

    Raises
    ------
    ValueError
        If there are fewer than two data.
    """
    _at_least_two(x)
    q_z = model.q_z(x)
    return LatentUse(q_z.mean.var(0), kl_divergence(q_z, model.p_z()).mean(0))


@torch.no_grad()
def rate_point(model: VAE, x: Tensor, *, generator: torch.Generator) -> RatePoint:
    """Measure rate and distortion, ``-log p(x|z)``, with one draw of z for each x.

    Parameters
    ----------
    model : VAE
        The model.
    x : Tensor
        Shape ``(n, D)``, n at least 2.
    generator : torch.Generator
        Of z.
    """
    _at_least_two(x)
    q_z = model.q_z(x)
    rate = kl_divergence(q_z, model.p_z()).sum(-1)
    distortion = -model.p_x_given_z(draw(q_z, 1, generator)[0]).log_prob(x).sum(-1)
    root = len(x) ** 0.5
    return RatePoint(
        rate.mean().item(),
        distortion.mean().item(),
        rate.std().item() / root,
        distortion.std().item() / root,
    )


@torch.no_grad()
def log_aggregate_posterior(model: VAE, z: Tensor, x: Tensor) -> Tensor:
    """Return the logarithm of the mixture of q(z|x) over all x given.

    Parameters
    ----------
    model : VAE
        The model.
    z : Tensor
        Shape ``(m, d)``.
    x : Tensor
        Shape ``(n, D)``: the n components, with equal weights.

    Returns
    -------
    Tensor
        Shape ``(m,)``, in nats. Memory does not grow with m.
    """
    q_z = model.q_z(x)
    return torch.cat(
        [
            log_density(q_z, part[:, None]).logsumexp(1)
            for part in z.split(max(1, PAIRS_AT_ONCE // len(x)))
        ]
    ) - math.log(len(x))


@torch.no_grad()
def split_rate(model: VAE, x: Tensor, *, generator: torch.Generator) -> RateSplit:
    """Split the mean rate into mutual information and the aggregate posterior's KL to the prior.

    With one draw of z for each x. The aggregate posterior is that of the data given, so the mutual
    information comes out near its limit log N where the true one is above that, as for thousands of
    digits; `kl_to_prior` is then too large by as much.

    Parameters
    ----------
    model : VAE
        The model.
    x : Tensor
        Shape ``(n, D)``, n at least 2. Time grows with n squared.
    generator : torch.Generator
        Of z.
    """
    _at_least_two(x)
    q_z = model.q_z(x)
    rate = kl_divergence(q_z, model.p_z()).sum(-1).mean().item()
    z = draw(q_z, 1, generator)
    information = log_density(q_z, z)[0] - log_aggregate_posterior(model, z[0], x)
    mean = information.mean().item()
    return RateSplit(rate, mean, rate - mean, information.std().item() / len(x) ** 0.5)


def _at_least_two(x: Tensor) -> None:
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"x has the shape {tuple(x.shape)}; accepted is (n, D) with n >= 2")

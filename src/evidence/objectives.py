r"""What a VAE is trained on: losses for `evidence.training.train`, and schedules for their weights.

A loss is ``loss(model, batch, generator)``; settings are bound with `functools.partial`, or change
as training goes on, by the argument `loss_schedules` of `train`::

    train(model, x, partial(negative_elbo, free_bits=0.1), ...)
    train(model, x, negative_elbo, loss_schedules={"beta": warm_up(epochs=10)}, ...)

All are means over the batch and sums over pixels and latents, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from evidence.datasets import binarize, check_pixels
from evidence.models import VAE
from evidence.pixels import BernoulliPixels

__all__ = ["negative_elbo", "negative_iwae", "on_binarized", "warm_up"]


def negative_elbo(
    model: VAE,
    batch: Tensor,
    generator: torch.Generator,
    *,
    beta: float = 1.0,
    free_bits: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Return minus the mean of `VAE.elbo` over a batch, and its two terms.

    .. math:: \frac1B \sum_n -\log p_\theta(x_n \mid z_n)
              + \beta \sum_{j=1}^d \max\Bigl(\lambda, \; \frac1B \sum_n
              \mathrm{KL}\bigl(q_\phi(z_j \mid x_n) \,\|\, p(z_j)\bigr)\Bigr)

    The same numbers as from the distributions, with fewer and larger operations: the Gaussian KL in
    closed form, the cross-entropy of Bernoulli pixels in one operation, and sums taken over all
    elements at once.

    Parameters
    ----------
    model : VAE
        The model.
    batch : Tensor
        x, shape ``(batch, D)``.
    generator : torch.Generator
        Of eps, one sample for each x.
    beta : float
        :math:`\beta \ge 0`, the weight of the KL (Higgins et al., 2017). From 1 on, minus
        the loss is below log p(x) on average; with 1 it is the ELBO.
    free_bits : float
        :math:`\lambda \ge 0`, in nats for each latent: a latent whose KL, as a mean over the batch,
        is below it costs as much as one at it, so nothing is gained by giving up the last
        :math:`\lambda` nats (Kingma et al., 2016).

    Returns
    -------
    loss : Tensor
        A scalar, in nats.
    terms : dict of str to Tensor
        ``reconstruction``, the negative of the first term of the ELBO, and ``kl``, in full: with
        ``beta=1`` and ``free_bits=0`` their sum is the loss, and always minus the ELBO.

    Raises
    ------
    ValueError
        If `beta` or `free_bits` is negative or not finite, or `VAE.check` refuses the batch.
    """
    _check_weight("beta", beta)
    _check_weight("free_bits", free_bits)
    mu, log_var = model.encode(batch)
    eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    sigma = torch.exp(log_var / 2)
    output = model.decode(torch.addcmul(mu, sigma, eps))
    num_x = len(batch)
    if type(model.pixels) is BernoulliPixels:
        # Also of a model that encodes in a way of its own: the sum below accepts anything.
        check_pixels(batch, name="batch")
        cross_entropy = CrossEntropy.apply(output, batch)
    else:
        cross_entropy = -model.pixels(output).log_prob(batch).sum()
    reconstruction = cross_entropy / num_x
    kl_of_latents = (mu.square() + sigma.square() - log_var - 1).sum(0) / (2 * num_x)
    kl = kl_of_latents.sum()
    paid = torch.clamp(kl_of_latents, min=free_bits).sum() if free_bits else kl
    return reconstruction + beta * paid, {"reconstruction": reconstruction, "kl": kl}


class CrossEntropy(torch.autograd.Function):
    r"""The cross-entropy of Bernoulli pixels from their log-odds, summed, ``eq-bernoulli-logits``.

    .. math:: \sum \log(1 + e^\ell) - x \ell,
              \qquad \log(1 + e^\ell) = \max(\ell, 0) - \log \sigma(|\ell|)

    That of `torch.nn.functional.binary_cross_entropy_with_logits`, whose logarithm of the sigmoid
    costs as much as a layer of the network. Here :math:`\sigma(|\ell|)` is between 1/2 and 1, so
    its logarithm is right to the last digit of 1 at any :math:`\ell`; and the gradient is
    :math:`\sigma(\ell) - x`, with one more sigmoid and no other array. The data get no
    gradient, and there is no second derivative.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, x: Tensor) -> Tensor:
        """Return the sum over all elements, in nats: a scalar."""
        ctx.save_for_backward(logits, x)
        soft = logits.abs().sigmoid_().log_().sum()
        return torch.relu(logits).sum() - soft - torch.dot(logits.flatten(), x.flatten())

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient in the logits; the data get none."""
        logits, x = ctx.saved_tensors
        return torch.sigmoid(logits).sub_(x).mul_(gradient), None


def negative_iwae(
    model: VAE, batch: Tensor, generator: torch.Generator, *, num_samples: int
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""Return minus the mean of the importance-weighted bound over a batch, ``def-iwae``.

    .. math:: -\frac1B \sum_n \log \frac1K \sum_{k=1}^K
              \frac{p_\theta(x_n, z_{nk})}{q_\phi(z_{nk} \mid x_n)},
              \qquad z_{nk} \sim q_\phi(z \mid x_n)

    Burda, Grosse and Salakhutdinov (arXiv 1509.00519). Its gradient is the pathwise one. With K = 1
    it is the ELBO, with the KL estimated by the same draw and not in closed form. Memory and time
    grow with K.

    Parameters
    ----------
    model : VAE
        The model.
    batch : Tensor
        x, shape ``(batch, D)``.
    generator : torch.Generator
        Of eps, K samples for each x.
    num_samples : int
        K, 1 or more.

    Returns
    -------
    loss : Tensor
        A scalar, in nats.
    terms : dict of str to Tensor
        ``negative_elbo``: minus the mean logarithm of the same weights, never below the loss.

    Raises
    ------
    ValueError
        If `num_samples` is not a whole number from 1, or `VAE.check` refuses the batch.
    """
    if type(num_samples) is not int or num_samples < 1:
        raise ValueError(f"num_samples is {num_samples!r}; accepted are whole numbers from 1")
    mu, log_var = model.encode(batch)
    shape = (num_samples, *mu.shape)
    eps = torch.randn(shape, generator=generator, device=mu.device, dtype=mu.dtype)
    z = torch.addcmul(mu, torch.exp(log_var / 2), eps)
    # log p(z) - log q(z|x), in which the constants of the two Gaussians cancel.
    log_ratio = (eps.square() - z.square() + log_var).sum(-1) / 2
    log_w = model.p_x_given_z(z).log_prob(batch).sum(-1) + log_ratio
    bound = (log_w.logsumexp(0) - math.log(num_samples)).mean()
    return -bound, {"negative_elbo": -log_w.mean()}


def on_binarized(loss: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loss that is evaluated on a new binary draw of every grey batch.

    Dynamic binarization: a pixel is 1 with the probability that its grey level states, drawn anew
    each time an image is seen (`evidence.datasets.binarize`, which refuses what is not in [0, 1]).
    """

    def loss_on_draws(
        model: VAE, batch: Tensor, generator: torch.Generator, **settings: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return loss(model, binarize(batch, generator), generator, **settings)

    return loss_on_draws


def warm_up(epochs: float, start: float = 0.0, end: float = 1.0) -> Callable[[float], float]:
    """Return a schedule that goes from `start` to `end` in a straight line, and stays there.

    Parameters
    ----------
    epochs : float
        How many epochs it takes, positive.
    start, end : float
        The values before the first step and from the epoch number `epochs` on.

    Returns
    -------
    callable
        Takes the number of epochs done so far, fractions included, and returns the value.

    Raises
    ------
    ValueError
        If `epochs` is not a positive number.
    """
    if not (epochs > 0 and math.isfinite(epochs)):
        raise ValueError(f"epochs is {epochs!r}; accepted are positive numbers")

    def schedule(epochs_done: float) -> float:
        return start + (end - start) * min(1.0, epochs_done / epochs)

    return schedule


def _check_weight(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value!r}; accepted are numbers from 0")

"""The networks of the book, and the losses they are trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits

__all__ = ["VAE", "Autoencoder", "mlp", "negative_elbo", "squared_error"]


def mlp(
    sizes: Sequence[int],
    generator: torch.Generator,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Make linear layers with an activation between each two of them.

    The weights are drawn as `torch.nn.Linear` draws them, uniformly within 1/sqrt(inputs) of zero,
    but from the generator given: a model does not depend on what was drawn before it.

    Parameters
    ----------
    sizes : sequence of int
        The widths from input to output, two at least.
    generator : torch.Generator
        Of the initial weights, on the CPU.
    activation : callable
        Makes an activation layer.

    Returns
    -------
    nn.Sequential
        Maps ``(batch, sizes[0])`` to ``(batch, sizes[-1])``.

    Raises
    ------
    ValueError
        If there are fewer than two sizes, or one is not a positive whole number.
    """
    if len(sizes) < 2 or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"sizes are {tuple(sizes)}; accepted are two or more whole numbers from 1")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        # Not initialised by the layer itself: that would draw from torch's global generator.
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        for parameter in linear.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1])


class Autoencoder(nn.Module):
    """An encoder to a code of few numbers, and a decoder back.

    Parameters
    ----------
    data_dim : int
        D, the number of elements of x.
    latent_dim : int
        d, the number of elements of the code z.
    hidden : sequence of int
        Widths of the encoder's hidden layers; the decoder has them in reverse. Without any, both
        are affine, and the best autoencoder spans the PCA subspace.
    activation : callable
        Makes an activation layer, for example ``nn.Tanh``.
    output : str
        ``"linear"``, or ``"sigmoid"`` for data in [0, 1].
    seed : int
        Of the initial weights.

    Raises
    ------
    ValueError
        If a width is not positive, or `output` is unknown.
    """

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        hidden: Sequence[int] = (400,),
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        output: str = "linear",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if output not in ("linear", "sigmoid"):
            raise ValueError(f"output is {output!r}; accepted are 'linear' and 'sigmoid'")
        generator = torch.Generator().manual_seed(seed)
        self.encoder = mlp((data_dim, *hidden, latent_dim), generator, activation)
        self.decoder = mlp((latent_dim, *reversed(hidden), data_dim), generator, activation)
        if output == "sigmoid":
            self.decoder.append(nn.Sigmoid())

    def encode(self, x: Tensor) -> Tensor:
        """Map data ``(batch, D)`` to codes ``(batch, d)``."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Map codes ``(batch, d)`` to reconstructions ``(batch, D)``."""
        return self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        """Map data ``(batch, D)`` to their reconstructions ``(batch, D)``."""
        return self.decode(self.encode(x))


def squared_error(
    model: nn.Module, batch: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Return the squared error of reconstructions, summed over pixels, as a mean over the data.

    Parameters
    ----------
    model : nn.Module
        Maps x to its reconstruction, of the same shape.
    batch : Tensor
        x, shape ``(batch, ...)``.
    generator : torch.Generator, optional
        Not used: nothing is drawn. It is there because `evidence.training.train` passes one.

    Returns
    -------
    Tensor
        A scalar, in squared units of x.
    """
    error = model(batch).to(batch.dtype) - batch
    return error.square().flatten(1).sum(1).mean()


class VAE(nn.Module):
    """A variational autoencoder with a Gaussian encoder and a Bernoulli decoder (arXiv 1312.6114).

    p(z) = N(0, I); p(x|z) has independent pixels, whose logits the decoder gives; q(z|x) is
    Gaussian with the mean and the standard deviations that the encoder gives.

    Parameters
    ----------
    data_dim : int
        D, the number of pixels.
    hidden : sequence of int
        Widths of the encoder's hidden layers; the decoder has them in reverse.
    latent_dim : int
        d, the number of elements of z.
    activation : callable
        Makes an activation layer.
    seed : int
        Of the initial weights.
    """

    def __init__(
        self,
        data_dim: int = 784,
        hidden: Sequence[int] = (400,),
        latent_dim: int = 20,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encoder = mlp((data_dim, *hidden, 2 * latent_dim), generator, activation)
        self.decoder = mlp((latent_dim, *reversed(hidden), data_dim), generator, activation)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and log-variance of q(z|x), ``(batch, d)`` each, for ``(batch, D)``."""
        mu, log_var = self.encoder(x).to(x.dtype).chunk(2, dim=-1)
        return mu, log_var

    def decode(self, z: Tensor) -> Tensor:
        """Return the logits of the pixels ``(..., D)`` for codes ``(..., d)``."""
        return self.decoder(z).to(z.dtype)

    def q_z(self, x: Tensor) -> Normal:
        """Return q(z|x), with batch shape ``(batch, d)``."""
        mu, log_var = self.encode(x)
        return Normal(mu, torch.exp(log_var / 2))

    def p_x_given_z(self, z: Tensor) -> Bernoulli:
        """Return p(x|z), with batch shape ``(..., D)``.

        It accepts grey pixels as well: its log-density is then the cross-entropy, which is not the
        logarithm of a density.
        """
        return Bernoulli(logits=self.decode(z), validate_args=False)

    def elbo(self, x: Tensor, eps: Tensor) -> Tensor:
        """Return a one-sample estimate of the ELBO of each x, with an exact KL term.

        Parameters
        ----------
        x : Tensor
            Shape ``(batch, D)``, pixels in [0, 1].
        eps : Tensor
            Shape ``(batch, d)``, drawn from N(0, I).

        Returns
        -------
        Tensor
            Shape ``(batch,)``, in nats.
        """
        q_z = self.q_z(x)
        z = q_z.loc + q_z.scale * eps
        log_p_x_given_z = self.p_x_given_z(z).log_prob(x).sum(-1)
        p_z = Normal(torch.zeros_like(q_z.loc), torch.ones_like(q_z.scale))
        return log_p_x_given_z - kl_divergence(q_z, p_z).sum(-1)


def negative_elbo(
    model: VAE, batch: Tensor, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return minus the mean of `VAE.elbo` over a batch, and its two terms: a loss for `train`.

    The same numbers as from the distributions, with fewer and larger operations: the Gaussian KL in
    closed form, and both sums taken over all elements at once.

    Parameters
    ----------
    model : VAE
        The model.
    batch : Tensor
        x, shape ``(batch, D)``, pixels in [0, 1].
    generator : torch.Generator
        Of eps, one sample for each x.

    Returns
    -------
    loss : Tensor
        A scalar, in nats.
    terms : dict of str to Tensor
        ``reconstruction``, the negative of the first term of the ELBO, and ``kl``; their sum is
        the loss.
    """
    mu, log_var = model.encode(batch)
    eps = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    sigma = torch.exp(log_var / 2)
    logits = model.decode(torch.addcmul(mu, sigma, eps))
    num_x = len(batch)
    reconstruction = binary_cross_entropy_with_logits(logits, batch, reduction="sum") / num_x
    kl = (mu.square() + sigma.square() - log_var - 1).sum() / (2 * num_x)
    return reconstruction + kl, {"reconstruction": reconstruction, "kl": kl}

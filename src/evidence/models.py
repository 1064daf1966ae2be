"""The networks of the book: layers, the autoencoder with its loss, the variational autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from evidence.datasets import check_pixels
from evidence.pixels import BernoulliPixels, Pixels

__all__ = ["LOG_VAR_BOUND", "VAE", "Autoencoder", "linear", "mlp", "squared_error"]

LOG_VAR_BOUND = 20.0
"""Between minus and plus which the log-variance of q(z|x) stays."""


def mlp(
    sizes: Sequence[int],
    generator: torch.Generator,
    activation: Callable[[], nn.Module] = nn.ReLU,
    weights: str = "uniform",
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Make linear layers with an activation between each two of them.

    The weights are drawn from the generator given: a model does not depend on what was drawn
    before it.

    Parameters
    ----------
    sizes : sequence of int
        The widths from input to output, two at least.
    generator : torch.Generator
        Of the initial weights, on the CPU.
    activation : callable
        Makes an activation layer.
    weights : str
        ``"uniform"``: weights and biases within 1/sqrt(inputs) of zero, as `torch.nn.Linear` has
        them. ``"xavier"``: weights within sqrt(6 / (inputs + outputs)), biases zero (Glorot and
        Bengio, 2010).
    dtype : torch.dtype, optional
        Of the weights; by default torch's default.

    Returns
    -------
    nn.Sequential
        Maps ``(batch, sizes[0])`` to ``(batch, sizes[-1])``.

    Raises
    ------
    ValueError
        If there are fewer than two sizes, one is not a positive whole number, or `weights` is
        unknown.
    """
    if weights not in ("uniform", "xavier"):
        raise ValueError(f"weights is {weights!r}; accepted are 'uniform' and 'xavier'")
    if len(sizes) < 2 or any(type(size) is not int or size < 1 for size in sizes):
        raise ValueError(f"sizes are {tuple(sizes)}; accepted are two or more whole numbers from 1")
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [linear(inputs, outputs, generator, weights, dtype), activation()]
        if isinstance(layers[-1], nn.ReLU):
            # Its gradient needs only its output, so it may overwrite its input: one array less to
            # write and to read again, in every layer of every step.
            layers[-1].inplace = True
    return nn.Sequential(*layers[:-1])


def linear(
    inputs: int,
    outputs: int,
    generator: torch.Generator,
    weights: str = "uniform",
    dtype: torch.dtype | None = None,
) -> nn.Linear:
    """Make a linear layer; the arguments are those of `mlp`, and `weights` may be ``"zeros"``."""
    # Not initialised by the layer itself: that would draw from torch's global generator.
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype)
    match weights:
        case "zeros":
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        case "xavier":
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        case "uniform":
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


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
    dtype : torch.dtype, optional
        Of the weights; by default torch's default.
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
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if output not in ("linear", "sigmoid"):
            raise ValueError(f"output is {output!r}; accepted are 'linear' and 'sigmoid'")
        generator = torch.Generator().manual_seed(seed)
        make = partial(mlp, generator=generator, activation=activation, dtype=dtype)
        self.encoder = make((data_dim, *hidden, latent_dim))
        self.decoder = make((latent_dim, *reversed(hidden), data_dim))
        self.output = output
        if output == "sigmoid":
            self.decoder.append(nn.Sigmoid())

    def check(self, x: Tensor, *, name: str = "x") -> None:
        """Refuse data that no reconstruction can come near: outside [0, 1] for ``"sigmoid"``.

        Only what is to be reconstructed must be so; `encode` accepts anything.

        Raises
        ------
        ImagesError
            See `evidence.datasets.check_pixels`.
        """
        if self.output == "sigmoid":
            check_pixels(x, name=name)

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

    Raises
    ------
    ImagesError
        If the model is an `Autoencoder` whose output is in [0, 1], and x is not.
    """
    if isinstance(model, Autoencoder):
        model.check(batch, name="batch")
    error = model(batch).to(batch.dtype) - batch
    return error.square().flatten(1).sum(1).mean()


class VAE(nn.Module):
    r"""A variational autoencoder with a Gaussian encoder (Kingma and Welling, arXiv 1312.6114).

    .. math:: p(z) = \mathcal N(0, I), \qquad
              p_\theta(x \mid z) \text{ independent over pixels}, \qquad
              q_\phi(z \mid x) = \mathcal N\bigl(\mu_\phi(x), \mathrm{diag}(\sigma_\phi(x)^2)\bigr)

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
    pixels : Pixels, optional
        What the decoder's output says about x, of `evidence.pixels`; by default log-odds of pixels
        that are 0 or 1.
    weights : str
        How the initial weights are drawn, see `mlp`.
    data_mean : Tensor, optional
        The mean of the data, ``(D,)``. The decoder then starts with a bias for which x has this
        mean, and not with a random one.
    dtype : torch.dtype, optional
        Of the weights; by default torch's default.
    seed : int
        Of the initial weights.

    Raises
    ------
    ValueError
        If a width is not positive, `weights` is unknown, or `data_mean` has another shape.

    Notes
    -----
    ``VAE(activation=nn.Tanh, hidden=(200, 200), latent_dim=50, weights="xavier",
    data_mean=images.mean(0))`` is the model with one stochastic layer of Burda, Grosse and
    Salakhutdinov (arXiv 1509.00519).
    """

    def __init__(
        self,
        data_dim: int = 784,
        hidden: Sequence[int] = (400,),
        latent_dim: int = 20,
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        pixels: Pixels | None = None,
        weights: str = "uniform",
        data_mean: Tensor | None = None,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        make = partial(
            mlp, generator=generator, activation=activation, weights=weights, dtype=dtype
        )
        self.data_dim, self.latent_dim = data_dim, latent_dim
        self.encoder = make((data_dim, *hidden, 2 * latent_dim))
        self.decoder = make((latent_dim, *reversed(hidden), data_dim))
        self.pixels = BernoulliPixels() if pixels is None else pixels
        if data_mean is not None:
            if data_mean.shape != (data_dim,):
                raise ValueError(
                    f"data_mean has the shape {tuple(data_mean.shape)}; accepted is ({data_dim},)"
                )
            with torch.no_grad():
                self.decoder[-1].bias.copy_(self.pixels.output_with_mean(data_mean))

    def check(self, x: Tensor, *, name: str = "x") -> None:
        """Refuse data that the model is not about.

        Parameters
        ----------
        x : Tensor
            Data of shape ``(..., D)``, of the kind that `pixels` is a density of.
        name : str
            What the error calls them.

        Raises
        ------
        ValueError
            If the last axis is not D long, or `Pixels.check` refuses the values.
        """
        if x.ndim == 0 or x.shape[-1] != self.data_dim:
            flattens = x.ndim > 2 and x[0].numel() == self.data_dim
            raise ValueError(
                f"{name}: expected the shape (..., {self.data_dim}), got {tuple(x.shape)}"
                + (f"; use {name}.flatten(1)" if flattens else "")
            )
        self.pixels.check(x, name=name)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and log-variance of q(z|x), ``(batch, d)`` each, for ``(batch, D)``.

        The log-variance is ``20 tanh(a / 20)`` of the encoder's output a: within 0.1 of it where a
        standard deviation is between 0.14 and 7, and never outside [-20, 20]. So sigma is between
        4.5e-5 and 2.2e4, and its square between 2.1e-9 and 4.9e8: no exponential can overflow in
        float64, float32 or bfloat16. float16, which ends at 65,504, holds sigma and not always its
        square.

        Raises
        ------
        ValueError
            If `check` refuses x.
        """
        self.check(x)
        mu, a = self.encoder(x).to(x.dtype).chunk(2, dim=-1)
        return mu, LOG_VAR_BOUND * torch.tanh(a / LOG_VAR_BOUND)

    def decode(self, z: Tensor) -> Tensor:
        """Return the decoder's output ``(..., D)`` for codes ``(..., d)``: by default logits."""
        return self.decoder(z).to(z.dtype)

    def q_z(self, x: Tensor) -> Normal:
        """Return q(z|x), with batch shape ``(batch, d)``."""
        mu, log_var = self.encode(x)
        return Normal(mu, torch.exp(log_var / 2))

    def p_z(self) -> Normal:
        """Return the prior p(z), with batch shape ``(d,)``."""
        like = next(self.parameters())
        return Normal(like.new_zeros(self.latent_dim), like.new_ones(self.latent_dim))

    def p_x_given_z(self, z: Tensor) -> Distribution:
        """Return p(x|z), with batch shape ``(..., D)``."""
        return self.pixels(self.decode(z))

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log p(x, z), ``eq-joint``, in nats.

        Parameters
        ----------
        x, z : Tensor
            Shapes ``(..., D)`` and ``(..., d)``; the leading shapes broadcast.

        Returns
        -------
        Tensor
            The leading shape.

        Raises
        ------
        ValueError
            If `check` refuses x.
        """
        self.check(x)
        return self.p_z().log_prob(z).sum(-1) + self.p_x_given_z(z).log_prob(x).sum(-1)

    def elbo(self, x: Tensor, eps: Tensor) -> Tensor:
        """Return a one-sample estimate of the ELBO of each x, with an exact KL term.

        Parameters
        ----------
        x : Tensor
            Shape ``(batch, D)``, of the kind that `pixels` is a density of.
        eps : Tensor
            Shape ``(batch, d)``, drawn from N(0, I).

        Returns
        -------
        Tensor
            Shape ``(batch,)``, in nats.

        Raises
        ------
        ValueError
            If `check` refuses x.
        """
        q_z = self.q_z(x)
        z = q_z.loc + q_z.scale * eps
        log_p_x_given_z = self.p_x_given_z(z).log_prob(x).sum(-1)
        return log_p_x_given_z - kl_divergence(q_z, self.p_z()).sum(-1)

"""The diffusions that several pages use: each has one definition and is trained once.

All predict with a network that holds an exponential average of the weights it went through, and
have seen times that are continuous, so they can be sampled with a schedule of any length that stays
within `LOG_SNR` (for digits `DIGIT_LOG_SNR`), as
``discretize(cosine_log_snr(*LOG_SNR), num_steps)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from evidence.datasets import load_mnist
from evidence.diffusion.arguments import as_whole_number
from evidence.diffusion.clouds import mixture, moons, shape
from evidence.diffusion.losses import denoising_loss
from evidence.diffusion.networks import ImageNetwork, VectorNetwork
from evidence.diffusion.prediction import NetworkDenoiser
from evidence.diffusion.schedule import cosine_log_snr
from evidence.digit_models import digit_autoencoder, digit_vae, epochs_for
from evidence.history import History
from evidence.likelihood import draw
from evidence.model_store import train_once
from evidence.models import VAE, Autoencoder
from evidence.training import Data, adam

__all__ = [
    "DIGIT_LOG_SNR",
    "LOG_SNR",
    "DigitCodes",
    "cloud_diffusion",
    "cloud_points",
    "code_diffusion",
    "digit_codes",
    "digit_diffusion",
]

LOG_SNR = (10.0, -10.0)
"""The highest and the lowest log-SNR that networks on points and codes were trained at."""
DIGIT_LOG_SNR = (6.0, -8.0)
"""The same for networks on digits, a choice. At 6 the noise has a standard deviation of 0.05."""

CLOUD_POINTS = 20_480
CLOUD_EPOCHS = 20
DIGIT_EPOCHS = 40
CODE_STEPS = 700


def cloud_points(name: str) -> Tensor:
    """Return the points that `cloud_diffusion` is trained on.

    Parameters
    ----------
    name : str
        ``"mixture"``, ``"moons"`` or ``"shape"``, of `evidence.diffusion.clouds`.

    Returns
    -------
    Tensor
        Shape ``(20480, 2)``, float32.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    draw = {"mixture": lambda n, g: mixture().sample(n, g), "moons": moons, "shape": shape}
    if name not in draw:
        raise ValueError(f"name is {name!r}; accepted are {', '.join(map(repr, draw))}")
    return draw[name](CLOUD_POINTS, torch.Generator().manual_seed(0)).float()


def cloud_diffusion(
    name: str = "mixture",
    *,
    prediction: str = "eps",
    seed: int = 0,
    progress: bool | None = None,
) -> tuple[NetworkDenoiser, History]:
    """Return a diffusion of points in the plane, trained.

    Parameters
    ----------
    name : str
        ``"mixture"``, ``"moons"`` or ``"shape"``.
    prediction : str
        What the network predicts: ``"eps"``, ``"x_0"`` or ``"v"``.
    seed : int
        Of the initial weights, of the order of the points and of all draws.
    progress : bool, optional
        Whether a bar is shown; by default where it leaves nothing behind.

    Returns
    -------
    model : NetworkDenoiser
        In evaluation mode, float32.
    history : History
        The loss of each epoch, `denoising_loss` with its simple weighting.

    Raises
    ------
    ValueError
        If `name` or `prediction` is unknown.
    """
    network = VectorNetwork(2, hidden=64, blocks=2, condition=32, dtype=torch.float32, seed=seed)
    return _trained(
        NetworkDenoiser(network, prediction),
        cloud_points(name),
        name=f"cloud-{name}-{prediction.replace('_', '-')}",
        log_snr=LOG_SNR,
        epochs=CLOUD_EPOCHS,
        batch_size=512,
        lr=6e-3,
        ema_decay=0.99,
        seed=seed,
        progress=progress,
    )


def digit_diffusion(
    *, seed: int = 0, conditional: bool = True, progress: bool | None = None
) -> tuple[NetworkDenoiser, History]:
    """Return a diffusion of digits, trained on grey levels from -1 (paper) to 1 (ink).

    The network is dense and predicts x_0. Both were chosen by trial, within the time that a page
    has: in equal time a dense network that predicts v, and convolutional ones, gave samples that a
    classifier recognised less often.

    Parameters
    ----------
    seed : int
        Of the initial weights, of the order of the digits and of all draws.
    conditional : bool
        Whether the network is told the label, for nine in ten of the digits that it sees. It can
        then be asked with a label and without.
    progress : bool, optional
        Whether a bar is shown; by default where it leaves nothing behind.

    Returns
    -------
    model : NetworkDenoiser
        In evaluation mode, float32; of images ``(batch, 1, 28, 28)``.
    history : History
        The loss of each epoch, `denoising_loss` with its simple weighting.
    """
    digits = load_mnist("train")
    images = 2 * digits.images.view(-1, 1, 28, 28) - 1
    network = ImageNetwork(num_labels=10 if conditional else 0, dtype=torch.float32, seed=seed)
    return _trained(
        NetworkDenoiser(network, "x_0"),
        (images, digits.labels) if conditional else images,
        name="digits-with-labels" if conditional else "digits",
        log_snr=DIGIT_LOG_SNR,
        epochs=epochs_for(len(images), DIGIT_EPOCHS),
        batch_size=64,
        lr=1.5e-3,
        ema_decay=0.995,
        seed=seed,
        progress=progress,
    )


@dataclass(frozen=True, eq=False)
class DigitCodes:
    """The codes of digits, each element with mean 0 and variance 1, and the way back to digits.

    Attributes
    ----------
    codes : Tensor
        Shape ``(n, d)``, standardised.
    mean, std : Tensor
        Of each element before, shape ``(d,)``.
    model : VAE or Autoencoder
        Where the codes come from.
    """

    codes: Tensor
    mean: Tensor
    std: Tensor
    model: VAE | Autoencoder

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Map standardised codes ``(batch, d)`` to images ``(batch, 784)`` from 0 to 1.

        Of a VAE, the mean of p(x|z).
        """
        z = codes * self.std + self.mean
        if isinstance(self.model, VAE):
            return self.model.p_x_given_z(z).mean
        return self.model.decode(z)

    def standardised(self, z: Tensor) -> Tensor:
        """Map codes ``(batch, d)`` as the model has them to standardised ones."""
        return (z - self.mean) / self.std


def digit_codes(
    latent_dim: int = 20,
    *,
    source: str = "vae",
    num_samples: int = 5,
    progress: bool | None = None,
) -> DigitCodes:
    """Return the codes that the book's VAE or autoencoder gives the training digits.

    Parameters
    ----------
    latent_dim : int
        d.
    source : str
        ``"vae"``: draws from q(z|x) of `evidence.digit_models.digit_vae`, so that their
        distribution is the aggregate posterior. ``"autoencoder"``: the codes of
        `evidence.digit_models.digit_autoencoder`.
    num_samples : int
        How many draws for each digit, from a VAE.
    progress : bool, optional
        Whether a bar is shown if that model is trained first.

    Returns
    -------
    DigitCodes

    Raises
    ------
    ValueError
        If `source` is unknown, or `num_samples` is not a whole number from 1.
    """
    number = as_whole_number(num_samples)
    if number is None or number < 1:
        raise ValueError(f"num_samples is {num_samples!r}; accepted are whole numbers from 1")
    digits = load_mnist("train").images
    match source:
        case "vae":
            model, _ = digit_vae(latent_dim, progress=progress)
            with torch.no_grad():
                q_z = model.q_z(digits)
            z = draw(q_z, number, torch.Generator().manual_seed(0)).flatten(0, 1)
        case "autoencoder":
            model, _ = digit_autoencoder(latent_dim, progress=progress)
            with torch.no_grad():
                z = model.encode(digits)
        case _:
            raise ValueError(f"source is {source!r}; accepted are 'vae' and 'autoencoder'")
    std, mean = torch.std_mean(z, dim=0, correction=0)
    return DigitCodes((z - mean) / std, mean, std, model)


def code_diffusion(
    latent_dim: int = 20, *, source: str = "vae", seed: int = 0, progress: bool | None = None
) -> tuple[NetworkDenoiser, History]:
    """Return a diffusion of the codes of `digit_codes`, trained: a density on z.

    Parameters
    ----------
    latent_dim, source
        As of `digit_codes`.
    seed : int
        Of the initial weights, of the order of the codes and of all draws.
    progress : bool, optional
        Whether a bar is shown; by default where it leaves nothing behind.

    Returns
    -------
    model : NetworkDenoiser
        In evaluation mode, float32; of standardised codes ``(batch, d)``. It predicts v.
    history : History
        The loss of each epoch, `denoising_loss` with its simple weighting.

    Raises
    ------
    ValueError
        If `source` is unknown.
    """
    codes = digit_codes(latent_dim, source=source, progress=progress).codes
    network = VectorNetwork(latent_dim, hidden=192, blocks=2, dtype=torch.float32, seed=seed)
    return _trained(
        NetworkDenoiser(network, "v"),
        codes,
        name=f"codes-{source}-{latent_dim}",
        log_snr=LOG_SNR,
        epochs=max(1, round(CODE_STEPS * 256 / len(codes))),
        batch_size=256,
        lr=2e-3,
        ema_decay=0.99,
        seed=seed,
        progress=progress,
    )


def _trained(
    model: NetworkDenoiser,
    data: Data,
    *,
    log_snr: tuple[float, float],
    epochs: int,
    lr: float,
    **arguments: Any,
) -> tuple[NetworkDenoiser, History]:
    """Train a denoiser on the simple loss, with a learning rate that falls on a cosine."""
    history = train_once(
        model,
        data,
        partial(denoising_loss, log_snr_of_time=cosine_log_snr(*log_snr)),
        epochs=epochs,
        optimizer=partial(adam, lr=lr),
        schedule=partial(CosineAnnealingLR, T_max=epochs),
        **arguments,
    )
    return model.eval(), history

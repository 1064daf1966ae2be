"""The networks on digits that several pages use: each has one definition and is trained once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torch.optim.lr_scheduler import CosineAnnealingLR

from evidence.datasets import load_mnist
from evidence.history import History
from evidence.model_store import train_once
from evidence.models import VAE, Autoencoder, squared_error
from evidence.objectives import negative_elbo, on_binarized
from evidence.pixels import BernoulliPixels, Pixels
from evidence.training import adam

__all__ = ["DigitClassifier", "digit_autoencoder", "digit_classifier", "digit_vae"]

EPOCHS = 30
VAE_EPOCHS = 60
CLASSIFIER_EPOCHS = 10
MOST_SHIFT = 2


def digit_autoencoder(
    latent_dim: int, *, seed: int = 0, progress: bool | None = None
) -> tuple[Autoencoder, History]:
    """Return the autoencoder 784-256-64-d-64-256-784, trained on the digits.

    Parameters
    ----------
    latent_dim : int
        d, the number of elements of the code.
    seed : int
        Of the initial weights and of the order of the data.
    progress : bool, optional
        Whether a bar is shown; by default where it leaves nothing behind.

    Returns
    -------
    model : Autoencoder
        In evaluation mode, float32.
    history : History
        The loss (`def-ae-loss`) of each epoch, and its value on the test digits as `test`.
    """
    digits, test = load_mnist("train").images, load_mnist("test").images
    model = Autoencoder(
        784,
        latent_dim,
        hidden=(256, 64),
        activation=nn.SiLU,
        output="sigmoid",
        dtype=torch.float32,
        seed=seed,
    )
    history = train_once(
        model,
        digits,
        squared_error,
        name=f"autoencoder-{latent_dim}",
        epochs=EPOCHS,
        batch_size=100,
        optimizer=partial(adam, lr=2e-3),
        schedule=partial(CosineAnnealingLR, T_max=EPOCHS),
        evaluate=lambda trained: {"test": squared_error(trained, test).item()},
        seed=seed,
        progress=progress,
    )
    return model.eval(), history


def digit_vae(
    latent_dim: int = 20,
    *,
    pixels: Pixels | None = None,
    loss: Callable[..., Any] = negative_elbo,
    loss_schedules: Mapping[str, Callable[[float], float]] | None = None,
    epochs: int = VAE_EPOCHS,
    seed: int = 0,
    progress: bool | None = None,
) -> tuple[VAE, History]:
    """Return the VAE 784-400-d-400-784, trained on the digits.

    Bernoulli pixels, the default, see a new binary draw of the digits in every epoch (dynamic
    binarization); other pixels see the grey levels. With ``EVIDENCE_MNIST=full`` the same is done
    with the full set; an epoch then has fifteen times the steps.

    Parameters
    ----------
    latent_dim : int
        d, the number of latents.
    pixels : Pixels, optional
        p(x|z), of `evidence.pixels`; Bernoulli by default.
    loss : callable
        Of `evidence.objectives`, with its settings.
    loss_schedules : dict of str to callable, optional
        See `evidence.training.train`.
    epochs : int
        How long; the learning rate falls from 0.002 to 0 on a cosine.
    seed : int
        Of the initial weights, of the order of the data and of all draws.
    progress : bool, optional
        Whether a bar is shown; by default where it leaves nothing behind.

    Returns
    -------
    model : VAE
        In evaluation mode, float32.
    history : History
        The loss and its terms of each epoch; and, on the test digits, minus the ELBO as `test`,
        with its terms `test reconstruction` and `test kl`. The draws on the test digits are the
        same in all epochs and for all models.
    """
    digits, test = load_mnist("train").images, load_mnist("test").images
    model = VAE(
        784,
        (400,),
        latent_dim,
        pixels=pixels,
        weights="xavier",
        data_mean=digits.mean(0),
        dtype=torch.float32,
        seed=seed,
    ).float()  # for a scale of the pixels that was made before
    is_binary = pixels is None or isinstance(pixels, BernoulliPixels)
    negative_elbo_of = on_binarized(negative_elbo) if is_binary else negative_elbo

    def evaluate(trained: VAE) -> dict[str, float]:
        value, terms = negative_elbo_of(trained, test, torch.Generator().manual_seed(0))
        return {"test": value.item(), **{f"test {name}": v.item() for name, v in terms.items()}}

    history = train_once(
        model,
        digits,
        on_binarized(loss) if is_binary else loss,
        name=f"vae-{latent_dim}",
        epochs=epochs,
        batch_size=100,
        optimizer=partial(adam, lr=2e-3),
        schedule=partial(CosineAnnealingLR, T_max=max(1, epochs)),
        loss_schedules=loss_schedules,
        evaluate=evaluate,
        seed=seed,
        progress=progress,
    )
    return model.eval(), history


class DigitClassifier(nn.Module):
    """A small convolutional classifier of digits: a judge of samples, not of the classifier's art.

    Parameters
    ----------
    seed : int
        Of the initial weights.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        make = partial(nn.utils.skip_init, dtype=torch.float32)
        layers = [
            make(nn.Conv2d, 1, 16, 5, 2, 2), nn.ReLU(),
            make(nn.Conv2d, 16, 32, 5, 2, 2), nn.ReLU(),
            nn.Flatten(), make(nn.Linear, 32 * 7 * 7, 128), nn.ReLU(),
        ]  # fmt: skip
        self.body = nn.Sequential(*layers)
        self.head = make(nn.Linear, 128, 10)
        for layer in (*layers, self.head):
            for parameter in layer.parameters():
                bound = layer.weight[0].numel() ** -0.5
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def features(self, x: Tensor) -> Tensor:
        """Map images ``(batch, 784)`` from 0 to 1 to the 128 numbers before the last layer."""
        return self.body(x.view(-1, 1, 28, 28))

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(batch, 784)`` from 0 to 1 to logits ``(batch, 10)``."""
        return self.head(self.features(x))


def digit_classifier(
    *, seed: int = 0, progress: bool | None = None
) -> tuple[DigitClassifier, History]:
    """Return a classifier of digits, trained on them: what says how much samples look like digits.

    Each batch is shifted by up to two pixels in each direction.

    Parameters
    ----------
    seed : int
        Of the initial weights, of the order of the data and of the shifts.
    progress : bool, optional
        Whether a bar is shown; by default where it leaves nothing behind.

    Returns
    -------
    model : DigitClassifier
        In evaluation mode, float32.
    history : History
        The cross-entropy of each epoch in nats, and the share of test digits that are classified
        right as `test accuracy`.
    """
    digits, test = load_mnist("train"), load_mnist("test")
    model = DigitClassifier(seed)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
        x, label = batch
        down, right = torch.randint(2 * MOST_SHIFT + 1, (2,), generator=generator).tolist()
        padded = pad(x.view(-1, 28, 28), (MOST_SHIFT,) * 4)
        shifted = padded[:, down : down + 28, right : right + 28]
        return cross_entropy(model(shifted.flatten(1)), label)

    history = train_once(
        model,
        (digits.images, digits.labels),
        loss,
        name="classifier",
        epochs=CLASSIFIER_EPOCHS,
        batch_size=100,
        optimizer=partial(adam, lr=2e-3),
        schedule=partial(CosineAnnealingLR, T_max=CLASSIFIER_EPOCHS),
        evaluate=lambda trained: {
            "test accuracy": (trained(test.images).argmax(1) == test.labels).double().mean().item()
        },
        seed=seed,
        progress=progress,
    )
    return model.eval(), history

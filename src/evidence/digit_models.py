"""The networks on digits that several pages use: each has one definition and is trained once.

How long is said in epochs of the sample. The full set has fifteen times the digits, and takes a
fifth of the epochs (`epochs_for`): three times the steps, in three times the time.
"""

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

__all__ = ["DigitClassifier", "digit_autoencoder", "digit_classifier", "digit_vae", "epochs_for"]

EPOCHS = 30
VAE_EPOCHS = 60
CLASSIFIER_EPOCHS = 10
MOST_SHIFT = 2
MOST_PER_EPOCH = 12_000


def epochs_for(num_digits: int, epochs: int) -> int:
    """Return how many epochs on so many digits stand for a number of epochs on the sample.

    Parameters
    ----------
    num_digits : int
        How many are trained on.
    epochs : int
        How many the sample takes. Up to 12,000 digits take as many; more take fewer, in proportion,
        so that the number of steps grows no further: a fifth for 60,000.

    Returns
    -------
    int
        At least 1 where `epochs` is.
    """
    if num_digits <= MOST_PER_EPOCH:
        return epochs
    return max(min(1, epochs), round(epochs * MOST_PER_EPOCH / num_digits))


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
    epochs = epochs_for(len(digits), EPOCHS)
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
        epochs=epochs,
        batch_size=100,
        optimizer=partial(adam, lr=2e-3),
        schedule=partial(CosineAnnealingLR, T_max=epochs),
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
    binarization); other pixels see the grey levels.

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
        How long on the sample; on the full set a fifth of it (`epochs_for`). The learning rate
        falls from 0.002 to 0 on a cosine.
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
    epochs = epochs_for(len(digits), epochs)
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
    epochs = epochs_for(len(digits), CLASSIFIER_EPOCHS)
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
        epochs=epochs,
        batch_size=100,
        optimizer=partial(adam, lr=2e-3),
        schedule=partial(CosineAnnealingLR, T_max=epochs),
        evaluate=lambda trained: {
            "test accuracy": (trained(test.images).argmax(1) == test.labels).double().mean().item()
        },
        seed=seed,
        progress=progress,
    )
    return model.eval(), history

"""The networks on digits that several pages use: each has one definition and is trained once."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from evidence.datasets import load_mnist
from evidence.history import History
from evidence.model_store import train_once
from evidence.models import Autoencoder, squared_error
from evidence.training import adam

__all__ = ["digit_autoencoder"]

EPOCHS = 30


def digit_autoencoder(
    latent_dim: int, *, seed: int = 0, progress: bool | None = None
) -> tuple[Autoencoder, History]:
    """Return the autoencoder 784-256-64-d-64-256-784 of pages 1 and 2, trained on the digits.

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
        784, latent_dim, hidden=(256, 64), activation=nn.SiLU, output="sigmoid", seed=seed
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

"""Train and evaluate the model with one stochastic layer of Burda, Grosse and Salakhutdinov.

784-200-200-50 with tanh, Bernoulli pixels, binarized anew in every epoch; trained on the bound from
``--num-samples`` draws, and evaluated by importance sampling on the test digits (arXiv 1509.00519,
table 1). Nothing here is code of its own: it is `evidence` with other settings. The run can be
stopped and started again; it goes on from the last epoch that was finished.

Their schedule (the default) has 3,280 epochs of batches of 20 and takes hours; a shorter one::

    python benchmarks/burda.py --objective iwae --num-samples 5 --folder results/iwae-5
    python benchmarks/burda.py --epochs 60 --batch-size 100 --folder results/short
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from evidence.datasets import binarize, load_mnist
from evidence.latent_use import latent_use
from evidence.likelihood import importance_sampled
from evidence.models import VAE
from evidence.objectives import negative_elbo, negative_iwae, on_binarized
from evidence.training import train

STAGES = 8
DRAWS = 5000


def adam(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Make Adam with the constant of the paper."""
    parameters = list(parameters)
    return Adam(parameters, lr=lr, eps=1e-4, fused=True)


def learning_rate_of_paper(epoch: int) -> float:
    """Return the factor ``10^(-i/7)`` of stage i, which has 3^i epochs."""
    stage, end = 0, 1
    while epoch >= end and stage < STAGES - 1:
        stage, end = stage + 1, end + 3 ** (stage + 1)
    return 10 ** (-stage / 7)


def plan(epochs: int | None) -> tuple[int, Callable[[Optimizer], LRScheduler]]:
    """Return the number of epochs and the schedule: the paper's, or a cosine."""
    if epochs is None:
        return sum(3**i for i in range(STAGES)), partial(LambdaLR, lr_lambda=learning_rate_of_paper)
    return epochs, partial(CosineAnnealingLR, T_max=epochs)


def evaluate(model: VAE, images: torch.Tensor, draws_at_once: int) -> dict[str, float]:
    """Return minus the bound and minus log p(x) of binarized digits, with standard errors."""
    generator = torch.Generator(images.device).manual_seed(0)
    x = binarize(images, generator)
    result = importance_sampled(
        model, x, num_samples=DRAWS, generator=generator, draws_at_once=draws_at_once
    )
    return {
        "negative ELBO": -result.elbo.mean().item(),
        "negative log-likelihood": -result.mean,
        "standard error, of the draws": result.mean_standard_error,
        "standard error, of the choice of digits": result.mean_sampling_error,
        "median effective sample size": result.effective_sample_size.median().item(),
        "active latents": latent_use(model, x).num_active,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objective", choices=("elbo", "iwae"), default="elbo")
    parser.add_argument("--num-samples", type=int, default=1, help="K of the objective (default 1)")
    parser.add_argument("--epochs", type=int, help="with a cosine (default: the paper's schedule)")
    parser.add_argument("--batch-size", type=int, default=20, help="default 20, as in the paper")
    parser.add_argument("--lr", type=float, default=1e-3, help="first learning rate, 0.001")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws-at-once", type=int, default=2048, help="in the evaluation")
    parser.add_argument("--folder", type=Path, required=True, help="of checkpoint and results")
    parser.add_argument(
        "--source",
        choices=("sample", "full"),
        default="full" if os.environ.get("EVIDENCE_DATA") else "sample",
        help="which digits; full by default if EVIDENCE_DATA names their folder",
    )
    settings = parser.parse_args()
    if settings.objective == "elbo" and settings.num_samples != 1:
        parser.error("--num-samples belongs to --objective iwae")
    # Used after hours of training.
    for name in ("draws_at_once", "num_samples", "batch_size"):
        if (value := getattr(settings, name)) < 1:
            parser.error(f"--{name.replace('_', '-')}: expected 1 or more, got {value}")
    settings.folder.mkdir(parents=True, exist_ok=True)

    images = load_mnist("train", settings.source).images.to(settings.device)
    test_images = load_mnist("test", settings.source).images.to(settings.device)
    model = VAE(
        784, (200, 200), 50, activation=nn.Tanh, weights="xavier",
        data_mean=images.mean(0).cpu(), seed=settings.seed,
    ).to(settings.device)  # fmt: skip
    objective = (
        negative_elbo
        if settings.objective == "elbo"
        else partial(negative_iwae, num_samples=settings.num_samples)
    )
    epochs, schedule = plan(settings.epochs)
    start = time.perf_counter()
    history = train(
        model, images, on_binarized(objective), epochs=epochs, batch_size=settings.batch_size,
        optimizer=partial(adam, lr=settings.lr), schedule=schedule, seed=settings.seed,
        checkpoint=settings.folder / "checkpoint.safetensors",
    )  # fmt: skip
    trained = time.perf_counter()
    figures = evaluate(model.eval(), test_images, settings.draws_at_once)
    result = {
        **{name: str(value) for name, value in vars(settings).items() if name != "folder"},
        "epochs": epochs,
        "digits": len(images),
        "test digits": len(test_images),
        "training loss of the last epoch": history.loss[-1],
        "seconds an epoch": sum(history.seconds) / history.epochs,
        "seconds of this call": trained - start,
        "seconds of the evaluation": time.perf_counter() - trained,
        **figures,
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name()
        if "cuda" in settings.device
        else platform.machine(),
    }
    text = json.dumps(result, indent=2)
    (settings.folder / "result.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

"""What an epoch of the book's training loop costs, beside the usual way of writing it.

The same VAE (784-400-20, Adam at 1e-3, batches of 128, grey digits) is trained by

- `evidence.training.train`, in float32 and, where the processor has it, in bfloat16;
- the usual script: a ``Dataset`` that makes an image of each digit and a tensor of each image, as
  torchvision's ``MNIST`` with ``ToTensor`` does; a ``DataLoader``; ``loss.item()`` in every step.

Both start from the same weights, see the same digits, make the same number of steps, and take turns
epoch by epoch, so that other work on the machine strikes both. An epoch is timed by the clock on
the wall with all that belongs to it, the order of the data and the gathering included. Run it on a
quiet machine, or at least with ``OMP_WAIT_POLICY=passive`` on a busy one::

    python benchmarks/training_speed.py --epochs 3
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (as the usual script writes it)
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from evidence.datasets import load_mnist
from evidence.models import VAE, negative_elbo
from evidence.training import train

BATCH_SIZE = 128
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


@dataclass
class Result:
    """What one side needed for each epoch, and the bound that it reached on test digits."""

    name: str
    seconds: list[float]
    test_bound: float


class DigitImages(Dataset):
    """Digits as images in the manner of torchvision: one image and one tensor for each index."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.data = (images * 255).round().to(torch.uint8).reshape(-1, 28, 28)
        self.targets = labels

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.data[index].numpy())
        return to_tensor(image), int(self.targets[index])


def to_tensor(image: Image.Image) -> Tensor:
    """Turn an image into floats in [0, 1] of shape ``(1, 28, 28)``, as ``ToTensor`` does."""
    pixels = torch.from_numpy(np.array(image, np.uint8, copy=True))
    pixels = pixels.view(image.size[1], image.size[0], 1).permute(2, 0, 1).contiguous()
    return pixels.to(dtype=torch.float32).div(255)


def usual_script(model: VAE, images: Tensor, labels: Tensor) -> Callable[[int], None]:
    """One epoch as it is usually written."""
    loader = DataLoader(
        DigitImages(images, labels), batch_size=BATCH_SIZE, shuffle=True, num_workers=0
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def run_epoch(epoch: int) -> None:
        model.train()
        torch.manual_seed(epoch)
        train_loss = 0.0
        for data, _ in loader:
            optimizer.zero_grad()
            x = data.view(-1, 784)
            mu, log_var = model.encode(x)
            std = torch.exp(0.5 * log_var)
            reconstruction = torch.sigmoid(model.decode(mu + torch.randn_like(std) * std))
            cross_entropy = F.binary_cross_entropy(reconstruction, x, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_var - mu.pow(2) - log_var.exp())
            loss = cross_entropy + kl
            loss.backward()
            train_loss += loss.item()
            optimizer.step()

    return run_epoch


def compare(
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    *,
    epochs: int,
    seed: int,
    autocast: torch.dtype | None,
) -> tuple[Result, Result]:
    """Train both ways in turns; return the result of this book and that of the usual script."""
    ours, usual = VAE(seed=seed), VAE(seed=seed)
    run_usual_epoch = usual_script(usual, images, labels)
    usual_seconds = []

    def let_the_other_train(_: nn.Module) -> dict[str, float]:
        # `train` calls this between two epochs and does not count its time.
        with torch.enable_grad():
            start = time.perf_counter()
            run_usual_epoch(len(usual_seconds))
            usual_seconds.append(time.perf_counter() - start)
        print(f"epoch {len(usual_seconds)} of {epochs} done", file=sys.stderr, flush=True)
        return {}

    history = train(
        ours, images, negative_elbo, epochs=epochs, batch_size=BATCH_SIZE, seed=seed,
        autocast=autocast, evaluate=let_the_other_train, progress=False,
    )  # fmt: skip
    name = "this book, " + ("float32" if autocast is None else "bfloat16")
    return (
        Result(name, history.seconds, mean_bound(ours, test_images)),
        Result("usual script", usual_seconds, mean_bound(usual, test_images)),
    )


@torch.no_grad()
def mean_bound(model: VAE, images: Tensor) -> float:
    """Return the mean negative ELBO of digits, with the same noise for every model."""
    loss, _ = negative_elbo(model.eval(), images, torch.Generator().manual_seed(0))
    return loss.item()


def bfloat16_instructions() -> list[str]:
    """Return the instructions of this processor that multiply matrices of bfloat16."""
    found = torch.cpu.get_capabilities()
    return [name for name in BFLOAT16_INSTRUCTIONS if found.get(name)]


def table(pairs: list[tuple[Result, Result]], missing: str | None) -> str:
    """Write down all results, each pair with its ratio, and why bfloat16 is missing if it is."""
    lines = [
        f"{'':20}  seconds per epoch   times as fast as usual   test -ELBO",
        f"{'':20}     min    median        min      median         (nats)",
    ]
    for ours, usual in pairs:
        for side in (ours, usual):
            fastest, median = min(side.seconds), statistics.median(side.seconds)
            lines.append(
                f"{side.name:20}  {fastest:6.2f}    {median:6.2f}"
                f"     {min(usual.seconds) / fastest:6.2f}      "
                f"{statistics.median(usual.seconds) / median:6.2f}       {side.test_bound:8.2f}"
            )
    if missing:
        lines.append(f"{'this book, bfloat16':20}  {missing}")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=5, help="epochs of each side (default 5)")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="threads (default: all cores)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (default 0)")
    parser.add_argument(
        "--source",
        choices=("sample", "full"),
        default="full" if os.environ.get("EVIDENCE_DATA") else "sample",
        help="which digits; full by default if EVIDENCE_DATA names their folder",
    )
    parser.add_argument(
        "--digits", type=int, help="train on so many of them only, for short epochs (default: all)"
    )
    arguments = parser.parse_args()
    for name in ("epochs", "threads", "digits"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; it must be 1 or more")
    torch.set_num_threads(arguments.threads)

    digits, test = load_mnist("train", arguments.source), load_mnist("test", arguments.source)
    images, labels = digits.images[: arguments.digits], digits.labels[: arguments.digits]
    instructions = bfloat16_instructions()
    print(
        f"VAE 784-400-20, batches of {BATCH_SIZE}, {len(images):,} digits, {arguments.epochs} "
        f"epochs, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"bfloat16 instructions: {', '.join(instructions) or 'none'}"
    )
    dtypes = [None, torch.bfloat16] if instructions else [None]
    missing = f"not available on this processor (none of {', '.join(BFLOAT16_INSTRUCTIONS)})"
    pairs = [
        compare(
            images,
            labels,
            test.images,
            epochs=arguments.epochs,
            seed=arguments.seed,
            autocast=dtype,
        )
        for dtype in dtypes
    ]
    print(table(pairs, None if instructions else missing))


if __name__ == "__main__":
    main()

"""What the book's code costs, beside the usual way of writing it and beside the arithmetic itself.

*Training.* The same VAE (784-400-20, Adam at 1e-3, batches of 128, grey digits) is trained by

- `evidence.training.train`, in float32 and, where the processor has it, in bfloat16;
- the usual script: a ``Dataset`` that makes an image of each digit and a tensor of each image, as
  torchvision's ``MNIST`` with ``ToTensor`` does; a ``DataLoader``; ``loss.item()`` in every step;
- pyro and pythae, if they are installed: pyro's ``SVI`` over batches in memory, pythae's trainer.

All start from the same weights, see the same digits, make the same number of steps, and take turns
epoch by epoch, so that other work on the machine strikes all. An epoch is timed by the clock on the
wall with all that belongs to it, the order of the data and the gathering included. The bound on
test digits is compared after equal epochs, and after as many epochs of the book's loop as fit into
the time of the usual script.

*Ceiling.* The matrix products of a step alone, at the sizes of the model, and the share of an epoch
that they account for: the rest is everything that is not a matrix product.

*Evaluation.* Importance-sampled log p(x): draws a second, and how much memory they take, for a
growing number of draws; each in a process of its own, whose peak is its own.

Run it on a quiet machine: each part says how much of it others took, and is marked where that is
too much to believe its figures::

    python benchmarks/training_speed.py --epochs 3
    python benchmarks/training_speed.py --only ceiling --threads 1
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (as the usual script writes it)
from PIL import Image
from quietness import marked, watched
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from evidence.datasets import load_mnist
from evidence.likelihood import importance_sampled
from evidence.models import VAE
from evidence.objectives import negative_elbo
from evidence.training import train

PARTS = ("training", "ceiling", "evaluation")
BATCH_SIZE = 128
CEILING_BATCH_SIZES = (128, 512)
DRAWS = (50, 500, 5000)
EVALUATED_DIGITS = 20
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


def pyro_loop(model: VAE, images: Tensor, labels: Tensor) -> Callable[[int], None]:
    """One epoch of pyro's ``SVI`` with the networks of the model, over batches in memory."""
    import pyro
    import pyro.distributions as dist
    from pyro.infer import SVI, Trace_ELBO
    from pyro.optim import Adam

    def joint(x: Tensor) -> None:
        pyro.module("decoder", model.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 20), 1.0).to_event(1))
            logits = model.decode(z)
            pixels = dist.Bernoulli(logits=logits, validate_args=False).to_event(1)
            pyro.sample("x", pixels, obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", model.encoder)
        with pyro.plate("data", len(x)):
            mu, log_var = model.encode(x)
            pyro.sample("z", dist.Normal(mu, torch.exp(log_var / 2)).to_event(1))

    pyro.clear_param_store()
    svi = SVI(joint, guide, Adam({"lr": 1e-3}), loss=Trace_ELBO())

    def run_epoch(epoch: int) -> None:
        torch.manual_seed(epoch)
        for batch in images[torch.randperm(len(images))].split(BATCH_SIZE):
            svi.step(batch)

    return run_epoch


def pythae_loop(model: VAE, images: Tensor, labels: Tensor) -> Callable[[int], None]:
    """One epoch of pythae's trainer with the networks of the model."""
    import logging

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE as PythaeVAE  # noqa: N811
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.INFO)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.encoder

        def forward(self, x: Tensor) -> ModelOutput:
            mu, log_var = model.encode(x.reshape(len(x), -1))
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = model.decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=torch.sigmoid(model.decode(z)))

    config = VAEConfig(input_dim=(784,), latent_dim=20, reconstruction_loss="bce")
    trainer = BaseTrainer(
        PythaeVAE(config, Encoder(), Decoder()),
        BaseDataset(images, labels),
        training_config=BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(), num_epochs=1, learning_rate=1e-3, no_cuda=True,
            per_device_train_batch_size=BATCH_SIZE, optimizer_cls="Adam",
        ),
    )  # fmt: skip
    trainer.prepare_training()

    def run_epoch(epoch: int) -> None:
        torch.manual_seed(epoch)
        trainer.train_step(epoch)

    return run_epoch


def other_loops() -> dict[str, Callable[[VAE, Tensor, Tensor], Callable[[int], None]]]:
    """Return the ways of training that this book's is compared with, as far as installed."""
    loops = {"usual script": usual_script}
    for name, loop in (("pyro", pyro_loop), ("pythae", pythae_loop)):
        if importlib.util.find_spec(name):
            loops[name] = loop
    return loops


def compare(
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    *,
    epochs: int,
    seed: int,
    autocast: torch.dtype | None,
) -> list[Result]:
    """Train all ways in turns; return the result of this book first, then those of the others."""
    ours = VAE(seed=seed)
    others = {name: VAE(seed=seed) for name in other_loops()}
    run_epoch = {name: loop(others[name], images, labels) for name, loop in other_loops().items()}
    seconds: dict[str, list[float]] = {name: [] for name in others}

    def let_the_others_train(_: nn.Module) -> dict[str, float]:
        # `train` calls this between two epochs and does not count its time.
        with torch.enable_grad():
            for name, run in run_epoch.items():
                start = time.perf_counter()
                run(len(seconds[name]) + 1)
                seconds[name].append(time.perf_counter() - start)
        print(f"epoch {len(seconds[name])} of {epochs} done", file=sys.stderr, flush=True)
        return {}

    loop = {"batch_size": BATCH_SIZE, "seed": seed, "autocast": autocast, "progress": False}
    history = train(
        ours, images, negative_elbo, epochs=epochs, evaluate=let_the_others_train, **loop
    )
    name = "this book, " + ("float32" if autocast is None else "bfloat16")
    results = [Result(name, history.seconds, mean_bound(ours, test_images))]
    for other, model in others.items():
        results.append(Result(other, seconds[other], mean_bound(model, test_images)))

    in_its_time = round(sum(seconds["usual script"]) / statistics.median(history.seconds))
    longer = VAE(seed=seed)
    history = train(longer, images, negative_elbo, epochs=max(1, in_its_time), **loop)
    results.append(
        Result(f"... {in_its_time} epochs", history.seconds, mean_bound(longer, test_images))
    )
    return results


@torch.no_grad()
def mean_bound(model: VAE, images: Tensor) -> float:
    """Return the mean negative ELBO of digits, with the same noise for every model."""
    loss, _ = negative_elbo(model.eval(), images, torch.Generator().manual_seed(0))
    return loss.item()


def bfloat16_instructions() -> list[str]:
    """Return the instructions of this processor that multiply matrices of bfloat16."""
    found = torch.cpu.get_capabilities()
    return [name for name in BFLOAT16_INSTRUCTIONS if found.get(name)]


def table(sides: list[list[Result]], missing: str | None) -> str:
    """Write down all results, each with its ratio, and why bfloat16 is missing if it is."""
    lines = [
        f"{'':20}  seconds per epoch   times as fast as usual   test -ELBO",
        f"{'':20}     min    median        min      median         (nats)",
    ]
    for results in sides:
        (usual,) = (result for result in results if result.name == "usual script")
        for side in results:
            fastest, median = min(side.seconds), statistics.median(side.seconds)
            lines.append(
                f"{side.name:20}  {fastest:6.2f}    {median:6.2f}"
                f"     {min(usual.seconds) / fastest:6.2f}      "
                f"{statistics.median(usual.seconds) / median:6.2f}       {side.test_bound:8.2f}"
            )
    if missing:
        lines.append(f"{'this book, bfloat16':20}  {missing}")
    lines.append("('... n epochs': this book, after about the time of the usual script.)")
    return "\n".join(lines)


# --- ceiling --------------------------------------------------------------------------------------


def products(batch_size: int) -> tuple[Callable[[], None], float]:
    """Return a function that makes the matrix products of one step, and their operations.

    Of each layer: the product forward, that for the gradient of the weights, and that for the
    gradient of the input, which the first layer does not need. All write into memory of their own.
    """
    model = VAE()
    layers = [m for net in (model.encoder, model.decoder) for m in net if isinstance(m, nn.Linear)]
    weights = [layer.weight.detach() for layer in layers]
    inputs = [torch.randn(batch_size, weight.shape[1]) for weight in weights]
    slopes = [torch.randn(batch_size, weight.shape[0]) for weight in weights]
    into = [(torch.empty_like(g), torch.empty_like(w), torch.empty_like(a))
            for g, w, a in zip(slopes, weights, inputs, strict=True)]  # fmt: skip

    def run() -> None:
        for weight, a, (out, _, _) in zip(weights, inputs, into, strict=True):
            torch.mm(a, weight.T, out=out)
        for k in reversed(range(len(weights))):
            torch.mm(slopes[k].T, inputs[k], out=into[k][1])
            if k:
                torch.mm(slopes[k], weights[k], out=into[k][2])

    multiplications = sum((3 if k else 2) * weight.numel() for k, weight in enumerate(weights))
    return run, 2.0 * batch_size * multiplications


def ceiling(batch_size: int, epochs: int, steps: int) -> str:
    """Compare epochs of the loop with the matrix products of as many steps, in turns."""
    run, operations = products(batch_size)
    # Random digits: the time does not depend on them, and here the batches have one size.
    images = torch.rand(batch_size * steps, 784, generator=torch.Generator().manual_seed(0))
    wall, processor = [], []

    def let_the_products_run(_: nn.Module) -> dict[str, float]:
        start = time.perf_counter(), time.process_time()
        for _ in range(steps):
            run()
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
        return {}

    clock = []

    def loss(model: VAE, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        clock.append(time.process_time())
        return negative_elbo(model, batch, generator)

    history = train(
        VAE(), images, loss, epochs=epochs, batch_size=batch_size,
        evaluate=let_the_products_run, progress=False,
    )  # fmt: skip
    # From the first step of an epoch to its last, scaled to all; without the products between.
    of_loop = [
        (clock[(i + 1) * steps - 1] - clock[i * steps]) * steps / (steps - 1) for i in range(epochs)
    ]
    rate = operations * steps / min(wall) / 1e9
    return (
        f"{batch_size:6} {min(wall) / steps * 1e3:10.2f} {min(history.seconds) / steps * 1e3:10.2f}"
        f" {rate:11.0f} {min(wall) / min(history.seconds):10.0%}"
        f" {statistics.median(wall) / statistics.median(history.seconds):9.0%}"
        f" {min(processor) / min(of_loop):10.0%}"
    )


def ceiling_table(epochs: int, digits: int) -> str:
    """Write down how near the loop comes to its matrix products."""
    lines = [
        "          ms a step            GFLOP/s of     products as a share of the loop",
        " batch   products   the loop   the products   min   median   processor time, min",
    ]
    lines += [ceiling(size, epochs, max(2, digits // size)) for size in CEILING_BATCH_SIZES]
    return "\n".join(lines)


# --- evaluation -----------------------------------------------------------------------------------


def evaluate_once(x: Tensor, num_samples: int, threads: int) -> tuple[float, float, float]:
    """Estimate log p(x) of some digits; return seconds, and growth and height of the peak memory.

    A warm-up of the same code and size of pieces comes first, so that the growth is that of the
    number of draws and not of the first call.
    """
    import resource

    torch.set_num_threads(threads)
    model, x = VAE(), (x > 0.5).float()
    generator = torch.Generator().manual_seed(0)
    importance_sampled(model, x, num_samples=200, generator=generator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    importance_sampled(model, x, num_samples=num_samples, generator=generator)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return seconds, (after - before) / unit, after / unit


def evaluation_table(images: Tensor, threads: int) -> str:
    """Write down the speed and the memory of importance sampling."""
    # A tensor of its own: a view would be sent to the other process with all that it is a view of.
    x = images[:EVALUATED_DIGITS].clone()
    lines = [
        f"importance-sampled log p(x) of {EVALUATED_DIGITS} digits",
        "     K   draws a second   peak memory   of which grown since K = 200",
    ]
    for num_samples in DRAWS:
        # A new process each time: the peak of a process never falls.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, grown, peak = pool.apply(evaluate_once, (x, num_samples, threads))
        lines.append(
            f"{num_samples:6} {num_samples * EVALUATED_DIGITS / seconds:14,.0f} "
            f"{peak:11.0f} MiB {grown:10.1f} MiB"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=PARTS, help="one part (default: all)")
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
    parts = [arguments.only] if arguments.only else PARTS

    digits, test = load_mnist("train", arguments.source), load_mnist("test", arguments.source)
    images, labels = digits.images[: arguments.digits], digits.labels[: arguments.digits]
    instructions = bfloat16_instructions()
    print(
        f"VAE 784-400-20, batches of {BATCH_SIZE}, {len(images):,} digits, {arguments.epochs} "
        f"epochs, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"bfloat16 instructions: {', '.join(instructions) or 'none'}"
    )
    threads = arguments.threads
    if "training" in parts:
        missing = f"not available on this processor (none of {', '.join(BFLOAT16_INSTRUCTIONS)})"
        with watched() as load:
            sides = [
                compare(
                    images,
                    labels,
                    test.images,
                    epochs=arguments.epochs,
                    seed=arguments.seed,
                    autocast=dtype,
                )
                for dtype in ([None, torch.bfloat16] if instructions else [None])
            ]
        text = table(sides, None if instructions else missing)
        print(marked(text, load, threads, [result.seconds for side in sides for result in side]))
    if "ceiling" in parts:
        with watched() as load:
            text = ceiling_table(arguments.epochs, min(len(images), 20_480))
        print(marked(text, load, threads))
    if "evaluation" in parts:
        with watched() as load:
            text = evaluation_table(test.images, threads)
        print(marked(text, load, threads))


if __name__ == "__main__":
    main()

"""How well the digit diffusion of page 21 draws, over several seeds of its training.

For each seed the network is trained (or taken from the store of trained models), 500 digits are
drawn, 50 for each label, and judged as on page 21: how often a classifier says the label asked for
(agreement), the mean probability of its answer (confidence), and the energy distance to the test
digits in its 128 features. Real training digits stand below::

    python benchmarks/digit_samples.py --seeds 3
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from evidence.datasets import load_mnist
from evidence.diffusion.guidance import Guided
from evidence.diffusion.prediction import NetworkDenoiser
from evidence.diffusion.sampling import ancestral
from evidence.diffusion.schedule import cosine_log_snr, discretize
from evidence.diffusion.trained import DIGIT_LOG_SNR, digit_diffusion
from evidence.digit_models import DigitClassifier, digit_classifier
from evidence.two_samples import energy_distance

STEPS = 50
FOR_EACH_LABEL = 50


@torch.no_grad()
def drawn(model: NetworkDenoiser, seed: int, weight: float, label: Tensor) -> Tensor:
    """Return one digit of a model for each label, ``(n, 784)`` from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(len(label), 1, 28, 28, generator=generator)
    schedule = discretize(cosine_log_snr(*DIGIT_LOG_SNR), STEPS)
    x = ancestral(Guided(model, label, weight), start, schedule, generator)
    return ((x + 1) / 2).clamp(0, 1).flatten(1)


@torch.no_grad()
def judged(judge: DigitClassifier, images: Tensor, label: Tensor, real: Tensor) -> str:
    """Return agreement, confidence and distance as a line."""
    probability = judge(images).softmax(1)
    agreement = (probability.argmax(1) == label).double().mean()
    distance = energy_distance(judge.features(images), judge.features(real))
    return f"{agreement:9.3f} {probability.amax(1).mean():11.3f} {distance:10.3f}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--weight", type=float, default=1.0, help="of guidance (default 1, none)")
    settings = parser.parse_args()
    if settings.seeds < 1:
        parser.error(f"--seeds is {settings.seeds}; it must be 1 or more")
    digits, test = load_mnist("train"), load_mnist("test")
    judge, _ = digit_classifier()
    label = torch.arange(10).repeat(FOR_EACH_LABEL)
    print(f"{'':16} agreement  confidence   distance")
    for seed in range(settings.seeds):
        model, _ = digit_diffusion(seed=seed)
        line = judged(judge, drawn(model, seed, settings.weight, label), label, test.images)
        print(f"seed {seed:<11} {line}", flush=True)
    count = len(label)
    line = judged(judge, digits.images[:count], digits.labels[:count], test.images)
    print(f"training digits  {line}")


if __name__ == "__main__":
    main()

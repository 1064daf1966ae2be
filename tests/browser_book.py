"""One small book for all tests in a real browser: its live figures and an annotated equation.

It is built once in a run, whichever process needs it first.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock
from small_book import SmallBook, code, equation

# Every kind of layer; the weights are large, so that the image changes with the code.
CODE_SPACE = """
import numpy as np, torch
from torch import nn
torch.manual_seed(0)
decoder = nn.Sequential(
    nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.SiLU(),
    nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32, bias=False)),
    nn.GELU(approximate="tanh"), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 784), nn.Sigmoid(),
)
for parameter in decoder.parameters():
    parameter.data *= 3
angles = np.linspace(0, 6, 600)
spread = np.random.default_rng(0).normal(size=(600, 2))
codes = 2 * np.stack([np.cos(angles), np.sin(angles)], 1) + 0.3 * spread
labels = np.arange(600) // 60
"""
# The last layer is handed over in bytes, the first in float16; the weights are large, so that the
# image changes with the code.
LATENT_MAP = """
import numpy as np, torch
from torch import nn
torch.manual_seed(0)
layers = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 784))
decoder = nn.Sequential(layers, nn.Sigmoid())
for parameter in decoder.parameters():
    parameter.data *= 3
angles = np.linspace(0, 6, 600)
spread = np.random.default_rng(0).normal(size=(600, 2))
codes = 2 * np.stack([np.cos(angles), np.sin(angles)], 1) + 0.3 * spread
labels = np.arange(600) // 60
"""
# A network that has learned nothing, but of which each weight counts.
DENOISER = """import torch
from evidence.diffusion.networks import VectorNetwork
from evidence.diffusion.prediction import NetworkDenoiser
network = VectorNetwork(2, hidden=26, blocks=2, condition=8)
generator = torch.Generator().manual_seed(0)
for parameter in network.parameters():
    parameter.data = torch.randn(parameter.shape, generator=generator) / 6
denoiser = NetworkDenoiser(network, "eps")
"""
NAMED_TERMS = r"""\underbrace{\mathbb{E}_{q_\phi}[\log p_\theta(x \mid z)]}_{\text{reconstruction}}
- \overbrace{\mathrm{KL}(q_\phi(z \mid x) \,\|\, p(z))}^{\text{rate}}
+ \underbrace{a + b}_{\text{third}} - \underbrace{\frac{c}{d}}_{\text{the last one}}"""
EXPLANATIONS = """- **reconstruction**: how well $x$ is explained; see [the index](index.md).
- **rate**: how many nats.
- **third**: a sum.
- **the last one**: a ratio.
"""


def figure(name: str, arguments: str = "", options: str = "") -> str:
    """A cell that ends with a live figure."""
    return code(f"from evidence.live import {name}\n{name}({arguments})", options=options)


def prose(paragraphs: int) -> str:
    return "Some prose.\n\n" * paragraphs


PAGES = {
    # The first, for its equation is to be number (1.1).
    "annotated": [
        prose(20), equation("def-four", NAMED_TERMS), EXPLANATIONS, code("1"), prose(20)
    ],
    "plain": [code("1 + 1")],
    # In the middle of the second figure's way stands much, so that it is far below the first.
    "part/code-space": [
        code(CODE_SPACE),
        figure(
            "CodeSpace", "decoder, codes, labels, caption='Drag <it>.'",
            "mystnb:\n  figure:\n    name: fig-one\n    caption: The plane.",
        ),
        "See {numref}`fig-one`.",
        prose(60),
        code("CodeSpace(decoder, codes, 9 - labels, point=(0.0, 0.0))"),
    ],
    "jensen": [figure("Jensen")],
    "bound": [figure("Bound")],
    "gradients": [figure("Gradients")],
    "bound-and-jensen": [figure("Bound"), figure("Jensen")],
    "gradients-and-bound": [figure("Gradients"), figure("Bound")],
    "forward": [figure("Forward")],
    # Below that of sampling stands the other one.
    "sampling": [code(DENOISER), figure("Sampling", "denoiser"), figure("Forward")],
    "map": [code(LATENT_MAP), figure("LatentMap", "decoder, codes, labels"), prose(30)],
}  # fmt: skip


def built(factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the book's HTML; the first of several processes builds it."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    note = shared / "browser-book.txt"
    with FileLock(shared / "browser-book.lock"):
        if not note.exists():
            book = SmallBook(factory.mktemp("browser-book"), PAGES)
            book.keep_outputs("annotated", None)
            note.write_text(str(book.built()), encoding="utf-8")
    return Path(note.read_text(encoding="utf-8"))

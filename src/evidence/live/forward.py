r"""The live figure of the forward process: one digit and a cloud of points, at the reader's t."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import traitlets as t
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from evidence.datasets import load_mnist
from evidence.diffusion.clouds import moons
from evidence.diffusion.process import diffuse, q_x_t
from evidence.diffusion.schedule import Schedule, cosine, linear
from evidence.live.figure import LiveFigure, blank_picture, in_range, png, read_script, read_style
from evidence.live.noise import noise
from evidence.plotting import COLORS, INK, PAPER

__all__ = ["Forward"]

SCHEDULES = {"linear": 1000, "short": 300, "cosine": 1000}
"""The names of the schedules, and T of each."""
BETAS = (1e-4, 0.02)
OFFSET, LARGEST_BETA = 0.008, 0.999
DIGITS = 20
POINTS = 400
SIZE = 28
SEEDS = (0, 999)
SHOWN = 3.2
"""The figure shows both coordinates of the cloud from minus this on."""
INK_RANGE = 2.5
"""Pixels are drawn white at minus this, and black at this."""


class Forward(LiveFigure):
    r"""The forward process on a digit and on a cloud of points, with the schedule's two curves.

    .. math:: x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \varepsilon

    The noise :math:`\varepsilon` of a datum is the same at every t. Digits are twenty of the
    training set of `load_mnist`, with grey levels from -1 (paper) to 1 (ink).

    Parameters
    ----------
    schedule : {"linear", "short", "cosine"}
        ``linear(1000)``, ``linear(300)`` with the same first and last step, or ``cosine(1000)``.
    share : float
        t / T, from 0 to 1; t is the nearest whole number (`step`).
    digit : int
        Which of the digits, from 0 to 19.
    seed : int
        Of the noise, from 0 to 999 (`evidence.live.noise`).
    caption : str
        A line under the figure, not part of its picture.

    Raises
    ------
    traitlets.TraitError
        If a value is none of these, or out of its range.

    Notes
    -----
    All traits named here, and `alt`, may be set. Setting one in Python moves the figure in the
    notebook, and moving it there changes them in Python.
    """

    _esm = read_script("forward")
    _css = read_style("forward")

    schedule = t.Enum(list(SCHEDULES)).tag(sync=True)
    share = t.Float().tag(sync=True)
    digit = t.Int().tag(sync=True)
    seed = t.Int().tag(sync=True)

    ranges = t.Dict(
        {"share": [0.0, 1.0], "digit": [0, DIGITS - 1], "seed": list(SEEDS)}, read_only=True
    ).tag(sync=True)
    lengths = t.Dict(SCHEDULES, read_only=True).tag(sync=True)
    betas = t.List(t.Float(), list(BETAS), read_only=True).tag(sync=True)
    cosine = t.List(t.Float(), [OFFSET, LARGEST_BETA], read_only=True).tag(sync=True)
    images = t.Bytes(read_only=True).tag(sync=True)
    points = t.Bytes(read_only=True).tag(sync=True)
    size = t.Int(SIZE, read_only=True).tag(sync=True)
    shown = t.List(t.Float(), [SHOWN, INK_RANGE], read_only=True).tag(sync=True)

    def __init__(
        self,
        schedule: str = "linear",
        *,
        share: float = 0.25,
        digit: int = 0,
        seed: int = 0,
        caption: str = "",
    ) -> None:
        levels = (load_mnist("train").images[:DIGITS] * 255).round().to(torch.uint8)
        self._digits = levels.double().flatten(1) * 2 / 255 - 1
        cloud = moons(POINTS, torch.Generator().manual_seed(0)).numpy().astype("<f4")
        self._cloud = torch.from_numpy(cloud.astype(np.float64))
        # All before the widget opens: it then travels once, whole.
        self.set_trait("images", levels.numpy().tobytes())
        self.set_trait("points", cloud.tobytes())
        self.schedule, self.share, self.digit, self.seed = schedule, float(share), digit, seed
        self.alt = (
            "A digit and a cloud of points in the plane, mixed with noise. Below, two curves over "
            "t / T: what is left of the signal, which falls from 1, and the logarithm of the "
            "signal-to-noise ratio, with a mark at the t that is shown."
        )
        super().__init__(caption=caption)

    @t.validate("share", "digit", "seed")
    def _check_number(self, proposal: Any) -> float:
        return in_range(proposal, *self.ranges[proposal["trait"].name])

    def chain(self) -> Schedule:
        """Return the schedule that is chosen."""
        num_steps = SCHEDULES[self.schedule]
        if self.schedule == "cosine":
            return cosine(num_steps, offset=OFFSET, largest_beta=LARGEST_BETA)
        return linear(num_steps, *BETAS)

    @property
    def step(self) -> int:
        """The t that is shown, from 0 to T."""
        return math.floor(self.share * SCHEDULES[self.schedule] + 0.5)

    def x_0(self) -> tuple[Tensor, Tensor]:
        """Return the digit ``(1, 784)`` and the cloud ``(400, 2)``, float64."""
        return self._digits[self.digit : self.digit + 1], self._cloud

    def x_t(self) -> tuple[Tensor, Tensor]:
        """Return the digit ``(1, 784)`` and the cloud ``(400, 2)`` at `step`."""
        digit, cloud = self.x_0()
        if self.step == 0:
            return digit, cloud
        draws = torch.from_numpy(noise(self.seed, digit.numel() + cloud.numel()))
        parts = draws.split([digit.numel(), cloud.numel()])
        s = self.chain()
        return tuple(
            diffuse(x, eps.reshape(x.shape), s, self.step)
            for x, eps in zip((digit, cloud), parts, strict=True)
        )

    def alpha_bar(self) -> float:
        """Return the signal's share of the variance at `step`."""
        return self.chain().alpha_bar[self.step].item()

    def snr(self) -> float:
        """Return the signal-to-noise ratio at `step`; infinite at 0."""
        return self.chain().snr[self.step].item()

    def end_kl(self) -> float:
        """Return the divergence of q(x_T | x_0) from N(0, I), in nats per pixel of the digit."""
        s = self.chain()
        end = q_x_t(self.x_0()[0], s, s.num_steps)
        return kl_divergence(end, Normal(0.0, 1.0)).mean().item()

    def summary(self) -> str:
        """Return one line that is the same at every run."""
        return (
            f"Forward(schedule={self.schedule!r}, share={self.share:.3g}, digit={self.digit}, "
            f"seed={self.seed})"
        )

    def picture(self) -> bytes:
        """Return a PNG of the digit, the cloud and the two curves as they stand."""
        figure = blank_picture(height=5.2)
        image, cloud, *curves = figure.subplots(2, 2, height_ratios=(1.35, 1)).ravel()
        digit, points = self.x_t()
        image.imshow(digit.reshape(SIZE, SIZE), cmap=INK, vmin=-INK_RANGE, vmax=INK_RANGE)
        cloud.plot(*points.numpy().T, "o", color=COLORS["data"], markersize=2, markeredgewidth=0)
        cloud.set(xlim=(-SHOWN, SHOWN), ylim=(-SHOWN, SHOWN), aspect="equal", facecolor=PAPER)
        for ax in (image, cloud):
            ax.set_xticks([]), ax.set_yticks([])
        s, T = self.chain(), SCHEDULES[self.schedule]  # noqa: N806
        figure.suptitle(f"{self.schedule}, $t = {self.step}$ of {T}")
        labels = (r"signal $\sqrt{\bar\alpha_t}$", r"log SNR $\lambda_t$")
        for ax, values, label in zip(curves, (s.sqrt_alpha_bar, s.log_snr), labels, strict=True):
            self._draw_curve(ax, values.numpy(), label)
        curves[0].set(ylim=(0, 1.05))
        curves[1].set(ylim=(-12, 12))
        return png(figure)

    def _draw_curve(self, ax: Any, values: NDArray[np.float64], label: str) -> None:
        time = np.arange(len(values)) / (len(values) - 1)
        ax.plot(time, values, color=COLORS["model"])
        ax.axvline(self.step / (len(values) - 1), color=COLORS["encoder"], linewidth=1.2)
        ax.set(xlim=(0, 1), xlabel="$t / T$", ylabel=label, facecolor=PAPER)

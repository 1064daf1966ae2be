r"""The live figure of Jensen's inequality: two points on the logarithm, and a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import traitlets as t

from evidence.live.figure import LiveFigure, blank_picture, in_range, png, read_script, read_style
from evidence.plotting import COLORS, PAPER

__all__ = ["Jensen"]

LOWEST, HIGHEST = 0.05, 4.0
"""Between these the points lie: the logarithm has no end below, and the figure needs one."""


class Jensen(LiveFigure):
    r"""The curve :math:`\log w` with two points, their chord, and the gap that a mean leaves.

    The two values :math:`w_1, w_2` occur with probabilities :math:`a` and :math:`1 - a`. The
    logarithm of their mean lies on the curve, the mean of their logarithms on the chord, and the
    segment between is what Jensen's inequality says is not negative.

    Parameters
    ----------
    w : sequence of two floats
        The points, from 0.05 to 4.
    weight : float
        The probability :math:`a` of the first one, from 0 to 1.
    caption : str
        A line under the figure, not part of its picture.

    Raises
    ------
    traitlets.TraitError
        If a number is out of its range.

    Notes
    -----
    The traits `w`, `weight`, `caption` and `alt` may be set. Setting `w` or `weight` in Python
    moves the figure in the notebook, and moving it there changes them in Python.
    """

    _esm = read_script("jensen")
    _css = read_style("jensen")

    w = t.List(t.Float(), minlen=2, maxlen=2).tag(sync=True)
    weight = t.Float().tag(sync=True)

    lowest = t.Float(LOWEST, read_only=True).tag(sync=True)
    highest = t.Float(HIGHEST, read_only=True).tag(sync=True)

    def __init__(
        self, w: Sequence[float] = (0.5, 3.5), weight: float = 0.5, *, caption: str = ""
    ) -> None:
        # Before the widget opens: it then travels once, whole.
        self.w = [float(number) for number in w]
        self.weight = float(weight)
        self.alt = (
            "The curve of log w with two points and the chord between them. At the weighted mean "
            "of the two points the curve lies above the chord, and a marked vertical segment "
            "between chord and curve is the gap of Jensen's inequality."
        )
        super().__init__(caption=caption)

    @t.validate("w")
    def _check_w(self, proposal: Any) -> list[float]:
        value = proposal["value"]
        if not all(LOWEST <= number <= HIGHEST for number in value):
            raise t.TraitError(
                f"w is {value}; two numbers from {LOWEST:g} to {HIGHEST:g} are accepted"
            )
        return value

    @t.validate("weight")
    def _check_weight(self, proposal: Any) -> float:
        return in_range(proposal, 0, 1)

    def mean(self) -> float:
        """Return the mean of `w`."""
        return float(np.average(self.w, weights=[self.weight, 1 - self.weight]))

    def log_of_mean(self) -> float:
        """Return the logarithm of the mean, on the curve."""
        return math.log(self.mean())

    def mean_of_log(self) -> float:
        """Return the mean of the logarithms, on the chord."""
        return float(np.average(np.log(self.w), weights=[self.weight, 1 - self.weight]))

    def gap(self) -> float:
        """Return by how much the logarithm of the mean exceeds the mean of the logarithms."""
        return self.log_of_mean() - self.mean_of_log()

    def summary(self) -> str:
        """Return one line that is the same at every run."""
        return f"Jensen(w=({self.w[0]:.3g}, {self.w[1]:.3g}), weight={self.weight:.3g})"

    def picture(self) -> bytes:
        """Return a PNG of the curve, the chord and the gap as they stand."""
        figure = blank_picture(height=4.0)
        ax = figure.subplots()
        grid = np.geomspace(LOWEST, HIGHEST, 400)
        ax.plot(grid, np.log(grid), color=COLORS["data"])
        ax.plot(self.w, np.log(self.w), color=COLORS["encoder"], linewidth=1.6)
        mean, low, high = self.mean(), self.mean_of_log(), self.log_of_mean()
        ax.plot(
            [mean, mean], [low, high], color=COLORS["bound"], linewidth=6, solid_capstyle="butt"
        )
        marker = {"linestyle": "none", "marker": "o", "markersize": 8, "zorder": 3}
        ax.plot(self.w, np.log(self.w), color=COLORS["encoder"], **marker)
        ax.plot(
            [mean], [high], color=COLORS["model"], label=f"log of the mean: {high:.3f}", **marker
        )
        ax.plot(
            [mean], [low], color=COLORS["encoder"], markerfacecolor=PAPER, markeredgewidth=2,
            label=f"mean of the log: {low:.3f}", **marker,
        )  # fmt: skip
        ax.plot([], [], color=COLORS["bound"], linewidth=6, label=f"gap: {high - low:.3f}")
        for name, number in zip(("$w_1$", "$w_2$"), self.w, strict=True):
            ax.annotate(
                name, (number, math.log(number)), (8, -12), textcoords="offset points", size=12
            )
        ax.set(xlabel="$w$", ylabel=r"$\log\, w$ (nats)", xlim=(0, HIGHEST * 1.05), facecolor=PAPER)
        ax.grid(visible=True, linewidth=0.5, alpha=0.5)
        ax.legend(loc="lower right", frameon=False)
        return png(figure)

r"""The live figure of two gradient estimators: two arrows for each draw, and two running means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import traitlets as t
from numpy.typing import NDArray

from evidence.live.figure import LiveFigure, blank_picture, in_range, png, read_script, read_style
from evidence.live.noise import noise
from evidence.plotting import COLORS, PAPER

__all__ = ["Gradients"]

RANGES: dict[str, tuple[float, float]] = {
    "mu": (-2.0, 2.0),
    "sigma": (0.1, 1.5),
    "frequency": (0.5, 10.0),
    "num_draws": (2, 10_000),
    "seed": (0, 999),
}
RAISED_BY = 10.0
SHOWN = 4.0
"""The figure shows every z from minus this on."""
VISIBLE = 12
"""So many draws are drawn with their arrows."""
LABELS = {
    "square": "$z^2$", "raised": f"$z^2 + {RAISED_BY:g}$",
    "sine": r"$\sin {:.3g}z$", "step": r"$\mathbb{{1}}[z > 0]$",
}  # fmt: skip


class Gradients(LiveFigure):
    r"""The pathwise and the score-function estimator of one gradient, on the same draws.

    The gradient is that of :math:`\mathbb{E}_{q}[f(z)]` with respect to the mean of
    :math:`q = \mathcal{N}(\mu, \sigma^2)`. A draw :math:`z = \mu + \sigma\varepsilon` contributes
    :math:`f'(z)` to the pathwise estimate, and :math:`f(z)\,(z - \mu)/\sigma^2` to that of the
    score function.

    Parameters
    ----------
    f : {"square", "raised", "sine", "step"}
        :math:`z^2`; :math:`z^2 + 10`; :math:`\sin cz`; 1 where z is positive and 0 elsewhere.
    mu, sigma : float
        Mean, from -2 to 2, and standard deviation of q, from 0.1 to 1.5.
    frequency : float
        The c of the sine, from 0.5 to 10.
    num_draws : int
        How many draws are averaged, from 2 to 10,000. The first twelve are shown one by one.
    seed : int
        Of the noise, from 0 to 999 (`noise`).
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

    _esm = read_script("gradients")
    _css = read_style("gradients")

    f = t.Enum(list(LABELS)).tag(sync=True)
    mu = t.Float().tag(sync=True)
    sigma = t.Float().tag(sync=True)
    frequency = t.Float().tag(sync=True)
    num_draws = t.Int().tag(sync=True)
    seed = t.Int().tag(sync=True)

    ranges = t.Dict({name: list(ends) for name, ends in RANGES.items()}, read_only=True).tag(
        sync=True
    )
    raised_by = t.Float(RAISED_BY, read_only=True).tag(sync=True)
    shown = t.Float(SHOWN, read_only=True).tag(sync=True)
    visible = t.Int(VISIBLE, read_only=True).tag(sync=True)

    def __init__(
        self,
        f: str = "square",
        *,
        mu: float = 1.0,
        sigma: float = 0.9,
        frequency: float = 10.0,
        num_draws: int = 100,
        seed: int = 0,
        caption: str = "",
    ) -> None:
        # Before the widget opens: it then travels once, whole.
        self.f, self.num_draws, self.seed = f, num_draws, seed
        self.mu, self.sigma, self.frequency = float(mu), float(sigma), float(frequency)
        self.alt = (
            "Above, a function f over z, the density of q, and twelve draws with the slope and the "
            "value of f at each. In the middle, one row of arrows for each draw: its contribution "
            "to the pathwise gradient, and to that of the score function. Below, the mean of both "
            "as the number of draws grows, with the exact gradient."
        )
        super().__init__(caption=caption)

    @t.validate(*RANGES)
    def _check_number(self, proposal: Any) -> float:
        return in_range(proposal, *RANGES[proposal["trait"].name])

    def draws(self) -> NDArray[np.float64]:
        """Return z, shape ``(num_draws,)``."""
        return self.mu + self.sigma * noise(self.seed, self.num_draws)

    def pathwise(self) -> NDArray[np.float64]:
        """Return what each draw contributes to the pathwise estimate, shape ``(num_draws,)``."""
        return self._slope(self.draws())

    def score_function(self) -> NDArray[np.float64]:
        """Return what each draw contributes to the score function's, shape ``(num_draws,)``."""
        z = self.draws()
        return self._value(z) * (z - self.mu) / self.sigma**2

    def exact(self) -> float:
        """Return the gradient of the expectation of f in mu, in closed form."""
        from scipy.stats import norm

        if self.f == "sine":
            return self._fading() * self.frequency * math.cos(self.frequency * self.mu)
        if self.f == "step":
            return float(norm.pdf(0, self.mu, self.sigma))
        return 2 * self.mu

    def variances(self) -> tuple[float, float]:
        """Return the variance of one draw's contribution, in closed form: pathwise, score function.

        ``eq-pathwise-variance`` and, without a constant in f, ``eq-score-variance``; for the sine
        ``eq-sine-variances``.
        """
        from scipy.stats import norm

        mu, sigma, squared_mean = self.mu, self.sigma, self.exact() ** 2
        if self.f == "sine":
            angle = self.frequency * sigma
            wave = self._fading() ** 4 * math.cos(2 * self.frequency * mu)
            path = self.frequency**2 / 2 * (1 + wave)
            score = (1 - wave * (1 - 4 * angle**2)) / (2 * sigma**2)
            return path - squared_mean, score - squared_mean
        if self.f == "step":
            ratio = mu / sigma
            second = (norm.cdf(ratio) - ratio * norm.pdf(ratio)) / sigma**2
            return 0.0, float(second - squared_mean)
        # f is a + b eps + c eps^2, and the second, fourth and sixth moments of eps are 1, 3, 15.
        a, b, c = mu**2 + RAISED_BY * (self.f == "raised"), 2 * mu * sigma, sigma**2
        second = (a**2 + 3 * (b**2 + 2 * a * c) + 15 * c**2) / sigma**2
        return 4 * sigma**2, second - squared_mean

    def _fading(self) -> float:
        return math.exp(-((self.frequency * self.sigma) ** 2) / 2)

    def _value(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.f == "sine":
            return np.sin(self.frequency * z)
        if self.f == "step":
            return np.where(z > 0, 1.0, 0.0)
        return z**2 + RAISED_BY * (self.f == "raised")

    def _slope(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.f == "sine":
            return self.frequency * np.cos(self.frequency * z)
        return np.zeros_like(z) if self.f == "step" else 2 * z

    def summary(self) -> str:
        """Return one line that is the same at every run."""
        return (
            f"Gradients(f={self.f!r}, mu={self.mu:.3g}, sigma={self.sigma:.3g}, "
            f"frequency={self.frequency:.3g}, num_draws={self.num_draws}, seed={self.seed})"
        )

    def picture(self) -> bytes:
        """Return a PNG of the draws, their arrows and the running means as they stand."""
        figure = blank_picture(height=6.6)
        rows = figure.add_gridspec(3, 2, height_ratios=(1, 1.25, 1.1))
        estimators = (
            ("pathwise", "encoder", self.pathwise()),
            ("score function", "error", self.score_function()),
        )
        below = figure.add_subplot(rows[2, :])
        for column, (name, role, estimates) in enumerate(estimators):
            above = figure.add_subplot(rows[0, column])
            self._draw_function(above, name, COLORS[role], is_pathwise=column == 0)
            self._draw_arrows(figure.add_subplot(rows[1, column], sharex=above), role, estimates)
            self._draw_means(below, name, COLORS[role], estimates)
        spread = math.sqrt(max(self.variances()) / 8)
        exact = self.exact()
        reach = max(2 * spread, 1.3 * abs(exact - self._pathwise_mean()))
        below.axhline(exact, color=COLORS["data"], linestyle="--", linewidth=1, label="exact")
        below.set(
            xscale="log", xlim=RANGES["num_draws"], ylim=(exact - reach, exact + reach),
            xlabel="draws", ylabel="mean", facecolor=PAPER,
        )  # fmt: skip
        below.legend(loc="upper right", frameon=False, ncols=3)
        return png(figure)

    def _pathwise_mean(self) -> float:
        return 0.0 if self.f == "step" else self.exact()

    def _visible_draws(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        z = self.draws()[:VISIBLE]
        return z, np.argsort(z)

    def _draw_function(self, ax: Any, name: str, color: str, *, is_pathwise: bool) -> None:
        from scipy.stats import norm

        grid = np.linspace(-SHOWN, SHOWN, 800)
        z, _ = self._visible_draws()
        value, slope = self._value(z), self._slope(z)
        low, high = {"square": (-1, 11), "raised": (-2, 21), "sine": (-1.6, 1.6)}.get(
            self.f, (-0.25, 1.6)
        )
        q_z = norm.pdf(grid, self.mu, self.sigma) * self.sigma * (high - low)
        ax.fill_between(grid, low, low + q_z, color=COLORS["encoder"], alpha=0.12, linewidth=0)
        ax.plot(grid, self._value(grid), color=COLORS["prior"], linewidth=1.2)
        if is_pathwise:
            # Tangents of one length on the paper, where a unit upwards is not one across.
            flat = slope * 2 * SHOWN / (high - low) / 2
            way = 0.3 / np.sqrt(1 + flat**2) * np.array([[-1], [1]])
            ax.plot(z + way, value + slope * way, color=color, linewidth=2)
        else:
            ax.vlines(z, 0, value, color=color, linewidth=1.5)
        ax.plot(z, value, "o", color=COLORS["data"], markersize=3)
        label = LABELS[self.f].format(self.frequency)
        ax.set(
            title=name, xlim=(-SHOWN, SHOWN), ylim=(low, high), ylabel=f"$f(z)$ = {label}",
            facecolor=PAPER,
        )  # fmt: skip
        ax.tick_params(labelbottom=False)

    def _draw_arrows(self, ax: Any, role: str, estimates: NDArray[np.float64]) -> None:
        z, order = self._visible_draws()
        exact = self.exact()
        per_unit = 0.9 / math.sqrt(max(self.variances()) + exact**2)
        look = {
            "color": COLORS[role], "angles": "xy", "scale_units": "xy", "scale": 1, "minlength": 0,
            "width": 0.007, "headlength": 3, "headaxislength": 3, "zorder": 3,
        }  # fmt: skip
        every_row, lengths = np.arange(len(z)), estimates[:VISIBLE][order] * per_unit
        ax.axvline(self.mu, color=COLORS["prior"], linestyle=":")
        ax.quiver(z[order], every_row, lengths, 0 * lengths, **look)
        ax.plot(z[order], every_row, "|", color=COLORS["data"], markersize=5)
        ax.hlines(-2, self.mu, self.mu + exact * per_unit, color="0.8", linewidth=8)
        ax.quiver(self.mu, -2, estimates.mean() * per_unit, 0, **look)
        ax.set(ylim=(-3.2, VISIBLE), xlabel="$z$", facecolor=PAPER)
        ax.set_yticks([-2, (len(z) - 1) / 2], ["mean", "draws"])

    def _draw_means(self, ax: Any, name: str, color: str, estimates: NDArray[np.float64]) -> None:
        variance = self.variances()[0 if name == "pathwise" else 1]
        middle = self._pathwise_mean() if name == "pathwise" else self.exact()
        counts = np.arange(1, self.num_draws + 1)
        every_count = np.geomspace(*RANGES["num_draws"], 200)
        error = 2 * np.sqrt(variance / every_count)
        ax.fill_between(
            every_count, middle - error, middle + error, color=color, alpha=0.15, linewidth=0
        )
        running = np.cumsum(estimates) / counts
        ax.plot(counts[1:], running[1:], color=color, label=f"{name}: {running[-1]:z.2f}")

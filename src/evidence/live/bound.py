r"""The live figure of the bound: move q, and see log p(x) stay while its two parts change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets as t
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.distributions import Normal

from evidence.live.figure import LiveFigure, blank_picture, in_range, png, read_script, read_style
from evidence.plotting import COLORS, PAPER
from evidence.toys import GRID_HALF_WIDTH, GRID_POINTS, CurvedToy

__all__ = ["Bound"]

LEAST_SIGMA, MOST_SIGMA = 0.05, 2.0
MOST_COEFFICIENTS = 6
"""A polynomial of degree 5: its square under a Gaussian is what the page's grid integrates."""
ROOM = 5.0
"""How many nats the bars reach below the lowest log evidence of all x in range."""


class Bound(LiveFigure):
    r"""The curved toy's posterior with a Gaussian q that the reader moves, and bars that add up.

    For a datum x, the bars are the two sides of
    :math:`\log p_\theta(x) = \mathrm{ELBO}(q) + \mathrm{KL}(q \,\|\, p_\theta(z \mid x))`.

    Parameters
    ----------
    toy : CurvedToy, optional
        With 6 coefficients at most, by default ``CurvedToy()``. Its numbers are copied.
    x : float
        The datum.
    mu, sigma : float
        Mean and standard deviation of q; `sigma` from 0.05 to 2.
    z_range : sequence of two floats
        Between these `mu` lies; a little more on each side is shown.
    x_range : sequence of two floats
        Between these x lies.
    caption : str
        A line under the figure, not part of its picture.

    Raises
    ------
    TypeError
        If `toy` is not a `CurvedToy`.
    ValueError
        If a range is not one, the toy has too many coefficients, or its evidence cannot be computed
        to 1e-9 at some x in range (`CurvedToy.log_p_x`).
    traitlets.TraitError
        If `x`, `mu` or `sigma` is out of its range.

    Notes
    -----
    The traits `x`, `mu`, `sigma`, `caption` and `alt` may be set. Setting `x`, `mu` or `sigma` in
    Python moves the figure in the notebook, and moving it there changes them in Python.
    """

    _esm = read_script("bound")
    _css = read_style("bound")

    x = t.Float().tag(sync=True)
    mu = t.Float().tag(sync=True)
    sigma = t.Float().tag(sync=True)

    theta = t.List(t.Float(), read_only=True).tag(sync=True)
    noise = t.Float(read_only=True).tag(sync=True)
    grid = t.Dict(read_only=True).tag(sync=True)
    z_range = t.List(t.Float(), read_only=True).tag(sync=True)
    x_range = t.List(t.Float(), read_only=True).tag(sync=True)
    sigma_range = t.List(t.Float(), [LEAST_SIGMA, MOST_SIGMA], read_only=True).tag(sync=True)
    nats = t.List(t.Float(), read_only=True).tag(sync=True)

    def __init__(
        self,
        toy: CurvedToy | None = None,
        *,
        x: float = 1.0,
        mu: float = 0.0,
        sigma: float = 1.0,
        z_range: Sequence[float] = (-2.6, 2.6),
        x_range: Sequence[float] = (-2.0, 4.0),
        caption: str = "",
    ) -> None:
        toy = CurvedToy() if toy is None else toy
        if not isinstance(toy, CurvedToy):
            raise TypeError(f"toy is a {type(toy).__name__}; a CurvedToy is accepted")
        if len(toy.theta) > MOST_COEFFICIENTS:
            raise ValueError(
                f"toy has {len(toy.theta)} coefficients; {MOST_COEFFICIENTS} at most are accepted"
            )
        ranges = {"z_range": _checked_range("z_range", z_range)}
        ranges["x_range"] = _checked_range("x_range", x_range)
        self._toy = CurvedToy(toy.theta.detach().clone(), toy.sigma.detach().clone())
        every_x = torch.linspace(*ranges["x_range"], 25, dtype=torch.float64)
        log_p_x = self._toy.log_p_x(every_x)
        values: dict[str, Any] = {
            **ranges,
            "theta": self._toy.theta.tolist(),
            "noise": self._toy.sigma.item(),
            "grid": {"half_width": GRID_HALF_WIDTH, "points": GRID_POINTS},
            "nats": [
                math.floor(log_p_x.min().item()) - ROOM,
                max(0.0, math.ceil(log_p_x.max().item())) + 1,
            ],
        }
        # All before the widget opens: it then travels once, whole.
        for name, value in values.items():
            self.set_trait(name, value)
        self.x, self.mu, self.sigma = float(x), float(mu), float(sigma)
        self.alt = (
            "Above, the true posterior of the curved toy at one x, the prior, and a Gaussian q. "
            "Below, two bars that end at the same number of nats: one is log p(x), the other the "
            "ELBO with the KL divergence from q to the posterior on its end."
        )
        super().__init__(caption=caption)

    @t.validate("x", "mu", "sigma")
    def _check_number(self, proposal: Any) -> float:
        ranges = {"x": self.x_range, "mu": self.z_range, "sigma": self.sigma_range}
        return in_range(proposal, *ranges[proposal["trait"].name])

    def log_p_x(self) -> float:
        """Return the log evidence of x in nats, by quadrature over z (`CurvedToy.log_p_x`)."""
        return self._toy.log_p_x(self._x()).item()

    def elbo(self) -> float:
        """Return the bound in nats, by Gauss-Hermite quadrature, which is exact for polynomials."""
        return float(self._elbo(self.mu, self.sigma))

    def kl(self) -> float:
        """Return the divergence from q to the posterior in nats, by the trapezoidal rule."""
        standardised = torch.linspace(-12, 12, 1001, dtype=torch.float64)
        z = self.mu + self.sigma * standardised
        log_q_z = self._q_z().log_prob(z)
        integrand = log_q_z.exp() * (log_q_z - self._toy.log_posterior(z, self._x()))
        return torch.trapezoid(integrand, z).item()

    def fit(self) -> None:
        """Move q to the Gaussian with the highest bound of all, as the figure's button does."""
        from scipy.optimize import minimize

        # A bound may have several hills: the highest place of a grid lies on the highest of them.
        mu, log_sigma = np.meshgrid(
            np.linspace(*self.z_range, 101), np.linspace(*np.log(self.sigma_range), 51)
        )
        highest = np.argmax(self._elbo(mu, np.exp(log_sigma)))
        found = minimize(
            lambda place: -self._elbo(place[0], np.exp(place[1])),
            [mu.flat[highest], log_sigma.flat[highest]],
            method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14},
            bounds=[self.z_range, np.log(self.sigma_range)],
        )  # fmt: skip
        self.mu, self.sigma = float(found.x[0]), float(np.exp(found.x[1]))

    def _x(self) -> Tensor:
        return torch.tensor(self.x, dtype=torch.float64)

    def _q_z(self) -> Normal:
        return Normal(*torch.tensor([self.mu, self.sigma], dtype=torch.float64))

    def _elbo(self, mu: ArrayLike, sigma: ArrayLike) -> NDArray[np.float64]:
        # The square of f has twice its degree, and n nodes are exact up to degree 2n - 1.
        nodes, weights = np.polynomial.hermite_e.hermegauss(2 * len(self.theta))
        z = np.asarray(mu)[..., None] + np.asarray(sigma)[..., None] * nodes
        log_joint = self._toy.log_joint(self._x(), torch.from_numpy(z)).numpy()
        entropy = 0.5 * math.log(2 * math.pi * math.e) + np.log(sigma)
        return log_joint @ weights / weights.sum() + entropy

    def summary(self) -> str:
        """Return one line that is the same at every run."""
        return f"Bound(x={self.x:.3g}, mu={self.mu:.3g}, sigma={self.sigma:.3g})"

    def picture(self) -> bytes:
        """Return a PNG of the densities and the bars as they stand."""
        figure = blank_picture(height=4.6)
        above, below = figure.subplots(2, 1, height_ratios=(2.4, 1))
        self._draw_densities(above)
        self._draw_bars(below)
        return png(figure)

    def _draw_densities(self, ax: Any) -> None:
        margin = 0.1 * (self.z_range[1] - self.z_range[0])
        shown = self.z_range[0] - margin, self.z_range[1] + margin
        z = torch.linspace(*shown, 400, dtype=torch.float64)
        posterior = self._toy.log_posterior(z, self._x()).exp()
        q_z = self._q_z().log_prob(z).exp()
        ax.fill_between(z, posterior, color=COLORS["posterior"], alpha=0.25, linewidth=0)
        ax.plot(z, posterior, color=COLORS["posterior"], label=r"posterior $p_\theta(z \mid x)$")
        prior = self._toy.p_z().log_prob(z).exp()
        ax.plot(
            z, prior, color=COLORS["prior"], linestyle="--", linewidth=1.2, label="prior $p(z)$"
        )
        ax.plot(z, q_z, color=COLORS["encoder"], linewidth=2.4, label="$q(z)$")
        ax.set(
            xlim=shown, ylim=(0, 1.9 * posterior.max().item()), yticks=[], xlabel="$z$",
            ylabel="density", title=f"$x = {self.x:.2f}$", facecolor=PAPER,
        )  # fmt: skip
        ax.legend(loc="upper left", frameon=False)

    def _draw_bars(self, ax: Any) -> None:
        log_p_x, elbo, kl = self.log_p_x(), self.elbo(), self.kl()
        low, high = self.nats
        bars = {"height": 0.62, "left": low}
        ax.barh(1, log_p_x - low, color=COLORS["model"], **bars)
        ax.barh(0, max(elbo - low, 0), color=COLORS["bound"], **bars)
        ax.barh(
            0, log_p_x - max(elbo, low), left=max(elbo, low), height=0.62, facecolor="none",
            edgecolor=COLORS["bound"], hatch="////", linewidth=1.5,
        )  # fmt: skip
        ax.axvline(log_p_x, color=COLORS["data"], linestyle=":", linewidth=1.2)
        ax.set(
            xlim=(low, high), ylim=(-0.6, 1.6), xlabel="nats", facecolor=PAPER,
            title=f"$\\log p_\\theta(x) = {log_p_x:.3f}$:  "
            f"ELBO ${elbo:.3f}$ + KL ${kl:.3f}$",
        )  # fmt: skip
        ax.set_yticks([1, 0], [r"$\log p_\theta(x)$", "ELBO + KL"])
        ax.grid(visible=True, axis="x", linewidth=0.5, alpha=0.5)
        ax.set_axisbelow(True)


def _checked_range(name: str, value: Sequence[float]) -> list[float]:
    numbers = [float(number) for number in value]
    if len(numbers) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
        raise ValueError(f"{name} is {value!r}; two finite numbers, the lower first, are accepted")
    return numbers

r"""The live figure of sampling: particles on their way from noise to data, by three rules."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import traitlets as t
from numpy.typing import NDArray
from torch import Tensor, nn

from evidence.diffusion.clouds import mixture
from evidence.diffusion.exact import MixtureData
from evidence.diffusion.networks import VectorNetwork
from evidence.diffusion.prediction import Denoiser, NetworkDenoiser
from evidence.diffusion.sampling import ancestral_step, ddim_step
from evidence.diffusion.schedule import Schedule, cosine_log_snr, discretize
from evidence.diffusion.trained import LOG_SNR
from evidence.live.figure import LiveFigure, blank_picture, in_range, png, read_script, read_style
from evidence.live.noise import noise
from evidence.plotting import COLORS, PAPER
from evidence.two_samples import energy_distance

__all__ = ["Sampling"]

RANGES: dict[str, tuple[float, float]] = {
    "num_steps": (5, 100), "eta": (0.0, 1.0), "walked": (0.0, 1.0), "seed": (0, 999),
}  # fmt: skip
SCORES = ("exact", "learned")
METHODS = ("ddim", "posterior", "beta")
PARTICLES = 300
REFERENCE = 2000
"""So many points of the data the particles are compared with."""
REFERENCE_SEED = 5000
"""Of their noise: none that a reader can choose."""
FRESH = 0.014
"""Below this are 19 of 20 energy distances of as many fresh data as there are particles."""
PATHS = 12
"""So many particles leave a trace."""
SHOWN = 3.4
"""The figure shows both coordinates from minus this on."""
LEVELS = (0.02, 0.1, 0.3, 0.6)
"""Contours of the data's density, as shares of its maximum."""
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


class Sampling(LiveFigure):
    r"""Particles that go from noise to the data of `evidence.diffusion.clouds.mixture`.

    The chain has `num_steps` steps, between the noise levels that networks of the book are trained
    at (``discretize(cosine_log_snr(*LOG_SNR), num_steps)``).

    Parameters
    ----------
    denoiser : NetworkDenoiser
        The learned score: a `VectorNetwork` of points in the plane, without labels, that predicts
        ``"eps"``, as `evidence.diffusion.trained.cloud_diffusion` makes it. A copy is kept, its
        weights rounded to float16.
    score : {"exact", "learned"}
        Whom the sampler asks for the noise: the mixture itself, or the network.
    method : {"ddim", "posterior", "beta"}
        `ddim`, or the ancestral sampler with one of its two variances.
    eta : float
        How much noise a step of DDIM adds, from 0 to 1. The other methods ignore it.
    num_steps : int
        T, from 5 to 100.
    walked : float
        How far the particles shown have gone, from 0 (noise) to 1 (data).
    seed : int
        Of the start and of the noise, from 0 to 999 (`evidence.live.noise`).
    caption : str
        A line under the figure, not part of its picture.

    Raises
    ------
    TypeError
        If `denoiser` is not a `NetworkDenoiser` of a `VectorNetwork`.
    ValueError
        If it predicts something else, has labels or another dimension, or a weight does not fit
        into a float16.
    traitlets.TraitError
        If a value is none of these, or out of its range.

    Notes
    -----
    All traits named here, and `alt`, may be set. Setting one in Python moves the figure in the
    notebook, and moving it there changes them in Python.
    """

    _esm = read_script("sampling")
    _css = read_style("sampling")

    score = t.Enum(SCORES).tag(sync=True)
    method = t.Enum(METHODS).tag(sync=True)
    eta = t.Float().tag(sync=True)
    num_steps = t.Int().tag(sync=True)
    walked = t.Float().tag(sync=True)
    seed = t.Int().tag(sync=True)

    ranges = t.Dict({name: list(ends) for name, ends in RANGES.items()}, read_only=True).tag(
        sync=True
    )
    log_snr_range = t.List(t.Float(), list(LOG_SNR), read_only=True).tag(sync=True)
    mixture = t.Dict(read_only=True).tag(sync=True)
    network = t.Dict(read_only=True).tag(sync=True)
    weights = t.Bytes(read_only=True).tag(sync=True)
    numbers = t.Dict(
        {
            "particles": PARTICLES, "reference": REFERENCE, "reference_seed": REFERENCE_SEED,
            "fresh": FRESH, "paths": PATHS, "shown": SHOWN, "levels": list(LEVELS),
        },
        read_only=True,
    ).tag(sync=True)  # fmt: skip

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        *,
        score: str = "exact",
        method: str = "ddim",
        eta: float = 0.0,
        num_steps: int = 20,
        walked: float = 0.6,
        seed: int = 0,
        caption: str = "",
    ) -> None:
        self._data = mixture()
        self._reference = _reference(self._data)
        self._learned, state = _rounded(denoiser)
        # All before the widget opens: it then travels once, whole.
        for name, value in state.items():
            self.set_trait(name, value)
        self.set_trait(
            "mixture",
            {name: getattr(self._data, name).tolist() for name in ("weights", "means", "covs")},
        )
        self.score, self.method, self.num_steps, self.seed = score, method, num_steps, seed
        self.eta, self.walked = float(eta), float(walked)
        self.alt = (
            "300 particles in the plane on their way from a round cloud of noise to the data. The "
            "density of the data lies behind in bands: three hills, two of them long. Twelve "
            "particles leave a trace."
        )
        super().__init__(caption=caption)

    @t.validate(*RANGES)
    def _check_number(self, proposal: Any) -> float:
        return in_range(proposal, *RANGES[proposal["trait"].name])

    @property
    def step(self) -> int:
        """The t at which the particles shown are, or to which they are nearest: from T to 0."""
        return int((1 - self.walked) * self.num_steps + 0.5)

    def schedule(self) -> Schedule:
        """Return the chain that is sampled."""
        return discretize(cosine_log_snr(*LOG_SNR), self.num_steps)

    def denoiser(self) -> Denoiser:
        """Return who is asked for the noise, in float64: the mixture, or the rounded network."""
        return self._data if self.score == "exact" else self._learned

    def eps(self) -> Tensor:
        """Return all noise, shape ``(T + 1, 300, 2)``, indexed by the t of the state it makes.

        So ``eps()[T]`` is the start, and the step to t adds a multiple of ``eps()[t]``.
        """
        steps = self.num_steps + 1
        draws = noise(self.seed, steps * PARTICLES * 2).reshape(steps, PARTICLES, 2)
        return torch.from_numpy(draws).flip(0)

    @torch.no_grad()
    def states(self) -> Tensor:
        """Return all states, shape ``(T + 1, 300, 2)``, float64, indexed by t."""
        schedule, denoiser, eps = self.schedule(), self.denoiser(), self.eps()
        states = [eps[self.num_steps]]
        for step in range(self.num_steps, 0, -1):
            x = states[-1]
            eps_hat = denoiser.predict(x, schedule.log_snr[step], "eps")
            if self.method == "ddim":
                x = ddim_step(x, eps_hat, schedule, step, eps[step - 1], eta=self.eta)
            else:
                x = ancestral_step(
                    x, eps_hat, schedule, step, eps[step - 1], reverse_variance=self.method
                )
            states.append(x)
        return torch.stack(states[::-1])

    def samples(self) -> Tensor:
        """Return where all particles end, shape ``(300, 2)``."""
        return self.states()[0]

    def reference(self) -> Tensor:
        """Return the points of the data that particles are compared with, shape ``(2000, 2)``.

        Of each component as many as its weight says.
        """
        return self._reference

    def energy_distance(self) -> float:
        """Return the `evidence.two_samples.energy_distance` of `samples` and `reference`."""
        return energy_distance(self.samples(), self.reference()).item()

    def spread(self) -> float:
        """Return the standard deviation of `samples`, over both coordinates; of the data it is 1.

        The root of the mean variance.
        """
        return self.samples().var(0, correction=0).mean().sqrt().item()

    def summary(self) -> str:
        """Return one line that is the same at every run."""
        return (
            f"Sampling(score={self.score!r}, method={self.method!r}, eta={self.eta:.3g}, "
            f"num_steps={self.num_steps}, walked={self.walked:.3g}, seed={self.seed})"
        )

    def picture(self) -> bytes:
        """Return a PNG of the particles at the start, as they stand, and at the end."""
        figure = blank_picture(height=3.1)
        states = self.states().numpy()
        for ax, step in zip(
            figure.subplots(1, 3, sharex=True, sharey=True), (self.num_steps, self.step, 0),
            strict=True,
        ):  # fmt: skip
            self._draw(ax, states, step)
        rule = f"DDIM, $\\eta$ = {self.eta:.2g}" if self.method == "ddim" else {
            "posterior": r"ancestral, $\tilde\beta_t$", "beta": r"ancestral, $\beta_t$",
        }[self.method]  # fmt: skip
        figure.suptitle(
            f"{self.score} score, {rule}, {self.num_steps} steps: "
            f"energy distance {self.energy_distance():.4f}"
        )
        return png(figure)

    def _draw(self, ax: Any, states: NDArray[np.float64], step: int) -> None:
        axis = torch.linspace(-SHOWN, SHOWN, 160, dtype=torch.float64)
        plane = torch.cartesian_prod(axis, axis)
        density = self._data.log_prob(plane).exp().reshape(160, 160).T
        for level in LEVELS:
            ends = [level * density.max().item(), np.inf]
            ax.contourf(axis, axis, density, ends, colors=COLORS["model"], alpha=0.13)
        ax.plot(*states[step:, :PATHS].transpose(2, 0, 1), color=COLORS["encoder"], linewidth=0.7)
        ax.plot(*states[step].T, "o", color=COLORS["data"], markersize=1.6, markeredgewidth=0)
        ax.plot(*states[step, :PATHS].T, "o", color=COLORS["encoder"], markersize=3)
        ax.set(
            xlim=(-SHOWN, SHOWN), ylim=(-SHOWN, SHOWN), aspect="equal", title=f"$t = {step}$",
            facecolor=PAPER,
        )  # fmt: skip
        ax.set_xticks([]), ax.set_yticks([])


def _reference(data: MixtureData) -> Tensor:
    draws = torch.from_numpy(noise(REFERENCE_SEED, 2 * REFERENCE)).reshape(-1, 2)
    parts = draws.split([round(REFERENCE * weight) for weight in data.weights.tolist()])
    roots = torch.linalg.cholesky(data.covs)
    return torch.cat([
        mean + part @ root.T for part, mean, root in zip(parts, data.means, roots, strict=True)
    ])  # fmt: skip


def _rounded(denoiser: NetworkDenoiser) -> tuple[NetworkDenoiser, dict[str, Any]]:
    """Return the denoiser in float64 with float16 weights, and what the page makes it of."""
    network = denoiser.network if isinstance(denoiser, NetworkDenoiser) else denoiser
    if not isinstance(denoiser, NetworkDenoiser) or not isinstance(network, VectorNetwork):
        raise TypeError(
            f"denoiser is a {type(denoiser).__name__}; accepted is a NetworkDenoiser of a "
            "VectorNetwork"
        )
    if denoiser.prediction != "eps":
        raise ValueError(f"denoiser predicts {denoiser.prediction!r}; accepted is 'eps'")
    hidden, dim = network.first.weight.shape
    if dim != 2 or network.condition.num_labels:
        raise ValueError(
            f"denoiser is of points in {dim} dimensions with {network.condition.num_labels} "
            "labels; accepted are 2 dimensions and no labels"
        )
    network = copy.deepcopy(network).cpu().double().requires_grad_(False)
    layers = [
        network.condition.first, network.condition.second, network.first,
        *(layer for b in network.blocks for layer in (b.modulate, b.first, b.second)),
        network.last,
    ]  # fmt: skip
    packed = b"".join(_round_layer(layer) for layer in layers)
    shape = {
        "hidden": hidden, "blocks": len(network.blocks), "condition": network.condition.dim,
        "norm_eps": network.blocks[0].norm.eps if network.blocks else 0.0,
    }  # fmt: skip
    return NetworkDenoiser(network, "eps").eval(), {"network": shape, "weights": packed}


def _round_layer(layer: nn.Linear) -> bytes:
    """Round a layer's numbers to float16, and return them: row after row, then the bias."""
    for parameter in (layer.weight, layer.bias):
        if not parameter.isfinite().all() or parameter.abs().max() > LARGEST_FLOAT16:
            raise ValueError(
                f"denoiser has a weight of {parameter.abs().max().item():g}; accepted are those "
                f"that fit into a float16, up to {LARGEST_FLOAT16:g}"
            )
        parameter.copy_(parameter.half())
    return b"".join(
        parameter.numpy().astype("<f2").tobytes() for parameter in (layer.weight, layer.bias)
    )

r"""The live figure of a VAE's map: choose two digits, and walk from one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets as t
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributions import Normal

from evidence.live.code_plane import CodePlane
from evidence.live.figure import blank_picture, in_range, png, read_script, read_style
from evidence.plotting import COLORS, INK, PAPER

__all__ = ["LatentMap"]

FILM = 9
"""So many images of the walk are shown in a row."""


class LatentMap(CodePlane):
    r"""The plane of a VAE's codes with a straight walk, and what the decoder makes of it.

    The walk leads from one code to another, :math:`z_t = (1 - t)\,z + t\,z'`. The reader chooses
    its ends and moves along it; the page computes the images, and the log density of the prior
    :math:`\mathcal{N}(0, I)`.

    Parameters
    ----------
    decoder : nn.Sequential
        Maps ``(batch, 2)`` to ``(batch, size * size)`` images whose pixels lie in [0, 1]; for
        `evidence.models.VAE`, ``nn.Sequential(vae.decoder, nn.Sigmoid())``. Of the layers that
        `CodeSpace` accepts. A copy is kept.
    codes : array_like of float
        Means of q(z|x) of the training data, shape ``(N, 2)``.
    labels : array_like of int
        Their classes, shape ``(N,)``, whole numbers from 0 to 9.
    size : int
        Width and height of an image in pixels.
    start, end : sequence of two floats, optional
        The ends of the walk, by default the typical codes of the lowest and of the highest class.
    walked : float
        t, from 0 (at the start) to 1 (at the end).
    drawn : int
        So many codes are handed over and drawn, taken at random without replacement.
    seed : int
        Of the choice of the codes.
    caption : str
        A line under the figure, not part of its picture.

    Raises
    ------
    TypeError
        If the decoder is not an `nn.Sequential`, or holds a layer of another kind.
    ValueError
        If shapes do not fit, the codes are not finite, a weight does not fit into a float16, or a
        label or another number is out of its range.
    traitlets.TraitError
        If an end of the walk is outside the plane, or `walked` outside [0, 1].

    Notes
    -----
    The traits `start`, `end`, `walked`, `caption` and `alt` may be set. Setting the first three in
    Python moves the figure in the notebook, and moving it there changes them in Python.

    Large layers are handed over in a byte a weight (`code_plane.decoder_layers`), with which the
    decoder 2-400-784 takes a third of a megabyte.
    """

    _esm = read_script("code_plane", "latent_map")
    _css = read_style("code_plane", "latent_map")

    start = t.List(t.Float(), minlen=2, maxlen=2).tag(sync=True)
    end = t.List(t.Float(), minlen=2, maxlen=2).tag(sync=True)
    walked = t.Float().tag(sync=True)

    film = t.Int(FILM, read_only=True).tag(sync=True)

    def __init__(
        self,
        decoder: nn.Sequential,
        codes: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        *,
        size: int = 28,
        start: Sequence[float] | None = None,
        end: Sequence[float] | None = None,
        walked: float = 0.5,
        drawn: int = 1500,
        seed: int = 0,
        caption: str = "",
    ) -> None:
        self._take_over(
            decoder, codes, labels, size=size, kept=max(drawn, 3) if type(drawn) is int else 3,
            drawn=drawn, seed=seed, weight_bits=8,
        )  # fmt: skip
        self.start = self.typical[0] if start is None else [float(number) for number in start]
        self.end = self.typical[-1] if end is None else [float(number) for number in end]
        self.walked = float(walked)
        self.alt = (
            f"Left, {self.drawn} codes of training images in the plane of codes, coloured by "
            f"their {len(self.class_names)} classes, with a straight walk between two of them; "
            "right, the image decoded on the way; below, images along the whole walk."
        )
        super().__init__(caption=caption)

    @t.validate("start", "end")
    def _check_end(self, proposal: Any) -> list[float]:
        return self._checked_place(proposal)

    @t.validate("walked")
    def _check_walked(self, proposal: Any) -> float:
        return in_range(proposal, 0, 1)

    def point(self) -> list[float]:
        """Return the code at which the walker is."""
        return self._at(self.walked)

    def log_prior(self) -> float:
        """Return log p(z) of the prior N(0, I) at the walker, in nats."""
        z = torch.tensor(self.point(), dtype=torch.float64)
        return Normal(torch.zeros_like(z), 1.0).log_prob(z).sum().item()

    def decoded(self) -> Tensor:
        """Return the decoder's image at the walker, shape ``(size, size)``, computed by torch.

        The page computes with rounded weights: with the VAEs of the book, its pixels differ by less
        than 0.03 anywhere on the plane.
        """
        return self._images([self.point()])[0]

    def _at(self, walked: float) -> list[float]:
        ends = zip(self.start, self.end, strict=True)
        return [(1 - walked) * a + walked * b for a, b in ends]

    def picture(self) -> bytes:
        """Return a PNG of the plane, the decoded image and the walk as they stand."""
        figure = blank_picture(height=5.4)
        above, below = figure.subfigures(2, 1, height_ratios=(4.2, 1.0))
        left, right = above.subplots(1, 2, width_ratios=(1.55, 1))
        self._draw_codes(left)
        left.set(title="The map, and a walk on it")
        left.plot(*np.transpose([self.start, self.end]), color=COLORS["data"], linewidth=2)
        for place, marker in ((self.start, "s"), (self.end, "D"), (self.point(), "o")):
            left.scatter(
                *place, s=90, marker=marker, facecolor=PAPER, edgecolor="black", linewidth=2,
                zorder=3,
            )  # fmt: skip
        right.imshow(self.decoded().numpy(), cmap=INK, vmin=0, vmax=1, interpolation="nearest")
        right.grid(visible=False)
        right.set(
            xticks=[], yticks=[], title="Decoded on the way",
            xlabel=f"{round(100 * self.walked)} % of the way\n"
            f"$\\log p(z)$ = {self.log_prior():.2f} nats",
        )  # fmt: skip
        film = self._images([self._at(part) for part in np.linspace(0, 1, FILM)])
        for ax, image in zip(below.subplots(1, FILM), film, strict=True):
            ax.imshow(image.numpy(), cmap=INK, vmin=0, vmax=1, interpolation="nearest")
            ax.grid(visible=False)
            ax.set(xticks=[], yticks=[])
        return png(figure)

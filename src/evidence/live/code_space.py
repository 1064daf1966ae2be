"""The live figure of an autoencoder's code space: drag a point, see what it decodes to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import traitlets as t
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from evidence.live.code_plane import CodePlane, decoder_layers
from evidence.live.figure import blank_picture, png, read_script, read_style
from evidence.plotting import INK, PAPER

__all__ = ["CodeSpace", "decoder_layers", "largest_holes"]

NUM_HOLES = 6
# Beyond this quantile of the distance to the nearest other code, a point counts as far away.
FAR_QUANTILE = 0.99


class CodeSpace(CodePlane):
    """The plane of an autoencoder's codes, with a point that the reader drags.

    Beside the plane stands the image that the decoder makes of the point, computed in the page,
    with the distance from the point to the nearest training code: where it is large, no image of
    the training set had its code, and nothing taught the decoder what to draw.

    Parameters
    ----------
    decoder : nn.Sequential
        Maps ``(batch, 2)`` to ``(batch, size * size)`` images whose pixels lie in [0, 1] (what
        lies outside is drawn as 0 or 1). Made of `nn.Linear`, `nn.ReLU`, `nn.SiLU`, `nn.GELU`,
        `nn.Tanh`, `nn.Sigmoid` and further `nn.Sequential`. A copy is kept: training the decoder
        further does not change the figure.
    codes : array_like of float
        Codes of the training data, shape ``(N, 2)``.
    labels : array_like of int
        Their classes, shape ``(N,)``, whole numbers from 0 to 9.
    size : int
        Width and height of an image in pixels.
    point : sequence of two floats, optional
        Where the point is at first, by default at the typical code of the lowest class.
    kept : int
        At most so many codes are handed over, drawn at random without replacement. Distances and
        holes are those of the kept codes.
    drawn : int
        So many of the kept codes are drawn as dots; the nearest one is always marked.
    seed : int
        Of the choice of the codes.
    caption : str
        A line under the figure, not part of its picture. On a page of the book, the caption of the
        cell (`mystnb: figure: caption:`) is the better one: it is numbered.

    Raises
    ------
    TypeError
        If the decoder is not an `nn.Sequential`, or holds a layer of another kind.
    ValueError
        If shapes do not fit, the codes are not finite or lie on one line, a weight does not fit
        into a float16, or a label or another number is out of its range.

    Notes
    -----
    The traits `point`, `caption` and `alt` may be set; setting `point` in Python moves it in the
    notebook, and moving it there changes it in Python.
    """

    _esm = read_script("code_plane", "code_space")
    _css = read_style("code_plane", "code_space")

    point = t.List(t.Float(), minlen=2, maxlen=2).tag(sync=True)

    holes = t.List(read_only=True).tag(sync=True)
    hole_radius = t.Float(read_only=True).tag(sync=True)
    far = t.Float(read_only=True).tag(sync=True)

    def __init__(
        self,
        decoder: nn.Sequential,
        codes: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        *,
        size: int = 28,
        point: Sequence[float] | None = None,
        kept: int = 5000,
        drawn: int = 1500,
        seed: int = 0,
        caption: str = "",
    ) -> None:
        from scipy.spatial import cKDTree

        self._take_over(decoder, codes, labels, size=size, kept=kept, drawn=drawn, seed=seed)
        self._tree = cKDTree(self._kept_codes)
        neighbour_distance = self._tree.query(self._kept_codes, k=2)[0][:, 1]
        holes, radii = largest_holes(self._kept_codes, NUM_HOLES)
        values: dict[str, Any] = {
            "holes": holes.tolist(),
            "hole_radius": float(radii[0]),
            "far": float(np.quantile(neighbour_distance, FAR_QUANTILE)),
        }
        for name, value in values.items():
            self.set_trait(name, value)
        self.point = self.typical[0] if point is None else [float(number) for number in point]
        self.alt = (
            f"Left, {self.drawn} codes of training images in the plane of codes, coloured by "
            f"their {len(self.class_names)} classes, with a point among them; right, the image "
            "that the decoder makes of that point."
        )
        super().__init__(caption=caption)

    @t.validate("point")
    def _check_point(self, proposal: Any) -> list[float]:
        return self._checked_place(proposal)

    def decoded(self) -> Tensor:
        """Return the decoder's image of `point`, shape ``(size, size)``, computed by torch.

        The page computes with weights rounded to float16, so its pixels differ by about 1e-3.
        """
        return self._images([self.point])[0]

    def nearest(self) -> tuple[float, str]:
        """Return the distance from `point` to the nearest kept code, and that code's class."""
        distance, index = self._tree.query(self.point)
        return float(distance), self.class_names[self._kept_classes[index]]

    def picture(self) -> bytes:
        """Return a PNG of the plane and the decoded image as they stand."""
        figure = blank_picture(height=4.5)
        left, right = figure.subplots(1, 2, width_ratios=(1.55, 1))
        self._draw_codes(left)
        left.scatter(*self.point, s=90, facecolor=PAPER, edgecolor="black", linewidth=2, zorder=3)
        left.set(title="Codes of the training set")
        right.imshow(self.decoded().numpy(), cmap=INK, vmin=0, vmax=1, interpolation="nearest")
        right.grid(visible=False)
        distance, name = self.nearest()
        right.set(
            xticks=[], yticks=[], title="Decoded at the point",
            xlabel=f"nearest training code:\n{distance:.3g} away, class {name}",
        )  # fmt: skip
        return png(figure)


def largest_holes(
    codes: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where, among the codes, the distance to the nearest one is largest.

    The centres lie within the convex hull of the codes, and none within the circle of a larger
    one. Where that distance has a local maximum three codes are equally near, so the place is a
    corner of the Voronoi diagram: only those are looked at.

    Parameters
    ----------
    codes : ndarray
        Shape ``(N, 2)``.
    count : int
        How many are wanted; there may be fewer.

    Returns
    -------
    centres : ndarray
        Shape ``(holes, 2)``, the largest first.
    radii : ndarray
        Shape ``(holes,)``.

    Raises
    ------
    ValueError
        If there are fewer than three codes, or they lie on one line.
    """
    from scipy.spatial import Delaunay, QhullError, Voronoi, cKDTree

    try:
        hull, corners = Delaunay(codes), Voronoi(codes).vertices
    except (QhullError, ValueError) as error:
        raise ValueError(
            f"codes has {len(codes)} points that span no area; three or more, not on one line, "
            "are accepted"
        ) from error
    # The middle of the codes is always within the hull: at least one hole is found.
    corners = np.vstack([corners[hull.find_simplex(corners) >= 0], codes.mean(0)])
    radii = cKDTree(codes).query(corners)[0]
    chosen: list[int] = []
    for index in np.argsort(-radii, kind="stable"):
        apart = all(math.dist(corners[index], corners[other]) > radii[other] for other in chosen)
        if apart and len(chosen) < count:
            chosen.append(int(index))
    return corners[chosen], radii[chosen]

r"""The one place of the book's figures: style, colours, and the two pictures that many pages draw.

A page calls `use_style` once, draws with matplotlib as usual, and takes its colours by the role
that a curve plays::

    from evidence import plotting

    plotting.use_style()
    figure, ax = plt.subplots()
    ax.plot(x, p_x, color=plotting.COLORS["model"], label=r"$p_\theta(x)$")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import matplotlib.patheffects
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex

__all__ = ["CLASS_COLORS", "COLORS", "PAPER", "WIDTH", "image_grid", "scatter_codes", "use_style"]

COLORS = MappingProxyType(
    {
        "data": "#0d1d2c",
        "model": "#0458a1",
        "encoder": "#c03429",
        "bound": "#3ba479",
        "posterior": "#672c62",
        "error": "#b27902",
        "prior": "#697885",
    }
)
"""The colour of each role, the same on every page: `data` and p_data; the `model` p_theta and its
decoder; the `encoder` q_phi; the `bound` and its gap; the exact `posterior`; an `error` or a loss;
the `prior`. Any two differ in lightness, so they stay apart in grey print, and for every common
kind of colour blindness; each has a contrast of 3 or more on `PAPER`."""

PAPER = "#fdfcf9"
"""What figures are drawn on. It is opaque, so that they can be read on a dark page too."""

CLASS_COLORS = tuple(map(to_hex, mpl.color_sequences["petroff10"]))
"""Ten colours for classes without an order (arXiv 2107.02270), also for the colour-blind. Ten are
too many to be told apart in grey, so `scatter_codes` writes the class's number as well."""

FONTS = Path(__file__).parent / "fonts"
"""The folder of the fonts that figures are set in: the sans of the pages."""

FAMILIES = ("Evidence Sans", "DejaVu Sans")
"""What text is set in; the second, which comes with matplotlib, has what the first lacks."""

WIDTH = 7.4
"""Inches from edge to edge of the text column, at 96 CSS pixels an inch."""

# Neighbours in the cycle are the easiest to tell apart.
CYCLE = ("model", "encoder", "bound", "data", "error", "posterior", "prior")
LINE_COLOR = "#c9ced4"
TEXT_COLOR = COLORS["data"]
INK = LinearSegmentedColormap.from_list("ink", ["#ffffff", COLORS["data"]])
LARGEST_CELL = 0.62
GAP = 0.08
TITLE_HEIGHT = 0.24


def use_style() -> None:
    """Set the book's matplotlib style for the figures that follow.

    Sizes are those of the text column: one inch is 96 CSS pixels, and a size in points is the same
    size in the text around. In Jupyter the pictures have two pixels for each of these. Calling it
    again changes nothing.
    """
    _register_fonts()
    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),
            "figure.dpi": 96,
            "figure.facecolor": PAPER,
            "figure.constrained_layout.use": True,
            "savefig.facecolor": PAPER,
            "savefig.dpi": 192,
            "savefig.bbox": "tight",
            "font.family": list(FAMILIES),
            # The letters of the pages' formulas, Computer Modern; they come with matplotlib.
            "mathtext.fontset": "cm",
            "font.size": 10.5,
            "axes.titlesize": 11,
            "axes.titlepad": 8,
            "axes.labelsize": 10.5,
            "axes.labelpad": 5,
            "xtick.labelsize": 9.5,
            "ytick.labelsize": 9.5,
            "legend.fontsize": 10,
            "figure.titlesize": 11.5,
            "text.color": TEXT_COLOR,
            "axes.labelcolor": TEXT_COLOR,
            "axes.titlecolor": TEXT_COLOR,
            "xtick.labelcolor": TEXT_COLOR,
            "ytick.labelcolor": TEXT_COLOR,
            "xtick.color": "#7d8791",
            "ytick.color": "#7d8791",
            "axes.facecolor": PAPER,
            "axes.edgecolor": "#7d8791",
            "axes.linewidth": 0.8,
            "xtick.major.width": 0.8,
            "ytick.major.width": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e4e6e6",
            "grid.linewidth": 0.8,
            "lines.linewidth": 1.8,
            "lines.markersize": 4.5,
            "lines.solid_capstyle": "round",
            "patch.linewidth": 0.8,
            "legend.frameon": False,
            "legend.handlelength": 1.6,
            "image.cmap": "cividis",
            "image.interpolation": "nearest",
            "axes.prop_cycle": cycler(color=[COLORS[role] for role in CYCLE]),
        }
    )
    _double_pixels_in_jupyter()


def _register_fonts() -> None:
    """Make the book's fonts known to matplotlib in this process, whatever the system has."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(FONTS.glob("*.ttf")):
        if str(path) not in known:
            font_manager.fontManager.addfont(path)


def _double_pixels_in_jupyter() -> None:
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return
    from matplotlib_inline.config import InlineBackend

    # "retina" also stores the size at which to show a picture, which a higher dpi would not.
    InlineBackend.instance(parent=shell).figure_formats = {"retina"}


def image_grid(
    images: Any,
    *,
    columns: int,
    titles: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
    shape: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw pictures in rows, row by row from the top: grey ones dark on light, or in colour.

    Parameters
    ----------
    images : array or Tensor
        Finite, within `limits`. Grey: shape ``(n, height, width)`` or ``(n, 1, height, width)``,
        or ``(n, side * side)``. In colour: ``(n, 3, height, width)``: red, green and blue. Or of
        shape ``(n, D)``, with the pictures' `shape`.
    columns : int
        Pictures in a row. The last row may be short.
    titles : sequence of str, optional
        One for each picture, or one for each column (shown over the first row).
    row_labels : sequence of str, optional
        One for each row, shown at its left.
    limits : (float, float)
        The values of the lightest and of the darkest grey; of a colour that is absent and in full.
    shape : sequence of int, optional
        That of one picture, where `images` is flat and they are not square and grey:
        ``(height, width)``, ``(1, height, width)`` or ``(3, height, width)``.
    ax : Axes, optional
        Where to draw; by default, on a new figure of the right size.

    Returns
    -------
    Axes
        With one unit of its coordinates for each pixel of a picture.

    Raises
    ------
    TypeError
        If `columns` is no whole number.
    ValueError
        If a shape, a value or the number of titles or labels is not as above.
    """
    pictures = _as_pictures(images, limits, shape)
    if isinstance(columns, bool) or not isinstance(columns, int | np.integer):
        raise TypeError(f"columns is {columns!r}; a whole number is accepted")
    if columns < 1:
        raise ValueError(f"columns is {columns}; 1 or more is accepted")
    count, height, width = pictures.shape[:3]
    columns = min(int(columns), count)
    rows = -(-count // columns)
    if titles is not None and len(titles) not in (columns, count):
        raise ValueError(
            f"titles has {len(titles)} texts; accepted are {columns} (one a column) "
            f"or {count} (one a picture)"
        )
    if row_labels is not None and len(row_labels) != rows:
        raise ValueError(f"row_labels has {len(row_labels)} texts, but there are {rows} rows")

    gap_x = GAP * width
    titles_inside = titles is not None and len(titles) > columns
    cell = min(LARGEST_CELL, WIDTH / (columns * (1 + GAP)))
    # In pixels of the pictures, so that a title fits between two rows.
    gap_y = height * (TITLE_HEIGHT / cell if titles_inside else GAP)
    if ax is None:
        size = (
            cell * columns * (1 + GAP) + (0.9 if row_labels else 0),
            cell * rows * (height + gap_y) / width + (TITLE_HEIGHT if titles else 0),
        )
        _, ax = plt.subplots(figsize=size)
    lefts = (np.arange(count) % columns) * (width + gap_x)
    tops = (np.arange(count) // columns) * (height + gap_y)
    for picture, left, top in zip(pictures, lefts, tops, strict=True):
        ax.imshow(
            picture,
            cmap=INK,
            vmin=limits[0],
            vmax=limits[1],
            extent=(left, left + width, top + height, top),
            interpolation="nearest",
        )
        ax.add_patch(
            plt.Rectangle((left, top), width, height, fill=False, edgecolor=LINE_COLOR, lw=0.5)
        )
    for title, left, top in zip(titles or (), lefts, tops, strict=False):
        ax.annotate(
            title, (left + width / 2, top), (0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=9.5, annotation_clip=False,
        )  # fmt: skip
    margin = 0.02 * width
    ax.set(
        xlim=(-margin, lefts.max() + width + margin),
        ylim=(tops.max() + height + margin, -margin),
        aspect="equal",
        xticks=[],
        yticks=[],
    )
    if row_labels is not None:
        ax.set_yticks(np.unique(tops) + height / 2, row_labels)
        ax.tick_params(axis="y", length=0, pad=4, labelsize=10)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax


def _as_pictures(
    images: Any, limits: tuple[float, float], shape: Sequence[int] | None
) -> np.ndarray:
    """Return grey pictures ``(n, height, width)``, or ``(n, height, width, 3)`` from 0 to 1."""
    low, high = limits
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"limits is {limits}; accepted are two numbers, the smaller one first")
    pictures = _as_array("images", images)
    given = pictures.shape
    if 0 not in given and pictures.ndim == 2:
        if shape is None:
            side = int(np.sqrt(given[1]) + 0.5)
            if side * side != given[1]:
                raise ValueError(
                    f"images has the shape {given}, and {given[1]} pixels are not a square; give "
                    "the shape of one picture"
                )
            shape = (side, side)
        if len(shape) not in (2, 3) or np.prod(shape) != given[1]:
            raise ValueError(
                f"shape: expected (height, width) or (channels, height, width) of {given[1]} "
                f"pixels, got {tuple(shape)}"
            )
        pictures = pictures.reshape(-1, *shape)
    elif shape is not None and given[1:] != tuple(shape):
        raise ValueError(f"shape: expected that of the pictures, {given[1:]}, got {tuple(shape)}")
    if 0 in given or pictures.ndim not in (3, 4) or pictures.shape[1:-2] not in ((), (1,), (3,)):
        raise ValueError(
            f"images has the shape {given}; accepted are (n, side * side), (n, height, width) and "
            "(n, channels, height, width) with 1 or 3 channels, with at least one picture"
        )
    smallest, largest = pictures.min(), pictures.max()
    if smallest < low or largest > high:
        raise ValueError(
            f"images has values from {smallest:g} to {largest:g}, outside limits {limits}; "
            "clip them in sight of the reader, or give wider limits"
        )
    if pictures.ndim == 3:
        return pictures
    if pictures.shape[1] == 1:
        return pictures[:, 0]
    return (np.moveaxis(pictures, 1, -1).astype(float) - low) / (high - low)


def scatter_codes(ax: Axes, codes: Any, labels: Any, *, size: float = 4.0) -> Axes:
    """Draw codes of two dimensions, coloured by class, with the class's number at its median.

    Parameters
    ----------
    ax : Axes
        Where to draw.
    codes : array or Tensor
        Shape ``(n, 2)``, finite.
    labels : array or Tensor
        Shape ``(n,)``, whole numbers from 0 to 9.
    size : float
        Area of a point, in square points.

    Returns
    -------
    Axes
        The same axes.

    Raises
    ------
    ValueError
        If a shape or a value is not as above.
    """
    points, classes = _as_array("codes", codes), _as_array("labels", labels)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"codes has the shape {points.shape}; (n, 2) is accepted, n at least 1")
    if classes.shape != points.shape[:1]:
        raise ValueError(
            f"labels has the shape {classes.shape}, but codes has {len(points)} rows; "
            f"({len(points)},) is accepted"
        )
    present = np.unique(classes)
    if not np.isin(present, np.arange(len(CLASS_COLORS))).all():
        raise ValueError(f"labels holds {present}; whole numbers from 0 to 9 are accepted")
    # Data are often sorted by class; drawn so, the last class would hide the others.
    order = np.random.default_rng(0).permutation(len(points))
    colors = np.array(CLASS_COLORS)[classes.astype(int)]
    ax.scatter(*points[order].T, c=colors[order], s=size, alpha=0.7, linewidths=0, rasterized=True)
    halo = [mpl.patheffects.withStroke(linewidth=3.0, foreground=PAPER)]
    for label in present.astype(int):
        ax.text(
            *np.median(points[classes == label], axis=0), str(label), ha="center", va="center",
            fontsize=13, fontweight="bold", path_effects=halo, clip_on=True,
        )  # fmt: skip
    ax.set(xlabel="$z_1$", ylabel="$z_2$")
    return ax


def _as_array(name: str, values: Any) -> np.ndarray:
    """Return finite numbers of a tensor or an array, unchanged."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ValueError(f"{name} has the type {array.dtype}; real numbers are accepted")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(array))} values not finite")
    return array

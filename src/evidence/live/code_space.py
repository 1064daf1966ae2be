"""The live figure of an autoencoder's code space: drag a point, see what it decodes to."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets as t
from matplotlib.colors import to_hex
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import Delaunay, QhullError, Voronoi, cKDTree
from torch import Tensor, nn

from evidence.live.figure import LiveFigure, blank_picture, png, read_script, read_style
from evidence.plotting import CLASS_COLORS, INK, PAPER

__all__ = ["CodeSpace", "decoder_layers", "largest_holes"]

CODE_DIM = 2
ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}
GRID = 65535
"""Codes are handed over as whole numbers from 0 to this, across the plane that is shown."""
MARGIN = 0.06
"""How much wider the plane is than the codes, as a fraction of their extent."""
NUM_HOLES = 6
NUMERAL_DISTANCE = 0.055
"""How far apart the numerals of two classes stand at least, as a fraction of the plane's width."""
# Beyond this quantile of the distance to the nearest other code, a point counts as far away.
FAR_QUANTILE = 0.99

# `CLASS_COLORS` are made for light paper; on a dark page, two of them need to be lighter.
DARKEST = {"#bd1f01": "#f4614a", "#832db6": "#bb7fe6"}
LIGHT_PAGE_COLORS = tuple(map(to_hex, CLASS_COLORS))
DARK_PAGE_COLORS = tuple(DARKEST.get(color, color) for color in LIGHT_PAGE_COLORS)


class CodeSpace(LiveFigure):
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

    _esm = read_script("code_space")
    _css = read_style("code_space")

    point = t.List(t.Float(), minlen=2, maxlen=2).tag(sync=True)

    layers = t.List(t.Dict(), read_only=True).tag(sync=True)
    weights = t.Bytes(read_only=True).tag(sync=True)
    codes = t.Bytes(read_only=True).tag(sync=True)
    classes = t.Bytes(read_only=True).tag(sync=True)
    class_names = t.List(t.Unicode(), read_only=True).tag(sync=True)
    typical = t.List(read_only=True).tag(sync=True)
    numerals = t.List(read_only=True).tag(sync=True)
    holes = t.List(read_only=True).tag(sync=True)
    hole_radius = t.Float(read_only=True).tag(sync=True)
    far = t.Float(read_only=True).tag(sync=True)
    plane = t.Dict(read_only=True).tag(sync=True)
    size = t.Int(read_only=True).tag(sync=True)
    drawn = t.Int(read_only=True).tag(sync=True)
    colors = t.Dict(read_only=True).tag(sync=True)

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
        for name, number, least in (("size", size, 2), ("kept", kept, 3), ("drawn", drawn, 1)):
            if type(number) is not int or number < least:
                raise ValueError(
                    f"{name} is {number!r}; a whole number of {least} or more is accepted"
                )
        layers, weights = decoder_layers(decoder, size * size)
        all_codes, all_labels = _checked_codes(codes, labels)
        names, classes = np.unique(all_labels, return_inverse=True)
        chosen = np.random.default_rng(seed).permutation(len(all_codes))[:kept]
        plane = _plane(all_codes)
        steps = np.rint(_to_unit(all_codes[chosen], plane) * GRID).astype("<u2")
        # From here on the codes are those that the page has, so that its numbers are these.
        kept_codes = _from_unit(steps / GRID, plane)
        kept_classes = classes[chosen].astype(np.uint8)
        neighbour_distance = cKDTree(kept_codes).query(kept_codes, k=2)[0][:, 1]
        holes, radii = largest_holes(kept_codes, NUM_HOLES)
        medians, typical = _centres(kept_codes, kept_classes, len(names))

        self._decoder = copy.deepcopy(decoder).to("cpu", torch.float32).eval()
        self._num_codes = len(all_codes)
        self._kept_codes = kept_codes
        self._kept_classes = kept_classes
        self._tree = cKDTree(kept_codes)
        self._bounds = plane
        values: dict[str, Any] = {
            "layers": layers,
            "weights": weights,
            "codes": steps.tobytes(),
            "classes": kept_classes.tobytes(),
            "class_names": [str(name) for name in names],
            "typical": typical.tolist(),
            "numerals": _apart(medians, NUMERAL_DISTANCE * plane["width"]).tolist(),
            "holes": holes.tolist(),
            "hole_radius": float(radii[0]),
            "far": float(np.quantile(neighbour_distance, FAR_QUANTILE)),
            "plane": plane,
            "size": size,
            "drawn": min(drawn, len(kept_codes)),
            "colors": {
                "light": [LIGHT_PAGE_COLORS[name] for name in names],
                "dark": [DARK_PAGE_COLORS[name] for name in names],
            },
        }
        # All before the widget opens: it then travels once, whole.
        for name, value in values.items():
            self.set_trait(name, value)
        self.point = typical[0].tolist() if point is None else [float(number) for number in point]
        self.alt = (
            f"Left, {self.drawn} codes of training images in the plane of codes, coloured by "
            f"their {len(names)} classes, with a point among them; right, the image that the "
            "decoder makes of that point."
        )
        super().__init__(caption=caption)

    @t.validate("point")
    def _check_point(self, proposal: Any) -> list[float]:
        lowest, highest = self._lowest(), self._highest()
        value = proposal["value"]
        if not all(a <= number <= b for a, number, b in zip(lowest, value, highest, strict=True)):
            raise t.TraitError(
                f"point is {value}; accepted is z_1 from {lowest[0]:.4g} to {highest[0]:.4g} and "
                f"z_2 from {lowest[1]:.4g} to {highest[1]:.4g}, the plane that is shown"
            )
        return value

    def _lowest(self) -> tuple[float, float]:
        return self._bounds["left"], self._bounds["bottom"]

    def _highest(self) -> tuple[float, float]:
        width = self._bounds["width"]
        return self._bounds["left"] + width, self._bounds["bottom"] + width

    def decoded(self) -> Tensor:
        """Return the decoder's image of `point`, shape ``(size, size)``, computed by torch.

        The page computes with weights rounded to float16, so its pixels differ by about 1e-3.
        """
        with torch.no_grad():
            return self._decoder(torch.tensor([self.point], dtype=torch.float32)).reshape(
                self.size, self.size
            )

    def nearest(self) -> tuple[float, str]:
        """Return the distance from `point` to the nearest kept code, and that code's class."""
        distance, index = self._tree.query(self.point)
        return float(distance), self.class_names[self._kept_classes[index]]

    def summary(self) -> str:
        """Return one line that is the same at every run."""
        of = "" if len(self._kept_codes) == self._num_codes else f" of {self._num_codes}"
        return f"CodeSpace({len(self._kept_codes)}{of} codes)"

    def picture(self) -> bytes:
        """Return a PNG of the plane and the decoded image as they stand."""
        figure = blank_picture(height=4.5)
        left, right = figure.subplots(1, 2, width_ratios=(1.55, 1))
        shown, classes = self._kept_codes[: self.drawn], self._kept_classes[: self.drawn]
        colors = np.array(self.colors["light"])[classes]
        left.scatter(*shown.T, c=colors, s=7, alpha=0.7, linewidths=0)
        for name, place in zip(self.class_names, self.numerals, strict=True):
            left.annotate(
                name, place, ha="center", va="center", weight="bold", size=13,
                path_effects=[withStroke(linewidth=3, foreground=PAPER)],
            )  # fmt: skip
        left.scatter(*self.point, s=90, facecolor=PAPER, edgecolor="black", linewidth=2, zorder=3)
        lowest, highest = self._lowest(), self._highest()
        left.set(
            xlim=(lowest[0], highest[0]), ylim=(lowest[1], highest[1]), aspect="equal",
            xlabel="$z_1$", ylabel="$z_2$", title="Codes of the training set", facecolor=PAPER,
        )  # fmt: skip
        left.grid(visible=True, linewidth=0.5, alpha=0.5)
        left.set_axisbelow(True)
        right.imshow(self.decoded().numpy(), cmap=INK, vmin=0, vmax=1, interpolation="nearest")
        right.grid(visible=False)
        distance, name = self.nearest()
        right.set(
            xticks=[], yticks=[], title="Decoded at the point",
            xlabel=f"nearest training code:\n{distance:.3g} away, class {name}",
        )  # fmt: skip
        return png(figure)


def decoder_layers(decoder: nn.Module, outputs: int) -> tuple[list[dict[str, Any]], bytes]:
    """Take a decoder apart into what a page needs to compute it.

    Parameters
    ----------
    decoder : nn.Sequential
        Of linear layers and activations; sequences may lie within it.
    outputs : int
        How many values it must give.

    Returns
    -------
    layers : list of dict
        ``{"kind": "linear", "inputs": int, "outputs": int, "bias": bool}`` or, for an activation,
        ``{"kind": str}``, in the order in which they are applied.
    weights : bytes
        Of every linear layer its weight, row by row, then its bias: little-endian float16.

    Raises
    ------
    TypeError
        If `decoder` is not an `nn.Sequential`, or holds a layer of another kind.
    ValueError
        If it does not take two values, does not give `outputs`, two layers do not fit, or a weight
        is not finite or too large for a float16.
    """
    if not isinstance(decoder, nn.Sequential):
        raise TypeError(
            f"decoder is a {type(decoder).__name__}; an nn.Sequential is accepted "
            "(for a model, its attribute `decoder`)"
        )
    layers: list[dict[str, Any]] = []
    parameters: list[NDArray[np.float16]] = []
    width, position = CODE_DIM, "the code"
    for name, layer in _flat(decoder):
        if type(layer) is nn.Linear:
            if layer.in_features != width:
                raise ValueError(
                    f"decoder: layer {name} takes {layer.in_features} values, but {position} has "
                    f"{width}"
                )
            parameters.append(_half(layer.weight, f"decoder: the weight of layer {name}"))
            if layer.bias is not None:
                parameters.append(_half(layer.bias, f"decoder: the bias of layer {name}"))
            layers.append(
                {
                    "kind": "linear",
                    "inputs": layer.in_features,
                    "outputs": layer.out_features,
                    "bias": layer.bias is not None,
                }
            )
            width, position = layer.out_features, f"the output of layer {name}"
        elif type(layer) in ACTIVATIONS:
            kind = ACTIVATIONS[type(layer)]
            if kind == "gelu" and layer.approximate == "tanh":
                kind = "gelu_tanh"
            layers.append({"kind": kind})
        else:
            accepted = ", ".join(["Linear", *(kind.__name__ for kind in ACTIVATIONS)])
            raise TypeError(
                f"decoder: layer {name} is a {type(layer).__name__}; accepted are {accepted} and "
                "Sequential"
            )
    if width != outputs:
        raise ValueError(
            f"decoder gives {width} values; {outputs} are needed, the number of pixels (set size)"
        )
    return layers, b"".join(array.tobytes() for array in parameters)


def _flat(module: nn.Sequential, prefix: str = "") -> list[tuple[str, nn.Module]]:
    found = []
    for name, layer in module.named_children():
        if type(layer) is nn.Sequential:
            found += _flat(layer, f"{prefix}{name}.")
        else:
            found.append((prefix + name, layer))
    return found


def _half(parameter: Tensor, name: str) -> NDArray[np.float16]:
    values = parameter.detach().cpu().to(torch.float64).numpy()
    with np.errstate(over="ignore"):
        half = values.astype("<f2")
    if not np.isfinite(half).all():
        largest = np.abs(values).max()
        raise ValueError(f"{name} reaches {largest:.4g}; a float16 holds finite numbers to 65504")
    return half


def _checked_codes(
    codes: ArrayLike | Tensor, labels: ArrayLike | Tensor
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    codes = codes.detach().cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
    labels = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if codes.ndim != 2 or codes.shape[1] != CODE_DIM:
        raise ValueError(f"codes has shape {codes.shape}; accepted is (N, {CODE_DIM})")
    if not np.issubdtype(codes.dtype, np.floating):
        raise ValueError(f"codes has dtype {codes.dtype}; floats are accepted")
    if labels.shape != codes.shape[:1]:
        raise ValueError(f"labels has shape {labels.shape}; accepted is ({len(codes)},), as codes")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels has dtype {labels.dtype}; whole numbers are accepted")
    if not np.isin(labels, np.arange(len(CLASS_COLORS))).all():
        raise ValueError(
            f"labels holds {np.unique(labels)}; whole numbers from 0 to 9 are accepted"
        )
    if not np.isfinite(codes).all():
        raise ValueError(f"codes has {(~np.isfinite(codes)).sum()} values that are not finite")
    return codes.astype(np.float64), labels


def _plane(codes: NDArray[np.float64]) -> dict[str, float]:
    """Return the square that is shown: equal units on both axes, so that distances are true."""
    if len(codes) == 0:
        raise ValueError("codes is empty; three or more are accepted")
    lowest, highest = codes.min(0), codes.max(0)
    width = float((highest - lowest).max()) * (1 + 2 * MARGIN)
    if width == 0:
        raise ValueError(f"codes are all {tuple(codes[0])}; different ones are accepted")
    left, bottom = (lowest + highest) / 2 - width / 2
    return {"left": float(left), "bottom": float(bottom), "width": width}


def _to_unit(codes: NDArray[np.float64], plane: dict[str, float]) -> NDArray[np.float64]:
    return (codes - [plane["left"], plane["bottom"]]) / plane["width"]


def _from_unit(codes: NDArray[np.float64], plane: dict[str, float]) -> NDArray[np.float64]:
    return codes * plane["width"] + [plane["left"], plane["bottom"]]


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


def _centres(
    codes: NDArray[np.float64], classes: NDArray[np.uint8], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the median of each class, and the code of that class that lies nearest to it."""
    medians, typical = [], []
    for index in range(count):
        own = codes[classes == index]
        if len(own) == 0:
            raise ValueError("kept is too small: a class has no code left; a larger one is needed")
        medians.append(np.median(own, axis=0))
        typical.append(own[np.linalg.norm(own - medians[-1], axis=1).argmin()])
    return np.array(medians), np.array(typical)


def _apart(places: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Push places apart that are nearer to each other than a distance, as little as it takes."""
    places = places.copy()
    for _ in range(200):
        moved = False
        for i in range(len(places)):
            for j in range(i):
                between = places[i] - places[j]
                length = math.hypot(*between)
                if length < distance * (1 - 1e-3):
                    # In the rare case of one place for both, they part sideways.
                    direction = between / length if length else np.array([1.0, 0.0])
                    push = direction * (distance - length) / 2
                    places[i] += push
                    places[j] -= push
                    moved = True
        if not moved:
            break
    return places

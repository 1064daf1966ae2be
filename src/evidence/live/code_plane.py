"""What live figures of a plane of codes share: the codes in their classes, and the decoder."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
import traitlets as t
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from evidence.live.figure import LiveFigure
from evidence.plotting import CLASS_COLORS, PAPER

__all__ = ["CodePlane", "decoder_layers"]

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
NUMERAL_DISTANCE = 0.055
"""How far apart the numerals of two classes stand at least, as a fraction of the plane's width."""
LEAST_IN_BYTES = 4096
"""A layer with fewer weights is handed over in float16: it is small, and its rounding would be seen
by all that come after it."""

# `CLASS_COLORS` are made for light paper; on a dark page, two of them need to be lighter.
DARKEST = {"#bd1f01": "#f4614a", "#832db6": "#bb7fe6"}
LIGHT_PAGE_COLORS = tuple(map(to_hex, CLASS_COLORS))
DARK_PAGE_COLORS = tuple(DARKEST.get(color, color) for color in LIGHT_PAGE_COLORS)


class CodePlane(LiveFigure):
    """A figure with the codes of training data in a plane, and a decoder that the page computes.

    A subclass takes over the data by `_take_over`, before `super().__init__` opens the widget: all
    then travels once, whole.
    """

    layers = t.List(t.Dict(), read_only=True).tag(sync=True)
    weights = t.Bytes(read_only=True).tag(sync=True)
    codes = t.Bytes(read_only=True).tag(sync=True)
    classes = t.Bytes(read_only=True).tag(sync=True)
    class_names = t.List(t.Unicode(), read_only=True).tag(sync=True)
    typical = t.List(read_only=True).tag(sync=True)
    numerals = t.List(read_only=True).tag(sync=True)
    plane = t.Dict(read_only=True).tag(sync=True)
    size = t.Int(read_only=True).tag(sync=True)
    drawn = t.Int(read_only=True).tag(sync=True)
    colors = t.Dict(read_only=True).tag(sync=True)

    def _take_over(
        self,
        decoder: nn.Sequential,
        codes: ArrayLike | Tensor,
        labels: ArrayLike | Tensor,
        *,
        size: int,
        kept: int,
        drawn: int,
        seed: int,
        weight_bits: int = 16,
    ) -> None:
        """Check what was given, and set all traits of this class."""
        for name, number, least in (("size", size, 2), ("kept", kept, 3), ("drawn", drawn, 1)):
            if type(number) is not int or number < least:
                raise ValueError(
                    f"{name} is {number!r}; a whole number of {least} or more is accepted"
                )
        layers, weights = decoder_layers(decoder, size * size, weight_bits=weight_bits)
        all_codes, all_labels = _checked_codes(codes, labels)
        names, classes = np.unique(all_labels, return_inverse=True)
        chosen = np.random.default_rng(seed).permutation(len(all_codes))[:kept]
        plane = _plane(all_codes)
        steps = np.rint(_to_unit(all_codes[chosen], plane) * GRID).astype("<u2")
        # From here on the codes are those that the page has, so that its numbers are these.
        kept_codes = _from_unit(steps / GRID, plane)
        kept_classes = classes[chosen].astype(np.uint8)
        medians, typical = _centres(kept_codes, kept_classes, len(names))

        self._decoder = copy.deepcopy(decoder).to("cpu", torch.float32).eval()
        self._num_codes = len(all_codes)
        self._kept_codes = kept_codes
        self._kept_classes = kept_classes
        self._bounds = plane
        values: dict[str, Any] = {
            "layers": layers,
            "weights": weights,
            "codes": steps.tobytes(),
            "classes": kept_classes.tobytes(),
            "class_names": [str(name) for name in names],
            "typical": typical.tolist(),
            "numerals": _apart(medians, NUMERAL_DISTANCE * plane["width"]).tolist(),
            "plane": plane,
            "size": size,
            "drawn": min(drawn, len(kept_codes)),
            "colors": {
                "light": [LIGHT_PAGE_COLORS[name] for name in names],
                "dark": [DARK_PAGE_COLORS[name] for name in names],
            },
        }
        for name, value in values.items():
            self.set_trait(name, value)

    def _checked_place(self, proposal: Any) -> list[float]:
        """Return the value of a trait that is a place in the plane, or refuse it."""
        name, value = proposal["trait"].name, proposal["value"]
        lowest, highest = self._lowest(), self._highest()
        if not all(a <= number <= b for a, number, b in zip(lowest, value, highest, strict=True)):
            raise t.TraitError(
                f"{name} is {value}; accepted is z_1 from {lowest[0]:.4g} to {highest[0]:.4g} and "
                f"z_2 from {lowest[1]:.4g} to {highest[1]:.4g}, the plane that is shown"
            )
        return value

    def _lowest(self) -> tuple[float, float]:
        return self._bounds["left"], self._bounds["bottom"]

    def _highest(self) -> tuple[float, float]:
        width = self._bounds["width"]
        return self._bounds["left"] + width, self._bounds["bottom"] + width

    def _images(self, codes: ArrayLike) -> Tensor:
        """Return the decoder's images of codes, shape ``(n, size, size)``, computed by torch."""
        with torch.no_grad():
            images = self._decoder(torch.tensor(codes, dtype=torch.float32))
        return images.reshape(-1, self.size, self.size)

    def summary(self) -> str:
        """Return one line that is the same at every run."""
        of = "" if len(self._kept_codes) == self._num_codes else f" of {self._num_codes}"
        return f"{type(self).__name__}({len(self._kept_codes)}{of} codes)"

    def _draw_codes(self, ax: Axes) -> None:
        """Draw the plane with its codes, for the picture."""
        shown, classes = self._kept_codes[: self.drawn], self._kept_classes[: self.drawn]
        colors = np.array(self.colors["light"])[classes]
        ax.scatter(*shown.T, c=colors, s=7, alpha=0.7, linewidths=0)
        for name, place in zip(self.class_names, self.numerals, strict=True):
            ax.annotate(
                name, place, ha="center", va="center", weight="bold", size=13,
                path_effects=[withStroke(linewidth=3, foreground=PAPER)],
            )  # fmt: skip
        lowest, highest = self._lowest(), self._highest()
        ax.set(
            xlim=(lowest[0], highest[0]), ylim=(lowest[1], highest[1]), aspect="equal",
            xlabel="$z_1$", ylabel="$z_2$", facecolor=PAPER,
        )  # fmt: skip
        ax.grid(visible=True, linewidth=0.5, alpha=0.5)
        ax.set_axisbelow(True)


def decoder_layers(
    decoder: nn.Module, outputs: int, *, weight_bits: int = 16
) -> tuple[list[dict[str, Any]], bytes]:
    """Take a decoder apart into what a page needs to compute it.

    Parameters
    ----------
    decoder : nn.Sequential
        Of linear layers and activations; sequences may lie within it.
    outputs : int
        How many values it must give.
    weight_bits : int
        16, or 8: then every layer with 4,096 weights or more is handed over in a byte a weight.

    Returns
    -------
    layers : list of dict
        ``{"kind": "linear", "inputs": int, "outputs": int, "bias": bool}`` or, for an activation,
        ``{"kind": str}``, in the order in which they are applied. A linear layer in bytes has
        ``"bits": 8`` as well.
    weights : bytes
        Of every linear layer its weight, row by row, then its bias: little-endian float16. In
        bytes, the weight is a whole number from -127 to 127 times a scale, the row's largest
        weight over 127; the scales, little-endian float32, lie between weight and bias.

    Raises
    ------
    TypeError
        If `decoder` is not an `nn.Sequential`, or holds a layer of another kind.
    ValueError
        If it does not take two values, does not give `outputs`, two layers do not fit, a weight is
        not finite or too large for a float16, or `weight_bits` is another number.
    """
    if weight_bits not in (8, 16):
        raise ValueError(f"weight_bits is {weight_bits!r}; 8 and 16 are accepted")
    if not isinstance(decoder, nn.Sequential):
        raise TypeError(
            f"decoder is a {type(decoder).__name__}; an nn.Sequential is accepted "
            "(for a model, its attribute `decoder`)"
        )
    layers: list[dict[str, Any]] = []
    parameters: list[NDArray[Any]] = []
    width, position = CODE_DIM, "the code"
    for name, layer in _flat(decoder):
        if type(layer) is nn.Linear:
            if layer.in_features != width:
                raise ValueError(
                    f"decoder: layer {name} takes {layer.in_features} values, but {position} has "
                    f"{width}"
                )
            half = _half(layer.weight, f"decoder: the weight of layer {name}")
            in_bytes = weight_bits == 8 and half.size >= LEAST_IN_BYTES
            parameters += _bytes(layer.weight) if in_bytes else [half]
            if layer.bias is not None:
                parameters.append(_half(layer.bias, f"decoder: the bias of layer {name}"))
            layers.append(
                {
                    "kind": "linear",
                    "inputs": layer.in_features,
                    "outputs": layer.out_features,
                    "bias": layer.bias is not None,
                    **({"bits": 8} if in_bytes else {}),
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


def _bytes(weight: Tensor) -> list[NDArray[Any]]:
    """Return a finite weight as whole numbers, and the scale of each row."""
    values = weight.detach().cpu().to(torch.float64).numpy()
    scales = (np.abs(values).max(1) / 127).astype("<f4")
    # A row of zeros has no scale, and needs none.
    steps = values / np.where(scales == 0, 1, scales)[:, None].astype(np.float64)
    return [np.rint(steps).clip(-127, 127).astype(np.int8), scales]


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

"""What all live figures share: their script, their style, and the picture that stands in."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import anywidget
import traitlets as t
from matplotlib.figure import Figure
from PIL import Image

from evidence.plotting import PAPER, WIDTH

__all__ = ["LiveFigure", "blank_picture", "in_range", "png", "read_script", "read_style"]

FOLDER = Path(__file__).parent


def read_script(*names: str) -> str:
    """Return an ES module: what all figures share, then each ``name.js`` of this folder."""
    return "\n".join(_read(f"{name}.js") for name in ("shared", *names))


def read_style(*names: str) -> str:
    """Return a style sheet: what all figures share, then each ``name.css`` of this folder."""
    return "\n".join(_read(f"{name}.css") for name in ("shared", *names))


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def in_range(proposal: dict[str, Any], low: float, high: float) -> float:
    """Return the number proposed for a trait, for a method decorated by ``traitlets.validate``.

    Raises
    ------
    traitlets.TraitError
        If it is not from `low` to `high`.
    """
    name, value = proposal["trait"].name, proposal["value"]
    if not low <= value <= high:
        raise t.TraitError(f"{name} is {value}; a number from {low:g} to {high:g} is accepted")
    return value


def blank_picture(height: float) -> Figure:
    """Return an empty matplotlib figure, as wide as the text and `height` inches high."""
    # A Figure of its own: pyplot would keep it, and show it a second time.
    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG with a palette: it suffices, and takes a third of the bytes."""
    drawn, smaller = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    picture = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(smaller, format="png", optimize=True)
    return smaller.getvalue()


class LiveFigure(anywidget.AnyWidget):
    """A widget that needs no kernel once it is shown.

    A subclass gives `_esm` and `_css` (see `read_script` and `read_style`), `summary` and
    `picture`. Its module's name, which is also its CSS class, is the name of its Python file.
    """

    alt = t.Unicode(help="What the picture shows, for who does not see it.").tag(sync=True)
    caption = t.Unicode(help="A line under the figure; none where empty.").tag(sync=True)

    def summary(self) -> str:
        """Return one line that is the same at every run: nbval compares it."""
        raise NotImplementedError

    def picture(self) -> bytes:
        """Return a PNG of the figure as it stands, for print and where no script runs."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.summary()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["image/png"] = base64.b64encode(self.picture()).decode("ascii")
        return data, metadata

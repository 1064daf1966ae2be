"""Live figures: what a reader moves, computed in the page itself, without a kernel.

A live figure is one widget. What it computes is written in JavaScript beside its Python file; a
model's weights are handed over in float16, or in bytes. The same object lives in a notebook, where
its traits are Python values, and in the built page, which needs neither kernel nor network.

Figures import what they need of scipy where they need it: it takes a second or two, and a page has
one or two of them.
"""

from evidence.live.bound import Bound
from evidence.live.code_space import CodeSpace
from evidence.live.figure import LiveFigure
from evidence.live.forward import Forward
from evidence.live.gradients import Gradients
from evidence.live.jensen import Jensen
from evidence.live.latent_map import LatentMap
from evidence.live.sampling import Sampling

__all__ = [
    "Bound", "CodeSpace", "Forward", "Gradients", "Jensen", "LatentMap", "LiveFigure", "Sampling",
]  # fmt: skip

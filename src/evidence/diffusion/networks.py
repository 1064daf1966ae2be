"""The networks that denoise: they take a noised datum and the log-SNR at which it was noised.

Each is called as ``network(x_t, log_snr, label=None)`` and returns a tensor of the shape of x_t;
what it stands for (the noise, the datum, or v) is said by the
`evidence.diffusion.prediction.NetworkDenoiser` that holds it. Their last layer starts at zero, so
an untrained network returns zeros. Initial weights come from a seed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from evidence.diffusion.arguments import as_whole_number
from evidence.models import linear

__all__ = ["NO_LABEL", "ImageNetwork", "VectorNetwork", "time_embedding"]

NO_LABEL = -1
"""The label that stands for none, datum by datum; ``label=None`` says it for a whole batch."""

LONGEST_PERIOD, SHORTEST_PERIOD = 64.0, 2.0


def time_embedding(log_snr: Tensor, dim: int) -> Tensor:
    """Return sines and cosines of the log-SNR, at frequencies in geometric progression.

    As in the transformer (arXiv 1706.03762), but of the log-SNR and not of a number of steps: a
    network then knows nothing of how many steps there are. The periods go from 64 to 2, so two
    values between -32 and 32 never look alike.

    Parameters
    ----------
    log_snr : Tensor
        Shape ``(batch,)``.
    dim : int
        An even number from 4.

    Returns
    -------
    Tensor
        Shape ``(batch, dim)``, sines first.

    Raises
    ------
    ValueError
        If `dim` is another number, or `log_snr` has another shape.
    """
    if log_snr.ndim != 1:
        raise ValueError(f"log_snr has shape {tuple(log_snr.shape)}; accepted is (batch,)")
    number = as_whole_number(dim)
    if number is None or number < 4 or number % 2:
        raise ValueError(f"dim is {dim!r}; accepted are even whole numbers from 4")
    exponent = torch.linspace(0, 1, number // 2, dtype=log_snr.dtype, device=log_snr.device)
    period = LONGEST_PERIOD * (SHORTEST_PERIOD / LONGEST_PERIOD) ** exponent
    angle = log_snr[:, None] * (2 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class Condition(nn.Module):
    """What all blocks of a network are told: a vector for the log-SNR and the label together."""

    def __init__(
        self,
        dim: int,
        num_labels: int,
        generator: torch.Generator,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.num_labels = num_labels
        self.first = linear(dim, dim, generator, dtype=dtype)
        self.second = linear(dim, dim, generator, dtype=dtype)
        if num_labels:
            # One row more than labels: the last is for data without one.
            rows = torch.randn(num_labels + 1, dim, generator=generator, dtype=dtype)
            self.rows = nn.Parameter(rows / math.sqrt(dim))

    def forward(self, log_snr: Tensor, label: Tensor | None) -> Tensor:
        """Return the vector ``(batch, dim)``, behind its last activation."""
        embedded = self.second(silu(self.first(time_embedding(log_snr, self.dim))))
        if self.num_labels:
            embedded = embedded + self.rows[self._row(log_snr, label)]
        elif label is not None:
            raise ValueError("label is given, but the network was made with num_labels=0")
        return silu(embedded)

    def _row(self, log_snr: Tensor, label: Tensor | None) -> Tensor:
        if label is None:
            return torch.full(log_snr.shape, self.num_labels, device=log_snr.device)
        if label.shape != log_snr.shape or label.dtype != torch.int64:
            raise ValueError(
                f"label has shape {tuple(label.shape)} and dtype {label.dtype}; accepted are "
                f"{tuple(log_snr.shape)} and torch.int64"
            )
        low, high = (int(value) for value in label.aminmax())
        if low < NO_LABEL or high >= self.num_labels:
            raise ValueError(
                f"label goes from {low} to {high}; accepted are 0 to {self.num_labels - 1}, and "
                f"{NO_LABEL} for none"
            )
        return torch.where(label == NO_LABEL, self.num_labels, label)


class VectorBlock(nn.Module):
    """A residual block on vectors; the condition shifts and scales what it normalised."""

    def __init__(
        self,
        hidden: int,
        condition: int,
        generator: torch.Generator,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False)
        self.modulate = linear(condition, 2 * hidden, generator, "zeros", dtype)
        self.first = linear(hidden, hidden, generator, dtype=dtype)
        self.second = linear(hidden, hidden, generator, "zeros", dtype)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulate(condition).chunk(2, dim=1)
        return h + self.second(silu(self.first(torch.addcmul(shift, self.norm(h), 1 + scale))))


class VectorNetwork(nn.Module):
    """A residual network on vectors: points of the plane, codes.

    Parameters
    ----------
    data_dim : int
        D, the number of elements of x.
    hidden : int
        The width.
    blocks : int
        How many residual blocks of two layers.
    num_labels : int
        How many labels there are; 0 for a network without.
    condition : int
        The length of the embedding of the log-SNR, an even number.
    dtype : torch.dtype, optional
        Of the weights; by default torch's default.
    seed : int
        Of the initial weights.

    Raises
    ------
    ValueError
        If a size is not a whole number from 1 (from 0 for `blocks` and `num_labels`).
    """

    def __init__(
        self,
        data_dim: int,
        hidden: int = 128,
        blocks: int = 3,
        *,
        num_labels: int = 0,
        condition: int = 64,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_sizes(data_dim=data_dim, hidden=hidden)
        _check_sizes(at_least=0, blocks=blocks, num_labels=num_labels)
        generator = torch.Generator().manual_seed(seed)
        self.condition = Condition(condition, num_labels, generator, dtype)
        self.first = linear(data_dim, hidden, generator, dtype=dtype)
        self.blocks = nn.ModuleList(
            VectorBlock(hidden, condition, generator, dtype) for _ in range(blocks)
        )
        self.last = linear(hidden, data_dim, generator, "zeros", dtype)

    def forward(self, x_t: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        """Map noised data ``(batch, D)`` at log-SNR ``(batch,)`` to ``(batch, D)``."""
        condition = self.condition(log_snr, label)
        h = self.first(x_t)
        for block in self.blocks:
            h = block(h, condition)
        return self.last(silu(h))


class ImageNetwork(nn.Module):
    """A residual network on the pixels of small images, all at once.

    Parameters
    ----------
    channels : int
        Of the images.
    size : int or pair of int
        Their height and width in pixels; one number for square images.
    hidden, blocks, num_labels, condition, dtype, seed
        As of `VectorNetwork`, which it is inside.

    Raises
    ------
    ValueError
        If a size is out of range.
    """

    def __init__(
        self,
        channels: int = 1,
        size: int | tuple[int, int] = 28,
        hidden: int = 512,
        blocks: int = 2,
        *,
        num_labels: int = 0,
        condition: int = 128,
        dtype: torch.dtype | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        height, width = _height_and_width(size)
        _check_sizes(channels=channels)
        self.shape = (channels, height, width)
        self.pixels = VectorNetwork(
            channels * height * width,
            hidden,
            blocks,
            num_labels=num_labels,
            condition=condition,
            dtype=dtype,
            seed=seed,
        )

    def forward(self, x_t: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        """Map noised images ``(batch, C, H, W)`` at log-SNR ``(batch,)`` to the same shape."""
        if x_t.shape[1:] != self.shape:
            raise ValueError(
                f"x_t has shape {tuple(x_t.shape)}; accepted is (batch, "
                f"{', '.join(map(str, self.shape))})"
            )
        return self.pixels(x_t.flatten(1), log_snr, label).view_as(x_t)


def _height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    numbers = [as_whole_number(side) for side in sides]
    if len(sides) != 2 or any(number is None or number < 1 for number in numbers):
        raise ValueError(
            f"size is {size!r}; accepted are whole numbers from 1: one, or a pair (height, width)"
        )
    return numbers[0], numbers[1]


def _check_sizes(at_least: int = 1, **sizes: int) -> None:
    for name, size in sizes.items():
        number = as_whole_number(size)
        if number is None or number < at_least:
            raise ValueError(f"{name} is {size!r}; accepted are whole numbers from {at_least}")

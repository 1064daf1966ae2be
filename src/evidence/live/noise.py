"""Noise that a page and Python make alike, from a seed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["noise"]

WEYL = 0x9E3779B9


def noise(seed: int, count: int) -> NDArray[np.float64]:
    """Return standard normal draws of a seed, the same that the page makes; shape ``(count,)``.

    By Box and Muller, from a hash of whole numbers: short enough to be written in both languages.
    """
    start = _hash(np.array([seed + 1], dtype=np.uint32))
    steps = np.arange(1, count + count % 2 + 1, dtype=np.uint32) * np.uint32(WEYL)
    uniform = (_hash(start + steps) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(uniform[::2])), 2 * math.pi * uniform[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()[:count]


def _hash(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Scramble 32 bits, one to one: the finalizer of MurmurHash3."""
    numbers = (numbers ^ (numbers >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    numbers = (numbers ^ (numbers >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return numbers ^ (numbers >> np.uint32(16))

"""What is asked of arguments: whole numbers of any kind, and data that a chain can noise."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

__all__ = ["as_whole_number", "check_data", "check_finite"]


def as_whole_number(value: object) -> int | None:
    """Return a whole number as an int, and None for what is none.

    Python's ints, NumPy's and tensors of one int are whole numbers; floats and truth values are
    not, even where they are equal to one.
    """
    if isinstance(value, bool) or (
        isinstance(value, Tensor) and (value.ndim > 0 or value.dtype == torch.bool)
    ):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_data(name: str, x: Tensor, *, least_dims: int = 1) -> None:
    """Raise unless x are data that can be noised: floating point, one datum or more, finite.

    Parameters
    ----------
    name : str
        What the argument is called.
    x : Tensor
        Shape ``(batch, ...)``.
    least_dims : int
        2 where the elements of a datum are summed over.

    Raises
    ------
    TypeError
        If x is not a tensor of floating point.
    ValueError
        If it has too few dimensions or no element, or one that is not finite.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor (batch, ...), got a {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(
            f"{name}: expected floating point, got {x.dtype}; grey levels from 0 to 255 become "
            "data from -1 to 1 by x / 127.5 - 1"
        )
    if x.ndim < least_dims or x.numel() == 0:
        event = "(batch, ...) with at least one datum"
        if least_dims > 1:
            event += " and one more dimension"
        raise ValueError(f"{name} has shape {tuple(x.shape)}; accepted is {event}")
    check_finite(name, x)


def check_finite(name: str, x: Tensor) -> None:
    """Raise a ValueError if an element of x is not finite; the first one is named."""
    # A sum is finite only if all its terms are: a quick test that needs no memory. A large sum can
    # overflow, so only the slow one decides.
    if x.detach().sum().isfinite():
        return
    is_bad = ~x.isfinite()
    if is_bad.any():
        where = tuple(is_bad.nonzero()[0].tolist())
        raise ValueError(
            f"{name}: expected finite numbers, got {int(is_bad.sum())} that are not, the first at "
            f"index {where}: {x[where].item()}"
        )

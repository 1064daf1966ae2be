"""Float64 where a device has it, and on the CPU where it has not, as on Apple's GPUs.

Noise levels and sums over many numbers are computed in float64. What is computed so either lives on
the CPU and is handed to the device in the dtype of the data (`like`), or is taken from the device
to where float64 exists (`as_double`).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ["as_double", "double_device", "like", "on_cpu"]


@cache
def double_device(device: torch.device) -> torch.device:
    """Return the device itself if it has float64, else the CPU."""
    try:
        torch.zeros((), dtype=torch.float64, device=device)
    except (TypeError, RuntimeError):  # which of them depends on the kind of device
        return torch.device("cpu")
    return device


def as_double(x: Tensor) -> Tensor:
    """Return x in float64: on its device if that has float64, else on the CPU."""
    return x.to(double_device(x.device)).double()


def on_cpu(value: Tensor | float) -> Tensor:
    """Return a number or numbers in float64 on the CPU; gradients flow through."""
    if isinstance(value, Tensor):
        return value.cpu().double()  # in this order: the device may have no float64
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")


def like(values: Tensor, x: Tensor) -> Tensor:
    """Return values in the dtype and on the device of x.

    In this order towards a device that may not have the dtype of the values, and the other way
    round from one that may not have that of x.
    """
    if values.device == x.device or values.device.type == "cpu":
        return values.to(x.dtype).to(x.device)
    return values.to(x.device).to(x.dtype)

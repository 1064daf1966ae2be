"""A pretended device without float64, as Apple's GPUs are: tensors on it live on the CPU.

A tensor on it says that it is on "meta", a device that every build of PyTorch can name, and
whatever would make a float64 there raises the error that PyTorch raises on a Mac. Unlike a tensor
that is really on "meta", one of these has values.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
REFUSAL = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
    "Please use float32 instead."
)


class OnDevice(torch.Tensor):
    """A tensor of the pretended device."""

    @staticmethod
    def __new__(cls, inner):
        if inner.dtype == torch.float64:
            raise TypeError(REFUSAL)
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            inner.stride(),
            inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"OnDevice({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class DeviceGenerator(torch.Generator):
    """A generator of the pretended device."""

    @property
    def device(self):
        return DEVICE


class Pretend(TorchDispatchMode):
    """Within it, whatever is made with ``device="meta"`` is a tensor of the pretended device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func, args, kwargs):
    """Run an operation on the CPU, and put the result where the device would have put it."""
    flat, _ = tree_flatten((args, kwargs))
    tensors = [value for value in flat if isinstance(value, torch.Tensor)]
    there = [value for value in tensors if isinstance(value, OnDevice)]
    device = kwargs.get("device")
    is_moved = device is not None
    to_there = torch.device(device).type == "meta" if is_moved else bool(there)
    if there and func is not torch.ops.aten._to_copy.default and func.namespace == "aten":
        strangers = [v for v in tensors if not isinstance(v, OnDevice) and v.ndim > 0]
        if strangers and func.overloadpacket not in (torch.ops.aten.copy_,):
            raise RuntimeError(f"{func}: tensors on the CPU and on the device")
    if to_there and kwargs.get("dtype") == torch.float64:
        raise TypeError(REFUSAL)
    if is_moved and not to_there and there and kwargs.get("dtype") == torch.float64:
        # One call that moves and widens: which of the two comes first is not promised.
        raise TypeError(REFUSAL)
    if is_moved and to_there and any(v.dtype == torch.float64 for v in tensors):
        raise TypeError(REFUSAL)
    if to_there and tensors and not there and not is_moved:
        raise AssertionError(func)

    def inside(value):
        return value.inner if isinstance(value, OnDevice) else value

    inner = {k: v for k, v in tree_map(inside, kwargs).items() if k != "device"}
    if is_moved:
        inner["device"] = torch.device("cpu")
    result = func(*tree_map(inside, args), **inner)
    if func.overloadpacket.__name__.endswith("_") and there and args and args[0] is there[0]:
        return args[0]  # in place

    def outside(value):
        return OnDevice(value) if isinstance(value, torch.Tensor) else value

    return tree_map(outside, result) if to_there else result


def to_device(value):
    """Return a tensor, or a module with its weights and buffers, on the pretended device."""
    if isinstance(value, torch.Tensor):
        return OnDevice(value)
    for module in value.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(OnDevice(parameter.detach()))
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = OnDevice(buffer)
    return value

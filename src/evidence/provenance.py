"""Where a stored result comes from: the code, the arguments and the data that it depends on.

A stored result may be used again only if nothing that it depends on has changed. This module turns
those things into hashes: `module_hash` for one module of this package and what it imports,
`fingerprint` for one value (data, a model, a loss function with everything it refers to).
`cache_dir`, of `evidence.storage`, is where results are stored.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

from evidence.source_code import PACKAGE, closure_hash, source_file
from evidence.storage import cache_dir

__all__ = ["FingerprintError", "cache_dir", "fingerprint", "module_hash"]

LIBRARIES = tuple(
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
EMPTY_MODULE = frozenset(vars(nn.Module()))
PLAIN = (
    type(None), type(...), bool, int, float, complex, str, bytes,
    torch.dtype, torch.device, np.dtype, slice, range,
)  # fmt: skip


class FingerprintError(TypeError):
    """A value cannot be hashed by its content, so nothing stored could be matched to it."""


def module_hash(name: str) -> str:
    """Hash a module of this package with all modules of the package that it imports.

    Parameters
    ----------
    name : str
        As ``"evidence.training"``.

    Returns
    -------
    str
        SHA-256 in hexadecimal, of code alone: see `evidence.source_code.closure_hash`.

    Raises
    ------
    ModuleNotFoundError
        If the package has no such module.
    """
    if source_file(name) is None:
        raise ModuleNotFoundError(f"{name!r} is no module of {PACKAGE.name}", name=name)
    return closure_hash([name])


def fingerprint(value: Any) -> str:
    """Hash a value by its content, for comparison with a run in another process.

    Numbers, strings, arrays, tensors and containers count with what they hold. A model counts with
    its layers, attributes, weights and buffers. A function counts with its bytecode, its defaults,
    the variables that it closes over and the globals that it reads, so that a loss which reads
    ``beta`` from the notebook has another fingerprint when ``beta`` changes. Functions and classes
    of installed libraries count with their names only.

    Parameters
    ----------
    value : object
        What is to be hashed.

    Returns
    -------
    str
        SHA-256 in hexadecimal, comparable between processes of one Python version.

    Raises
    ------
    FingerprintError
        If the value, or something that it refers to, holds state that cannot be read, such as an
        open file.
    """
    return _digest(value, ()).hex()


def _combine(tag: str, *parts: bytes) -> bytes:
    """Hash parts under a tag; the lengths keep ("ab", "c") and ("a", "bc") apart."""
    result = hashlib.sha256(tag.encode())
    for part in parts:
        result.update(len(part).to_bytes(8, "little"))
        result.update(part)
    return result.digest()


def _digest(value: Any, enclosing: tuple[Any, ...]) -> bytes:
    # A recursive function refers to itself, an object may hold its owner: such a reference counts
    # by how far up it points.
    for distance, outer in enumerate(reversed(enclosing)):
        if outer is value and not isinstance(value, PLAIN):
            return _combine("enclosing", str(distance).encode())
    inside = (*enclosing, value)

    def children(values: Iterable[Any]) -> list[bytes]:
        return [_digest(child, inside) for child in values]

    match value:
        case Enum():
            return _combine("enum", _name(type(value)), value.name.encode())
        case torch.Tensor():
            return _digest_tensor(value)
        case torch.Size():
            return _combine("size", *children(tuple(value)))
        case np.ndarray() | np.generic() if not value.dtype.hasobject:
            shape = repr((value.dtype, value.shape)).encode()
            return _combine("array", shape, np.ascontiguousarray(value).tobytes())
        case torch.Generator():
            return _combine("generator", _digest_tensor(value.get_state()))
        case PurePath():
            return _combine("path", str(value).encode())
        case types.ModuleType():
            # A function may read any name of a module, so it counts as a whole.
            own = source_file(value.__name__) is not None
            source = module_hash(value.__name__) if own else ""
            return _combine("module", value.__name__.encode(), source.encode())
        case list() | tuple():
            return _combine("sequence", _name(type(value)), *children(value))
        case set() | frozenset():
            return _combine("set", *sorted(children(value)))
        case Mapping():
            pairs = map(_combine_pair, children(value), children(value.values()))
            return _combine("mapping", *sorted(pairs))
        case functools.partial():
            return _combine("partial", *children((value.func, value.args, value.keywords)))
        case types.CodeType():
            return _digest_code(value, inside)
        case types.MethodType():
            return _combine("method", *children((value.__func__, value.__self__)))
        case types.FunctionType():
            return _digest_function(value, inside)
        case type():
            return _digest_class(value, inside)
        case nn.Module():
            return _digest_model(value, inside)
        case staticmethod() | classmethod():
            return _combine(type(value).__name__, *children([value.__func__]))
        case property():
            return _combine("property", *children((value.fget, value.fset, value.fdel)))
        case _ if isinstance(value, PLAIN):
            return _combine("plain", _name(type(value)), repr(value).encode())
        case types.BuiltinFunctionType():
            owner = value.__self__
            is_bound = not isinstance(owner, types.ModuleType | type | None)
            return _combine("builtin", _name(value), *children([owner] if is_bound else []))
        case types.MethodDescriptorType() | types.MemberDescriptorType():
            return _combine("descriptor", _name(value.__objclass__), value.__name__.encode())
        case np.ufunc():
            return _combine("ufunc", value.__name__.encode())
        case functools._lru_cache_wrapper():
            return _combine("cached", *children([value.__wrapped__]))
        case _ if _keeps_its_state_in_a_dict(value):
            return _combine("object", *children((type(value), vars(value))))
    raise FingerprintError(
        f"{value!r} of type {type(value).__name__} cannot be hashed by its content"
        + _path_of(enclosing)
        + "; accepted are numbers, strings, arrays, tensors, containers of these, models, and "
        "functions that refer to nothing else"
    )


def _combine_pair(key: bytes, value: bytes) -> bytes:
    return _combine("pair", key, value)


def _digest_tensor(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    shape = repr((tensor.dtype, tuple(tensor.shape))).encode()
    return _combine("tensor", shape, flat.view(torch.uint8).numpy())


def _digest_code(code: types.CodeType, enclosing: tuple[Any, ...]) -> bytes:
    """Hash what a piece of code does, and not where it stands."""
    signature = (
        code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
        code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags,
    )  # fmt: skip
    return _combine(
        "code", code.co_code, repr(signature).encode(), _digest(code.co_consts, enclosing)
    )


def _digest_function(function: types.FunctionType, enclosing: tuple[Any, ...]) -> bytes:
    parts: list[Any] = [function.__defaults__, function.__kwdefaults__]
    if _is_followed(function) or "<locals>" in function.__qualname__:
        parts += [cell.cell_contents for cell in function.__closure__ or ()]
    if _is_followed(function):
        parts.append(function.__code__)
        names = sorted(_globals_read(function.__code__))
        # A name that is missing is a builtin, or fails when the function is called.
        parts += [
            (name, function.__globals__[name]) for name in names if name in function.__globals__
        ]
    return _combine("function", _name(function), *(_digest(part, enclosing) for part in parts))


def _globals_read(code: types.CodeType) -> set[str]:
    names = {
        instruction.argval
        for instruction in dis.get_instructions(code)
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    }
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _globals_read(constant)
    return names


def _digest_class(cls: type, enclosing: tuple[Any, ...]) -> bytes:
    parts = []
    for base in cls.__mro__:
        parts.append(_name(base))
        if _is_followed(base):
            parts += [
                _combine(name, _digest(member, enclosing))
                for name, member in sorted(vars(base).items())
                # Of the names that Python itself sets, only the methods say what the class does.
                if not (name.startswith("__") or name == "_abc_impl")
                or isinstance(member, types.FunctionType)
            ]
    return _combine("class", *parts)


def _digest_model(model: nn.Module, enclosing: tuple[Any, ...]) -> bytes:
    layers = [
        (name, type(layer), layer.extra_repr(), _attributes(layer))
        for name, layer in model.named_modules(remove_duplicate=False)
    ]
    parameters = [
        (name, parameter, parameter.requires_grad)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    ]
    buffers = list(model.named_buffers(remove_duplicate=False))
    return _combine("model", *(_digest(part, enclosing) for part in (layers, parameters, buffers)))


def _attributes(layer: nn.Module) -> dict[str, Any]:
    """Return what a layer holds besides weights, buffers and layers."""
    # The private attributes of a library's layer are its bookkeeping (weak references, caches).
    followed = _is_followed(type(layer))
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in EMPTY_MODULE and (followed or not name.startswith("_"))
    }


def _name(value: Any) -> bytes:
    return f"{getattr(value, '__module__', None)}.{value.__qualname__}".encode()


def _keeps_its_state_in_a_dict(value: Any) -> bool:
    """Whether ``vars`` shows all of an object: no slots, and no base class written in C.

    What a class written in C defines, its methods, attributes and constructor, are descriptors
    and builtins that belong to it, and slots are such descriptors as well; a class statement makes
    functions, and of descriptors only the two for ``__dict__`` and ``__weakref__``. (Class methods
    in C, which `typing.Generic` has, see no object and so no state.)
    """
    return hasattr(value, "__dict__") and not any(
        base is not object and any(map(functools.partial(_is_in_c, base), vars(base)))
        for base in type(value).__mro__
    )


def _is_in_c(cls: type, name: str) -> bool:
    member = vars(cls)[name]
    if name in ("__dict__", "__weakref__"):
        return False
    if name == "__new__":
        return isinstance(member, types.BuiltinFunctionType) and member.__self__ is cls
    descriptors = (
        types.MethodDescriptorType, types.WrapperDescriptorType,
        types.GetSetDescriptorType, types.MemberDescriptorType,
    )  # fmt: skip
    return isinstance(member, descriptors) and member.__objclass__ is cls


def _is_followed(value: Any) -> bool:
    """Whether a function or class can change between runs: it belongs to no installed library."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__ == "__main__" or source_file(module.__name__):
        return True
    if module.__name__ in sys.builtin_module_names:
        return False
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    return not any(Path(file).resolve().is_relative_to(folder) for folder in LIBRARIES)


def _path_of(enclosing: tuple[Any, ...]) -> str:
    """Say through which functions a value was reached."""
    names = [getattr(outer, "__qualname__", None) for outer in enclosing]
    named = [name for name in names if isinstance(name, str)]
    return f" (reached from {' > '.join(named)})" if named else ""

"""Tensors and plain data in one safetensors file: written whole or not at all, checked when read.

The tensors are stored as they are, bit for bit. What surrounds them (the dicts, lists, numbers and
strings of a state) is JSON in the file's metadata, so that reading a file never runs code.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from evidence.storage import write_whole

__all__ = ["DamagedFileError", "load_state", "save_state"]

FORMAT = "evidence-state-1"


class DamagedFileError(ValueError):
    """A file was not written by `save_state`, or has changed since."""


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a nested state to a file, in place of what the file held.

    Parameters
    ----------
    path : Path
        The file, written by `evidence.storage.write_whole`.
    state : mapping
        Tensors, numbers, strings, booleans and None, nested in mappings, lists and tuples; for
        example an optimizer's ``state_dict()``.

    Raises
    ------
    TypeError
        If something else is in the state. The file stays as it was.
    OSError
        If the file cannot be written. It stays as it was.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = json.dumps(_encode(state, "", tensors))
    metadata = {"format": FORMAT, "state": structure, "sha256": _checksum(structure, tensors)}
    write_whole(path, save(tensors, metadata))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        The state: its tensors bit for bit, on the CPU; mappings as dicts.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DamagedFileError
        If the file is cut short, altered, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copied out of the mapped file, which a later save will replace.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedFileError(f"{path} is no whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise DamagedFileError(f"{path} is no file of this book: its format is not {FORMAT!r}")
    structure = metadata.get("state", "")
    if metadata.get("sha256") != _checksum(structure, tensors):
        raise DamagedFileError(f"{path} has changed since it was written: its checksum differs")
    return _decode(json.loads(structure), tensors)


def _checksum(structure: str, tensors: Mapping[str, torch.Tensor]) -> str:
    checksum = hashlib.sha256(structure.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        checksum.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        checksum.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return checksum.hexdigest()


def _encode(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Turn a state into JSON, and put its tensors aside under the names of their places."""
    match value:
        case torch.Tensor():
            name = path
            while name in tensors:
                name += "'"
            # A copy of its own: safetensors refuses tensors that share memory, as tied weights do.
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": name}
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_encode(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
        case tuple():
            return {"tuple": _encode(list(value), path, tensors)}
        case Mapping():
            # As pairs: JSON would turn the integer keys of an optimizer's state into strings.
            pairs = [
                [_encode(key, path, tensors), _encode(item, f"{path}/{key}".lstrip("/"), tensors)]
                for key, item in value.items()
            ]
            return {"counter" if isinstance(value, Counter) else "mapping": pairs}
    raise TypeError(
        f"{path or 'the state'} is a {type(value).__name__}; accepted are tensors, numbers, "
        "strings, booleans, None, and mappings, lists and tuples of these"
    )


def _decode(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    match value:
        case {"tensor": name}:
            return tensors[name]
        case {"tuple": items}:
            return tuple(_decode(items, tensors))
        case {"mapping": pairs}:
            return {_decode(key, tensors): _decode(item, tensors) for key, item in pairs}
        case {"counter": pairs}:
            return Counter({_decode(key, tensors): item for key, item in pairs})
        case list():
            return [_decode(item, tensors) for item in value]
    return value

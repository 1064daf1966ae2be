"""Hashes of code and of values: what must change them, and what must not."""

from __future__ import annotations

import abc
import collections
import ctypes
import functools
import hashlib
import io
import itertools
import math
import os
import random
import re
import socket
import subprocess
import sys
import threading
import typing
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from torch import nn

from evidence import models, source_code
from evidence.provenance import (
    FingerprintError,
    cache_dir,
    fingerprint,
    module_hash,
)

scale = 1.0


def reads_a_global(x):
    return x * scale


def calls_another(x):
    return reads_a_global(x) + 1


def reads_a_module():
    return module.x  # noqa: F821


def recursive(n):
    return 1 if n == 0 else n * recursive(n - 1)


class Scaled(nn.Module):
    def __init__(self, factor=2.0, activation=torch.tanh, width=3):
        super().__init__()
        self.factor = factor
        self.activation = activation
        self.inner = nn.Linear(2, width)
        self.register_buffer("mean", torch.zeros(2))
        nn.init.ones_(self.inner.weight)
        nn.init.zeros_(self.inner.bias)

    def forward(self, x):
        return self.factor * self.activation(self.inner(x - self.mean))


class Shifted(Scaled):
    def forward(self, x):
        return 1 + super().forward(x)


def closure(beta):
    return lambda x: beta * x


def seeded(seed):
    return torch.Generator().manual_seed(seed)


VALUES = {
    "none": lambda: None,
    "true": lambda: True,
    "one": lambda: 1,
    "one as a float": lambda: 1.0,
    "zero": lambda: 0.0,
    "minus zero": lambda: -0.0,
    "nan": lambda: math.nan,
    "text": lambda: "1",
    "bytes": lambda: b"1",
    "list": lambda: [1, 2],
    "tuple": lambda: (1, 2),
    "nested": lambda: [[1], 2],
    "nested otherwise": lambda: [[1, 2]],
    "set": lambda: {"a", "b", 3},
    "dict": lambda: {"a": 1, "b": 2},
    "dict swapped": lambda: {"a": 2, "b": 1},
    "path": lambda: Path("1"),
    "array": lambda: np.arange(4),
    "array of floats": lambda: np.arange(4.0),
    "array of another shape": lambda: np.arange(4).reshape(2, 2),
    "tensor": lambda: torch.arange(4),
    "tensor of bytes": lambda: torch.arange(4, dtype=torch.uint8),
    "tensor of another shape": lambda: torch.arange(4).reshape(2, 2),
    "tensor of one element": lambda: torch.tensor(1),
    "empty tensor": lambda: torch.empty(0, 3),
    "other empty tensor": lambda: torch.empty(3, 0),
    "dtype": lambda: torch.float32,
    "generator": lambda: seeded(0),
    "other generator": lambda: seeded(1),
    "builtin": lambda: math.exp,
    "method of a tensor": lambda: torch.Tensor.exp,
    "function of torch": lambda: torch.exp,
    "ufunc": lambda: np.exp,
    "class of torch": lambda: nn.ReLU,
    "python function of torch": lambda: nn.functional.softplus,
    "partial": lambda: functools.partial(torch.optim.Adam, lr=1e-3),
    "other partial": lambda: functools.partial(torch.optim.Adam, lr=1e-2),
    "closure": lambda: closure(1.0),
    "other closure": lambda: closure(2.0),
    "function": lambda: reads_a_global,
    "function that calls it": lambda: calls_another,
    "recursive function": lambda: recursive,
    "cached function": lambda: functools.lru_cache(recursive),
    "lambda": lambda: lambda x: x + 1,
    "other lambda": lambda: lambda x: x + 2,
    "lambda with a default": lambda: lambda x, y=1: x + y,
    "lambda with another default": lambda: lambda x, y=2: x + y,
    "bound method": lambda: [1].append,
    "other bound method": lambda: [2].append,
    "distribution": lambda: torch.distributions.Normal(0.0, 1.0),
    "other distribution": lambda: torch.distributions.Normal(0.0, 2.0),
    "model": Scaled,
    "model with another attribute": lambda: Scaled(3.0),
    "model with another function": lambda: Scaled(activation=torch.sigmoid),
    "model of another width": lambda: Scaled(width=4),
    "model with other code": Shifted,
    "model of another mode": lambda: Scaled().requires_grad_(False),
    "model in float64": lambda: Scaled().double(),
    "library's model": lambda: nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(0.1)).apply(ones),
    "other library's model": lambda: nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(0.2)).apply(ones),
    "recurrent model": lambda: nn.GRU(2, 3).apply(ones),
}


@torch.no_grad()
def ones(layer):
    for parameter in layer.parameters():
        parameter.fill_(1.0)


def test_equal_values_have_one_fingerprint_and_different_values_have_different_ones():
    prints = {name: fingerprint(make()) for name, make in VALUES.items()}
    assert prints == {name: fingerprint(make()) for name, make in VALUES.items()}
    assert len(set(prints.values())) == len(VALUES)
    assert all(len(text) == 64 for text in prints.values())


def test_fingerprints_agree_between_processes():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_provenance as t\n"
        "print(*(t.fingerprint(make()) for make in t.VALUES.values()))"
    )
    here = [fingerprint(make()) for make in VALUES.values()]
    there = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        capture_output=True, text=True, check=True,
        # The hashes of strings, and with them the order of sets, differ between processes.
        env=os.environ | {"PYTHONHASHSEED": "12345"},
    ).stdout  # fmt: skip
    assert there.split() == here


def test_the_order_of_a_dict_and_the_layout_of_a_tensor_make_no_difference():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    square = torch.arange(9).reshape(3, 3)
    assert fingerprint(square.T) == fingerprint(square.T.contiguous())
    assert fingerprint(square.T) != fingerprint(square)


def test_a_global_that_a_function_reads_counts(monkeypatch):
    before = [fingerprint(function) for function in (reads_a_global, calls_another, recursive)]
    monkeypatch.setattr(sys.modules[__name__], "scale", 2.0)
    after = [fingerprint(function) for function in (reads_a_global, calls_another, recursive)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]


def test_the_code_of_a_function_counts_and_its_place_does_not():
    def define(text):
        names = {"__name__": "__main__"}
        exec(text, names)
        return names["f"]

    first = define("def f(x):\n    return x + 1")
    assert fingerprint(first) == fingerprint(define("\n\n# moved\ndef f(x):\n    return x + 1"))
    assert fingerprint(first) != fingerprint(define("def f(x):\n    return x - 1"))
    inner = define("def f(x):\n    return [(lambda v: v + 1)(y) for y in x]")
    assert fingerprint(inner) != fingerprint(
        define("def f(x):\n    return [(lambda v: v + 2)(y) for y in x]")
    )


def test_a_weight_and_a_buffer_of_a_model_count():
    model = Scaled()
    before = fingerprint(model)
    with torch.no_grad():
        model.inner.weight[0, 0] += 2**-20
    weight_changed = fingerprint(model)
    model.mean[0] = 1.0
    assert len({before, weight_changed, fingerprint(model)}) == 3


def test_an_object_that_holds_its_owner_has_a_fingerprint():
    owner, other = [1], [2]
    owner.append(owner)
    other.append(other)
    assert fingerprint(owner) == fingerprint(owner)
    assert fingerprint(owner) != fingerprint(other)


def in_python(cls):
    """A class of Python's that inherits from one in C; its objects have a ``__dict__``."""
    return type(f"My{cls.__name__}", (cls,), {})


class Slotted:
    __slots__ = ("a",)


UNREADABLE = {
    "text stream": lambda: sys.stdout,
    "file": lambda: io.BufferedReader(io.BytesIO()),
    "unbuffered file": lambda: io.FileIO(os.devnull),
    "text in memory": lambda: io.StringIO("text"),
    "bytes in memory": lambda: in_python(io.BytesIO)(b"bytes"),
    "own stream": lambda: in_python(io.RawIOBase)(),
    "socket": socket.socket,
    "lock": threading.Lock,
    "condition": threading.Condition,
    "thread's own": lambda: in_python(threading.local)(),
    "generator": lambda: (i for i in range(3)),
    "iterator": lambda: iter([1]),
    "own map": lambda: in_python(map)(abs, [1]),
    "own filter": lambda: in_python(filter)(None, [1]),
    "own count": lambda: in_python(itertools.count)(),
    "own deque": lambda: in_python(collections.deque)([1]),
    "own bytearray": lambda: in_python(bytearray)(b"1"),
    "structure": lambda: in_python(ctypes.Structure)(),
    "exception": lambda: in_python(ValueError)(1),
    "random numbers": lambda: random.Random(0),
    "numpy's random numbers": lambda: np.random.default_rng(0),
    "hash": hashlib.sha256,
    "pattern": lambda: re.compile("a"),
    "slots": lambda: in_python(Slotted)(),
    "bare object": object,
}


class Generic(typing.Generic[typing.TypeVar("T")]):
    pass


class Abstract(abc.ABC):  # noqa: B024
    pass


class Made:
    def __new__(cls):
        return super().__new__(cls)


@pytest.mark.parametrize("cls", [Generic, Abstract, Made])
def test_objects_of_classes_in_python_are_read(cls):
    first, second, third = cls(), cls(), cls()
    first.a, second.a, third.a = 1, 1, 2
    assert fingerprint(first) == fingerprint(second) != fingerprint(third)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_refused(name):
    value = UNREADABLE[name]()

    def loss(x):
        return value

    with pytest.raises(FingerprintError, match="cannot be hashed by its content"):
        fingerprint(value)
    with pytest.raises(FingerprintError, match=r"reached from .*loss"):
        fingerprint(loss)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose module a imports b, and b imports c inside a function; d stands alone."""
    folder = tmp_path / "evidence"
    (folder / "inner").mkdir(parents=True)
    sources = {
        "__init__": "",
        "a": "from evidence import b",
        "b": "def f():\n    import evidence.inner.c",
        "inner/__init__": "",
        "inner/c": "from evidence.a import f\nimport math",
        "d": "",
    }
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setattr(source_code, "PACKAGE", folder)
    return folder


@pytest.mark.parametrize("changed", ["__init__", "a", "b", "inner/__init__", "inner/c", "d"])
def test_a_module_counts_with_what_it_imports(package, changed):
    before = module_hash("evidence.a")
    assert module_hash("evidence.a") == before
    path = package / f"{changed}.py"
    path.write_text(path.read_text() + "\nx = 1")
    assert (module_hash("evidence.a") != before) == (changed != "d")


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("def f(x):\n    return x + 1", True),
        ('"""A module."""\ndef f(x):\n    """A function."""\n    return x  # itself', False),
        ("X = 1\n\ndef f(x):\n    return x", True),
    ],
)
def test_a_module_counts_by_what_it_does(package, source, changes):
    (package / "d.py").write_text("def f(x):\n    return x")
    before = module_hash("evidence.d")
    (package / "d.py").write_text(source)
    assert (module_hash("evidence.d") != before) == changes


def test_a_module_that_is_missing_or_imports_relatively_is_refused(package):
    for name in ("evidence.e", "math"):
        with pytest.raises(ModuleNotFoundError, match=name):
            module_hash(name)
    (package / "d.py").write_text("from . import a")
    with pytest.raises(ValueError, match="expected an absolute import, got a relative one"):
        module_hash("evidence.d")


def test_a_module_of_the_package_that_a_function_reads_counts_by_its_source(package, monkeypatch):
    monkeypatch.setitem(globals(), "module", models)
    (package / "models.py").write_text("x = 1")
    before = fingerprint(reads_a_module)
    (package / "models.py").write_text("x = 2")
    assert fingerprint(reads_a_module) != before


def test_the_cache_folder_is_the_environments_or_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path / "not made"))
    assert cache_dir() == tmp_path / "not made"
    assert not cache_dir().exists()
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("EVIDENCE_CACHE")
        else:
            monkeypatch.setenv("EVIDENCE_CACHE", unset)
        assert cache_dir() == Path(platformdirs.user_cache_dir("evidence-book", appauthor=False))


def test_a_relative_cache_folder_is_refused(monkeypatch):
    monkeypatch.setenv("EVIDENCE_CACHE", "cache")
    with pytest.raises(ValueError, match="EVIDENCE_CACHE: expected an absolute path, got 'cache'"):
        cache_dir()

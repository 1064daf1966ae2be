"""Files of tensors and plain data."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from evidence.state_file import DamagedFileError, load_state, save_state

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)
)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
TENSORS = st.builds(
    lambda shape, dtype, seed: torch.randint(
        0, 2, shape, generator=torch.Generator().manual_seed(seed)
    ).to(dtype),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from(DTYPES),
    st.integers(0, 100),
)
KEYS = st.one_of(st.integers(), st.text(max_size=5))
STATES = st.recursive(
    st.one_of(SCALARS, TENSORS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=10,
)


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b


@settings(deadline=None, max_examples=150)
@given(state=st.dictionaries(KEYS, STATES, max_size=4))
def test_a_state_comes_back_as_it_was(tmp_path_factory, state):
    path = tmp_path_factory.getbasetemp() / "state.safetensors"
    save_state(path, state)
    assert equal(load_state(path), state)


def test_bits_are_kept(tmp_path):
    special = torch.tensor([math.nan, -0.0, math.inf, 1e-45, 0.1])
    path = tmp_path / "state"
    save_state(path, {"tensor": special, "number": 0.1 + 0.2, "infinite": -math.inf})
    state = load_state(path)
    assert torch.equal(state["tensor"].view(torch.int32), special.view(torch.int32))
    assert state["number"] == 0.1 + 0.2
    assert state["infinite"] == -math.inf


def test_shared_strided_and_tracked_tensors_are_kept(tmp_path):
    base = torch.arange(6.0).reshape(2, 3).requires_grad_()
    path = tmp_path / "state"
    save_state(path, {"whole": base, "row": base[0], "turned": base.T, "again": base})
    state = load_state(path)
    assert torch.equal(state["turned"], base.T)
    assert torch.equal(state["row"], base[0])
    assert not state["whole"].requires_grad


def test_other_mappings_come_back_as_dicts_and_counters_as_counters(tmp_path):
    path = tmp_path / "state"
    save_state(path, {"ordered": OrderedDict(b=1, a=2), "counts": Counter([3, 3, 5])})
    state = load_state(path)
    assert state == {"ordered": {"b": 1, "a": 2}, "counts": Counter({3: 2, 5: 1})}
    assert type(state["ordered"]) is dict
    assert type(state["counts"]) is Counter


def test_names_that_collide_are_kept_apart(tmp_path):
    path = tmp_path / "state"
    state = {"a": {"b": torch.ones(1)}, "a/b": torch.zeros(1), 1: torch.ones(2), "1": torch.ones(3)}
    save_state(path, state)
    assert equal(load_state(path), state)


@pytest.mark.parametrize(
    ("value", "what"), [({1, 2}, "set"), (lambda: 0, "function"), (1j, "complex")]
)
def test_other_values_are_refused_by_place_and_the_file_stays(tmp_path, value, what):
    path = tmp_path / "state"
    save_state(path, {"a": 1})
    content = path.read_bytes()
    with pytest.raises(TypeError, match=f"deep/1/x is a {what}; accepted are"):
        save_state(path, {"deep": [0, {"x": value}]})
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_is_made_and_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "some" / "where" / "state"
    save_state(path, {"a": 1})
    assert load_state(path) == {"a": 1}

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_state(path, {"a": 2})
    assert load_state(path) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_changed_byte_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    save_state(path, {"weights": torch.arange(5.0), "epoch": 3, "name": "x"})
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        state = load_state(path)
    except DamagedFileError:
        return
    # Only what means the same may be read: white space and escapes in the header.
    assert equal(state, {"weights": torch.arange(5.0), "epoch": 3, "name": "x"})


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_file_cut_short_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "short.safetensors"
    save_state(path, {"weights": torch.arange(5.0), "epoch": 3})
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(DamagedFileError, match=r"short\.safetensors"):
        load_state(path)


def test_a_safetensors_file_of_another_origin_is_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(DamagedFileError, match="no file of this book"):
        load_state(path)


def test_other_programs_can_read_the_tensors(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, {"model": {"layer.weight": torch.ones(2)}, "epochs": [1, 2]})
    assert equal(load_file(path), {"model/layer.weight": torch.ones(2)})


def test_a_missing_file_is_missing_and_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "nothing")

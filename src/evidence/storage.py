"""Files that can be made again: where they are kept, how they are written, what if they cannot be.

A cache is an optimisation. Where its folder is missing, full, shared or not to be written in, what
would have been kept there is made each time, and a `CacheWarning` says how to change that.

Settings that name folders are absolute paths, by one rule for all: a page runs in a folder of its
own, so a relative path would name another folder in each. A command that starts pages calls
`make_settings_absolute` first, so that there a relative path counts from where the command was
called.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import platformdirs

__all__ = [
    "FOLDER_SETTINGS",
    "CacheWarning",
    "NoCacheError",
    "cache_dir",
    "cache_problem",
    "folder_setting",
    "make_settings_absolute",
    "not_kept",
    "write_whole",
]

FOLDER_SETTINGS = ("EVIDENCE_CACHE", "EVIDENCE_DATA")
"""The environment variables that name folders."""


class CacheWarning(UserWarning):
    """Something in the cache was damaged and is made anew, or the cache cannot be used."""


class NoCacheError(OSError):
    """There is no folder for a cache: no home folder is known, and none is named."""


def cache_dir() -> Path:
    """Return the folder for files that can be made again: ``EVIDENCE_CACHE`` or the user's cache.

    Returns
    -------
    Path
        An absolute path. Nothing is created.

    Raises
    ------
    ValueError
        If ``EVIDENCE_CACHE`` is a relative path, see `folder_setting`.
    NoCacheError
        If it is not set and the user has no home folder.
    """
    named = folder_setting("EVIDENCE_CACHE")
    if named is not None:
        return named
    folder = Path(platformdirs.user_cache_dir("evidence-book", appauthor=False))
    if not folder.is_absolute():
        # Without a home folder the path begins with "~", and a folder of that name would be made.
        raise NoCacheError(f"no home folder is known, and the user's cache would be {folder}")
    return folder


def cache_problem() -> str | None:
    """Return why nothing can be kept in the cache, in words; None where it can.

    The folder is made if it is missing. A full disk is noticed as well.
    """
    try:
        probe = cache_dir() / f".probe-{secrets.token_hex(8)}"
        write_whole(probe, b"probe")
        probe.unlink()
    except OSError as error:
        return f"the cache cannot be written ({error})"
    return None


def folder_setting(name: str) -> Path | None:
    """Return the folder that an environment variable names.

    Parameters
    ----------
    name : str
        Of `FOLDER_SETTINGS`.

    Returns
    -------
    Path or None
        An absolute path, with ``~`` replaced by the home folder; None where the variable is not set
        or empty.

    Raises
    ------
    ValueError
        If it is a relative path, or begins with ``~`` where no home folder is known.
    """
    named = os.environ.get(name)
    if not named:
        return None
    try:
        folder = Path(named).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{name}: expected an absolute path, got {named!r} ({error}); write the path out"
        ) from error
    if not folder.is_absolute():
        raise ValueError(
            f"{name}: expected an absolute path, got {named!r}, which from here would be "
            f"{folder.absolute()}; pages run in folders of their own, so from each a relative path "
            "names another folder"
        )
    return folder


def make_settings_absolute() -> None:
    """Let relative paths in `FOLDER_SETTINGS` count from the working directory of this process.

    For commands that start pages: the environment is changed for this process and those that it
    starts.
    """
    for name in FOLDER_SETTINGS:
        named = os.environ.get(name)
        if named and not named.startswith("~"):
            os.environ[name] = str(Path(named).absolute())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or as it was, whatever happens meanwhile.

    Parameters
    ----------
    path : Path
        The file. Its folder is made if it is missing. The file gets the permissions that the umask
        asks for, as any file that a program makes.
    content : bytes
        All of it.

    Raises
    ------
    OSError
        If it cannot be written. Nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, since a file can be renamed in one step only within a file system. Not by
    # `tempfile`, whose files are for their owner's eyes only.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def not_kept(what: str, error: OSError, consequence: str) -> str:
    """Return the words of a `CacheWarning`: what cannot be kept, why, and what to do about it."""
    return (
        f"{what} cannot be written ({error}), so {consequence}. Set EVIDENCE_CACHE to a folder "
        "that can be written."
    )

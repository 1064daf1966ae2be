"""What a command needs, looked for before it starts: in a second, not after minutes of work."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import yaml

__all__ = [
    "NotReadyError",
    "check_browser",
    "check_configuration",
    "check_data",
    "check_writable",
]


class NotReadyError(RuntimeError):
    """Something that a command needs is missing; the message says what, and what helps."""


def check_browser() -> None:
    """Start a Chromium, and end it.

    Raises
    ------
    NotReadyError
        If none is found, or the one that is found does not start.
    """
    from playwright.sync_api import Error

    from evidence_book.browser import launched

    try:
        with launched():
            pass
    except FileNotFoundError as error:
        raise NotReadyError(str(error)) from None
    except Error as error:
        raise NotReadyError(f"Chromium was found and does not start: {error.message}") from None


def check_configuration(root: Path) -> None:
    """Read ``_config.yml`` as Jupyter Book will.

    Raises
    ------
    NotReadyError
        If it is missing or cannot be read, or holds what Jupyter Book does not accept.
    """
    from jsonschema import ValidationError
    from jupyter_book.config import validate_yaml

    path = root / "_config.yml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        validate_yaml(settings, raise_on_errors=True)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise NotReadyError(f"{path} cannot be used: {error}") from None


def check_data(*, is_tested: bool = False) -> None:
    """Load the digits that the environment asks for, if it asks for any.

    Parameters
    ----------
    is_tested : bool
        Whether tests are to run as well, which need the full set where ``EVIDENCE_DATA`` is set.

    Raises
    ------
    NotReadyError
        If ``EVIDENCE_MNIST`` names no source, or the files of the full set are not where
        ``EVIDENCE_DATA`` says, are damaged, or cannot be downloaded.
    """
    sources = []
    if os.environ.get("EVIDENCE_MNIST"):
        sources.append(None)
    if is_tested and os.environ.get("EVIDENCE_DATA"):
        sources.append("full")
    if not sources:
        return
    # Here, as torch takes seconds to import.
    from evidence.datasets import DatasetError, load_mnist

    try:
        for source in sources:
            for split in ("train", "test"):
                load_mnist(split, source)
    except (DatasetError, ValueError) as error:
        raise NotReadyError(str(error)) from None


def check_writable(folder: Path) -> None:
    """Write into a folder, which is made if it is not there.

    Raises
    ------
    NotReadyError
        If that fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise NotReadyError(f"expected a folder that can be written, got {error}") from None

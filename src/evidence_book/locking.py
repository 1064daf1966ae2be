"""Compile ``requirements.txt``, the exact versions of everything, from ``pyproject.toml``."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HEADER = """\
# Exact versions of everything that the book needs, on Python 3.11, 3.12 and 3.13.
# Made from pyproject.toml by `make lock`; edit that file, not this one.
# CUDA packages are left out: the book runs on the CPU, and pip adds them where torch wants them.
"""
OLDEST_PYTHON = "3.11"
EXCLUDED = "\n# The following packages were excluded"
CUDA = re.compile(r"^((?:nvidia|cuda)-[a-z0-9-]+|triton)==", re.MULTILINE)
# What only one machine could install: an address, a path, or a build for one processor.
MACHINE_BOUND = re.compile(r"^(?:-.*|.*(?:://|==\S+\+|@ ).*)$", re.MULTILINE)


class LockError(RuntimeError):
    """No lock could be made; the message says why, and requirements.txt is as it was."""


def lock(root: Path, *, upgrade: bool = False) -> None:
    """Write ``requirements.txt`` for every platform and every Python that the book supports.

    Parameters
    ----------
    root : Path
        The folder of ``pyproject.toml``.
    upgrade : bool
        Whether to take the newest version of everything; by default a version that is locked
        and still fits stays.

    Raises
    ------
    LockError
        If the requirements cannot be met together, or the lock would hold what only this machine
        could install.
    """
    target = root / "requirements.txt"
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / target.name
        if target.exists() and not upgrade:
            draft.write_bytes(target.read_bytes())
        cuda = CUDA.findall(_compile(root, draft))
        text = HEADER + _compile(root, draft, *(f"--no-emit-package={name}" for name in cuda))
    if bound := MACHINE_BOUND.findall(text):
        raise LockError("only this machine could install:\n" + "\n".join(bound))
    temporary = target.with_name("requirements.txt.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)


def _compile(root: Path, draft: Path, *options: str) -> str:
    """Have uv write a lock that keeps the versions of the draft where it can; return its text."""
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--all-extras",
        "--universal", "--python-version", OLDEST_PYTHON, "--fork-strategy", "fewest",
        "--no-header", "--quiet", "--output-file", str(draft), *options,
    ]  # fmt: skip
    run = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if run.returncode:
        raise LockError(run.stderr)
    return draft.read_text(encoding="utf-8").partition(EXCLUDED)[0]

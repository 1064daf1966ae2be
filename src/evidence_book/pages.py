"""Which pages the book has, where their notebooks lie, and what their outputs depend on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import jupytext
import nbformat
from sphinx_external_toc.parsing import parse_toc_yaml

PAGE_FORMAT = "md:myst"
# Settings that change what a page computes belong to the key of its outputs.
SETTINGS_IN_KEY = ("EVIDENCE_MNIST",)
KERNEL_SETTINGS = {
    # One thread a kernel: pages run side by side, one on each core, and sums do not depend on how
    # many cores there are.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # A progress bar that has ended is litter on a page.
    "EVIDENCE_PROGRESS": "0",
}


class PageError(ValueError):
    """A page is named but missing, or its header cannot be read."""


def set_kernel_environment() -> None:
    """Set the environment that every kernel of a build inherits."""
    os.environ.update(KERNEL_SETTINGS)


def find_pages(root: Path) -> list[Path]:
    """Return the pages of ``_toc.yml`` that hold code cells, in the order of the book.

    Parameters
    ----------
    root : Path
        The folder of ``_toc.yml``.

    Returns
    -------
    list of Path
        Paths of MyST sources that jupytext reads as notebooks.

    Raises
    ------
    PageError
        If the table of contents names a page that does not exist.
    """
    toc = parse_toc_yaml(root / "_toc.yml")
    pages = []
    for name in toc.keys():  # noqa: SIM118 (a SiteMap iterates over nothing)
        page = root / f"{name}.md"
        if not page.exists():
            raise PageError(f"_toc.yml names {name!r}, but there is no file {page}")
        if is_notebook(page):
            pages.append(page)
    return pages


def is_notebook(page: Path) -> bool:
    """Tell whether a MyST file is a notebook: whether its header has jupytext's entry."""
    lines = page.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != "---":
        return False
    if "---" not in lines[1:]:
        raise PageError(f"the header of {page} has no end: expected a second line '---'")
    header = lines[1 : lines.index("---", 1)]
    return any(line.startswith("jupytext:") for line in header)


def read_page(page: Path) -> nbformat.NotebookNode:
    """Read a MyST page as a notebook without outputs."""
    return jupytext.read(page, fmt=PAGE_FORMAT)


def notebook_of(page: Path, root: Path) -> Path:
    """Return the path of the executed notebook that is paired with a page."""
    return root / "notebooks" / page.relative_to(root / "book").with_suffix(".ipynb")


def page_of(notebook: Path, root: Path) -> Path:
    """Return the path of the page that is paired with a notebook."""
    return root / "book" / notebook.relative_to(root / "notebooks").with_suffix(".md")


def execution_key(root: Path) -> str:
    """Return a hash of all that the outputs of any page depend on, beside the page's own code.

    That is the helper package `evidence`, the locked requirements, and the settings a kernel sees.
    """
    digest = hashlib.sha256()
    helper = root / "src" / "evidence"
    files = [f for f in helper.rglob("*") if f.is_file() and f.suffix in (".py", ".js", ".css")]
    for path in [root / "requirements.txt", *sorted(files)]:
        digest.update(str(path.relative_to(root)).encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    for name in SETTINGS_IN_KEY:
        digest.update(f"{name}={os.environ.get(name, '')}".encode())
    return digest.hexdigest()[:16]


def cache_folder(root: Path) -> Path:
    """Return the folder of the executed pages of the present code: a new one for new code."""
    return root / "_build" / ".executed" / execution_key(root)

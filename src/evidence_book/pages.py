"""Which pages the book has, where their notebooks lie, and what their outputs depend on."""

from __future__ import annotations

import ast
import codecs
import hashlib
import os
import platform
from pathlib import Path

import jupytext
import nbformat
import yaml
from jupytext.myst import MystMetadataParsingError
from myst_nb.core.read import is_myst_markdown_notebook
from sphinx_external_toc.parsing import parse_toc_yaml

from evidence.source_code import closure_hash, imported_names
from evidence.storage import make_settings_absolute

PAGE_FORMAT = "md:myst"
# Settings that change what a page computes belong to the key of its outputs.
SETTINGS_IN_KEY = ("EVIDENCE_MNIST",)
# Seconds that a cell may take. Pages take far less; a slow machine that is busy is no error, and
# with the full data a cell may have fifteen times the work.
CELL_TIMEOUT = 900
CELL_TIMEOUT_FULL = 6 * CELL_TIMEOUT
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


def set_kernel_environment(root: Path) -> None:
    """Set the environment that every kernel of a build inherits.

    Parameters
    ----------
    root : Path
        The folder of ``_toc.yml``. Matplotlib's settings and its list of fonts are kept below it:
        a reader's own ``matplotlibrc`` changes no picture of the book.
    """
    make_settings_absolute()
    os.environ.update(KERNEL_SETTINGS)
    os.environ["MPLCONFIGDIR"] = str(root / "_build" / ".matplotlib")


def cell_timeout() -> int:
    """Return how many seconds a cell may take, with the data that ``EVIDENCE_MNIST`` names."""
    return CELL_TIMEOUT_FULL if os.environ.get("EVIDENCE_MNIST") == "full" else CELL_TIMEOUT


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
    """Tell whether a MyST file is a notebook: by the rule of myst-nb, which shows it as one.

    Raises
    ------
    PageError
        If its header has no end, is no YAML, or stands behind a byte order mark: Jupyter would
        take such a header for text, and myst-nb would not or would fail.
    """
    if page.read_bytes().startswith(codecs.BOM_UTF8):
        raise PageError(
            f"{page} begins with a byte order mark, behind which Jupyter finds no header: expected "
            "UTF-8 without one"
        )
    text = page.read_text(encoding="utf-8")
    first, *lines = text.splitlines() or [""]
    if not first.startswith("---"):
        return False
    end = next((n for n, line in enumerate(lines) if line.startswith(("---", "..."))), None)
    if end is None:
        raise PageError(f"the header of {page} has no end: expected a second line '---'")
    try:
        return is_myst_markdown_notebook(text)
    except AttributeError:  # an entry that should hold others is empty or a word
        raise PageError(
            f"the header of {page} names no format: expected `jupytext: text_representation: "
            f"format_name: myst`, got {'; '.join(lines[:end])!r}"
        ) from None


def read_page(page: Path) -> nbformat.NotebookNode:
    """Read a MyST page as a notebook without outputs.

    Raises
    ------
    PageError
        If its header, or the options of a cell, cannot be read.
    """
    try:
        return jupytext.read(page, fmt=PAGE_FORMAT)
    except (yaml.YAMLError, MystMetadataParsingError) as error:
        raise PageError(f"{page} cannot be read: {error}") from error


def notebook_of(page: Path, root: Path) -> Path:
    """Return the path of the executed notebook that is paired with a page."""
    return root / "notebooks" / page.relative_to(root / "book").with_suffix(".ipynb")


def page_of(notebook: Path, root: Path) -> Path:
    """Return the path of the page that is paired with a notebook."""
    return root / "book" / notebook.relative_to(root / "notebooks").with_suffix(".md")


def execution_key(notebook: nbformat.NotebookNode, root: Path) -> str:
    """Return a hash of all that the outputs of a page depend on, beside the page's own code.

    Parameters
    ----------
    notebook : NotebookNode
        The page.
    root : Path
        The folder of ``_toc.yml``.

    Returns
    -------
    str
        Of the modules of the helper package `evidence` that the page imports, directly or through
        others; the locked requirements; Python's version; and the settings that a kernel sees.
    """
    digest = hashlib.sha256()
    digest.update(closure_hash(_imports(notebook, root), root / "src" / "evidence").encode())
    fonts = sorted((root / "src" / "evidence" / "fonts").glob("*.ttf"))
    for path in [root / "requirements.txt", *fonts]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    digest.update(".".join(platform.python_version_tuple()[:2]).encode())
    for name in SETTINGS_IN_KEY:
        digest.update(f"{name}={os.environ.get(name, '')}".encode())
    return digest.hexdigest()[:16]


def _imports(notebook: nbformat.NotebookNode, root: Path) -> list[str]:
    """Return the names of all modules that the cells of a page may import."""
    names = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        try:
            names += imported_names(ast.parse(cell.source))
        except SyntaxError:
            # IPython knows more than Python, and a cell may show an error: such a page counts with
            # all modules.
            folder = root / "src"
            files = (folder / "evidence").rglob("*.py")
            return [".".join(path.relative_to(folder).with_suffix("").parts) for path in files]
    return names


def cache_folder(root: Path) -> Path:
    """Return the folder of the executed pages."""
    return root / "_build" / ".executed"

"""The executed notebooks in ``notebooks/``: written from the pages, and checked against them.

The MyST pages are the source. A notebook holds the same cells and, of their outputs, what is text:
nbval compares that, and pictures would only swell the history.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import jupytext
import nbformat
import yaml
from jupytext.compare import NotebookDifference, compare_notebooks
from jupytext.myst import CompactDumper

from evidence.held_claim import MIME_TYPE
from evidence_book.execution import execute_pages, executed, open_cache
from evidence_book.pages import PAGE_FORMAT, find_pages, notebook_of, page_of, read_page

# Not compared by nbval and not kept: pictures, and what holds figures that differ between
# processors in their last digits (a claim's own figures) or random identifiers (widgets).
UNSTORED = (
    "image/",
    "application/vnd.jupyter.widget",
    MIME_TYPE,
    "text/markdown",
)

# The entry of a notebook's metadata by which an edit is known.
DIGEST = "evidence_sources"
HEADER = re.compile(r"\A---[^\n]*\n.*?^---[^\n]*\n", re.DOTALL | re.MULTILINE)


class EditedNotebookError(RuntimeError):
    """A notebook was edited, and its page says something else."""


def write_notebooks(root: Path, keep: Literal["page", "notebook"] | None = None) -> list[Path]:
    """Write the notebook of every page from its executed outputs, and drop notebooks of no page.

    A notebook of no page that is not as this function writes it holds somebody's work, and stays;
    so does one whose page is there and is only left out of ``_toc.yml``.

    Parameters
    ----------
    root : Path
        The folder of ``_toc.yml``.
    keep : {"page", "notebook"}, optional
        What counts where a notebook was edited and its page says something else. With "notebook",
        its cells are written into the page first.

    Returns
    -------
    list of Path
        The notebooks, and pages, whose content changed.

    Raises
    ------
    EditedNotebookError
        If there is such a notebook and `keep` is not given. Nothing is executed or written.
    """
    changed = []
    edited = [page for page in find_pages(root) if _has_lost_edit(page, root)]
    if edited and keep is None:
        raise EditedNotebookError("\n".join(_advice(page, root) for page in edited))
    if keep == "notebook":
        for page in edited:
            _write(page, page_text(jupytext.read(notebook_of(page, root)), page))
            changed.append(page)
    execute_pages(root)
    cache = open_cache(root)
    expected = set()
    for page in find_pages(root):
        path = notebook_of(page, root)
        expected.add(path)
        text = notebook_text(executed(page, cache))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            _write(path, text)
            changed.append(path)
    for path in sorted(all_notebooks(root) - expected):
        if _is_as_written(path) and not page_of(path, root).exists():
            path.unlink()
            changed.append(path)
    return changed


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _advice(page: Path, root: Path) -> str:
    notebook, page = (path.relative_to(root) for path in (notebook_of(page, root), page))
    return (
        f"{notebook} was edited, and {page} says something else. To take the notebook's cells into "
        "the page, run `python -m evidence_book notebooks --keep notebook`; to take the page's, "
        "`python -m evidence_book notebooks --keep page`"
    )


def _has_lost_edit(page: Path, root: Path) -> bool:
    """Tell whether a notebook holds an edit that its page does not."""
    try:
        notebook = jupytext.read(notebook_of(page, root))
    except (FileNotFoundError, ValueError, nbformat.ValidationError):  # none, or not to be read
        return False
    known = (notebook.metadata.get(DIGEST), source_digest(read_page(page)))
    if source_digest(notebook) in known:
        return False
    return source_digest(_as_page(notebook)) not in known


def source_digest(notebook: nbformat.NotebookNode) -> str:
    """Return a hash of a notebook's cells without their outputs.

    Every written notebook keeps its own: one that was edited since is known by it.
    """
    cells = [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells, sort_keys=True).encode()).hexdigest()[:16]


def _as_page(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out what a cell has in Jupyter only: whether it is folded, say."""
    return jupytext.reads(jupytext.writes(notebook, fmt=PAGE_FORMAT), fmt=PAGE_FORMAT)


def note_saved_sources(model: dict[str, Any], **others: Any) -> None:
    """Have a notebook that JupyterLab saves, and its page with it, keep what it was saved with.

    Jupyter calls it before every save. Else an edit that has reached the page would be known as
    one that has not, as soon as the page is edited further.
    """
    if model["type"] == "notebook":
        notebook = nbformat.from_dict(model["content"])
        model["content"]["metadata"][DIGEST] = source_digest(_as_page(notebook))


class PageDumper(CompactDumper):
    """Write the options of a cell as pages have them: long lines whole, several lines as several.

    Left alone, jupytext sets every caption and alternative text anew, at 80 characters.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "width": math.inf})


def _represent_text(dumper: PageDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


PageDumper.add_representer(str, _represent_text)


def keep_layout_of_pages() -> None:
    """Have jupytext, in this process, write into a page what was edited and change nothing else."""
    jupytext.myst.CompactDumper = PageDumper


def page_text(notebook: nbformat.NotebookNode, page: Path) -> str:
    """Return the text of a page with the cells of a notebook, and with its own header."""
    keep_layout_of_pages()
    new = jupytext.writes(notebook, fmt=PAGE_FORMAT)
    header = HEADER.match(page.read_text(encoding="utf-8"))[0]
    return header + new[HEADER.match(new).end() :]


def notebook_text(notebook: nbformat.NotebookNode) -> str:
    """Return the content of the file that an executed page is kept in."""
    return nbformat.writes(_storable(notebook)) + "\n"


def _is_as_written(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    try:
        return notebook_text(nbformat.reads(text, as_version=4)) == text
    except (ValueError, nbformat.ValidationError):  # no notebook at all
        return False


def all_notebooks(root: Path) -> set[Path]:
    """Return the notebooks that there are, without the copies that Jupyter keeps of its own."""
    found = (root / "notebooks").rglob("*.ipynb")
    return {path for path in found if ".ipynb_checkpoints" not in path.parts}


def problems(root: Path) -> list[str]:
    """Return what is wrong with the pairs, in words; an empty list where all is well.

    A page needs a notebook with the same cells, every code cell of which was executed, in order;
    a notebook needs a page, and keeps no pictures, widget state or errors.
    """
    found = []
    pages = find_pages(root)
    for page in pages:
        path = notebook_of(page, root)
        name = path.relative_to(root)
        if not path.exists():
            found.append(f"{name} is missing: run `make notebooks`")
            continue
        try:
            notebook = jupytext.read(path)
        except (ValueError, nbformat.ValidationError) as error:
            found.append(f"{name} cannot be read: run `make notebooks`\n{error}")
            continue
        try:
            compare_notebooks(
                notebook, read_page(page), fmt=PAGE_FORMAT, raise_on_first_difference=True
            )
        except NotebookDifference as difference:
            edited = _has_lost_edit(page, root)
            advice = f"{name} differs from its page: run `make notebooks`"
            found.append(f"{_advice(page, root) if edited else advice}\n{difference}")
            continue
        found.extend(f"{name} {problem}" for problem in _output_problems(notebook))
    for path in sorted(all_notebooks(root) - {notebook_of(page, root) for page in pages}):
        page = page_of(path, root)
        fault = "has a page that is no notebook of _toc.yml," if page.exists() else "has no page"
        found.append(f"{path.relative_to(root)} {fault} {page.relative_to(root)}")
    return found


def _output_problems(notebook: nbformat.NotebookNode) -> list[str]:
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("was not executed from top to bottom: run `make notebooks`")
    for index, cell in enumerate(code, start=1):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        for kind in sorted(kinds):
            if kind.startswith(UNSTORED):
                found.append(f"stores {kind} in code cell {index}: run `make notebooks`")
        tags = cell.metadata.get("tags", [])
        if "raises-exception" not in tags and any(o.output_type == "error" for o in cell.outputs):
            found.append(f"stores an error in code cell {index}")
    return found


def _storable(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Strip a notebook to what is kept in the history, with identifiers that do not change."""
    notebook.metadata.pop("widgets", None)
    # The patch version of Python would change the file on every machine.
    notebook.metadata["language_info"] = {"name": "python"}
    seen = Counter()
    for cell in notebook.cells:
        seen[cell.source] += 1
        text = f"{cell.source}#{seen[cell.source]}"
        cell["id"] = hashlib.sha256(text.encode()).hexdigest()[:8]
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in [kind for kind in data if kind.startswith(UNSTORED)]:
                del data[kind]
            if "metadata" in output:
                output["metadata"] = {}
    notebook.metadata[DIGEST] = source_digest(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook

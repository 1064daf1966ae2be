"""The executed notebooks in ``notebooks/``: written from the pages, and checked against them.

The MyST pages are the source. A notebook holds the same cells and, of their outputs, what is text:
nbval compares that, and pictures would only swell the history.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from jupytext.compare import NotebookDifference, compare_notebooks

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


def write_notebooks(root: Path) -> list[Path]:
    """Write the notebook of every page from its executed outputs, and drop notebooks of no page.

    A notebook of no page that is not as this function writes it holds somebody's work, and stays.

    Returns
    -------
    list of Path
        The notebooks whose content changed.
    """
    execute_pages(root)
    cache = open_cache(root)
    changed = []
    expected = set()
    for page in find_pages(root):
        path = notebook_of(page, root)
        expected.add(path)
        text = notebook_text(executed(page, cache))
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".ipynb.tmp")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
            changed.append(path)
    for path in sorted(all_notebooks(root) - expected):
        if _is_as_written(path):
            path.unlink()
            changed.append(path)
    return changed


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
            found.append(f"{name} differs from its page: run `make notebooks`\n{difference}")
            continue
        found.extend(f"{name} {problem}" for problem in _output_problems(notebook))
    for path in sorted(all_notebooks(root) - {notebook_of(page, root) for page in pages}):
        found.append(
            f"{path.relative_to(root)} has no page {page_of(path, root).relative_to(root)}"
        )
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
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook

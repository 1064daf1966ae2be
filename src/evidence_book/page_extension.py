"""Sphinx extension: what every page of the book needs.

Outputs that are never older than the code, an alternative text for every figure, the notebook for
download, and the book's own look.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.nodes import get_node_line

from evidence_book.execution import (
    build_lock,
    executed,
    match_pages_by_code,
    prepare_kernels,
    unexecuted,
    wait_for_other_builds,
)
from evidence_book.pages import (
    cache_folder,
    cell_timeout,
    execution_key,
    find_pages,
    is_notebook,
    notebook_of,
    read_page,
    set_kernel_environment,
)
from evidence_book.pairing import notebook_text

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
NOTEBOOK_DOWNLOADS = "_notebooks"
UNFINISHED = "unfinished"
# They keep nothing of the pages that are read, and do not say so.
UNDECLARED = ("sphinx_jupyterbook_latex", "sphinx_multitoc_numbering")


def set_cache(app: Sphinx, config: Config) -> None:
    """Have pages executed, and their outputs kept under a key of all that they depend on."""
    root = Path(app.srcdir)
    set_kernel_environment(root)
    match_pages_by_code()
    config.nb_execution_cache_path = str(cache_folder(root))
    config.nb_execution_timeout = cell_timeout()
    config.html_static_path = [*config.html_static_path, str(STATIC)]


def note_key(app: Sphinx, doctree: nodes.document) -> None:
    """Note what the outputs depend on that a page shows."""
    docname = app.env.docname
    if _is_notebook_page(Path(app.srcdir), docname):
        app.env.metadata[docname]["execution_key"] = _key(app, docname)


def find_outdated_pages(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
) -> list[str]:
    """Return the pages whose outputs depend on something that has changed since they were read."""
    noted = {
        name: data["execution_key"]
        for name, data in env.metadata.items()
        if "execution_key" in data
    }
    known = noted.keys() - added - changed - removed
    return [name for name in known if _key(app, name) != noted[name]]


def _key(app: Sphinx, docname: str) -> str:
    root = Path(app.srcdir)
    page = read_page(root / f"{docname}.md")
    key = execution_key(page, root)
    if any("evidence.live" in cell.source for cell in page.cells if cell.cell_type == "code"):
        # What runs in the browser is written anew with the page; it changes no output.
        files = sorted((root / "src" / "evidence" / "live").glob("*.[jc]s*"))
        key += hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
    return key


def use_all_cores(app: Sphinx, config: Config) -> None:
    """Read and write several pages at once; small books, and other systems, one by one.

    Sphinx shares the work by forks, which only on Linux get along with all libraries in memory.
    """
    for name in UNDECLARED:
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True
    if sys.platform == "linux":
        app.parallel = max(app.parallel, len(os.sched_getaffinity(0)))


def check_alternative_texts(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of every picture that a screen reader could not tell of."""
    for image in doctree.findall(nodes.image):
        text = image.get("alt", "")
        if not text.strip() or text == Path(image["uri"]).name:
            logger.warning(
                "a picture has no alternative text: set `mystnb: image: alt:` in its cell, "
                "or `:alt:` in its directive",
                location=(app.env.docname, get_node_line(image)), type="evidence", subtype="alt",
            )  # fmt: skip


def find_notebooks(app: Sphinx) -> None:
    """Find, once a build, the pages that the commands of the book execute."""
    app.evidence_pages = frozenset(find_pages(Path(app.srcdir)))


def check_notebook_is_found(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of a page that myst-nb executes and the commands of the book take for mere text."""
    docname = app.env.docname
    # What myst-nb keeps of a notebook, and of nothing else.
    if not {"kernelspec", "source_map"} & app.env.metadata[docname].keys():
        return
    if Path(app.srcdir) / f"{docname}.md" not in app.evidence_pages:
        logger.warning(
            "this page is executed, and is none of those that have a notebook: expected a page of "
            "_toc.yml with a header that evidence_book.pages.is_notebook knows",
            location=docname, type="evidence", subtype="notebook",
        )  # fmt: skip


def offer_notebook(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Add a page as a notebook, with the outputs that the page shows, to the downloads."""
    root = Path(app.srcdir)
    if doctree is None or not _is_notebook_page(root, pagename):
        return
    page = root / f"{pagename}.md"
    notebook = notebook_of(page, root)
    target = Path(app.outdir) / NOTEBOOK_DOWNLOADS / notebook.relative_to(root / "notebooks")
    target.parent.mkdir(parents=True, exist_ok=True)
    cache = get_cache(app.config.nb_execution_cache_path)
    target.write_text(notebook_text(executed(page, cache)), encoding="utf-8")
    button = {
        "type": "link",
        "url": context["pathto"](str(target.relative_to(app.outdir).as_posix()), resource=True),
        "text": ".ipynb",
        "tooltip": "Download this page as a Jupyter notebook",
        "icon": "fas fa-book",
        "label": "download-notebook-button",
    }
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons":
            group["buttons"].insert(0, button)
            return
    context.setdefault("header_buttons", []).append({**button, "text": ""})


def be_the_only_build(app: Sphinx, config: Config) -> None:
    """Wait until no other process builds this book."""
    wait_for_other_builds(Path(app.srcdir))


def prepare_to_execute(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Prepare for kernels, which myst-nb starts where a page has no outputs yet."""
    root = Path(app.srcdir)
    pages = [root / f"{name}.md" for name in docnames if _is_notebook_page(root, name)]
    if waiting := unexecuted(root, pages):
        prepare_kernels(root, waiting)


def forget_unfinished_build(app: Sphinx, config: Config) -> None:
    """Keep no memory of a build that failed or was stopped: this one would read nothing and pass.

    Sphinx loads its memory after this. The mark goes when a build ends without a warning.
    """
    mark = Path(app.doctreedir) / UNFINISHED
    if mark.exists():
        mark.with_name("environment.pickle").unlink(missing_ok=True)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()


def finish_build(app: Sphinx, exception: Exception | None) -> None:
    """Let other builds go on, and have the next one rely on this one, if it went well."""
    build_lock(Path(app.srcdir)).release()
    if exception is None and not app._warncount:
        (Path(app.doctreedir) / UNFINISHED).unlink(missing_ok=True)


def _is_notebook_page(root: Path, docname: str) -> bool:
    page = root / f"{docname}.md"
    return page.exists() and is_notebook(page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the parts."""
    # Before myst-nb copies the configuration at builder-inited.
    app.connect("config-inited", be_the_only_build)
    app.connect("config-inited", set_cache)
    app.connect("config-inited", forget_unfinished_build)
    app.connect("config-inited", use_all_cores)
    app.connect("builder-inited", find_notebooks)
    app.connect("doctree-read", check_alternative_texts)
    app.connect("doctree-read", note_key)
    app.connect("env-get-outdated", find_outdated_pages)
    app.connect("env-before-read-docs", prepare_to_execute)
    app.connect("doctree-read", check_notebook_is_found)
    # After the theme has made its buttons (it connects with 501).
    app.connect("html-page-context", offer_notebook, priority=600)
    app.connect("build-finished", finish_build)
    app.setup_extension("evidence_book.look_extension")
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}

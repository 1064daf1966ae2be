"""Sphinx extension: what every page of the book needs.

Outputs that are never older than the code, an alternative text for every figure, the notebook for
download, and the book's own look.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from jupyter_cache import get_cache
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging
from sphinx.util.nodes import get_node_line

from evidence_book.execution import executed, match_pages_by_code_alone
from evidence_book.pages import cache_folder, is_notebook, notebook_of, set_kernel_environment
from evidence_book.pairing import notebook_text

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
NOTEBOOK_DOWNLOADS = "_notebooks"
UNFINISHED = "unfinished"


def set_cache(app: Sphinx, config: Config) -> None:
    """Have pages executed and their outputs kept under the key of the present helper code.

    Sphinx reads every page again when this setting changes, so that no page shows older outputs.
    """
    root = Path(app.srcdir)
    set_kernel_environment()
    match_pages_by_code_alone()
    config.nb_execution_cache_path = str(cache_folder(root))
    config.html_static_path = [*config.html_static_path, str(STATIC)]


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
    """Have the next build rely on this one, if it went well."""
    if exception is None and not app._warncount:
        (Path(app.doctreedir) / UNFINISHED).unlink()


def _is_notebook_page(root: Path, docname: str) -> bool:
    page = root / f"{docname}.md"
    return page.exists() and is_notebook(page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the parts."""
    # Before myst-nb copies the configuration at builder-inited.
    app.connect("config-inited", set_cache)
    app.connect("config-inited", forget_unfinished_build)
    app.connect("doctree-read", check_alternative_texts)
    # After the theme has made its buttons (it connects with 501).
    app.connect("html-page-context", offer_notebook, priority=600)
    app.connect("build-finished", finish_build)
    app.setup_extension("evidence_book.look_extension")
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}

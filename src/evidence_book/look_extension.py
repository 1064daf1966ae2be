"""Sphinx extension: the look of the built pages, and what the theme leaves to be mended.

Style is in ``static/evidence.css``; the theme's templates that are replaced are in ``templates``.
Here is what only the build can do: sizes of pictures, folded solutions, and correct roles.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pydata_sphinx_theme
from docutils import nodes
from fontTools import subset
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util.images import get_image_size
from sphinx.writers.html5 import HTML5Translator
from sphinx_exercise.nodes import solution_node

FOLDER = Path(__file__).parent
THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme"
ALL_ICONS = THEME / "static" / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.ttf"
ICON_RANGE = re.compile(r"unicode-range:([^;]*);")
THEME_OPTIONS = {
    # The header above the page would only repeat the sidebar's search field.
    "navbar_persistent": [],
    "primary_sidebar_end": [],  # a place for advertisements
}
STYLE = re.compile(r' style="([^"]*)"')
# What docutils writes for a size in pixels.
PIXELS = re.compile(r"(?<![-\w])(width|height): (\d+)(?:px)?;\s*")


class FoldedSolution(nodes.General, nodes.Element):
    """A solution that opens at a click, without any script."""


def set_look(app: Sphinx, config: Config) -> None:
    """Set the theme's options and put the book's templates before the theme's."""
    config.templates_path = [str(FOLDER / "templates"), *config.templates_path]
    config.html_theme_options = {**config.html_theme_options, **THEME_OPTIONS}
    # Undefined, the theme reports an invalid mode to the console of every page.
    config.html_context = {"default_mode": "auto", **config.html_context}
    # A link around every picture that has a width would lead to the same picture.
    config.html_scaled_image_link = False


def write_icons(app: Sphinx, error: Exception | None) -> None:
    """Write the font of the icons that ``evidence.css`` names in its ``unicode-range``."""
    if error or app.builder.format != "html":
        return
    style = (FOLDER / "static" / "evidence.css").read_text(encoding="utf-8")
    icons = re.findall(r"U\+(\w+)", ICON_RANGE.search(style)[1])
    # With all that the font says of itself: its licence, among others.
    options = subset.Options(flavor="woff", name_IDs=["*"])
    font = subset.load_font(ALL_ICONS, options)
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=[int(icon, 16) for icon in icons])
    cutter.subset(font)
    subset.save_font(font, Path(app.outdir) / "_static" / "icons.woff", options)


def fold_solutions(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace solutions of the class ``dropdown``, and drop repeated ids from all exercises."""
    for section in list(doctree.findall(nodes.section)):
        if section["ids"] in (["exercise-content"], ["solution-content"]):
            section["ids"] = []
            section.replace_self(section.children)
    for node in list(doctree.findall(solution_node)):
        if "dropdown" in node["classes"]:
            title, *content = node.children
            folded = FoldedSolution("", *content, ids=node["ids"], summary=title.astext())
            node["classes"] = []
            node.replace_self(folded)


def visit_solution(translator: HTML5Translator, node: FoldedSolution) -> None:
    """Open a solution."""
    translator.body.append(translator.starttag(node, "details", CLASS="solution"))
    summary = translator.encode(node["summary"])
    translator.body.append(f"<summary>{summary}</summary>\n")


def depart_solution(translator: HTML5Translator, node: FoldedSolution) -> None:
    """Close a solution."""
    translator.body.append("</details>\n")


def visit_image(translator: HTML5Translator, node: nodes.image) -> None:
    """Write a picture with its size, so that the page keeps its place while it loads."""
    actual = get_image_size(Path(translator.builder.srcdir, node["uri"]))
    HTML5Translator.visit_image(translator, node)
    if actual:
        translator.body[-1] = with_size_attributes(translator.body[-1], *actual)


def with_size_attributes(tag: str, width: int, height: int) -> str:
    """Move a size in pixels from an image's style to its attributes, or put its own size there.

    A style would keep the height where the width must shrink. Attributes give way to the style
    sheet, and still tell the ratio.
    """
    style = STYLE.search(tag)
    asked = {name: int(number) for name, number in PIXELS.findall(style[1])} if style else {}
    if asked.keys() == {"width"}:
        asked["height"] = round(asked["width"] * height / width)
    elif asked.keys() == {"height"}:
        asked["width"] = round(asked["height"] * width / height)
    size = asked or {"width": width, "height": height}
    if asked:
        rest = PIXELS.sub("", style[1]).strip()
        tag = tag.replace(style[0], f' style="{rest}"' if rest else "", 1)
    return tag.replace("<img", f'<img width="{size["width"]}" height="{size["height"]}"', 1)


def visit_entry(translator: HTML5Translator, node: nodes.entry) -> None:
    """Open a cell of a table; one without text in the head is no heading of anything."""
    HTML5Translator.visit_entry(translator, node)
    if isinstance(node.parent.parent, nodes.thead) and not node.astext().strip():
        translator.body[-1] = translator.body[-1].replace("<th", "<td", 1)
        translator.context[-1] = translator.context[-1].replace("</th", "</td", 1)


def visit_citation(translator: HTML5Translator, node: nodes.citation) -> None:
    """Open an entry of the bibliography, as an item of a list."""
    if not isinstance(node.previous_sibling(), nodes.citation):
        translator.body.append('<div role="list" class="citation-list">\n')
    # The role that docutils gives, doc-biblioentry, is deprecated and no item of a list.
    translator.body.append(translator.starttag(node, "div", CLASS="citation", role="listitem"))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the parts."""
    # After jupyter-book and before the theme read the configuration.
    app.connect("config-inited", set_look, priority=900)
    app.connect("doctree-resolved", fold_solutions, priority=900)
    app.connect("build-finished", write_icons)
    plain = (lambda translator, node: None,) * 2
    app.add_node(FoldedSolution, html=(visit_solution, depart_solution), latex=plain, text=plain)
    app.add_node(nodes.image, override=True, html=(visit_image, HTML5Translator.depart_image))
    app.add_node(nodes.entry, override=True, html=(visit_entry, HTML5Translator.depart_entry))
    app.add_node(
        nodes.citation, override=True, html=(visit_citation, HTML5Translator.depart_citation)
    )
    # After KaTeX's, one of whose fonts it cuts down.
    app.add_css_file("fonts/fonts.css", priority=800)
    # Last, so that it overrides the style sheets of all other extensions.
    app.add_css_file("evidence.css", priority=900)
    app.add_js_file("evidence.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Sphinx extension: the book's live figures, running in the built page without a kernel.

`LiveRenderer` finds the state of a figure's widget in the executed notebook and makes a node of
it. The page gets the state where the figure stands, behind a picture that shows where no script
runs; only a page with a live figure loads scripts, once for each kind of figure.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from myst_nb.core.render import WIDGET_STATE_MIMETYPE, WIDGET_VIEW_MIMETYPE, MimeData
from myst_nb.sphinx_ import NbMetadataCollector
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

logger = logging.getLogger(__name__)

PICTURE_MIMETYPE = "image/png"
MODULES = "live"
"""The folder below ``_static`` that holds a script and a style sheet for each kind of figure."""

# What every widget has, and no live figure reads.
STOCK_TRAITS = frozenset({"layout", "tabbable", "tooltip"})

LIVE_TRAITS = frozenset({"_anywidget_id", "_esm", "_css", "alt", "caption"})


class LiveFigureNode(nodes.General, nodes.Element):
    """A live figure; its child is the picture that stands in."""


class LiveRenderer:
    """Turn the MIME data of a live figure into a node (a plug-in of myst-nb)."""

    # The picture is left to builders that know no widgets.
    mime_priority_overrides: ClassVar = []

    @staticmethod
    def handle_mime(renderer: Any, data: MimeData, inline: bool) -> list[nodes.Element] | None:
        """Return nodes for a live figure or its picture, None for any other output."""
        if inline or data.mime_type not in (WIDGET_VIEW_MIMETYPE, PICTURE_MIMETYPE):
            return None
        bundle = _bundle(renderer, data)
        model = _model(renderer, bundle)
        if data.mime_type == PICTURE_MIMETYPE:
            return None if model is None else [_picture(renderer, data, model["state"]["alt"])]
        if model is None:
            logger.warning(
                "a widget that is no live figure does nothing in the built page",
                location=(renderer.renderer.sphinx_env.docname, data.line),
                type="evidence", subtype="live",
            )  # fmt: skip
            return []
        state = model["state"]
        module, _, name = state["_anywidget_id"].rpartition(".")
        picture = MimeData(
            PICTURE_MIMETYPE, bundle[PICTURE_MIMETYPE], data.cell_metadata, line=data.line
        )
        node = LiveFigureNode(
            "",
            _picture(renderer, picture, state["alt"]),
            kind=module.rpartition(".")[2],
            module=module,
            figure=name,
            caption=state["caption"],
            state=_page_state(model),
        )
        node.source, node.line = renderer.source, data.line
        return [node]


def _bundle(renderer: Any, data: MimeData) -> dict[str, Any]:
    """Return the whole output that some MIME data belongs to."""
    if data.cell_index is None:
        return {}
    for output in renderer.renderer.nb_client.code_cell_outputs(data.cell_index)[1]:
        bundle = output.get("data", {})
        if bundle.get(data.mime_type) == data.content:
            return bundle
    return {}


def _model(renderer: Any, bundle: dict[str, Any]) -> dict[str, Any] | None:
    """Return the widget that an output shows, if it is a live figure."""
    if WIDGET_VIEW_MIMETYPE not in bundle or PICTURE_MIMETYPE not in bundle:
        return None
    widgets = renderer.renderer.nb_client.nb_metadata.get("widgets", {})
    models = widgets.get(WIDGET_STATE_MIMETYPE, {}).get("state", {})
    model = models.get(bundle[WIDGET_VIEW_MIMETYPE]["model_id"])
    if model is None or not model["state"].keys() >= LIVE_TRAITS:
        return None
    return model


def _picture(renderer: Any, data: MimeData, alt: str) -> nodes.image:
    """Return the image node of a figure's picture; the cell's own alternative text comes first."""
    (image,) = renderer.render_image(data)
    image["classes"].append("live-fallback")
    image.setdefault("alt", alt)
    return image


def _page_state(model: dict[str, Any]) -> str:
    """Return what the page's host reads: values by trait, and bytes in base64."""
    values = {
        name: value
        for name, value in model["state"].items()
        if not name.startswith("_") and name not in STOCK_TRAITS
    }
    # Both stand in the page already.
    values["caption"] = values["alt"] = ""
    buffers = {}
    for buffer in model.get("buffers", []):
        (name,) = buffer["path"]
        buffers[name] = buffer["data"].replace("\n", "")
    return json.dumps({"values": values, "buffers": buffers}, separators=(",", ":"))


def for_script(text: str) -> str:
    """Return JSON that may stand within a script element: it holds no tag."""
    return text.replace("<", "\\u003c")


def leave_out_widget_manager(app: Sphinx, config: Config) -> None:
    """Have myst-nb load no widget manager: it would come from another host."""
    config.nb_ipywidgets_js = {}


def drop_widget_state(app: Sphinx, doctree: nodes.document) -> None:
    """Keep myst-nb from writing the state of all widgets into the page a second time."""
    files = NbMetadataCollector.get_js_files(app.env, app.env.docname)
    for key in [key for key in files if key.startswith("ipywidgets_")]:
        del files[key]


@functools.cache
def _figure(module: str, name: str) -> Any:
    """Return the class of a figure, whose script and style are those of today.

    The executed page holds those that it was executed with; an edited one executes no page.
    """
    return getattr(importlib.import_module(module), name)


def load_figures(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Give a page with live figures, and no other, the scripts and styles that it needs."""
    if doctree is None:
        return
    kinds = {node["kind"]: node for node in doctree.findall(LiveFigureNode)}
    if not kinds:
        return
    app.add_js_file("live.js", loading_method="defer")
    for kind, node in sorted(kinds.items()):
        figure = _figure(node["module"], node["figure"])
        script = f"EvidenceLive.define({json.dumps(kind)}, {json.dumps(figure._esm)});\n"
        _write(Path(app.outdir) / "_static" / MODULES / f"{kind}.js", script)
        _write(Path(app.outdir) / "_static" / MODULES / f"{kind}.css", figure._css)
        app.add_js_file(f"{MODULES}/{kind}.js", loading_method="defer")
        app.add_css_file(f"{MODULES}/{kind}.css")


def _write(path: Path, text: str) -> None:
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def visit_html(translator: Any, node: LiveFigureNode) -> None:
    """Open a figure, up to its picture (HTML)."""
    kind = node["kind"]
    translator.body.append(
        f'<div class="live-figure live-{kind}" data-live="{kind}"><div class="live-box">'
        '<div class="live-stage"></div>'
    )


def depart_html(translator: Any, node: LiveFigureNode) -> None:
    """Close a figure behind its picture: its state, and its caption (HTML)."""
    state = for_script(node["state"])
    translator.body.append(
        f'</div><script type="application/json" class="live-state">{state}</script>'
    )
    if node["caption"]:
        caption = translator.encode(node["caption"])
        translator.body.append(f'<div class="live-caption">{caption}</div>')
    translator.body.append("</div>\n")


def pass_through(translator: Any, node: nodes.Element) -> None:
    """Show the picture alone (print and text)."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the parts."""
    plain = (pass_through, pass_through)
    app.add_node(LiveFigureNode, html=(visit_html, depart_html), latex=plain, text=plain)
    # Before myst-nb copies the configuration at builder-inited.
    app.connect("config-inited", leave_out_widget_manager)
    app.connect("doctree-read", drop_widget_state)
    app.connect("html-page-context", load_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}

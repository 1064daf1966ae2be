"""Which fonts the browser draws a page's text with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Page

# The book's, KaTeX's, and the icons.
VENDORED = ("Evidence", "KaTeX_", "Font Awesome")


def drawn_fonts(page: Page, selector: str = "html") -> list[dict[str, Any]]:
    """The fonts of an element and of all within, as Chromium tells them, pseudo-elements too."""
    session = page.context.new_cdp_session(page)
    try:
        session.send("DOM.enable")
        session.send("CSS.enable")
        root = session.send("DOM.getDocument", {"depth": -1, "pierce": True})["root"]
        top = session.send("DOM.querySelector", {"nodeId": root["nodeId"], "selector": selector})
        (inner,) = [node for node in _all(root) if node["nodeId"] == top["nodeId"]]
        fonts = []
        for node in _all(inner):
            # Of what has text of its own, or makes some.
            children = node.get("children", [])
            if node["nodeType"] != 1 or not (
                node.get("pseudoType")
                or node["localName"] in ("input", "textarea")
                or any(child["nodeType"] == 3 and child["nodeValue"].strip() for child in children)
            ):
                continue
            found = session.send("CSS.getPlatformFontsForNode", {"nodeId": node["nodeId"]})
            fonts += [{"node": _described(node), **font} for font in found["fonts"]]
        return fonts
    finally:
        session.detach()


def strange_fonts(page: Page, selector: str = "html") -> list[str]:
    """Where text is drawn with a font that the book does not bring, and which one that is."""
    return sorted(
        {
            f"{font['node']}: {font['familyName']}"
            for font in drawn_fonts(page, selector)
            if not (font["isCustomFont"] and font["familyName"].startswith(VENDORED))
        }
    )


def _all(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # The half of a formula that screen readers speak is drawn nowhere: it is clipped away.
    if "katex-mathml" in node.get("attributes", []):
        return
    yield node
    for part in ("children", "pseudoElements", "shadowRoots"):
        for child in node.get(part, ()):
            yield from _all(child)


def _described(node: dict[str, Any]) -> str:
    pairs = node.get("attributes", [])
    attributes = dict(zip(pairs[::2], pairs[1::2], strict=True))
    text = " ".join(
        child["nodeValue"].strip() for child in node.get("children", []) if child["nodeType"] == 3
    )
    kind = node.get("pseudoType", node["localName"])
    return f"{kind}.{attributes.get('class', '')} {text[:40]!r}"

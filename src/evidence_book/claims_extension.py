"""Sphinx extension: show held claims, check that every equation has one, and list them all.

A claim's cell puts data of the type `evidence.held_claim.MIME_TYPE` into its output. A renderer
makes a node of it, the nodes are collected over all pages, the collection is compared with the
numbered equations, and the ledger is written from it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import get_node_line

from evidence.held_claim import MIME_TYPE, Claim
from evidence_book.pages import is_notebook, read_page

logger = logging.getLogger(__name__)

DEFINITION_PREFIX = "def-"
# Inline code, mathematics and an escaped dollar sign, the only markup that a statement may hold.
INLINE_MARKUP = re.compile(r"\$(?P<math>(?:\\.|[^$\\])+)\$|`(?P<code>[^`]+)`|\\(?P<dollar>\$)")

SMALL_NUMBER = re.compile(r"([\d.]+e-\d+)")

CLAIM_CALL = re.compile(r"\bclaims\.\w+\(")


class ClaimNode(nodes.General, nodes.Element):
    """A held claim, at the place of the cell that made it."""


class LedgerNode(nodes.General, nodes.Element):
    """The place where the ledger is written."""


class ClaimNote(nodes.General, nodes.Element):
    """The line under a cell that says what was checked."""


class Disclosure(nodes.General, nodes.Element):
    """What opens at a click: a summary, then its children."""


class ClaimRenderer:
    """Turn the MIME data of a claim into a node (a plug-in of myst-nb)."""

    # Before the text and Markdown of the same output, for every builder.
    mime_priority_overrides: ClassVar = [("*", MIME_TYPE, 1)]

    @staticmethod
    def handle_mime(renderer: Any, data: Any, inline: bool) -> list[nodes.Element] | None:
        """Return the node for a claim, None for any other type."""
        if inline or data.mime_type != MIME_TYPE:
            return None
        node = ClaimNode()
        node["claim"] = Claim.from_dict(data.content).as_dict()
        node.source, node.line = renderer.source, data.line
        return [node]


class LedgerDirective(SphinxDirective):
    """``{ledger}``: every numbered equation of the book, with its claim."""

    def run(self) -> list[nodes.Node]:
        """Mark the page as the one that holds the ledger."""
        self.env.evidence_ledger = self.env.docname
        return [LedgerNode()]


def inline(text: str) -> list[nodes.Node]:
    """Parse ``$mathematics$`` and ```code``` in a line of text into nodes."""
    found: list[nodes.Node] = []
    end = 0
    for match in INLINE_MARKUP.finditer(text):
        found.append(nodes.Text(text[end : match.start()]))
        if match["math"]:
            found.append(nodes.math(match["math"], match["math"]))
        elif match["dollar"]:
            found.append(nodes.Text("$"))
        else:
            found.append(nodes.literal(match["code"], match["code"]))
        end = match.end()
    found.append(nodes.Text(text[end:]))
    return [node for node in found if node.astext()]


def unbroken(text: str) -> list[nodes.Node]:
    """Return text in which no line ends within a number such as 1.0e-09."""
    parts = SMALL_NUMBER.split(text)
    return [
        nodes.inline("", part, classes=["unbroken"]) if index % 2 else nodes.Text(part)
        for index, part in enumerate(parts)
    ]


def ledger_anchor(label: str) -> str:
    """Return the identifier of an equation's row in the ledger."""
    return f"ledger-{label}"


def claim_anchor(label: str) -> str:
    """Return the identifier of a claim on its page."""
    return f"claim-{label}"


def collected(env: BuildEnvironment) -> dict[str, list[dict[str, Any]]]:
    """Return the claims of every page: docname to a list of claims with the line of their cell."""
    if not hasattr(env, "evidence_claims"):
        env.evidence_claims = {}
    return env.evidence_claims


def forget_page(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop the claims of a page that is about to be read again."""
    collected(env).pop(docname, None)
    if getattr(env, "evidence_ledger", None) == docname:
        del env.evidence_ledger


def merge_pages(
    app: Sphinx, env: BuildEnvironment, docnames: Iterable[str], other: BuildEnvironment
) -> None:
    """Take over the claims of pages that another process has read."""
    for docname in docnames:
        if docname in collected(other):
            collected(env)[docname] = collected(other)[docname]
    if hasattr(other, "evidence_ledger"):
        env.evidence_ledger = other.evidence_ledger


def collect_page(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the claims of a page that was read."""
    collected(app.env)[app.env.docname] = [
        {"line": get_node_line(node), **node["claim"]} for node in doctree.findall(ClaimNode)
    ]


def check_claims(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Compare the equations of all pages with their claims; return the ledger to be rewritten.

    Runs in every build, also in one that has read nothing, so a fault is reported until mended.
    """
    equations = env.get_domain("math").equations
    claimed: dict[str, str] = {}
    for docname, claims in collected(env).items():
        for claim in claims:
            label, where = claim["label"], (docname, claim["line"])
            if label in claimed:
                logger.warning(
                    "equation %r is claimed more than once (also in %s)",
                    label, claimed[label], location=where, type="evidence", subtype="claim",
                )  # fmt: skip
            claimed.setdefault(label, docname)
            if label not in equations:
                logger.warning(
                    "claim %r has no equation of that label",
                    label, location=where, type="evidence", subtype="claim",
                )  # fmt: skip
            elif equations[label][0] != docname:
                logger.warning(
                    "claim %r stands on another page than its equation (%s)",
                    label, equations[label][0], location=where, type="evidence", subtype="claim",
                )  # fmt: skip
    for label, (docname, _) in equations.items():
        if not label.startswith(DEFINITION_PREFIX) and label not in claimed:
            remedy = f"add one to its page (a definition is labelled '{DEFINITION_PREFIX}…')"
            if _is_named_in_a_cell(label, Path(env.doc2path(docname))):
                remedy = "a cell of its page makes one, which must be the cell's last expression"
            logger.warning(
                "equation %r has no claim: %s", label, remedy,
                location=docname, type="evidence", subtype="claim",
            )  # fmt: skip
    return [env.evidence_ledger] if hasattr(env, "evidence_ledger") else []


def _is_named_in_a_cell(label: str, page: Path) -> bool:
    """Tell whether a cell with a call of `claims` names a label, and so would claim it."""
    if not is_notebook(page):
        return False
    cells = [cell.source for cell in read_page(page).cells if cell.cell_type == "code"]
    named = re.compile(rf"""(["']){re.escape(label)}\1""")
    return any(named.search(source) and CLAIM_CALL.search(source) for source in cells)


def resolve_page(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace claims and the ledger by what is shown."""
    for node in list(doctree.findall(ClaimNode)):
        node.replace_self(_claim_note(app, docname, Claim.from_dict(node["claim"])))
    for node in list(doctree.findall(LedgerNode)):
        node.replace_self(_ledger(app, docname))


def _equation_reference(app: Sphinx, docname: str, label: str) -> nodes.Node:
    env = app.env
    domain = env.get_domain("math")
    contnode = nodes.literal(label, label)
    resolved = domain.resolve_xref(
        env, docname, app.builder, "eq", label, nodes.Element(refexplicit=False), contnode
    )
    if resolved is None:  # check_claims has warned of it
        return contnode
    return resolved


def _link(app: Sphinx, docname: str, target: str, anchor: str, text: str) -> nodes.reference:
    uri = app.builder.get_relative_uri(docname, target) if target != docname else ""
    reference = nodes.reference("", text, internal=True, refuri=f"{uri}#{anchor}")
    reference["classes"].append("claim-link")
    return reference


def _rejections(claim: Claim) -> nodes.bullet_list:
    items = nodes.bullet_list()
    for wrong in claim.rejected:
        paragraph = nodes.paragraph("", "", *inline(wrong.name))
        paragraph += unbroken(f": {claim.describe_rejection(wrong)}")
        items += nodes.list_item("", paragraph)
    return items


def _claim_note(app: Sphinx, docname: str, claim: Claim) -> ClaimNote:
    note = ClaimNote(kind=claim.kind, anchor=claim_anchor(claim.label))
    line = nodes.paragraph(classes=["claim-line"])
    line += nodes.inline("", "Checked ", classes=["claim-verdict"])
    line += _equation_reference(app, docname, claim.label)
    line += nodes.Text(": ")
    line += inline(claim.statement)
    line += unbroken(f"; {claim.figure}, {claim.scope}. ")
    ledger = getattr(app.env, "evidence_ledger", None)
    if ledger:
        line += _link(app, docname, ledger, ledger_anchor(claim.label), "Ledger")
    note += line
    count = len(claim.rejected)
    details = Disclosure(summary=f"{count} wrong version{'s' if count > 1 else ''} rejected")
    details += _rejections(claim)
    note += details
    return note


def _ledger(app: Sphinx, docname: str) -> list[nodes.Node]:
    env = app.env
    order = [d for d in _reading_order(env) if collected(env).get(d)]
    total = [claim for d in order for claim in collected(env)[d]]
    wrong = sum(len(claim["rejected"]) for claim in total)
    kinds = ", ".join(
        f"{sum(c['kind'] == kind for c in total)} {kind}"
        for kind in ("exact", "bound", "estimate", "measured")
        if any(c["kind"] == kind for c in total)
    )
    summary = nodes.paragraph(
        "", f"{len(total)} equations are claimed ({kinds}), and {wrong} wrong versions rejected."
    )
    result: list[nodes.Node] = [summary]
    for page in order:
        section = nodes.section(ids=[f"ledger-of-{nodes.make_id(page)}"])
        title = nodes.title()
        reference = nodes.reference("", "", internal=True)
        reference["refuri"] = app.builder.get_relative_uri(docname, page)
        reference += [child.deepcopy() for child in env.titles[page].children]
        title += reference
        section += title
        section += _table(app, docname, page)
        result.append(section)
    return result


def _table(app: Sphinx, docname: str, page: str) -> nodes.Element:
    heads = ("Eq.", "What holds", "Kind", "Figure", "Over", "Wrong versions, rejected")
    widths = (7, 33, 9, 14, 10, 27)
    table = nodes.table(classes=["ledger"])
    group = nodes.tgroup(cols=len(heads))
    group += [nodes.colspec(colwidth=width) for width in widths]
    table += group
    row = nodes.row()
    row += [nodes.entry("", nodes.paragraph("", head)) for head in heads]
    group += nodes.thead("", row)
    body = nodes.tbody()
    group += body
    for data in collected(app.env)[page]:
        claim = Claim.from_dict({key: value for key, value in data.items() if key != "line"})
        row = nodes.row(ids=[ledger_anchor(claim.label)])
        back = _link(app, docname, page, claim_anchor(claim.label), "cell")
        row += nodes.entry(
            "",
            nodes.paragraph("", "", _equation_reference(app, docname, claim.label)),
            nodes.paragraph("", "", back),
        )
        row += nodes.entry("", nodes.paragraph("", "", *inline(claim.statement)))
        for text in (claim.kind, claim.figure, claim.scope):
            row += nodes.entry("", nodes.paragraph("", "", *unbroken(text)))
        row += nodes.entry("", _rejections(claim))
        body += row
    container = nodes.container(classes=["ledger-scroll"])
    container += table
    return container


def _reading_order(env: BuildEnvironment) -> list[str]:
    order, seen = [], set()

    def visit(docname: str) -> None:
        if docname in seen:
            return
        seen.add(docname)
        order.append(docname)
        for child in env.toctree_includes.get(docname, []):
            visit(child)

    visit(env.config.root_doc)
    return order


def visit_note(translator: Any, node: ClaimNote) -> None:
    """Open the note of a claim (HTML)."""
    anchor, kind = html.escape(node["anchor"]), html.escape(node["kind"])
    translator.body.append(f'<div class="claim claim-{kind}" id="{anchor}">')


def depart_note(translator: Any, node: ClaimNote) -> None:
    """Close the note of a claim (HTML)."""
    translator.body.append("</div>\n")


def visit_disclosure(translator: Any, node: Disclosure) -> None:
    """Open what opens at a click (HTML)."""
    summary = html.escape(node["summary"])
    translator.body.append(f'<details class="claim-rejected"><summary>{summary}</summary>')


def depart_disclosure(translator: Any, node: Disclosure) -> None:
    """Close what opens at a click (HTML)."""
    translator.body.append("</details>\n")


def pass_through(translator: Any, node: nodes.Element) -> None:
    """Show the children alone (print and text)."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register nodes, the directive and the check."""
    plain = (pass_through, pass_through)
    app.add_node(ClaimNote, html=(visit_note, depart_note), latex=plain, text=plain)
    app.add_node(Disclosure, html=(visit_disclosure, depart_disclosure), latex=plain, text=plain)
    app.add_directive("ledger", LedgerDirective)
    app.connect("env-purge-doc", forget_page)
    app.connect("env-merge-info", merge_pages)
    app.connect("doctree-read", collect_page)
    app.connect("env-updated", check_claims)
    app.connect("doctree-resolved", resolve_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}

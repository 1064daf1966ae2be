r"""Sphinx extension: equations whose terms are named, coloured and explained.

A page names a term of an equation by a brace, ``\underbrace{…}_{\text{rate}}`` or the same with
``\overbrace{…}^{…}``, and explains every name in the list right below, ``- **rate**: …``. That is
plain LaTeX and plain Markdown, and reads the same wherever a page is read. In the book a term and
its explanation share a colour, and point at each other.

A named brace without a list right below is a remark, and is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number
from sphinx.util.nodes import get_node_line
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# As many colours as stay apart for most of the colour-blind, on a light page and on a dark one.
MOST_TERMS = 4
BRACE = re.compile(r"\\(?P<side>under|over)brace\s*(?=\{)")
SIDES = {"under": "_", "over": "^"}
# A name consists of words, without mathematics.
LABEL = re.compile(
    r"\s*(?P<side>[_^])\s*(?P<group>\{\s*)?\\text\s*\{(?P<name>[^{}$\\]+)\}(?(group)\s*\})"
)


@dataclass(frozen=True)
class NamedBrace:
    """A brace of an equation that has a name: where its TeX starts, where it ends, the name."""

    start: int
    end: int
    name: str


class AnnotatedEquation(nodes.General, nodes.Element):
    """An equation, then the list of its terms."""


class TermList(nodes.General, nodes.Element):
    """The explanations of all terms."""


class Term(nodes.General, nodes.Element):
    """The explanation of one term."""


class TermName(nodes.Inline, nodes.Element):
    """The name that an explanation starts with."""


def group_end(latex: str, start: int) -> int | None:
    r"""Return the place behind the group that opens at ``latex[start]``, None if it never closes.

    Escaped braces, ``\{`` and ``\}``, open and close nothing.
    """
    depth, position = 0, start
    while position < len(latex):
        if latex[position] == "\\":
            position += 1
        elif latex[position] == "{":
            depth += 1
        elif latex[position] == "}":
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return None


def named_braces(latex: str) -> Iterator[NamedBrace]:
    r"""Find the braces of an equation whose label is ``\text{…}`` alone, in words.

    Parameters
    ----------
    latex : str
        The TeX of the equation.

    Yields
    ------
    NamedBrace
        One for each, in the order in which they open; a brace may lie within another.
    """
    for match in BRACE.finditer(latex):
        body_end = group_end(latex, match.end())
        if body_end is None:  # bad TeX, of which the renderer warns
            continue
        label = LABEL.match(latex, body_end)
        if label and label["side"] == SIDES[match["side"]]:
            name = one_line(label["name"].replace("~", " "))
            yield NamedBrace(match.start(), label.end(), name)


def one_line(text: str) -> str:
    """Return text with single spaces, and with the apostrophe that is typed."""
    return " ".join(text.replace("’", "'").split())


def with_term_classes(latex: str, numbers: dict[str, int]) -> str:
    r"""Wrap every named brace in ``\htmlClass``, so that a style sheet finds it.

    Parameters
    ----------
    latex : str
        The TeX of the equation.
    numbers : dict of str to int
        The number of each name.

    Returns
    -------
    str
        TeX that only KaTeX understands, and only where it is trusted.
    """
    inserted = []
    for brace in named_braces(latex):
        # Where one term ends and the next starts at once, the end comes first.
        inserted.append((brace.end, 0, "}"))
        inserted.append((brace.start, 1, rf"\htmlClass{{term term-{numbers[brace.name]}}}{{"))
    for position, _, text in sorted(inserted, reverse=True):
        latex = latex[:position] + text + latex[position:]
    return latex


def annotate(app: Sphinx, doctree: nodes.document) -> None:
    """Join every equation that has named braces with the list right below it."""
    for equation in list(doctree.findall(nodes.math_block)):
        names = list(dict.fromkeys(brace.name for brace in named_braces(equation.astext())))
        if not names:
            continue
        below = equation.next_node(descend=False, siblings=True)
        if isinstance(below, nodes.bullet_list):
            _join(app, equation, below, names)
        else:
            _check_stray(equation, names)


def _join(
    app: Sphinx, equation: nodes.math_block, explanations: nodes.bullet_list, names: list[str]
) -> None:
    if not _is_explained(equation, explanations, names):
        return
    numbers = {name: number for number, name in enumerate(names, start=1)}
    page = app.env.new_serialno("annotated-equation")
    terms = TermList()
    for item in explanations:
        name = _name_of(item)
        _mark_name(item)
        terms += Term("", *item.children, name=name, number=numbers[name])
        terms[-1]["anchor"] = f"equation-terms-{page}-{numbers[name]}"
    equation["drawn"] = with_term_classes(equation.astext(), numbers)
    annotated = AnnotatedEquation()
    annotated.source, annotated.line = equation.source, equation.line
    explanations.replace_self(annotated)
    # The target of links to the equation stands right before it.
    before = equation.parent[equation.parent.index(equation) - 1]
    moved = [before, equation] if isinstance(before, nodes.target) else [equation]
    for node in moved:
        node.parent.remove(node)
    annotated += [*moved, terms]


def _is_explained(
    equation: nodes.math_block, explanations: nodes.bullet_list, names: list[str]
) -> bool:
    """Warn of every name and every item of the list that stands alone; tell if there was none."""
    explained = [_name_of(item) for item in explanations]
    known = [name for name in explained if name is not None]
    faults = [
        *(f"the term {name!r} has no explanation" for name in names if name not in known),
        *(
            f"{name!r} is explained and no brace has that name"
            for name in known
            if name not in names
        ),
        *(
            f"the item {one_line(item.astext())[:30]!r} starts with no name of a term"
            for item, name in zip(explanations, explained, strict=True)
            if name is None
        ),
        *(f"{name!r} is explained more than once" for name in names if known.count(name) > 1),
    ]
    if len(names) > MOST_TERMS:
        faults.append(f"{len(names)} terms are named, and {MOST_TERMS} are accepted")
    if faults:
        _warn(
            explanations, equation,
            f"{'; '.join(faults)}. Its braces name {_listed(names)}: the list right below has one "
            f"item for each, `- **{names[0]}**: …` (a sentence goes before a list of other things)",
        )  # fmt: skip
    return not faults


def _check_stray(equation: nodes.math_block, names: list[str]) -> None:
    """Warn where prose stands between an equation and the list that explains its terms."""
    for below in equation.findall(descend=False, siblings=True):
        if isinstance(below, nodes.bullet_list):
            found = [name for name in map(_name_of, below) if name in names]
            if found:
                _warn(
                    below, equation,
                    f"the list that explains {_listed(found)} does not stand right below it",
                )  # fmt: skip
            return
        if below is not equation and not isinstance(below, nodes.paragraph):
            return


def _warn(node: nodes.Element, equation: nodes.math_block, fault: str) -> None:
    logger.warning(
        "equation %r: %s", equation.get("label") or one_line(equation.astext())[:30], fault,
        location=(equation.document.settings.env.docname, get_node_line(node)),
        type="evidence", subtype="annotation",
    )  # fmt: skip


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _start_of(item: nodes.list_item) -> tuple[nodes.strong, nodes.Text] | None:
    """Return the name in bold that an item starts with, and the text from its colon on."""
    if not item.children or not isinstance(item[0], nodes.paragraph):
        return None
    # The parser puts empty texts between what it finds.
    children = [child for child in item[0] if child.astext()]
    if len(children) < 2 or not isinstance(children[0], nodes.strong):
        return None
    name, text = children[:2]
    if not isinstance(text, nodes.Text) or not text.lstrip().startswith(":"):
        return None
    return name, text


def _name_of(item: nodes.list_item) -> str | None:
    start = _start_of(item)
    return start and one_line(start[0].astext())


def _mark_name(item: nodes.list_item) -> None:
    """Set the name of a term and its colon apart, for HTML writes it elsewhere."""
    name, text = _start_of(item)
    paragraph = item[0]
    explanation = nodes.Text(text.lstrip().removeprefix(":").lstrip())
    paragraph.replace(text, explanation)
    paragraph.replace(name, TermName("", name, nodes.Text(": ")))


def visit_equation(translator: HTML5Translator, node: AnnotatedEquation) -> None:
    """Open an annotated equation (HTML)."""
    equation = next(node.findall(nodes.math_block))
    number = ""
    if equation["number"]:
        number = f" ({get_node_equation_number(translator, equation)})"
    label = translator.attval(f"Equation{number} and its terms")
    translator.body.append(f'<div class="annotated" role="group" aria-label="{label}">\n')


def visit_terms(translator: HTML5Translator, node: TermList) -> None:
    """Open the list of terms (HTML)."""
    translator.body.append('<dl class="terms">\n')


def visit_term(translator: HTML5Translator, node: Term) -> None:
    """Open the explanation of a term: its name is a button, which the keyboard reaches (HTML)."""
    number, anchor = node["number"], node["anchor"]
    translator.body.append(
        f'<div class="term term-{number}"><dt><button type="button" aria-describedby="{anchor}">'
        f'{translator.encode(node["name"])}</button></dt>\n<dd id="{anchor}">'
    )


def depart_term(translator: HTML5Translator, node: Term) -> None:
    """Close the explanation of a term (HTML)."""
    translator.body.append("</dd></div>\n")


def skip_name(translator: HTML5Translator, node: TermName) -> None:
    """Write no name: it stands on the button (HTML)."""
    raise nodes.SkipNode


def depart_terms(translator: HTML5Translator, node: TermList) -> None:
    """Close the list of terms (HTML)."""
    translator.body.append("</dl>\n")


def depart_equation(translator: HTML5Translator, node: AnnotatedEquation) -> None:
    """Close an annotated equation (HTML)."""
    translator.body.append("</div>\n")


def pass_through(translator: Any, node: nodes.Element) -> None:
    """Show the children alone (other builders)."""


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the nodes and the check."""
    plain = (pass_through, pass_through)
    for node, html in (
        (AnnotatedEquation, (visit_equation, depart_equation)),
        (TermList, (visit_terms, depart_terms)),
        (Term, (visit_term, depart_term)),
        (TermName, (skip_name, None)),
    ):
        app.add_node(node, html=html, latex=plain, text=plain)
    app.connect("doctree-read", annotate)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}

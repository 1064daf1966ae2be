"""What becomes of formulas within lines (bad TeX: test_claims_extension)."""

import pytest
from docutils import nodes
from docutils.utils import new_document

from evidence_book.math_extension import join_punctuation


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("As $a$, so $b$.", "As [$a$,] so [$b$.]"),
        ("Both ($a$) and (with $b$); “$c$”", "Both [($a$)] and (with [$b$);] [“$c$”]"),
        ("$a$’s sum: of $b$such", "[$a$’s] sum: of $b$such"),
        ("$a$ ($b$)($c$)", "$a$ [($b$)][($c$)]"),
        ("$a$", "$a$"),
    ],
)
def test_a_formula_stays_with_its_punctuation(line, expected):
    document = new_document("page")
    # Every second part stands between dollars.
    parts = line.split("$")
    children = [
        nodes.math("", text) if i % 2 else nodes.Text(text) for i, text in enumerate(parts) if text
    ]
    document += nodes.paragraph("", "", *children)
    join_punctuation(None, document, "page")
    assert written(document[0]) == expected


def written(node):
    if isinstance(node, nodes.Text):
        return str(node)
    inside = "".join(map(written, node.children))
    if isinstance(node, nodes.math):
        return f"${inside}$"
    if isinstance(node, nodes.inline):
        assert node["classes"] == ["unbroken"]
        return f"[{inside}]"
    return inside

"""What the build makes of equations with named braces, and what it says of their faults."""

import os
import re
from unittest import mock

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from small_book import SmallBook, claim, code, equation

from evidence_book.annotation_extension import group_end, named_braces, with_term_classes

RATE = r"a = \underbrace{\frac{b}{c}}_{\text{fit}} - \underbrace{d}_{\text{the rate}}"
THREE = r"\overbrace{x}^{\text{sea}}\underbrace{y}_{\text{reader's}} + \underbrace{z}_\text{sea}"
TERMS = "- **fit**: how well $x$ fits.\n\n  And more.\n- **the rate**: see [it](ledger.md).\n"


@pytest.fixture(autouse=True)
def environment():
    with mock.patch.dict(os.environ):
        yield


# --- the TeX of an equation --------------------------------------------------------------------


def found(latex):
    return [(latex[brace.start : brace.end], brace.name) for brace in named_braces(latex)]


@pytest.mark.parametrize(
    ("latex", "name"),
    [
        (r"\underbrace{x}_{\text{fit}}", "fit"),
        (r"\overbrace{x}^{\text{fit}}", "fit"),
        (r"\underbrace{x}_\text{fit}", "fit"),
        (r"\underbrace {x} _ { \text {the  fit} }", "the fit"),
        (r"\underbrace{x}_{\text{the~fit}}", "the fit"),
        (r"\underbrace{\{x\}, \frac{a}{b}, \left\{}_{\text{fit}}", "fit"),
    ],
)
def test_a_brace_has_the_name_that_its_label_is(latex, name):
    assert found(rf"a + {latex} + c") == [(latex, name)]


@pytest.mark.parametrize(
    "latex",
    [
        r"\underbrace{x}",
        r"\underbrace{x}_{n}",
        r"\underbrace{x}^{\text{fit}}",
        r"\overbrace{x}_{\text{fit}}",
        r"\underbrace{x}_{\text{constant in } \phi}",
        r"\underbrace{x}_{\text{of $x$}}",
        r"\underbrace{x}_{\mathrm{fit}}",
        r"\underbrace{x_{\text{fit}}",
        r"x_{\text{fit}}",
    ],
)
def test_any_other_label_is_no_name(latex):
    assert found(latex) == []


def test_a_brace_may_lie_within_another():
    inner = r"\underbrace{b}_{\text{in}}"
    outer = rf"\underbrace{{a + {inner}}}_{{\text{{out}}}}"
    assert found(outer) == [(outer, "out"), (inner, "in")]
    assert with_term_classes(outer, {"out": 1, "in": 2}) == (
        r"\htmlClass{term term-1}{\underbrace{a + \htmlClass{term term-2}{"
        + inner
        + r"}}_{\text{out}}}"
    )


PIECES = st.sampled_from(
    (
        *("x", " ", "{", "}", r"\{", r"\}", "\\\\", "_", "^", r"\text{fit}"),
        *(r"\underbrace", r"\overbrace"),
        *(r"\underbrace{x}_{\text{fit}}", r"\overbrace{y}^{\text{rate}}"),
    )
)


@given(st.lists(PIECES, max_size=25).map("".join))
def test_classes_enclose_the_terms_and_leave_the_tex_as_it_is(latex):
    marked = with_term_classes(latex, {"fit": 1, "rate": 2})
    enclosed = []
    # From the last on, so that what one encloses holds no other.
    for match in reversed(list(re.finditer(r"\\htmlClass\{term (term-\d)\}", marked))):
        end = group_end(marked, match.end())
        inner = marked[match.end() + 1 : end - 1]
        enclosed.insert(0, (inner, {"term-1": "fit", "term-2": "rate"}[match[1]]))
        marked = marked[: match.start()] + inner + marked[end:]
    assert marked == latex
    assert enclosed == found(latex)


# --- a page ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    parts = [
        equation("eq-rate", RATE), TERMS, code("1"),
        # The same equation, followed by prose: its braces hold remarks.
        equation("def-plain", RATE), "Prose.\n\n- **fit** and more\n- a list\n",
        "$$\n" + THREE + "\n$$\n",
        "- **reader's**: first.\n- **sea**: second.\n",
        "See {eq}`eq-rate`.",
    ]  # fmt: skip
    book = SmallBook(tmp_path_factory.mktemp("annotation"), {"one": parts})
    book.keep_outputs("one", claim("eq-rate"))
    assert book.main("build") == 0
    return BeautifulSoup(book.html("one"), "html.parser")


def test_an_equation_and_its_terms_are_one_group(page):
    first, second = page.select(".annotated")
    assert first["role"] == "group"
    assert first["aria-label"] == "Equation (1.1) and its terms"
    assert second["aria-label"] == "Equation and its terms"
    entries = first.select("dl.terms > div.term")
    assert [entry.dt.button.get_text() for entry in entries] == ["fit", "the rate"]
    assert [entry["class"] for entry in entries] == [["term", "term-1"], ["term", "term-2"]]
    # No colon is left of the list.
    assert [p.get_text()[:8] for p in entries[0].select("dd > p")] == ["how well", "And more"]
    assert entries[1].dd.a["href"] == "ledger.html"
    for entry in first.select(".term > dt > button") + second.select(".term > dt > button"):
        assert entry["type"] == "button"
        (described,) = page.find_all(id=entry["aria-describedby"])
        assert described is entry.find_parent("div").dd


def test_a_drawn_term_has_the_class_of_its_explanation(page):
    first, second = page.select(".annotated")
    for name, number in (("fit", 1), ("rate", 2)):
        (drawn,) = first.select(f".katex-html .term-{number}")
        assert name in drawn.get_text()
    # Numbered as the equation names them, not as the list does; two braces may share a name.
    assert [drawn["class"][-1] for drawn in second.select(".katex-html .term")] == [
        "term-1", "term-2", "term-1",
    ]  # fmt: skip
    assert [entry["class"][-1] for entry in second.select("dl .term")] == ["term-2", "term-1"]


def test_only_the_drawn_half_knows_of_it(page):
    annotated, plain = (page.find(id=f"equation-{label}") for label in ("eq-rate", "def-plain"))
    assert (
        annotated.select_one(".katex-mathml").decode() == plain.select_one(".katex-mathml").decode()
    )
    # The names are there for a screen reader, below what they name.
    assert [text.get_text() for text in annotated.select("munder > mtext")] == [
        "fit",
        "the\xa0rate",
    ]
    # What is drawn differs by the classes alone, so letters keep their distances.
    drawn = annotated.select_one(".katex-html")
    for term in drawn.select(".term"):
        term.unwrap()
    assert drawn.decode() == plain.select_one(".katex-html").decode()
    # Nothing within can be focused, for it is hidden.
    assert page.select(".katex-html :is(a, button, [tabindex])") == []


def test_it_stays_a_numbered_equation_with_its_claim(page):
    equation = page.select_one(".annotated > div.math#equation-eq-rate")
    assert equation.select_one(".eqno").get_text().startswith("(1.1)")
    assert page.select_one("#claim-eq-rate a")["href"] == "#equation-eq-rate"
    assert page.find("a", string="(1.1)")


def test_a_list_elsewhere_is_a_list(page):
    items = [item.get_text().strip() for item in page.select("article section > ul > li")]
    assert items == ["fit and more", "a list"]


# --- faults ------------------------------------------------------------------------------------

BRACES = "+".join(rf"\underbrace{{x}}_{{\text{{{name}}}}}" for name in "abcde")
FAULTS = {
    "def-lost": (
        equation("def-lost", RATE) + "\n- **fit**: first.\n- **rates**: second.\n",
        r"equation 'def-lost': the term 'the rate' has no explanation; "
        r"'rates' is explained and no brace has that name\. Its braces name 'fit', 'the rate'",
    ),
    "def-twice": (
        equation("def-twice", RATE) + "\n- **fit**: a.\n- **the rate**: b.\n- **fit**: c.\n",
        r"equation 'def-twice': 'fit' is explained more than once",
    ),
    "def-bare": (
        equation("def-bare", RATE) + "\n- **fit**: a.\n- **the rate** b.\n- the rate: c.\n",
        r"equation 'def-bare': the term 'the rate' has no explanation; "
        r"the item 'the rate b\.' starts with no name of a term; the item 'the rate: c\.' starts",
    ),
    "def-far": (
        equation("def-far", RATE) + "\nwhere\n\n" + TERMS,
        r"equation 'def-far': the list that explains 'fit', 'the rate' does not stand right below",
    ),
    "def-many": (
        equation("def-many", BRACES) + "\n" + "".join(f"- **{name}**: x\n" for name in "abcde"),
        r"equation 'def-many': 5 terms are named, and 4 are accepted",
    ),
    "trusted": (
        "$$\n" + r"\underbrace{\href{https://example.org}{x}}_{\text{a}}" + "\n$$\n\n- **a**: x\n",
        r"bad TeX: links, pictures and the like are not accepted",
    ),
    "class": (
        "$$\n" + r"\underbrace{\htmlClass{b}{x}}_{\text{a}}" + "\n$$\n\n- **a**: x\n",
        r"bad TeX: .*HTML extension is disabled",
    ),
}  # fmt: skip


def test_every_fault_fails_the_build_and_names_both_sides(tmp_path, capsys):
    # A code cell between them, for only prose may stand between a list and what it explains.
    parts = [text for part, _ in FAULTS.values() for text in (part, code("1"))]
    book = SmallBook(tmp_path, {"one": parts})
    book.keep_outputs("one", *[None] * len(FAULTS))
    assert book.main("build") == 1
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)
    for name, (_, fault) in FAULTS.items():
        assert re.search(rf"one\.md:\d+: WARNING: {fault}", said), f"{name}:\n{said}"
    assert said.count("WARNING") == len(FAULTS)

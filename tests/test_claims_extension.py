"""What the build makes of claims: notes, the ledger, and a failure wherever one is missing.

The pages are not executed: their cells are given claims as if these had held.
"""

import base64
import contextlib
import io
import os
import re
from types import SimpleNamespace
from unittest import mock

import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from small_book import SmallBook, claim, code, equation

from evidence.claims import Rejection
from evidence_book.claims_extension import inline, merge_pages

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()
PICTURE = {"image/png": PIXEL, "text/plain": "<Figure>"}
ALT = "mystnb:\n  image:\n    alt: A dot"


@pytest.fixture(autouse=True)
def environment():
    with mock.patch.dict(os.environ):
        yield


HELD = claim(
    "eq-a",
    r"the norm $\lVert x \rVert$ is `x < y` for \$5",
    kind="bound",
    measure="slack",
    value=0.125,
    cases=77,
    rejected=(Rejection("doubled $2x$", 3.0), Rejection("halved", 0.5)),
)


def good_book(root):
    """Two pages, one in a folder, all of whose equations are claimed."""
    book = SmallBook(
        root,
        {
            "one": [equation("eq-a"), equation("def-b"), code("a()"), code("plot()", options=ALT)],
            "part/two": [equation("eq-c", "c = d"), code("c()"), "See {eq}`eq-a`, {eq}`eq-c`."],
        },
    )
    book.keep_outputs("one", HELD, PICTURE)
    book.keep_outputs("part/two", claim("eq-c"))
    return book


@pytest.fixture
def book(tmp_path):
    """A good book, to change."""
    return good_book(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A good book that is built, and what the build said of it."""
    book, said = good_book(tmp_path_factory.mktemp("built")), io.StringIO()
    with mock.patch.dict(os.environ), contextlib.redirect_stderr(said):
        assert book.main("build") == 0
    return book, said.getvalue()


def messages(capsys) -> str:
    """Return the warnings of a build, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)


def soup(book, name):
    return BeautifulSoup(book.html(name), "html.parser")


# --- faults ------------------------------------------------------------------------------------

# Pages of faults: their parts, and the results of their cells.
# Claims that no cell shows.
HIDDEN = ("loop", "list", "quiet", "kept", "first")
FAULTY_PAGES = {
    "far": ([equation("eq-far")], []),
    "claims": (
        [
            *(equation(label) for label in ("eq-new", "kl", "def-d", "eq-twice")),
            *(code(f"cell({number})") for number in range(5)),
        ],
        [claim(f"eq-{name}") for name in ("gone", "d", "far", "twice", "twice")],
    ),
    "places": (
        [
            *(
                equation(f"eq-{name}")
                for name in ("loop", "list", "quiet", "kept", "first", "told")
            ),
            code("for label in ['eq-loop']:\n    claims.exact(label, 'a', left=1, right=1)"),
            code('[claims.exact("eq-list", "a", left=1, right=1)]'),
            code("claims.bound('eq-quiet', 'a', lower=1, upper=1);"),
            code("kept = claims.exact(\n    'eq-kept', 'a', left=1, right=1\n)"),
            code("claims.exact('eq-first', 'a', left=1, right=1)\n1"),
            # No claim is made of the label that is only told of, nor of one that it begins.
            code("'eq-told'"),
            code("claims.exact('eq-told-more', 'a', left=1, right=1)"),
        ],
        [None] * 7,
    ),
    "looks": (
        [
            equation("def-half", r"\frac{1}"),
            r"The $\nosuch$ rule.",
            "![](images/favicon.svg)",
            "```{figure} images/favicon.svg\nText\n```",
            code("plot()"),
            equation("eq-said"),
            code("said()"),
        ],
        [PICTURE, claim("eq-said", r"the $\unheard{x}$ holds")],
    ),
}
SAID_OF_THEM = [
    r"claims\.md: .*equation 'eq-new' has no claim",
    r"claims\.md: .*equation 'kl' has no claim",
    r"claims\.md:\d+: .*claim 'eq-gone' has no equation of that label",
    r"claims\.md:\d+: .*claim 'eq-d' has no equation of that label",
    r"claims\.md:\d+: .*'eq-far' stands on another page than its equation \(book/far\)",
    r"claims\.md:\d+: .*equation 'eq-twice' is claimed more than once",
    *(
        rf"places\.md: .*equation 'eq-{name}' has no claim: a cell .* must be the cell's last expr"
        for name in HIDDEN
    ),
    r"places\.md: .*equation 'eq-told' has no claim: add one to its page .*'def-…'",
    r"looks\.md:\d+: .*bad TeX: .*\n.*\\frac",
    r"looks\.md:\d+: .*bad TeX: .*\\nosuch",
    r"looks\.md:\d+: .*bad TeX: .*\\unheard",
    r"ledger\.md:\d+: .*bad TeX: .*\\unheard",
    *[r"looks\.md:\d+: .*a picture has no alternative text"] * 3,
]


def test_every_fault_fails_the_build_and_fails_it_again_until_mended(tmp_path, capsys):
    book = SmallBook(tmp_path, {name: parts for name, (parts, _) in FAULTY_PAGES.items()})
    for name, (_, results) in FAULTY_PAGES.items():
        book.keep_outputs(name, *results)
    for attempt in ("first", "second"):
        assert book.main("build") == 1
        found = messages(capsys)
        missed = [said for said in SAID_OF_THEM if not re.search(said, found)]
        assert missed == [], f"{attempt} build:\n{found}"
        # Nothing else: a definition needs no claim.
        assert len(re.findall("WARNING|ERROR", found)) == len(SAID_OF_THEM)

    book.contents(["claims"])
    book.page("claims", equation("eq-new"), code("cell()"))
    book.keep_outputs("claims", claim("eq-new"))
    assert book.main("build") == 0
    assert messages(capsys) == ""


# --- what is shown ------------------------------------------------------------------------------


def test_good_book_shows_each_claim_below_its_cell(built):
    book, said = built
    assert "WARNING" not in said
    page = soup(book, "part/two")
    note = page.find(id="claim-eq-c")
    text = " ".join(note.get_text().split())
    assert "both sides agree" in text
    assert "largest error 2.5e-16 (allowed 1.0e-09), 1,234 cases" in text
    assert "1 wrong version rejected" in text
    assert "a sign flipped: error 0.75" in text
    equation_link, ledger_link = note.find_all("a")
    assert equation_link["href"] == "#equation-eq-c"
    assert equation_link.get_text() == "(2.1)"
    assert page.find(id="equation-eq-c")
    assert ledger_link["href"] == "../ledger.html#ledger-eq-c"
    # A plot beside the claims keeps its own output.
    assert soup(book, "one").find("img", alt="A dot")


def test_ledger_lists_every_claim_and_its_links_resolve(built):
    book, _ = built
    ledger = soup(book, "ledger")
    summary = "2 equations are claimed (1 exact, 1 bound), and 3 wrong versions rejected."
    assert summary in ledger.get_text()
    rows = ledger.select("table.ledger tbody tr")
    assert [row["id"] for row in rows] == ["ledger-eq-a", "ledger-eq-c"]

    links, statement, kind, figure, scope, wrong = rows[0].find_all("td")
    assert links.get_text(" ", strip=True) == "(1.1) cell"
    assert [link["href"] for link in links.find_all("a")] == [
        "one.html#equation-eq-a",
        "one.html#claim-eq-a",
    ]
    assert statement.find(class_="katex")
    assert statement.find("code").get_text() == "x < y"
    assert statement.get_text().strip().endswith("for $5")
    assert [cell.get_text(strip=True) for cell in (kind, figure, scope)] == [
        "bound",
        "smallest slack 0.125",
        "77 cases",
    ]
    assert [item.find(class_="katex") is not None for item in wrong.find_all("li")] == [True, False]
    assert wrong.find_all("li")[1].get_text(strip=True) == "halved: misses by 0.5"

    titles = [title.find("a") for title in ledger.select("article h2")]
    assert [title.get_text() for title in titles] == ["Page one", "Page part/two"]
    folder = book.root / "_build/html/book"
    targets = [link["href"] for row in rows for link in row.find_all("a")]
    targets += [title["href"] for title in titles]
    assert len(targets) == 6
    for target in targets:
        path, _, anchor = target.partition("#")
        page = BeautifulSoup((folder / path).read_text(encoding="utf-8"), "html.parser")
        assert not anchor or page.find(id=anchor), target


def test_ledger_follows_claims_although_its_page_did_not_change(book):
    assert book.main("build") == 0
    assert "ledger-eq-new" not in book.html("ledger")

    book.page("part/two", equation("eq-c"), code("c()"), equation("eq-new"), code("new()"))
    book.keep_outputs("part/two", claim("eq-c"), claim("eq-new", "a fresh one"))
    assert book.main("build") == 0
    assert "a fresh one" in soup(book, "ledger").find(id="ledger-eq-new").get_text()

    book.contents(["part/two"])
    book.page("part/two", equation("eq-c"), code("c()"))
    book.keep_outputs("part/two", claim("eq-c"))
    assert book.main("build") == 0
    rows = soup(book, "ledger").select("table.ledger tbody tr")
    assert [row["id"] for row in rows] == ["ledger-eq-c"]


def test_book_may_lose_its_ledger(book):
    assert book.main("build") == 0
    toc = (book.root / "_toc.yml").read_text(encoding="utf-8")
    book.write("_toc.yml", toc.replace("file: book/ledger", "file: book/after"))
    book.write("book/after.md", "# After\n\nThe end.\n")
    assert book.main("build") == 0


# --- parts --------------------------------------------------------------------------------------


def test_inline_markup_of_a_statement():
    found = inline(r"for \$5, $a \$ b$ and `c_$` < d")
    assert [type(node) for node in found] == [
        nodes.Text, nodes.Text, nodes.Text, nodes.math, nodes.Text, nodes.literal, nodes.Text,
    ]  # fmt: skip
    assert "".join(node.astext() for node in found) == r"for $5, a \$ b and c_$ < d"


def test_claims_of_pages_read_by_another_process_are_kept():
    here = SimpleNamespace(evidence_claims={"one": ["kept"], "two": ["old"]})
    there = SimpleNamespace(evidence_claims={"two": ["new"]}, evidence_ledger="ledger")
    merge_pages(None, here, ["two", "ledger"], there)
    assert here.evidence_claims == {"one": ["kept"], "two": ["new"]}
    assert here.evidence_ledger == "ledger"

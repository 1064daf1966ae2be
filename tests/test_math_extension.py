"""How formulas are rendered, and what becomes of them (bad TeX: test_claims_extension)."""

import html
import json
import multiprocessing
import os
import re

import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document
from small_book import SmallBook
from sphinxcontrib.katex import KaTeXError

from evidence_book import math_extension
from evidence_book.math_extension import KaTeX, join_punctuation, render_latex, strip_tags

KATEX = math_extension._katex
TITLES = {
    "one": ("An expectation under $q$", "An expectation under q"),
    "two": (r"The noise level $\theta$ & more", "The noise level θ & more"),
    "three": (r"From $\mathcal{N}(0, I)$ to $x_0$", "From N(0, I) to x_0"),
}


# --- rendering ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A book with formulas in its titles, built with a long path for temporary files."""
    root = tmp_path_factory.mktemp("book")
    book = SmallBook(root, {name: [] for name in TITLES})
    for name, (title, _) in TITLES.items():
        book.write(f"book/{name}.md", f"# {title}\n\nOf $W_2$ and zebras.\n\n## Norm $\\ell_2$\n")
    # A socket's path has room for some hundred characters; blanks and umlauts are common.
    temporary = root / "für alle" / ("t" * 122)
    temporary.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        book.built()
        assert list(temporary.iterdir()) == []
        book.write("book/one.md", "# One\n\n$\\nosuch$\n")
        failed = book.command("build")
        assert failed.returncode == 1
        assert "bad TeX" in failed.stderr
        assert list(temporary.iterdir()) == []
        book.write("book/one.md", f"# {TITLES['one'][0]}\n\n$W_2$ and zebras.\n")
        book.built()
    return book


@pytest.fixture(scope="module")
def site(book):
    return book.root / "_build/html"


def test_a_long_path_for_temporary_files_does(book):
    assert 'class="katex"' in book.html("one")


def test_bad_tex_is_refused_and_the_next_is_rendered():
    with pytest.raises(KaTeXError, match="nosuch"):
        render_latex(r"\nosuch", throwOnError=True)
    assert "ä" in render_latex("\\text{ä}\n+ b", throwOnError=True, strict=False)
    assert render_latex("a", displayMode=True) != render_latex("a", displayMode=False)


def test_an_end_of_node_is_told():
    renderer = KaTeX()
    renderer.process.kill()
    renderer.process.wait()
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"node, .*, ended with status -?\d+: .* 'a\+b'"):
            renderer.render("a+b", {})


def _render_here(letters):
    # Each formula a new one, as those that were rendered once are kept.
    return [KATEX(os.getpid()).render(letter, {}) for letter in letters]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Sphinx forks only where Python can")
def test_processes_do_not_read_one_anothers_answers():
    letters = "abcdefgh" * 20
    expected = _render_here(letters)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map_async(_render_here, [letters, letters[::-1]])
        assert _render_here(letters) == expected
        assert found.get(60) == [expected, expected[::-1]]


# --- as text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("q", "q"),
        (r"\theta", "θ"),
        (r"\mathcal{N}(0, I)", "N(0, I)"),
        (r"\log p_\theta(x)", "log p_θ(x)"),
        (r"\log(x)", "log(x)"),
        (r"\frac{a+1}{b}", "(a+1)/b"),
        ("x_{t-1}^2", "x_(t−1)^2"),
        (r"\hat{x}_0", "x_0"),
        (r"\sqrt{2\pi}", "√(2π)"),
        (r"\sqrt[3]{x}", "3√x"),
        ("f'", "f′"),
        ("x < y", "x<y"),
        (r"\mathrm{KL}(q\,\|\,p)", "KL(q ∥ p)"),
        (r"\text{a & b}".replace("&", r"\&"), "a & b"),
    ],
)
def test_a_formula_is_one_text(latex, expected):
    assert strip_tags(f"<b>5.</b> Of {render_latex(latex)} &amp; more") == (
        f"5. Of {expected} & more"
    )


def test_text_without_formulas_is_left_to_jinja():
    assert strip_tags("<i>a</i>  &lt;b&gt;") == "a <b>"


@pytest.mark.parametrize("name", TITLES)
def test_a_title_says_every_formula_once(book, name):
    soup = BeautifulSoup(book.html(name), "html.parser")
    number = list(TITLES).index(name) + 1
    assert soup.title.get_text().startswith(f"{number}. {TITLES[name][1]} — Evidence")
    # Shown, it is drawn as all mathematics is.
    printed, shown = soup.find_all("h1")
    assert printed.get_text() == f"{number}. {TITLES[name][1]}"
    assert shown.select(".katex-html")
    plain = {f"{n}. {text}" for n, (_, text) in enumerate(TITLES.values(), 1)}
    linked = {link["title"] for link in soup.select("link[rel=next], link[rel=prev]")}
    assert linked - {"A small book", "Ledger"} <= plain
    assert linked
    # No attribute of the page holds a formula's copies, or its markup.
    for element in soup.find_all(True):
        for value in element.attrs.values():
            assert not isinstance(value, str) or not re.search(
                r"katex-mathml|qqq|θ\\theta|0, I\)\\mathcal", value
            ), value


def test_results_of_a_search_have_titles_that_say_a_formula_once(book):
    text = (book.root / "_build/html/searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    titles = [f"{n}. {html.escape(text)}" for n, (_, text) in enumerate(TITLES.values(), 1)]
    assert set(index["titles"]) == {"A small book", "Ledger", *titles}
    assert {text for _, text in TITLES.values()} <= index["alltitles"].keys()
    assert "Norm ℓ_2" in index["alltitles"]


@pytest.mark.browser
def test_results_of_a_search_show_a_formula_once(site, server, chromium):
    page = chromium.new_page()
    page.goto(f"{server}/search.html?q=zebras")
    page.wait_for_selector("#search-results .context")
    for text in page.locator("#search-results .context").all_inner_texts():
        assert re.search(r"\bW2 and zebras", text), text
    page.close()


# --- in a line ----------------------------------------------------------------------------------


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

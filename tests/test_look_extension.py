"""What the extension of the book's look makes of a page."""

import pytest
from bs4 import BeautifulSoup
from small_book import SmallBook, code

from evidence_book.look_extension import with_size_attributes

EXERCISE = """```{{exercise}} By hand
:label: ex-{name}

Show $x = {name}$.
```

```{{solution}} ex-{name}
:class: dropdown

It is {name}.
```
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="120"></svg>'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    book = SmallBook(
        tmp_path_factory.mktemp("look"),
        {
            "one": [
                code("1 + 1"),
                "```{figure} images/wide.svg\n:alt: Wide.\n:width: 100%\nText\n```\n",
                EXERCISE.format(name=1),
                EXERCISE.format(name=2),
                "|  | length |\n|--|--|\n| one | 1 |\n",
                "See {cite}`first2000` and {cite}`second2001`.\n\n```{bibliography}\n```\n",
            ]
        },
    )
    book.write("book/images/wide.svg", SVG)
    entry = "@misc{{{key}, author={{A. Author}}, title={{Title}}, year={{{year}}}}}\n"
    entries = (("first2000", 2000), ("second2001", 2001))
    book.write("book/references.bib", "".join(entry.format(key=k, year=y) for k, y in entries))
    book.keep_outputs("one", None)
    assert book.main("build") == 0
    return BeautifulSoup(book.html("one"), "html.parser")


def test_a_solution_folds_without_script(page):
    folds = page.select("article details.solution:not([open])")
    assert [fold.summary.get_text() for fold in folds] == [
        "Solution to Exercise 1.1 (By hand)",
        "Solution to Exercise 1.2 (By hand)",
    ]
    assert [fold.p.get_text() for fold in folds] == ["It is 1.", "It is 2."]
    # A link there could not be told from the summary by a keyboard.
    assert page.select("summary a") == []


def test_identifiers_are_unique(page):
    ids = [element["id"] for element in page.find_all(id=True)]
    assert len(ids) == len(set(ids))


def test_the_corner_of_a_table_is_no_heading(page):
    first, second = page.select("table thead tr > *")
    assert (first.name, second.name) == ("td", "th")
    assert [cell.name for cell in page.select("table tbody tr > *")] == ["td", "td"]


def test_a_bibliography_is_a_list(page):
    (entries,) = page.select("[role=list]")
    assert [entry["role"] for entry in entries.find_all("div", recursive=False)] == ["listitem"] * 2


def test_a_picture_tells_its_ratio_and_fills_the_line_where_asked(page):
    (image,) = page.select("figure img")
    assert (image["width"], image["height"]) == ("300", "120")
    assert "width: 100%" in image["style"]
    assert image.find_parent("a") is None


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ('<img alt="a" src="b">', '<img width="300" height="120" alt="a" src="b">'),
        ('<img style="width: 150px;">', '<img width="150" height="60">'),
        ('<img style="height: 60px;">', '<img width="150" height="60">'),
        ('<img style="width: 7px; height: 8px;">', '<img width="7" height="8">'),
        (
            '<img style="width: 50%;">',
            '<img width="300" height="120" style="width: 50%;">',
        ),
        # Words of an alternative text are no style.
        (
            '<img alt="The width: 20px; of it." style="width: 150px;">',
            '<img width="150" height="60" alt="The width: 20px; of it.">',
        ),
        (
            '<img alt="The height: 8;" src="b">',
            '<img width="300" height="120" alt="The height: 8;" src="b">',
        ),
        (
            '<img style="width: 150px; max-width: 90px;">',
            '<img width="150" height="60" style="max-width: 90px;">',
        ),
    ],
)
def test_size_attributes(tag, expected):
    assert with_size_attributes(tag, 300, 120) == expected


def test_a_page_loads_its_look_and_no_font_of_icons(page):
    sheets = [link["href"] for link in page.select("link[rel=stylesheet]")]
    assert "evidence.css" in sheets[-1]  # after all that it overrides
    scripts = [script.get("src", "") for script in page.find_all("script")]
    assert any("evidence.js" in script for script in scripts)
    assert not any("fontawesome" in script for script in scripts)

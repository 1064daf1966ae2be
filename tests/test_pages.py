"""The conventions of a page that can be checked: length of cells and lines, its sections."""

import re
from pathlib import Path

import pytest

from evidence_book.pages import find_pages, read_page

ROOT = Path(__file__).parents[1]
PAGES = find_pages(ROOT)
# The page for a newcomer; it derives nothing.
LESSONS = [page for page in PAGES if page.name != "index.md"]
LONGEST_CELL = 20
LONGEST_LINE = 86  # what fits into the column of the built page


def page_name(page: Path) -> str:
    return page.relative_to(ROOT / "book").with_suffix("").as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_cells_are_short(page):
    for cell in read_page(page).cells:
        if cell.cell_type == "code":
            lines = [line for line in cell.source.splitlines() if line.strip()]
            assert len(lines) <= LONGEST_CELL, cell.source
            assert max(map(len, lines)) <= LONGEST_LINE, max(lines, key=len)


@pytest.mark.parametrize("page", LESSONS, ids=page_name)
def test_a_lesson_opens_and_ends_as_all_do(page):
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert "What you will be able to show" in text.split("\n## ")[0]
    assert headings[-3:] == ["What you have now", "Exercises", "Where this leads"]


@pytest.mark.parametrize("page", LESSONS, ids=page_name)
def test_every_exercise_has_a_solution_and_the_three_kinds_occur(page):
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^```\{exercise\} (.+)$", text, re.MULTILINE)
    labels = re.findall(r"^:label: (ex-\S+)$", text, re.MULTILINE)
    solved = re.findall(r"^```\{solution(?:-start)?\} (ex-\S+)$", text, re.MULTILINE)
    assert labels == solved
    kinds = {title.split(":")[0] for title in titles}
    assert {"By hand", "To code", "To break"} <= kinds


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_code_cells_are_set_apart_by_prose_or_by_another_step(page):
    cells = [cell for cell in read_page(page).cells if cell.source.strip()]
    assert cells[0].cell_type == "markdown"
    assert cells[-1].cell_type == "markdown"
    runs = re.findall("c{4,}", "".join(cell.cell_type[0] for cell in cells))
    assert not runs, f"{max(map(len, runs))} code cells without a word between them"


def test_symbols_of_no_page_are_macros():
    for page in (ROOT / "book").rglob("*.md"):
        assert not re.search(r"\\(?:new|renew|def)command|\\def\\", page.read_text("utf-8")), page

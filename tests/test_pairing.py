"""Pages and their notebooks: what is written, and every way in which the two can disagree."""

import json
import os
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from small_book import REPO, SmallBook, claim, code, equation

from evidence_book import pairing
from evidence_book.execution import ExecutionError
from evidence_book.pairing import problems, write_notebooks

ALT = "mystnb:\n  image:\n    alt: A line that rises"


@pytest.fixture(autouse=True)
def environment():
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def book(tmp_path):
    """A book of two pages whose notebooks were written, with cells that were not really run."""
    book = SmallBook(
        tmp_path,
        {
            "one": [
                "Some prose.\n",
                code("1 + 1"),
                equation("eq-a"),
                code("hold()"),
                code("plot()", options=ALT),
            ],
            "part/two": ["Other prose.\n", code("2 + 2")],
        },
    )
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "f00"}, "text/plain": "W()"}
    book.keep_outputs(
        "one",
        {"text/plain": "2"},
        claim("eq-a"),
        {"image/png": "iVBO", "text/plain": "<Figure>", **widget},
    )
    book.keep_outputs("part/two", {"text/plain": "4"})
    write_notebooks(tmp_path)
    return book


def notebook(book, name="one"):
    return book.root / "notebooks" / f"{name}.ipynb"


def read(book, name="one"):
    return nbformat.read(notebook(book, name), as_version=4)


def cells(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def test_pages_and_notebooks_of_this_book_agree():
    assert problems(REPO) == []


# --- writing ------------------------------------------------------------------------------------


def test_written_notebooks_agree_with_their_pages(book):
    assert problems(book.root) == []


def test_what_is_stored_is_text_that_is_the_same_on_every_machine(book):
    nb = read(book)
    stored = [output.data for cell in cells(nb) for output in cell.outputs]
    assert [dict(data) for data in stored] == [
        {"text/plain": "2"},
        {"text/plain": "Claim eq-a holds: exact, 1,234 cases; 1 wrong version rejected"},
        {"text/plain": "W()"},
    ]
    assert nb.metadata.language_info == {"name": "python"}
    assert [cell.execution_count for cell in cells(nb)] == [1, 2, 3]


def test_second_run_writes_nothing(book):
    before = {path: path.stat().st_mtime_ns for path in pairing.all_notebooks(book.root)}
    assert len(before) == 2
    assert write_notebooks(book.root) == []
    assert before == {path: path.stat().st_mtime_ns for path in pairing.all_notebooks(book.root)}


def test_only_the_notebook_of_a_changed_page_is_written(book):
    book.change("book/one.md", "Some prose", "New prose")
    assert write_notebooks(book.root) == [notebook(book)]
    assert problems(book.root) == []


def test_new_alternative_text_reaches_the_notebook_without_execution(book, capsys):
    book.change("book/one.md", "A line that rises", "A line that falls")
    assert write_notebooks(book.root) == [notebook(book)]
    assert "executed" not in capsys.readouterr().out
    assert problems(book.root) == []


def test_cells_keep_their_identifiers_when_others_change(book):
    before = {cell.source: cell.id for cell in read(book).cells}
    book.change("book/one.md", "Some prose.", "Some prose.\n\n+++\n\nOne cell more.")
    write_notebooks(book.root)
    after = {cell.source: cell.id for cell in read(book).cells}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_twin_cells_have_identifiers_of_their_own(book):
    book.page("part/two", code("2 + 2"), "Again.\n", code("2 + 2"))
    book.keep_outputs("part/two", {"text/plain": "4"}, {"text/plain": "4"})
    write_notebooks(book.root)
    identifiers = [cell.id for cell in read(book, "part/two").cells]
    assert len(set(identifiers)) == len(identifiers)


def test_interrupted_write_leaves_the_old_notebook(book, monkeypatch):
    before = notebook(book).read_bytes()
    book.change("book/one.md", "Some prose", "New prose")
    write_text = Path.write_text

    def write_half(path, text, **options):
        write_text(path, text[: len(text) // 2], **options)
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="no space left"):
        write_notebooks(book.root)
    monkeypatch.undo()
    assert notebook(book).read_bytes() == before
    assert write_notebooks(book.root) == [notebook(book)]
    assert problems(book.root) == []


def test_failing_page_leaves_all_notebooks(book):
    before = {path: path.read_bytes() for path in pairing.all_notebooks(book.root)}
    book.contents(["one"])
    book.page("one", code("1 / 0"))
    with pytest.raises(ExecutionError, match="ZeroDivisionError"):
        write_notebooks(book.root)
    assert before == {path: path.read_bytes() for path in pairing.all_notebooks(book.root)}


def test_notebook_of_a_page_that_is_gone_is_removed(book):
    book.contents(["one"])
    assert write_notebooks(book.root) == [notebook(book, "part/two")]
    assert not notebook(book, "part/two").exists()
    assert problems(book.root) == []


@pytest.mark.parametrize("edited", [True, False], ids=["edited", "no notebook"])
def test_notebook_of_no_page_stays_if_it_holds_work(book, edited):
    mine = book.root / "notebooks/mine.ipynb"
    if edited:
        nb = read(book)
        nb.cells[0].source += "\n\nMy own remark."
        nbformat.write(nb, mine)
    else:
        mine.write_text("{}", encoding="utf-8")
    before = mine.read_bytes()
    assert write_notebooks(book.root) == []
    assert mine.read_bytes() == before
    assert problems(book.root) == ["notebooks/mine.ipynb has no page book/mine.md"]


# --- disagreement -------------------------------------------------------------------------------


def edit_notebook(change):
    def damage(book):
        nb = read(book)
        change(nb)
        nbformat.write(nb, notebook(book))

    return damage


def never_executed(nb):
    for cell in cells(nb):
        cell.outputs, cell.execution_count = [], None


def executed_out_of_order(nb):
    first, second, _ = cells(nb)
    first.execution_count, second.execution_count = 2, 1


def store(**data):
    return lambda nb: cells(nb)[2].outputs[0].data.update(data)


def store_error(nb):
    cells(nb)[0].outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]


DISAGREEMENTS = {
    "edited prose": (
        lambda book: book.change("book/one.md", "Some prose", "New prose"),
        "one.ipynb differs from its page",
    ),
    "edited code": (
        lambda book: book.change("book/one.md", "1 + 1", "1 + 2"),
        "one.ipynb differs from its page",
    ),
    "edited alternative text": (
        lambda book: book.change("book/one.md", "A line that rises", "A line that falls"),
        "one.ipynb differs from its page",
    ),
    "added tag": (
        lambda book: book.change("book/one.md", "---\nmystnb", "---\ntags: [x]\nmystnb"),
        "one.ipynb differs from its page",
    ),
    "added cell": (
        lambda book: book.path("one").write_text(
            book.path("one").read_text(encoding="utf-8") + code("3 + 3"), encoding="utf-8"
        ),
        "one.ipynb differs from its page",
    ),
    "edited notebook": (
        edit_notebook(lambda nb: nb.cells[0].update(source="# Other")),
        "one.ipynb differs from its page",
    ),
    "missing notebook": (
        lambda book: notebook(book).unlink(),
        "one.ipynb is missing: run `make notebooks`",
    ),
    "orphan": (
        lambda book: book.contents(["part/two"]),
        "one.ipynb has no page book/one.md",
    ),
    "conflict of versions": (
        lambda book: notebook(book).write_text("<<<<<<< HEAD\n", encoding="utf-8"),
        "one.ipynb cannot be read",
    ),
    "never executed": (
        edit_notebook(never_executed),
        "one.ipynb was not executed from top to bottom",
    ),
    "out of order": (
        edit_notebook(executed_out_of_order),
        "one.ipynb was not executed from top to bottom",
    ),
    "image": (
        edit_notebook(store(**{"image/png": "iVBO"})),
        "one.ipynb stores image/png in code cell 3",
    ),
    "vector image": (
        edit_notebook(store(**{"image/svg+xml": "<svg/>"})),
        "one.ipynb stores image/svg+xml in code cell 3",
    ),
    "widget": (
        edit_notebook(store(**{"application/vnd.jupyter.widget-view+json": {}})),
        "one.ipynb stores application/vnd.jupyter.widget-view+json in code cell 3",
    ),
    "figures of a claim": (
        edit_notebook(store(**claim("eq-a")._repr_mimebundle_())),
        "one.ipynb stores application/vnd.evidence.claim+json in code cell 3",
    ),
    "error": (
        edit_notebook(store_error),
        "one.ipynb stores an error in code cell 1",
    ),
}


@pytest.mark.parametrize("case", DISAGREEMENTS)
def test_disagreement_is_found(book, case):
    damage, message = DISAGREEMENTS[case]
    damage(book)
    found = problems(book.root)
    assert any(problem.startswith(f"notebooks/{message}") for problem in found), found
    assert all("notebooks/one.ipynb" in problem for problem in found), found


def test_error_that_a_page_shows_on_purpose_is_no_problem(book):
    book.page("part/two", code("1 / 0", tags=["raises-exception"]))
    write_notebooks(book.root)
    assert cells(read(book, "part/two"))[0].outputs[0].ename == "ZeroDivisionError"
    assert problems(book.root) == []


def test_copies_that_jupyter_keeps_are_no_notebooks(book):
    copies = book.root / "notebooks/.ipynb_checkpoints"
    copies.mkdir()
    (copies / "one-checkpoint.ipynb").write_bytes(notebook(book).read_bytes())
    assert problems(book.root) == []
    assert write_notebooks(book.root) == []


def test_output_does_not_depend_on_when_it_was_sent(book):
    talk = "import sys, time\nfor i in range(3):\n    print(i, flush=True)\n    time.sleep(0.1)"
    book.page("part/two", code(talk))
    write_notebooks(book.root)
    (output,) = cells(read(book, "part/two"))[0].outputs
    assert output.text == "0\n1\n2\n"


def test_command_lists_what_disagrees(book, capsys):
    assert book.main("check-pairs") == 0
    assert capsys.readouterr().out == "pages and notebooks agree\n"
    notebook(book).unlink()
    assert book.main("check-pairs") == 1
    assert capsys.readouterr().out == "notebooks/one.ipynb is missing: run `make notebooks`\n"
    assert book.main("notebooks") == 0
    assert capsys.readouterr().out.endswith("wrote notebooks/one.ipynb\n")
    assert json.loads(notebook(book).read_text(encoding="utf-8"))["nbformat_minor"] == 5

"""Pages and their notebooks: what is written, and every way in which the two can disagree."""

import json
import os
import re
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


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A book of two pages whose notebooks were written, with cells that were not really run."""
    book = SmallBook(
        tmp_path_factory.mktemp("written"),
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
    with mock.patch.dict(os.environ):
        write_notebooks(book.root)
    return book


@pytest.fixture
def book(written, tmp_path):
    """A copy of that book, to change."""
    return written.copied(tmp_path)


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
    book.path("part/two").unlink()
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


@pytest.mark.parametrize("how", ["left out", "no header"])
def test_notebook_of_a_page_that_is_there_is_never_removed(book, how):
    if how == "left out":
        book.contents(["one"])
    else:
        book.write("book/part/two.md", "# Two\n\nNo cells.\n")
    before = notebook(book, "part/two").read_bytes()
    assert write_notebooks(book.root) == []
    assert notebook(book, "part/two").read_bytes() == before
    assert problems(book.root) == [
        "notebooks/part/two.ipynb has a page that is no notebook of _toc.yml, book/part/two.md"
    ]


# --- edits of notebooks -------------------------------------------------------------------------


def new_source(nb):
    nb.cells[0].source = nb.cells[0].source.replace("Some prose", "My prose")


def new_code(nb):
    cells(nb)[0].source = "1 + 2"


def new_cell(nb):
    nb.cells.append(nbformat.v4.new_markdown_cell("Mine."))


def cell_less(nb):
    del nb.cells[-1]


def cells_swapped(nb):
    nb.cells[0], nb.cells[1] = nb.cells[1], nb.cells[0]


def new_tag(nb):
    cells(nb)[0].metadata["tags"] = ["hide-input"]


EDITS = [new_source, new_code, new_cell, cell_less, cells_swapped, new_tag]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_notebook_is_not_overwritten(book, edit, monkeypatch):
    edit_notebook(edit)(book)
    before = {path: path.read_bytes() for path in pairing.all_notebooks(book.root)}
    book.change("book/part/two.md", "Other", "Another")
    # It is told before anything is executed.
    monkeypatch.setattr(pairing, "execute_pages", lambda root: pytest.fail("executed"))
    with pytest.raises(pairing.EditedNotebookError) as refused:
        write_notebooks(book.root)
    (message,) = str(refused.value).splitlines()
    assert message.startswith("notebooks/one.ipynb was edited, and book/one.md says something else")
    for kept in ("page", "notebook"):
        assert f"notebooks --keep {kept}`" in message
    assert before == {path: path.read_bytes() for path in pairing.all_notebooks(book.root)}
    assert problems(book.root)[0].startswith(message)


@pytest.mark.parametrize("edit", EDITS)
def test_the_page_of_an_edited_notebook_can_be_kept(book, edit):
    before, page = notebook(book).read_bytes(), book.path("one").read_bytes()
    edit_notebook(edit)(book)
    assert write_notebooks(book.root, keep="page") == [notebook(book)]
    assert notebook(book).read_bytes() == before
    assert book.path("one").read_bytes() == page
    assert problems(book.root) == []


@pytest.mark.parametrize(
    ("edit", "old", "new"),
    [
        (new_source, "Some prose.", "My prose."),
        (new_code, "1 + 1", "1 + 2"),
        (
            new_tag,
            "```{code-cell} ipython3\n1",
            "```{code-cell} ipython3\n:tags: [hide-input]\n\n1",
        ),
    ],
)
def test_an_edited_notebook_can_be_kept(book, edit, old, new, monkeypatch):
    monkeypatch.setattr(pairing, "execute_pages", lambda root: None)
    monkeypatch.setattr(pairing, "executed", lambda page, cache: pairing.read_page(page))
    page = book.path("one").read_text(encoding="utf-8")
    assert old in page
    edit_notebook(edit)(book)
    assert write_notebooks(book.root, keep="notebook")[0] == book.path("one")
    # Nothing else of the page changed.
    assert book.path("one").read_text(encoding="utf-8") == page.replace(old, new)
    assert write_notebooks(book.root) == []


def run_and_folded(nb):
    """As Jupyter saves a notebook that was run and looked at."""
    nb.metadata.language_info = {
        "name": "python",
        "version": "3.13.1",
        "pygments_lexer": "ipython3",
    }
    nb.metadata.widgets = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    for cell in cells(nb):
        cell.metadata |= {"collapsed": True, "scrolled": True, "trusted": True}
        cell.metadata.execution = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
        cell.execution_count += 7
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="new")]


@pytest.mark.parametrize(
    "change",
    [
        lambda book: edit_notebook(run_and_folded)(book),
        lambda book: notebook(book).unlink(),
        lambda book: notebook(book).write_text("<<<<<<< HEAD\n", encoding="utf-8"),
        # Edited on both sides alike, as by saving a notebook that Jupyter pairs.
        lambda book: (
            edit_notebook(new_source)(book),
            book.change("book/one.md", "Some prose", "My prose"),
        ),
        # Written before notebooks kept what they were written from.
        lambda book: edit_notebook(lambda nb: nb.metadata.pop(pairing.DIGEST))(book),
    ],
)
def test_what_holds_no_edit_of_its_own_is_written_anew(book, change):
    change(book)
    assert write_notebooks(book.root) == [notebook(book)]
    assert problems(book.root) == []


def test_pages_of_this_book_survive_a_round_trip_to_the_letter():
    for page in pairing.find_pages(REPO):
        text = page.read_text(encoding="utf-8")
        written = pairing.page_text(pairing.read_page(page), page)
        # Of several empty lines between cells, one is kept.
        assert written == re.sub(r"\n{3,}(?=```)", "\n\n", text), page


def test_command_tells_of_an_edit_and_takes_what_is_told(book, capsys):
    page, text = book.path("one"), notebook(book).read_bytes()
    edit_notebook(new_source)(book)
    assert book.main("notebooks") == 1
    assert "notebooks/one.ipynb was edited" in capsys.readouterr().err
    assert book.main("notebooks", "--keep", "notebook") == 0
    assert "My prose." in page.read_text(encoding="utf-8")
    assert notebook(book).read_bytes() != text
    assert "wrote book/one.md\nwrote notebooks/one.ipynb\n" in capsys.readouterr().out


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
        "one.ipynb was edited, and book/one.md says something else",
    ),
    "edited both": (
        lambda book: (
            book.change("book/one.md", "Some prose", "New prose"),
            edit_notebook(lambda nb: nb.cells[0].update(source="# Other"))(book),
        ),
        "one.ipynb was edited, and book/one.md says something else",
    ),
    "missing notebook": (
        lambda book: notebook(book).unlink(),
        "one.ipynb is missing: run `make notebooks`",
    ),
    "orphan": (
        lambda book: book.path("one").rename(book.path("renamed")) and book.contents(["part/two"]),
        "one.ipynb has no page book/one.md",
    ),
    "left out": (
        lambda book: book.contents(["part/two"]),
        "one.ipynb has a page that is no notebook of _toc.yml, book/one.md",
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

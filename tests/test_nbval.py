"""`make nbval` on a small book: what is compared, what is not, and what it cannot see."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from unittest import mock

import nbformat
import pytest
from small_book import REPO, SmallBook, code, equation

from evidence_book.execution import executed, open_cache
from evidence_book.pages import KERNEL_SETTINGS
from evidence_book.pairing import problems, write_notebooks

# Rounding differs from run to run, as it does between processors.
CLAIM = """\
import random
from evidence import claims
noise = 1e-12 * random.random()
claims.exact("eq-a", "one is one", left=1.0 + noise, right=1.0, wrong={"two": 2.0})"""
SETTINGS = "import os\nsorted(os.environ.items() & {}.items())"
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
ALT = """\
mystnb:
  image:
    alt: A line"""
DICE = "import random\nrandom.random()"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A book whose pages were executed and whose notebooks were written."""
    settings = SETTINGS.format(KERNEL_SETTINGS)
    pages = {
        "plain": [code("print('said')"), code("1 + 1"), code("2 + 2"), code(settings)],
        "claims": [equation("eq-a"), code(CLAIM), code(CLAIM)],
        "flaky": [code(DICE)],
        "tagged": [code(DICE, tags=["nbval-ignore-output"])],
    }
    book = SmallBook(tmp_path_factory.mktemp("written"), pages)
    # Writing the notebooks sets variables for this process.
    with mock.patch.dict(os.environ):
        write_notebooks(book.root)
    return book


@pytest.fixture
def book(written, tmp_path):
    """A copy of that book, to change."""
    with mock.patch.dict(os.environ):
        yield written.copied(tmp_path)


def edited(book, copy, of, change):
    """Store a changed copy of a notebook beside it."""
    nb = nbformat.read(book.root / f"notebooks/{of}.ipynb", as_version=4)
    change([cell for cell in nb.cells if cell.cell_type == "code"])
    nbformat.write(nb, book.root / f"notebooks/{copy}.ipynb")


def nbval(book, *options, processes):
    """Run the Makefile's command; return its status, what failed by cell, and what it printed."""
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    (command,) = re.findall(r"^NBVAL := \$\(BIN\)/pytest (.*)$", makefile, re.MULTILINE)
    command, found = re.subn("-n auto", f"-n {processes}", command)
    assert found == 1, "the Makefile's command has no -n auto"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *command.split(), *options),
            *("-p", "no:cacheprovider", "--junit-xml=report.xml", "--color=no"),
        ],
        cwd=book.root,
        # The notebooks' own conftest sets what kernels see, whatever the shell has.
        env={**os.environ, **dict.fromkeys(KERNEL_SETTINGS, "3")},
        capture_output=True,
        text=True,
    )
    cells = {}
    for case in ElementTree.parse(book.root / "report.xml").iter("testcase"):
        name = re.search(r"notebooks\.([^.]+)", case.get("classname"))[1]
        cells[name, case.get("name")] = "".join(bad.text for bad in case.iter("failure"))
    return run.returncode, cells, run.stdout


def test_stored_outputs_are_compared(book):
    def change_outputs(cells):
        cells[0].outputs[0].text = "silent\n"
        cells[1].outputs[0].data["text/plain"] = "3"
        cells[2].outputs = []

    def change_claims(cells):
        cells[0].outputs[0].data["text/plain"] = "Claim eq-b holds: exact"
        cells[1].source = CLAIM.replace("1.0 + noise", "1.5")

    def forget(cells):
        cells[0].outputs, cells[0].execution_count = [], None

    edited(book, "changed", "plain", change_outputs)
    edited(book, "changed_claims", "claims", change_claims)
    edited(book, "never_executed", "flaky", forget)

    status, cells, said = nbval(book, processes=1)
    assert status == 1, said
    assert len(cells) == 15, said
    failed = {cell: text for cell, text in cells.items() if text}
    assert failed.keys() == {
        ("changed", "Cell 0"),
        ("changed", "Cell 1"),
        ("changed", "Cell 2"),
        ("flaky", "Cell 0"),
        ("changed_claims", "Cell 0"),
        ("changed_claims", "Cell 1"),
    }, said
    message = "claim 'eq-a' does not hold: left and right differ by 0.5"
    assert message in failed["changed_claims", "Cell 1"]

    # It passes what was never executed; the check of the pairs does not.
    book.page("never_executed", code(DICE))
    book.contents(["never_executed"])
    nb = nbformat.read(book.root / "notebooks/never_executed.ipynb", as_version=4)
    nb.cells[0].source = "# Page never_executed"
    nbformat.write(nb, book.root / "notebooks/never_executed.ipynb")
    problem = "notebooks/never_executed.ipynb was not executed from top to bottom"
    assert problems(book.root)[0].startswith(problem)


def test_dead_kernel_is_noticed(book):
    book.contents(["tagged"])
    write_notebooks(book.root)

    def die(cells):
        cells[0].source = "import os\nos._exit(1)"

    edited(book, "dead", "tagged", die)
    status, cells, said = nbval(book, "--nbval-cell-timeout=5", processes=0)
    assert status == 1, said
    assert cells["dead", "Cell 0"], said
    assert not any(text for (name, _), text in cells.items() if name in ("plain", "tagged")), said


def test_what_nbval_runs_is_what_the_build_shows(book):
    book.page("raising", code("1 / 0", tags=["raises-exception"]), code(PLOT, options=ALT))
    book.page("broken", code("True"))
    book.page("noisy", code("True"))
    book.contents(["plain", "claims", "flaky", "raising", "broken", "noisy"])
    write_notebooks(book.root)
    # The same outputs as the pages' own execution gives, but for what is random.
    names = ["plain", "raising"]
    before = [shown(book, name) for name in names]
    # Pages and notebooks that fail, alike.
    for name, source in (
        ("broken", "raise ValueError"),
        ("noisy", "import sys; print('noise', file=sys.stderr)"),
    ):
        book.change(f"book/{name}.md", "True", source)
        book.change(f"notebooks/{name}.ipynb", '"True"', json.dumps(source))
    shutil.rmtree(book.root / "_build/.executed")

    status, cells, said = nbval(book, processes=2)
    assert status == 1, said
    failed = {name for name, text in cells.items() if text}
    assert failed == {("flaky", "Cell 0"), ("broken", "Cell 0"), ("noisy", "Cell 0")}, said
    assert [shown(book, name) for name in names] == before
    cache = open_cache(book.root)
    executed(book.path("flaky"), cache)
    for name in ("broken", "noisy"):
        with pytest.raises(KeyError):
            executed(book.path(name), cache)
    said = book.command("execute")
    assert "executed book" not in said.stdout
    assert "broken.md failed" in said.stderr
    assert "noise" in said.stderr


def shown(book, name):
    """Return what the cells of a page gave, pictures included."""
    page = executed(book.path(name), open_cache(book.root))
    return [(cell.execution_count, cell.outputs) for cell in page.cells if cell.cell_type == "code"]


def test_some_cells_of_a_notebook_are_not_kept_as_a_page(book):
    book.contents(["plain"])
    write_notebooks(book.root)
    shutil.rmtree(book.root / "_build/.executed")
    status, cells, said = nbval(book, "-k", "plain and not 2", processes=0)
    assert (status, len(cells)) == (0, 3), said
    with pytest.raises(KeyError):
        executed(book.path("plain"), open_cache(book.root))

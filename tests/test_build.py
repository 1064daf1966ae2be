"""The commands of the build, on a small book whose pages are really executed."""

import asyncio
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from myst_nb.core.read import is_myst_markdown_notebook
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_book import HEADER, REPO, SmallBook, claim, code, equation
from sphinx.builders import Builder

from evidence_book import execution, locking, page_extension
from evidence_book.__main__ import build, main
from evidence_book.execution import execute_pages, executed, only_build, open_cache
from evidence_book.pages import (
    KERNEL_SETTINGS,
    execution_key,
    find_pages,
    is_notebook,
    read_page,
)
from evidence_book.pairing import notebook_text

FIGURE = """\
mystnb:
  image:
    alt: A rising line
  figure:
    name: fig-line
    caption: |
      The first caption."""
COUNT = """\
from pathlib import Path
log = Path("../{name}.log")
log.write_text(log.read_text() + "x" if log.exists() else "x")
print("the answer is", {answer})"""
HELPED = """\
import sys
sys.path.insert(0, "../src")
from evidence import helper
"""
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
CLAIM = """\
import numpy as np
from evidence import claims
x = np.linspace(1.0, 2.0, 5)
claims.exact(
    "eq-square", "squares agree", left=x**{power}, right=x * x, wrong={{"fourth": x**4}}
)"""


def count(name, *, helped=False):
    """Return a cell that notes that it runs, and answers; or that the helper package answers."""
    answer = "helper.ANSWER" if helped else "7"
    return HELPED * helped + COUNT.format(name=name, answer=answer)


@pytest.fixture(autouse=True)
def environment():
    with mock.patch.dict(os.environ):
        yield


def plain(text):
    """Return what a terminal shows, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def executions(book, *names):
    """How often each page was executed, by the pages' own count."""
    return [len((book.root / f"{name}.log").read_text()) for name in names]


def rename(book, old, new):
    (book.root / old).rename(book.root / new)


# --- a book from its first build on --------------------------------------------------------------


def test_outputs_are_never_older_than_the_code_and_never_made_in_vain(tmp_path, capsys):
    book = SmallBook(
        tmp_path,
        {
            "one": ["Old prose.\n", code(count("one", helped=True)), code(PLOT, options=FIGURE)],
            "two": [code(count("two", helped=True))],
            "alone": [code(count("alone"))],
        },
    )

    def rebuild(expected):
        assert book.main("build", "--jobs", "2") == 0
        said = capsys.readouterr()
        assert "WARNING" not in said.err
        assert f"3 pages: {expected}" in said.out
        return book.html("one"), book.html("two")

    def counts():
        return executions(book, "one", "two", "alone")

    one, _ = rebuild("3 executed, 0 unchanged")
    assert "the answer is 41" in one
    assert 'alt="A rising line"' in one

    rebuild("0 executed, 3 unchanged")
    assert counts() == [1, 1, 1]

    # Prose, a caption and an alternative text are shown as they are, and execute nothing.
    book.change("book/one.md", "Old prose", "New prose")
    book.change("book/one.md", "The first caption", "The second caption")
    book.change("book/one.md", "A rising line", "A line that rises")
    one, _ = rebuild("0 executed, 3 unchanged")
    assert counts() == [1, 1, 1]
    assert "New prose" in one
    assert "The second caption" in one
    assert 'alt="A line that rises"' in one
    assert "Old prose" not in one
    assert "The first caption" not in one
    assert "the answer is 41" in one

    # The documentation of the helper code, which no output depends on.
    book.change("src/evidence/helper.py", "A helper.", "A helper, well documented.")
    book.change("src/evidence/helper.py", "41", "41  # an answer")
    rebuild("0 executed, 3 unchanged")
    assert counts() == [1, 1, 1]

    # Its code, for the pages that import it; then the lock; then one page's own code.
    book.change("src/evidence/helper.py", "41", "42")
    one, two = rebuild("2 executed, 1 unchanged")
    assert counts() == [2, 2, 1]
    for page in (one, two):
        assert "the answer is 42" in page
        assert "the answer is 41" not in page
    book.change("requirements.txt", "1.0", "1.1")
    rebuild("3 executed, 0 unchanged")
    assert counts() == [3, 3, 2]
    book.change("book/two.md", "the answer is", "the reply is")
    one, two = rebuild("1 executed, 2 unchanged")
    assert counts() == [3, 4, 2]
    assert "the reply is 42" in two

    # What was executed before is shown again, with other settings and back with these.
    book.change("src/evidence/helper.py", "42", "41")
    one, two = rebuild("2 executed, 1 unchanged")
    assert counts() == [4, 5, 2]
    assert "the answer is 42" not in one
    with mock.patch.dict(os.environ, EVIDENCE_MNIST="full"):
        rebuild("3 executed, 0 unchanged")
    book.change("src/evidence/helper.py", "41", "42")
    one, two = rebuild("0 executed, 3 unchanged")
    assert counts() == [5, 6, 3]
    assert "the answer is 42" in one
    assert "the reply is 42" in two

    # The download is the page as it is now, although no notebook is kept for it.
    download = (book.root / "_build/html/_notebooks/two.ipynb").read_text(encoding="utf-8")
    assert download == notebook_text(executed(book.path("two"), open_cache(book.root)))
    assert "the reply is 42" in download
    assert '_notebooks/two.ipynb"' in two


def test_failing_cell_and_failing_claim_fail_every_build_until_mended(tmp_path, capsys):
    book = SmallBook(
        tmp_path,
        {
            "error": [code("1 / 0")],
            "claim": [equation("eq-square"), code(CLAIM.format(power=3))],
            "good": [code(count("good"))],
        },
    )
    # As the Makefile does it, in a process of its own.
    run = book.command("build")
    said = plain(run.stderr)
    assert run.returncode == 1
    assert "book/error.md failed" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "book/claim.md failed" in said
    assert "claim 'eq-square' does not hold: left and right differ by 1" in said
    assert not (book.root / "_build/html/book/good.html").exists()

    book.change("book/claim.md", "x**3, right", "x**2, right")
    assert book.main("build") == 1
    said = plain(capsys.readouterr().err)
    assert "book/error.md failed" in said
    assert "book/claim.md" not in said
    # The page that did not fail was executed once.
    assert executions(book, "good") == [1]

    # Jupyter Book by itself does not pass it either.
    assert build(book.root) == 1
    assert "error.md: WARNING: Executing notebook failed" in plain(capsys.readouterr().err)

    book.change("book/error.md", "1 / 0", "1 / 1")
    assert book.main("build") == 0
    assert "squares agree" in book.html("claim")
    assert "squares agree" in book.html("ledger")


def test_stopped_build_is_not_relied_on(tmp_path, capsys, monkeypatch):
    book = SmallBook(tmp_path, {"one": ["![](images/favicon.svg)\n"]})

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(page_extension, "offer_notebook", stop)
        assert book.main("build") == 1
        capsys.readouterr()
    assert (book.root / "_build/.doctrees/environment.pickle").exists()
    for _ in range(2):
        assert book.main("build") == 1
        assert "a picture has no alternative text" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages are read one by one")
def test_pages_read_and_written_side_by_side_are_the_same(tmp_path, monkeypatch):
    exercise = "```{exercise} To code: more\n:label: ex-N\n\nDo $x_N$.\n```\n"
    solution = "```{solution} ex-N\n:class: dropdown\n\nSee {eq}`eq-N` and {eq}`eq-0`.\n```\n"
    parts = [equation("eq-N", r"x_N = \frac{1}{N}"), code("hold(N)"), exercise, solution]
    pages = {f"p{n}": [part.replace("N", str(n)) for part in parts] for n in range(7)}
    workers = []
    for method in ("_read_parallel", "_write_parallel"):
        original = getattr(Builder, method)

        def spy(builder, docnames, nproc, original=original):
            workers.append(nproc)
            return original(builder, docnames, nproc)

        monkeypatch.setattr(Builder, method, spy)
    built = []
    for cores in (1, 3):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        (tmp_path / str(cores)).mkdir()
        book = SmallBook(tmp_path / str(cores), pages)
        for n, name in enumerate(pages):
            book.keep_outputs(name, claim(f"eq-{n}"))
        assert book.main("build") == 0
        html = book.root / "_build/html"
        files = [*html.rglob("*.html"), *html.rglob("*.ipynb"), html / "searchindex.js"]
        built.append({str(path.relative_to(html)): path.read_text("utf-8") for path in files})
    # The process that starts the others to write works as well.
    assert workers == [3, 2]
    assert len(built[0]) > 14
    assert built[0] == built[1]
    assert "7 equations are claimed" in built[1]["book/ledger.html"]


# --- execution ----------------------------------------------------------------------------------

THREADS = """\
import os
import numpy, scipy.linalg, sklearn, torch
from threadpoolctl import threadpool_info
pools = threadpool_info()
print(torch.get_num_threads(), {pool["num_threads"] for pool in pools}, len(pools) > 0)
print({name: os.environ[name] for name in %r})"""
SUM = """\
import numpy as np
a = np.random.default_rng({seed}).standard_normal((400, 400))
print(repr((a @ a).sum()), repr(np.linalg.svd(a)[1].sum()))"""
MEET = """\
import time
from pathlib import Path
Path("../{me}.here").touch()
end = time.monotonic() + 290
while not Path("../{other}.here").exists():
    assert time.monotonic() < end, "the other page is not running"
    time.sleep(0.05)"""


def outputs(book):
    cache = open_cache(book.root)
    return [notebook_text(executed(page, cache)) for page in find_pages(book.root)]


def test_pages_run_side_by_side_on_one_thread_each_and_give_the_same_outputs(tmp_path, monkeypatch):
    for name in KERNEL_SETTINGS:
        monkeypatch.setenv(name, "4")
    pages = {f"sum{seed}": [code(SUM.format(seed=seed))] for seed in range(2)}
    books = []
    for jobs in (1, 2):
        (tmp_path / str(jobs)).mkdir()
        books.append(SmallBook(tmp_path / str(jobs), pages))
    books[1].page("sum2", code(MEET.format(me="a", other="b")))
    books[1].page("sum3", code(MEET.format(me="b", other="a")))
    books[1].page("threads", code(THREADS % list(KERNEL_SETTINGS)))
    books[1].contents([*pages, "sum2", "sum3", "threads"])

    execute_pages(books[0].root, jobs=1)
    runs = execute_pages(books[1].root, jobs=2)
    assert [run.page.stem for run in runs] == [*pages, "sum2", "sum3", "threads"]
    first, second = outputs(books[0]), outputs(books[1])
    assert first == second[:2]
    assert first[0] != first[1]
    assert "1 {1} True" in second[4]
    assert str(KERNEL_SETTINGS) in second[4]


def test_no_more_kernels_run_than_asked_for(tmp_path, monkeypatch):
    running, most = 0, 0

    class Client:
        async def async_execute(self):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

    monkeypatch.setattr(execution, "_client", lambda page, notebook: Client())
    book = SmallBook(tmp_path, {f"page{n}": [code(f"print({n})")] for n in range(6)})
    execute_pages(book.root, jobs=2)
    assert most == 2


def test_outputs_that_were_half_written_are_made_again(tmp_path, capsys):
    book = SmallBook(tmp_path, {"one": [code("print('whole')")]})
    execute_pages(book.root)
    (kept,) = (book.root / "_build/.executed").rglob("base.ipynb")
    text = kept.read_text(encoding="utf-8")
    kept.write_text(text[: len(text) // 2], encoding="utf-8")
    execute_pages(book.root)
    assert "whole" in outputs(book)[0]


def cells(*sources):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources])


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        (lambda book: book.change("src/evidence/helper.py", "41", "42"), True),
        (lambda book: rename(book, "src/evidence/helper.py", "src/evidence/other.py"), True),
        (lambda book: book.write("src/evidence/__init__.py", "1 + 1"), True),
        (lambda book: book.change("requirements.txt", "1.0", "1.1"), True),
        (lambda book: os.environ.update(EVIDENCE_MNIST="full"), True),
        (lambda book: book.change("src/evidence/helper.py", "A helper", "The helper"), False),
        (lambda book: book.write("src/evidence/apart.py", "1 + 2"), False),
        (lambda book: book.write("src/evidence/helper.css", "a {}"), False),
        (lambda book: book.write("book/one.md", "# One\n"), False),
    ],
)
def test_what_outputs_depend_on(tmp_path, change, matters):
    book = SmallBook(tmp_path, {})
    page = cells("from evidence import helper")
    before = execution_key(page, book.root)
    assert execution_key(page, book.root) == before
    change(book)
    assert (execution_key(page, book.root) != before) == matters


def test_a_page_that_only_ipython_can_read_depends_on_the_whole_package(tmp_path):
    book = SmallBook(tmp_path, {})
    page = cells("%time import evidence.helper")
    before = execution_key(page, book.root)
    book.write("src/evidence/apart.py", "1 + 2")
    assert execution_key(page, book.root) != before


def test_a_page_that_writes_to_stderr_fails_every_build_and_says_what_it_wrote(tmp_path, capsys):
    noise = "import sys\nprint('font cache', file=sys.stderr)"
    book = SmallBook(tmp_path, {"noisy": [code("1"), code(noise)], "good": [code(count("good"))]})
    for _ in range(2):
        assert book.main("build") == 1
        assert (
            "book/noisy.md failed:\ncell 2 wrote to stderr:\nfont cache" in capsys.readouterr().err
        )
    assert book.main("notebooks") == 1
    assert not list((book.root / "notebooks").glob("*.ipynb"))
    book.change("book/noisy.md", "stderr)", "stdout)")
    assert book.main("build") == 0
    assert executions(book, "good") == [1]


def test_kernels_find_a_list_of_fonts_and_no_settings_of_the_reader(tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    (own / "matplotlibrc").write_text("lines.linewidth: 77\n")
    monkeypatch.setenv("MPLCONFIGDIR", str(own))
    look = """\
import os
from pathlib import Path
print(len(list(Path(os.environ["MPLCONFIGDIR"]).glob("fontlist*.json"))))
import matplotlib
print(matplotlib.rcParams["lines.linewidth"])"""
    book = SmallBook(tmp_path / "book", {"fonts": [code(look)]})
    # In a process of its own, which has not asked for fonts yet.
    result = book.command("execute")
    assert result.returncode == 0, result.stderr
    assert '"1\\n1.5\\n"' in outputs(book)[0].replace('",\n      "', "")


WAITING = "another build of this book is running: waiting"


def test_a_second_build_waits_for_the_first(tmp_path):
    book = SmallBook(tmp_path, {"one": [code("print('whole')")]})
    commands = {
        "book": [sys.executable, "-m", "evidence_book", "build"],
        "jupyter-book": [Path(sys.executable).with_name("jupyter-book"), "build", ".", "-W"],
    }
    with only_build(book.root):
        waiting = [
            subprocess.Popen(
                command, cwd=book.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            for command in commands.values()
        ]
        for process in waiting:
            said = ""
            while WAITING not in said:
                line = process.stdout.readline()
                assert line, said
                said += line
        assert not list((book.root / "_build/html").rglob("*.html"))
    for process in waiting:
        said = process.communicate()[0]
        assert process.returncode == 0, said
    assert "whole" in book.html("one")


# --- commands -----------------------------------------------------------------------------------


def test_wrong_folder_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["build"])
    assert f"there is no _toc.yml in {tmp_path}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["execute", "build", "notebooks", "check-pairs"])
def test_unknown_page_is_named(tmp_path, command, capsys):
    book = SmallBook(tmp_path, {"one": []})
    book.contents(["one", "nowhere"])
    assert book.main(command) == 1
    assert "_toc.yml names 'book/nowhere', but there is no file" in capsys.readouterr().err


def test_header_without_end_is_named(tmp_path, capsys):
    book = SmallBook(tmp_path, {"one": []})
    book.write("book/one.md", "---\njupytext:\n")
    assert book.main("execute") == 1
    assert re.search(r"the header of .*one\.md has no end", capsys.readouterr().err)


HEADERS = {
    "as jupytext writes it": (lambda text: text, True),
    "blank behind the line": (lambda text: text.replace("---", "--- ", 1), True),
    "blank before the colon": (lambda text: text.replace("jupytext:", "jupytext :"), True),
    "quoted": (lambda text: text.replace("jupytext:", "'jupytext':"), True),
    "remarks": (lambda text: text.replace("---\n", "---  # MyST\n# x\n", 1), True),
    "ends of lines as on Windows": (lambda text: text.replace("\n", "\r\n"), True),
    "the entry of myst-nb": (lambda text: "---\nfile_format: mystnb\n---\n", True),
    "another format": (lambda text: text.replace("format_name: myst", "format_name: light"), False),
    "no header": (lambda text: "", False),
    "of other entries": (lambda text: "---\ntitle: Page\n---\n", False),
    "within the page": (lambda text: "\n" + text, False),
}


@pytest.mark.parametrize("header", HEADERS)
def test_one_rule_decides_what_is_a_notebook(tmp_path, header):
    change, expected = HEADERS[header]
    page = tmp_path / "one.md"
    page.write_bytes((change(HEADER) + "# One\n\n" + code("1 + 1")).encode())
    assert is_notebook(page) == expected
    # As myst-nb is given it.
    assert is_myst_markdown_notebook(page.read_text(encoding="utf-8-sig")) == expected
    if expected:
        assert [cell.source for cell in read_page(page).cells] == ["# One", "1 + 1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ufeff" + HEADER, "begins with a byte order mark, .*: expected UTF-8 without one"),
        (
            "---\njupytext:\n---\n",
            "names no format: expected .*format_name: myst`, got 'jupytext:'",
        ),
        ("---\njupytext: myst\n---\n", "names no format: .* got 'jupytext: myst'"),
        ("-" + HEADER, "cannot be read"),
        (HEADER + "```{code-cell}\n---\na: [\n---\n1\n```\n", "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["execute", "notebooks", "check-pairs"])
def test_header_that_tools_read_differently_is_named(tmp_path, capsys, text, message, command):
    book = SmallBook(tmp_path, {"one": []})
    book.write("book/one.md", text)
    nbformat.write(nbformat.v4.new_notebook(), book.root / "notebooks/one.ipynb")
    assert book.main(command) == 1
    assert re.search(rf"one\.md {message}", capsys.readouterr().err)


def test_page_that_is_executed_without_a_notebook_fails_the_build(tmp_path, capsys, monkeypatch):
    book = SmallBook(tmp_path, {"one": [code("1 + 1")], "two": []})
    execute_pages(book.root)
    # As if myst-nb went by another rule.
    found = [book.path("two")]
    monkeypatch.setattr(page_extension, "find_pages", lambda root: found)
    assert build(book.root) == 1
    said = plain(capsys.readouterr().err)
    assert re.search(
        r"one\.md: WARNING: this page is executed, and is none of those that have", said
    )
    assert said.count("WARNING") == 1


def test_malformed_contents_are_named(tmp_path, capsys):
    book = SmallBook(tmp_path, {"one": []})
    book.write("_toc.yml", "format: jb-book\n")
    assert book.main("execute") == 1
    assert "root" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_impossible_number_of_kernels_is_refused(tmp_path, jobs, capsys):
    book = SmallBook(tmp_path, {"one": []})
    with pytest.raises(SystemExit, match="2"):
        book.main("execute", "--jobs", jobs)
    assert "--jobs" in capsys.readouterr().err
    if jobs == "0":
        with pytest.raises(ValueError, match="jobs: expected 1 or more, got 0"):
            execute_pages(book.root, jobs=0)


# --- serving ------------------------------------------------------------------------------------


def wait_for(condition, process):
    end = time.monotonic() + 3600
    while not (found := condition()):
        assert process.poll() is None, "the server ended"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
    return found


def test_serving_goes_on_after_a_failed_build_and_shows_what_is_saved(tmp_path):
    book = SmallBook(tmp_path, {"one": [equation("eq-lonely"), "Old prose.\n"]})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = book.root / "serve.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "evidence_book", "serve", "--port", str(port)],
            cwd=book.root, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def page():
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/book/one.html") as answer:
                return answer.read().decode()
        except OSError:
            return ""

    try:
        # The first build fails for the equation without a claim; its pages are served.
        first = wait_for(page, server)
        assert "Old prose" in first
        assert f"ws://127.0.0.1:{port}/websocket-reload" in first
        assert "equation 'eq-lonely' has no claim" in log.read_text()
        assert "the build failed" in log.read_text()
        # What a build or a notebook session writes starts no build.
        book.write("notebooks/note.ipynb", "{}")
        book.write("_build/html/other.txt", "")
        time.sleep(2)
        # Saved as some editors do: under another name, then renamed.
        book.page("new", "New prose.\n")
        rename(book, "book/new.md", "book/one.md")
        wait_for(lambda: "New prose" in page(), server)
        wait_for(lambda: "\nbuilt\n" in log.read_text(), server)
        assert log.read_text().count("the build failed") == 1
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
        assert "Traceback" not in log.read_text()
    finally:
        server.kill()
        server.wait()


# --- the lock -----------------------------------------------------------------------------------


def locked():
    lines = (REPO / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [
        Requirement(line) for line in lines if line.strip() and not line.lstrip().startswith("#")
    ]


def test_lock_fits_any_machine():
    text = (REPO / "requirements.txt").read_text(encoding="utf-8")
    assert not locking.MACHINE_BOUND.findall(text)
    assert not locking.CUDA.findall(text)
    assert all(re.fullmatch(r"==[^+]+", str(one.specifier)) for one in locked())


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_lock_holds_one_version_of_each_requirement(python, system):
    environment = {**default_environment(), "sys_platform": system}
    environment |= {"python_version": python, "python_full_version": f"{python}.0"}
    held = [one for one in locked() if one.marker is None or one.marker.evaluate(environment)]
    versions = {canonicalize_name(one.name): str(one.specifier)[2:] for one in held}
    assert len(versions) == len(held)
    settings = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    project = settings["project"]
    asked = [
        *project["dependencies"],
        *itertools.chain(*project["optional-dependencies"].values()),
        *settings["tool"]["uv"]["constraint-dependencies"],
    ]
    assert len(asked) > 40
    for one in map(Requirement, asked):
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), one


def test_lock_names_the_direct_requirements_that_run_here():
    versions = {canonicalize_name(one.name): str(one.specifier)[2:] for one in locked()}
    for name in ("torch", "jupyter-book", "sphinx", "myst-nb", "numpy"):
        assert versions[name] == version(name).partition("+")[0]


@pytest.mark.parametrize(
    "line",
    [
        "torch==2.13.0+cpu",
        "--index-url https://packages.invalid/simple",
        "tool @ file:///home/me/tool",
        "-e /home/me/tool",
        "    # from https://packages.invalid/simple",
    ],
)
def test_lock_of_this_machine_alone_is_refused(tmp_path, monkeypatch, line):
    book = SmallBook(tmp_path, {})
    before = (book.root / "requirements.txt").read_text()
    monkeypatch.setattr(locking, "_compile", lambda *arguments: f"good==1.0\n{line}\n")
    with pytest.raises(locking.LockError, match=re.escape(line)):
        locking.lock(book.root)
    assert (book.root / "requirements.txt").read_text() == before


def test_lock_leaves_cuda_out_and_keeps_what_fits(tmp_path, monkeypatch):
    book = SmallBook(tmp_path, {})
    calls = []

    def compile_lock(root: Path, draft: Path, *options: str) -> str:
        calls.append((draft.read_text() if draft.exists() else None, options))
        return (
            "nvidia-cublas==1\ncuda-toolkit==2 ; x\ntriton==3\nnvidiam==4\n"
            if not options
            else "a==1\n"
        )

    monkeypatch.setattr(locking, "_compile", compile_lock)
    locking.lock(book.root)
    without = tuple(
        f"--no-emit-package={name}" for name in ("nvidia-cublas", "cuda-toolkit", "triton")
    )
    assert calls == [("something==1.0\n", ()), ("something==1.0\n", without)]
    assert (book.root / "requirements.txt").read_text() == locking.HEADER + "a==1\n"
    locking.lock(book.root, upgrade=True)
    assert calls[2][0] is None


def test_requirements_that_cannot_be_read_leave_the_lock(tmp_path, capsys):
    book = SmallBook(tmp_path, {})
    book.write("pyproject.toml", "[project]\ndependencies = [\n")
    assert book.main("lock") == 1
    assert "pyproject.toml" in capsys.readouterr().err
    assert (book.root / "requirements.txt").read_text() == "something==1.0\n"

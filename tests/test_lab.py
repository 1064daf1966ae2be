"""`make lab`: what is saved in JupyterLab reaches the page, and the other way round."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from small_book import REPO, SmallBook, code

from evidence_book.pairing import problems, write_notebooks

# Longer than what a line of YAML has by itself, and of several lines.
OPTIONS = f"""\
tags: [hide-input]
mystnb:
  image:
    alt: {"A line that rises slowly, " * 9}then not, and q's "end" (100 %)
  figure:
    name: fig-line
    caption: |
      The first line of a caption, which ends in $\\mathcal{{N}}(0, I)$ and in many more words than
      eighty characters hold, ä.
"""


class Server:
    """The server of JupyterLab, asked as JupyterLab asks it."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def ask(self, path: str, content: dict | None = None) -> tuple[str, bytes]:
        request = urllib.request.Request(
            f"{self.base}{path}",
            method="GET" if content is None else "PUT",
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": "token t", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return answer.url, answer.read()

    def load(self, path: str) -> dict:
        return json.loads(self.ask(f"/api/contents/{path}?content=1")[1])

    def save(self, model: dict) -> None:
        self.ask(
            f"/api/contents/{model['path']}", {"type": "notebook", "content": model["content"]}
        )


@pytest.fixture
def book(tmp_path):
    root = tmp_path / "book"
    root.mkdir()
    shutil.copy(REPO / "jupytext.toml", root)
    parts = ["Some prose.\n", code("1 + 1"), code("plot()", options=OPTIONS), "More prose.\n"]
    book = SmallBook(root, {"part/one": parts})
    book.keep_outputs("part/one", {"text/plain": "2"}, {"text/plain": "<Figure>"})
    write_notebooks(root)
    return book


@pytest.fixture
def lab(book, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    options = ["--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=t"]
    log = tmp_path / "log"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "evidence_book", "lab", *options],
            cwd=book.root, env={**os.environ, **own}, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    server = Server(port)
    try:
        end = time.monotonic() + 300
        while True:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < end, log.read_text(encoding="utf-8")
            try:
                server.ask("/api")
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_what_is_saved_reaches_the_page_and_what_the_page_says_is_opened(book, lab):
    # The notebooks' folder is what opens.
    assert lab.ask("/")[0].split("?")[0].endswith("/lab/tree/notebooks")
    page, notebook = book.path("part/one"), "notebooks/part/one.ipynb"
    before = page.read_text(encoding="utf-8")

    # A save of what was opened changes nothing of the page.
    model = lab.load(notebook)
    lab.save(model)
    assert page.read_text(encoding="utf-8") == before

    # An edit of the notebook changes that, and nothing else: not what Jupyter notes of its cells.
    model["content"]["cells"][1]["metadata"] |= {"collapsed": True, "scrolled": True}
    model["content"]["cells"][1]["metadata"] |= {"execution": {"iopub.status.busy": "x"}}
    cell = model["content"]["cells"][0]
    cell["source"] = cell["source"].replace("Some prose", "My prose")
    lab.save(model)
    after = before.replace("Some prose", "My prose")
    assert page.read_text(encoding="utf-8") == after

    # An edit of the page is what is opened next.
    book.change("book/part/one.md", "More prose", "The page's prose")
    sources = [cell["source"] for cell in lab.load(notebook)["content"]["cells"]]
    assert sources[-1] == "The page's prose."

    # Nothing is lost by writing the notebooks, and nothing is asked.
    assert write_notebooks(book.root) == [book.root / notebook]
    assert page.read_text(encoding="utf-8") == after.replace("More prose", "The page's prose")
    assert problems(book.root) == []
    assert lab.load(notebook)["content"]["cells"][0]["source"].endswith("My prose.")

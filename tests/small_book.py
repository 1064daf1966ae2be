"""A small book in a folder of its own, with the settings of the real one."""

from __future__ import annotations

import contextlib
import copy
import gc
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from unittest import mock

import nbformat
from jinja2 import Environment
from jupyter_cache.base import CacheBundleIn
from sphinx.config import Config

from evidence.claims import Claim, Rejection
from evidence_book.__main__ import main
from evidence_book.execution import open_cache
from evidence_book.pages import read_page

REPO = Path(__file__).parents[1]
HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""
TOC = """format: jb-book
root: book/index
defaults:
  numbered: false
parts:
  - caption: Part
    numbered: true
    chapters:
{chapters}
  - caption: Reference
    chapters:
      - file: book/ledger
"""


def code(source: str, tags: Iterable[str] = (), options: str = "") -> str:
    """A code cell of a page; `options` are lines of YAML."""
    lines = [*([f"tags: [{', '.join(tags)}]"] if tags else []), *options.strip("\n").splitlines()]
    header = "\n".join(["---", *lines, "---", ""]) if lines else ""
    return f"```{{code-cell}} ipython3\n{header}{source}\n```\n"


def equation(label: str, tex: str = "a = b") -> str:
    return f"$$\n{tex}\n$$ ({label})\n"


def claim(label: str, statement: str = "both sides agree", **changes) -> Claim:
    """A claim as it comes out of a cell in which it held."""
    held = {
        "kind": "exact",
        "measure": "error",
        "value": 2.5e-16,
        "tolerance": 1e-9,
        "cases": 1234,
        "rejected": (Rejection("a sign flipped", 0.75),),
    }
    return Claim(label=label, statement=statement, **{**held, **changes})


_compile, _compiled = Environment.compile, {}


def compile_once(environment: Environment, source: str, *arguments, **options):
    """Compile a template, which takes a quarter of a small build, once in this process."""
    key = (
        type(environment), *sorted(environment.extensions), source, *arguments,
        *sorted(options.items()),
    )  # fmt: skip
    if key not in _compiled:
        _compiled[key] = _compile(environment, source, *arguments, **options)
    return _compiled[key]


@contextlib.contextmanager
def what_is_there_left_alone() -> Iterator[None]:
    """Hide all objects of this process from what goes through them again and again in a build."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class SmallBook:
    """A book with an index, a ledger, and the notebook pages that a test writes."""

    def __init__(self, root: Path, pages: Mapping[str, Iterable[str]]):
        self.root = root
        for folder in ("book/images", "src/evidence", "notebooks"):
            (root / folder).mkdir(parents=True)
        for name in ("_config.yml", "book/images/favicon.svg", "notebooks/conftest.py"):
            shutil.copy(REPO / name, root / name)
        self.write("requirements.txt", "something==1.0\n")
        self.write("src/evidence/__init__.py", "")
        self.write("src/evidence/helper.py", '"""A helper."""\nANSWER = 41\n')
        self.write("book/references.bib", "")
        self.write("book/index.md", "# A small book\n\nWelcome.\n")
        self.write("book/ledger.md", "# Ledger\n\n```{ledger}\n```\n")
        for name, parts in pages.items():
            self.page(name, *parts)
        self.contents(pages)

    def copied(self, root: Path) -> SmallBook:
        """Return a copy in another folder, with all outputs and notebooks."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        twin = copy.copy(self)
        twin.root = root
        return twin

    def write(self, path: str, text: str) -> Path:
        (self.root / path).write_text(text, encoding="utf-8")
        return self.root / path

    def contents(self, names: Iterable[str]) -> None:
        chapters = "\n".join(f"      - file: book/{name}" for name in names)
        self.write("_toc.yml", TOC.format(chapters=chapters))

    def path(self, name: str) -> Path:
        return self.root / "book" / f"{name}.md"

    def page(self, name: str, *parts: str) -> Path:
        self.path(name).parent.mkdir(exist_ok=True)
        return self.write(f"book/{name}.md", HEADER + f"# Page {name}\n\n" + "\n".join(parts))

    def change(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text(encoding="utf-8")
        assert old in text
        self.write(path, text.replace(old, new))

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run the command line, as the Makefile does."""
        return subprocess.run(
            [sys.executable, "-m", "evidence_book", *arguments],
            cwd=self.root, capture_output=True, text=True,
        )  # fmt: skip

    def built(self) -> Path:
        """Build the book; return the folder of its HTML."""
        result = self.command("build")
        assert result.returncode == 0, result.stdout + result.stderr
        return self.root / "_build" / "html"

    def keep_outputs(self, name: str, *results: object) -> None:
        """Give a page's cells outputs as if they had been executed; None is no output."""
        notebook = read_page(self.path(name))
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for count, (cell, result) in enumerate(zip(cells, results, strict=True), start=1):
            cell.execution_count = count
            if result is not None:
                data = result if isinstance(result, dict) else result._repr_mimebundle_()
                cell.outputs = [
                    nbformat.v4.new_output("execute_result", data, execution_count=count)
                ]
        bundle = CacheBundleIn(notebook, self.path(name), data={"execution_seconds": 1.0})
        open_cache(self.root).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)

    def main(self, *arguments: str) -> int:
        """Run a command in this process, which spares the start of another."""
        # Extensions add to the lists that are Sphinx's defaults. Found longer, they would have the
        # next build in this process write all pages, needed or not.
        defaults = copy.deepcopy(Config.config_values)
        with (
            contextlib.chdir(self.root),
            mock.patch.object(Config, "config_values", defaults),
            mock.patch.object(Environment, "compile", compile_once),
            what_is_there_left_alone(),
        ):
            return main(list(arguments))

    def html(self, name: str) -> str:
        return (self.root / "_build/html/book" / f"{name}.html").read_text(encoding="utf-8")

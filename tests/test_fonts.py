"""The fonts that come with the book: what they hold, and that figures are set in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from fontTools.ttLib import TTFont
from matplotlib import font_manager

from evidence import plotting
from evidence_book import browser, fonts

REPO = Path(__file__).parents[1]
STYLE = fonts.FOLDER / "fonts.css"
# Where text stands that a page may show: its source, its outputs, figures, and the book's program.
TEXTS = [
    path
    for pattern in (
        "book/**/*.md",
        "notebooks/**/*.ipynb",
        "src/evidence/**/*.py",
        "src/evidence/live/*.js",
        "src/evidence/live/*.css",
        "src/evidence_book/*.py",
        "src/evidence_book/static/*.css",
        "src/evidence_book/static/*.js",
        "src/evidence_book/templates/*.html",
    )
    for path in sorted(REPO.glob(pattern))
    if path != REPO / "src/evidence_book/fonts.py"
]
# With the fonts of the system hidden, and nothing kept of an earlier run.
DRAW = """
import matplotlib.pyplot as plt
from matplotlib import font_manager
from evidence import plotting
plotting.use_style()
figure, ax = plt.subplots()
ax.set(title="β → ½", xlabel=r"$p_\\theta(x)$ and $10^{-3}$", xscale="log")
figure.savefig("figure.png")
for weight, style in (("normal", "normal"), ("bold", "normal"), ("normal", "italic")):
    wanted = font_manager.FontProperties(weight=weight, style=style)
    print(font_manager.findfont(wanted, fallback_to_default=False))
"""


@pytest.fixture(autouse=True)
def fresh_style():
    with mpl.rc_context():
        yield
    plt.close("all")


def shown(text):
    """The characters of a text, also of those written by their numbers."""
    return set(re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), text)) - {"\n"}


def test_a_character_by_its_number_is_found():
    assert shown(r"f\u2032 x") == {"f", "′", " ", "x"}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(REPO)))
def test_the_fonts_have_every_character_of_the_book(path):
    """One that is missing is added to the characters in `evidence_book.fonts`."""
    covered = fonts.covered(STYLE.read_text(encoding="utf-8"))
    have = covered["Evidence Serif"] | covered["Evidence Sans"]
    assert shown(path.read_text(encoding="utf-8")) - have == set()


def test_what_the_style_sheet_says_is_what_was_cut():
    covered = fonts.covered(STYLE.read_text(encoding="utf-8"))
    for kind, characters in fonts.CHARACTERS.items():
        family = f"Evidence {kind.title()}"
        assert covered[family] == set(characters)
        assert covered[f"{family} Stand-in"] == covered[family]
    for path in plotting.FONTS.glob("*.ttf"):
        assert set(map(chr, TTFont(path).getBestCmap())) == covered["Evidence Sans"]


def test_every_font_that_the_style_sheet_names_is_there_and_small():
    named = set(re.findall(r'url\("(.*?)"\)', STYLE.read_text(encoding="utf-8")))
    assert named == {path.name for path in fonts.FOLDER.glob("*.woff2")}
    assert named >= {f"{face.name}.woff2" for face in fonts.FACES}
    for name in named:
        font = (fonts.FOLDER / name).read_bytes()
        assert font[:4] == b"wOF2"
        assert len(font) < 20_000


def test_fonts_keep_their_licence_and_not_their_name():
    """The licence reserves the name of the originals."""
    for kind in fonts.PACKAGES:
        licence = (fonts.FOLDER / f"LICENSE-{kind}.txt").read_text(encoding="utf-8")
        assert "SIL Open Font License, Version 1.1" in licence
    assert (plotting.FONTS / "LICENSE-sans.txt").exists()
    for path in plotting.FONTS.glob("*.ttf"):
        names = TTFont(path)["name"]
        assert names.getDebugName(1) == "Evidence Sans"
        assert "Source" not in names.getDebugName(4) + names.getDebugName(6)
        assert "Adobe" in names.getDebugName(0)
        assert "Open Font License" in names.getDebugName(13)


def test_the_packages_hold_the_fonts():
    settings = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    for package, patterns in settings["tool"]["setuptools"]["package-data"].items():
        folder = REPO / "src" / package
        packed = {path for pattern in patterns for path in folder.glob(pattern)}
        there = {
            path
            for path in folder.rglob("*")
            if path.is_file() and path.suffix in (".ttf", ".woff2", ".css", ".txt", ".html")
        }
        assert there
        assert there <= packed


# Figures


def test_figures_need_no_font_of_the_system(tmp_path):
    with browser.only_fonts(tmp_path) as environment:
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", DRAW],
            cwd=tmp_path,
            env={
                **os.environ,
                **environment,
                "MPLCONFIGDIR": str(tmp_path / "matplotlib"),
                "MPLBACKEND": "agg",
            },
            capture_output=True,
            text=True,
        )
    assert (run.returncode, run.stderr) == (0, "")
    assert [Path(line) for line in run.stdout.split("\n")[:3]] == [
        plotting.FONTS / name for name in ("sans-400.ttf", "sans-600.ttf", "sans-400-italic.ttf")
    ]


def test_formulas_of_figures_are_set_in_the_letters_of_the_pages():
    plotting.use_style()
    assert mpl.rcParams["mathtext.fontset"] == "cm"
    assert mpl.rcParams["font.family"] == list(plotting.FAMILIES)


def test_fonts_are_made_known_once():
    plotting.use_style()
    plotting.use_style()
    own = [e.fname for e in font_manager.fontManager.ttflist if e.name == "Evidence Sans"]
    assert sorted(own) == sorted(map(str, plotting.FONTS.glob("*.ttf")))


def test_without_what_compresses_fonts_nothing_is_written(monkeypatch):
    monkeypatch.setattr("fontTools.ttLib.woff2.haveBrotli", False)
    before = {path: path.read_bytes() for path in fonts.FOLDER.iterdir()}
    with pytest.raises(fonts.FontsError, match="brotli"):
        fonts.make()
    assert {path: path.read_bytes() for path in fonts.FOLDER.iterdir()} == before

"""The vendored fonts: what `make fonts` makes is there, whole, and has the characters it should."""

import pytest
from fontTools.ttLib import TTFont, woff2

from evidence_book import fonts


@pytest.fixture
def without_brotli(monkeypatch):
    monkeypatch.setattr(woff2, "haveBrotli", False)


def files():
    return {
        path.name for folder in (fonts.FOLDER, fonts.PLOTTING_FONTS) for path in folder.iterdir()
    }


def test_every_face_has_its_files_and_its_licence():
    expected = {f"{face.name}.woff2" for face in fonts.FACES}
    expected |= {f"{face.name}.ttf" for face in fonts.FACES if face.kind == "sans"}
    expected |= {f"LICENSE-{kind}.txt" for kind in fonts.PACKAGES}
    assert expected <= files()
    style = (fonts.FOLDER / "fonts.css").read_text(encoding="utf-8")
    assert all(f"{face.name}.woff2" in style for face in fonts.FACES)
    for kind in fonts.PACKAGES:
        text = (fonts.FOLDER / f"LICENSE-{kind}.txt").read_text(encoding="utf-8")
        assert "Open Font License" in text


@pytest.mark.parametrize("face", [face for face in fonts.FACES if face.kind == "sans"])
def test_figures_have_the_characters_that_pages_have(face):
    font = TTFont(fonts.PLOTTING_FONTS / f"{face.name}.ttf")
    missing = set(map(ord, fonts.CHARACTERS["sans"])) - set(font.getBestCmap())
    assert not missing, "".join(map(chr, sorted(missing)))
    assert font["OS/2"].usWeightClass == face.weight


def test_without_a_compressor_nothing_is_written(without_brotli):
    before = {path: path.read_bytes() for path in fonts.FOLDER.iterdir()}
    with pytest.raises(fonts.FontsError, match="brotli"):
        fonts.make()
    assert {path: path.read_bytes() for path in fonts.FOLDER.iterdir()} == before

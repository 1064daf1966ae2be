"""The book's own fonts, cut out of pinned packages: for the pages, and for matplotlib.

Every page, figure and live figure is set in them, so that it looks the same on every machine. The
serif, Newsreader, has the proportions of KaTeX's letters: at one size, text and formulas are
equally high. The sans and the code font are Source Sans and Source Code Pro.

``python -m evidence_book fonts`` makes the files again, byte by byte. It needs npm, which brings
the packages, and brotli, which compresses woff2. All are under the SIL Open Font License, whose
texts lie beside the files. It reserves the names of the originals, so these are called otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fontTools.merge
from fontTools import subset
from fontTools.ttLib import TTFont, woff2
from fontTools.ttLib.tables._g_l_y_f import Glyph, GlyphComponent
from fontTools.varLib import instancer

from evidence.plotting import FONTS as PLOTTING_FONTS

__all__ = [
    "CHARACTERS",
    "FACES",
    "FOLDER",
    "PACKAGES",
    "Face",
    "FontsError",
    "Package",
    "covered",
    "make",
]

FOLDER = Path(__file__).parent / "static" / "fonts"
"""Where the pages' fonts are kept, with their style sheet and their licences."""


class FontsError(RuntimeError):
    """The fonts could not be made; the message says why, and what was there is as it was."""


@dataclass(frozen=True)
class Package:
    """A package of fonts in the npm registry.

    Attributes
    ----------
    name, version : str
        As npm knows it.
    sha512 : str
        Of the package's archive, in base64.
    licence : str
        The file in it that holds the licence.
    """

    name: str
    version: str
    sha512: str
    licence: str


PACKAGES = {
    "serif": Package(
        "@fontsource-variable/newsreader",
        "5.3.0",
        "rrzYi43qMpbzwuFtf9OkWH8sxAPVPcQQQEwXpPtwaKYeJ8yVg5aLs5kawmo1f2Q1t1M38TLmEKCkGVDsYwgdFw==",
        "LICENSE",
    ),
    "sans": Package(
        "source-sans",
        "3.52.0",
        "xsm7qlMI/JwxwNdp6pvpR6l+aZjn90fzOzoeUz/qoohIYbKbDwQNRIz5/ItYs7/hvqLirQNUoDFGXSVA3TU9tw==",
        "LICENSE.md",
    ),
    "mono": Package(
        "source-code-pro",
        "2.42.0",
        "18isp9l4xtOL3r61TwL9m1hjYX9qb1+i7iK0pSHEeWADKuQCOdQkBzhFiv8pBfOP7u9lNTBN75yYif2HUdyiyg==",
        "LICENSE.md",
    ),
}
"""Where each of the three kinds comes from."""


@dataclass(frozen=True)
class Face:
    """One cut of a font.

    Attributes
    ----------
    kind : str
        ``serif``, ``sans`` or ``mono``.
    weight : int
        400, or 600 for what is bold.
    italic : bool
        Whether it is.
    sources : tuple of str
        Files of the package; each adds the characters that those before lack.
    """

    kind: str
    weight: int
    italic: bool
    sources: tuple[str, ...]

    @property
    def family(self) -> str:
        """The name in style sheets and in matplotlib."""
        return f"Evidence {self.kind.title()}"

    @property
    def name(self) -> str:
        """The file's name, without its ending."""
        return f"{self.kind}-{self.weight}{'-italic' if self.italic else ''}"


def _faces() -> Iterator[Face]:
    adobe = {(400, False): "Regular", (400, True): "It", (600, False): "Semibold"}
    adobe[600, True] = "SemiboldIt"
    for (weight, italic), style in adobe.items():
        end = f"wght-{'italic' if italic else 'normal'}.woff2"
        latin = (f"files/newsreader-latin-{end}", f"files/newsreader-latin-ext-{end}")
        yield Face("serif", weight, italic, latin)
        yield Face("sans", weight, italic, (f"TTF/SourceSans3-{style}.ttf",))
        if not italic:  # an italic that had no Greek letters; comments are upright
            yield Face("mono", weight, italic, (f"TTF/SourceCodePro-{style}.ttf",))


FACES = tuple(_faces())

ASCII = "".join(map(chr, range(0x20, 0x7F)))
LETTERS = "áäåçèéêíñóôöøúüćčšžÄÅÉÖÜß"
PUNCTUATION = "\u00a0‘’“”–—…·°±×½²"
GREEK = "αβγδεζηθικλμνξοπρσςτυφχψωΓΔΘΛΞΠΣΦΨΩ"
SIGNS = "−√∞≈≠≤≥∂∑←↑→↓↔▸▾◂✓●"
RAISED_AND_LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉"
# The footer's sign, a prime, thin spaces, a bar and a tilde over a letter, and signs of the noise
# schedule: ᾱₜ, λₜ, β̃ₜ, 10⁻³.
IN_FIGURES = "©′\u2009\u2011\u0303\u0304ᾱₜ⁻‖"

CHARACTERS = {
    "serif": ASCII + LETTERS + PUNCTUATION + "−",
    "sans": ASCII + LETTERS + PUNCTUATION + GREEK + SIGNS + RAISED_AND_LOWERED + IN_FIGURES,
    "mono": ASCII + LETTERS + PUNCTUATION + GREEK + SIGNS + RAISED_AND_LOWERED + "‖",
}
"""What each kind is cut down to, of what its package has. What the serif lacks, the sans has; a
test fails where a page shows a character that neither has."""

KATEX = FOLDER.parent / "katex" / "fonts"
# Of KaTeX's 28 kB of rare signs, pages use double-struck capitals and the end of a proof.
DOUBLE_STRUCK = "double-struck"
# With the space: without it, a browser takes a line's height from the next font, and loads that.
DOUBLE_STRUCK_CHARACTERS = " □" + "".join(map(chr, range(ord("A"), ord("Z") + 1)))

FEATURES = ("kern", "liga", "mark", "mkmk", "ccmp", "locl", "tnum", "pnum")
# Ligatures would hide letters from who reads code; kerning is none where all are equally wide.
CODE_FEATURES = ("mark", "mkmk", "ccmp")

# What stands in until a font has come: a local one of the same widths as this kind, on average, and
# with its line. Each group of names has one set of widths.
STAND_INS = {
    "serif": ("Times New Roman", "Liberation Serif", "Tinos", "Nimbus Roman"),
    "sans": ("Arial", "Liberation Sans", "Arimo", "Helvetica", "Nimbus Sans"),
    "mono": ("Courier New", "Liberation Mono", "Cousine"),
}
STAND_IN_WIDTHS = {"serif": 0.4029, "sans": 0.4544, "mono": 0.6001}
"""The mean width of the letters of `SPECIMEN` in those, in em."""
SPECIMEN = (
    "a numbered equation is a promise that a cell keeps, and each of them is executed on the page"
)

STYLE_HEADER = "/* Made by `python -m evidence_book fonts`. */\n"


def make() -> list[Path]:
    """Make all fonts, their style sheet and copies of their licences; return what was written.

    Raises
    ------
    FontsError
        If npm or brotli is not there, a package is another than the pinned one, or it lacks a
        character.
    """
    if not woff2.haveBrotli:
        raise FontsError("brotli, which compresses woff2, is not installed: pip install brotli")
    files: dict[Path, bytes] = {}
    faces: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        packages = {
            kind: _unpacked(package, Path(folder) / kind) for kind, package in PACKAGES.items()
        }
        for kind, package in PACKAGES.items():
            licence = (packages[kind] / package.licence).read_bytes()
            files[FOLDER / f"LICENSE-{kind}.txt"] = licence
            if kind == "sans":
                files[PLOTTING_FONTS / "LICENSE-sans.txt"] = licence
        for face in FACES:
            font = _cut(face, packages[face.kind])
            files[FOLDER / f"{face.name}.woff2"] = _bytes(font, "woff2")
            if face.kind == "sans":
                files[PLOTTING_FONTS / f"{face.name}.ttf"] = _bytes(font, None)
            style = "italic" if face.italic else "normal"
            weights = "100 500" if face.weight == 400 else "501 900"
            faces.append(_rule(face.family, style, weights, face.name, font))
            if face.weight == 400 and not face.italic:
                faces.append(_stand_in_rule(face, font))
    signs = _subset(
        _read(KATEX / "KaTeX_AMS-Regular.woff2"), map(ord, DOUBLE_STRUCK_CHARACTERS), FEATURES
    )
    files[FOLDER / f"{DOUBLE_STRUCK}.woff2"] = _bytes(signs, "woff2")
    faces.append(_rule("Evidence Double-struck", "normal", "400", DOUBLE_STRUCK, signs))
    files[FOLDER / "fonts.css"] = (STYLE_HEADER + "".join(faces)).encode()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(content)
        temporary.replace(path)
    return sorted(files)


def _unpacked(package: Package, folder: Path) -> Path:
    """Have npm bring a package, check that it is the pinned one, and unpack it."""
    npm = shutil.which("npm")
    if npm is None:
        raise FontsError("npm, which brings the packages of the fonts, is not installed")
    folder.mkdir()
    wanted = f"{package.name}@{package.version}"
    run = subprocess.run(
        [npm, "pack", "--silent", wanted], cwd=folder, capture_output=True, text=True
    )
    if run.returncode:
        raise FontsError(f"npm could not bring {wanted}: {run.stderr.strip()}")
    (archive,) = folder.glob("*.tgz")
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.sha512:
        raise FontsError(f"{wanted}: expected the SHA-512 {package.sha512}, got {found}")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "package"


def _cut(face: Face, package: Path) -> TTFont:
    """Return a face of one weight, with the characters that the book uses and a name of its own."""
    wanted = {ord(character) for character in CHARACTERS[face.kind]}
    parts = []
    for source in face.sources:
        font = _read(package / source)
        if "fvar" in font:
            font = instancer.instantiateVariableFont(font, {"wght": face.weight})
        if face.kind == "sans":
            _add_lowered_t(font)
        here = wanted & font.getBestCmap().keys()
        wanted -= here
        parts.append(_subset(font, here, FEATURES if face.kind != "mono" else CODE_FEATURES))
    if wanted:
        lacking = "".join(map(chr, sorted(wanted)))
        raise FontsError(f"{', '.join(face.sources)}: expected the characters {lacking}, got none")
    font = parts[0] if len(parts) == 1 else _merged(parts)
    _rename(font, face)
    return font


def _read(path: Path) -> TTFont:
    return TTFont(path, recalcTimestamp=False)


def _subset(font: TTFont, characters: Iterable[int], features: Iterable[str]) -> TTFont:
    # Hints are for screens of a kind that is gone; matplotlib makes its own.
    options = subset.Options(
        layout_features=list(features), hinting=False, name_IDs=["*"], notdef_outline=True
    )
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=characters)
    cutter.subset(font)
    return font


def _merged(parts: list[TTFont]) -> TTFont:
    made, modified = parts[0]["head"].created, parts[0]["head"].modified
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, part in enumerate(parts):
            part.flavor = None
            paths.append(str(Path(folder) / f"{number}.ttf"))
            part.save(paths[-1])
        font = fontTools.merge.Merger().merge(paths)
    font.recalcTimestamp = False
    font["head"].created, font["head"].modified = made, modified
    return font


def _add_lowered_t(font: TTFont) -> None:
    """Add a lowered t, for the signs of a step t, where the font has a raised one."""
    characters, glyphs = font.getBestCmap(), font["glyf"]
    if ord("ₜ") in characters:
        return
    raised = characters[ord("ᵗ")]
    tops = [glyphs[characters[ord(zero)]].yMax for zero in "⁰₀"]
    lowered = GlyphComponent()
    lowered.glyphName, lowered.x, lowered.y, lowered.flags = raised, 0, tops[1] - tops[0], 0
    glyph = Glyph()
    glyph.numberOfContours, glyph.components = -1, [lowered]
    name = "tinferior.evidence"
    font.setGlyphOrder([*font.getGlyphOrder(), name])
    glyphs.glyphs[name] = glyph
    glyph.recalcBounds(glyphs)
    font["hmtx"][name] = font["hmtx"][raised]
    for table in font["cmap"].tables:
        if table.isUnicode():
            table.cmap[ord("ₜ")] = name


def _rename(font: TTFont, face: Face) -> None:
    """Give a font the book's name, and keep what it says of its makers and its licence."""
    style = {
        (400, False): "Regular",
        (400, True): "Italic",
        (600, False): "Bold",
        (600, True): "Bold Italic",
    }[face.weight, face.italic]
    names = font["name"]
    kept = {0, 5, 8, 9, 11, 13, 14}
    names.names = [record for record in names.names if record.nameID in kept]
    version = names.getDebugName(5)
    full = f"{face.family} {style}"
    script = full.replace(" ", "")
    own = {1: face.family, 2: style, 3: f"{version};{script}", 4: full, 6: script}
    for number, text in own.items():
        names.setName(text, number, 3, 1, 0x409)
    bold = face.weight > 400
    # matplotlib warns where it is asked for bold, which is 700, and finds another number.
    font["OS/2"].usWeightClass = 700 if bold else 400
    font["OS/2"].fsSelection = face.italic * 0x01 + bold * 0x20 or 0x40
    font["head"].macStyle = bold * 1 + face.italic * 2


def _bytes(font: TTFont, flavor: str | None) -> bytes:
    written = io.BytesIO()
    font.flavor = flavor
    font.save(written)
    return written.getvalue()


def _rule(family: str, style: str, weights: str, name: str, font: TTFont) -> str:
    """Return the rule of a style sheet for a face that lies in a file of this name."""
    return (
        "@font-face {\n"
        f'  font-family: "{family}";\n'
        f"  font-style: {style};\n"
        f"  font-weight: {weights};\n"
        "  font-display: block;\n"
        f'  src: url("{name}.woff2") format("woff2");\n'
        f"  unicode-range: {_ranges(font.getBestCmap())};\n"
        "}\n"
    )


def _stand_in_rule(face: Face, font: TTFont) -> str:
    """Return the rule for what stands in: as wide on average, with the same line."""
    characters, widths = font.getBestCmap(), font["hmtx"]
    unit = font["head"].unitsPerEm
    mean = sum(widths[characters[ord(letter)]][0] for letter in SPECIMEN) / len(SPECIMEN) / unit
    scale = mean / STAND_IN_WIDTHS[face.kind]
    line = font["hhea"]
    sources = ", ".join(f'local("{name}")' for name in STAND_INS[face.kind])
    return (
        "@font-face {\n"
        f'  font-family: "{face.family} Stand-in";\n'
        f"  src: {sources};\n"
        f"  size-adjust: {scale:.2%};\n"
        f"  ascent-override: {line.ascent / unit / scale:.2%};\n"
        f"  descent-override: {-line.descent / unit / scale:.2%};\n"
        f"  line-gap-override: {line.lineGap / unit / scale:.2%};\n"
        f"  unicode-range: {_ranges(characters)};\n"
        "}\n"
    )


def _ranges(characters: Iterable[int]) -> str:
    runs: list[list[int]] = []
    for character in sorted(characters):
        if runs and character == runs[-1][1] + 1:
            runs[-1][1] = character
        else:
            runs.append([character, character])
    return ", ".join(
        f"U+{first:X}" if first == last else f"U+{first:X}-{last:X}" for first, last in runs
    )


def covered(style: str) -> dict[str, set[str]]:
    """Return the characters of each family, as the ranges of a style sheet tell."""
    found: dict[str, set[str]] = {}
    for rule in re.findall(r"@font-face \{(.*?)\}", style, re.DOTALL):
        family = re.search(r'font-family: "(.*?)"', rule)[1]
        for run in re.search(r"unicode-range: (.*?);", rule)[1].split(", "):
            first, _, last = run.removeprefix("U+").partition("-")
            numbers = range(int(first, 16), int(last or first, 16) + 1)
            found.setdefault(family, set()).update(map(chr, numbers))
    return found

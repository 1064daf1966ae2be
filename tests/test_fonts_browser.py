"""The fonts of the built pages in a real browser, on a machine with other fonts or with none."""

from __future__ import annotations

import time
from pathlib import Path

import matplotlib as mpl
import pytest
from page_fonts import drawn_fonts, strange_fonts
from small_book import SmallBook, code, equation

from evidence.plotting import FONTS
from evidence_book.browser import opened

pytestmark = pytest.mark.browser

WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}
# Fonts that every machine with this book has, and that look otherwise than its own.
OTHER_FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"
ALWAYS = {
    "serif-400.woff2", "serif-400-italic.woff2", "serif-600.woff2",
    "sans-400.woff2", "sans-600.woff2", "mono-400.woff2", "double-struck.woff2",
}  # fmt: skip
FULL_LINE = (
    "Nobody needs seven hundred and eighty-four numbers to say which digit it is, and a network "
    "that is made to pass them all through a narrow place finds out how few of them there need "
    "be: thirty-two are enough for most of what the eye asks for, and with two there is a map of "
    "all the digits which can be drawn on paper, in which near is alike and far is not. "
)
TEXT = f"""
{FULL_LINE}

A picture $x$ with $D = 784$ numbers, and 784 in the text; *emphasis*, **weight**, ***both***,
an apostrophe’s curl, “quotes”, 10 ± 0.5, 2 × 3,
and {{math}}`\\mathbb{{E}}_q[\\mathcal{{L}}] \\square`.

> A quotation of a sentence.

- `code` in a line: `β = σ`
- [a link](#the-rest)

| name | value |
|-|-|
| width | 712 |

(the-rest)=
## The *rest*

```{{admonition}} A box
With some text in it.
```
"""
PLOT = """import matplotlib.pyplot as plt
from evidence import plotting
plotting.use_style()  # σ → ½
figure, ax = plt.subplots()
ax.plot([1e-3, 1, 1e3], [-1, 0, 1], label=r"$p_\\theta(x)$, β")
ax.set(xscale="log", xlabel="nats"); ax.legend()
plt.show()"""
CAPTION = """mystnb:
  image:
    alt: A line.
  figure:
    name: fig-line
    caption: A line, and $x$ = 784.
"""
MODELS = """import numpy as np
import torch
from torch import nn
from evidence.diffusion.networks import VectorNetwork
from evidence.diffusion.prediction import NetworkDenoiser
from evidence.live import *
torch.manual_seed(0)
decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 784), nn.Sigmoid())
codes, labels = np.random.default_rng(0).normal(size=(600, 2)), np.arange(600) // 60
denoiser = NetworkDenoiser(VectorNetwork(2, hidden=26, blocks=2, condition=8), "eps")
"""
FIGURES = {
    "code_space": "CodeSpace(decoder, codes, labels, point=(0.0, 0.0))",
    "latent_map": "LatentMap(decoder, codes, labels)",
    "jensen": "Jensen(caption='A live figure.')",
    "bound": "Bound()",
    "gradients": "Gradients()",
    "forward": "Forward()",
    "sampling": "Sampling(denoiser)",
}
CLAIM = """from evidence import claims
import torch
x = torch.arange(12.0, dtype=torch.float64)
claims.exact("eq-double", "twice is the sum", left=2 * x, right=x + x, wrong={"thrice": 3 * x})"""

# As on all pages: half of what counts as good.
LARGEST_SHIFT = 0.05
WATCH_SHIFT = """
window.layoutShift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.layoutShift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
SETTLED = """() => document.fonts.ready.then(() => new Promise((resolve) =>
  setTimeout(() => requestAnimationFrame(() => setTimeout(resolve)), 200)))"""
# How far digits and lower-case letters reach above the line, in a text and in a formula.
HEIGHTS = """([text, formula]) => [text, formula].map((selector) => {
  const { fontSize, fontFamily } = getComputedStyle(document.querySelector(selector));
  const context = document.createElement("canvas").getContext("2d");
  context.font = `${10 * parseFloat(fontSize)}px ${fontFamily}`;
  return ["784", "x", "H"].map((word) => context.measureText(word).actualBoundingBoxAscent / 10);
})"""
X_HEIGHT = """(selector) => {
  const { fontSize, fontFamily } = getComputedStyle(document.querySelector(selector));
  const context = document.createElement("canvas").getContext("2d");
  context.font = `${10 * parseFloat(fontSize)}px ${fontFamily}`;
  return context.measureText("x").actualBoundingBoxAscent / 10;
}"""
LINE_LENGTHS = """() => {
  const paragraph = [...document.querySelectorAll("section > p")]
    .find((p) => p.textContent.startsWith("Nobody needs"));
  const words = paragraph.firstChild;
  const lines = [];
  const range = document.createRange();
  for (let i = 0; i < words.length; i++) {
    range.setStart(words, i);
    range.setEnd(words, i + 1);
    const top = range.getBoundingClientRect().top;
    if (lines.at(-1)?.top === top) lines.at(-1).length += 1;
    else if (range.getBoundingClientRect().width) lines.push({ top, length: 1 });
  }
  return lines.slice(0, -1).map((line) => line.length);
}"""
GUARD = """(fill) => {
  const { prototype } = CanvasRenderingContext2D;
  window.truePixels = prototype.getImageData;
  if (!fill) return;
  prototype.getImageData = function (...place) {
    const pixels = window.truePixels.apply(this, place);
    const random = () => Math.floor(256 * Math.random());
    pixels.data.forEach((_, i) => { pixels.data[i] = fill === "white" ? 255 : random(); });
    return pixels;
  };
}"""
STARTED = """() => [...document.querySelectorAll(".live-figure")].every(
  (figure) => figure.matches(".live-started") && !figure.querySelector(".sp-busy"))"""
CANVASES = """() => [...document.querySelectorAll(".live-figure")].map((figure) => ({
  kind: figure.dataset.live,
  dark: figure.querySelector(".live-root").classList.contains("live-dark"),
  canvases: [...figure.querySelectorAll("canvas")].map((canvas) => {
    const context = canvas.getContext("2d");
    const { data } = window.truePixels.call(context, 0, 0, canvas.width, canvas.height);
    return Array.from(data).join();
  }),
}))"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A small book: a page with all that is set in type, and one with all live figures."""
    text = [
        TEXT,
        equation("eq-double", r"\mathbb{E}_q[x + x] = 2 \sum_i x_i"),
        code(CLAIM),
        code(PLOT, options=CAPTION),
        code("print('0.693 − 0.280 = 0.413')"),
    ]
    figures = [code(MODELS), *(code(source) for source in FIGURES.values())]
    book = SmallBook(tmp_path_factory.mktemp("fonts"), {"text": text, "figures": figures})
    return book.built()


def visited(browser, address, size, delay=0.0, **options):
    """Open a page and let it settle; with a delay in seconds, its fonts come so late."""
    context = browser.new_context(viewport=size, reduced_motion="reduce", **options)
    context.add_init_script(WATCH_SHIFT)
    page = context.new_page()
    if delay:

        def wait(route):
            time.sleep(delay)
            route.continue_()

        page.route("**/*.woff2", wait)
    page.goto(address)
    page.evaluate(SETTLED)
    return page


@pytest.fixture(scope="module", params=["text", "figures"])
def name(request):
    return request.param


@pytest.fixture
def text(chromium, server):
    page = visited(chromium, f"{server}/book/text.html", WIDE)
    yield page
    page.context.close()


# The same page everywhere


def test_the_other_fonts_are_others(chromium, server):
    """Otherwise the test above compares a thing with itself."""
    widths = {}
    for fonts in (FONTS, OTHER_FONTS):
        with opened(chromium.browser_type, fonts) as browser:
            page = browser.new_page()
            page.set_content("<span style='font: 20px serif'>Nobody needs 784 numbers</span>")
            widths[fonts] = page.evaluate("document.querySelector('span').offsetWidth")
            page.close()
    assert widths[FONTS] != widths[OTHER_FONTS]


@pytest.fixture(scope="module")
def elsewhere(chromium):
    """A browser that sees other fonts, so that it can fall back to them."""
    with opened(chromium.browser_type, OTHER_FONTS) as browser:
        yield browser


def test_all_text_is_drawn_with_the_fonts_of_the_book(elsewhere, server, name):
    page = visited(elsewhere, f"{server}/book/{name}.html", WIDE)
    if name == "figures":
        start_figures(page)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    families = {font["familyName"] for font in drawn_fonts(page)}
    assert {"Evidence Sans", "Evidence Serif", "Evidence Mono"} <= families
    assert strange_fonts(page) == []
    page.locator("article h1").first.evaluate("(node) => node.append('\u05d0')")
    assert len(strange_fonts(page)) == 1  # a letter that no font of the book has is noticed
    page.context.close()


# Nothing moves


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_moves_when_fonts_come_late(chromium, server, name, size):
    page = visited(chromium, f"{server}/book/{name}.html", size, delay=0.3)
    assert page.evaluate("layoutShift") <= LARGEST_SHIFT
    page.context.close()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_moves_in_a_page_from_a_file(chromium, site, name, size):
    page = visited(chromium, f"file://{site}/book/{name}.html", size)
    assert page.evaluate("layoutShift") <= LARGEST_SHIFT
    page.context.close()


def test_a_page_shows_though_its_fonts_never_come(chromium, server):
    context = chromium.new_context(viewport=WIDE)
    page = context.new_page()
    page.route("**/*.woff2", lambda route: route.abort())
    page.goto(f"{server}/book/text.html")
    page.locator("article h1").wait_for(state="visible", timeout=10_000)
    context.close()


# What it costs


def test_the_fonts_of_a_page_are_small(chromium, server):
    context = chromium.new_context(viewport=WIDE)
    page = context.new_page()
    sizes = {}
    page.on("response", lambda answer: sizes.update({answer.url: answer}))
    page.goto(f"{server}/book/text.html", wait_until="load")
    page.evaluate(SETTLED)
    weights = {
        address.rpartition("/")[2]: len(answer.body())
        for address, answer in sizes.items()
        if address.endswith(".woff2")
    }
    assert weights.keys() >= ALWAYS
    assert sum(weights[name] for name in ALWAYS) <= 95_000, weights
    # This page has something in every one of them.
    assert sum(weights.values()) <= 190_000, weights
    assert "KaTeX_AMS-Regular.woff2" not in weights  # its few signs in use are in another
    context.close()


# Of one size


def test_text_and_formulas_in_one_line_are_of_one_size(text):
    around, formula = text.evaluate(HEIGHTS, [".bd-article p", ".bd-article p .katex"])
    assert formula == pytest.approx(around, rel=0.03)


def test_a_line_has_about_seventy_characters(text):
    lengths = text.evaluate(LINE_LENGTHS)
    assert len(lengths) >= 3
    assert 64 <= sum(lengths) / len(lengths) <= 76
    assert max(lengths) <= 80


@pytest.mark.parametrize("media", ["screen", "print"])
def test_the_text_is_what_is_largest(text, media):
    text.emulate_media(media=media)
    body = text.evaluate(X_HEIGHT, ".bd-article section > p")
    for selector in ("figcaption .caption-text", "td", ".claim", "pre", ".admonition-title"):
        assert text.evaluate(X_HEIGHT, f".bd-article {selector}") < body, selector
    assert text.evaluate(X_HEIGHT, ".bd-article .admonition p:not([class])") <= body


# Browsers that guard the canvas


def start_figures(page):
    """Scroll to each live figure, so that it starts, and wait until all are drawn."""
    for figure in page.locator(".live-figure").all():
        figure.scroll_into_view_if_needed()
        page.wait_for_timeout(50)
    page.wait_for_function(STARTED)
    page.evaluate("scrollTo(0, 0)")


def drawn_figures(browser, server, fill, scheme):
    context = browser.new_context(viewport=WIDE, reduced_motion="reduce", color_scheme=scheme)
    page = context.new_page()
    page.add_init_script(f"({GUARD})({fill!r})")
    page.goto(f"{server}/book/figures.html")
    page.evaluate(SETTLED)
    start_figures(page)
    found = page.evaluate(CANVASES)
    context.close()
    return {figure.pop("kind"): figure for figure in found}


@pytest.fixture(scope="module", params=["light", "dark"])
def drawn(request, chromium, server):
    return request.param, drawn_figures(chromium, server, "", request.param)


@pytest.mark.parametrize("fill", ["white", "random"])
def test_figures_are_drawn_right_where_pixels_cannot_be_read(chromium, server, drawn, fill):
    scheme, right = drawn
    assert right.keys() == FIGURES.keys()
    assert {figure["dark"] for figure in right.values()} == {scheme == "dark"}
    assert drawn_figures(chromium, server, fill, scheme) == right


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ("#0458a1", [4, 88, 161]),
        ("rgb(1 2 3 / 50%)", [1, 2, 3]),
        ("color-mix(in srgb, red 30%, blue)", [77, 0, 179]),
        ("color(srgb 0.2 none 1.5)", [51, 0, 255]),
        ("lab(50 40 20)", [185, 88, 87]),
        ("oklch(0.6 0.15 50)", [196, 96, 22]),
    ],
)
def test_a_color_is_read_in_every_space(chromium, color, expected):
    from evidence.live.figure import read_script

    page = chromium.new_page()
    page.set_content(f"<p style='color: {color}'>x</p>")
    page.evaluate(f"({GUARD})('random')")
    page.add_script_tag(content=read_script() + "\nwindow.computedColor = computedColor;")
    assert page.evaluate("computedColor(document.querySelector('p'))") == expected
    page.close()

"""The built book in a real browser: every page, over http and from a file."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
from browser import PATIENCE, Record, axe_violations
from bs4 import BeautifulSoup

pytestmark = pytest.mark.browser

REPO = Path(__file__).parents[1]
SITE = REPO / "_build" / "html"
# Pictures of all pages, for people to look at, are taken only when they are asked for.
SCREENSHOTS = REPO / "_build" / "screenshots" if os.environ.get("EVIDENCE_SCREENSHOTS") else None
WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 390, "height": 844}
LONGEST_PICTURE = {"light": 30_000, "dark": 5_000, "narrow": 8_000}
# How much a page may move while it loads: half of what counts as good.
LARGEST_SHIFT = 0.05

WATCH = """
window.layoutShift = 0;
window.shifted = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    window.layoutShift += entry.value;
    const moved = entry.sources.filter((source) => source.node);
    window.shifted.push(...moved.map(({ node }) => `${node.nodeName}.${node.className}`));
  }
}).observe({ type: "layout-shift", buffered: true });
const { error } = console;
console.error = (...words) => {
  window.hasFailed = true;
  error(...words);
};
"""
# Whether the live figures in sight run; one that failed is among the faults of the console.
STARTED = """() => window.hasFailed ||
  [...document.querySelectorAll("[data-live]")].every((figure) => {
    const { top, bottom } = figure.getBoundingClientRect();
    return bottom < 0 || top > innerHeight || figure.matches(".live-started");
  })"""
# What changed is drawn, and scripts have had their turns.
DRAWN = """async () => {
  await document.fonts.ready;
  for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
  await new Promise(requestIdleCallback);
}"""
# Elements that reach over the right edge and are not inside something that scrolls or hides it.
OVERFLOWING = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const wide = [...document.body.querySelectorAll("*")].filter(
    (element) => element.getBoundingClientRect().right > width + 1 && element.checkVisibility());
  const shown = wide.slice(0, 5).map((element) => element.outerHTML.slice(0, 120));
  return [`the page is ${document.documentElement.scrollWidth} wide`, ...shown];
}"""
# Formulas in a line whose full stop went to the next one, where it stands further left.
PARTED = """() => [...document.querySelectorAll(".unbroken:has(.katex)")].filter((joined) => {
  const formula = [...joined.querySelectorAll(".base")].at(-1);
  const stop = document.createRange();
  stop.selectNode(joined.lastChild);
  return joined.lastChild.nodeType === 3 &&
    stop.getBoundingClientRect().left < formula.getBoundingClientRect().right - 2;
}).map((joined) => joined.textContent)"""
# Displayed equations that scroll.
SCROLLED = """() => [...document.querySelectorAll(".katex-display")]
  .filter((equation) => equation.scrollWidth > equation.clientWidth + 1)
  .map((equation) => equation.closest("[id]").id)"""
# Axe is slow on a long page, so it is shown less of it, and nothing less to find. First, the drawn
# half of all mathematics goes that fits in its place, which is hidden from screen readers, and the
# other half becomes one word; so does code, whose parts have no more than colours. Returns letters
# in a colour other than that of the text around, for they are not looked at again.
WITHOUT_PARTS = """() => {
  const colored = [...document.querySelectorAll(".katex-html *")].filter((part) =>
    !part.closest(".annotated") &&  // its colours are looked at by test_annotation_browser
    getComputedStyle(part).color !== getComputedStyle(part.closest(".katex").parentElement).color);
  const found = colored.map((part) => part.outerHTML.slice(0, 120));
  const fits = (box) => !box || box.scrollWidth <= box.clientWidth;
  for (const drawn of [...document.querySelectorAll(".katex-html")].filter(
    (drawn) => fits(drawn.closest(".katex-display")))) drawn.replaceChildren();
  document.querySelectorAll("math").forEach((formula) => formula.replaceChildren("x"));
  for (const code of document.querySelectorAll("article pre:not(:has(:not(span)))")) {
    const plain = code.cloneNode();
    plain.textContent = code.textContent;
    plain.withColors = code;
    code.replaceWith(plain);
  }
  return found;
}"""
# Then colours, which take most of the time, are looked at once for each kind of element: of those
# alike in name, class and style, and within others that are alike in turn, the first is left. What
# has no text any more goes. What is hidden stays, for axe passes over it.
COLOR_RULES = ("color-contrast", "link-in-text-block")
COLORS = {"runOnly": list(COLOR_RULES)}
ALL_BUT_COLORS = {"rules": {rule: {"enabled": False} for rule in COLOR_RULES}}
WITHOUT_REPETITION = """() => {
  for (const plain of document.querySelectorAll("article pre")) {
    if (plain.withColors) plain.replaceWith(plain.withColors);
  }
  document.querySelectorAll(".katex").forEach((mathematics) => mathematics.replaceWith("x"));
  const kinds = new Map();
  const kindOf = (element) => {
    if (!kinds.has(element)) {
      const { color, backgroundColor, fontSize, fontWeight, opacity } = getComputedStyle(element);
      const own = [element.localName, element.className, color, backgroundColor, fontSize,
        fontWeight, opacity].join();
      const isTop = element.localName === "body";
      kinds.set(element, isTop ? own : own + kindOf(element.parentElement));
    }
    return kinds.get(element);
  };
  const seen = new Set();
  const repeated = [];
  for (const element of document.querySelectorAll("body *")) {
    const texts = [...element.childNodes].filter((n) => n.nodeType === 3 && n.data.trim());
    if (texts.length === 0 || !element.checkVisibility({ visibilityProperty: true })) continue;
    // A link is compared with the text around it.
    const isAroundLink = element.querySelector(":scope > a") !== null;
    if (seen.has(kindOf(element)) && !isAroundLink) repeated.push(...texts);
    seen.add(kindOf(element));
  }
  for (const text of repeated) {
    let rest = text.parentElement;
    text.remove();
    const isBare = (part) => part.childElementCount === 0 && !part.textContent.trim();
    while (rest.localName !== "body" && isBare(rest)) {
      const around = rest.parentElement;
      rest.remove();
      rest = around;
    }
  }
}"""
FIRST_FOLDS = """() => {
  const kinds = new Map();
  for (const fold of document.querySelectorAll("article details:not([open])")) {
    if (!kinds.has(fold.className)) kinds.set(fold.className, fold);
  }
  return [...kinds.values()];
}"""
UNREACHABLE_FOLDS = """() => [...document.querySelectorAll("article details > summary")]
  .filter((summary) => summary.tabIndex < 0 || summary.closest("[inert]"))
  .map((summary) => summary.textContent)"""
UNFOLD = "document.querySelectorAll('article details').forEach((d) => (d.open = true))"


def is_redirection(html: str) -> bool:
    return 'http-equiv="refresh"' in html[:500].lower()


def find_pages() -> list[str]:
    """Every page that a reader can come to, as a path below the site."""
    found = [path.relative_to(SITE) for path in SITE.rglob("*.html")]
    return sorted(
        path.as_posix()
        for path in found
        if not path.parts[0].startswith("_")
        and not is_redirection((SITE / path).read_text(encoding="utf-8"))
    )


PAGES = find_pages()


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    if "search.html" not in PAGES:
        pytest.fail(f"there is no built book in {SITE}: run `make book`", pytrace=False)


@pytest.fixture(scope="module")
def site():
    return SITE


@pytest.fixture(scope="module")
def context(chromium):
    # Colours must not be looked at half-way from light to dark.
    context = chromium.new_context(
        viewport=WIDE, color_scheme="light", reduced_motion="reduce", accept_downloads=True
    )
    context.set_default_timeout(PATIENCE)
    context.add_init_script(WATCH)
    yield context
    context.close()


@pytest.fixture(scope="module")
def windows(context, server):
    """One for pages over http, one for pages from files: to make one takes as long as a page."""
    windows = {}
    for kind, base in (("http", server), ("file", f"file://{SITE}")):
        page = context.new_page()
        windows[kind] = page, Record(page, base)
    return windows


@dataclass
class Visit:
    """What was seen of one page in one go through it."""

    faults: dict[str, list[str]] = field(default_factory=dict)
    foreign: dict[str, list[str]] = field(default_factory=dict)
    asked: dict[str, list[str]] = field(default_factory=dict)
    themes: dict[str, str] = field(default_factory=dict)
    overflow: dict[str, list[str]] = field(default_factory=dict)
    axe: dict[str, list[str]] = field(default_factory=dict)
    shift: dict[str, tuple[float, list[str]]] = field(default_factory=dict)
    folds: list[str] = field(default_factory=list)
    colored: list[str] = field(default_factory=list)
    scrolled: list[str] = field(default_factory=list)
    parted: list[str] = field(default_factory=list)


@pytest.fixture(scope="module", params=PAGES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def visit(name, windows):
    """Go through a page once: wide, in light and dark, over http; then narrow, from a file."""
    visit = Visit()
    with opened(visit, windows, "http", name, WIDE, "dark") as page:
        measure(page, visit, "wide")
        look(page, visit, name, "dark")
        page.emulate_media(color_scheme="light")
        look(page, visit, name, "light")
        visit.folds = unopened_folds(page)
        page.evaluate(UNFOLD)
        visit.scrolled = page.evaluate(SCROLLED)
        visit.colored = page.evaluate(WITHOUT_PARTS)
        visit.axe["wide"] = axe_violations(page, ALL_BUT_COLORS)
        page.evaluate(WITHOUT_REPETITION)
        visit.axe["light"] = axe_violations(page, COLORS)
        page.emulate_media(color_scheme="dark")
        page.evaluate(DRAWN)
        visit.axe["dark"] = axe_violations(page, COLORS)
    with opened(visit, windows, "file", name, NARROW, "light") as page:
        measure(page, visit, "narrow")
        look(page, visit, name, "narrow")
        page.evaluate(UNFOLD)
        visit.parted = page.evaluate(PARTED)
        page.evaluate(WITHOUT_PARTS)
        visit.axe["narrow"] = axe_violations(page, ALL_BUT_COLORS)
    return visit


@contextmanager
def opened(visit, windows, kind, name, size, scheme):
    """Open a page; in the end, note what went wrong and what it asked for."""
    page, record = windows[kind]
    page.goto("about:blank")
    record.forget()
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{record.base}/{name}")
    yield page
    visit.faults[kind] = [*record.faults]
    visit.foreign[kind] = [*record.foreign]
    visit.asked[kind] = [*record.asked]


def measure(page, visit, width):
    page.wait_for_function(STARTED)
    page.evaluate(DRAWN)
    # A figure further down starts when a reader comes near.
    for figure in page.locator("[data-live]").all():
        figure.scroll_into_view_if_needed()
        page.wait_for_function(STARTED)
    page.evaluate("scrollTo(0, 0)")
    page.evaluate(DRAWN)
    visit.shift[width] = page.evaluate("[layoutShift, shifted]")
    visit.overflow[width] = page.evaluate(OVERFLOWING)


def look(page, visit, name, how):
    page.evaluate(DRAWN)
    visit.themes[how] = page.evaluate("document.documentElement.dataset.theme")
    if SCREENSHOTS is None:
        return
    # Not as a full page, which takes several times as long.
    width = page.viewport_size["width"]
    height = min(page.evaluate("document.documentElement.scrollHeight"), LONGEST_PICTURE[how])
    with resized(page, {"width": width, "height": height}):
        take_picture(page, f"{name.removesuffix('.html').replace('/', '-')}.{how}")


def take_picture(page, name):
    if SCREENSHOTS is not None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        # Not as png, which takes several times as long.
        page.screenshot(path=SCREENSHOTS / f"{name}.jpeg", quality=85)


@contextmanager
def resized(page, size):
    before = page.viewport_size
    page.set_viewport_size(size)
    yield
    page.set_viewport_size(before)


def unopened_folds(page):
    """Open what folds with the keyboard, the first of each kind; return all that stays shut."""
    stuck = []
    for fold in page.evaluate_handle(FIRST_FOLDS).get_properties().values():
        summary = fold.as_element().query_selector("summary")
        summary.press("Enter")
        if not fold.evaluate("(details) => details.open"):
            stuck.append(summary.inner_text())
    return stuck + page.evaluate(UNREACHABLE_FOLDS)


def test_no_error_over_http(visit):
    assert visit.faults["http"] == []


def test_no_error_from_a_file(visit):
    assert visit.faults["file"] == []


def test_nothing_is_asked_of_another_host(visit):
    assert visit.foreign == {"http": [], "file": []}


def test_no_page_asks_for_what_it_does_not_need(name, visit):
    assert visit.asked.keys() == {"http", "file"}
    for addresses in visit.asked.values():
        asked = " ".join(addresses)
        assert "icons.woff" in asked
        assert "fa-solid" not in asked
        assert ("searchindex.js" in asked) == (name == "search.html")


def test_the_theme_follows_the_system(visit):
    assert visit.themes == {"dark": "dark", "light": "light", "narrow": "light"}


@pytest.mark.parametrize("how", ["wide", "light", "dark", "narrow"])
def test_axe_finds_nothing(visit, how):
    assert visit.axe[how] == []


def test_mathematics_has_the_color_of_its_text(visit):
    assert visit.colored == []


def test_an_equation_fits_a_desktop(visit):
    assert visit.scrolled == []


def test_a_formula_stays_with_its_full_stop(visit):
    assert visit.parted == []


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_nothing_is_cut_off_at_the_side(visit, width):
    assert visit.overflow[width] == []


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_nothing_moves_while_the_page_loads(visit, width):
    amount, moved = visit.shift[width]
    assert amount <= LARGEST_SHIFT, moved


def test_everything_folded_opens_by_keyboard(visit):
    assert visit.folds == []


# What the source of a page holds, before any script


class Source:
    """The HTML of one page, read only as far as a test asks."""

    def __init__(self, path: Path) -> None:
        self.html = path.read_text(encoding="utf-8")

    @cached_property
    def soup(self) -> BeautifulSoup:
        return BeautifulSoup(self.html, "html.parser")

    @cached_property
    def ids(self) -> list[str]:
        return [element["id"] for element in self.soup.find_all(id=True)]

    @cached_property
    def places(self) -> set[str]:
        """The identifiers once more, in a hundredth of the time: of all pages linked to."""
        return set(map(unescape, re.findall(r'<[a-z][^<>]*?\sid="([^"]+)"', self.html)))

    def links(self) -> list[str]:
        """Addresses of all that a page links to or loads."""
        return [
            element[attribute]
            for tag, attribute in (
                ("a", "href"),
                ("link", "href"),
                ("img", "src"),
                ("script", "src"),
            )
            for element in self.soup.find_all(tag, attrs={attribute: True})
        ]


@pytest.fixture(scope="module")
def sources():
    return {name: Source(SITE / name) for name in PAGES}


@pytest.fixture
def source(name, sources):
    return sources[name]


def test_a_page_has_language_title_heading_and_a_skip_link(source):
    assert source.soup.html["lang"] == "en"
    assert source.soup.title.get_text().strip()
    assert len(source.soup.select("article h1, .bd-search-container h1")) == 1
    assert source.soup.select_one("a[href]")["href"] == "#main-content"
    assert "main-content" in source.ids


def test_ids_are_unique(source):
    assert sorted(source.ids) == sorted(set(source.ids))
    assert source.places == set(source.ids)


def test_every_picture_has_an_alternative_text(source):
    pictures = source.soup.select("article img")
    assert [str(image)[:200] for image in pictures if not image.get("alt", "").strip()] == []


def test_every_picture_has_a_size(source):
    """So that the text below does not move when it comes."""
    pictures = source.soup.select("article img")
    sized = [image for image in pictures if image.get("width") and image.get("height")]
    assert len(sized) == len(pictures)


def test_mathematics_needs_no_script(source):
    for element in source.soup.select(".math"):
        # For the eye, and for a screen reader.
        assert element.select(".katex-html"), element
        assert element.select(".katex-mathml"), element
    assert source.soup.select(".katex-error") == []
    assert r"\(" not in source.soup.find("main").get_text()


def test_no_leftover_script_is_loaded(source):
    scripts = " ".join(tag["src"] for tag in source.soup.find_all("script", src=True)).lower()
    for leftover in ("mathjax", "thebe", "require", "fontawesome", "html-manager"):
        assert leftover not in scripts


def test_links_and_fragments_resolve(name, sources):
    broken = []
    for link in sources[name].links():
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            if parts.scheme not in ("https", "http", "mailto", "data"):
                broken.append(link)
            continue
        target = unquote(urlsplit(urljoin(name, parts.path)).path) if parts.path else name
        path = SITE / target
        if not path.is_file() or not path.resolve().is_relative_to(SITE):
            broken.append(f"{link}: no file")
        elif (
            parts.fragment
            and target in sources
            and unquote(parts.fragment) not in sources[target].places
        ):
            broken.append(f"{link}: no such place")
    assert broken == []


def test_every_claim_is_linked_to_its_equation_and_the_ledger(name, source, sources):
    for claim in source.soup.select("div.claim"):
        label = claim["id"].removeprefix("claim-")
        line = claim.select_one(".claim-line")
        equation, ledger = (urlsplit(link["href"]) for link in line.select("a[href]"))
        # An identifier has no capitals; a label may.
        assert (equation.path, equation.fragment) == ("", f"equation-{label.lower()}")
        assert ledger.fragment == f"ledger-{label}"
        place = unquote(urljoin(name, ledger.path))
        row = sources[place].soup.find(id=ledger.fragment)
        back = [urljoin(place, link["href"]) for link in row.select("a[href]")]
        assert back == [f"{name}#equation-{label.lower()}", f"{name}#claim-{label}"]
        assert claim.select("details.claim-rejected li")


def test_the_first_page_leads_to_the_book():
    start = (SITE / "index.html").read_text(encoding="utf-8")
    assert is_redirection(start)
    (target,) = [name for name in PAGES if f"url={name}" in start]
    assert target == "book/index.html"


# What the theme brings along


# A chapter has mathematics, folds and a notebook to download; the smallest is the quickest.
CHAPTER = min(
    (name for name in PAGES if "download-notebook-button" in (SITE / name).read_text("utf-8")),
    key=lambda name: (SITE / name).stat().st_size,
    default=None,
)


@pytest.fixture
def chapter(context, server):
    page = context.new_page()
    page.set_viewport_size(WIDE)
    page.emulate_media(color_scheme="light")
    page.goto(f"{server}/{CHAPTER}")
    yield page
    page.close()


def test_the_skip_link_comes_first_and_leads_to_the_text(chapter):
    chapter.keyboard.press("Tab")
    assert chapter.evaluate("document.activeElement.textContent") == "Skip to main content"
    # It slides into sight.
    chapter.wait_for_function("document.activeElement.getBoundingClientRect().top >= 0")
    assert chapter.evaluate("document.activeElement.getBoundingClientRect().width") > 50
    chapter.keyboard.press("Enter")
    assert chapter.evaluate("location.hash") == "#main-content"
    chapter.keyboard.press("Tab")
    assert chapter.evaluate("document.activeElement.closest('main') !== null")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_search_dialog(chapter, scheme):
    chapter.emulate_media(color_scheme=scheme)
    chapter.keyboard.press("Control+k")
    chapter.wait_for_selector("#pst-search-dialog[open]")
    assert axe_violations(chapter, within="#pst-search-dialog") == []
    chapter.keyboard.press("Escape")
    chapter.wait_for_selector("#pst-search-dialog:not([open])", state="attached")


def test_search_finds_pages(context, server):
    page = context.new_page()
    record = Record(page, server)
    page.goto(f"{server}/search.html?q=autoencoder")
    page.wait_for_selector("#search-results ul.search li a")
    # Summaries of the pages found come a moment later.
    page.wait_for_load_state("networkidle")
    assert page.locator("#search-results ul.search li").count() >= 2
    take_picture(page, "search-results")
    assert axe_violations(page) == []
    assert record.faults == record.foreign == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_a_sidebar_opens_and_closes_on_a_telephone(chapter, side, scheme):
    chapter.emulate_media(color_scheme=scheme)
    chapter.set_viewport_size(NARROW)
    toggle = chapter.locator(f".{side}-toggle")
    assert toggle.get_attribute("aria-label")
    toggle.focus()
    chapter.keyboard.press("Enter")
    sidebar = chapter.locator(f"#pst-{side}-sidebar-modal")
    sidebar.locator("nav a").first.wait_for()
    take_picture(chapter, f"sidebar-{side}.{scheme}")
    assert axe_violations(chapter, within=f"#pst-{side}-sidebar-modal") == []
    chapter.keyboard.press("Escape")
    sidebar.wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_menu_of_downloads(chapter, scheme):
    chapter.emulate_media(color_scheme=scheme)
    button = chapter.locator(".dropdown-download-buttons > button")
    button.focus()
    chapter.keyboard.press("Enter")
    chapter.locator(".dropdown-menu.show a").first.wait_for()
    take_picture(chapter, f"downloads.{scheme}")
    assert axe_violations(chapter, within=".bd-header-article") == []
    with chapter.expect_download() as download:
        chapter.evaluate(
            "() => { const a = document.querySelector('a[href$=\".ipynb\"]');"
            " a.removeAttribute('target'); a.download = ''; a.click(); }"
        )
    assert download.value.suggested_filename.endswith(".ipynb")


def test_light_or_dark_is_remembered(chromium, server):
    context = chromium.new_context(color_scheme="light")
    page = context.new_page()
    page.goto(f"{server}/book/index.html")
    for _ in range(3):
        page.locator(".theme-switch-button").first.click()
        if page.evaluate("document.documentElement.dataset.mode") == "dark":
            break
    page.goto(f"{server}/search.html", wait_until="commit")
    page.wait_for_function("document.body")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    context.close()


def test_without_scripts_the_text_and_the_mathematics_are_there(chromium, server):
    context = chromium.new_context(java_script_enabled=False, viewport=WIDE)
    page = context.new_page()
    page.goto(f"{server}/{CHAPTER}")
    equation = page.locator("div.math .katex-html").first.bounding_box()
    assert equation["width"] > 20
    assert equation["height"] > 10
    fold = page.locator("article details > summary").first
    fold.click()
    assert page.locator("article details[open]").count() == 1
    context.close()

"""What a page costs its reader: bytes, requests and time, beside a stock Jupyter Book page.

The stock page is one of the book's own, built by Jupyter Book with its default settings from the
same text, code and outputs. Live figures are left out of it: by default they would come from
another host.

Each page is opened with an empty cache, from a server on this machine, and each request to another
host is turned down and counted. Bytes are those of the answers, as they are and as gzip would send
them. Times count from the click: to the first paint with content, to the end of loading, and to the
first live figure drawn, which is scrolled to at once.

Live figures are then moved by their first control, a step at each key, and the frames of the
browser are timed: at 60 a second one takes 16.7 ms. The work is the time of the page's main thread
for each of them.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Page, Response, Route
from playwright.sync_api import TimeoutError as TooLong
from sphinx_external_toc.parsing import parse_toc_yaml

from evidence_book.browser import launched, served

__all__ = [
    "Cost",
    "Motion",
    "frame_table",
    "measure",
    "measure_motion",
    "report",
    "stock_site",
    "table",
]

STOCK = "book/bound/jensen"
REPETITIONS = 3
WINDOW = {"width": 1280, "height": 900}
FIRST_PAINT = (
    """() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN"""
)
LOADED = "() => performance.getEntriesByType('navigation')[0].loadEventEnd"
NOW = "() => performance.now()"
CONTROL = "[role=slider], input[type=range], [tabindex='0']"
SECONDS_OF_MOTION = 2.0
WATCH_FRAMES = """() => {
  const seen = window.framesSeen = [];
  const see = (time) => {
    if (window.framesSeen !== seen) return; // another figure is watched by now
    seen.push(time);
    requestAnimationFrame(see);
  };
  requestAnimationFrame(see);
}"""
STOCK_CONFIG = """title: A stock book
execute:
  execute_notebooks: "off"
bibtex_bibfiles:
  - references.bib
"""


@dataclass
class Cost:
    """What one visit of a page cost.

    Attributes
    ----------
    num_bytes, num_gzipped : int
        Of all answers, as they are and compressed.
    requests, outside : int
        How many there were, and how many of them went to another host.
    first_paint, loaded, first_figure : float
        In milliseconds; NaN where it does not happen.
    """

    num_bytes: int = 0
    num_gzipped: int = 0
    requests: int = 0
    outside: int = 0
    first_paint: float = float("nan")
    loaded: float = float("nan")
    first_figure: float = float("nan")


@dataclass
class Motion:
    """How smoothly a live figure moves, in milliseconds.

    Attributes
    ----------
    figure : str
        Its kind.
    median, slow : float
        From frame to frame: the median, and what 95 of 100 stay below.
    work : float
        Of the page's main thread, for each frame.
    """

    figure: str
    median: float
    slow: float
    work: float


def measure(browser: Browser, base: str, name: str) -> Cost:
    """Open a page with an empty cache and return what it cost.

    Parameters
    ----------
    browser : Browser
        A running Chromium.
    base : str
        The address of the site, without a slash at its end.
    name : str
        The page below it, for example ``book/bound/jensen.html``.
    """
    context = browser.new_context(viewport=WINDOW)
    cost = Cost()
    answers: list[Response] = []

    def take(route: Route) -> None:
        cost.requests += 1
        is_outside = not route.request.url.startswith((base, "data:", "blob:"))
        cost.outside += is_outside
        route.abort() if is_outside else route.continue_()

    page = context.new_page()
    page.route("**/*", take)
    page.on("response", lambda answer: answers.append(answer))
    page.goto(f"{base}/{name}", wait_until="load")
    if page.locator("[data-live]").count():
        cost.first_figure = _time_of_first_figure(page)
    with contextlib.suppress(TooLong):
        page.wait_for_load_state("networkidle", timeout=5_000)
    cost.first_paint, cost.loaded = page.evaluate(FIRST_PAINT), page.evaluate(LOADED)
    for answer in answers:
        body = answer.body()
        cost.num_bytes += len(body)
        cost.num_gzipped += min(len(body), len(gzip.compress(body, 6)))
    context.close()
    return cost


def _time_of_first_figure(page: Page) -> float:
    first = page.locator("[data-live]").first
    first.scroll_into_view_if_needed()
    page.wait_for_selector(".live-started", state="attached")
    return page.evaluate(NOW)


def measure_motion(browser: Browser, base: str, name: str) -> list[Motion]:
    """Move each live figure of a page by keys, and time the frames; arguments as in `measure`."""
    context = browser.new_context(viewport=WINDOW)
    page = context.new_page()
    page.goto(f"{base}/{name}", wait_until="load")
    session = context.new_cdp_session(page)
    session.send("Performance.enable")

    def busy_seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    motions = []
    places = page.locator("[data-live]")
    for index in range(places.count()):
        place = places.nth(index)
        place.scroll_into_view_if_needed()
        control = place.locator(f".live-stage :is({CONTROL})").first
        control.focus()
        page.evaluate(WATCH_FRAMES)
        busy, start = busy_seconds(), time.perf_counter()
        keys = 0
        while time.perf_counter() - start < SECONDS_OF_MOTION:
            page.keyboard.press("ArrowRight" if keys // 20 % 2 == 0 else "ArrowLeft")
            keys += 1
        busy = busy_seconds() - busy
        seen = page.evaluate("window.framesSeen")
        gaps = sorted(after - before for before, after in itertools.pairwise(seen))
        motions.append(
            Motion(
                place.get_attribute("data-live"),
                statistics.median(gaps),
                gaps[int(0.95 * len(gaps))],
                1e3 * busy / len(gaps),
            )
        )
    context.close()
    return motions


def stock_site(root: Path, folder: Path) -> str:
    """Build the stock page in a folder, without the book's settings; return its name.

    Raises
    ------
    FileNotFoundError
        If the book is not built.
    """
    from jupyter_book.cli.main import build as jupyter_book_build

    executed = root / "_build" / "jupyter_execute" / f"{STOCK}.ipynb"
    if not executed.is_file():
        raise FileNotFoundError(f"there is no {executed}: run `make book` first")
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        # Of live figures their picture is left, of claims their text.
        for output in cell.get("outputs", ()):
            for kind in [k for k in output.get("data", {}) if "evidence" in k or "widget" in k]:
                del output["data"][kind]
    nbformat.write(notebook, folder / "page.ipynb")
    (folder / "_config.yml").write_text(STOCK_CONFIG)
    (folder / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    shutil.copy(root / "book" / "references.bib", folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        jupyter_book_build.main([str(folder), "-q"], standalone_mode=False)
    return "page.html"


def report(root: Path) -> str:
    """Measure all pages of the built book, the stock page and all live figures; return the tables.

    Raises
    ------
    FileNotFoundError
        If the book is not built.
    """
    site = root / "_build" / "html"
    names = [f"{name}.html" for name in parse_toc_yaml(root / "_toc.yml").keys()]  # noqa: SIM118
    if not all((site / name).is_file() for name in names):
        raise FileNotFoundError(f"there is no complete book in {site}: run `make book` first")
    costs: dict[str, Cost] = {}
    motions: list[Motion] = []
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        stock = stock_site(root, Path(folder))
        with served(Path(folder) / "_build" / "html") as base:
            costs[f"stock Jupyter Book, {STOCK}"] = _median_of_visits(browser, base, stock)
        with served(site) as base:
            for name in names:
                costs[name.removesuffix(".html")] = _median_of_visits(browser, base, name)
                motions += measure_motion(browser, base, name)
    return f"{table(costs)}\n\n{frame_table(motions)}"


def _median_of_visits(browser: Browser, base: str, name: str) -> Cost:
    visits = [measure(browser, base, name) for _ in range(REPETITIONS)]
    cost = visits[0]
    for name_of_time in ("first_paint", "loaded", "first_figure"):
        times = [getattr(visit, name_of_time) for visit in visits]
        setattr(cost, name_of_time, statistics.median(times))
    return cost


def table(costs: dict[str, Cost]) -> str:
    """Write down the costs of pages, one in a line."""
    width = max(map(len, costs))
    lines = [
        f"{'':{width}}     kB   gzipped   requests   outside   first paint   loaded   first figure"
    ]
    for name, cost in costs.items():
        figure = "-" if cost.first_figure != cost.first_figure else f"{cost.first_figure:.0f} ms"
        lines.append(
            f"{name:{width}} {cost.num_bytes / 1e3:6,.0f} {cost.num_gzipped / 1e3:9,.0f} "
            f"{cost.requests:10} {cost.outside:9} {cost.first_paint:10.0f} ms "
            f"{cost.loaded:5.0f} ms {figure:>14}"
        )
    return "\n".join(lines)


def frame_table(motions: list[Motion]) -> str:
    """Write down how smoothly live figures move, one in a line."""
    lines = ["live figure         frame, median    95 % below    work a frame"]
    lines += [
        f"{motion.figure:16} {motion.median:13.1f} ms {motion.slow:10.1f} ms {motion.work:11.1f} ms"
        for motion in motions
    ]
    return "\n".join(lines)

import gzip
import math

import pytest

from evidence_book import budget
from evidence_book.browser import served

pytestmark = pytest.mark.browser

HTML = """<!doctype html><html lang="en"><title>A page</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="style.css">
<p>Some text.</p><img src="http://elsewhere.invalid/picture.png" alt="">"""
STYLE = "p { color: black }" * 1000


@pytest.fixture
def site(tmp_path):
    (tmp_path / "page.html").write_text(HTML)
    (tmp_path / "style.css").write_text(STYLE)
    return tmp_path


def test_every_request_is_counted_and_outside_ones_are_turned_down(site, chromium):
    with served(site) as base:
        cost = budget.measure(chromium, base, "page.html")

    assert (cost.requests, cost.outside) == (3, 1)
    assert cost.num_bytes == len(HTML) + len(STYLE)
    zipped = sum(len(gzip.compress(text.encode(), 6)) for text in (HTML, STYLE))
    assert cost.num_gzipped == zipped
    assert 0 < cost.first_paint < math.inf
    assert cost.loaded > 0


def test_a_page_without_a_live_figure_has_no_time_for_it(site, chromium):
    with served(site) as base:
        cost = budget.measure(chromium, base, "page.html")

    assert math.isnan(cost.first_figure)
    line = budget.table({"page": cost}).splitlines()[1]
    assert line.split()[:5] == ["page", "18", "0", "3", "1"]
    assert line.endswith(" -")


def test_an_unbuilt_book_is_named(tmp_path):
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: page\n")
    (tmp_path / "page.md").write_text("# A page\n")

    with pytest.raises(FileNotFoundError, match="run `make book` first"):
        budget.report(tmp_path)


def test_a_live_figure_is_moved_and_its_frames_are_timed(tmp_path, chromium, monkeypatch):
    monkeypatch.setattr(budget, "SECONDS_OF_MOTION", 0.5)
    (tmp_path / "page.html").write_text(
        '<!doctype html><link rel="icon" href="data:,">'
        '<div data-live="toy"><div class="live-stage">'
        '<input type="range" min="0" max="9" value="5" aria-label="x"></div></div>'
        "<script>document.querySelector('input').oninput = (event) => {"
        " document.title = event.target.value; window.moved = true; }</script>"
    )
    with served(tmp_path) as base:
        (motion,) = budget.measure_motion(chromium, base, "page.html")

    assert motion.figure == "toy"
    assert 0 < motion.median <= motion.slow
    assert motion.work > 0
    assert budget.frame_table([motion]).splitlines()[1].startswith("toy ")

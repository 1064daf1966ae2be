"""Settings of all tests."""

import os
import re

import pytest
from hypothesis import settings

# Of several processes, each computes on one core: the threads of all would wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A slow machine is no failure of the code. The same examples on every run, so a failure comes back.
settings.register_profile("book", deadline=None, derandomize=True)
settings.load_profile("book")


@pytest.fixture(scope="module")
def chromium():
    """A browser."""
    # Here, as only browser tests are to load Playwright.
    from browser import launched

    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the small book for browser tests; a module may have a site of its own."""
    from browser_book import built

    return built(tmp_path_factory)


@pytest.fixture(scope="module")
def kept_windows(chromium):
    """Windows of the browser, kept from test to test."""
    from live_window import Windows

    kept = Windows(chromium)
    yield kept
    kept.close()


@pytest.fixture
def read(kept_windows, server, request):
    """Open windows of the kind that a module names `Reader`: ``read(base=…, **options)``."""
    with kept_windows.lent(server, request.module.Reader) as open_window:
        yield open_window


@pytest.fixture(scope="module")
def server(site):
    """The address of a module's site, over http."""
    from browser import served

    with served(site) as address:
        yield address


@pytest.fixture
def agreement(record_property):
    """Note how well a live figure agrees with Python: ``agreement("Jensen: …")``."""
    return lambda words: record_property("agreement", words)


def pytest_terminal_summary(terminalreporter):
    """Print what tests noted by `agreement`."""
    passed = terminalreporter.stats.get("passed", [])
    notes = {words for report in passed for _, words in report.user_properties}
    if notes:
        terminalreporter.section("live figures against Python, largest differences")
        terminalreporter.line("\n".join(sorted(notes)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``--dist loadfile``, let a file that visits all pages be shared out page by page.

    (Groups, made for this by xdist 3.8, go unnoticed with pytest 9.2.)
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrPage(LoadFileScheduling):
        def _split_scope(self, nodeid):
            page = re.search(r"\[([\w/-]+\.html)", nodeid)
            return super()._split_scope(nodeid) + (page[1] if page else "")

    return ByFileOrPage(config, log) if config.getvalue("dist") == "loadfile" else None

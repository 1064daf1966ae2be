"""Settings of all tests."""

import os

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


@pytest.fixture(scope="module")
def server(site):
    """The address of a module's site, over http."""
    from browser import served

    with served(site) as address:
        yield address


# Before the plug-in that shares tests out among processes looks at the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep together what one browser serves: each file, or each page where a file visits all."""
    for item in items:
        if item.get_closest_marker("browser"):
            page = getattr(item, "callspec", None) and item.callspec.params.get("name")
            item.add_marker(pytest.mark.xdist_group(f"{item.path.name} {page or ''}"))

"""A Chromium without a window, and a local server: for the tests and for `evidence_book.budget`."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Playwright, sync_playwright

from evidence.plotting import FONTS

__all__ = ["NoBrowserError", "hidden_fonts", "launched", "served"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    # Otherwise text is as wide as the machine's settings make it.
    "--font-render-hinting=none",
)
FONTCONFIG = """\
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>{fonts}</dir>
  <cachedir>{cache}</cachedir>
</fontconfig>
"""
ADVICE = """no Chromium was found. Any of these helps:
- install the system's: `apt-get install chromium`, or Google Chrome;
- let playwright fetch one: `python -m playwright install chromium`;
- name one that you have: EVIDENCE_CHROMIUM=/path/to/chromium"""


class NoBrowserError(FileNotFoundError):
    """There is no Chromium, or none where one was said to be."""


def find_chromium(playwright: Playwright) -> str:
    """Return the path of a Chromium: the one named, the system's, or playwright's own."""
    named = os.environ.get("EVIDENCE_CHROMIUM")
    if named:
        if not Path(named).is_file():
            raise NoBrowserError(f"EVIDENCE_CHROMIUM is {named!r}, and no such file exists")
        return named
    found = next(filter(None, map(shutil.which, NAMES)), None)
    own = playwright.chromium.executable_path
    if found is None and not Path(own).is_file():
        raise NoBrowserError(ADVICE)
    return found or own


@contextmanager
def hidden_fonts() -> Iterator[dict[str, str]]:
    """Give the environment variables by which a program sees no font of the system.

    It sees those that the figures are drawn with, for Chromium reads no font at all, not even a
    page's own, where there is none.
    """
    with tempfile.TemporaryDirectory(prefix="evidence-fonts-") as folder:
        settings = Path(folder) / "fonts.conf"
        settings.write_text(
            FONTCONFIG.format(fonts=FONTS, cache=Path(folder) / "cache"), encoding="utf-8"
        )
        yield {"FONTCONFIG_FILE": str(settings)}


@contextmanager
def launched(environment: Mapping[str, str] | None = None) -> Iterator[Browser]:
    """Run a Chromium without a window.

    Parameters
    ----------
    environment : mapping of str to str, optional
        Variables to set; by default those of `hidden_fonts`, so that nothing depends on the fonts
        of the machine. With an empty mapping it sees those as well.
    """
    with ExitStack() as stack:
        if environment is None:
            environment = stack.enter_context(hidden_fonts())
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright),
            args=list(ARGUMENTS),
            env={**os.environ, **environment},
        )
        yield browser
        browser.close()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder to this machine alone; give the address, without a slash at its end."""
    handler = functools.partial(_QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()

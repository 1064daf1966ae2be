"""A Chromium without a window, and a local server: for the tests and for `evidence_book.budget`."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from playwright.sync_api import Browser, BrowserType, sync_playwright

from evidence.plotting import FONTS

__all__ = ["NoBrowserError", "launched", "only_fonts", "opened", "served"]

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


def find_chromium(kind: BrowserType) -> str:
    """Return the path of a Chromium: the one named, the system's, or playwright's own."""
    named = os.environ.get("EVIDENCE_CHROMIUM")
    if named:
        if not Path(named).is_file():
            raise NoBrowserError(f"EVIDENCE_CHROMIUM is {named!r}, and no such file exists")
        return named
    found = next(filter(None, map(shutil.which, NAMES)), None)
    own = kind.executable_path
    if found is None and not Path(own).is_file():
        raise NoBrowserError(ADVICE)
    return found or own


@contextmanager
def only_fonts(folder: Path = FONTS) -> Iterator[dict[str, str]]:
    """Give the environment variables by which a program sees the fonts of a folder alone.

    By default they are those that figures are drawn with. One there must be: where there is none,
    Chromium reads not even the fonts that a page brings.
    """
    with tempfile.TemporaryDirectory(prefix="evidence-fonts-") as place:
        settings = Path(place) / "fonts.conf"
        settings.write_text(
            FONTCONFIG.format(fonts=folder, cache=Path(place) / "cache"), encoding="utf-8"
        )
        yield {"FONTCONFIG_FILE": str(settings)}


@contextmanager
def opened(kind: BrowserType, fonts: Path | None = FONTS) -> Iterator[Browser]:
    """Run a browser of a playwright that runs already; arguments as in `launched`."""
    with only_fonts(fonts) if fonts else nullcontext({}) as environment:
        browser = kind.launch(
            executable_path=find_chromium(kind),
            args=list(ARGUMENTS),
            env={**os.environ, **environment},
        )
        yield browser
        browser.close()


@contextmanager
def launched(fonts: Path | None = FONTS) -> Iterator[Browser]:
    """Run a Chromium without a window.

    Parameters
    ----------
    fonts : Path or None
        The folder of the fonts that it sees beside those of a page. By default it is the book's, so
        that nothing depends on the machine; None are those of the system.
    """
    with sync_playwright() as playwright, opened(playwright.chromium, fonts) as browser:
        yield browser


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

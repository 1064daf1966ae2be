"""What tests in a real browser share: a Chromium, a local server, axe, and a record of a visit."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, sync_playwright

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
ADVICE = """no Chromium was found. Any of these helps:
- install the system's: `apt-get install chromium`, or Google Chrome;
- let playwright fetch one: `python -m playwright install chromium`;
- name one that you have: EVIDENCE_CHROMIUM=/path/to/chromium"""
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def find_chromium(playwright: Playwright) -> str:
    """Return the path of a Chromium: the one named, the system's, or playwright's own."""
    named = os.environ.get("EVIDENCE_CHROMIUM")
    if named:
        if not Path(named).is_file():
            pytest.fail(f"EVIDENCE_CHROMIUM is {named!r}, and no such file exists", pytrace=False)
        return named
    found = next(filter(None, map(shutil.which, NAMES)), None)
    own = playwright.chromium.executable_path
    if found is None and not Path(own).is_file():
        pytest.fail(ADVICE, pytrace=False)
    return found or own


@contextmanager
def launched() -> Iterator[Browser]:
    """Run a Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright), args=list(ARGUMENTS)
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


class Record:
    """What goes wrong in a page, and what it asks of whom.

    Attributes
    ----------
    faults : list of str
        Errors and warnings of the console, errors of scripts, and requests that failed.
    foreign : list of str
        Addresses asked for that do not begin with `base` (data and blobs are within the page).
    """

    def __init__(self, page: Page, base: str) -> None:
        self.base = base
        self.faults: list[str] = []
        self.foreign: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        page.on("console", self._on_console)
        page.on("request", self._on_request)
        page.on("requestfailed", lambda r: self.faults.append(f"failed: {r.url} ({r.failure})"))
        page.on(
            "response",
            lambda r: r.status >= 400 and self.faults.append(f"status {r.status}: {r.url}"),
        )

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.foreign.append(request.url)


def axe_violations(page: Page, options: dict | None = None, within: str = "html") -> list[str]:
    """Return what axe finds wrong in a page as it stands, one line for each element.

    `options` are those of ``axe.run``; `within` is a selector of the part to look at.
    """
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(AXE)
    # Preloading would fetch all style sheets a second time, which a page from a file may not.
    options = {"resultTypes": ["violations"], "preload": False, **(options or {})}
    found = page.evaluate("([within, options]) => axe.run(within, options)", [within, options])
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]

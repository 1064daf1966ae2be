"""What tests in a real browser share: axe, and a record of a visit; and what starts a browser."""

from __future__ import annotations

from importlib.resources import files

from playwright.sync_api import ConsoleMessage, Page, Request

from evidence_book.browser import launched, served

__all__ = ["PATIENCE", "Record", "axe_violations", "launched", "served"]

# Milliseconds to wait for what must come: a busy machine is no fault of a page.
PATIENCE = 300_000

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


class Record:
    """What goes wrong in a page, and what it asks of whom.

    Attributes
    ----------
    asked : list of str
        All addresses asked for.
    faults : list of str
        Errors and warnings of the console, errors of scripts, and requests that failed.
    foreign : list of str
        Addresses asked for that do not begin with `base` (data and blobs are within the page).
    """

    def __init__(self, page: Page, base: str) -> None:
        self.base = base
        self.asked: list[str] = []
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

    def forget(self) -> None:
        """Begin anew: the page is going to be another one."""
        for seen in (self.asked, self.faults, self.foreign):
            seen.clear()

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        self.asked.append(request.url)
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

"""What tests of live figures in a real browser share: a reader's window, and a finger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from browser import Record
from playwright.sync_api import Browser, Locator, Page

FIRST = "EvidenceLive.figures[0]"
IS_NEAR = f"""([trait, goal, within]) => {{
    const value = [{FIRST}.model.get(trait)].flat();
    return Math.hypot(...value.map((number, i) => number - goal[i])) <= within;
}}"""

PLANE_PLACE = """n => {
    const box = n.getBoundingClientRect();
    return [box.left + n.clientLeft, box.top + n.clientTop, n.clientWidth];
}"""
# What Chromium says of tests that look at pixels.
LOOKED_AT = "console: Canvas2D: Multiple readback operations"


class Window:
    """A window of the browser, on a page whose first live figure is looked at."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base = page, base
        self.record = Record(page, base)

    @property
    def figure(self) -> Locator:
        return self.page.locator(".live-figure").first

    def faults(self) -> list[str]:
        """What went wrong, or came from elsewhere."""
        return self.record.faults + self.record.foreign

    def value(self, trait: str) -> Any:
        return self.page.evaluate(f"{FIRST}.model.get({trait!r})")

    def set(self, **values: Any) -> None:
        """Set values from outside, as a kernel does."""
        for trait, value in values.items():
            self.page.evaluate(f"value => {FIRST}.model.set({trait!r}, value)", value)

    def verdict(self) -> str:
        return self.figure.locator(".live-verdict").inner_text()

    def wait_for(self, trait: str, goal: float | Sequence[float], within: float) -> None:
        """Wait until a trait is as near to a value as this.

        What a finger does arrives later than the call that sends it: the browser finds out first
        whether it is a tap, a swipe or a pinch.
        """
        numbers = np.atleast_1d(goal).tolist()
        self.page.wait_for_function(IS_NEAR, arg=[trait, numbers, within])


class PlaneWindow(Window):
    """A window on a figure with a plane of codes and decoded images."""

    def faults(self) -> list[str]:
        return [fault for fault in super().faults() if not fault.startswith(LOOKED_AT)]

    def place(self, code: Sequence[float]) -> tuple[float, float]:
        """Where a code lies in the window."""
        plane = self.value("plane")
        left, top, width = self.figure.locator(".cs-plane").evaluate(PLANE_PLACE)
        scale = width / plane["width"]
        return (
            left + (code[0] - plane["left"]) * scale,
            top + width - (code[1] - plane["bottom"]) * scale,
        )


@contextmanager
def windows(browser: Browser, base: str, kind: type[Window]) -> Iterator[Callable[..., Window]]:
    """Give a function that opens a window, with options of a browser context; close all."""
    contexts = []

    def open_window(base: str = base, **options: Any) -> Window:
        options = {
            "viewport": {"width": 1280, "height": 900},
            "reduced_motion": "reduce",
            **options,
        }
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(10_000)
        return kind(contexts[-1].new_page(), base)

    try:
        yield open_window
    finally:
        for context in contexts:
            context.close()


class Finger:
    """Touches, as the browser gets them from a screen.

    Wait for what they do (`Window.wait_for`): the browser handles them later than it takes them.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.context.new_cdp_session(page)

    def send(self, kind: str, *places: Sequence[float]) -> None:
        points = [{"x": x, "y": y} for x, y in places]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def swipe(self, start: Sequence[float], end: Sequence[float]) -> None:
        """Move from place to place, and lift off while still moving."""
        self.send("touchStart", start)
        for part in np.linspace(0, 1, 9)[1:]:
            self.send("touchMove", tuple(np.add(start, part * np.subtract(end, start))))
        self.send("touchEnd")

    def tap(self, place: Sequence[float]) -> None:
        self.page.touchscreen.tap(*place)

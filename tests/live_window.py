"""What tests of live figures in a real browser share: a reader's window, and a finger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from browser import PATIENCE, Record
from playwright.sync_api import Browser, Locator, Page

WIDE = {"width": 1280, "height": 900}
PHONE = {"has_touch": True, "is_mobile": True, "viewport": {"width": 390, "height": 844}}
FIRST = "EvidenceLive.figures[0]"
IS_NEAR = f"""([trait, goal, within]) => {{
    const value = [{FIRST}.model.get(trait)].flat();
    return Math.hypot(...value.map((number, i) => number - goal[i])) <= within;
}}"""

PLANE_PLACE = """n => {
    const box = n.getBoundingClientRect();
    return [box.left + n.clientLeft, box.top + n.clientTop, n.clientWidth];
}"""
# The heights that live figures take, before any script has run and at any later time; and how much
# of the text was moved since.
HEIGHTS = """
[...document.querySelectorAll(".live-figure")].map((n) => n.getBoundingClientRect().height)
"""
WATCH = f"""
window.shifted = 0;
new PerformanceObserver((list) => {{
  for (const {{ value, sources }} of list.getEntries()) {{
    if (sources.some(({{ node }}) => node?.parentElement?.closest("article"))) shifted += value;
  }}
}}).observe({{ type: "layout-shift", buffered: true }});
document.addEventListener("DOMContentLoaded", () => {{ window.heights = {HEIGHTS.strip()}; }});
"""
FRAMES = """async (count) => {
  await document.fonts.ready;
  for (let i = 0; i < count; i++) await new Promise(requestAnimationFrame);
}"""
STEADY = """(ms) => {
  let time = performance.now();
  performance.now = () => time;
  const request = window.requestAnimationFrame;
  window.requestAnimationFrame = (callback) => request(() => callback((time += ms)));
}"""
# Starts what moves by a button, and stops it by the same in the frame in which something holds, for
# it may be over before a mouse is there.
UNTIL = """(button, holds) => new Promise((resolve) => {
  const look = () => {
    if (!eval(holds)) {
      requestAnimationFrame(look);
      return;
    }
    button.click();
    resolve();
  };
  button.click();
  look();
})"""
# What Chromium says of tests that look at pixels.
LOOKED_AT = "console: Canvas2D: Multiple readback operations"


class Window:
    """A window of the browser, on a page whose first live figure is looked at."""

    def __init__(self, page: Page, base: str, record: Record) -> None:
        self.page, self.base, self.record = page, base, record

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

    def frames(self, count: int = 5) -> None:
        """Let some frames pass: whatever moves by itself, or answers to what was done, does."""
        self.page.evaluate(FRAMES, count)

    def steady(self, ms: float = 16) -> None:
        """From now on, a frame takes that long to the page, however busy the machine is."""
        self.page.evaluate(STEADY, ms)

    def move_until(self, button: Locator, holds: str) -> None:
        """Press a button, and again as soon as an expression of the page holds."""
        button.element_handle().evaluate(UNTIL, holds)

    def start(self, place: int) -> Locator:
        """Scroll to another figure of the page, and wait until it has started."""
        figure = self.page.locator(".live-figure").nth(place)
        figure.scroll_into_view_if_needed()
        figure.and_(self.page.locator(".live-started")).wait_for()
        return figure

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


class Windows:
    """Windows of a browser that are kept from one test to the next.

    To make one takes longer than most tests. A test gets it on an empty page, with nothing stored,
    and with the settings that it asks for.
    """

    # What can be set only when a window is made. All else is set anew for each test.
    LASTING = frozenset({"java_script_enabled", "has_touch", "is_mobile"})

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.kept: dict[Any, list[tuple[Page, Record]]] = defaultdict(list)

    def _make(self, lasting: dict[str, bool]) -> tuple[Page, Record]:
        context = self.browser.new_context(**lasting)
        context.set_default_timeout(PATIENCE)
        context.add_init_script(WATCH)
        page = context.new_page()
        return page, Record(page, "")

    @contextmanager
    def lent(self, base: str, kind: type[Window]) -> Iterator[Callable[..., Window]]:
        """Give a function that opens a window, with options of a browser context.

        With ``alone=True``, nobody gets the window later.
        """
        taken = []

        def open_window(
            base: str = base, *, viewport: dict[str, int] = WIDE, color_scheme: str = "light",
            reduced_motion: str = "reduce", alone: bool = False, **lasting: bool,
        ) -> Window:  # fmt: skip
            assert lasting.keys() <= self.LASTING, lasting
            key = frozenset(lasting.items())
            page, record = self.kept[key].pop() if self.kept[key] else self._make(lasting)
            taken.append((None if alone else key, page, record))
            page.set_viewport_size(viewport)
            page.emulate_media(
                media="screen", color_scheme=color_scheme, reduced_motion=reduced_motion
            )
            record.base = base
            record.forget()
            return kind(page, base, record)

        try:
            yield open_window
        finally:
            for key, page, record in taken:
                if key is None:
                    page.context.close()
                    continue
                if page.url != "about:blank":
                    page.evaluate("localStorage.clear(); sessionStorage.clear()")
                    page.goto("about:blank")
                self.kept[key].append((page, record))

    def close(self) -> None:
        """Close all windows."""
        for kept in self.kept.values():
            for page, _ in kept:
                page.context.close()


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

"""Annotated equations in a real browser: colours, what marks what, print, and no script."""

import itertools
import re

import numpy as np
import pytest
from browser import axe_violations
from live_window import WIDE, Window

pytestmark = pytest.mark.browser

NAMES = ["reconstruction", "rate", "third", "the last one"]
NARROW = {"width": 360, "height": 740}

# The numbers of the terms that are marked, in the equation and below it.
MARKED = """() => [".katex", ".terms"].map((part) => [...document.querySelectorAll(`${part} .term`)]
  .filter((term) => getComputedStyle(term).backgroundColor !== "rgba(0, 0, 0, 0)")
  .map((term) => Number(term.className.match(/term-(\\d)/)[1])))"""
PLACES = """() => [...document.querySelectorAll(".annotated, .annotated *, .annotated ~ *")]
  .map((part) => JSON.stringify(part.getBoundingClientRect()))"""
SIZES = """() => {
  const top = document.querySelector(".annotated").getBoundingClientRect().top;
  return [...document.querySelectorAll(".annotated, .annotated *")].map((part) => {
    const box = part.getBoundingClientRect();
    return [box.left, box.top - top, box.width, box.height].map(Math.round).join();
  });
}"""
# A colour as it is on the screen, whatever notation it is computed in.
COLORS = """() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const ofAll = (parts, name) => [...document.querySelectorAll(parts)].map((part) =>
    rgb(getComputedStyle(part)[name]));
  return {
    paper: rgb(getComputedStyle(document.body).backgroundColor),
    text: rgb(getComputedStyle(document.querySelector(".annotated dd")).color),
    drawn: ofAll(".katex .term", "color"),
    braces: ofAll(".katex .term .stretchy > span:first-child > svg", "fill"),
    names: ofAll(".terms button", "color"),
    bars: ofAll(".terms .term", "borderLeftColor"),
    marks: ofAll(".terms .term", "backgroundColor"),
  };
}"""
# How the colour-blind see: Machado, Oliveira and Fernandes (2009), wholly without one of the cones.
CONES = {
    "all": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


@pytest.fixture
def read(kept_windows, server):
    """Open the page: `read(**options)` of a browser context."""
    opened = []
    with kept_windows.lent(server, Window) as open_window:

        def open_page(**options):
            opened.append(open_window(**options))
            page = opened[-1].page
            page.goto(f"{server}/book/annotated.html")
            page.locator(".annotated").scroll_into_view_if_needed()
            return page

        yield open_page
        for window in opened:
            assert window.faults() == []


def drawn(page, number):
    return page.locator(f".katex .term-{number}")


def button(page, number):
    return page.get_by_role("button", name=NAMES[number - 1], exact=True)


def marked(page):
    equation, explanations = page.evaluate(MARKED)
    assert equation == explanations
    return equation


# --- colours -----------------------------------------------------------------------------------


def linear(color):
    share = np.array(color) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    light, dark = sorted((linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def oklab(color, cones):
    """Where a colour lies in a space of equal differences (Ottosson, 2020)."""
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    seen = np.clip(np.array(CONES[cones]) @ linear(color), 0, 1)
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ seen)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_term_and_its_explanation_have_one_colour_that_can_be_read(read, scheme):
    page = read(color_scheme=scheme)
    found = page.evaluate(COLORS)
    assert found["drawn"] == found["names"] == found["bars"] == found["braces"]
    assert len(found["drawn"]) == len(NAMES)
    for number, color in enumerate(found["drawn"], start=1):
        button(page, number).click()
        mark = page.evaluate(COLORS)["marks"][number - 1]
        assert mark != found["paper"]
        for ground in (found["paper"], mark):
            assert contrast(color, ground) >= 4.5, (scheme, number)
            assert contrast(found["text"], ground) >= 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("cones", list(CONES))
def test_the_colour_blind_can_tell_them_apart(read, scheme, cones):
    found = read(color_scheme=scheme).evaluate(COLORS)
    for one, other in itertools.combinations(found["drawn"], 2):
        distance = np.linalg.norm(oklab(one, cones) - oklab(other, cones))
        # Neighbours of a usual scale of ten for the colour-blind are nearer.
        assert distance > 0.08, (scheme, cones, one, other)


@pytest.mark.parametrize(("scheme", "size"), [("light", WIDE), ("dark", WIDE), ("dark", NARROW)])
def test_axe_finds_nothing(read, scheme, size):
    page = read(color_scheme=scheme, viewport=size)
    assert axe_violations(page) == []
    button(page, 2).click()
    assert marked(page) == [2]
    assert axe_violations(page, within=".annotated") == []


# --- what marks what ---------------------------------------------------------------------------


@pytest.mark.parametrize("script", [True, False])
def test_the_pointer_on_either_marks_both(read, script):
    page = read(java_script_enabled=script)
    for number in range(1, 5):
        drawn(page, number).hover()
        assert marked(page) == [number]
        page.locator(f".terms .term-{number} dd").hover()
        assert marked(page) == [number]
    page.mouse.move(2, 2)
    assert marked(page) == []


@pytest.mark.parametrize("script", [True, False])
def test_the_keyboard_reaches_every_term(read, script):
    page = read(java_script_enabled=script)
    button(page, 1).focus()
    seen = []
    for _ in range(5):
        name = page.evaluate("document.activeElement.textContent")
        seen.append((name, marked(page)))
        page.keyboard.press("Tab")
    # A link in an explanation is a part of it.
    expected = [("reconstruction", [1]), ("the index", [1])]
    assert seen == [*expected, ("rate", [2]), ("third", [3]), ("the last one", [4])]
    assert marked(page) == []


def test_a_click_keeps_it_marked(read):
    page = read()
    drawn(page, 2).click()
    page.mouse.move(2, 2)
    assert marked(page) == [2]
    assert button(page, 2).get_attribute("aria-pressed") == "true"
    page.locator(".terms .term-3 dd").click()
    page.mouse.move(2, 2)
    assert marked(page) == [3]
    assert button(page, 2).get_attribute("aria-pressed") == "false"
    page.locator(".terms .term-3 dd").click()
    page.mouse.move(2, 2)
    assert marked(page) == []


def test_enter_keeps_it_marked_and_escape_lets_go(read):
    page = read()
    button(page, 3).press("Enter")
    button(page, 4).focus()
    assert marked(page) == [3, 4]
    page.keyboard.press("Escape")
    assert marked(page) == [4]
    assert page.locator("[aria-pressed=true]").count() == 0


def test_a_tap_marks_both(read):
    page = read(has_touch=True, is_mobile=True, viewport=NARROW)
    drawn(page, 1).tap()
    assert button(page, 1).get_attribute("aria-pressed") == "true"
    assert marked(page) == [1]
    button(page, 2).tap()
    assert marked(page) == [2]


@pytest.mark.parametrize("way", ["tap", "focus"])
def test_in_a_narrow_window_the_equation_scrolls_to_the_term(read, way):
    page = read(has_touch=True, viewport=NARROW)
    box = page.locator(".annotated .katex-display")
    assert box.evaluate("(box) => box.scrollLeft") == 0
    if way == "tap":
        button(page, 3).tap()
    else:
        page.locator(".terms .term-1 a").focus()
        for _ in range(2):
            page.keyboard.press("Tab")
    assert marked(page) == [3]
    inner, outer = drawn(page, 3).bounding_box(), box.bounding_box()
    assert inner["x"] >= outer["x"]
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]


def test_selecting_words_is_no_click(read):
    page = read()
    box = page.locator(".terms .term-3 dd p").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 8, steps=4)
    page.mouse.up()
    assert page.evaluate("getSelection().toString()") != ""
    assert button(page, 3).get_attribute("aria-pressed") == "false"


def test_nothing_moves_when_a_term_is_marked(read):
    page = read()
    before = page.evaluate(PLACES)
    for number in range(1, 5):
        drawn(page, number).hover()
        assert page.evaluate(PLACES) == before
        button(page, number).click()
        assert page.evaluate(PLACES) == before


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_marks_fade_in_only_where_motion_is_welcome(read, motion, moves):
    page = read(reduced_motion=motion)
    duration = drawn(page, 1).evaluate("(term) => getComputedStyle(term).transitionDuration")
    assert (duration != "0s") is moves


# --- what is said, printed, and there without a script ------------------------------------------


def test_a_screen_reader_is_told(read):
    page = read()
    group = page.get_by_role("group", name="Equation (1.1) and its terms")
    said = group.aria_snapshot()
    for name in NAMES:
        assert f'button "{name}"' in said
        # In the mathematics, and before its explanation.
        assert page.locator(".katex-mathml", has_text=re.sub(" ", "\xa0", name)).count() == 1
    assert page.locator(".annotated [aria-hidden] :is(a, button, [tabindex])").count() == 0
    session = page.context.new_cdp_session(page)
    tree = session.send("Accessibility.getFullAXTree")["nodes"]
    told = {
        node["name"]["value"]: node.get("description", {}).get("value", "")
        for node in tree
        if node.get("role", {}).get("value") in ("button", "toggleButton", "ToggleButton")
    }
    assert told["rate"] == "how many nats."
    assert told["the last one"] == "a ratio."


def test_without_a_script_all_is_there(read):
    page = read(java_script_enabled=False)
    assert page.locator("[aria-pressed]").count() == 0
    for number, name in enumerate(NAMES, start=1):
        assert button(page, number).is_visible()
        assert page.locator(f".terms .term-{number} dd").is_visible()
        assert name.split()[0] in drawn(page, number).inner_text().replace("\xa0", " ")


def test_paper_has_colours_names_and_explanations_and_no_mark(read):
    page = read(color_scheme="dark")
    button(page, 1).click()
    page.emulate_media(media="print")
    assert marked(page) == []
    found = page.evaluate(COLORS)
    assert found["drawn"] == found["names"]
    assert len({tuple(color) for color in found["drawn"]}) == len(NAMES)
    for color in found["drawn"]:
        assert contrast(color, (255, 255, 255)) >= 4.5
    assert page.locator(".terms dd").all_inner_texts()[1] == "how many nats."
    assert page.locator(".annotated").evaluate("(e) => getComputedStyle(e).breakInside") == "avoid"


def test_nothing_moves_when_the_script_has_run(read):
    pages = [read(java_script_enabled=script) for script in (True, False)]
    with_script, without = (page.evaluate(SIZES) for page in pages)
    assert with_script == without

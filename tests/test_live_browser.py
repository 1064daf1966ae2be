"""Live figures in a real browser: in a book of their own, over http and from a file."""

import copy
import math

import numpy as np
import pytest
import torch
from browser import axe_violations
from browser_book import CODE_SPACE
from live_window import HEIGHTS, PHONE, Finger, PlaneWindow

from evidence.live import CodeSpace

pytestmark = pytest.mark.browser

# The values of the decoded image's pixels, four to each: red, green, blue, opacity.
PIXELS = "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data]"
HAS_LIGHT_INK = f"""canvas => {{
    const pixels = ({PIXELS})(canvas);
    const ink = pixels.filter((_, i) => i % 4 < 3 && pixels[i - i % 4 + 3] > 128);
    return ink.reduce((sum, value) => sum + value) > 150 * ink.length;
}}"""


class Reader(PlaneWindow):
    """A window with the code space, and what a reader sees and does in it."""

    def open(self, path="book/part/code-space.html", started=True):
        self.page.goto(f"{self.base}/{path}")
        if started:
            self.figure.locator(".cs-plane").wait_for()
            self.page.wait_for_function("EvidenceLive.figures.length > 0")
            # The plane has been measured and drawn.
            self.figure.locator(".live-ticks text").first.wait_for()
        return self

    def point(self):
        return self.page.evaluate("EvidenceLive.figures[0].model.get('point')")

    def image(self):
        """The pixels of the decoded image, from 0 to 255; the colour they have is kept."""
        pixels = np.array(self.figure.locator(".cs-image").evaluate(PIXELS)).reshape(-1, 4)
        self.ink = pixels[:, :3][pixels[:, 3] > 128]
        return pixels[:, 3]

    def code_per_pixel(self):
        return self.page.evaluate(
            "EvidenceLive.figures[0].model.get('plane').width"
            " / document.querySelector('.cs-plane').clientWidth"
        )


@pytest.fixture(scope="module")
def python():
    """The figure of the page, made in this process."""
    names = {}
    exec(CODE_SPACE, names)
    return CodeSpace(names["decoder"], names["codes"], names["labels"])


def reference(figure, points):
    """Images in float64, by torch, with weights rounded as they are handed over."""
    decoder = figure._decoder
    rounded = copy.deepcopy(decoder).double()
    with torch.no_grad():
        for parameter, original in zip(rounded.parameters(), decoder.parameters(), strict=True):
            parameter.copy_(original.half().double())
        return rounded(torch.tensor(points, dtype=torch.float64)).numpy()


# --- what it computes --------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_page_decodes_as_torch_does(read, site, server, python, scheme, agreement):
    reader = read(server if scheme == "http" else site.as_uri()).open()
    points = np.random.default_rng(1).uniform(-3, 3, size=(50, 2)).tolist()
    decoded = reader.page.evaluate(
        """points => {
            const { model, module } = EvidenceLive.figures[0];
            const decode = module.makeNetwork(model.get("layers"), model.get("weights"));
            return points.map((point) => [...decode(point)]);
        }""",
        points,
    )
    decoded = np.array(decoded)
    expected = reference(python, points)
    assert expected.std(0).mean() > 0.1  # else any constant would agree
    # GELU's error function is the only approximation, within 1.5e-7 of 1.
    error = np.abs(decoded - expected).max()
    assert error < 1e-5
    with torch.no_grad():
        exact = python._decoder(torch.tensor(points, dtype=torch.float32)).numpy()
    rounding = np.abs(decoded - exact).max()
    agreement(f"CodeSpace: {error:.1e} of a pixel's range, {rounding:.1e} by float16 weights")
    assert reader.faults() == []


def check_shown(reader, python):
    """The image and the numbers on the screen belong to the point."""
    point = reader.point()
    expected = np.rint(255 * reference(python, [point])[0])
    assert np.abs(reader.image() - expected).max() <= 1
    python.point = point
    distance, name = python.nearest()
    numbers = reader.figure.locator(".live-number")
    assert numbers.nth(0).inner_text() == f"({point[0]:.2f}, {point[1]:.2f})".replace("-", "−")
    assert numbers.nth(1).inner_text() == f"{distance:.2f} away"
    assert f"at the nearest code, a\u00a0{name}" in reader.figure.locator(".cs-inset").inner_text()
    verdict = "Far from every" if distance > python.far else "Among the"
    assert verdict in reader.figure.locator(".live-verdict").inner_text()


def test_it_starts_at_its_point(read, python):
    reader = read().open()
    assert reader.point() == python.typical[0]
    check_shown(reader, python)


# --- the reader's hand -------------------------------------------------------------------------


def test_the_mouse_drags_the_point(read, python):
    reader = read().open()
    before = reader.image()
    goal = [-0.5, -1.25]
    mouse = reader.page.mouse
    mouse.move(*reader.place(reader.point()))
    mouse.down()
    mouse.move(*reader.place([1.0, 1.0]), steps=5)
    mouse.move(*reader.place(goal), steps=5)
    mouse.up()
    assert math.dist(reader.point(), goal) < 1.5 * reader.code_per_pixel()
    assert np.abs(reader.image() - before).max() > 20
    check_shown(reader, python)
    # Let go, it stays.
    held = reader.point()
    mouse.move(*reader.place([1.0, 1.0]))
    assert reader.point() == held
    # A press beside it brings it there, and never out of the plane.
    mouse.move(*reader.place([0.0, 0.5]))
    mouse.down()
    assert math.dist(reader.point(), [0.0, 0.5]) < 1.5 * reader.code_per_pixel()
    mouse.move(5, 5)
    mouse.up()
    assert reader.point()[0] == python.plane["left"]
    assert reader.faults() == []


def test_the_handle_does_not_jump_to_the_pointer(read):
    reader = read().open()
    start = reader.point()
    x, y = reader.place(start)
    reader.page.mouse.move(x + 6, y - 5)
    reader.page.mouse.down()
    assert math.dist(reader.point(), start) < 1e-9
    reader.page.mouse.up()


def test_the_keyboard_moves_the_point(read, python):
    reader = read().open()
    start, width = reader.point(), python.plane["width"]
    reader.figure.locator("input").first.focus()
    scrolled = reader.page.evaluate("scrollY")
    for key, change in [
        ("ArrowRight", (0.01, 0)), ("ArrowUp", (0, 0.01)), ("ArrowLeft", (-0.01, 0)),
        ("ArrowDown", (0, -0.01)), ("Shift+ArrowLeft", (-0.1, 0)), ("Shift+ArrowUp", (0, 0.1)),
    ]:  # fmt: skip
        start = reader.point()
        reader.page.keyboard.press(key)
        moved = np.subtract(reader.point(), start) / width
        np.testing.assert_allclose(moved, change, atol=1e-9)
    check_shown(reader, python)
    assert reader.page.evaluate("scrollY") == scrolled
    reader.page.keyboard.press("Home")
    assert reader.point()[0] == pytest.approx(python.plane["left"])
    reader.page.keyboard.press("ArrowLeft")
    assert reader.point()[0] == pytest.approx(python.plane["left"])
    assert (
        reader.figure.locator(".live-handle")
        .evaluate("n => getComputedStyle(n, '::before').boxShadow")
        .count("px")
        > 4
    )  # a ring shows the focus


def test_tab_reaches_the_point_then_the_buttons(read):
    reader = read().open()
    reader.figure.locator("input").first.focus()
    names = []
    for _ in range(11):
        reader.page.keyboard.press("Tab")
        names.append(
            reader.page.evaluate(
                "document.activeElement.ariaLabel ?? document.activeElement.textContent"
            )
        )
    assert names == [*[f"Jump to a typical {digit}" for digit in range(10)], "Jump to a hole"]


def test_a_finger_drags_the_point_and_taps(read, python):
    reader = read(**PHONE).open()
    reader.figure.locator(".cs-plane").scroll_into_view_if_needed()
    finger = Finger(reader.page)
    goal = [0.5, -1.0]
    scrolled = reader.page.evaluate("scrollY")
    places = [reader.place(code) for code in (goal, [0.0, 0.0], [-1.0, 1.5])]
    near = 1.5 * reader.code_per_pixel()
    finger.swipe(reader.place(reader.point()), places[0])
    reader.wait_for("point", goal, near)
    assert reader.page.evaluate("scrollY") == scrolled
    check_shown(reader, python)
    # A tap at once after a swipe that ended with speed: the browser may take it for one that is to
    # stop what the swipe set going.
    finger.swipe(places[0], places[1])
    finger.tap(places[2])
    reader.wait_for("point", [-1.0, 1.5], near)
    check_shown(reader, python)
    assert reader.faults() == []


def test_a_finger_beside_the_point_scrolls_the_page(read):
    reader = read(**PHONE).open()
    reader.figure.locator(".cs-plane").scroll_into_view_if_needed()
    before, scrolled = reader.point(), reader.page.evaluate("scrollY")
    x, y = reader.place([-1.0, 0.5])
    Finger(reader.page).swipe((x, y), (x, y - 150))
    reader.page.wait_for_function(f"scrollY > {scrolled} + 50")
    assert reader.point() == before


def test_buttons_jump_to_digits_and_to_holes(read, python):
    reader = read().open()
    for digit in (7, 2):
        reader.figure.get_by_role("button", name=f"Jump to a typical {digit}").click()
        assert reader.point() == python.typical[digit]
        check_shown(reader, python)
        assert reader.figure.locator(".live-number").nth(1).inner_text() == "0.00 away"
    button = reader.figure.get_by_role("button", name="Jump to a hole")
    for hole in [*python.holes, python.holes[0]]:
        button.click()
        assert reader.point() == hole
    check_shown(reader, python)


def test_a_jump_glides_where_motion_is_welcome(read, python):
    reader = read(reduced_motion="no-preference").open()
    reader.steady()
    start, goal = reader.point(), python.typical[5]
    reader.page.evaluate(
        """() => {
            window.seen = [];
            const text = document.querySelector(".live-number");
            const see = () => seen.push(text.textContent);
            new MutationObserver(see).observe(text, { childList: true });
        }"""
    )
    reader.figure.get_by_role("button", name="Jump to a typical 5").click()
    reader.page.wait_for_function(
        "goal => EvidenceLive.figures[0].model.get('point')[0] === goal", arg=goal[0]
    )
    assert start != goal
    assert len(set(reader.page.evaluate("seen"))) > 3
    check_shown(reader, python)


def test_what_is_set_from_outside_shows(read, python):
    # As a kernel does.
    reader = read().open()
    reader.page.evaluate("EvidenceLive.figures[0].model.set('point', [0.25, -0.75])")
    check_shown(reader, python)


def test_two_figures_on_a_page_are_two(read, python):
    reader = read().open()
    first = reader.point()
    second = reader.start(1)
    second.get_by_role("button", name="Jump to a typical 4").click()
    assert reader.point() == first
    point = reader.page.evaluate("EvidenceLive.figures[1].model.get('point')")
    assert point == python.typical[5]


# --- what is said and shown --------------------------------------------------------------------


def test_a_screen_reader_is_told(read, python):
    reader = read().open()
    reader.figure.locator("input").first.focus()
    reader.page.keyboard.press("Shift+ArrowUp")
    python.point = reader.point()
    distance, name = python.nearest()
    code = f"({python.point[0]:.2f}, {python.point[1]:.2f})".replace("-", "−")
    said = f"code {code}, nearest training code {distance:.2f} away, looks like its class {name}"
    status = reader.figure.get_by_role("status")
    reader.page.wait_for_function(
        "([node, said]) => node.textContent.startsWith(said)", arg=[status.element_handle(), said]
    )
    slider = reader.figure.get_by_role("slider").first
    assert slider.get_attribute("aria-label") == "z₁ of the code"
    assert slider.get_attribute("aria-valuetext") == f"code {code}"
    assert reader.figure.get_by_role("meter").get_attribute("aria-valuetext") == f"{distance:.2f}"
    image = reader.figure.get_by_role("img", name=f"Image decoded at the code {code}")
    assert image.count() == 1


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(read, scheme, width):
    reader = read(color_scheme=scheme, viewport={"width": width, "height": 900}).open()
    for _ in range(2):  # among the codes, and in a hole
        assert axe_violations(reader.page) == []
        reader.figure.get_by_role("button", name="Jump to a hole").click()


def test_it_follows_the_pages_colours(read):
    reader = read(color_scheme="light").open()
    reader.image()
    assert reader.ink.mean() < 100
    reader.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    canvas = reader.figure.locator(".cs-image").element_handle()
    reader.page.wait_for_function(HAS_LIGHT_INK, arg=canvas)
    assert reader.page.locator(".cs-class").first.evaluate(
        "n => n.style.getPropertyValue('--cs-color')"
    ) == reader.page.evaluate("EvidenceLive.figures[0].model.get('colors').dark[0]")


# --- the page around it ------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 600, 780, 1280])
def test_nothing_moves_as_it_starts(read, width):
    reader = read(viewport={"width": width, "height": 900}).open()
    reader.start(1)
    reader.frames()
    assert reader.page.evaluate(HEIGHTS) == reader.page.evaluate("heights")
    assert reader.page.evaluate("shifted") < 0.01
    # Nothing sticks out at the side.
    assert reader.figure.evaluate("n => n.scrollWidth - n.clientWidth") <= 0


def test_on_a_narrow_screen_the_parts_are_stacked(read):
    boxes = {}
    for width in (1280, 360):
        figure = read(viewport={"width": width, "height": 900}).open().figure
        boxes[width] = [figure.locator(name).bounding_box() for name in (".cs-plane", ".live-side")]
    plane, side = boxes[1280]
    assert side["x"] > plane["x"] + plane["width"]
    plane, side = boxes[360]
    assert side["y"] > plane["y"] + plane["height"]
    assert plane["width"] > 280


def test_without_a_script_the_picture_shows(read):
    reader = read(java_script_enabled=False).open(started=False)
    picture = reader.figure.locator("img")
    assert picture.is_visible()
    assert "600 codes of training images" in picture.get_attribute("alt")
    assert picture.bounding_box()["height"] > 200
    assert not reader.figure.locator(".live-stage").is_visible()
    assert reader.figure.locator(".live-caption").inner_text() == "Drag <it>."


def test_the_picture_is_printed(read):
    reader = read().open()
    assert not reader.figure.locator("img").is_visible()
    reader.page.emulate_media(media="print")
    assert reader.figure.locator("img").is_visible()
    assert reader.figure.locator("img").evaluate("n => n.naturalWidth") > 400
    assert not reader.figure.locator(".live-stage").is_visible()


def test_where_the_script_fails_the_picture_stays(read):
    reader = read(alone=True)
    broken = "EvidenceLive.define('code_space', 'export default {render() {throw Error(\"no\")}}')"
    reader.page.route(
        "**/live/code_space.js*",
        lambda route: route.fulfill(body=broken, content_type="text/javascript"),
    )
    with reader.page.expect_console_message(lambda message: "did not start" in message.text):
        reader.open(started=False)
    reader.frames()
    assert reader.page.evaluate("EvidenceLive.figures.length") == 0
    assert reader.figure.locator("img").is_visible()
    assert any("did not start" in error for error in reader.faults())


def test_a_figure_starts_only_when_it_comes_near(read):
    reader = read().open()
    reader.frames()
    assert reader.page.evaluate("EvidenceLive.figures.length") == 1
    reader.start(1)
    assert reader.page.evaluate("EvidenceLive.figures.length") == 2


def test_pages_without_a_figure_load_nothing(site, read):
    plain = (site / "book/plain.html").read_text()
    figures = (site / "book/part/code-space.html").read_text()
    assert "live" not in plain
    assert figures.count("static/live.js") == figures.count("static/live/code_space.js") == 1
    for stock in ("widget-state", "widget-view", "require.js", "html-manager", "jupyter-widgets"):
        assert stock not in figures, stock
    # The state stands there once for each figure.
    assert figures.count('"weights":') == 2
    reader = read().open("book/plain.html", started=False)
    assert reader.page.evaluate("typeof EvidenceLive") == "undefined"
    assert reader.faults() == []

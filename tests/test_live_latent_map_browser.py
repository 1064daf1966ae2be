"""The live figure of a VAE's map in a real browser."""

import copy
import math

import numpy as np
import pytest
import torch
from browser import axe_violations
from browser_book import LATENT_MAP
from live_window import FIRST, HEIGHTS, PHONE, Finger, PlaneWindow

from evidence.live import LatentMap

pytestmark = pytest.mark.browser

PIXELS = (
    "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
)
TRAITS = ("start", "end", "walked")
HANDLES = {"start": ".lm-start", "end": ".lm-end", "walked": ".lm-walker"}


class Reader(PlaneWindow):
    """A window with the map, and what a reader sees and does in it."""

    def open(self, started=True):
        self.page.goto(f"{self.base}/book/map.html")
        if started:
            self.page.wait_for_function("EvidenceLive.figures.length > 0")
            self.figure.locator(".cs-plane .live-ticks text").first.wait_for()
        return self

    def values(self):
        return [self.value(trait) for trait in TRAITS]

    def button(self, name):
        return self.figure.get_by_role("button", name=name, exact=True)

    def image(self, selector=".lm-image"):
        """The opacity of a canvas's pixels, from 0 to 255, in rows."""
        canvas = self.figure.locator(selector)
        width = canvas.evaluate("n => n.width")
        return np.array(canvas.evaluate(PIXELS)).reshape(-1, width, 4)[:, :, 3]

    def near(self):
        """A pixel and a half, in codes."""
        width = self.figure.locator(".cs-plane").evaluate("n => n.clientWidth")
        return 1.5 * self.value("plane")["width"] / width

    def handle(self, trait):
        box = self.figure.locator(HANDLES[trait]).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag(self, start, *stops):
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        for stop in stops:
            mouse.move(*stop, steps=4)
        mouse.up()


@pytest.fixture(scope="module")
def python():
    """The figure of the page, made in this process."""
    names = {}
    exec(LATENT_MAP, names)
    return LatentMap(names["decoder"], names["codes"], names["labels"])


def reference(figure, points):
    """Images in float64, by torch, with weights rounded as they are handed over."""
    decoder = copy.deepcopy(figure._decoder).double()
    first, last = decoder[0][0], decoder[0][2]
    with torch.no_grad():
        scales = (last.weight.abs().amax(1, keepdim=True) / 127).float().double()
        last.weight.copy_((last.weight / scales).round() * scales)
        for parameter in (first.weight, first.bias, last.bias):
            parameter.copy_(parameter.half().double())
        return decoder(torch.tensor(points, dtype=torch.float64)).numpy()


def check_shown(reader, python):
    """Images and numbers on the screen belong to the walk."""
    python.start, python.end, python.walked = reader.values()
    at = [python.point(), python.start, python.end]
    expected = np.rint(255 * reference(python, at)).reshape(3, 28, 28)
    for selector, image in zip(
        (".lm-image", ".lm-small >> nth=0", ".lm-small >> nth=1"), expected, strict=True
    ):
        assert np.abs(reader.image(selector) - image).max() <= 1
    film = [python._at(part) for part in np.linspace(0, 1, 9)]
    strip = np.rint(255 * reference(python, film)).reshape(9, 28, 28)
    assert np.abs(reader.image(".lm-strip") - np.concatenate(strip, axis=1)).max() <= 1
    numbers = reader.figure.locator(".live-reading .live-number").all_inner_texts()
    here = [python.log_prior()]
    for python.walked in (0.0, 1.0):
        here.append(python.log_prior())
    python.walked = reader.value("walked")
    z = ", ".join(f"{number:.2f}".replace("-0.00", "0.00") for number in python.point())
    assert numbers == [
        f"({z})".replace("-", "−"), *(f"{value:.2f} nats".replace("-", "−") for value in here),
    ]  # fmt: skip
    places = {"start": python.start, "end": python.end, "walked": python.point()}
    for trait, code_of in places.items():
        assert math.dist(reader.handle(trait), reader.place(code_of)) < 1


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
    expected = reference(python, points)
    assert expected.std(0).mean() > 0.1  # else any constant would agree
    error = np.abs(np.array(decoded) - expected).max()
    with torch.no_grad():
        exact = python._decoder(torch.tensor(points, dtype=torch.float32)).numpy()
    unrounded = np.abs(decoded - exact).max()
    assert error < 1e-5
    assert 1e-3 < unrounded < 0.05
    agreement(f"LatentMap: {error:.1e} of a pixel's range, {unrounded:.1e} by weights of 8 bits")
    assert reader.faults() == []


def test_the_page_computes_the_density_as_python_does(read, python, agreement):
    reader = read().open()
    rng = np.random.default_rng(2)
    inputs = np.hstack([rng.uniform(-2.5, 2.5, size=(200, 4)), rng.uniform(size=(200, 1))])
    computed = reader.page.evaluate(
        f"""inputs => inputs.map(([a, b, c, d, walked]) => {{
            const {{ logPrior, onWalk }} = {FIRST}.module;
            return logPrior(onWalk([a, b], [c, d], walked));
        }})""",
        inputs.tolist(),
    )
    expected = []
    for *ends, walked in inputs.tolist():
        python.start, python.end, python.walked = ends[:2], ends[2:], walked
        expected.append(python.log_prior())
    error = np.abs(np.subtract(computed, expected)).max()
    assert error < 1e-13
    agreement(f"LatentMap: {error:.1e} nats of the prior's density")


def test_no_walk_is_ever_less_dense_than_both_ends(read):
    reader = read().open()
    rng = np.random.default_rng(3)
    inputs = np.hstack([rng.uniform(-2.5, 2.5, size=(2000, 4)), rng.uniform(size=(2000, 1))])
    said = reader.page.evaluate(
        f"inputs => inputs.map(([a, b, c, d, t]) => {FIRST}.module.judge([a, b], [c, d], t))",
        inputs.tolist(),
    )
    assert set(said) == {"Denser than both ends", "Denser than one end"}


def test_it_starts_half_way_between_the_first_and_the_last_class(read, python):
    reader = read().open()
    assert reader.values() == [python.typical[0], python.typical[9], 0.5]
    check_shown(reader, python)
    assert reader.faults() == []


# --- the reader's hand -------------------------------------------------------------------------


def test_the_mouse_drags_the_ends_and_the_walker(read, python):
    reader = read().open()
    near = reader.near()
    reader.drag(reader.handle("start"), reader.place([1, 1]), reader.place([-1.5, 0.5]))
    assert math.dist(reader.value("start"), [-1.5, 0.5]) < near
    check_shown(reader, python)
    reader.drag(reader.handle("end"), reader.place([1.5, -1.0]))
    assert math.dist(reader.value("end"), [1.5, -1.0]) < near
    check_shown(reader, python)
    # The walker stays on the line, however far the pointer leaves it, and between the ends.
    ends = reader.values()[:2]
    reader.drag(reader.handle("walked"), reader.place([0.75 + 0.5, -0.625 + 1.0]))
    assert reader.value("walked") == pytest.approx(0.75, abs=0.02)
    assert reader.values()[:2] == ends
    check_shown(reader, python)
    reader.drag(reader.handle("walked"), reader.place([2.4, -2.0]))
    assert reader.value("walked") == 1
    assert reader.verdict() == "At the end"
    # An end beneath the walker can be taken; never out of the plane.
    reader.drag(reader.handle("end"), (3, 3))
    assert reader.value("end")[0] == pytest.approx(python.plane["left"])
    assert reader.value("start") == ends[0]
    check_shown(reader, python)
    assert reader.faults() == []


def test_a_press_beside_brings_the_nearer_end(read):
    reader = read().open()
    reader.set(start=[-1.5, 0.0], end=[1.5, 0.0])
    reader.drag(reader.place([-0.9, 1.5]))
    start, end, walked = reader.values()
    assert math.dist(start, [-0.9, 1.5]) < reader.near()
    assert (end, walked) == ([1.5, 0.0], 0.5)
    # A press on a handle, not in its middle, moves nothing.
    x, y = reader.handle("end")
    reader.drag((x + 5, y - 4))
    assert math.dist(reader.value("end"), end) < 1e-9


def test_the_keyboard_moves_everything(read, python):
    reader = read().open()
    width = python.plane["width"]
    for trait, label in (("start", "z₁ of the start"), ("end", "z₁ of the end")):
        slider = reader.figure.get_by_role("slider", name=label)
        slider.focus()
        scrolled = reader.page.evaluate("scrollY")
        for key, change in [
            ("ArrowRight", (0.01, 0)), ("ArrowUp", (0, 0.01)), ("ArrowLeft", (-0.01, 0)),
            ("ArrowDown", (0, -0.01)), ("Shift+ArrowLeft", (-0.1, 0)), ("Shift+ArrowUp", (0, 0.1)),
        ]:  # fmt: skip
            before = reader.value(trait)
            reader.page.keyboard.press(key)
            goal = np.add(before, width * np.array(change))
            low = np.array([python.plane["left"], python.plane["bottom"]])
            np.testing.assert_allclose(
                reader.value(trait), np.clip(goal, low, low + width), atol=1e-9
            )
        check_shown(reader, python)
        assert reader.page.evaluate("scrollY") == scrolled
        text = f"code ({reader.value(trait)[0]:.2f}, {reader.value(trait)[1]:.2f})"
        assert slider.get_attribute("aria-valuetext") == text.replace("-", "−")
    walked = reader.figure.get_by_role("slider", name="How far walked")
    walked.focus()
    for key, value in [
        ("ArrowRight", 0.51), ("Shift+ArrowLeft", 0.41), ("Home", 0), ("End", 1),
        ("ArrowUp", 1), ("ArrowDown", 0.99),
    ]:  # fmt: skip
        reader.page.keyboard.press(key)
        assert reader.value("walked") == pytest.approx(value, abs=1e-9)
    assert walked.get_attribute("aria-valuetext") == "99\u00a0%"
    check_shown(reader, python)
    assert reader.faults() == []


def test_tab_reaches_everything_in_order(read):
    reader = read().open()
    reader.figure.get_by_role("slider", name="z₁ of the start").focus()
    names = []
    for _ in range(24):
        reader.page.keyboard.press("Tab")
        names.append(
            reader.page.evaluate(
                "document.activeElement.ariaLabel ?? document.activeElement.textContent"
            )
        )
    assert names == [
        "z₁ of the end", "How far walked", "Walk", "Decoder’s map",
        *(f"Start at a typical {digit}" for digit in range(10)),
        *(f"End at a typical {digit}" for digit in range(10)),
    ]  # fmt: skip


def test_the_reader_picks_two_digits_and_walks(read, python):
    reader = read().open()
    reader.button("Start at a typical 7").click()
    assert reader.values() == [python.typical[7], python.typical[9], 0]
    assert reader.verdict() == "At the start"
    check_shown(reader, python)
    reader.button("End at a typical 2").click()
    assert reader.values() == [python.typical[7], python.typical[2], 0]
    # Where no motion is wanted, the walk is at its end at once.
    reader.button("Walk").click()
    assert reader.value("walked") == 1
    assert reader.button("Walk").count() == 1
    check_shown(reader, python)
    assert reader.faults() == []


# How far the walk is on the page: the model learns of it at the end.
SHOWN = "Number(document.querySelector('.live-control input').value)"


def test_the_walk_takes_its_time_and_can_be_stopped(read, python):
    reader = read(reduced_motion="no-preference").open()
    reader.steady()
    reader.set(walked=0.0)
    before = reader.image()
    reader.move_until(reader.button("Walk"), f"{SHOWN} > 0.1")
    walked = reader.value("walked")
    assert 0.1 < walked < 0.95
    assert np.abs(reader.image() - before).max() > 10
    assert reader.button("Walk").count() == 1
    check_shown(reader, python)
    reader.frames()
    assert reader.value("walked") == walked
    # It goes on from where it was, to the end; and from the end, from the start.
    reader.set(walked=0.95)
    reader.button("Walk").click()
    reader.wait_for("walked", 1.0, 1e-12)
    check_shown(reader, python)
    reader.move_until(reader.button("Walk"), f"{SHOWN} < 0.5")
    assert reader.value("walked") < 0.5
    assert reader.faults() == []


def test_a_finger_drags_and_then_taps(read, python):
    reader = read(**PHONE).open()
    reader.set(start=[-1.0, -1.0], end=[1.0, 1.0])
    reader.figure.locator(".cs-plane").scroll_into_view_if_needed()
    finger, scrolled, near = Finger(reader.page), reader.page.evaluate("scrollY"), reader.near()
    places = [reader.place(place) for place in ([-1.5, 0.5], [-0.5, -1.0], [-1.5, -0.25])]
    finger.swipe(reader.handle("start"), places[0])
    reader.wait_for("start", [-1.5, 0.5], near)
    assert reader.page.evaluate("scrollY") == scrolled
    # A tap at once after a swipe that ended with speed.
    finger.swipe(places[0], places[1])
    finger.tap(places[2])
    reader.wait_for("start", [-1.5, -0.25], near)
    finger.swipe(reader.handle("walked"), reader.place([0.375, 0.6875]))
    reader.wait_for("walked", 0.75, 0.03)
    check_shown(reader, python)
    assert reader.faults() == []


def test_a_finger_beside_scrolls_the_page(read):
    reader = read(**{**PHONE, "viewport": {"width": 390, "height": 500}}).open()
    reader.set(start=[-1.0, -1.0], end=[1.0, -1.0])
    plane = reader.figure.locator(".cs-plane")
    plane.scroll_into_view_if_needed()
    before, scrolled = reader.values(), reader.page.evaluate("scrollY")
    x, y = reader.place([0.0, 1.0])
    Finger(reader.page).swipe((x, y), (x, y - 150))
    reader.page.wait_for_function(f"scrollY > {scrolled} + 50")
    assert reader.values() == before


def test_the_decoders_map_can_be_shown(read, python):
    reader = read().open()
    tiles = reader.figure.locator(".lm-tiles")
    button = reader.button("Decoder’s map")
    assert not tiles.is_visible()
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert tiles.is_visible()
    plane, across = python.plane, (np.arange(13) + 0.5) / 13
    codes = [
        [plane["left"] + x * plane["width"], plane["bottom"] + (1 - y) * plane["width"]]
        for y in across for x in across
    ]  # fmt: skip
    images = np.rint(255 * reference(python, codes)).reshape(13, 13, 28, 28)
    expected = images.transpose(0, 2, 1, 3).reshape(13 * 28, 13 * 28)
    assert np.abs(reader.image(".lm-tiles") - expected).max() <= 1
    button.click()
    assert not tiles.is_visible()


def test_what_is_set_from_outside_shows(read, python):
    # As a kernel does.
    reader = read().open()
    values = {"start": [0.25, -0.75], "end": [-1.25, 0.5], "walked": 0.3}
    reader.set(**values)
    assert dict(zip(TRAITS, reader.values(), strict=True)) == values
    check_shown(reader, python)
    reader.set(end=[0.25, -0.75])  # both ends are one
    check_shown(reader, python)
    assert reader.faults() == []


# --- what is said and shown --------------------------------------------------------------------


def test_a_screen_reader_is_told(read, python):
    reader = read().open()
    reader.figure.get_by_role("slider", name="How far walked").press("Shift+ArrowRight")
    python.start, python.end, python.walked = reader.values()
    x, y = python.point()
    said = (
        f"60\u00a0% of the way, code ({x:.2f}, {y:.2f}), log p of z {python.log_prior():.2f} nats; "
    ).replace("-", "−")
    status = reader.figure.get_by_role("status")
    reader.page.wait_for_function(
        "([node, said]) => node.textContent.startsWith(said)", arg=[status.element_handle(), said]
    )
    assert status.inner_text().endswith(reader.verdict().lower())
    names = ("Image at the start", "Image at the end", "9 images along the walk")
    for name in names:
        assert reader.figure.get_by_role("img", name=name).count() == 1
    assert reader.figure.get_by_role("group", name="A walk on the map of codes").count() == 1


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(read, scheme, width):
    reader = read(color_scheme=scheme, viewport={"width": width, "height": 900}).open()
    assert axe_violations(reader.page) == []
    reader.button("Decoder’s map").click()
    assert axe_violations(reader.page) == []


@pytest.mark.parametrize("width", [320, 600, 780, 1280])
def test_nothing_moves_as_it_starts(read, width):
    reader = read(viewport={"width": width, "height": 900}).open()
    reader.frames()
    assert reader.page.evaluate(HEIGHTS) == reader.page.evaluate("heights")
    # Nothing sticks out at the side, and little room is left at the end.
    assert reader.figure.evaluate("n => n.scrollWidth - n.clientWidth") <= 0
    room = reader.figure.locator(".lm-grid").evaluate(
        "n => n.getBoundingClientRect().bottom - n.lastElementChild.getBoundingClientRect().bottom"
    )
    assert 0 <= room < 60


def test_it_follows_the_pages_colours(read):
    ink = "[...canvas.getContext('2d').getImageData(14, 14, 1, 1).data].slice(0, 3)"
    reader = read(color_scheme="light").open()
    image = reader.figure.locator(".lm-image").element_handle()
    light = image.evaluate(f"canvas => {ink}")
    reader.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    reader.page.wait_for_function(
        f"([canvas, light]) => {ink}.join() !== light.join()", arg=[image, light]
    )


def test_without_a_script_and_in_print_the_picture_shows(read):
    reader = read(java_script_enabled=False).open(started=False)
    picture = reader.figure.locator("img")
    assert picture.is_visible()
    assert "straight walk between two" in picture.get_attribute("alt")
    assert not reader.figure.locator(".live-stage").is_visible()
    reader = read().open()
    assert not reader.figure.locator("img").is_visible()
    reader.page.emulate_media(media="print")
    assert reader.figure.locator("img").is_visible()
    assert not reader.figure.locator(".live-stage").is_visible()

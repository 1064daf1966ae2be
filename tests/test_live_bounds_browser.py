"""The live figures of Jensen's inequality and of the bound in a real browser."""

import math

import numpy as np
import pytest
import torch
from browser import axe_violations
from live_window import FIRST, HEIGHTS, PHONE, Finger, Window

from evidence.live import Bound, Jensen
from evidence.toys import CurvedToy

pytestmark = pytest.mark.browser

PAGES = {"jensen": Jensen, "bound": Bound}
NAMES = list(PAGES)
SHOWN = {
    "jensen": lambda figure: [
        figure.mean(), figure.log_of_mean(), figure.mean_of_log(), figure.gap(),
    ],
    "bound": lambda figure: [figure.log_p_x(), figure.elbo(), figure.kl()],
}  # fmt: skip
NUMBERS = {"jensen": ".live-reading .live-number", "bound": ".bd-term .live-number"}
TRAITS = {"jensen": ("w", "weight"), "bound": ("x", "mu", "sigma")}


class Reader(Window):
    """A window with one of the figures, and what a reader sees and does in it."""

    def open(self, name, started=True):
        self.name = name
        self.page.goto(f"{self.base}/book/{name}.html")
        if started:
            self.page.wait_for_function("EvidenceLive.figures.length > 0")
            self.figure.locator(".live-ticks text").first.wait_for()
        return self

    def button(self, name):
        return self.figure.get_by_role("button", name=name)

    def handle(self, number):
        """The middle of a handle in the window; handles are numbered as their sliders are."""
        node = self.figure.locator(HANDLES[self.name][number])
        box = node.bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def numbers(self):
        return self.figure.locator(NUMBERS[self.name]).all_inner_texts()

    def check_shown(self):
        """The numbers on the screen are those that Python computes."""
        figure = PAGES[self.name](**{trait: self.value(trait) for trait in TRAITS[self.name]})
        shown = [float(text.replace("−", "-")) for text in self.numbers()]
        np.testing.assert_allclose(shown, SHOWN[self.name](figure), atol=5.001e-4)
        return figure

    def drag(self, start, *ways):
        """Press the mouse at a place, and move it by these pixels, one way after another."""
        mouse, place = self.page.mouse, np.array(start)
        mouse.move(*place)
        mouse.down()
        for way in ways:
            place = place + way
            mouse.move(*place, steps=4)
        mouse.up()


HANDLES = {
    "jensen": [".jn-point >> nth=0", ".jn-point >> nth=1", ".jn-mean"],
    "bound": [None, ".bd-mean", ".bd-end >> nth=1", ".bd-end >> nth=0"],
}


def pixels_per_unit(reader, shown):
    return reader.figure.locator(".live-plane").first.evaluate("n => n.clientWidth") / shown


# --- what they compute -------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_page_computes_jensens_gap_as_python_does(read, site, server, scheme, agreement):
    reader = read(server if scheme == "http" else site.as_uri()).open("jensen")
    inputs = np.random.default_rng(0).uniform([0.05, 0.05, 0], [4, 4, 1], size=(500, 3)).tolist()
    computed = reader.page.evaluate(
        f"inputs => inputs.map(([a, b, weight]) => "
        f"Object.values({FIRST}.module.jensen([a, b], weight)))",
        inputs,
    )
    expected = [SHOWN["jensen"](Jensen((a, b), weight)) for a, b, weight in inputs]
    error = np.abs(np.subtract(computed, expected)).max()
    assert error < 1e-14
    agreement(f"Jensen: {error:.1e}")
    assert reader.faults() == []


COMPUTE = """([coefficients, noise, inputs]) => {
    const { model, module } = EvidenceLive.figures[0];
    const toy = module.makeToy(coefficients, noise, model.get("grid"));
    return inputs.map(([x, mu, sigma]) => {
        const evidence = toy.logEvidence(x);
        return [
            evidence, module.elboOf(toy, x, mu, sigma), module.klOf(toy, x, mu, sigma, evidence),
        ];
    });
}"""


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize(
    "toy", [CurvedToy(), CurvedToy((0.2, -0.8, 0.3, 0.1, -0.1, 0.05), 0.8)], ids=["default", "high"]
)
def test_the_page_computes_the_bound_as_python_does(read, site, server, scheme, toy, agreement):
    reader = read(server if scheme == "http" else site.as_uri()).open("bound")
    low, high = [-2, -2.6, 0.05], [4, 2.6, 2]
    inputs = np.random.default_rng(0).uniform(low, high, size=(60, 3)).tolist()
    computed = reader.page.evaluate(COMPUTE, [toy.theta.tolist(), toy.sigma.item(), inputs])
    python, expected = Bound(toy), []
    for python.x, python.mu, python.sigma in inputs:
        expected.append([python.log_p_x(), python.elbo(), python.kl()])
    error = np.abs(np.subtract(computed, expected))
    # A bound of a polynomial of degree 5 can lie a million nats below.
    relative = error / np.maximum(1, np.abs(expected))
    assert relative.max() < 1e-11
    if len(toy.theta) == 3:
        assert error.max() < 1e-9
        agreement(f"Bound: {error.max():.1e} nats")
    assert reader.faults() == []


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_with_pythons_numbers(read, name):
    reader = read().open(name)
    figure = reader.check_shown()
    assert repr(figure) == repr(PAGES[name]())


# --- the reader's hand on Jensen ---------------------------------------------------------------


def test_the_mouse_drags_the_points_along_the_curve(read):
    reader = read().open("jensen")
    scale = pixels_per_unit(reader, 4 * 1.09)
    reader.drag(reader.handle(1), (-0.5 * scale, -200), (-0.5 * scale, 200 + scale * 0.1))
    first, second = reader.value("w")
    assert first == 0.5
    assert 1.5 < second < 3.2
    reader.check_shown()
    # It stays on the curve, however far the pointer leaves it.
    reader.drag(reader.handle(0), (-2000, 2000))
    assert reader.value("w") == [pytest.approx(0.05), second]
    reader.drag(reader.handle(1), (2000, -30))
    assert reader.value("w")[1] == pytest.approx(4.0)
    reader.check_shown()
    assert reader.faults() == []


def test_the_mouse_drags_the_mean_along_the_chord(read):
    reader = read().open("jensen")
    (x1, y1), (x2, y2) = reader.handle(0), reader.handle(1)
    way = 0.25 * np.subtract((x1, y1), (x2, y2))
    reader.drag(reader.handle(2), way)
    assert reader.value("weight") == pytest.approx(0.75, abs=0.01)
    assert reader.value("w") == [0.5, 3.5]
    reader.check_shown()
    reader.drag(reader.handle(2), -9 * way)
    assert reader.value("weight") == 0


def test_a_press_beside_moves_the_nearer_point(read):
    reader = read().open("jensen")
    x, y = reader.handle(0)
    reader.drag((x + 40, y - 20))
    first, second = reader.value("w")
    assert 0.6 < first < 1.4
    assert second == 3.5
    # A press on a handle, not in its middle, moves nothing.
    x, y = reader.handle(1)
    reader.drag((x + 5, y - 4))
    np.testing.assert_allclose(reader.value("w"), [first, second], atol=1e-6)


def test_one_of_two_equal_points_can_be_dragged_away(read):
    reader = read().open("jensen")
    reader.button("Equal points").click()
    assert reader.value("w") == [2.0, 2.0]
    assert reader.numbers()[3] == "0.000"
    assert "closed at every weight" in reader.figure.locator(".live-verdict").inner_text()
    reader.figure.get_by_role("slider", name="Weight").press("Home")
    assert "closed at every weight" in reader.figure.locator(".live-verdict").inner_text()
    reader.drag(reader.handle(0), (-60, 20))
    assert min(reader.value("w")) < 1.6
    assert max(reader.value("w")) == pytest.approx(2.0)


def test_presets_of_jensen(read):
    reader = read().open("jensen")
    for name, w, weight, said in [
        ("Far apart", [0.1, 3.8], 0.5, "open"),
        ("All weight on w", [0.1, 3.8], 1, "closed at this weight only"),
        ("Close together", [1.2, 1.8], 0.5, "open"),
    ]:
        reader.button(name).click()
        assert (reader.value("w"), reader.value("weight")) == (w, weight)
        assert reader.figure.locator(".live-verdict").inner_text() == f"The gap is {said}"
        reader.check_shown()


# --- the reader's hand on the bound ------------------------------------------------------------


def test_the_mouse_drags_q(read):
    reader = read().open("bound")
    scale = pixels_per_unit(reader, 5.2 * 1.2)
    evidence = reader.numbers()[0]
    reader.drag(reader.handle(1), (0.5 * scale, -60), (0.7 * scale, 30))
    assert reader.value("mu") == pytest.approx(1.2, abs=0.02)
    assert reader.value("sigma") == 1
    reader.check_shown()
    reader.drag(reader.handle(2), (-0.7 * scale, 0))
    assert reader.value("sigma") == pytest.approx(0.3, abs=0.02)
    reader.check_shown()
    reader.drag(reader.handle(3), (-0.4 * scale, 0))  # the other end
    assert reader.value("sigma") == pytest.approx(0.7, abs=0.03)
    assert reader.value("mu") == pytest.approx(1.2, abs=0.02)
    # However narrow q is, its ends can be held, and none goes through the middle.
    for _ in range(2):
        reader.drag(reader.handle(2), (-3 * scale, 0))
        assert reader.value("sigma") == 0.05
    reader.drag(reader.handle(2), (0.5 * scale, 0))
    assert reader.value("sigma") == pytest.approx(0.55, abs=0.02)
    assert reader.numbers()[0] == evidence  # whatever q does
    assert reader.faults() == []


def test_a_press_beside_moves_the_middle_of_q(read):
    reader = read().open("bound")
    scale = pixels_per_unit(reader, 5.2 * 1.2)
    x, y = reader.handle(1)
    reader.drag((x - 1.5 * scale, y - 90))
    assert reader.value("mu") == pytest.approx(-1.5, abs=0.02)
    reader.drag((x, y - 90), (-2000, 0))
    assert reader.value("mu") == -2.6
    reader.check_shown()


@pytest.mark.parametrize("x", [-1.5, 0.0, 1.0, 3.5])
def test_fit_finds_the_best_gaussian_of_all(read, x):
    reader = read().open("bound")
    reader.page.evaluate(f"{FIRST}.model.set('x', {x})")
    reader.button("Fit q").click()
    python = Bound(x=x)
    python.fit()
    assert reader.value("mu") == pytest.approx(python.mu, abs=1e-6)
    assert reader.value("sigma") == pytest.approx(python.sigma, abs=1e-6)
    assert reader.figure.locator(".live-verdict").inner_text() == "The best Gaussian there is"
    reader.check_shown()
    # And from elsewhere.
    reader.page.evaluate(f"{FIRST}.model.set('mu', -2)")
    assert reader.figure.locator(".live-verdict").inner_text() == "The KL can still shrink"
    reader.button("Fit q").click()
    assert reader.value("mu") == pytest.approx(python.mu, abs=1e-6)


def test_the_other_mode_is_the_worse_one(read):
    reader = read().open("bound")
    reader.button("Fit q").click()
    best = reader.check_shown()
    reader.button("To the other mode").click()
    other = reader.check_shown()
    assert best.mu > 1 > -1 > other.mu
    assert best.elbo() > other.elbo() + 0.1
    assert "the other has a better one" in reader.figure.locator(".live-verdict").inner_text()
    # No Gaussian near by is better.
    top = other.elbo()
    for way in np.random.default_rng(0).uniform(-0.02, 0.02, size=(50, 2)):
        other.mu, other.sigma = np.add([reader.value("mu"), reader.value("sigma")], way)
        assert other.elbo() < top
    reader.button("To the other mode").click()
    assert reader.value("mu") == pytest.approx(best.mu, abs=1e-9)
    # With a single mode, there is no other.
    assert reader.button("To the other mode").is_enabled()
    reader.page.evaluate(f"{FIRST}.model.set('x', -1.5)")
    assert not reader.button("To the other mode").is_enabled()


def test_the_bars_end_where_the_numbers_say(read):
    reader = read().open("bound")
    for mu, sigma in [(0.0, 1.0), (1.2, 0.2), (-1.4, 0.3), (-2.6, 0.05)]:
        for trait, value in (("mu", mu), ("sigma", sigma)):
            reader.page.evaluate(f"value => {FIRST}.model.set({trait!r}, value)", value)
        around = reader.figure.locator(".bd-bars").bounding_box()
        low, high = reader.value("nats")
        ends = []
        for name in (".bd-evidence", ".bd-elbo", ".bd-kl"):
            box = reader.figure.locator(name).bounding_box() or {"x": around["x"], "width": 0}
            ends += [box["x"], box["x"] + box["width"]]
        nats = low + (np.array(ends) - around["x"] - 1) / (around["width"] - 2) * (high - low)
        python = Bound(mu=mu, sigma=sigma)
        shown = max(python.elbo(), low)
        expected = [low, python.log_p_x(), low, shown, shown, python.log_p_x()]
        np.testing.assert_allclose(nats, expected, atol=0.02)
        assert reader.figure.locator(".bd-beyond").is_visible() == (python.elbo() < low)


# --- both: keys, fingers, motion ---------------------------------------------------------------

SLIDERS = {
    "jensen": [
        ("First point, w₁", 0.05, 4.0), ("Second point, w₂", 0.05, 4.0),
        ("Weight of the first point", 0, 1),
    ],
    "bound": [
        ("Datum x", -2, 4), ("Mean of q", -2.6, 2.6),
        ("Width of q, its standard deviation", 0.05, 2),
    ],
}  # fmt: skip


def flat(reader):
    return [n for trait in TRAITS[reader.name] for n in np.atleast_1d(reader.value(trait)).tolist()]


@pytest.mark.parametrize("name", NAMES)
def test_the_keyboard_moves_everything(read, name):
    reader = read().open(name)
    for index, (label, low, high) in enumerate(SLIDERS[name]):
        slider = reader.figure.get_by_role("slider", name=label)
        slider.focus()
        scrolled = reader.page.evaluate("scrollY")
        for key, change in [
            ("ArrowRight", 0.01), ("ArrowUp", 0.01), ("ArrowLeft", -0.01), ("ArrowDown", -0.01),
            ("Shift+ArrowLeft", -0.1), ("Shift+ArrowUp", 0.1),
        ]:  # fmt: skip
            before = flat(reader)
            before[index] = min(max(before[index] + change * (high - low), low), high)
            reader.page.keyboard.press(key)
            assert flat(reader) == pytest.approx(before, abs=1e-12)
        reader.check_shown()
        for key, end in (("Home", low), ("End", high)):
            reader.page.keyboard.press(key)
            assert flat(reader)[index] == pytest.approx(end, abs=1e-6)
        assert reader.page.evaluate("scrollY") == scrolled
        assert slider.get_attribute("aria-valuetext") == f"{high:.2f}"
        reader.page.keyboard.press("Shift+ArrowLeft")
        reader.page.keyboard.press("Shift+ArrowLeft")
    reader.check_shown()
    assert reader.faults() == []


@pytest.mark.parametrize("name", NAMES)
def test_tab_reaches_everything_in_order(read, name):
    reader = read().open(name)
    reader.figure.get_by_role("slider").first.focus()
    names = []
    for _ in range(len(reader.figure.locator("input, button").all()) - 1):
        reader.page.keyboard.press("Tab")
        names.append(
            reader.page.evaluate(
                "document.activeElement.ariaLabel ?? document.activeElement.textContent"
            )
        )
    buttons = {
        "jensen": ["Equal points", "Close together", "Far apart", "All weight on w₁"],
        "bound": ["Fit q", "To the other mode"],
    }
    assert names == [label for label, _, _ in SLIDERS[name]][1:] + buttons[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_handle_shows_the_focus_of_its_slider(read, name):
    reader = read().open(name)
    node = reader.figure.locator(HANDLES[name][1])
    shadow = "n => getComputedStyle(n, '::before').boxShadow"
    before = node.evaluate(shadow)
    reader.figure.get_by_role("slider", name=SLIDERS[name][1][0]).focus()
    assert node.evaluate(shadow) != before


@pytest.mark.parametrize(
    ("name", "trait", "goal"), [("jensen", "weight", 0.75), ("bound", "mu", 1.0)]
)
def test_a_finger_drags_and_then_taps(read, name, trait, goal):
    reader = read(**PHONE).open(name)
    reader.figure.locator(".live-plane").first.scroll_into_view_if_needed()
    finger, scrolled = Finger(reader.page), reader.page.evaluate("scrollY")
    if name == "jensen":
        start = reader.handle(2)
        end = tuple(np.add(start, 0.25 * np.subtract(reader.handle(0), reader.handle(1))))
    else:
        start = reader.handle(1)
        end = (start[0] + pixels_per_unit(reader, 5.2 * 1.2), start[1] + 10)
    beside = tuple(np.add(reader.handle(1), (-50, 60 if name == "jensen" else -90)))
    finger.swipe(start, end)
    reader.wait_for(trait, goal, 0.02)
    assert reader.page.evaluate("scrollY") == scrolled
    # A tap at once after a swipe that ended with speed: the browser may take it for one that is to
    # stop what the swipe set going.
    finger.swipe(end, start)
    finger.tap(beside)
    if name == "jensen":
        reader.wait_for("w", [0.5, 3.0], 0.3)
        assert reader.value("weight") == pytest.approx(0.5, abs=0.02)
    else:
        reader.wait_for("mu", -50 / pixels_per_unit(reader, 5.2 * 1.2), 0.02)
    reader.check_shown()
    assert reader.faults() == []


@pytest.mark.parametrize("name", NAMES)
def test_a_finger_beside_scrolls_the_page(read, name):
    # A low window, so that the page is longer.
    phone = {**PHONE, "viewport": {"width": 390, "height": 500}}
    reader = read(**phone).open(name)
    plane = reader.figure.locator(".live-plane").first
    plane.scroll_into_view_if_needed()
    box, before = plane.bounding_box(), flat(reader)
    scrolled = reader.page.evaluate("scrollY")
    x, y = box["x"] + 0.85 * box["width"], box["y"] + 0.7 * box["height"]
    Finger(reader.page).swipe((x, y), (x, y - 150))
    reader.page.wait_for_function(f"scrollY > {scrolled} + 50")
    assert flat(reader) == before


@pytest.mark.parametrize(("name", "button"), [("jensen", "Far apart"), ("bound", "Fit q")])
def test_motion_is_smooth_where_it_is_welcome_and_absent_where_not(read, name, button):
    watch = """selector => {
        window.seen = [];
        const text = document.querySelector(selector);
        new MutationObserver(() => seen.push(text.textContent)).observe(text, { childList: true });
    }"""
    seen = {}
    for motion in ("no-preference", "reduce"):
        reader = read(reduced_motion=motion).open(name)
        reader.steady()
        selector = NUMBERS[name] if name == "jensen" else ".bd-term:nth-of-type(2) .live-number"
        reader.page.evaluate(watch, selector)
        reader.button(button).click()
        if motion == "reduce":
            seen[motion] = reader.page.evaluate("seen")
        else:
            reader.page.wait_for_function(
                f"start => {FIRST}.model.get({TRAITS[name][-2]!r}).toString() !== start",
                arg=str(1.0),
            )
            goal = "0.1,3.8" if name == "jensen" else "1.21"
            reader.page.wait_for_function(
                f"goal => {FIRST}.model.get({TRAITS[name][-2]!r}).toString().startsWith(goal)",
                arg=goal,
            )
            seen[motion] = reader.page.evaluate("seen")
        reader.check_shown()
    assert len(set(seen["no-preference"])) > 3
    assert len(set(seen["reduce"])) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [("jensen", {"w": [1.0, 0.2], "weight": 0.3}), ("bound", {"x": 2.5, "mu": -1, "sigma": 0.4})],
)
def test_what_is_set_from_outside_shows(read, name, values):
    # As a kernel does.
    reader = read().open(name)
    for trait, value in values.items():
        reader.page.evaluate(f"value => {FIRST}.model.set({trait!r}, value)", value)
    reader.check_shown()
    assert {trait: reader.value(trait) for trait in values} == values


# --- what is said and shown --------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_screen_reader_is_told(read, name):
    reader = read().open(name)
    reader.figure.get_by_role("slider").last.press("Shift+ArrowLeft")
    numbers = [text.replace("-", "−") for text in reader.numbers()]
    if name == "jensen":
        said = f"log of the mean {numbers[1]}, mean of the log {numbers[2]}, gap {numbers[3]}: open"
    else:
        said = f"log p of x {numbers[0]} is ELBO {numbers[1]} plus KL {numbers[2]}; The KL"
    status = reader.figure.get_by_role("status")
    reader.page.wait_for_function(
        "([node, said]) => node.textContent.startsWith(said)", arg=[status.element_handle(), said]
    )
    assert reader.figure.get_by_role("slider").count() == 3
    title = {"jensen": "Jensen's inequality", "bound": "The bound and its gap"}[name]
    assert reader.figure.get_by_role("group", name=title).count() == 1


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing(read, name, scheme, width):
    reader = read(color_scheme=scheme, viewport={"width": width, "height": 900}).open(name)
    assert axe_violations(reader.page) == []
    if name == "bound":  # the other button disabled, the ELBO out of sight
        reader.page.evaluate(f"{FIRST}.model.set('x', -1.5)")
        reader.page.evaluate(f"{FIRST}.model.set('mu', -2.6)")
        assert axe_violations(reader.page) == []


@pytest.mark.parametrize("name", NAMES)
def test_it_follows_the_pages_colours(read, name):
    reader = read(color_scheme="light").open(name)
    root = reader.figure.locator(".live-root")
    assert not root.evaluate("n => n.classList.contains('live-dark')")
    reader.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    reader.page.wait_for_function(
        "n => n.classList.contains('live-dark')", arg=root.element_handle()
    )


@pytest.mark.parametrize("width", [320, 600, 780, 1280])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_moves_as_it_starts(read, name, width):
    reader = read(viewport={"width": width, "height": 900}).open(name)
    reader.frames()
    assert reader.page.evaluate(HEIGHTS) == reader.page.evaluate("heights")
    # Nothing sticks out at the side.
    assert reader.figure.evaluate("n => n.scrollWidth - n.clientWidth") <= 0


STYLES = """figure => [...figure.querySelectorAll(SELECTOR)].flatMap((node, i) => {
    return [null, "::before"].flatMap((part) => {
        const style = getComputedStyle(node, part);
        return [...style].filter((name) => !name.startsWith("--")).map((name) => (
            `${i} ${node.getAttribute("class")} ${part} ${name}: ${style.getPropertyValue(name)}`
        ));
    });
})""".replace("SELECTOR", "'.live-root :not(.live-unseen)'")


def test_another_kind_on_the_page_changes_nothing(read):
    both, single = read().open("bound-and-jensen"), read()
    figures = [both.start(place) for place in range(2)]
    for figure, name in zip(figures, ["bound", "jensen"], strict=True):
        styles = figure.evaluate(STYLES)
        assert len(styles) > 1000
        alone = single.open(name).figure.evaluate(STYLES)
        assert [pair for pair in zip(styles, alone, strict=True) if len(set(pair)) > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_without_a_script_and_in_print_the_picture_shows(read, name):
    alt = {"jensen": "The curve of log w", "bound": "two bars that end at the same number"}[name]
    reader = read(java_script_enabled=False).open(name, started=False)
    picture = reader.figure.locator("img")
    assert picture.is_visible()
    assert alt in picture.get_attribute("alt")
    assert picture.bounding_box()["height"] > 200
    assert not reader.figure.locator(".live-stage").is_visible()
    reader = read().open(name)
    assert not reader.figure.locator("img").is_visible()
    reader.page.emulate_media(media="print")
    assert reader.figure.locator("img").is_visible()
    assert not reader.figure.locator(".live-stage").is_visible()


def test_the_exact_toy_is_the_pages(read):
    # What the page computes with is what Python was given.
    reader = read().open("bound")
    toy = CurvedToy()
    assert reader.value("theta") == toy.theta.tolist()
    assert reader.value("noise") == toy.sigma.item()
    shown = float(reader.numbers()[0].replace("−", "-"))
    exact = toy.log_p_x(torch.tensor(1.0, dtype=torch.float64)).item()
    assert math.isclose(shown, exact, abs_tol=5e-4)

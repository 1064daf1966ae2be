"""The live figure of gradient estimators in a real browser."""

import itertools
import math

import numpy as np
import pytest
from browser import axe_violations
from live_window import FIRST, HEIGHTS, PHONE, Finger, Window

from evidence.live import Gradients
from evidence.live.gradients import noise

pytestmark = pytest.mark.browser

FUNCTIONS = ["square", "raised", "sine", "step"]
TRAITS = ("f", "mu", "sigma", "frequency", "num_draws", "seed")
HANDLES = [".gd-middle", ".gd-end >> nth=1", ".gd-end >> nth=0"]
SLIDERS = [
    ("Mean of q", "mu", -2, 2),
    ("Width of q, its standard deviation", "sigma", 0.1, 1.5),
    ("Frequency of the sine, c", "frequency", 0.5, 10),
]


class Reader(Window):
    """A window with the figure, and what a reader sees and does in it."""

    def open(self, name="gradients", started=True):
        self.page.goto(f"{self.base}/book/{name}.html")
        if started:
            self.page.wait_for_function("EvidenceLive.figures.length > 0")
            self.figure.locator(".live-ticks text").first.wait_for()
        return self

    def button(self, name):
        return self.figure.get_by_role("button", name=name, exact=True)

    def slider(self, name):
        return self.figure.get_by_role("slider", name=name)

    def handle(self, number):
        """The middle of a handle in the window."""
        box = self.figure.locator(HANDLES[number]).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def values(self):
        return {trait: self.value(trait) for trait in TRAITS}

    def check_shown(self):
        """The numbers on the screen are those that Python computes."""
        figure = Gradients(**self.values())
        texts = [
            text.replace("−", "-")
            for text in self.figure.locator(
                ".live-reading .live-number, .gd-table .live-number"
            ).all_inner_texts()
        ]
        both = figure.pathwise(), figure.score_function()
        expected = [
            figure.exact(),
            *(each.mean() for each in both),
            *(each.std(ddof=1) / math.sqrt(len(each)) for each in both),
            *(each.var(ddof=1) for each in both),
            *figure.variances(),
        ]
        assert len(texts) == len(expected)
        for text, number in zip(texts, expected, strict=True):
            half_a_digit = 0.5 * 10.0 ** -len(text.partition(".")[2])
            assert abs(float(text) - number) <= half_a_digit * 1.001, (texts, expected)
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

    def pixels_per_unit(self):
        return self.figure.locator(".gd-plane").evaluate("n => n.clientWidth") / 8


# --- what it computes --------------------------------------------------------------------------

COMPUTE = """inputs => inputs.map(([f, mu, sigma, frequency, count, seed]) => {
    const { FUNCTIONS, estimate, makeNoise } = EvidenceLive.figures[0].module;
    const made = FUNCTIONS[f].make({ frequency, raisedBy: 10 });
    const { exact, variances } = made.known(mu, sigma);
    const found = estimate(made, mu, sigma, makeNoise(seed, count), [2, count]);
    return [exact, ...variances, ...found.means, ...found.variances, ...found.errors];
})"""


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_page_computes_as_python_does(read, site, server, scheme, agreement):
    reader = read(server if scheme == "http" else site.as_uri()).open()
    generator, inputs, expected = np.random.default_rng(0), [], []
    for f, _ in itertools.product(FUNCTIONS, range(40)):
        mu, sigma, frequency = generator.uniform([-2, 0.1, 0.5], [2, 1.5, 10]).tolist()
        count, seed = int(generator.integers(3, 10_001)), int(generator.integers(1000))
        inputs.append([f, mu, sigma, frequency, count, seed])
        figure = Gradients(
            f, mu=mu, sigma=sigma, frequency=frequency, num_draws=count, seed=seed
        )  # fmt: skip
        both = figure.pathwise(), figure.score_function()
        expected.append([
            figure.exact(), *figure.variances(),
            *(each.mean() for each in both), *(each.var(ddof=1) for each in both),
            *(each.std(ddof=1) / math.sqrt(count) for each in both),
        ])  # fmt: skip
    error = np.abs(np.subtract(reader.page.evaluate(COMPUTE, inputs), expected))
    # The score function's variance of z^2 + 10 at sigma = 0.1 is 20,000.
    relative = error / np.maximum(1, np.abs(expected))
    assert relative.max() < 1e-11
    agreement(f"Gradients: {relative.max():.1e} relative to 1 and more")
    assert reader.faults() == []


@pytest.mark.parametrize("seed", [0, 1, 999])
def test_the_page_draws_the_same_noise(read, seed):
    reader = read().open()
    for count in (2, 3, 10_000):
        drawn = reader.page.evaluate(
            f"([seed, count]) => [...{FIRST}.module.makeNoise(seed, count)]", [seed, count]
        )
        np.testing.assert_allclose(drawn, noise(seed, count), atol=1e-14, rtol=0)


@pytest.mark.parametrize("f", FUNCTIONS)
def test_it_shows_pythons_numbers(read, f):
    reader = read().open()
    assert repr(reader.check_shown()) == repr(Gradients())
    for mu, sigma, num_draws in ((-2, 0.1, 2), (2, 1.5, 10_000), (0.3, 0.7, 1234)):
        values = {"f": f, "mu": mu, "sigma": sigma, "num_draws": num_draws, "frequency": 4.4}
        reader.set(**values)
        reader.check_shown()
        assert reader.values() == {**values, "seed": 0}
    assert reader.faults() == []


SHAFTS = """lane => [...lane.querySelector('.gd-arrows').getAttribute('d')
    .matchAll(/M([-.\\d]+) [-.\\d]+H([-.\\d]+)/g)].map(([, from, to]) => to - from)"""


@pytest.mark.parametrize("f", FUNCTIONS)
def test_arrows_are_contributions_to_scale(read, f):
    reader = read().open()
    reader.set(f=f, mu=-0.4, sigma=0.5)
    figure = Gradients(**reader.values())
    order = np.argsort(figure.draws()[:12])
    lengths = [lane.evaluate(SHAFTS) for lane in reader.figure.locator("g.gd-lane").all()]
    expected = [figure.pathwise()[:12][order], figure.score_function()[:12][order]]
    largest = np.abs(expected).max()
    scale = np.abs(lengths).max() / largest
    # One scale for both. Numbers in the path have a digit; an arrow may end at the plane's edge.
    np.testing.assert_allclose(lengths, np.multiply(expected, scale), atol=0.01 * scale * largest)
    reader.set(num_draws=5)
    assert [len(lane.evaluate(SHAFTS)) for lane in reader.figure.locator("g.gd-lane").all()] == [
        5, 5,
    ]  # fmt: skip


# --- the reader's hand -------------------------------------------------------------------------


def test_the_mouse_drags_the_middle_and_the_ends(read):
    reader = read().open()
    scale = reader.pixels_per_unit()
    reader.drag(reader.handle(0), (-1.5 * scale, 30))
    assert reader.value("mu") == pytest.approx(-0.5, abs=0.02)
    reader.check_shown()
    reader.drag(reader.handle(1), (-0.4 * scale, 0))
    assert reader.value("sigma") == pytest.approx(0.5, abs=0.02)
    reader.drag(reader.handle(2), (-0.7 * scale, 0))
    assert reader.value("sigma") == pytest.approx(1.2, abs=0.02)
    assert reader.value("mu") == pytest.approx(-0.5, abs=0.02)
    # No further than the ranges go.
    reader.drag(reader.handle(2), (-3000, 0))
    assert reader.value("sigma") == 1.5
    reader.drag(reader.handle(0), (3000, 0))
    assert reader.value("mu") == 2
    reader.check_shown()
    # A press beside brings the middle.
    x, y = reader.handle(0)
    reader.drag((x - 2 * scale, y + 150), (scale, 0))
    assert reader.value("mu") == pytest.approx(1.0, abs=0.02)
    assert reader.faults() == []


def test_the_keyboard_moves_everything(read):
    reader = read().open()
    reader.button("sin cz").click()
    assert reader.value("f") == "sine"
    for label, trait, low, high in SLIDERS:
        slider = reader.slider(label)
        slider.focus()
        scrolled = reader.page.evaluate("scrollY")
        reader.set(**{trait: (low + high) / 2})
        for key, change in [
            ("ArrowRight", 0.01), ("ArrowUp", 0.01), ("ArrowLeft", -0.01), ("Shift+ArrowDown", -0.1)
        ]:  # fmt: skip
            before = reader.value(trait)
            reader.page.keyboard.press(key)
            assert reader.value(trait) == pytest.approx(before + change * (high - low))
        reader.check_shown()
        for key, end in (("Home", low), ("End", high)):
            reader.page.keyboard.press(key)
            assert reader.value(trait) == pytest.approx(end, abs=1e-6)
        assert reader.page.evaluate("scrollY") == scrolled
        assert slider.get_attribute("aria-valuetext") == f"{high:.2f}"
    slider = reader.slider("Number of draws")
    slider.press("Home")
    counts = [reader.value("num_draws")]
    for _ in range(4):
        slider.press("ArrowRight")
        counts.append(reader.value("num_draws"))
    # A step of the powers of 10 is less than a draw here, and a draw it is.
    assert counts == [2, 3, 4, 5, 6]
    slider.press("ArrowLeft")
    assert reader.value("num_draws") == 5
    slider.press("End")
    assert reader.value("num_draws") == 10_000
    assert slider.get_attribute("aria-valuetext") == "10000"
    reader.check_shown()
    assert reader.faults() == []


def test_tab_reaches_everything_in_order(read):
    reader = read().open()
    names = ["z²", "z² + 10", "sin cz", "step: 1 if z is positive, otherwise 0"]
    sliders = [label for label, _, _, _ in SLIDERS]
    tail = ["Number of draws", "Double the draws", "New draws"]
    for f, expected in (("square", sliders[:2]), ("sine", sliders)):
        reader.set(f=f)
        reader.figure.get_by_role("button").first.focus()
        seen = []
        for _ in range(4 + len(expected) + 3):
            seen.append(
                reader.page.evaluate(
                    "document.activeElement.ariaLabel ?? document.activeElement.textContent"
                )
            )
            reader.page.keyboard.press("Tab")
        assert [" ".join(name.split()) for name in seen] == [*names, *expected, *tail]


def test_choices_say_which_is_taken(read):
    reader = read().open()
    for f, button in zip(FUNCTIONS, reader.figure.locator(".gd-choices button").all(), strict=True):
        button.click()
        assert reader.value("f") == f
        assert [
            each.get_attribute("aria-pressed")
            for each in reader.figure.locator(".gd-choices button").all()
        ] == [str(f == other).lower() for other in FUNCTIONS]
        assert reader.slider("Frequency").is_enabled() == (f == "sine")
        reader.check_shown()


def test_the_verdict_names_the_better_one(read):
    reader = read().open()
    assert reader.verdict() == "One pathwise draw is worth 8.45 score-function draws"
    reader.set(f="sine", mu=0.0, sigma=math.exp(-0.5))
    assert reader.verdict() == "One score-function draw is worth 36.8 pathwise draws"
    reader.set(f="step")
    exact = Gradients("step", mu=0.0, sigma=math.exp(-0.5)).exact()
    assert reader.verdict() == f"Pathwise is blind to the jump: its mean is 0, not {exact:.3f}"
    reader.set(f="sine", frequency=1.0, mu=0.0, sigma=1.0)
    path, score = Gradients(**reader.values()).variances()
    assert score > path
    reader.set(sigma=1.2)
    assert "score-function" in reader.verdict()


def test_new_draws_are_pythons_next_seed(read):
    reader = read().open()
    before = reader.check_shown()
    reader.button("New draws").click()
    after = reader.check_shown()
    assert (before.seed, after.seed) == (0, 1)
    assert not np.array_equal(before.draws(), after.draws())
    reader.set(seed=999)
    reader.button("New draws").click()
    assert reader.value("seed") == 0
    reader.check_shown()


WATCH_LEAST = """selector => {
    const text = document.querySelector(selector);
    window.least = Infinity;
    const watch = () => (window.least = Math.min(window.least, Number(text.textContent)));
    new MutationObserver(watch).observe(text, { childList: true, characterData: true });
}"""


def test_draws_are_added_while_it_plays(read):
    reader = read(reduced_motion="no-preference").open()
    # Slowly, so that it does not end before all is tried.
    reader.steady(8)
    reader.button("Play").click()
    draws = ".live-control:has([aria-label='Number of draws']) .live-number"
    at_least = "([selector, count]) => Number(document.querySelector(selector).textContent) > count"
    reader.page.wait_for_function(at_least, arg=[draws, 110])
    # The reader may move q meanwhile, and it goes on.
    reader.slider("Mean of q").press("Shift+ArrowLeft")
    assert reader.value("mu") == pytest.approx(0.6)
    count = int(reader.figure.locator(draws).inner_text())
    reader.page.wait_for_function(at_least, arg=[draws, count])
    # Taken back, it goes on from there.
    reader.page.evaluate(WATCH_LEAST, draws)
    reader.slider("Number of draws").press("Home")
    assert reader.page.evaluate("least") < 20
    reader.page.wait_for_function(at_least, arg=[draws, 4])
    reader.button("Pause").click()
    assert reader.button("Play").is_visible()
    rested = reader.value("num_draws")
    assert reader.check_shown().num_draws == rested
    reader.frames()
    assert reader.value("num_draws") == rested
    # It ends by itself, and begins again.
    reader.set(num_draws=9900)
    reader.button("Play").click()
    reader.wait_for("num_draws", 10_000, 0)
    reader.button("Play").wait_for()
    reader.page.evaluate("least = Infinity")
    reader.button("Play").click()
    reader.page.wait_for_function("least < 100")
    reader.button("Pause").click()
    reader.check_shown()
    assert reader.faults() == []


def test_where_motion_is_unwelcome_draws_are_doubled(read):
    reader = read().open()
    reader.button("Double the draws").click()
    assert reader.value("num_draws") == 200
    reader.set(num_draws=6000)
    reader.button("Double the draws").click()
    assert reader.value("num_draws") == 10_000
    reader.button("Double the draws").click()
    assert reader.value("num_draws") == 2
    reader.check_shown()


def test_a_finger_drags_taps_and_scrolls(read):
    # A low window, so that the page is longer.
    reader = read(**{**PHONE, "viewport": {"width": 390, "height": 500}}).open()
    reader.figure.locator(".gd-plane").scroll_into_view_if_needed()
    finger, scale = Finger(reader.page), reader.pixels_per_unit()
    scrolled = reader.page.evaluate("scrollY")
    x, y = reader.handle(0)
    finger.swipe((x, y), (x - scale, y))
    reader.wait_for("mu", 0.0, 0.03)
    finger.tap((x + 0.5 * scale, y + 60))
    reader.wait_for("mu", 1.5, 0.03)
    assert reader.page.evaluate("scrollY") == scrolled
    before = reader.values()
    finger.swipe((x - 2 * scale, y + 60), (x - 2 * scale, y - 90))
    reader.page.wait_for_function(f"scrollY > {scrolled} + 50")
    assert reader.values() == before
    reader.check_shown()
    assert reader.faults() == []


# --- what is said and shown --------------------------------------------------------------------


def test_a_screen_reader_is_told(read):
    reader = read().open()
    reader.slider("Number of draws").press("End")
    figure = Gradients(num_draws=10_000)
    said = (
        f"10000 draws: pathwise {figure.pathwise().mean():.3f}, score function "
        f"{figure.score_function().mean():.3f}, exact gradient 2.000; One pathwise draw"
    )
    status = reader.figure.get_by_role("status")
    reader.page.wait_for_function(
        "([node, said]) => node.textContent.startsWith(said)", arg=[status.element_handle(), said]
    )
    assert reader.figure.get_by_role("group", name="Two estimators of one gradient").count() == 1
    assert reader.figure.get_by_role("rowheader").all_inner_texts() == [
        "mean", "standard error", "variance", "exact variance",
    ]  # fmt: skip
    assert reader.figure.get_by_role("columnheader").all_inner_texts() == [
        "pathwise", "score function",
    ]  # fmt: skip


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(read, scheme, width):
    reader = read(color_scheme=scheme, viewport={"width": width, "height": 900}).open()
    assert axe_violations(reader.page) == []
    reader.set(f="sine")
    assert axe_violations(reader.page) == []


def test_a_handle_shows_the_focus_of_its_slider(read):
    reader = read().open()
    node = reader.figure.locator(HANDLES[0])
    shadow = "n => getComputedStyle(n, '::before').boxShadow"
    before = node.evaluate(shadow)
    reader.slider("Mean of q").focus()
    assert node.evaluate(shadow) != before


@pytest.mark.parametrize("width", [320, 600, 780, 1280])
def test_nothing_moves_as_it_starts(read, width):
    reader = read(viewport={"width": width, "height": 900}).open()
    reader.frames()
    assert reader.page.evaluate(HEIGHTS) == reader.page.evaluate("heights")
    # Nothing sticks out at the side.
    assert reader.figure.evaluate("n => n.scrollWidth - n.clientWidth") <= 0
    # Nor as the reader moves it.
    for f in FUNCTIONS:
        reader.set(f=f, num_draws=10_000)
        assert reader.page.evaluate(HEIGHTS) == reader.page.evaluate("heights")


def test_without_a_script_and_in_print_the_picture_shows(read):
    reader = read(java_script_enabled=False).open(started=False)
    picture = reader.figure.locator("img")
    assert picture.is_visible()
    assert "one row of arrows for each draw" in picture.get_attribute("alt")
    assert picture.bounding_box()["height"] > 200
    assert not reader.figure.locator(".live-stage").is_visible()
    reader = read().open()
    assert not reader.figure.locator("img").is_visible()
    reader.page.emulate_media(media="print")
    assert reader.figure.locator("img").is_visible()
    assert not reader.figure.locator(".live-stage").is_visible()


def test_another_kind_on_the_page_changes_nothing(read):
    styles = """figure => [...figure.querySelectorAll('.live-root *')].map((node) => {
        const style = getComputedStyle(node);
        return [...style].filter((name) => !name.startsWith("--"))
            .map((name) => `${name}: ${style.getPropertyValue(name)}`).join("; ");
    })"""
    reader = read().open("gradients-and-bound")
    reader.start(1)
    together = reader.figure.evaluate(styles)
    alone = reader.open().figure.evaluate(styles)
    assert len(alone) > 50
    assert together == alone

"""The live figures of the forward process and of sampling in a real browser."""

import numpy as np
import pytest
import torch
from browser import axe_violations
from browser_book import DENOISER
from live_window import FIRST, HEIGHTS, PHONE, Finger, Window

from evidence.diffusion import schedule
from evidence.live import Forward, Sampling
from evidence.live.forward import SCHEDULES
from evidence.live.sampling import FRESH
from evidence.two_samples import energy_distance

pytestmark = pytest.mark.browser

PAGES = ("forward", "sampling")
TRAITS = {
    "forward": ("schedule", "share", "digit", "seed"),
    "sampling": ("score", "method", "eta", "num_steps", "walked", "seed"),
}
# Low, so that the page is longer.
LOW = {**PHONE, "viewport": {"width": 390, "height": 500}}
IDLE = "!document.querySelector('.live-figure .sp-busy')"


@pytest.fixture(scope="module")
def denoiser():
    made = {}
    exec(DENOISER, made)
    return made["denoiser"]


class Reader(Window):
    """A window with a figure, and what a reader sees and does in it."""

    def open(self, name, started=True):
        self.name = name
        self.page.goto(f"{self.base}/book/{name}.html")
        if started:
            # Of two on a page, either may be ready first.
            self.page.wait_for_function(f"{FIRST}?.place === document.querySelector('[data-live]')")
            self.figure.locator(".live-ticks text").first.wait_for()
            self.page.wait_for_function(IDLE)
        return self

    def button(self, name):
        return self.figure.get_by_role("button", name=name)

    def slider(self, name):
        return self.figure.get_by_role("slider", name=name)

    def set(self, **values):
        super().set(**values)
        self.page.wait_for_function(IDLE)

    def values(self):
        return {trait: self.value(trait) for trait in TRAITS[self.name]}

    def numbers(self):
        self.page.wait_for_function(IDLE)
        return [
            text.replace("−", "-")
            for text in self.figure.locator(".live-reading .live-number").all_inner_texts()
        ]

    def handle(self):
        box = self.figure.locator(".fw-handle").bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def is_shown(text, number):
    """Whether a text is this number, rounded; it may have a power of ten."""
    if text == "∞":
        return number == np.inf
    mantissa, _, power = text.partition("·10")
    power = int(power.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)
    half = 0.5 * 10.0 ** (power - len(mantissa.partition(".")[2]))
    return abs(float(mantissa) * 10.0**power - number) <= 1.001 * half


# --- what they compute -------------------------------------------------------------------------

SAMPLE = """inputs => inputs.map(({ score, method, eta, num_steps: count, seed }) => {
    const { model, module } = EvidenceLive.figures[0];
    const predict = score === "exact" ? module.makeExact(model.get("mixture"))
        : module.makeLearned(model.get("network"), model.get("weights"));
    const logSnr = module.makeSchedule(count, model.get("log_snr_range"));
    const rule = module.makeCoefficients(logSnr, method, eta);
    const eps = module.makeNoise(seed, 600 * (count + 1));
    let states = null;
    for (states of module.walk(predict, logSnr, rule, eps, 600));
    const target = module.makeReference(model.get("mixture"), 2000, 5000);
    return [
        states.flatMap((state) => [...state]), [...target.slice(-20)],
        module.energyDistance(states[0], target), module.spreadOf(states[0]),
    ];
})"""


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_page_samples_as_python_does(read, site, server, denoiser, scheme, agreement):
    reader = read(server if scheme == "http" else site.as_uri()).open("sampling")
    generator, inputs, figures = np.random.default_rng(0), [], []
    for i in range(12):
        inputs.append({
            "score": ("exact", "learned")[i % 2],
            "method": ("ddim", "posterior", "beta", "ddim")[i // 2 % 4],
            "eta": float(generator.uniform() if i % 3 else 0),
            "num_steps": int(generator.integers(5, 101 if i < 2 else 31)),
            "seed": int(generator.integers(1000)),
        })  # fmt: skip
        figures.append(Sampling(denoiser, **inputs[-1]))
    errors = []
    for found, figure in zip(reader.page.evaluate(SAMPLE, inputs), figures, strict=True):
        states, target, distance, spread = found
        expected = figure.states()
        # A network without sense can send particles far away.
        scale = expected.abs().max().clamp(min=1).item()
        errors.append(np.abs(np.array(states) - expected.flatten().numpy()).max() / scale)
        np.testing.assert_allclose(target, figure.reference()[-10:].flatten(), atol=1e-14)
        distances = energy_distance(expected[0], figure.reference()).item()
        assert distance == pytest.approx(distances, abs=1e-9 * scale)
        deviation = expected[0].var(0, correction=0).mean().sqrt().item()
        assert spread == pytest.approx(deviation, abs=1e-9 * scale)
    assert max(errors) < 1e-10
    exact, learned = max(errors[::2]), max(errors[1::2])
    agreement(f"Sampling: {exact:.1e} with the exact score, {learned:.1e} with a network")
    assert reader.faults() == []


DIFFUSE = """inputs => inputs.map(({ kind, count, x, eps, t }) => {
    const { model, module } = EvidenceLive.figures[0];
    const chain = module.makeSchedule(kind, count, model.get("betas"), model.get("cosine"));
    return [chain.slice(1), [...module.mix(x, eps, chain[t])], module.endKl(x, chain.at(-1))];
})"""


def test_the_page_diffuses_as_python_does(read, agreement):
    reader = read().open("forward")
    generator, inputs, figures = np.random.default_rng(0), [], []
    for i in range(12):
        kind = list(SCHEDULES)[i % 3]
        figure = Forward(kind, share=generator.uniform(0.01, 1), digit=i, seed=i)
        x, eps = figure.x_0()[0][0].tolist(), generator.normal(size=784).tolist()
        inputs.append(
            {"kind": kind, "count": SCHEDULES[kind], "x": x, "eps": eps, "t": figure.step}
        )
        figures.append(figure)
    errors = []
    for given, found, figure in zip(
        inputs, reader.page.evaluate(DIFFUSE, inputs), figures, strict=True
    ):
        made = {
            "linear": schedule.linear(1000), "short": schedule.linear(300),
            "cosine": schedule.cosine(1000),
        }[figure.schedule]  # fmt: skip
        log_snr, mixed, kl = found
        t = figure.step
        expected = (
            made.sqrt_alpha_bar[t] * torch.tensor(given["x"]).double()
            + made.sigma[t] * torch.tensor(given["eps"]).double()
        )
        errors.append(np.abs(log_snr - made.log_snr[1:].numpy()).max())
        np.testing.assert_allclose(mixed, expected, atol=3e-7)
        assert kl == pytest.approx(figure.end_kl(), rel=1e-8, abs=1e-15)
    assert max(errors) < 1e-10
    agreement(f"Forward: {max(errors):.1e} of a log-SNR")
    assert reader.faults() == []


def test_sampling_shows_pythons_numbers(read, denoiser):
    reader = read().open("sampling")
    assert reader.values() == {
        "score": "exact", "method": "ddim", "eta": 0, "num_steps": 20, "walked": 0.6, "seed": 0,
    }  # fmt: skip
    for change in (
        {}, {"num_steps": 5}, {"score": "learned", "method": "posterior"},
        {"method": "ddim", "eta": 0.4, "seed": 9, "walked": 1.0}, {"walked": 0.0, "method": "beta"},
    ):  # fmt: skip
        reader.set(**change)
        figure = Sampling(denoiser, **reader.values())
        state = figure.states()[figure.step]
        log_snr = figure.schedule().log_snr[figure.step].item()
        moved = Sampling(denoiser)
        moved.samples = lambda state=state: state
        end = figure.energy_distance()
        expected = [log_snr, moved.energy_distance(), moved.spread(), end]
        assert all(map(is_shown, reader.numbers(), expected)), (reader.numbers(), expected)
        near = "As near as" if end < FRESH else "Farther than"
        assert reader.verdict() == f"{near} fresh data"
    assert reader.faults() == []


def test_forward_shows_pythons_numbers(read):
    reader = read().open("forward")
    for change in (
        {},
        {"share": 1.0},
        {"schedule": "short", "digit": 7},
        {"share": 0.0, "seed": 3},
    ):
        reader.set(**change)
        figure = Forward(**reader.values())
        text, *numbers = reader.numbers()
        assert text == f"{figure.step} of {SCHEDULES[figure.schedule]}"
        kl = figure.end_kl()
        log_snr = figure.chain().log_snr[figure.step].item()
        expected = [figure.alpha_bar(), figure.snr(), log_snr, kl, 784 * kl]
        assert all(map(is_shown, numbers, expected)), (numbers, expected)
        ends = "stops before" if figure.schedule == "short" else "ends in"
        assert reader.verdict() == f"This schedule {ends} noise"
    # The canvas has the digit's ink, in the share of the range that is shown.
    alphas = reader.figure.locator(".fw-image").evaluate(
        "n => [...n.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 3)"
    )
    digit = Forward(**reader.values()).x_t()[0][0]
    np.testing.assert_allclose(alphas, 255 * (digit + 2.5) / 5, atol=0.51)
    assert reader.faults() == []


# --- the reader's hand -------------------------------------------------------------------------


def test_the_mouse_drags_t_and_the_keyboard_moves_it(read):
    reader = read().open("forward")
    plane = reader.figure.locator(".fw-plane").bounding_box()
    scale, mouse = plane["width"] - 34, reader.page.mouse
    x, y = reader.handle()
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 0.25 * scale, y + 30, steps=4)
    mouse.up()
    assert reader.value("share") == pytest.approx(0.5, abs=0.01)
    # The disc is on the curve, at the signal that is left.
    left = schedule.linear().sqrt_alpha_bar[round(1000 * reader.value("share"))].item()
    _, at = reader.handle()
    half = (plane["height"] - 22) / 2
    assert at - plane["y"] - 1 == pytest.approx(half * (1 - (left + 0.08) / 1.2), abs=1.5)
    mouse.click(plane["x"] + 17 + 0.8 * scale, plane["y"] + 200)
    assert reader.value("share") == pytest.approx(0.8, abs=0.01)
    slider = reader.slider("Time t over T")
    scrolled = reader.page.evaluate("scrollY")
    for key, share in (("Home", 0), ("End", 1), ("ArrowLeft", 0.99), ("Shift+ArrowDown", 0.89)):
        slider.press(key)
        assert reader.value("share") == pytest.approx(share)
    assert slider.get_attribute("aria-valuetext") == "890"
    assert reader.page.evaluate("scrollY") == scrolled
    assert reader.faults() == []


def test_a_finger_drags_taps_and_scrolls(read):
    reader = read(**LOW).open("forward")
    reader.figure.locator(".fw-plane").scroll_into_view_if_needed()
    finger, scrolled = Finger(reader.page), reader.page.evaluate("scrollY")
    box = reader.figure.locator(".fw-plane").bounding_box()
    x, y = reader.handle()
    finger.swipe((x, y), (x + 0.25 * (box["width"] - 34), y))
    reader.wait_for("share", 0.5, 0.02)
    finger.tap((box["x"] + 17 + 0.75 * (box["width"] - 34), box["y"] + 150))
    reader.wait_for("share", 0.75, 0.02)
    assert reader.page.evaluate("scrollY") == scrolled
    finger.swipe((box["x"] + 60, box["y"] + 200), (box["x"] + 60, box["y"] + 40))
    reader.page.wait_for_function(f"scrollY > {scrolled} + 50")
    assert reader.value("share") == pytest.approx(0.75, abs=0.02)
    assert reader.faults() == []


def test_buttons_choose(read):
    reader = read().open("forward")
    for label, name in (("short:", "short"), ("cosine,", "cosine"), ("linear, 1000", "linear")):
        reader.button(label).click()
        assert reader.value("schedule") == name
        assert reader.button(label).get_attribute("aria-pressed") == "true"
        assert reader.figure.locator("[aria-pressed='true']").count() == 1
    reader.button("Another digit").click()
    reader.button("New noise").click()
    assert (reader.value("digit"), reader.value("seed")) == (1, 1)
    reader = read().open("sampling")
    for name, trait, value in (
        ("learned", "score", "learned"), ("DDPM β̃", "method", "posterior"),
        ("DDPM β,", "method", "beta"), ("DDIM", "method", "ddim"),
    ):  # fmt: skip
        reader.button(name).click()
        assert reader.value(trait) == value
        assert reader.figure.locator("[aria-pressed='true']").count() == 2
        assert reader.slider("Eta").is_enabled() == (reader.value("method") == "ddim")
    reader.set(seed=999)
    reader.button("New noise").click()
    assert reader.value("seed") == 0


def test_sampling_by_keyboard_leaves_a_mark_for_each_run(read):
    reader = read().open("sampling")
    runs = reader.figure.locator(".sp-run")
    assert runs.count() == 1
    steps = reader.slider("Number of steps")
    for key, count in (("Home", 5), ("ArrowRight", 6), ("Shift+ArrowRight", 16), ("End", 100)):
        steps.press(key)
        assert reader.value("num_steps") == count
    reader.slider("Eta").press("End")
    assert reader.value("eta") == 1
    assert runs.count() == 6
    steps.press("Home")
    steps.press("End")
    # A run that was made already is there once.
    assert runs.count() == 7
    assert reader.figure.locator("circle.sp-run").count() == 7
    reader.button("learned").click()
    reader.page.wait_for_function(IDLE)
    assert reader.figure.locator("rect.sp-run").count() == 1
    reader.slider("Time").press("Home")
    assert reader.value("walked") == 0
    assert reader.slider("Time").get_attribute("aria-valuetext") == "t = 100"
    reader.button("New noise").click()
    reader.page.wait_for_function(IDLE)
    assert runs.count() == 1
    assert reader.faults() == []


def test_particles_go_on_while_it_plays(read):
    reader = read(reduced_motion="no-preference").open("sampling")
    reader.steady()
    time = """document.querySelector(".live-control [aria-label^='Time']")
        .closest(".live-control").querySelector(".live-number").textContent"""
    reader.move_until(reader.button("Play"), f"{time} === 't = 6'")
    assert reader.button("Play").count() == 1
    walked = reader.value("walked")
    assert 0.6 < walked < 0.8
    reader.frames()
    assert reader.value("walked") == walked
    reader.set(walked=0.98)
    reader.button("Play").click()
    reader.wait_for("walked", 1, 0)
    reader.move_until(reader.button("Play"), f"{time} === 't = 19'")
    assert 0 < reader.value("walked") < 0.1
    assert reader.faults() == []


def test_where_motion_is_unwelcome_it_goes_step_by_step(read):
    reader = read().open("sampling")
    reader.set(num_steps=5)
    for walked in (0.8, 1, 0):
        reader.button("Next step").click()
        assert reader.value("walked") == pytest.approx(walked)


# --- what is said and shown --------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_a_screen_reader_is_told(read, name):
    reader = read().open(name)
    said = {"forward": "t = 1000 of 1000: signal’s share", "sampling": "20 steps, t = 0: energy"}
    reader.slider("Time").press("End")
    reader.page.wait_for_function(
        "([node, said]) => node.textContent.startsWith(said)",
        arg=[reader.figure.get_by_role("status").element_handle(), said[name]],
    )
    group = {"forward": "The forward process", "sampling": "Sampling: from noise to data"}[name]
    assert reader.figure.get_by_role("group", name=group).count() == 1


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing(read, name, scheme, width):
    reader = read(color_scheme=scheme, viewport={"width": width, "height": 900}).open(name)
    assert axe_violations(reader.page) == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_moves_as_it_starts(read, name):
    for width in (320, 500, 690, 1280):
        reader = read(viewport={"width": width, "height": 900}).open(name)
        height, *_ = reader.page.evaluate("heights")
        assert reader.page.evaluate(HEIGHTS)[0] == height, width
        # Nothing sticks out at the side.
        assert reader.figure.evaluate("n => n.scrollWidth - n.clientWidth") <= 0
        # Nor does it move as the reader moves it.
        reader.set(**{"forward": {"schedule": "short"}, "sampling": {"method": "beta"}}[name])
        assert reader.page.evaluate(HEIGHTS)[0] == height, width


@pytest.mark.parametrize("name", PAGES)
def test_without_a_script_and_in_print_the_picture_shows(read, name):
    reader = read(java_script_enabled=False).open(name, started=False)
    picture = reader.figure.locator("img")
    assert picture.is_visible()
    words = {"forward": "signal-to-noise ratio", "sampling": "300 particles"}
    assert words[name] in picture.get_attribute("alt")
    assert not reader.figure.locator(".live-stage").is_visible()
    reader = read().open(name)
    assert not reader.figure.locator("img").is_visible()
    reader.page.emulate_media(media="print")
    assert reader.figure.locator("img").is_visible()
    assert not reader.figure.locator(".live-stage").is_visible()


def test_both_stand_on_one_page(read):
    reader = read().open("sampling")
    reader.start(1)
    reader.page.wait_for_function("document.querySelectorAll('.live-ticks text').length > 20")
    assert reader.faults() == []

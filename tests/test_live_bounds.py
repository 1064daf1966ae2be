"""The Python side of the live figures of Jensen's inequality and of the bound."""

import base64
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gmean

from evidence.live import Bound, Jensen
from evidence.live.figure import read_style
from evidence.plotting import COLORS
from evidence.toys import CurvedToy

STYLE = Path(__file__).parents[1] / "src/evidence_book/static/evidence.css"
POINTS = st.floats(0.05, 4.0)
KINDS = [Jensen, Bound]


# --- Jensen ------------------------------------------------------------------------------------


@given(POINTS, POINTS, st.floats(0, 1))
def test_the_gap_is_between_two_means(first, second, weight):
    figure = Jensen((first, second), weight)
    weights = [weight, 1 - weight]
    arithmetic = np.dot(weights, [first, second])
    geometric = gmean([first, second], weights=weights)
    assert figure.gap() == pytest.approx(math.log(arithmetic / geometric), abs=1e-12)
    assert figure.gap() >= -1e-15
    assert figure.gap() == figure.log_of_mean() - figure.mean_of_log()


@given(POINTS, st.floats(0, 1))
def test_the_gap_closes_where_the_points_are_one_whatever_the_weight(point, weight):
    assert Jensen((point, point), weight).gap() == pytest.approx(0, abs=1e-15)


def test_the_gap_closes_at_the_ends_of_the_weight_and_only_there():
    gaps = [Jensen((0.5, 3.5), weight).gap() for weight in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert gaps[0] == pytest.approx(0, abs=1e-15)
    assert gaps[-1] == pytest.approx(0, abs=1e-15)
    assert min(gaps[1:-1]) > 0.2
    # The weight belongs to the first point.
    assert Jensen((0.5, 3.5), 1.0).mean() == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("w", [0.0, 1.0]),
        ("w", [1.0, 4.5]),
        ("w", [1.0, math.nan]),
        ("w", [1.0]),
        ("w", [1.0, 2.0, 3.0]),
        ("weight", -0.1),
        ("weight", 1.1),
        ("weight", math.nan),
        ("weight", "half"),
    ],
)
def test_what_jensen_refuses(name, value):
    figure = Jensen()
    before = figure.w, figure.weight
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(figure, name, value)
    assert (figure.w, figure.weight) == before
    if value != "half":
        with pytest.raises(traitlets.TraitError, match=name):
            Jensen(**{name: value})


# --- the bound ---------------------------------------------------------------------------------

BOUND = Bound()


def moved(x, mu, sigma):
    BOUND.x, BOUND.mu, BOUND.sigma = x, mu, sigma
    return BOUND


X, MU, SIGMA = st.floats(-2, 4), st.floats(-2.6, 2.6), st.floats(0.05, 2)


@settings(deadline=None, max_examples=50)
@given(X, MU, SIGMA)
def test_the_two_parts_add_up(x, mu, sigma):
    figure = moved(x, mu, sigma)
    assert figure.kl() >= -1e-12
    assert figure.elbo() + figure.kl() == pytest.approx(figure.log_p_x(), abs=1e-9)


@given(X, MU, SIGMA)
def test_the_bound_is_its_closed_form(x, mu, sigma):
    # Moments of a Gaussian, for f(z) = z^2 + z/4 - 1 and noise of 1/2.
    moments = [1, mu, mu**2 + sigma**2, mu**3 + 3 * mu * sigma**2]
    moments.append(mu**4 + 6 * mu**2 * sigma**2 + 3 * sigma**4)
    residual = np.polynomial.Polynomial([x + 1, -0.25, -1])
    reconstruction = -2 * np.dot((residual**2).coef, moments) - 0.5 * math.log(2 * math.pi / 4)
    kl_to_prior = 0.5 * (mu**2 + sigma**2 - 1) - math.log(sigma)
    assert moved(x, mu, sigma).elbo() == pytest.approx(
        reconstruction - kl_to_prior, abs=1e-11, rel=1e-13
    )


def test_where_the_posterior_is_gaussian_the_gap_closes():
    figure = Bound(CurvedToy((0.3, 1.2), 0.7), x=2.0)
    figure.fit()
    precision = 1 + 1.2**2 / 0.7**2
    assert figure.sigma == pytest.approx(precision**-0.5, abs=1e-7)
    assert figure.mu == pytest.approx(1.2 * (2.0 - 0.3) / 0.7**2 / precision, abs=1e-7)
    assert figure.kl() == pytest.approx(0, abs=1e-12)
    assert figure.elbo() == pytest.approx(figure.log_p_x(), abs=1e-12)


@pytest.mark.parametrize("x", [-2.0, -0.5, 1.0, 4.0])
def test_no_other_gaussian_is_better_than_the_fitted_one(x):
    figure = Bound(x=x)
    figure.fit()
    best = figure.elbo()
    for mu, sigma in np.random.default_rng(0).uniform([-2.6, 0.05], [2.6, 2.0], size=(300, 2)):
        figure.mu, figure.sigma = mu, sigma
        assert figure.elbo() < best


def test_moving_q_leaves_the_evidence():
    figure = Bound()
    before, elbo = figure.log_p_x(), figure.elbo()
    figure.mu, figure.sigma = 1.2, 0.3
    assert figure.log_p_x() == before
    assert figure.elbo() > elbo + 1


def test_changing_the_toys_numbers_changes_nothing():
    theta = torch.tensor([-1.0, 0.25, 1.0], dtype=torch.float64)
    figure = Bound(CurvedToy(theta))
    before = figure.elbo()
    theta.zero_()
    assert figure.elbo() == before
    assert figure.theta == [-1.0, 0.25, 1.0]


def test_the_bars_have_room_for_the_evidence_of_every_x():
    figure = Bound(CurvedToy((0.0, 1.0), 0.02), x_range=(-0.5, 0.5), x=0.0)
    for x in (-0.5, 0.0, 0.5):
        figure.x = x
        assert figure.nats[0] + 4 < figure.log_p_x() < figure.nats[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [("x", 4.1), ("x", math.nan), ("mu", -2.7), ("sigma", 0.04), ("sigma", 2.1), ("sigma", "wide")],
)
def test_what_the_bound_refuses(name, value):
    figure = Bound()
    before = figure.x, figure.mu, figure.sigma
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(figure, name, value)
    assert (figure.x, figure.mu, figure.sigma) == before
    if value != "wide":
        with pytest.raises(traitlets.TraitError, match=name):
            Bound(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"toy": 0.5}, TypeError, "toy is a float; a CurvedToy is accepted"),
        ({"toy": CurvedToy([0.1] * 7)}, ValueError, "toy has 7 coefficients; 6 at most"),
        ({"toy": CurvedToy(sigma=1e-4)}, ValueError, "too narrow for the grid"),
        ({"z_range": (1.0, -1.0)}, ValueError, "z_range is .* the lower first"),
        ({"x_range": (0.0, math.inf)}, ValueError, "x_range is"),
        ({"x_range": (0.0,)}, ValueError, "x_range is"),
    ],
)
def test_input_that_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Bound(**arguments)


# --- both --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "told"),
    [(Jensen, {"w": [1.0, 2.0], "weight": 0.25}), (Bound, {"x": 2.0, "mu": 0.5, "sigma": 0.2})],
)
def test_what_the_page_says_arrives_in_python(kind, told):
    figure = kind()
    seen = []
    figure.observe(lambda change: seen.append(change["name"]), names=list(told))
    figure.set_state(told)
    assert {name: getattr(figure, name) for name in told} == told
    assert sorted(seen) == sorted(told)


@pytest.mark.parametrize("kind", KINDS)
def test_only_parameters_travel(kind):
    state = kind().get_state()
    handed = {name: value for name, value in state.items() if not name.startswith("_")}
    assert len(json.dumps(handed, default=str)) < 1000


def test_their_text_is_the_same_at_every_run():
    assert repr(Jensen()) == "Jensen(w=(0.5, 3.5), weight=0.5)"
    assert repr(Bound()) == "Bound(x=1, mu=0, sigma=1)"


@pytest.mark.parametrize(("kind", "trait"), [(Jensen, "weight"), (Bound, "mu")])
def test_the_picture_follows(kind, trait):
    figure = kind()
    data, _ = figure._repr_mimebundle_()
    before = figure.picture()
    assert base64.b64decode(data["image/png"]) == before
    assert before.startswith(b"\x89PNG\r\n")
    setattr(figure, trait, 0.9)
    assert figure.picture() != before


def test_a_bound_out_of_the_pictures_range_is_drawn():
    assert Bound(mu=-2.6, sigma=0.05).picture().startswith(b"\x89PNG")


def test_colours_are_those_of_all_figures():
    rules = re.findall(r"--live-(\w+): var\(--ev-(\w+), (#\w+)\)", read_style("bound"))
    light, dark = rules[:5], rules[5:]
    assert [name for name, _, _ in light] == [name for name, _, _ in dark]
    for name, role, color in rules:
        assert name == role
        # The book's own, first for a light page, then for a dark one.
        book = re.findall(rf"--ev-{role}: (#\w+);", STYLE.read_text(encoding="utf-8"))
        assert color == (book[0] if (name, role, color) in light else book[1])
    assert {name: color for name, _, color in light}.items() <= COLORS.items()

"""The Python side of the live figure of gradient estimators."""

import base64
import itertools
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import traitlets
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch.distributions import Normal

from evidence import estimators
from evidence.live import Gradients
from evidence.live.figure import read_style
from evidence.live.gradients import noise
from evidence.plotting import COLORS

STYLE = Path(__file__).parents[1] / "src/evidence_book/static/evidence.css"
FUNCTIONS = {
    "square": lambda z, c: z.square(),
    "raised": lambda z, c: z.square() + 10,
    "sine": lambda z, c: torch.sin(c * z),
    "step": lambda z, c: (z > 0).double(),
}
CASES = {
    "f": st.sampled_from(list(FUNCTIONS)), "mu": st.floats(-2, 2), "sigma": st.floats(0.1, 1.5),
    "frequency": st.floats(0.5, 10),
}  # fmt: skip
FIGURE = Gradients()


def moved(**traits):
    for name, value in traits.items():
        setattr(FIGURE, name, value)
    return FIGURE


# --- the noise ---------------------------------------------------------------------------------


def test_the_noise_is_normal_and_independent():
    every_seed = np.stack([noise(seed, 10_000) for seed in range(40)])
    chances = [kstest(draws, "norm").pvalue for draws in every_seed]
    assert kstest(chances, "uniform").pvalue > 0.01
    assert kstest(every_seed.ravel(), "norm").pvalue > 0.01
    # Within a seed, one draw and the next (two of one pair, and two of neighbouring pairs).
    for first in (0, 1):
        pairs = every_seed[:, first : first + 9998].reshape(-1, 2)
        assert abs(np.mean(pairs[:, 0] * pairs[:, 1])) < 4 / math.sqrt(len(pairs))
        assert abs(np.mean((pairs**2 - 1).prod(1))) < 4 * 2 / math.sqrt(len(pairs))
    # One seed and the next.
    across = np.mean(every_seed[1:] * every_seed[:-1])
    assert abs(across) < 4 / math.sqrt(every_seed[1:].size)


@pytest.mark.parametrize("count", [2, 3, 100, 9999])
def test_more_draws_begin_with_fewer(count):
    assert len(noise(3, count)) == count
    np.testing.assert_array_equal(noise(3, 10_000)[:count], noise(3, count))
    assert not np.array_equal(noise(4, count), noise(3, count))


def test_every_number_of_draws_is_a_number():
    assert np.isfinite(np.stack([noise(seed, 10_000) for seed in range(0, 1000, 50)])).all()


# --- the two estimators ------------------------------------------------------------------------


@given(**CASES)
def test_contributions_are_gradients_of_the_surrogates(f, mu, sigma, frequency):
    figure = moved(f=f, mu=mu, sigma=sigma, frequency=frequency, num_draws=50)
    at = torch.full((50,), mu, dtype=torch.float64, requires_grad=True)
    eps = torch.from_numpy(noise(figure.seed, 50))
    z = at + sigma * eps
    np.testing.assert_allclose(figure.draws(), z.detach(), atol=1e-15)
    # A step gives PyTorch nothing to differentiate.
    value = FUNCTIONS[f](z, frequency) + 0 * z
    (path,) = torch.autograd.grad(value.sum(), at)
    np.testing.assert_allclose(figure.pathwise(), path, atol=1e-12)
    z = z.detach()
    surrogate = FUNCTIONS[f](z, frequency) * Normal(at, sigma).log_prob(z)
    (score,) = torch.autograd.grad(surrogate.sum(), at)
    np.testing.assert_allclose(figure.score_function(), score, atol=1e-9)


@given(**CASES)
def test_closed_forms_are_integrals(f, mu, sigma, frequency):
    figure = moved(f=f, mu=mu, sigma=sigma, frequency=frequency)
    # Piecewise, since a trapezoid would miss where a step is: the rule is exact for smooth pieces.
    nodes, weights = np.polynomial.legendre.leggauss(200)
    ends = np.unique(np.clip([-12, -mu / sigma, 0, 12], -12, 12))
    path, score = np.zeros(3), np.zeros(3)
    for low, high in itertools.pairwise(ends):
        eps = low + (nodes + 1) * (high - low) / 2
        density = np.exp(-(eps**2) / 2) / math.sqrt(2 * math.pi) * weights * (high - low) / 2
        z = torch.tensor(mu + sigma * eps, requires_grad=True)
        value = FUNCTIONS[f](z, frequency) + 0 * z
        (slope,) = torch.autograd.grad(value.sum(), z)
        for moments, each in (
            (path, slope.numpy()), (score, value.detach().numpy() * eps / sigma),
        ):  # fmt: skip
            moments += [density.sum(), (density * each).sum(), (density * each**2).sum()]
    assert score[1] == pytest.approx(figure.exact(), abs=1e-9)
    assert path[1] == pytest.approx(0 if f == "step" else figure.exact(), abs=1e-9)
    integrals = [path[2] - path[1] ** 2, score[2] - score[1] ** 2]
    assert figure.variances() == pytest.approx(integrals, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("seed", [0, 5])
def test_means_and_variances_of_draws_come_near_their_closed_forms(f, seed):
    figure = Gradients(f, mu=0.4, sigma=0.7, frequency=3.0, num_draws=10_000, seed=seed)
    for estimates, variance, mean in zip(
        (figure.pathwise(), figure.score_function()), figure.variances(),
        (0.0 if f == "step" else figure.exact(), figure.exact()), strict=True,
    ):  # fmt: skip
        error = np.std(estimates) / 100
        assert abs(estimates.mean() - mean) <= 4 * error
        spread = np.std((estimates - estimates.mean()) ** 2) / 100
        assert abs(estimates.var() - variance) <= 4 * spread


def test_it_is_the_pages_example_where_reparameterization_loses():
    figure = Gradients("sine", mu=0.0, sigma=math.exp(-0.5))
    assert figure.variances() == pytest.approx((50.0, 1.36), abs=0.005)
    assert figure.exact() == pytest.approx(0, abs=1e-6)
    runs = {"num_estimates": 20_000, "generator": torch.Generator().manual_seed(0)}
    at = torch.tensor([0.0, math.exp(-0.5)], dtype=torch.float64)
    for estimator, variance in zip(
        (estimators.pathwise, estimators.score_function), figure.variances(), strict=True
    ):
        found = estimators.gradients(
            estimator, lambda phi: Normal(phi[..., 0], phi[..., 1]),
            lambda z, phi: torch.sin(10 * z), at, num_samples=1, **runs,
        )[:, 0].var()  # fmt: skip
        assert found.item() == pytest.approx(variance, rel=0.05)


def test_a_constant_changes_the_score_function_alone():
    plain, raised = Gradients("square"), Gradients("raised")
    np.testing.assert_array_equal(plain.pathwise(), raised.pathwise())
    assert plain.exact() == raised.exact()
    assert plain.variances()[0] == raised.variances()[0]
    assert raised.variances()[1] > 5 * plain.variances()[1]


# --- the widget --------------------------------------------------------------------------------

TRAITS = ("f", "mu", "sigma", "frequency", "num_draws", "seed")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("f", "cube"), ("mu", 2.1), ("mu", math.nan), ("sigma", 0.0), ("sigma", 1.6),
        ("sigma", "wide"), ("frequency", 10.5), ("num_draws", 1), ("num_draws", 10_001),
        ("num_draws", 2.5), ("seed", -1), ("seed", 1000),
    ],
)  # fmt: skip
def test_what_is_refused(name, value):
    figure = Gradients()
    before = [getattr(figure, trait) for trait in TRAITS]
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(figure, name, value)
    assert [getattr(figure, trait) for trait in TRAITS] == before
    if value != "wide":
        with pytest.raises(traitlets.TraitError, match=name):
            Gradients(**{name: value})


def test_what_the_page_says_arrives_in_python():
    figure = Gradients()
    told = dict(zip(TRAITS, ("sine", -0.5, 0.3, 4.0, 777, 8), strict=True))
    seen = []
    figure.observe(lambda change: seen.append(change["name"]), names=list(told))
    figure.set_state(told)
    assert {name: getattr(figure, name) for name in told} == told
    assert sorted(seen) == sorted(told)
    assert len(figure.pathwise()) == 777


def test_only_parameters_travel():
    state = Gradients().get_state()
    handed = {name: value for name, value in state.items() if not name.startswith("_")}
    assert len(json.dumps(handed, default=str)) < 1500


def test_its_text_is_the_same_at_every_run():
    assert repr(Gradients()) == (
        "Gradients(f='square', mu=1, sigma=0.9, frequency=10, num_draws=100, seed=0)"
    )


@pytest.mark.parametrize(
    ("trait", "value"),
    [("f", "step"), ("mu", -0.3), ("sigma", 0.2), ("num_draws", 12), ("seed", 1)],
)
def test_the_picture_follows(trait, value):
    figure = Gradients()
    data, _ = figure._repr_mimebundle_()
    before = figure.picture()
    assert base64.b64decode(data["image/png"]) == before
    assert before.startswith(b"\x89PNG\r\n")
    setattr(figure, trait, value)
    assert figure.picture() != before


@pytest.mark.parametrize("f", FUNCTIONS)
def test_the_ends_of_all_ranges_are_drawn(f):
    for mu, sigma, num_draws in ((-2.0, 0.1, 2), (2.0, 1.5, 10_000)):
        figure = Gradients(f, mu=mu, sigma=sigma, num_draws=num_draws)
        assert figure.picture().startswith(b"\x89PNG")


def test_colours_are_those_of_all_figures():
    rules = re.findall(r"--live-(error): var\(--ev-(\w+), (#\w+)\)", read_style("gradients"))
    book = re.findall(r"--ev-error: (#\w+);", STYLE.read_text(encoding="utf-8"))
    assert [color for _, _, color in rules] == book
    assert book[0] == COLORS["error"]

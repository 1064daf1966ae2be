import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch.distributions import MultivariateNormal, Normal

from evidence.toys import (
    CurvedToy,
    DiscreteToy,
    LinearToy,
    all_bits,
    random_discrete_toy,
    random_linear_toy,
)

X = torch.linspace(-3, 6, 10, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(b=st.floats(-2, 2), w=st.floats(-2, 2), sigma=st.floats(0.5, 3), x=st.floats(-3, 3))
@settings(max_examples=50, deadline=None)
def test_the_evidence_of_a_straight_curve_is_gaussian(b, w, sigma, x):
    x = torch.tensor(x, dtype=torch.float64)
    # For smaller sigma the posterior can leave the grid. Normal makes float32 of plain numbers.
    expected = Normal(b, torch.full_like(x, math.hypot(w, sigma))).log_prob(x)
    assert CurvedToy((b, w), sigma).log_p_x(x).item() == pytest.approx(expected.item(), abs=1e-11)


def test_the_evidence_of_the_curve_is_that_of_adaptive_quadrature():
    toy = CurvedToy()

    def joint(z, x):
        f = z * z + z / 4 - 1
        return math.exp(-z * z / 2 - (x - f) ** 2 / (2 * 0.25)) / (2 * math.pi * 0.5)

    for x in X.tolist():
        expected = quad(joint, -9, 9, args=(x,), epsabs=1e-14, epsrel=1e-12, limit=400)[0]
        found = toy.log_p_x(torch.tensor(x, dtype=torch.float64)).exp().item()
        assert found == pytest.approx(expected, rel=1e-11)


def test_the_posterior_of_the_curve_integrates_to_one_and_is_bimodal_where_said():
    toy, z = CurvedToy(), torch.linspace(-6, 6, 6001, dtype=torch.float64)
    log_posterior = toy.log_posterior(z, X[:, None])
    torch.testing.assert_close(log_posterior.exp().sum(-1) * 0.002, torch.ones(10).double())
    inner = log_posterior[:, 1:-1]
    peaks = ((inner > log_posterior[:, :-2]) & (inner > log_posterior[:, 2:])).sum(-1)
    assert peaks[X < -0.85].eq(1).all()
    assert peaks[X > -0.7].eq(2).all()


def test_gradients_of_the_log_evidence_are_those_of_differences():
    theta = torch.tensor([-1.0, 0.25, 1.0], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t, s: CurvedToy(t, s).log_p_x(X), (theta, sigma))


@pytest.mark.parametrize(
    ("toy", "x", "message"),
    [
        (CurvedToy(sigma=1e-4), 1.0, "too narrow"),
        (CurvedToy((0.0, 1.0), 0.5), 15.0, "cut off"),
    ],
)
def test_an_evidence_that_the_grid_does_not_resolve_is_refused(toy, x, message):
    with pytest.raises(ValueError, match=message):
        toy.log_p_x(torch.tensor([0.5, x], dtype=torch.float64))


@given(D=st.integers(1, 7), d=st.integers(1, 5), seed=st.integers(0, 2**20))
@settings(max_examples=50, deadline=None)
def test_linear_evidence_and_posterior_follow_from_the_joint_gaussian(D, d, seed):  # noqa: N803
    toy = random_linear_toy(D, d, sigma=0.7, seed=seed)
    x, z = toy.sample(4, generator=torch.Generator().manual_seed(seed))
    assert x.shape == (4, D)
    assert z.shape == (4, d)
    dense = toy.W @ toy.W.mT + 0.49 * torch.eye(D, dtype=torch.float64)
    cross = torch.cat([torch.eye(d, dtype=torch.float64), toy.W])
    covariance = torch.cat([cross, torch.cat([toy.W.mT, dense])], dim=1)
    mean = torch.cat([torch.zeros(d, dtype=torch.float64), toy.b])
    log_joint = MultivariateNormal(mean, covariance).log_prob(torch.cat([z, x], dim=1))
    torch.testing.assert_close(toy.log_joint(x, z), log_joint, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(toy.log_p_x(x), MultivariateNormal(toy.b, dense).log_prob(x))
    torch.testing.assert_close(toy.log_posterior(z, x), toy.log_joint(x, z) - toy.log_p_x(x))


def test_linear_samples_have_the_moments_of_the_evidence():
    toy = random_linear_toy(3, 2, seed=1)
    x, _ = toy.sample(200_000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.mean(0), toy.p_x().mean, atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), toy.p_x().covariance_matrix, atol=0.06, rtol=0)


def test_curved_samples_have_the_moments_of_the_evidence():
    x, z = CurvedToy().sample(200_000, generator=torch.Generator().manual_seed(0))
    assert x.shape == z.shape == (200_000,)
    # E[z^2 + z/4 - 1] = 0 and Var = 2 + 1/16 + 1/4.
    assert x.mean().item() == pytest.approx(0, abs=0.015)
    assert x.var().item() == pytest.approx(2.3125, abs=0.05)


@given(D=st.integers(1, 5), d=st.integers(1, 6), seed=st.integers(0, 2**20))
@settings(max_examples=30, deadline=None)
def test_discrete_evidence_and_posterior_sum_to_one(D, d, seed):  # noqa: N803
    toy = random_discrete_toy(D, d, seed=seed)
    x = all_bits(D)
    assert toy.log_p_x(x).exp().sum().item() == pytest.approx(1, abs=1e-12)
    posterior = toy.log_posterior(toy.states(), x[:, None]).exp()
    torch.testing.assert_close(posterior.sum(-1), torch.ones(2**D, dtype=torch.float64))


def test_discrete_evidence_by_hand():
    toy = DiscreteToy(
        torch.tensor([0.25]).double(),
        torch.tensor([[1.0], [-2.0]]).double(),
        torch.zeros(2).double(),
    )
    on, off = 1 / (1 + math.exp(-1)), 1 - 1 / (1 + math.exp(2))
    expected = 0.75 * 0.25 + 0.25 * on * off
    found = toy.log_p_x(torch.tensor([[1.0, 0.0]]).double()).exp()
    assert found.item() == pytest.approx(expected, abs=1e-14)


def test_discrete_samples_have_the_frequencies_of_the_evidence():
    toy = random_discrete_toy(3, 4, seed=0)
    x, z = toy.sample(100_000, generator=torch.Generator().manual_seed(0))
    assert z.shape == (100_000, 4)
    counted = (x @ torch.tensor([4.0, 2.0, 1.0]).double()).long().bincount(minlength=8) / 1e5
    torch.testing.assert_close(counted.double(), toy.log_p_x(all_bits(3)).exp(), atol=0.006, rtol=0)


def test_pixels_are_on_with_the_logistic_function_of_bits_and_offset():
    toy = random_discrete_toy(D=3, d=2, seed=0)
    for z in all_bits(2):
        for i in range(3):
            log_odds = sum(float(toy.W[i, j] * z[j]) for j in range(2)) + float(toy.b[i])
            assert math.isclose(toy.p_x_given_z(z).mean[i], 1 / (1 + math.exp(-log_odds)))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "toy", [CurvedToy(), random_linear_toy(3, 2, seed=0), random_discrete_toy(3, 2, seed=0)]
)
def test_draws_come_from_the_generator_and_from_nothing_else(toy):
    before = torch.get_rng_state()
    x, z = toy.sample(50, generator=seeded(1))
    torch.rand(1)
    for draw, again in zip((x, z), toy.sample(50, generator=seeded(1)), strict=True):
        assert torch.equal(draw, again)
        assert draw.dtype == torch.float64
    torch.set_rng_state(before)
    toy.sample(50, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(toy.sample(50, generator=seeded(2))[0], x)


def test_curved_and_linear_draws_are_mean_plus_noise():
    generator = seeded(1)
    z, eps = (torch.randn(20, generator=generator, dtype=torch.float64) for _ in range(2))
    x, drawn = CurvedToy(sigma=0.7).sample(20, generator=seeded(1))
    assert torch.equal(drawn, z)
    assert torch.allclose(x, z**2 + z / 4 - 1 + 0.7 * eps)
    linear = random_linear_toy(3, 2, sigma=0.7, seed=0)
    generator = seeded(1)
    z, eps = (torch.randn(20, n, generator=generator, dtype=torch.float64) for n in (2, 3))
    x, drawn = linear.sample(20, generator=seeded(1))
    assert torch.equal(drawn, z)
    assert torch.allclose(x, z @ linear.W.T + linear.b + 0.7 * eps)


def test_random_toys_depend_on_their_seed_alone():
    def parameters(toy):
        return torch.cat([toy.W.flatten(), toy.b])

    for make in (random_linear_toy, random_discrete_toy):
        first = parameters(make(4, 3, seed=0))
        torch.rand(1)
        assert torch.equal(parameters(make(4, 3, seed=0)), first)
        assert not torch.isclose(parameters(make(4, 3, seed=1)), first).any()
    generator = seeded(0)
    weights, b = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((4, 3), (4,)))
    linear = random_linear_toy(4, 3, seed=0)
    assert torch.equal(linear.W, weights)
    assert torch.equal(linear.b, b)
    assert linear.sigma == 0.5
    generator = seeded(0)
    pi = 0.2 + 0.6 * torch.rand(3, generator=generator, dtype=torch.float64)
    weights, b = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((4, 3), (4,)))
    for settings_, scale in (({}, 2.0), ({"scale": 0.5}, 0.5)):
        toy = random_discrete_toy(4, 3, seed=0, **settings_)
        assert torch.equal(toy.pi, pi)
        assert torch.equal(toy.W, scale * weights)
        assert torch.equal(toy.b, b)


def test_toys_keep_float64_under_any_default():
    for toy in (CurvedToy(), random_linear_toy(3, 2, seed=0), random_discrete_toy(3, 2, seed=0)):
        x, z = toy.sample(2, generator=seeded(0))
        for value in (toy.log_joint(x, z), toy.log_p_x(x), toy.p_z().mean, toy.p_z().variance):
            assert value.dtype == torch.float64


CURVED, LINEAR, BITS = (
    CurvedToy(),
    LinearToy(torch.ones(3, 2).double()),
    random_discrete_toy(3, 2, seed=0),
)
WRONG = torch.zeros(2, 7)  # neither the type nor the shape
FIT = {CURVED: (X, X), LINEAR: (randn(2, 3), randn(2, 2)), BITS: (all_bits(3), all_bits(2))}


@pytest.mark.parametrize("toy", FIT)
def test_the_argument_that_does_not_fit_is_named(toy):
    x, z = FIT[toy]
    calls = {
        "x": (
            lambda: toy.log_joint(WRONG, z),
            lambda: toy.log_p_x(WRONG),
            lambda: toy.log_posterior(z, WRONG),
        ),
        "z": (
            lambda: toy.log_joint(x, WRONG),
            lambda: toy.mean(WRONG) if toy is not BITS else toy.p_x_given_z(WRONG),
            lambda: toy.log_posterior(WRONG, x),
        ),
    }
    for name, wrong_calls in calls.items():
        for call in wrong_calls:
            with pytest.raises(TypeError, match=f"^{name} is of type torch.float32; a tensor"):
                call()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CurvedToy(sigma=0.0), "^sigma is 0;"),
        (lambda: CurvedToy(theta=randn(2, 2)), r"^theta has shape \(2, 2\); accepted is \(k,\)$"),
        (lambda: LinearToy(randn(2)), r"^W has shape \(2,\); accepted is \(D, d\)$"),
        (lambda: LinearToy(randn(3, 2), randn(2)), r"^b has shape \(2,\); accepted is \(3,\)$"),
        (lambda: LinearToy(randn(3, 2), sigma=-1.0), "^sigma is -1;"),
        (
            lambda: DiscreteToy(randn(2, 2), randn(3, 2), randn(3)),
            r"^pi has shape \(2, 2\); accepted is \(d,\)$",
        ),
        (
            lambda: DiscreteToy(torch.tensor([0.0, 0.5]).double(), randn(3, 2), randn(3)),
            "^pi is .*strictly between 0 and 1 are accepted$",
        ),
        (
            lambda: DiscreteToy(torch.tensor([1.0, 0.5]).double(), randn(3, 2), randn(3)),
            "^pi is .*strictly between 0 and 1 are accepted$",
        ),
        (
            lambda: DiscreteToy(BITS.pi, randn(3, 4), randn(3)),
            r"^W has shape \(3, 4\); accepted is \(D, 2\)$",
        ),
        (
            lambda: DiscreteToy(BITS.pi, randn(3, 2), randn(4)),
            r"^b has shape \(4,\); accepted is \(3,\)$",
        ),
    ],
)
def test_the_parameter_that_does_not_fit_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_twenty_bits_can_be_enumerated():
    assert all_bits(20).shape == (2**20, 20)
    assert DiscreteToy(torch.full((20,), 0.5).double(), randn(1, 20), randn(1)).d == 20


def test_bits_are_counted_in_order():
    assert all_bits(2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    with pytest.raises(ValueError, match="1 to 20 bits"):
        all_bits(21)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), torch.ones(2).double()])
@pytest.mark.parametrize("make", [CurvedToy, lambda sigma: LinearToy(randn(3, 2), sigma=sigma)])
def test_noise_that_is_none_is_refused(make, sigma):
    with pytest.raises(ValueError, match="sigma"):
        make(sigma=sigma)


HALF = torch.full((2,), 0.5, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CurvedToy(()), ValueError, r"theta has shape \(0,\); accepted is \(k,\)"),
        (lambda: CurvedToy().log_p_x(1.0), TypeError, "x is of type float"),
        (lambda: CurvedToy().mean(torch.zeros(2)), TypeError, "z is of type torch.float32"),
        (lambda: LinearToy(randn(3)), ValueError, r"W has shape \(3,\); accepted is \(D, d\)"),
        (lambda: LinearToy(randn(3, 2), randn(2)), ValueError, r"b has shape \(2,\)"),
        (lambda: LinearToy(randn(3, 2).float()), TypeError, "W is of type torch.float32"),
        (lambda: LinearToy(randn(3, 2)).log_p_x(randn(5, 2)), ValueError, r"\(batch, 3\)"),
        (lambda: LinearToy(randn(3, 2)).p_x_given_z(randn(5, 3)), ValueError, r"\(batch, 2\)"),
        (lambda: DiscreteToy(HALF * 2, randn(3, 2), randn(3)), ValueError, "pi is"),
        (lambda: DiscreteToy(HALF, randn(3, 1), randn(3)), ValueError, r"accepted is \(D, 2\)"),
        (lambda: random_discrete_toy(3, 21, seed=0), ValueError, "d = 21"),
        (lambda: random_discrete_toy(2, 2, seed=0).log_p_x(HALF), ValueError, "x holds values"),
    ],
)
def test_input_that_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()

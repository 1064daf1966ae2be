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

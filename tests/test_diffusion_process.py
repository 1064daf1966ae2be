"""The forward chain: closed forms against composition, the product rule and torch's densities."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, kl_divergence

from evidence.diffusion.process import diffuse, q_before, q_step, q_x_t
from evidence.diffusion.schedule import cosine, from_log_snr, linear

SCHEDULES = [linear(12, 0.01, 0.4), cosine(12), linear(1000), from_log_snr(
    torch.linspace(20, -20, 12, dtype=torch.float64))]  # fmt: skip


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_diffusing_is_the_composition_of_single_steps():
    """The mean and variance after t steps, built up step by step from q_step alone."""
    x_0 = randn(3, 2)
    for schedule in SCHEDULES:
        mu, variance = x_0, torch.zeros_like(x_0)
        for t in range(1, schedule.num_steps + 1):
            # A Gaussian through an affine map: q_step at two points gives its slope.
            step = q_step(mu, schedule, t)
            slope = q_step(mu + 1, schedule, t).mean - step.mean
            mu, variance = step.mean, slope.square() * variance + step.variance
            marginal = q_x_t(x_0, schedule, t)
            torch.testing.assert_close(marginal.mean, mu, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(marginal.variance, variance, rtol=1e-11, atol=0)


def test_diffuse_draws_from_q_x_t():
    x_0, eps = randn(4, 3, 2, 2), randn(4, 3, 2, 2, seed=1)
    for schedule in SCHEDULES:
        for t in (1, 2, schedule.num_steps):
            q = q_x_t(x_0, schedule, t)
            torch.testing.assert_close(
                diffuse(x_0, eps, schedule, t), q.mean + q.stddev * eps, rtol=1e-14, atol=1e-14
            )


@given(
    st.lists(st.floats(0.01, 0.9), min_size=2, max_size=8),
    st.integers(0, 1000),
    st.data(),
)
def test_the_product_rule_of_a_step(betas, seed, data):
    """q(x_t|x_{t-1}) q(x_{t-1}|x_0) = q(x_{t-1}|x_t,x_0) q(x_t|x_0), at points that are random."""
    abar = (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0)
    schedule = from_log_snr(abar.log() - torch.log1p(-abar))
    t = data.draw(st.integers(2, len(betas)))
    x_0, before, x_t = 2 * randn(3, 5, 2, seed=seed)
    left = q_step(before, schedule, t).log_prob(x_t) + q_x_t(x_0, schedule, t - 1).log_prob(before)
    right = q_before(x_0, x_t, schedule, t).log_prob(before)
    right = right + q_x_t(x_0, schedule, t).log_prob(x_t)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-10)


def test_q_before_is_conditioning_of_the_joint_gaussian():
    """By the general formula for the conditional of a two-dimensional Gaussian."""
    x_0, x_t = randn(6, 1), randn(6, 1, seed=1)
    for schedule in SCHEDULES[:2]:
        for t in (2, 3, schedule.num_steps):
            a, before = schedule.alpha[t].sqrt(), schedule.alpha_bar[t - 1]
            c = 1 - before
            joint = torch.stack([torch.stack([c, a * c]), torch.stack([a * c, a**2 * c])])
            joint[1, 1] += schedule.beta[t]
            gain = joint[0, 1] / joint[1, 1]
            mu = before.sqrt() * x_0
            q = q_before(x_0, x_t, schedule, t)
            torch.testing.assert_close(q.mean, mu + gain * (x_t - a * mu), rtol=1e-12, atol=1e-12)
            variance = (joint[0, 0] - gain * joint[0, 1]).expand_as(q.variance)
            torch.testing.assert_close(q.variance, variance, rtol=1e-12, atol=1e-13)


def test_the_densities_are_of_the_step_named_and_not_of_its_neighbours():
    schedule = linear(6, 0.1, 0.6)
    x_0 = randn(1, 2)
    for t in range(2, 7):
        kl = kl_divergence(q_x_t(x_0, schedule, t), q_x_t(x_0, schedule, t - 1))
        assert kl.sum() > 1e-2
    beta = torch.linspace(0.1, 0.6, 6, dtype=torch.float64)
    for t in range(1, 7):
        assert q_step(x_0, schedule, t).variance[0, 0].item() == pytest.approx(beta[t - 1].item())


def test_a_step_for_each_datum_is_that_step():
    schedule = linear(9, 0.05, 0.5)
    x_0, x_t, eps = randn(3, 4, 2, 3, 3)
    t = torch.tensor([2, 9, 5, 2])
    point = randn(4, 2, 3, 3, seed=1)
    results = {
        "diffuse": lambda i, t: diffuse(x_0[i], eps[i], schedule, t),
        "q_x_t": lambda i, t: q_x_t(x_0[i], schedule, t).log_prob(point[i]),
        "q_step": lambda i, t: q_step(x_t[i], schedule, t).log_prob(point[i]),
        "q_before": lambda i, t: q_before(x_0[i], x_t[i], schedule, t).log_prob(point[i]),
    }
    for name, result in results.items():
        together = result(slice(None), t)
        for i in range(4):
            alone = result(slice(i, i + 1), int(t[i]))
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=0, msg=name)


def test_the_dtype_of_the_data_is_kept():
    x = randn(2, 3).float()
    for t in (2, torch.tensor([2, 3])):
        assert diffuse(x, x, linear(4), t).dtype == torch.float32
        assert q_before(x, x, linear(4), t).mean.dtype == torch.float32


def test_a_whole_chain_has_the_joint_covariance_of_its_steps():
    """q(x_{1:T}|x_0) as one big Gaussian; its log-density is the sum of those of the steps."""
    schedule = linear(4, 0.1, 0.7)
    x_0 = torch.tensor([[0.7]], dtype=torch.float64)
    path = randn(5, 4)
    abar = schedule.alpha_bar[1:]
    mean = abar.sqrt() * 0.7
    s, t = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    first, last = torch.minimum(s, t), torch.maximum(s, t)
    cov = (abar[last] / abar[first]).sqrt() * (1 - abar[first])
    expected = MultivariateNormal(mean, cov).log_prob(path)
    total = torch.zeros(5, dtype=torch.float64)
    before = x_0.expand(5, 1)
    for t in range(1, 5):
        now = path[:, t - 1 : t]
        total += q_step(before, schedule, t).log_prob(now).squeeze(1)
        before = now
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)


def test_bad_arguments_are_refused():
    schedule, x = linear(5), randn(2, 3)
    with pytest.raises(ValueError, match="a point"):
        q_before(x, x, schedule, 1)
    with pytest.raises(ValueError, match="a point"):
        q_before(x, x, schedule, torch.tensor([2, 1]))
    for call in (
        lambda t: diffuse(x, x, schedule, t),
        lambda t: q_x_t(x, schedule, t),
        lambda t: q_step(x, schedule, t),
    ):
        for t in (0, 6, torch.tensor([0, 1])):
            with pytest.raises(ValueError, match="accepted are steps from 1 to 5"):
                call(t)
        with pytest.raises(ValueError, match="one step for each x"):
            call(torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"eps has shape \(2, 1\)"):
        diffuse(x, x[:, :1], schedule, 1)
    with pytest.raises(TypeError, match="float32"):
        q_before(x, x.float(), schedule, 2)

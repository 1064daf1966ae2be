"""Samplers against one another, against the ODE they solve, and against the law of the data."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from evidence.diffusion import clouds, process
from evidence.diffusion import sampling as sa
from evidence.diffusion import schedule as sc
from evidence.diffusion.exact import GaussianData, MixtureData
from evidence.diffusion.networks import VectorNetwork
from evidence.diffusion.prediction import NetworkDenoiser
from evidence.two_samples import energy_distance

DATA = clouds.mixture()
SCHEDULE = sc.discretize(sc.cosine_log_snr(9, -9), 12)
SCHEDULES = {
    "cosine": SCHEDULE,
    "linear": sc.linear(15, 0.01, 0.4),
    "respaced": sc.linear(1000).respaced([1, 40, 200, 201, 600, 1000]),
    "one step": sc.Schedule(torch.tensor([1.0, 0.3], dtype=torch.float64)),
    "abrupt": sc.from_log_snr(torch.tensor([30.0, 1.0, -60.0], dtype=torch.float64)),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


class Recording:
    """A denoiser that remembers at which log-SNR it was asked."""

    def __init__(self, denoiser=DATA):
        self.denoiser = denoiser
        self.asked = []

    def predict(self, x_t, log_snr, wanted="eps", *, label=None):
        self.asked.append(float(log_snr))
        return self.denoiser.predict(x_t, log_snr, wanted, label=label)


class AsImage:
    """The mixture for points that come as images of shape (2, 1, 1)."""

    def predict(self, x_t, log_snr, wanted="eps", *, label=None):
        return DATA.predict(x_t.flatten(1), log_snr, wanted).reshape(x_t.shape)


def run(name, denoiser, x, schedule, *, seed=1, **kwargs):
    match name:
        case "ancestral":
            return sa.ancestral(denoiser, x, schedule, seeded(seed), **kwargs)
        case "ancestral beta":
            return sa.ancestral(
                denoiser, x, schedule, seeded(seed), reverse_variance="beta", **kwargs
            )
        case "heun":
            return sa.heun(denoiser, x, schedule, **kwargs)
    eta = float(name.removeprefix("ddim "))
    return sa.ddim(denoiser, x, schedule, eta=eta, generator=seeded(seed), **kwargs)


SAMPLERS = ["ancestral", "ancestral beta", "ddim 0", "ddim 0.5", "ddim 1", "heun"]
NOISY = SAMPLERS[:2] + SAMPLERS[3:5]


# What a step is. -----------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("reverse_variance", ["posterior", "beta"])
def test_an_ancestral_step_draws_from_the_forward_posterior_at_the_predicted_datum(
    schedule, reverse_variance
):
    x, eps = normal(20, 2), normal(20, 2, seed=1)
    for t in range(2, schedule.num_steps + 1):
        eps_hat = DATA.predict(x, schedule.log_snr[t])
        q = process.q_before(DATA.predict(x, schedule.log_snr[t], "x_0"), x, schedule, t)
        std = q.stddev if reverse_variance == "posterior" else schedule.beta[t].sqrt()
        got = sa.ancestral_step(x, eps_hat, schedule, t, eps, reverse_variance=reverse_variance)
        # At much noise x_0 from eps divides by the root of alpha_bar, here 1e-13 at the least.
        scale = 1 / schedule.alpha[t].sqrt().item()
        torch.testing.assert_close(got, q.mean + std * eps, rtol=0, atol=1e-13 * max(scale, 10))


def test_the_variance_beta_is_right_for_normal_data_and_posterior_for_one_point():
    """At standard normal data eps_hat is sigma x, and the chain must keep the variance at 1."""
    x, none, one = normal(5, 2), torch.zeros(5, 2).double(), torch.ones(5, 2).double()
    point = 0.7 * one
    for t in range(2, SCHEDULE.num_steps + 1):
        eps_hat = SCHEDULE.sigma[t] * x
        mean = sa.ancestral_step(x, eps_hat, SCHEDULE, t, none, reverse_variance="beta")
        noise = sa.ancestral_step(x, eps_hat, SCHEDULE, t, one, reverse_variance="beta") - mean
        torch.testing.assert_close((mean / x) ** 2 + noise**2, one, rtol=0, atol=1e-12)
        # Of one point the chain must keep the law N(a x_0, sigma^2).
        x_t = process.diffuse(point, one, SCHEDULE, t)
        mean = sa.ancestral_step(x_t, one, SCHEDULE, t, none)
        noise = sa.ancestral_step(x_t, one, SCHEDULE, t, one) - mean
        x_up = x_t + SCHEDULE.sigma[t]
        slope = sa.ancestral_step(x_up, 2 * one, SCHEDULE, t, none) - mean
        law = slope**2 + noise**2
        torch.testing.assert_close(law, SCHEDULE.sigma_squared[t - 1] * one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "heun"])
def test_chains_are_their_steps_and_states_are_indexed_by_t(name):
    states = run(name, DATA, normal(6, 2), SCHEDULE, trajectory=True)
    assert states.shape == (SCHEDULE.num_steps + 1, 6, 2)
    draws = seeded(1)
    for t in range(SCHEDULE.num_steps, 0, -1):
        x, eps_hat = states[t], DATA.predict(states[t], SCHEDULE.log_snr[t])
        eps = None
        if t > 1 and name != "ddim 0":
            eps = torch.randn(6, 2, generator=draws, dtype=torch.float64)
        if name.startswith("ddim"):
            want = sa.ddim_step(x, eps_hat, SCHEDULE, t, eps, eta=float(name[5:]))
        else:
            variance = "beta" if "beta" in name else "posterior"
            want = sa.ancestral_step(x, eps_hat, SCHEDULE, t, eps, reverse_variance=variance)
        torch.testing.assert_close(states[t - 1], want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_trajectory_goes_from_the_start_to_the_result(name):
    x = normal(6, 2)
    states = run(name, DATA, x, SCHEDULE, trajectory=True)
    assert torch.equal(states[-1], x)
    assert torch.equal(states[0], run(name, DATA, x, SCHEDULE))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_denoiser_is_asked_at_the_steps_own_log_snr(name):
    denoiser = Recording()
    run(name, denoiser, normal(3, 2), SCHEDULE)
    levels = SCHEDULE.log_snr.tolist()
    want = levels[:0:-1]
    if name == "heun":
        want = [level for pair in pairwise(want) for level in pair] + want[-1:]
    assert denoiser.asked == want


# No noise at the last step. ------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_step_returns_the_predicted_datum_and_draws_nothing(name):
    schedule = SCHEDULES["one step"]
    x = normal(8, 2)
    first, second = (run(name, DATA, x, schedule, seed=seed) for seed in (1, 2))
    assert torch.equal(first, second)
    want = DATA.predict(x, schedule.log_snr[1], "x_0")
    torch.testing.assert_close(first, want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", NOISY)
def test_a_chain_draws_once_a_step_but_the_last(name):
    generator, other = seeded(4), seeded(4)
    if name.startswith("ddim"):
        sa.ddim(DATA, normal(8, 2), SCHEDULE, eta=float(name[5:]), generator=generator)
    else:
        sa.ancestral(DATA, normal(8, 2), SCHEDULE, generator)
    for _ in range(SCHEDULE.num_steps - 1):
        torch.randn(8, 2, generator=other, dtype=torch.float64)
    assert torch.equal(generator.get_state(), other.get_state())


def test_noise_at_the_last_step_would_be_seen():
    """The variance beta_1 is not small in a short chain; only the rule for t = 1 keeps it out."""
    schedule = SCHEDULES["one step"]
    x, eps = normal(8, 2), normal(8, 2, seed=1)
    clean = sa.ancestral_step(x, x, schedule, 1, eps, reverse_variance="beta")
    noisy = clean + schedule.beta[1].sqrt() * eps
    assert (run("ancestral beta", DATA, x, schedule) - noisy).abs().max() > 0.5


# DDIM between the chain and the ODE. ---------------------------------------------------------


# Not "abrupt", whose first step divides by 1e-13: there is no 1e-12 left to ask for.
TAME = ["cosine", "linear", "respaced", "one step"]


@pytest.mark.parametrize("name", TAME)
def test_ddim_at_eta_one_is_ancestral_with_the_posterior_variance(name):
    schedule, x = SCHEDULES[name], normal(50, 2)
    chain = run("ancestral", DATA, x, schedule, trajectory=True)
    ddim = run("ddim 1", DATA, x, schedule, trajectory=True)
    torch.testing.assert_close(ddim, chain, rtol=1e-12, atol=1e-12)
    if schedule.num_steps > 1:
        wrong = run("ancestral beta", DATA, x, schedule, trajectory=True)
        assert (wrong - chain).abs().max() > 1e-3


def test_eta_up_to_one_is_accepted_where_a_step_destroys_everything():
    """There 1 - alpha_bar - variance is zero but for rounding, which must not make it negative."""
    schedule = SCHEDULES["abrupt"]
    x, eps = normal(4, 2), normal(4, 2, seed=1)
    for t in (1, 2, 3):
        got = sa.ddim_step(x, x, schedule, t, eps, eta=1.0)
        assert got.isfinite().all()


@given(
    rise=st.lists(st.floats(0.01, 3), min_size=2, max_size=8),
    eta=st.floats(0, 1),
    t=st.integers(1, 8),
)
def test_a_ddim_step_keeps_the_law_of_a_point_whatever_eta_is(rise, eta, t):
    """From x_t = a x_0 + sigma eps, known eps, to mean a' x_0 and variance sigma'^2: the property
    by which Song et al. choose the two coefficients."""
    log_snr = 6 - torch.tensor(rise, dtype=torch.float64).cumsum(0)
    schedule = sc.from_log_snr(log_snr)
    t = min(t, schedule.num_steps)
    x_0 = torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    none, one = torch.zeros_like(x_0), torch.ones_like(x_0)
    at = [sa.ddim_step(process.diffuse(x_0, e, schedule, t), e, schedule, t, none, eta=eta)
          for e in (none, one)]  # fmt: skip
    noise = sa.ddim_step(process.diffuse(x_0, none, schedule, t), none, schedule, t, one, eta=eta)
    torch.testing.assert_close(at[0], schedule.sqrt_alpha_bar[t - 1] * x_0, rtol=0, atol=1e-12)
    law = (at[1] - at[0]) ** 2 + (noise - at[0]) ** 2
    torch.testing.assert_close(law, schedule.sigma_squared[t - 1] * one, rtol=0, atol=1e-12)


def euler_in_y_and_r(x, schedule, shift=0):
    """Euler's rule on dy/dr = eps_hat, from alpha_bar; `shift` takes the slope of another t."""
    a_bar = schedule.alpha_bar
    r = ((1 - a_bar) / a_bar).sqrt()
    y = x / a_bar[-1].sqrt()
    for t in range(schedule.num_steps, 0, -1):
        at = max(t - shift, 1)
        eps_hat = DATA.predict(a_bar[t].sqrt() * y, torch.log(a_bar[at] / (1 - a_bar[at])))
        y = y + (r[t - 1] - r[t]) * eps_hat
    return y


@pytest.mark.parametrize("name", TAME)
def test_ddim_at_eta_zero_is_euler_in_y_and_r(name):
    schedule, x = SCHEDULES[name], normal(50, 2)
    got = sa.ddim(DATA, x, schedule)
    torch.testing.assert_close(got, euler_in_y_and_r(x, schedule), rtol=1e-12, atol=1e-12)
    if schedule.num_steps > 1:
        assert (got - euler_in_y_and_r(x, schedule, shift=1)).abs().max() > 1e-2


def test_eta_between_interpolates_and_above_one_is_refused_where_it_must_be():
    x = normal(2000, 2)
    spread = [
        (run(f"ddim {eta}", DATA, x, SCHEDULE) - run("ddim 0", DATA, x, SCHEDULE)).norm().item()
        for eta in (0.01, 0.1, 0.5)
    ]
    assert spread[0] < spread[1] < spread[2]
    assert sa.ddim(DATA, x, SCHEDULE, eta=1.0001, generator=seeded()).isfinite().all()
    with pytest.raises(ValueError, match=r"eta is 3.0; at t = \d+ its noise"):
        sa.ddim(DATA, x, SCHEDULE, eta=3.0, generator=seeded())


# Order. --------------------------------------------------------------------------------------


def fine_near_data(num_steps, r_last=30.0):
    """r grows like the cube of t, so that halving all steps halves them everywhere."""
    t = torch.arange(num_steps + 1, dtype=torch.float64)
    r = r_last * (t / num_steps) ** 3
    return sc.Schedule(1 / (1 + r**2))


@pytest.fixture(scope="module")
def solved():
    """Starts, and where the ODE leads from them, with errors of about 1e-10."""
    x = normal(64, 2)
    log_snr = (-2 * math.log(30.0), 26.0)
    end = sa.probability_flow(DATA, x, log_snr, rtol=1e-11, atol=1e-12, method="DOP853")
    return x, DATA.predict(end, 26.0, "x_0")


@pytest.mark.parametrize(("name", "order"), [("ddim 0", 1), ("heun", 2)])
def test_the_error_falls_by_two_to_the_order_as_steps_double(name, order, solved):
    x, want = solved
    errors = [
        (run(name, DATA, x, fine_near_data(n)) - want).square().mean().sqrt().item()
        for n in (80, 160, 320)
    ]
    for coarse, fine in pairwise(errors):
        assert 2**order * 0.85 < coarse / fine < 2**order * 1.15


# The law of what is sampled. -----------------------------------------------------------------


def statistics(x):
    """Means, second moments and the share of each component, ``(batch, S)``."""
    shares = DATA.posterior_of_label(x, 8.0)
    return torch.cat([x, x.square(), x[:, :1] * x[:, 1:], shares], 1)


@pytest.fixture(scope="module")
def many():
    return DATA.sample(400_000, seeded(11))


def sampled(name, n=3000):
    x = normal(n, 2, seed=3)
    if name == "probability flow":
        end = sa.probability_flow(DATA, x, (-10, 10))
        return DATA.predict(end, 10.0, "x_0")
    steps = 40 if name == "heun" else 150
    return run(name, DATA, x, sc.discretize(sc.cosine_log_snr(10, -10), steps))


def off_by(x, want):
    """The largest deviation of a mean statistic, in standard errors."""
    values = statistics(x)
    return ((values.mean(0) - want).abs() / values.std(0) * math.sqrt(len(x))).max()


@pytest.mark.parametrize("name", [*SAMPLERS, "probability flow"])
def test_samples_of_the_exact_denoiser_have_the_law_of_the_data(name, many):
    x = sampled(name)
    assert off_by(x, statistics(many).mean(0)) < 4
    # Two samples of one law are apart by (1/n + 1/m) E|X - X'| on average.
    others = many[: len(x)]
    expected = 2 / len(x) * torch.cdist(others[:1500], others[1500:]).mean()
    assert energy_distance(x, others) < 3 * expected


def test_a_denoiser_told_the_level_of_the_next_step_samples_another_law(many):
    schedule = sc.discretize(sc.cosine_log_snr(10, -10), 60)

    class OneOff:
        def predict(self, x_t, log_snr, wanted="eps", *, label=None):
            t = int((schedule.log_snr == log_snr).nonzero())
            return DATA.predict(x_t, schedule.log_snr[min(t + 1, 60)], wanted)

    x, want = normal(6000, 2, seed=3), statistics(many).mean(0)
    assert off_by(run("ancestral", DATA, x, schedule), want) < 4
    assert off_by(run("ancestral", OneOff(), x, schedule), want) > 6


# The ODE to a tolerance. ---------------------------------------------------------------------

MEAN = torch.tensor([0.5, -1.0], dtype=torch.float64)
COV = torch.tensor([[1.5, 0.6], [0.6, 0.4]], dtype=torch.float64)
GAUSSIAN = GaussianData(MEAN, COV)
IDENTITY = torch.eye(2, dtype=torch.float64)


def gaussian_flow(x, start, stop):
    """The ODE of Gaussian data keeps whitened states where they are; and its log determinant."""
    levels = torch.tensor([start, stop], dtype=torch.float64)
    (a, b), (s, r) = (torch.exp(logsigmoid(levels) / 2), torch.sigmoid(-levels))
    variances, axes = torch.linalg.eigh(COV)
    before, after = a**2 * variances + s, b**2 * variances + r
    scale = (after / before).sqrt()
    y = b * MEAN + ((x - a * MEAN) @ axes * scale) @ axes.T
    return y, scale.log().sum()


@pytest.mark.parametrize("ends", [(-8, 9), (9, -8), (-1, 2)])
@pytest.mark.parametrize("method", ["RK45", "DOP853"])
def test_probability_flow_follows_the_gaussian_solution_both_ways(ends, method):
    x = normal(30, 2)
    got = sa.probability_flow(GAUSSIAN, x, ends, rtol=1e-9, atol=1e-10, method=method)
    torch.testing.assert_close(got, gaussian_flow(x, *ends)[0], rtol=0, atol=1e-7)


def test_probability_flow_returns_the_states_asked_for():
    x = normal(30, 2)
    levels = torch.linspace(-8, 9, 7, dtype=torch.float64)
    states = sa.probability_flow(GAUSSIAN, x, levels, rtol=1e-9, atol=1e-10, trajectory=True)
    assert states.shape == (7, 30, 2)
    torch.testing.assert_close(states[0], x, rtol=0, atol=1e-15)
    for level, state in zip(levels.tolist(), states, strict=True):
        torch.testing.assert_close(state, gaussian_flow(x, -8, level)[0], rtol=0, atol=1e-5)


def test_probability_flow_keeps_to_its_tolerance_and_pays_for_it():
    x = normal(30, 2)
    errors, costs = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        denoiser = Recording()
        got = sa.probability_flow(denoiser, x, (-8, 8), rtol=tolerance, atol=tolerance)
        want = sa.probability_flow(DATA, x, (-8, 8), rtol=1e-11, atol=1e-12, method="DOP853")
        errors.append((got - want).square().mean().sqrt().item())
        costs.append(len(denoiser.asked))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert costs[0] < costs[1] < costs[2]
    assert errors[2] < 1e-5


def test_the_ode_velocity_is_the_derivative_of_the_straight_line_in_y_and_r():
    """dx/dlambda by the chain rule from dy/dr = eps_hat, against a difference quotient."""
    x, level, h = normal(10, 2), 0.7, 1e-5
    eps_hat = DATA.predict(x, level)

    def ray(other):
        a_bar, b_bar = 1 / (1 + math.exp(-level)), 1 / (1 + math.exp(-other))
        r, q = math.exp(-level / 2), math.exp(-other / 2)
        return math.sqrt(b_bar) * (x / math.sqrt(a_bar) + (q - r) * eps_hat)

    slope = (ray(level + h) - ray(level - h)) / (2 * h)
    got = sa.ode_velocity(DATA, x, torch.tensor(level, dtype=torch.float64))
    torch.testing.assert_close(got, slope, rtol=0, atol=1e-9)


# Likelihood. ---------------------------------------------------------------------------------


def noised(data, n, level, seed=5):
    a, s = math.sqrt(1 / (1 + math.exp(-level))), math.sqrt(1 / (1 + math.exp(level)))
    return a * data.sample(n, seeded(seed)) + s * normal(n, 2, seed=seed + 1)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_the_likelihood_of_a_gaussian_is_that_of_its_linear_flow(trace):
    """N(0, I) at the lowest log-SNR pulled back through a linear map, in closed form."""
    x = noised(GAUSSIAN, 20, 8.0)
    found = sa.ode_log_likelihood(
        GAUSSIAN, x, highest=8, lowest=-3, trace=trace, num_probes=100, generator=seeded(),
        rtol=1e-9, atol=1e-9, method="DOP853",
    )  # fmt: skip
    end, log_volume = gaussian_flow(x, 8, -3)
    log_prior = torch.distributions.MultivariateNormal(0 * MEAN, IDENTITY).log_prob(end)
    torch.testing.assert_close(found.end, end, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.log_prior, log_prior, rtol=0, atol=1e-6)
    assert torch.equal(found.log_prob, found.log_prior + found.log_volume)
    if trace == "exact":
        assert found.standard_error is None
        torch.testing.assert_close(found.log_prob, log_prior + log_volume, rtol=0, atol=1e-6)
        # At -3 the data are not forgotten, and the density is not that of the data.
        assert (found.log_prob - GAUSSIAN.noised(8.0).log_prob(x)).abs().max() > 1e-2
    else:
        error = (found.log_prob - log_prior - log_volume).abs()
        assert (error < 4 * found.standard_error).all()
        assert error.max() > 1e-6


def test_the_likelihood_of_the_mixture_is_its_exact_log_density():
    """The exact density is carried along by the flow: with it at the noisy end in place of
    N(0, I) nothing but the solver's error is left."""
    x = noised(DATA, 60, 9.0)
    want = DATA.noised(9.0).log_prob(x)
    found = sa.ode_log_likelihood(
        DATA, x, highest=9, lowest=-6, rtol=1e-8, atol=1e-8, method="DOP853"
    )
    carried = DATA.noised(-6.0).log_prob(found.end) + found.log_volume
    torch.testing.assert_close(carried, want, rtol=0, atol=1e-5)
    # With N(0, I) there: alpha_bar at -6 is 0.0025.
    assert 1e-4 < (found.log_prob - want).abs().max() < 0.05
    # What a wrong sign of the trace, or none, would return.
    assert (found.log_prior - want).abs().min() > 0.05
    assert (found.log_prior - found.log_volume - want).abs().min() > 0.1


def test_hutchinson_states_its_error():
    x = noised(DATA, 120, 6.0)
    exact = sa.ode_log_likelihood(DATA, x, highest=6, lowest=-6, rtol=1e-4, atol=1e-4)
    few, more = (
        sa.ode_log_likelihood(
            DATA, x, highest=6, lowest=-6, trace="hutchinson", num_probes=n,
            generator=seeded(2), rtol=1e-4, atol=1e-4,
        )
        for n in (10, 40)
    )  # fmt: skip
    ratio = (more.log_prob - exact.log_prob) / more.standard_error
    assert 0.8 < ratio.square().mean().sqrt() < 1.25
    assert abs(ratio.mean()) < 4 / math.sqrt(len(x))
    assert 1.7 < few.standard_error.mean() / more.standard_error.mean() < 2.3


# Dtypes, shapes and what is left alone. ------------------------------------------------------


@pytest.mark.parametrize("name", [*SAMPLERS, "probability flow", "likelihood"])
def test_events_of_any_shape(name):
    x = normal(5, 2)
    image = x.reshape(5, 2, 1, 1)
    if name == "probability flow":
        got, want = (
            sa.probability_flow(d, at, (-5, 5)) for d, at in ((AsImage(), image), (DATA, x))
        )
    elif name == "likelihood":
        got, want = (
            sa.ode_log_likelihood(d, at, highest=5, lowest=-5)
            for d, at in ((AsImage(), image), (DATA, x))
        )
        torch.testing.assert_close(got.log_prob, want.log_prob)
        got, want = got.end, want.end
    else:
        got, want = run(name, AsImage(), image, SCHEDULE), run(name, DATA, x, SCHEDULE)
    assert got.shape == image.shape
    torch.testing.assert_close(got.flatten(1), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*SAMPLERS, "probability flow"])
def test_a_network_keeps_its_dtype_and_no_gradient_is_recorded(name):
    network = VectorNetwork(2, 8, 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    denoiser = NetworkDenoiser(network)
    x = normal(4, 2, dtype=torch.float32)
    if name == "probability flow":
        got = sa.probability_flow(denoiser, x, (-5, 5))
    else:
        got = run(name, denoiser, x, SCHEDULE)
    assert got.dtype == torch.float32
    assert not got.requires_grad
    assert got.isfinite().all()


def test_the_likelihood_of_a_network_records_no_gradient():
    denoiser = NetworkDenoiser(VectorNetwork(2, 8, 1))
    found = sa.ode_log_likelihood(denoiser, normal(4, 2, dtype=torch.float32), highest=5, lowest=-5)
    assert found.log_prob.dtype == torch.float64
    assert not found.log_prob.requires_grad
    assert all(parameter.grad is None for parameter in denoiser.parameters())


def test_a_shape_starts_from_normal_noise_of_the_generator():
    network = NetworkDenoiser(VectorNetwork(2, 8, 1))
    states = sa.ancestral(network, (7, 2), SCHEDULE, seeded(3), trajectory=True)
    assert torch.equal(states[-1], torch.randn(7, 2, generator=seeded(3)))


def test_the_global_generator_and_the_start_are_left_alone():
    x = normal(4, 2)
    kept, state = x.clone(), torch.get_rng_state()
    for name in SAMPLERS:
        run(name, DATA, x, SCHEDULE)
    sa.ode_log_likelihood(
        DATA, x, highest=5, lowest=-5, trace="hutchinson", generator=seeded(), num_probes=2
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, kept)


# Bad input. ----------------------------------------------------------------------------------

X = normal(3, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sa.ddim(DATA, X, SCHEDULE, eta=-0.1), ValueError, "eta is -0.1"),
        (lambda: sa.ddim(DATA, X, SCHEDULE, eta=math.nan), ValueError, "eta is nan"),
        (lambda: sa.ddim(DATA, X, SCHEDULE, eta=True), ValueError, "eta is True"),
        (lambda: sa.ddim(DATA, X, SCHEDULE, eta=0.5), TypeError, "generator is None; with eta"),
        (lambda: sa.ddim(DATA, X.int(), SCHEDULE), TypeError, "x_T has dtype torch.int32"),
        (lambda: sa.ddim(DATA, X[0], SCHEDULE), ValueError, r"x_T has shape \(2,\)"),
        (lambda: sa.ddim(DATA, X[:0], SCHEDULE), ValueError, r"x_T has shape \(0, 2\)"),
        (lambda: sa.ddim(DATA, X / 0, SCHEDULE), ValueError, "x_T has entries"),
        (lambda: sa.ddim(DATA, [[0.0]], SCHEDULE), TypeError, "x_T is a list"),
        (lambda: sa.heun(DATA, X / 0, SCHEDULE), ValueError, "x_T has entries"),
        (lambda: sa.heun(DATA, X, SCHEDULE.alpha_bar), TypeError, "schedule is a Tensor"),
        (lambda: sa.ancestral(DATA, X, SCHEDULE, 0), TypeError, "generator is 0"),
        (lambda: sa.ancestral(DATA, 3, SCHEDULE, seeded()), TypeError, "x_T is 3"),
        (lambda: sa.ancestral(DATA, (3, -2), SCHEDULE, seeded()), TypeError, "x_T is"),
        (
            lambda: sa.ancestral(DATA, X, SCHEDULE, seeded(), reverse_variance="learned"),
            ValueError,
            "reverse_variance is 'learned'; accepted are posterior, beta",
        ),
        (lambda: sa.ancestral_step(X, X, SCHEDULE, 0, X), ValueError, "t = 0"),
        (lambda: sa.ddim_step(X, X, SCHEDULE, 13), ValueError, "t = 13"),
        (lambda: sa.ddim_step(X, X, SCHEDULE, 1.0), TypeError, "t is 1.0"),
        (lambda: sa.ddim_step(X, X, SCHEDULE, torch.tensor([1])), TypeError, "t is a tensor"),
        (lambda: sa.ddim_step(X, X, SCHEDULE, 5, eta=1.0), ValueError, "eps is None"),
        (lambda: sa.probability_flow(DATA, X, (3,)), ValueError, "two or more"),
        (lambda: sa.probability_flow(DATA, X, (1, math.inf)), ValueError, "log_snr is"),
        (lambda: sa.probability_flow(DATA, X, (1, 3, 2)), ValueError, "all rising or all falling"),
        (lambda: sa.probability_flow(DATA, X, (1, 2), rtol=0), ValueError, "rtol is 0"),
        (lambda: sa.probability_flow(DATA, X, (1, 2), atol=-1.0), ValueError, "atol is -1.0"),
        (lambda: sa.probability_flow(DATA, X, (1, 2), method="Euler"), ValueError, "method is"),
        (
            lambda: sa.ode_log_likelihood(DATA, X, highest=-5, lowest=5),
            ValueError,
            "highest > lowest",
        ),
        (
            lambda: sa.ode_log_likelihood(DATA, X, highest=5, lowest=-5, trace="none"),
            ValueError,
            "trace is 'none'",
        ),
        (
            lambda: sa.ode_log_likelihood(DATA, X, highest=5, lowest=-5, trace="hutchinson"),
            TypeError,
            "generator is None",
        ),
        (
            lambda: sa.ode_log_likelihood(
                DATA, X, highest=5, lowest=-5, trace="hutchinson", num_probes=1, generator=seeded()
            ),
            ValueError,
            "num_probes is 1",
        ),
    ],
)
def test_what_is_given_is_named_when_it_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Constant:
    def __init__(self, value):
        self.value = value

    def predict(self, x_t, log_snr, wanted="eps", *, label=None):
        return self.value


def test_a_denoiser_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"returned shape \(3, 1\) for states of shape \(3, 2\)"):
        sa.ddim(Constant(X[:, :1]), X, SCHEDULE)


def test_an_ode_that_is_not_finite_says_where():
    with pytest.raises(ArithmeticError, match="not finite at log_snr = -3"):
        sa.probability_flow(Constant(X / 0), X, (-3, 3))


def test_a_solver_that_gives_up_says_how_far():
    class Wall:
        """A slope that grows with the cube of the state: there is no solution for long."""

        def predict(self, x_t, log_snr, wanted="eps", *, label=None):
            return -(x_t**3) * 1e3

    with pytest.raises(ArithmeticError, match=r"gave up on the way from log_snr = -3 to 3|finite"):
        sa.probability_flow(Wall(), X, (-3, 3))


def test_a_mixture_of_one_dimension_is_sampled_too():
    data = MixtureData(
        torch.tensor([0.5, 0.5]).double(),
        torch.tensor([[-2.0], [2.0]]).double(),
        torch.tensor([[[0.1]], [[0.1]]]).double(),
    )
    x = sa.ddim(data, normal(2000, 1), sc.discretize(sc.cosine_log_snr(9, -9), 60))
    assert abs((x > 0).double().mean() - 0.5) < 0.04
    assert 0.25 < x.abs().std() < 0.4

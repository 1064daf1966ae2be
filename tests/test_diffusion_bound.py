"""The bound: each term against torch's divergences, decoders that sum to 1, weights, and units."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from evidence.diffusion import clouds
from evidence.diffusion.bound import (
    DiscretizedGaussian,
    DiscretizedGaussianDecoder,
    GaussianDecoder,
    bits_per_dim,
    continuous_elbo,
    elbo,
    prior_term,
    reconstruction_term,
    reverse_variances,
    step_term,
    step_weight,
)
from evidence.diffusion.exact import GaussianData
from evidence.diffusion.prediction import convert
from evidence.diffusion.process import diffuse, q_before, q_x_t
from evidence.diffusion.schedule import (
    LearnedLogSNR,
    cosine,
    cosine_log_snr,
    discretize,
    from_log_snr,
    linear,
    linear_log_snr,
)

SCHEDULES = [linear(5, 0.05, 0.6), cosine(7), linear(1000)]


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Bent:
    """A denoiser of any event shape that is nobody's exact one; it keeps what it was asked."""

    def __init__(self):
        self.levels = []

    def predict(self, x_t, log_snr, wanted="eps", *, label=None):
        self.levels.append(log_snr)
        eps = torch.tanh(0.8 * x_t) + 0.1
        if label is not None:
            eps = eps + label.reshape(-1, *[1] * (x_t.ndim - 1)).to(x_t)
        return convert(eps, x_t, log_snr, given="eps", wanted=wanted)


# --- the three terms ------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_prior_term_is_a_divergence(schedule):
    x_0 = 3 * randn(4, 2, 3)
    q = q_x_t(x_0, schedule, schedule.num_steps)
    expected = kl_divergence(q, Normal(torch.zeros_like(x_0), torch.ones_like(x_0)))
    torch.testing.assert_close(
        prior_term(x_0, schedule), expected.sum((1, 2)), rtol=1e-9, atol=1e-13
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("reverse_variance", ["posterior", "beta"])
def test_a_step_term_is_the_whole_divergence_of_that_step(schedule, reverse_variance):
    x_0, eps = randn(2, 4, 2, 3)
    denoiser = Bent()
    for t in (2, 3, schedule.num_steps):
        x_t = diffuse(x_0, eps, schedule, t)
        true = q_before(x_0, x_t, schedule, t)
        x_0_hat = denoiser.predict(x_t, schedule.log_snr[t], "x_0")
        variance = true.variance if reverse_variance == "posterior" else schedule.beta[t]
        mu = q_before(x_0_hat, x_t, schedule, t).mean
        model = Normal(mu, variance.sqrt().expand_as(mu))
        got = step_term(denoiser, x_0, schedule, t, eps, reverse_variance=reverse_variance)
        torch.testing.assert_close(
            got, kl_divergence(true, model).sum((1, 2)), rtol=1e-9, atol=1e-9
        )
        assert denoiser.levels[-1] == schedule.log_snr[t]


def test_a_step_for_each_datum_is_that_step():
    schedule, denoiser = linear(9, 0.05, 0.5), Bent()
    x_0, eps = randn(2, 4, 3)
    t, label = torch.tensor([2, 9, 5, 2]), torch.tensor([0, 1, 2, 3])
    together = step_term(denoiser, x_0, schedule, t, eps, reverse_variance="beta", label=label)
    for i in range(4):
        one = slice(i, i + 1)
        alone = step_term(
            denoiser, x_0[one], schedule, int(t[i]), eps[one],
            reverse_variance="beta", label=label[one],
        )  # fmt: skip
        torch.testing.assert_close(together[one], alone, rtol=1e-13, atol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_weights_are_those_of_each_prediction(schedule):
    """Any prediction's squared error, weighted, is one and the same term."""
    x_0, eps = randn(2, 4, 3)
    denoiser = Bent()
    for t in (2, 3, schedule.num_steps, torch.tensor([2, 3, 4, schedule.num_steps])):
        x_t, level = diffuse(x_0, eps, schedule, t), schedule.log_snr[t]
        term = step_term(denoiser, x_0, schedule, t, eps)
        for prediction in ("x_0", "eps", "v", "score"):
            target = convert(eps, x_t, level, given="eps", wanted=prediction)
            error = (target - denoiser.predict(x_t, level, prediction)).square().sum(1)
            weighted = step_weight(schedule, t, prediction) * error
            torch.testing.assert_close(weighted, term, rtol=1e-9, atol=0)


def test_the_weights_in_terms_of_the_signal_to_noise_ratio():
    schedule = linear(6, 0.1, 0.6)
    snr, abar = schedule.snr, schedule.alpha_bar
    for t in range(2, 7):
        fall = 0.5 * (snr[t - 1] - snr[t])
        expected = {
            "x_0": fall,
            "eps": 0.5 * (snr[t - 1] / snr[t] - 1),
            "v": fall * (1 - abar[t]),
            "score": fall * (1 - abar[t]) ** 2 / abar[t],
        }
        for prediction, weight in expected.items():
            got = step_weight(schedule, t, prediction).item()
            assert got == pytest.approx(weight.item(), rel=1e-12, abs=0), prediction


def test_the_weight_keeps_its_digits_where_steps_are_tiny():
    level = 15.0 - 1e-9 * torch.arange(3, dtype=torch.float64)
    schedule = from_log_snr(level)
    step = (level[0] - level[1]).item()
    assert step_weight(schedule, 2, "eps").item() == pytest.approx(
        math.expm1(step) / 2, rel=1e-12, abs=0
    )


def test_the_reverse_variances_are_those_named():
    schedule = linear(5, 0.1, 0.6)
    assert torch.equal(reverse_variances(schedule, "beta")[1:], schedule.beta[1:])
    assert torch.equal(
        reverse_variances(schedule, "posterior")[1:], schedule.posterior_variance[1:]
    )
    assert reverse_variances(schedule, "beta")[0].isnan()


@pytest.mark.parametrize("sigma", [None, 0.37])
def test_the_reconstruction_term_is_minus_the_log_density(sigma):
    schedule, denoiser = linear(5, 0.1, 0.6), Bent()
    x_0, eps = randn(2, 4, 2, 3)
    x_1 = math.sqrt(0.9) * x_0 + math.sqrt(0.1) * eps
    x_0_hat = (x_1 - math.sqrt(0.1) * (torch.tanh(0.8 * x_1) + 0.1)) / math.sqrt(0.9)
    scale = math.sqrt(0.1) if sigma is None else 0.37
    expected = -torch.tensor(norm.logpdf(x_0, x_0_hat, scale)).sum((1, 2))
    got = reconstruction_term(denoiser, x_0, schedule, eps, GaussianDecoder(sigma))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_the_reconstruction_term_of_levels_is_a_probability():
    schedule, denoiser = linear(5, 0.01, 0.6), Bent()
    grid = torch.linspace(-1, 1, 5, dtype=torch.float64)
    x_0, eps = grid[torch.tensor([[0, 4], [2, 3], [1, 1]])], randn(3, 2)
    got = reconstruction_term(denoiser, x_0, schedule, eps, DiscretizedGaussianDecoder(5))
    x_0_hat = denoiser.predict(diffuse(x_0, eps, schedule, 1), schedule.log_snr[1], "x_0")
    left = torch.where(x_0 < -0.9, -math.inf, x_0 - 0.25)
    right = torch.where(x_0 > 0.9, math.inf, x_0 + 0.25)
    mass = norm.cdf(right, x_0_hat, 0.1) - norm.cdf(left, x_0_hat, 0.1)
    torch.testing.assert_close(got, -torch.tensor(mass).log().sum(1), rtol=1e-9, atol=1e-9)
    assert (got > 0).all()


# --- the discretized decoder ----------------------------------------------------------------------


@given(st.floats(-3, 3), st.floats(-6, 2), st.integers(2, 300))
def test_the_levels_sum_to_one(mu, log_sigma, levels):
    p = DiscretizedGaussian(float64(mu), float64(math.exp(log_sigma)), levels)
    support = p.enumerate_support()
    assert support.shape == (levels, 1)
    assert support[0] == -1
    assert support[-1] == pytest.approx(1, abs=1e-15)
    assert p.log_prob(support).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_each_level_has_the_mass_of_its_cell_by_quadrature():
    mu, sigma, levels = 0.13, 0.2, 9
    p = DiscretizedGaussian(float64(mu), sigma, levels)
    for j, level in enumerate(p.enumerate_support().flatten().tolist()):
        low = -12.0 if j == 0 else level - 1 / 8
        high = 12.0 if j == 8 else level + 1 / 8
        mass = quad(lambda x: norm.pdf(x, mu, sigma), low, high, points=[mu], epsabs=1e-15)[0]
        assert p.log_prob(float64(level)).item() == pytest.approx(math.log(mass), abs=1e-9)


def test_far_from_the_mean_nothing_underflows():
    """A cell 500 widths away still has a mass, with a finite slope, on both sides."""
    for side in (-1.0, 1.0):
        mu = float64(50 * side).requires_grad_()
        p = DiscretizedGaussian(mu, 0.1, 256)
        value = p.enumerate_support().detach()[100]
        log_mass = p.log_prob(value)
        # Nearly all of the cell's mass is at its side towards the mean.
        near = value.item() + side / 255
        expected = norm.logcdf(-abs(near - 50 * side) / 0.1)
        assert log_mass.item() == pytest.approx(expected, rel=1e-9, abs=0)
        (slope,) = torch.autograd.grad(log_mass.sum(), mu)
        assert slope.isfinite()
        assert slope.item() * side < 0


def test_values_that_are_no_levels_are_refused():
    p = DiscretizedGaussian(torch.zeros(2).double(), 0.1, 5)
    p.log_prob(float64(-1.0, 0.5))
    for value in (0.4, 1.5, -1.5, math.nan):
        with pytest.raises(ValueError, match="value"):
            p.log_prob(float64(0.0, value))
    # The middle of 256 levels is between two: 0 is none of them.
    with pytest.raises(ValueError, match="value"):
        DiscretizedGaussian(float64(0.0), 0.1, 256).log_prob(float64(0.0))


# --- the whole bound ------------------------------------------------------------------------------


def test_all_steps_are_visited_once_and_the_terms_added():
    schedule, denoiser = linear(6, 0.1, 0.6), Bent()
    x_0 = randn(3, 2)
    terms = elbo(
        denoiser, x_0, schedule, torch.Generator().manual_seed(4), decoder=GaussianDecoder()
    )
    visited = [float(level) for level in denoiser.levels]
    assert visited == [schedule.log_snr[t].item() for t in (2, 3, 4, 5, 6, 1)]
    generator = torch.Generator().manual_seed(4)
    noise = [torch.randn(3, 2, generator=generator, dtype=torch.float64) for _ in range(6)]
    total = sum(step_term(denoiser, x_0, schedule, t, noise[t - 2]) for t in range(2, 7))
    last = reconstruction_term(denoiser, x_0, schedule, noise[5], GaussianDecoder())
    torch.testing.assert_close(terms.steps, total)
    torch.testing.assert_close(terms.reconstruction, last)
    torch.testing.assert_close(terms.negative_elbo, prior_term(x_0, schedule) + total + last)
    torch.testing.assert_close(terms.elbo, -terms.negative_elbo)
    assert terms.elbo.shape == (3,)
    assert terms.elbo.dtype == torch.float64


@pytest.mark.parametrize("num_times", [1, 3, 5, 8])
def test_a_stratified_sample_of_steps_is_unbiased(num_times):
    """Also where steps and strata do not divide each other; 7 terms of very different size."""
    schedule, data, n = cosine(8), GaussianData(float64(0.5), float64(2.0)[None]), 40_000
    x_0 = float64(1.3).expand(n, 1)
    exact = data.chain_elbo(x_0[:1], schedule, decoder=GaussianDecoder()).steps.item()
    steps = elbo(
        data, x_0, schedule, torch.Generator().manual_seed(1),
        decoder=GaussianDecoder(), num_times=num_times,
    ).steps  # fmt: skip
    assert abs(steps.mean().item() - exact) < 4 * steps.std().item() / math.sqrt(n)


def test_strata_reach_both_ends_and_nothing_else():
    denoiser, schedule = Bent(), linear(4, 0.1, 0.6)
    x_0 = randn(2000, 1)
    elbo(
        denoiser,
        x_0,
        schedule,
        torch.Generator().manual_seed(0),
        decoder=GaussianDecoder(),
        num_times=2,
    )
    first, second = denoiser.levels[:2]
    levels = schedule.log_snr.tolist()
    assert set(first.tolist()) == {levels[2], levels[3]}
    assert set(second.tolist()) == {levels[3], levels[4]}


def test_a_chain_of_one_step_has_no_steps_to_sum():
    for num_times in (None, 3):
        terms = elbo(
            Bent(), randn(2, 3), linear(1, 0.2), torch.Generator().manual_seed(0),
            decoder=GaussianDecoder(), num_times=num_times,
        )  # fmt: skip
        assert (terms.steps == 0).all()


def test_float32_data_give_sums_in_float64():
    schedule, generator = linear(3, 0.1, 0.6), torch.Generator().manual_seed(0)
    x_0 = randn(2, 3, 4).float()
    terms = elbo(Bent(), x_0, schedule, generator, decoder=GaussianDecoder())
    for part in (terms.prior, terms.steps, terms.reconstruction):
        assert part.dtype == torch.float64
        assert part.shape == (2,)


# --- continuous time ------------------------------------------------------------------------------


def test_the_continuous_bound_is_the_integral_over_log_snr():
    """For a Gaussian in closed form: the same value for three schedules with the same ends."""
    data, x_0, n = GaussianData(float64(0.5), float64(2.0)[None]), 1.3, 20_000

    def error(level):
        abar = 1 / (1 + math.exp(-level))
        spread = 2 * abar + 1 - abar
        return (2 * abar / spread) ** 2 + abar * (1 - abar) * ((x_0 - 0.5) / spread) ** 2

    integral = 0.5 * quad(error, -5, 6, epsabs=1e-12)[0]
    for schedule in (linear_log_snr(6, -5), cosine_log_snr(6, -5), LearnedLogSNR(6, -5, seed=1)):
        terms = continuous_elbo(
            data, float64(x_0).expand(n, 1), schedule, torch.Generator().manual_seed(0),
            decoder=GaussianDecoder(), num_times=8,
        )  # fmt: skip
        steps = terms.steps.detach()
        assert abs(steps.mean().item() - integral) < 4 * steps.std().item() / math.sqrt(n)
        # What is not an integral is that of the two ends alone.
        ends = from_log_snr(float64(6.0, -5.0))
        torch.testing.assert_close(
            terms.prior.detach(), prior_term(float64(x_0).expand(n, 1), ends), rtol=1e-9, atol=0
        )
        closed = data.chain_elbo(float64(x_0)[None], ends, decoder=GaussianDecoder())
        last = terms.reconstruction.detach()
        assert abs(last.mean() - closed.reconstruction) < 4 * last.std() / math.sqrt(n)


@pytest.mark.parametrize("make", [linear_log_snr, cosine_log_snr, LearnedLogSNR])
def test_the_chain_tends_to_the_integral_like_one_over_its_length(make):
    data = GaussianData(float64(0.5), float64(2.0)[None])
    x_0 = float64(1.3)[None]

    def error(level):
        abar = 1 / (1 + math.exp(-level))
        spread = 2 * abar + 1 - abar
        return (2 * abar / spread) ** 2 + abar * (1 - abar) * (0.8 / spread) ** 2

    integral = 0.5 * quad(error, -5, 6, epsabs=1e-12)[0]
    residuals = []
    for num_steps in (1000, 2000, 4000):
        chain = discretize(make(6, -5), num_steps)
        steps = data.chain_elbo(x_0, chain, decoder=GaussianDecoder()).steps
        residuals.append(steps.item() - integral)
    assert residuals[-1] > 0
    assert residuals[0] / residuals[1] == pytest.approx(2, rel=0.03, abs=0)
    assert residuals[1] / residuals[2] == pytest.approx(2, rel=0.02, abs=0)


def test_gradients_reach_a_learned_schedule_and_a_fixed_one_leaves_no_graph():
    data, x_0 = clouds.mixture(), randn(50, 2)
    model = LearnedLogSNR(6, -5)
    arguments = {"decoder": GaussianDecoder(), "num_times": 4}
    terms = continuous_elbo(data, x_0, model, torch.Generator().manual_seed(0), **arguments)
    terms.negative_elbo.mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name
    fixed = continuous_elbo(data, x_0, linear_log_snr(), torch.Generator(), **arguments)
    assert not fixed.negative_elbo.requires_grad
    with torch.no_grad():
        quiet = continuous_elbo(data, x_0, model, torch.Generator().manual_seed(0), **arguments)
    assert not quiet.negative_elbo.requires_grad
    torch.testing.assert_close(quiet.negative_elbo, terms.negative_elbo.detach())


# --- units ----------------------------------------------------------------------------------------


def test_bits_per_dim_and_its_constants():
    assert bits_per_dim(784 * math.log(2), 784) == pytest.approx(1)
    assert bits_per_dim(0.0, 3, levels=256) == pytest.approx(7)
    assert bits_per_dim(0.0, 3, levels=256, low=0, high=1) == pytest.approx(8)
    assert bits_per_dim(0.0, 3, levels=256, low=0, high=256) == pytest.approx(0)
    # Uniform density over the range: every one of 256 levels costs 8 bits, in any scale.
    for low, high in ((-1, 1), (0, 1), (3, 10)):
        nats = 5 * math.log(high - low)
        assert bits_per_dim(nats, 5, levels=256, low=low, high=high) == pytest.approx(8)
    torch.testing.assert_close(bits_per_dim(float64(2.0, 4.0), 2), float64(1.0, 2.0) / math.log(2))


def test_dequantised_density_bounds_the_bits_of_the_levels():
    """Data of 4 levels: by Jensen the density's bits are at least those of the cell masses."""
    levels, low, high = 4, -1.0, 1.0
    width = (high - low) / levels
    model = Normal(0.2, 0.6)
    for j in range(levels):
        left = low + j * width
        mass = norm.cdf(left + width, 0.2, 0.6) - norm.cdf(left, 0.2, 0.6)
        nats = quad(lambda x: -model.log_prob(float64(x)).item() / width, left, left + width)[0]
        bits = bits_per_dim(nats, 1, levels=levels, low=low, high=high)
        # Hoeffding's lemma: the excess is at most an eighth of the squared range of log p there.
        grid = torch.linspace(left, left + width, 1001, dtype=torch.float64)
        log_p = model.log_prob(grid)
        most = (log_p.max() - log_p.min()).item() ** 2 / 8 / math.log(2)
        assert 0 < bits + math.log2(mass) < most


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: GaussianDecoder(0.0), ValueError, "sigma = 0.0"),
        (lambda: DiscretizedGaussianDecoder(1), ValueError, "levels = 1"),
        (lambda: DiscretizedGaussianDecoder(sigma=math.inf), ValueError, "sigma = inf"),
        (lambda: DiscretizedGaussian(torch.zeros(1), 1.0, 2.5), ValueError, "levels = 2.5"),
        (lambda: reverse_variances(linear(3), "learned"), ValueError, "'posterior' and 'beta'"),
        (lambda: step_weight(linear(3), 1, "eps"), ValueError, "weight of step 1 is infinite"),
        (lambda: step_weight(linear(3), 4, "eps"), ValueError, "t = 4"),
        (lambda: step_weight(linear(3), 2, "mean"), ValueError, "prediction = 'mean'"),
        (lambda: bits_per_dim(1.0, 0), ValueError, "dim = 0"),
        (lambda: bits_per_dim(1.0, 2, levels=1), ValueError, "levels = 1"),
        (lambda: bits_per_dim(1.0, 2, low=1.0, high=1.0), ValueError, "low < high"),
        (lambda: prior_term(torch.zeros(3), linear(3)), ValueError, r"x_0 has shape \(3,\)"),
        (lambda: prior_term(torch.zeros(0, 3), linear(3)), ValueError, "at least one datum"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bad_bounds_are_refused():
    x, schedule, generator = randn(2, 3), linear(3, 0.1, 0.5), torch.Generator()
    decoder = GaussianDecoder()
    for t in (1, 0, 4, torch.tensor([1, 2])):
        with pytest.raises(ValueError, match="accepted are steps from 2 to 3: the term of step 1"):
            step_term(Bent(), x, schedule, t, x)
    with pytest.raises(ValueError, match="eps has shape"):
        step_term(Bent(), x, schedule, 2, x[:1])
    for num_steps, options in itertools.product(
        (1, 3), ({"reverse_variance": "x"}, {"num_times": 0})
    ):
        with pytest.raises(ValueError, match="accepted are"):
            elbo(Bent(), x, linear(num_steps), generator, decoder=decoder, **options)
    with pytest.raises(ValueError, match="num_times = 0"):
        continuous_elbo(Bent(), x, linear_log_snr(), generator, decoder=decoder, num_times=0)
    with pytest.raises(ValueError, match="strictly decrease"):
        continuous_elbo(Bent(), x, lambda tau: tau, generator, decoder=decoder)
    with pytest.raises(ValueError, match="has slope"):
        continuous_elbo(
            Bent(), x, lambda tau: -tau + torch.sin(6 * math.pi * tau), generator, decoder=decoder
        )

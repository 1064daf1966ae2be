"""Exact data: predictions by quadrature and by slopes, reverse steps by Bayes, closed bounds."""

import itertools
import math

import pytest
import torch
from scipy.integrate import quad
from torch.distributions import MultivariateNormal, Normal

from evidence.diffusion import clouds
from evidence.diffusion.bound import DiscretizedGaussianDecoder, GaussianDecoder, elbo
from evidence.diffusion.exact import GaussianData, MixtureData
from evidence.diffusion.prediction import PREDICTIONS, Denoiser, convert
from evidence.diffusion.process import q_step
from evidence.diffusion.schedule import cosine, discretize, linear, linear_log_snr


def float64(values):
    return torch.tensor(values, dtype=torch.float64)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def line():
    """Two components on the line, of different weight and width."""
    return MixtureData(float64([0.3, 0.7]), float64([[-1.5], [1.0]]), float64([[[0.2]], [[0.5]]]))


def gaussian(dim=3, seed=0):
    root = randn(dim, dim, seed=seed)
    return GaussianData(randn(dim, seed=seed + 1), root @ root.T + 0.1 * torch.eye(dim).double())


def density(x):
    """Of `line`, written out."""
    return 0.3 * math.exp(-((x + 1.5) ** 2) / 0.4) / math.sqrt(0.4 * math.pi) + 0.7 * math.exp(
        -((x - 1) ** 2)
    ) / math.sqrt(math.pi)


@pytest.mark.parametrize("log_snr", [-6.0, -1.0, 0.0, 2.0, 5.0])
@pytest.mark.parametrize("x", [-2.5, 0.0, 0.4])
def test_the_exact_predictions_are_expectations_by_quadrature(log_snr, x):
    a, sigma = math.sqrt(1 / (1 + math.exp(-log_snr))), math.sqrt(1 / (1 + math.exp(log_snr)))

    def joint(x_0):
        away = (x - a * x_0) / sigma
        return density(x_0) * math.exp(-away * away / 2) / (sigma * math.sqrt(2 * math.pi))

    def integral(f):
        places = sorted({-1.5, 1.0, max(-7.0, min(7.0, x / a))})
        return quad(f, -8, 8, points=places, epsabs=1e-14, epsrel=1e-12, limit=400)[0]

    evidence = integral(joint)
    x_0 = integral(lambda u: u * joint(u)) / evidence
    eps = integral(lambda u: (x - a * u) / sigma * joint(u)) / evidence
    expected = {"x_0": x_0, "eps": eps, "v": a * eps - sigma * x_0, "score": -eps / sigma}
    data, x_t = line(), float64([[x]])
    for wanted in PREDICTIONS:
        got = data.predict(x_t, log_snr, wanted).item()
        assert got == pytest.approx(expected[wanted], abs=1e-9), wanted
    assert data.noised(log_snr).log_prob(x_t).item() == pytest.approx(math.log(evidence), abs=1e-9)


@pytest.mark.parametrize("data", [clouds.mixture(), gaussian(), line()])
@pytest.mark.parametrize("log_snr", [-20.0, -3.0, 0.5, 20.0])
def test_the_score_is_the_slope_of_the_noised_density(data, log_snr):
    x_t = 1.5 * randn(20, data.dim)
    x_t.requires_grad_()
    (slope,) = torch.autograd.grad(data.noised(log_snr).log_prob(x_t).sum(), x_t)
    score = data.score(x_t.detach(), log_snr)
    # torch factorises the covariance, which costs digits where it is nearly singular.
    torch.testing.assert_close(score, slope, rtol=1e-10, atol=1e-10)


def test_the_four_predictions_agree_where_a_conversion_is_accurate():
    data, x_t = clouds.mixture(), randn(7, 2)
    for log_snr in (1.3, torch.linspace(-5, 5, 7, dtype=torch.float64)):
        for given, wanted in itertools.product(PREDICTIONS, PREDICTIONS):
            got = convert(
                data.predict(x_t, log_snr, given), x_t, log_snr, given=given, wanted=wanted
            )
            torch.testing.assert_close(
                got, data.predict(x_t, log_snr, wanted), rtol=1e-11, atol=1e-11
            )
    assert isinstance(data, Denoiser)
    assert isinstance(gaussian(), Denoiser)


def test_at_the_ends_predictions_are_the_limits():
    data, x = clouds.mixture(), randn(5, 2)
    mean = (data.weights @ data.means).expand(5, 2)
    torch.testing.assert_close(data.predict(x, -20.0, "x_0"), mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(data.predict(x, -20.0, "eps"), x, rtol=0, atol=1e-3)
    torch.testing.assert_close(data.predict(x, 20.0, "x_0"), x, rtol=0, atol=1e-6)
    slope = data.score(x, 20.0)
    torch.testing.assert_close(data.predict(x, 36.0, "score"), slope, rtol=1e-5, atol=1e-5)
    for log_snr in (-200.0, -20.0, 20.0, 36.0):
        # Ten million widths from all data: responsibilities of exp(-1e14) are no trouble.
        far = data.predict(1e7 * torch.ones(1, 2).double(), log_snr, "eps")
        assert far.isfinite().all()


def test_responsibilities_are_bayes_rule_and_a_label_replaces_them():
    data, x_t, log_snr = clouds.mixture(), randn(6, 2), torch.linspace(-4, 4, 6).double()
    a, noise = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr)
    weighted = torch.stack(
        [
            data.weights[k]
            * MultivariateNormal(
                a[:, None] * data.means[k],
                a[:, None, None] ** 2 * data.covs[k] + noise[:, None, None] * torch.eye(2).double(),
            )
            .log_prob(x_t)
            .exp()
            for k in range(3)
        ],
        -1,
    )
    r = data.posterior_of_label(x_t, log_snr)
    torch.testing.assert_close(r, weighted / weighted.sum(-1, keepdim=True), rtol=1e-11, atol=1e-13)
    by_label = []
    for k in range(3):
        alone = GaussianData(data.means[k], data.covs[k])
        known = data.predict(x_t, log_snr, "v", label=torch.full((6,), k))
        torch.testing.assert_close(known, alone.predict(x_t, log_snr, "v"), rtol=1e-12, atol=1e-12)
        by_label.append(known)
    average = (r[..., None] * torch.stack(by_label, 1)).sum(1)
    torch.testing.assert_close(data.predict(x_t, log_snr, "v"), average, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("data", [clouds.mixture(), gaussian(2)])
def test_the_reverse_step_is_bayes_rule(data):
    """p(x_{t-1}|x_t) = q(x_t|x_{t-1}) p(x_{t-1}) / p(x_t), with a step for each datum too."""
    schedule = linear(5, 0.05, 0.8)
    before, x_t = randn(2, 5, 2)

    def marginal(t, x):
        return data.log_prob(x) if t == 0 else data.noised(schedule.log_snr[t]).log_prob(x)

    rows = []
    for t in range(1, 6):
        log_q = q_step(before, schedule, t).log_prob(x_t).sum(-1)
        expected = log_q + marginal(t - 1, before) - marginal(t, x_t)
        step = data.reverse_step(x_t, schedule, t)
        torch.testing.assert_close(step.log_prob(before), expected, rtol=1e-11, atol=1e-11)
        rows.append(expected[t - 1])
    together = data.reverse_step(x_t, schedule, torch.arange(1, 6)).log_prob(before)
    torch.testing.assert_close(together, torch.stack(rows), rtol=1e-11, atol=1e-11)


def test_the_mean_of_the_reverse_step_uses_the_exact_prediction():
    data, schedule, x_t = clouds.mixture(), cosine(10), randn(4, 2)
    for t in (1, 2, 6, 10):
        x_0_hat = data.predict(x_t, schedule.log_snr[t], "x_0")
        # q(x_{t-1}|x_t,x_0) has a mean that is linear in x_0, so expectations pass through.
        before, abar = schedule.alpha_bar[t - 1], schedule.alpha_bar[t]
        mean = before.sqrt() * schedule.beta[t] * x_0_hat
        mean = (mean + schedule.alpha[t].sqrt() * (1 - before) * x_t) / (1 - abar)
        torch.testing.assert_close(
            data.reverse_step(x_t, schedule, t).mean, mean, rtol=1e-11, atol=1e-11
        )


def test_the_reverse_step_of_two_points_has_two_modes_when_the_step_is_large():
    data = MixtureData(
        float64([0.5, 0.5]), float64([[-1.0], [1.0]]), 0.01 * torch.ones(2, 1, 1).double()
    )
    middle, x_t = float64([[0.0]]), float64([[0.0]])
    mode = float64([[0.9]])
    large = data.reverse_step(x_t, linear(2, 0.1, 0.95), 2)
    assert large.log_prob(mode) > large.log_prob(middle) + 2
    # With a small step at the same noise level there is one, in the middle.
    abar = linear(2, 0.1, 0.95).alpha_bar[2].item()
    small = discretize(
        linear_log_snr(math.log(abar / (1 - abar)) + 0.05, math.log(abar / (1 - abar))), 2
    )
    step = data.reverse_step(x_t, small, 2)
    grid = torch.linspace(-1, 1, 401, dtype=torch.float64)[:, None]
    log_p = torch.stack([step.log_prob(point[None]) for point in grid]).squeeze()
    assert log_p.argmax() == 200
    assert (log_p[:201].diff() > 0).all()


def test_samples_have_the_moments_of_the_mixture():
    data, n = clouds.mixture(), 40_000
    x, label = data.sample_with_label(n, torch.Generator().manual_seed(0))
    assert torch.equal(x, data.sample(n, torch.Generator().manual_seed(0)))
    for k in range(3):
        own = x[label == k]
        share = len(own) / n
        weight = data.weights[k].item()
        assert abs(share - weight) < 4 * math.sqrt(weight * (1 - weight) / n)
        error = (data.covs[k].diagonal() / len(own)).sqrt()
        assert ((own.mean(0) - data.means[k]).abs() < 4 * error).all()
        torch.testing.assert_close(own.T.cov(), data.covs[k], rtol=0.08, atol=0.004)


def test_the_evidence_of_a_mixture_is_its_density():
    data = line()
    for x in (-2.0, 0.0, 0.3):
        log_p = data.log_prob(float64([[x]])).item()
        assert log_p == pytest.approx(math.log(density(x)), abs=1e-12)


# --- the bound of Gaussian data in closed form ----------------------------------------------------


def direct_bound(data, x_0, schedule, reverse_variance, sigma):
    """E_q[log p(x_{0:T}) - log q(x_{1:T}|x_0)] in one dimension, by Gaussian algebra on paths.

    All log-densities are quadratic forms in the path x_{1:T}, which is one Gaussian vector given
    x_0. Only `q_step`'s coefficients, the schedule's alpha_bar and Normal's formula are used.
    """
    num = schedule.num_steps
    abar = [1.0] + [schedule.alpha_bar[t].item() for t in range(1, num + 1)]
    mean = float64([math.sqrt(abar[t]) * x_0 for t in range(1, num + 1)])
    cov = torch.zeros(num, num, dtype=torch.float64)
    for s, t in itertools.product(range(1, num + 1), repeat=2):
        first, last = min(s, t), max(s, t)
        cov[s - 1, t - 1] = math.sqrt(abar[last] / abar[first]) * (1 - abar[first])
    variance, m = data.cov.item(), data.mean.item()

    def expected_log_normal(row, offset, scale_squared):
        """E log N(row . path + offset; 0, scale_squared)."""
        second = (row @ mean + offset) ** 2 + row @ cov @ row
        return -0.5 * (math.log(2 * math.pi * scale_squared) + second.item() / scale_squared)

    def unit(t):
        row = torch.zeros(num, dtype=torch.float64)
        row[t - 1] = 1
        return row

    total = expected_log_normal(unit(num), 0.0, 1.0)
    total += 0.5 * torch.logdet(2 * math.pi * math.e * cov).item()  # the entropy of q
    for t in range(1, num + 1):
        a = math.sqrt(abar[t])
        gain = a * variance / (a * a * variance + 1 - abar[t])
        # x_0_hat = m + gain (x_t - a m)
        if t == 1:
            offset = x_0 - m + gain * a * m
            total += expected_log_normal(-gain * unit(1), offset, sigma**2)
            continue
        beta = 1 - abar[t] / abar[t - 1]
        tilde = beta * (1 - abar[t - 1]) / (1 - abar[t])
        of_x_0 = math.sqrt(abar[t - 1]) * beta / (1 - abar[t])
        of_x_t = math.sqrt(1 - beta) * (1 - abar[t - 1]) / (1 - abar[t])
        row = unit(t - 1) - (of_x_t + of_x_0 * gain) * unit(t)
        offset = -of_x_0 * (m - gain * a * m)
        total += expected_log_normal(
            row, offset, tilde if reverse_variance == "posterior" else beta
        )
    return total


@pytest.mark.parametrize("schedule", [linear(1, 0.3), linear(2, 0.1, 0.5), cosine(8), linear(30)])
@pytest.mark.parametrize("reverse_variance", ["posterior", "beta"])
def test_the_three_terms_are_the_bound_of_whole_paths(schedule, reverse_variance):
    data = GaussianData(float64([0.4]), float64([[1.7]]))
    for x_0 in (-1.0, 0.4, 2.3):
        terms = data.chain_elbo(
            float64([[x_0]]),
            schedule,
            decoder=GaussianDecoder(0.3),
            reverse_variance=reverse_variance,
        )
        expected = direct_bound(data, x_0, schedule, reverse_variance, 0.3)
        assert terms.elbo.item() == pytest.approx(expected, abs=1e-9)
        assert terms.elbo.item() == -(terms.prior + terms.steps + terms.reconstruction).item()


def expectation_points(data):
    """Points at which a quadratic function has the mean that it has over the data."""
    variances, axes = torch.linalg.eigh(data.cov)
    away = (data.dim * variances).sqrt() * axes
    return torch.cat([data.mean + away.T, data.mean - away.T])


@pytest.mark.parametrize("reverse_variance", ["posterior", "beta"])
def test_the_bound_is_below_the_evidence_for_every_schedule(reverse_variance):
    data = gaussian(3)
    entropy = MultivariateNormal(data.mean, data.cov).entropy()
    for schedule in (linear(3, 0.1, 0.9), cosine(20), linear(1000)):
        for sigma in (None, 0.05, 1.0):
            terms = data.chain_elbo(
                expectation_points(data),
                schedule,
                decoder=GaussianDecoder(sigma),
                reverse_variance=reverse_variance,
            )
            assert terms.negative_elbo.mean() > entropy


def test_the_bound_becomes_the_evidence_as_steps_grow_and_ends_widen():
    data = gaussian(2)
    entropy = MultivariateNormal(data.mean, data.cov).entropy().item()
    residuals = []
    for num_steps in (500, 1000, 2000):
        schedule = discretize(linear_log_snr(14, -14), num_steps)
        terms = data.chain_elbo(expectation_points(data), schedule, decoder=GaussianDecoder())
        residuals.append(terms.negative_elbo.mean().item() - entropy)
    assert 0 < residuals[2] < 0.25
    assert residuals[0] / residuals[1] == pytest.approx(2, rel=0.02, abs=0)
    assert residuals[1] / residuals[2] == pytest.approx(2, rel=0.02, abs=0)


@pytest.mark.parametrize("reverse_variance", ["posterior", "beta"])
def test_the_closed_bound_is_the_mean_of_the_drawn_one(reverse_variance):
    data, schedule, repeats = gaussian(2), cosine(6), 20_000
    x_0, generator = (
        data.sample(2, torch.Generator().manual_seed(5)),
        torch.Generator().manual_seed(0),
    )
    options = {"decoder": GaussianDecoder(0.2), "reverse_variance": reverse_variance}
    closed = data.chain_elbo(x_0, schedule, **options)
    drawn = elbo(data, x_0.repeat_interleave(repeats, 0), schedule, generator, **options)
    for part in ("prior", "steps", "reconstruction"):
        values = getattr(drawn, part).reshape(2, repeats)
        error = 4 * values.std(1) / math.sqrt(repeats) + 1e-12
        assert ((values.mean(1) - getattr(closed, part)).abs() < error).all(), part


# --- clouds ---------------------------------------------------------------------------------------


def test_the_mixture_has_mean_zero_and_average_variance_one():
    data = clouds.mixture()
    mean = data.weights @ data.means
    second = data.weights @ (
        data.covs.diagonal(dim1=1, dim2=2).sum(-1) + data.means.square().sum(-1)
    )
    assert mean.abs().max().item() < 1e-15
    assert second.item() / 2 == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("cloud", [clouds.moons, clouds.spiral, clouds.shape])
@pytest.mark.parametrize("noise", [None, 0.3])
def test_the_clouds_have_mean_zero_and_average_variance_one(cloud, noise):
    n, options = 100_000, {} if noise is None else {"noise": noise}
    x = cloud(n, torch.Generator().manual_seed(1), **options)
    assert x.shape == (n, 2)
    assert x.dtype == torch.float64
    assert (x.mean(0).abs() < 4 * x.std(0) / math.sqrt(n)).all()
    norm = x.square().sum(1) / 2
    assert abs(norm.mean() - 1) < 4 * norm.std() / math.sqrt(n)
    assert torch.equal(x, cloud(n, torch.Generator().manual_seed(1), **options))


def test_the_letter_is_filled_evenly():
    """Counts in cells of unit size, undone to the letter's own units: 11 strokes' worth of area."""
    n = 55_000
    x = clouds.shape(n, torch.Generator().manual_seed(2))
    bars = float64(clouds.LETTER)
    areas = (bars[:, 1] - bars[:, 0]) * (bars[:, 3] - bars[:, 2])
    for i, j in itertools.combinations(range(4), 2):
        across = min(bars[i, 1], bars[j, 1]) > max(bars[i, 0], bars[j, 0])
        along = min(bars[i, 3], bars[j, 3]) > max(bars[i, 2], bars[j, 2])
        assert not (across and along)
    # Its outer box, found from the points, is that of the bars: 3 wide and 5 high.
    low, high = x.min(0).values, x.max(0).values
    scale = ((high - low) / float64([3, 5])).mean()
    torch.testing.assert_close(high - low, scale * float64([3, 5]), rtol=1e-3, atol=0)
    points = (x - low) / scale
    for (left, right, bottom, top), area in zip(bars.tolist(), areas.tolist(), strict=True):
        inside = (points[:, 0] > left) & (points[:, 0] < right)
        inside &= (points[:, 1] > bottom) & (points[:, 1] < top)
        share = area / areas.sum().item()
        assert abs(inside.double().mean().item() - share) < 4 * math.sqrt(share / n) + 1e-3


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weights": torch.tensor([0.3, 0.7])}, TypeError, "weights is a tensor of torch.float32"),
        ({"weights": float64([0.3, 0.6])}, ValueError, "sum to 1"),
        ({"weights": float64([1.3, -0.3])}, ValueError, "positive numbers"),
        ({"weights": float64([0.3, math.nan])}, ValueError, "weights has a number"),
        ({"means": float64([[0.0, 0.0]])}, ValueError, r"means \(1, 2\)"),
        ({"means": float64([[0.0], [1.0]])}, ValueError, r"covs has shape \(2, 2, 2\)"),
        ({"covs": -torch.eye(2).double().expand(2, 2, 2)}, ValueError, "eigenvalue -1"),
        ({"covs": float64([[[1.0, 0.5], [0.2, 1.0]]] * 2)}, ValueError, "not symmetric"),
    ],
)
def test_bad_mixtures_are_refused(change, error, message):
    good = {
        "weights": float64([0.3, 0.7]),
        "means": float64([[0.0, 0.0], [1.0, 1.0]]),
        "covs": torch.eye(2).double().expand(2, 2, 2),
    }
    MixtureData(**good)
    with pytest.raises(error, match=message):
        MixtureData(**(good | change))


def test_bad_arguments_are_refused():
    data, x, schedule = clouds.mixture(), randn(3, 2), linear(4)
    for call in (
        data.log_prob,
        lambda x: data.predict(x, 0.0),
        lambda x: data.reverse_step(x, schedule, 1),
    ):
        with pytest.raises(TypeError, match="float32"):
            call(x.float())
        with pytest.raises(ValueError, match="D = 2"):
            call(x[:, :1])
    with pytest.raises(ValueError, match="wanted = 'mean'"):
        data.predict(x, 0.0, "mean")
    with pytest.raises(ValueError, match="log_snr has inf"):
        data.predict(x, math.inf)
    with pytest.raises(ValueError, match="finite numbers"):
        data.noised(math.inf)
    with pytest.raises(ValueError, match="t = 0"):
        data.reverse_step(x, schedule, 0)
    with pytest.raises(TypeError, match="int64"):
        data.predict(x, 0.0, label=torch.zeros(3))
    with pytest.raises(ValueError, match="accepted are 0 to 2"):
        data.predict(x, 0.0, label=torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match=r"label has shape \(2,\)"):
        data.predict(x, 0.0, label=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"mean has shape \(1, 2\)"):
        GaussianData(x[:1], torch.eye(2).double())
    with pytest.raises(TypeError, match="accepted is a GaussianDecoder"):
        gaussian(2).chain_elbo(x, schedule, decoder=DiscretizedGaussianDecoder())
    for cloud in (clouds.moons, clouds.spiral, clouds.shape):
        with pytest.raises(ValueError, match="n = 0"):
            cloud(0, torch.Generator())
        with pytest.raises(ValueError, match=r"noise = -0.1"):
            cloud(5, torch.Generator(), noise=-0.1)


def test_noised_is_a_distribution_for_each_level():
    data, levels = line(), float64([-1.0, 2.0])
    x = randn(2, 1)
    together = data.noised(levels).log_prob(x)
    for i in range(2):
        alone = data.noised(levels[i].item()).log_prob(x[i : i + 1])
        assert together[i].item() == pytest.approx(alone.item(), abs=1e-13)
    one = GaussianData(float64([2.0]), float64([[3.0]])).noised(0.0)
    assert one.log_prob(x[:1]).item() == pytest.approx(
        Normal(float64(2 / math.sqrt(2)), float64(math.sqrt(2.0))).log_prob(x[0, 0]).item(),
        abs=1e-12,
    )

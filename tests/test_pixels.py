"""Densities of pixels: normalised, right against other code, safe in float32, and bounded."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import logistic
from torch.distributions import Bernoulli, Normal
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli

from evidence.estimators import drawing_from
from evidence.pixels import (
    SCALE_BOUNDS,
    BernoulliPixels,
    BoundedScale,
    ContinuousBernoulli,
    ContinuousBernoulliPixels,
    DiscretizedLogistic,
    GaussianPixels,
    LogisticPixels,
)

SLOPES = [-200.0, -40.0, -3.0, -0.5, -0.4999, -0.01, -1e-8, 0.0, 1e-8, 0.3, 0.5, 0.7, 20.0, 90.0]


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def all_pixels():
    return [
        BernoulliPixels(), ContinuousBernoulliPixels(), GaussianPixels(0.3),
        GaussianPixels(0.3, learned=True), LogisticPixels(), LogisticPixels(0.2, learned=False),
    ]  # fmt: skip


# --- continuous Bernoulli -------------------------------------------------------------------------


@pytest.mark.parametrize("slope", SLOPES)
def test_the_continuous_bernoulli_integrates_to_one_and_has_its_mean(slope):
    def density(x):
        return ContinuousBernoulli(float64(slope)).log_prob(float64(x)).exp().item()

    def ink(x):
        return x * density(x)

    # The mass lies at one end, within a few widths 1 / slope.
    cut = 30 / abs(slope) if abs(slope) > 60 else 1.0
    ends = (0.0, cut) if slope < 0 else (1 - cut, 1.0)
    assert quad(density, *ends, epsabs=1e-12)[0] == pytest.approx(1, abs=1e-10)
    assert ContinuousBernoulli(float64(slope)).mean.item() == pytest.approx(
        quad(ink, *ends, epsabs=1e-12)[0], abs=1e-10
    )


def test_the_continuous_bernoulli_is_that_of_torch_where_torchs_is_accurate():
    slopes = torch.linspace(-8, 8, 41, dtype=torch.float64)
    # Its own series replaces the formula between these limits; they are set to leave it out.
    theirs = TorchContinuousBernoulli(logits=slopes + 1e-3, lims=(0.5, 0.5))
    ours = ContinuousBernoulli(slopes + 1e-3)
    x = torch.linspace(0, 1, 7, dtype=torch.float64)[:, None].expand(-1, 41)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.mean, theirs.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.icdf(x), theirs.icdf(x), rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.entropy(), theirs.entropy(), rtol=0, atol=1e-10)


def test_the_continuous_bernoulli_is_accurate_in_float32_and_torchs_is_not():
    slopes = torch.cat([torch.linspace(-80, 80, 1601), torch.linspace(-0.6, 0.6, 1201)])
    x = torch.rand(len(slopes), generator=torch.Generator().manual_seed(0))
    exact = ContinuousBernoulli(slopes.double()).log_prob(x.double())
    ours = (ContinuousBernoulli(slopes).log_prob(x) - exact).abs().max()
    theirs = (TorchContinuousBernoulli(logits=slopes).log_prob(x) - exact).abs().max()
    assert ours < 1e-5
    assert theirs > 0.5


@pytest.mark.parametrize("slope", SLOPES)
def test_the_gradient_of_the_continuous_bernoulli_is_x_minus_the_mean(slope):
    for dtype, error in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        parameter = torch.tensor(slope, dtype=dtype, requires_grad=True)
        density = ContinuousBernoulli(parameter)
        density.log_prob(torch.tensor(0.3, dtype=dtype)).backward()
        assert parameter.grad.item() == pytest.approx(0.3 - density.mean.item(), abs=error)


def test_the_gradient_near_zero_is_x_minus_one_half():
    parameter = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    ContinuousBernoulli(parameter).log_prob(torch.tensor(0.3, dtype=torch.float64)).backward()
    mean = 1 / (1 - math.exp(-0.4)) - 1 / 0.4
    assert parameter.grad.item() == pytest.approx(0.3 - mean, abs=1e-12)


@given(slope=st.floats(-60, 60), u=st.floats(0, 1))
def test_the_quantile_has_the_mass_below_it(slope, u):
    x = ContinuousBernoulli(float64(slope)).icdf(float64(u)).item()
    assert 0 <= x <= 1
    mass = x if slope == 0 else math.expm1(slope * x) / math.expm1(slope)
    assert mass == pytest.approx(u, abs=1e-9)


@pytest.mark.parametrize("slope", [-1000.0, -30.0, 0.0, 0.9, 30.0, 1000.0])
def test_quantiles_in_float32_are_inside_at_both_ends(slope):
    x = ContinuousBernoulli(torch.tensor(slope)).icdf(torch.tensor([0.0, 1e-30, 0.5, 1.0]))
    assert ((x >= 0) & (x <= 1)).all()
    assert x[0] == 0
    assert x[3] == 1


def test_draws_of_the_continuous_bernoulli_have_its_mean():
    slopes = float64(-50.0, -2.0, 0.0, 0.4, 30.0)
    density = ContinuousBernoulli(slopes)
    with drawing_from(torch.Generator().manual_seed(0)):
        x = density.sample((20_000,))
    z = (x.mean(0) - density.mean) / (x.std(0) / 20_000**0.5)
    assert z.abs().max() < 4
    assert density.expand((3, 5)).log_prob(x[:3]).shape == (3, 5)


def test_what_torch_computes_by_clamping_is_not_offered():
    with pytest.raises(NotImplementedError):
        ContinuousBernoulli(torch.tensor(1.0)).cdf(torch.tensor(0.5))
    with pytest.raises(NotImplementedError):
        _ = ContinuousBernoulli(torch.tensor(1.0)).variance


# --- discretized logistic -------------------------------------------------------------------------


@given(loc=st.floats(-3, 4), log_scale=st.floats(-6.9, 2.3), levels=st.sampled_from([2, 5, 256]))
def test_the_discretized_logistic_sums_to_one(loc, log_scale, levels):
    distribution = DiscretizedLogistic(float64(loc), math.exp(log_scale), levels)
    total = distribution.log_prob(distribution.enumerate_support()).logsumexp(0)
    assert total.item() == pytest.approx(0, abs=1e-9)


def test_the_discretized_logistic_is_the_mass_of_scipys_logistic():
    loc, scale = 0.31, 0.04
    distribution = DiscretizedLogistic(float64(loc), scale)
    levels = distribution.enumerate_support()[:, 0]
    edges = (levels[:-1] + levels[1:]).numpy() / 2
    cdf = logistic.cdf(edges, loc, scale)
    mass = [cdf[0], *(cdf[1:] - cdf[:-1]), logistic.sf(edges[-1], loc, scale)]
    found = distribution.log_prob(levels[:, None])[:, 0].exp()
    torch.testing.assert_close(found, float64(*mass), rtol=1e-9, atol=1e-15)
    assert distribution.mean.item() == pytest.approx((levels * found).sum().item(), abs=1e-12)


def test_far_away_the_logarithm_falls_linearly_in_float32():
    scale = 1e-3
    loc = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    log_prob = DiscretizedLogistic(loc, scale).log_prob(torch.tensor([1.0, 0.0, 0.0]))
    log_prob.sum().backward()
    assert log_prob.tolist() == pytest.approx([-998.04, -498.04, -998.04], abs=0.01)
    assert loc.grad.tolist() == pytest.approx([1000.0, -1000.0, -1000.0], rel=1e-5)


def test_draws_of_the_discretized_logistic_have_its_probabilities():
    distribution = DiscretizedLogistic(float64(0.9), 0.2, levels=4)
    with drawing_from(torch.Generator().manual_seed(0)):
        x = distribution.sample((40_000,))[:, 0]
    for level in distribution.enumerate_support()[:, 0]:
        p = distribution.log_prob(level[None]).exp().item()
        share = (x == level).double().mean().item()
        assert abs(share - p) < 4 * (p * (1 - p) / 40_000) ** 0.5
    wider = distribution.expand((2, 1))
    assert wider.log_prob(distribution.enumerate_support()[1]).shape == (2, 1)
    assert wider.levels == 4


@pytest.mark.parametrize("value", [0.5, -1 / 255, 256 / 255, math.nan])
def test_values_that_are_no_grey_levels_are_refused(value):
    with pytest.raises(ValueError, match=r"^value: (expected 256 levels|given .* \[0, 1\])"):
        DiscretizedLogistic(torch.tensor([0.5]), 0.1).log_prob(torch.tensor([value]))


def test_all_grey_levels_of_digits_are_accepted_in_float32():
    levels = torch.arange(256, dtype=torch.float32).div(255)
    assert DiscretizedLogistic(torch.zeros(256), 0.1).log_prob(levels).isfinite().all()


# --- scales ---------------------------------------------------------------------------------------


@given(raw=st.floats(-1e30, 1e30))
def test_a_learned_scale_never_leaves_its_bounds(raw):
    scale = BoundedScale(0.1)
    with torch.no_grad():
        scale.raw.fill_(raw)
    low, high = SCALE_BOUNDS
    assert low * (1 - 1e-5) <= scale().item() <= high * (1 + 1e-5)


def test_a_learned_scale_starts_where_asked_and_moves_smoothly():
    scale = BoundedScale(0.1).double()
    assert scale().item() == pytest.approx(0.1, rel=1e-6)
    raw = torch.linspace(-5, 5, 101, dtype=torch.float64)
    values = []
    for value in raw:
        with torch.no_grad():
            scale.raw.fill_(value)
        scale.zero_grad()
        scale().backward()
        assert scale.raw.grad > 0
        values.append(scale().item())
    assert values == sorted(values)
    half = (SCALE_BOUNDS[0] * SCALE_BOUNDS[1]) ** 0.5
    assert values[50] == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-3, 10.0, 11.0, math.nan])
def test_learned_scales_outside_the_bounds_are_refused(scale):
    with pytest.raises(ValueError, match=r"accepted for one that is learned .* 0\.001 and 10"):
        GaussianPixels(scale, learned=True)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_fixed_scales_that_are_not_positive_are_refused(scale):
    with pytest.raises(ValueError, match="accepted are positive numbers"):
        LogisticPixels(scale, learned=False)


def test_a_fixed_scale_is_no_parameter_and_takes_the_dtype_of_the_output():
    pixels = GaussianPixels(0.1)
    assert not list(pixels.parameters())
    assert pixels(torch.zeros(2, dtype=torch.float64)).scale.tolist() == [0.1, 0.1]
    assert len(list(GaussianPixels(0.1, learned=True).parameters())) == 1
    assert "0.1" in repr(pixels)


# --- what a decoder's output says -----------------------------------------------------------------


def test_each_module_gives_the_distribution_of_its_name():
    output = torch.tensor([-1.0, 0.25])
    x = torch.tensor([0.0, 1.0])
    pairs = {
        BernoulliPixels(): Bernoulli(logits=output),
        ContinuousBernoulliPixels(): TorchContinuousBernoulli(logits=output),
        GaussianPixels(0.5): Normal(output, 0.5),
        GaussianPixels(0.5, learned=True): Normal(output, 0.5),
        LogisticPixels(0.5): DiscretizedLogistic(output, 0.5),
    }
    for pixels, expected in pairs.items():
        found = pixels(output)
        assert isinstance(found, torch.distributions.Distribution)
        torch.testing.assert_close(found.log_prob(x), expected.log_prob(x))
        torch.testing.assert_close(found.mean, expected.mean)


def test_the_first_bias_has_the_mean_of_the_data():
    mean = torch.tensor([0.0, 0.02, 0.3, 0.5, 0.97, 1.0])
    reached = {
        BernoulliPixels(): 0.998 * mean + 0.001,
        ContinuousBernoulliPixels(): 0.96 * mean + 0.02,
        GaussianPixels(0.3): mean,
    }
    for pixels, expected in reached.items():
        found = pixels(pixels.output_with_mean(mean)).mean
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(LogisticPixels().output_with_mean(mean), mean)


@pytest.mark.parametrize("pixels", all_pixels(), ids=lambda pixels: type(pixels).__name__)
def test_extreme_outputs_in_float32_have_finite_densities_and_gradients(pixels):
    output = torch.tensor([-1e4, -100.0, 0.0, 1e-6, 100.0, 1e4], requires_grad=True)
    for x in (0.0, 1.0):
        log_prob = pixels(output).log_prob(torch.full((6,), x))
        (gradient,) = torch.autograd.grad(log_prob.sum(), output)
        assert log_prob.isfinite().all()
        assert gradient.isfinite().all()
    # What is far off must be told so, by a gradient towards the data; a clamp would give none.
    off = pixels(output).log_prob(torch.zeros(6))
    (gradient,) = torch.autograd.grad(off.sum(), output)
    assert gradient[-1] < -0.5


def test_grey_pixels_get_the_cross_entropy_and_outside_values_are_refused():
    x = torch.tensor([0.3])
    logit = torch.tensor([0.7])
    p = torch.sigmoid(logit)
    expected = x * p.log() + (1 - x) * (1 - p).log()
    torch.testing.assert_close(BernoulliPixels()(logit).log_prob(x), expected)
    for pixels in (BernoulliPixels(), ContinuousBernoulliPixels()):
        with pytest.raises(ValueError, match=r"value: given values from 1\.5 to 1\.5"):
            pixels(logit).log_prob(torch.tensor([1.5]))

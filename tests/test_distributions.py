"""Each density of the package, method by method: right, or refused in words."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Beta,
    Exponential,
    Normal,
    Pareto,
    Uniform,
    kl_divergence,
)

from evidence.diffusion.bound import DiscretizedGaussian
from evidence.estimators import drawing_from
from evidence.pixels import (
    ContinuousBernoulli,
    DiscretizedLogistic,
    GaussianPixels,
    GreyBernoulli,
)

NODES = 20_001


def tensor(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def simpson(last):
    """Nodes and weights on [0, last], shape ``(NODES, *last.shape)``."""
    u = torch.linspace(0, 1, NODES, dtype=torch.float64)
    w = torch.full_like(u, 2)
    w[1::2] = 4
    w[0] = w[-1] = 1
    shape = (-1, *[1] * last.ndim)
    return u.view(shape) * last, (w / (3 * (NODES - 1))).view(shape) * last


def integral_over_unit(p, function):
    """The integral of p(x) f(x) over [0, 1], of a continuous Bernoulli, where its mass lies."""
    # Beyond 60 widths of the exponential there is less than e^-60.
    last = torch.clamp(60 / p.logits.abs(), max=1.0)
    near, weights = simpson(last)
    x = torch.where(p.logits > 0, 1 - near, near)
    return (weights * p.log_prob(x).exp() * function(x)).sum(0)


class Case:
    """A distribution with several batch entries, and expectations under it by another way."""

    def __init__(self, make, parameters):
        self.make, self.parameters = make, parameters

    def on(self, dtype):
        return self.make(*(parameter.to(dtype) for parameter in self.parameters))

    def expectation(self, function):
        p = self.on(torch.float64)
        if isinstance(p, ContinuousBernoulli):
            return integral_over_unit(p, function)
        if isinstance(p, Normal):
            x = p.loc + p.scale * torch.linspace(-12, 12, NODES, dtype=torch.float64)[:, None]
            return torch.trapezoid(p.log_prob(x).exp() * function(x), x, dim=0)
        x = p.enumerate_support()
        return (p.log_prob(x).exp() * function(x)).sum(0)

    def values(self):
        """Some values of x, from small to large."""
        p = self.on(torch.float64)
        if isinstance(p, ContinuousBernoulli | Normal):
            return torch.linspace(0, 1, 9, dtype=torch.float64)[:, None].expand(-1, 3)
        return p.enumerate_support()


CASES = {
    "grey Bernoulli": Case(
        lambda logits: GreyBernoulli(logits=logits, validate_args=False), [tensor(-3.0, 0.2, 40.0)]
    ),
    "continuous Bernoulli": Case(ContinuousBernoulli, [tensor(-900.0, 0.3, 40.0)]),
    "normal": Case(
        lambda output: GaussianPixels(0.4)(output), [tensor(-0.5, 0.3, 1.5)]
    ),
    "discretized logistic": Case(
        lambda loc, scale: DiscretizedLogistic(loc, scale, 17),
        [tensor(-0.5, 0.3, 1.01), tensor(0.4, 0.001, 0.05)],
    ),
    "discretized normal": Case(
        lambda loc, scale: DiscretizedGaussian(loc, scale, 17),
        [tensor(-1.5, 0.3, 1.01), tensor(0.4, 0.001, 0.05)],
    ),
}  # fmt: skip


def right_or_refused(method, expected, error):
    """Compare a method's value with the one expected; None means that it must be refused."""
    if expected is None:
        with pytest.raises(NotImplementedError) as caught:
            method()
        assert len(str(caught.value).split()) > 3, "refused without words"
        return
    torch.testing.assert_close(method(), expected(), rtol=0, atol=error, check_dtype=False)


REFUSED = {
    ("grey Bernoulli", "cdf"), ("grey Bernoulli", "icdf"), ("grey Bernoulli", "rsample"),
    ("continuous Bernoulli", "cdf"), ("continuous Bernoulli", "variance"),
    ("continuous Bernoulli", "stddev"), ("continuous Bernoulli", "mode"),
    ("discretized logistic", "icdf"), ("discretized logistic", "rsample"),
    ("discretized logistic", "mode"),
    ("discretized normal", "icdf"), ("discretized normal", "rsample"),
    ("discretized normal", "mode"),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["mean", "variance", "stddev", "entropy", "mode"])
@pytest.mark.parametrize("name", CASES)
def test_moments_and_entropy(name, method, dtype):
    case = CASES[name]
    p, exact = case.on(dtype), case.on(torch.float64)
    # The figures are below 10 in size; a variance in float32 is a difference of such.
    error = {torch.float64: 1e-9, torch.float32: 1e-5}[dtype]

    def variance():
        return case.expectation(lambda x: (x - case.expectation(lambda x: x)).square())

    expected = {
        "mean": lambda: case.expectation(lambda x: x),
        "variance": variance,
        "stddev": lambda: variance().sqrt(),
        "entropy": lambda: case.expectation(
            lambda x: -exact.log_prob(x).clamp(min=-1e4)
        ),
        "mode": lambda: tensor(0, 1, 1) if name == "grey Bernoulli" else p.loc.double(),
    }[method]  # fmt: skip
    if method == "stddev":
        error = error**0.5 if dtype == torch.float32 else 1e-6

    def given():
        value = getattr(p, method)
        return value() if method == "entropy" else value

    right_or_refused(given, None if (name, method) in REFUSED else expected, error)


@pytest.mark.parametrize("name", CASES)
def test_cumulated_probabilities_and_quantiles(name):
    case = CASES[name]
    p, x = case.on(torch.float64), case.values()
    is_discrete = p.has_enumerate_support

    def up_to_x():
        if is_discrete:
            return p.log_prob(x).exp().cumsum(0)
        return torch.stack(
            [case.expectation(lambda v, e=e: 0.5 + 0.5 * torch.sign(e - v)) for e in x]
        )

    # The jump of the integrand limits the quadrature.
    error = 1e-12 if is_discrete else 2e-3
    right_or_refused(lambda: p.cdf(x), None if (name, "cdf") in REFUSED else up_to_x, error)
    u = tensor(0.1, 0.5, 0.9)[:, None].expand(3, 3)
    if (name, "icdf") in REFUSED:
        right_or_refused(lambda: p.icdf(u), None, 0)
    else:
        below = torch.stack(
            [case.expectation(lambda v, e=e: 0.5 + 0.5 * torch.sign(e - v)) for e in p.icdf(u)]
        )
        torch.testing.assert_close(below, u, rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["sample", "rsample"])
@pytest.mark.parametrize("name", CASES)
def test_draws(name, method, dtype):
    case = CASES[name]
    p = case.on(dtype)
    if (name, method) in REFUSED:
        right_or_refused(lambda: getattr(p, method)((2,)), None, 0)
        return
    count = 20_000
    with drawing_from(torch.Generator().manual_seed(0)):
        x = getattr(p, method)((count // 2, 2))
        assert getattr(p, method)().shape == (3,)
    assert x.shape == (count // 2, 2, 3)
    assert x.dtype == dtype
    assert p.log_prob(x[:100]).isfinite().all()
    # The first two moments, and the share above the middle: within 5 standard errors each.
    x = x.reshape(count, 3).double()
    for function in (lambda v: v, torch.square, lambda v: (v > 0.45).double()):
        expected = case.expectation(function)
        spread = (case.expectation(lambda v, f=function: f(v).square()) - expected.square()).clamp(
            min=0
        )
        allowed = 5 * (spread / count).sqrt() + 2e-4
        assert ((function(x).mean(0) - expected).abs() <= allowed).all()


@pytest.mark.parametrize("name", CASES)
def test_expanded_and_still_the_same(name):
    p = CASES[name].on(torch.float64)
    wide = p.expand((2, 3))
    assert type(wide) is type(p)
    assert wide.batch_shape == (2, 3)
    x = CASES[name].values()[0]
    assert torch.equal(wide.log_prob(x), p.log_prob(x).expand(2, 3))
    assert torch.equal(wide.mean, p.mean.expand(2, 3))
    with pytest.raises(ValueError, match="value"):
        wide.log_prob(torch.full((3,), math.nan, dtype=torch.float64))


@pytest.mark.parametrize("name", CASES)
def test_divergence_between_two_of_a_kind(name):
    case = CASES[name]
    p = case.on(torch.float64)
    q = case.make(*(parameter.flip(0) for parameter in case.parameters))
    moderate = Case(case.make, [parameter.clamp(-5, 5) for parameter in case.parameters])
    near = case.make(*(parameter + 0.07 for parameter in case.parameters))
    middle = moderate.on(torch.float64)
    pairs = [(case, p, near), (moderate, middle, q), (moderate, middle, middle)]
    for own, p, q in pairs:

        def ratio(x, p=p, q=q):
            log_p = p.log_prob(x)
            return torch.where(log_p < -700, 0.0, log_p - q.log_prob(x))

        expected = own.expectation(ratio)
        torch.testing.assert_close(kl_divergence(p, q), expected, rtol=1e-8, atol=1e-9)


def test_divergence_between_other_levels_is_refused():
    coarse = DiscretizedLogistic(tensor(0.5), 0.1, 5)
    for other in (
        DiscretizedLogistic(tensor(0.5), 0.1, 6),
        DiscretizedGaussian(tensor(0.5), 0.1, 5),
    ):
        with pytest.raises(
            NotImplementedError, match="KL between distributions on different levels"
        ):
            kl_divergence(coarse, other)


# --- the divergence of the continuous Bernoulli, at its ends ------------------------------------

SLOPES = tensor(
    -2000, -300, -60, -30, -18, -17, -5, -0.51, -0.5, -0.49, -1e-3, -1e-9, 0,
    1e-9, 1e-3, 0.49, 0.5, 0.51, 5, 17, 18, 30, 60, 300, 2000,
)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_divergence_of_continuous_bernoullis_is_its_integral(dtype):
    p, q = ContinuousBernoulli(SLOPES[:, None]), ContinuousBernoulli(SLOPES)
    expected = integral_over_unit(p.expand((25, 25)), lambda x: p.log_prob(x) - q.log_prob(x))
    found = kl_divergence(
        ContinuousBernoulli(SLOPES[:, None].to(dtype)), ContinuousBernoulli(SLOPES.to(dtype))
    )
    assert found.dtype == dtype
    # Rounding of two log-normalisers, which are below 8 on the side where p has its mass.
    error = {torch.float64: 1e-10, torch.float32: 4e-6}[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=error, atol=error)
    assert (found.diagonal() == 0).all()
    assert (found > -error).all()


def test_divergence_of_the_case_that_was_negative():
    # (30 - 60) (1 - 1/30) - (30 - log 30) + (60 - log 60), but for e^-30.
    exact = 1 - math.log(2)
    for dtype, error in ((torch.float32, 1e-6), (torch.float64, 1e-11)):
        p, q = (ContinuousBernoulli(torch.tensor(slope, dtype=dtype)) for slope in (30.0, 60.0))
        assert kl_divergence(p, q).item() == pytest.approx(exact, abs=error)


@pytest.mark.parametrize("slope", [-300.0, -20.0, 0.0, 0.4, 20.0, 300.0])
def test_divergence_between_a_continuous_bernoulli_and_others(slope):
    ours = ContinuousBernoulli(tensor(slope))
    x, weights = simpson(tensor(1.0))
    inner, inner_weights = x[1:-1], weights[1:-1]
    for other, at, w in (
        (Beta(tensor(3.0), tensor(4.0)), inner, inner_weights),
        (Uniform(tensor(0.0), tensor(1.0), validate_args=False), x, weights),
    ):
        log_other = other.log_prob(at) if isinstance(other, Beta) else torch.zeros_like(at)
        expected = (w * log_other.exp() * (log_other - ours.log_prob(at))).sum(0)
        torch.testing.assert_close(kl_divergence(other, ours), expected, rtol=1e-9, atol=1e-9)
    assert kl_divergence(Uniform(tensor(-0.1), tensor(0.5)), ours).item() == math.inf
    assert kl_divergence(Normal(tensor(0.0), tensor(1.0)), ours).item() == math.inf
    assert kl_divergence(ours, Pareto(tensor(1.0), tensor(1.0))).item() == math.inf
    for other in (Uniform(tensor(-1.0), tensor(2.0)), Exponential(tensor(2.0))):
        expected = integral_over_unit(ours, lambda x, q=other: ours.log_prob(x) - q.log_prob(x))
        torch.testing.assert_close(kl_divergence(ours, other), expected, rtol=1e-8, atol=1e-9)
    with pytest.raises(NotImplementedError, match="variance of the continuous Bernoulli"):
        kl_divergence(ours, Normal(tensor(0.0), tensor(1.0)))


@pytest.mark.parametrize("make", [GreyBernoulli, Bernoulli])
def test_divergence_of_grey_bernoullis_is_finite_where_float32_rounds_probabilities_to_one(make):
    p = GreyBernoulli(logits=tensor(0.0, 30.0, -200.0, dtype=torch.float32))
    q = make(logits=tensor(20.0, 25.0, 200.0, dtype=torch.float32))
    on, off = torch.sigmoid(p.logits.double()), torch.sigmoid(-p.logits.double())
    log = torch.nn.functional.logsigmoid
    expected = on * (log(p.logits.double()) - log(q.logits.double()))
    expected += off * (log(-p.logits.double()) - log(-q.logits.double()))
    torch.testing.assert_close(kl_divergence(p, q).double(), expected, rtol=1e-6, atol=1e-11)

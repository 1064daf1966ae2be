"""Estimators of gradients: each estimate against its formula at the same draws, and means against
the exact gradient."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import (
    Bernoulli,
    Categorical,
    Gamma,
    Independent,
    MixtureSameFamily,
    Normal,
    OneHotCategorical,
    RelaxedOneHotCategorical,
    Uniform,
    kl_divergence,
)

from evidence import estimators as es

R = 7  # estimates
K = 4  # draws in each
MU, SIGMA = 0.7, 0.6
PHI = torch.tensor([MU, SIGMA], dtype=torch.float64)


def gaussian(phi):
    return Normal(phi[..., 0], phi[..., 1])


def curve(z, phi):
    """f = z^3 + mu^2 sigma, which depends on phi directly too."""
    return z**3 + phi[..., 0] ** 2 * phi[..., 1]


def slope(z):
    return 3 * z**2


DIRECT = torch.tensor([2 * MU * SIGMA, MU**2], dtype=torch.float64)
VALUE_DIRECT = MU**2 * SIGMA


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(batch=(K, R)):
    """The noise and the draws that an estimator of the Gaussian family sees with `seeded()`."""
    eps = torch.randn(batch, generator=seeded(), dtype=torch.float64)
    return eps, MU + SIGMA * eps


def estimates(estimator, family=gaussian, f=curve, phi=PHI, num_samples=K, **settings):
    return es.gradients(
        estimator,
        family,
        f,
        phi,
        num_estimates=R,
        num_samples=num_samples,
        generator=seeded(),
        **settings,
    )


def score(eps):
    """The gradient of log q at the draws, (..., 2)."""
    return torch.stack([eps / SIGMA, (eps.square() - 1) / SIGMA], -1)


def path(eps):
    return torch.stack([torch.ones_like(eps), eps], -1)


def agree(left, right, tolerance=1e-11):
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


# Draws. --------------------------------------------------------------------------------------


def test_distributions_draw_from_the_generator_and_leave_the_global_one_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generator = seeded(1)
    with es.drawing_from(generator):
        z = Normal(torch.zeros(20), 1.0).sample()
    assert torch.equal(torch.rand(3), expected)
    same = seeded(1)
    assert torch.equal(z, torch.randn(20, generator=same))
    assert torch.equal(generator.get_state(), same.get_state())


def test_the_global_generator_comes_back_after_an_error():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(TypeError), es.drawing_from(seeded(1)):
        torch.rand(1) + torch.rand("3")
    assert torch.equal(torch.get_rng_state(), before)


# Formulas, draw by draw. ---------------------------------------------------------------------


def weighted_scores(eps, weight):
    return (weight[..., None] * score(eps)).mean(0) + DIRECT


@pytest.mark.parametrize("baseline", [0.0, 1.5])
def test_score_function(baseline):
    eps, z = draws()
    expected = weighted_scores(eps, z**3 + VALUE_DIRECT - baseline)
    agree(estimates(es.score_function, baseline=baseline), expected)


def test_score_function_with_a_baseline_for_each_estimate():
    eps, z = draws()
    baseline = torch.arange(R, dtype=torch.float64)
    expected = weighted_scores(eps, z**3 + VALUE_DIRECT - baseline)
    agree(estimates(es.score_function, baseline=baseline), expected)


def test_score_function_with_the_mean_of_all_draws():
    eps, z = draws()
    expected = weighted_scores(eps, z**3 - (z**3).mean(0))
    agree(estimates(es.score_function_mean_baseline), expected)


def test_score_function_with_the_mean_of_the_other_draws():
    eps, z = draws()
    others = torch.stack([(z**3)[[i for i in range(K) if i != k]].mean(0) for k in range(K)])
    agree(estimates(es.score_function_leave_one_out), weighted_scores(eps, z**3 - others))


@pytest.mark.parametrize("estimator", [es.pathwise, es.implicit_pathwise])
def test_pathwise_by_a_path_or_implicitly(estimator):
    eps, z = draws()
    expected = (slope(z)[..., None] * path(eps)).mean(0) + DIRECT
    agree(estimates(estimator), expected)


def test_sticking_the_landing_keeps_only_the_path():
    eps, z = draws()
    agree(estimates(es.sticking_the_landing), (slope(z)[..., None] * path(eps)).mean(0))


TARGET = Normal(*torch.tensor([0.2, 0.9], dtype=torch.float64))


def log_weight(z, phi):
    """The log weight of a Gaussian target with mean 0.2 and standard deviation 0.9."""
    return TARGET.log_prob(z) + 1.3 - gaussian(phi).log_prob(z)


def shares(eps, z):
    log_q = -(eps.square()) / 2 - math.log(SIGMA)
    log_p = -((z - 0.2) / 0.9).square() / 2
    return (log_p - log_q).softmax(0)[..., None]


def weight_slope(eps, z):
    """The derivative of the log weight in z."""
    return (-(z - 0.2) / 0.9**2 + eps / SIGMA)[..., None]


def test_the_gradient_of_the_k_sample_bound():
    eps, z = draws()
    own = weight_slope(eps, z) * path(eps) - score(eps)
    agree(estimates(es.iwae_pathwise, f=log_weight), (shares(eps, z) * own).sum(0))


def test_doubly_reparameterized_gradients_have_squared_shares():
    eps, z = draws()
    expected = (shares(eps, z).square() * weight_slope(eps, z) * path(eps)).sum(0)
    agree(estimates(es.doubly_reparameterized, f=log_weight), expected)


def test_with_one_draw_the_k_sample_gradients_are_those_of_the_elbo():
    one = partial(estimates, f=log_weight, num_samples=1)
    agree(one(es.iwae_pathwise), one(es.pathwise))
    agree(one(es.doubly_reparameterized), one(es.sticking_the_landing))


def test_the_k_sample_surrogate_is_the_bound_itself():
    _, z = draws()
    value = es.iwae_pathwise(
        gaussian, log_weight, PHI.expand(R, 2), num_samples=K, generator=seeded()
    )
    agree(value, log_weight(z, PHI.expand(R, 2)).exp().mean(0).log())


LOGITS = torch.tensor([0.3, -0.4, 1.1], dtype=torch.float64)
VALUES = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def one_hot(phi):
    return OneHotCategorical(logits=phi)


def square(z, phi):
    return (z @ VALUES - 0.3).square() + 0.0 * phi.sum(-1)


def softmax_slope(upstream, probabilities):
    """The gradient in the logits of a function with the gradient `upstream` in softmax(logits)."""
    inner = (upstream * probabilities).sum(-1, keepdim=True)
    return probabilities * (upstream - inner)


def one_hot_draws():
    with es.drawing_from(seeded()):
        return one_hot(LOGITS.expand(R, 3)).sample((K,))


def square_slope(z):
    return 2 * (z @ VALUES - 0.3)[..., None] * VALUES


def test_straight_through_differentiates_as_if_at_the_mean():
    z = one_hot_draws()
    expected = softmax_slope(square_slope(z), LOGITS.softmax(-1)).mean(0)
    agree(estimates(es.straight_through, one_hot, square, LOGITS), expected)


def test_straight_through_for_bits():
    def bits(phi):
        return Independent(Bernoulli(logits=phi), 1)

    with es.drawing_from(seeded()):
        z = bits(LOGITS.expand(R, 3)).sample((K,))
    p = LOGITS.sigmoid()
    agree(
        estimates(es.straight_through, bits, square, LOGITS),
        (square_slope(z) * p * (1 - p)).mean(0),
    )


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax(hard):
    tau = 0.7
    with es.drawing_from(seeded()):
        relaxed = RelaxedOneHotCategorical(
            torch.tensor(tau, dtype=torch.float64), logits=LOGITS.expand(R, 3)
        ).sample((K,))
    z = torch.eye(3, dtype=torch.float64)[relaxed.argmax(-1)] if hard else relaxed
    expected = (softmax_slope(square_slope(z), relaxed) / tau).mean(0)
    found = estimates(es.gumbel_softmax, one_hot, square, LOGITS, temperature=tau, hard=hard)
    agree(found, expected)


def test_the_one_hot_vector_has_all_entries_even_if_the_last_is_never_drawn():
    logits = torch.tensor([0.0, 0.0, -200.0], dtype=torch.float64)
    found = estimates(es.gumbel_softmax, one_hot, square, logits, temperature=1.0, hard=True)
    assert found.shape == (R, 3)


CONTINUOUS = [
    es.score_function,
    es.score_function_mean_baseline,
    es.score_function_leave_one_out,
    es.pathwise,
    es.implicit_pathwise,
    es.sticking_the_landing,
    es.iwae_pathwise,
    es.doubly_reparameterized,
    partial(es.quadrature, low=-9, high=9),
]
DISCRETE = [es.straight_through, partial(es.gumbel_softmax, temperature=1.0), es.enumeration]


@pytest.mark.parametrize("estimator", CONTINUOUS)
def test_a_surrogate_has_the_batch_shape(estimator):
    phi = PHI.expand(2, 3, 2).clone().requires_grad_()
    surrogate = estimator(gaussian, log_weight, phi, num_samples=K, generator=seeded())
    assert surrogate.shape == (2, 3)
    (gradient,) = torch.autograd.grad(surrogate[0, 1], phi)
    assert gradient[0, 1].count_nonzero() == 2
    assert gradient.count_nonzero() == 2


@pytest.mark.parametrize("estimator", DISCRETE)
def test_a_surrogate_over_one_hot_vectors_has_the_batch_shape(estimator):
    phi = LOGITS.expand(2, 3).clone().requires_grad_()
    surrogate = estimator(one_hot, square, phi, num_samples=K, generator=seeded())
    assert surrogate.shape == (2,)
    (gradient,) = torch.autograd.grad(surrogate[0], phi)
    assert gradient[0].count_nonzero() == 3
    assert gradient[1].count_nonzero() == 0


NO_DEFAULT = CONTINUOUS[1:3] + CONTINUOUS[6:8]  # those that make no sense with one draw


@pytest.mark.parametrize("estimator", NO_DEFAULT)
def test_how_many_draws_must_be_said_where_one_makes_no_sense(estimator):
    with pytest.raises(TypeError, match="'num_samples'"):
        estimator(gaussian, curve, PHI[None], generator=seeded())


@pytest.mark.parametrize("estimator", [one for one in CONTINUOUS[:-1] if one not in NO_DEFAULT])
def test_one_draw_unless_asked_for_more(estimator):
    sizes = []

    def f(z, phi):
        sizes.append(len(z))
        return curve(z, phi)

    estimator(gaussian, f, PHI[None], generator=seeded())
    assert sizes == [1]


@pytest.mark.parametrize("estimator", DISCRETE[:-1])
def test_one_discrete_draw_unless_asked_for_more(estimator):
    sizes = []

    def f(z, phi):
        sizes.append(len(z))
        return square(z, phi)

    estimator(one_hot, f, LOGITS[None], generator=seeded())
    assert sizes == [1]


def test_gumbel_softmax_is_relaxed_unless_asked_otherwise():
    seen = []

    def f(z, phi):
        seen.append(z)
        return z @ VALUES

    estimates(es.gumbel_softmax, one_hot, f, LOGITS, temperature=1.0)
    assert (seen[0].detach().amax(-1) < 1).all()


# Exact ones. ---------------------------------------------------------------------------------

probability = st.floats(0.05, 0.95)
number = st.floats(-2, 2)


@given(st.lists(number, min_size=3, max_size=3), st.lists(number, min_size=3, max_size=3))
def test_enumeration_over_one_hot_vectors_is_the_softmax_formula(logits, values):
    logits = torch.tensor(logits, dtype=torch.float64)
    values = torch.tensor(values, dtype=torch.float64)
    found = estimates(es.enumeration, one_hot, lambda z, phi: z @ values, logits)[0]
    agree(found, softmax_slope(values, logits.softmax(-1)))


@given(st.lists(probability, min_size=1, max_size=4))
def test_enumeration_over_bits_is_the_product_of_means(p):
    p = torch.tensor(p, dtype=torch.float64)
    found = estimates(
        es.enumeration,
        lambda phi: Independent(Bernoulli(phi), 1),
        lambda z, phi: (z + 1).prod(-1),
        p,
    )
    agree(found, ((p + 1).prod() / (p + 1)).expand(R, len(p)))


def test_enumeration_over_indices_and_over_single_bits():
    states = torch.arange(3.0, dtype=torch.float64)
    found = estimates(
        es.enumeration, lambda phi: Categorical(logits=phi), lambda z, phi: z.to(phi), LOGITS
    )[0]
    agree(found, softmax_slope(states, LOGITS.softmax(-1)))
    p = torch.tensor([0.3], dtype=torch.float64)
    found = estimates(
        es.enumeration, lambda phi: Bernoulli(phi[..., 0]), lambda z, phi: 5 * z + 1, p
    )
    agree(found, torch.full((R, 1), 5.0, dtype=torch.float64))


def test_quadrature_takes_three_points_and_refuses_none_that_suffice():
    def step(phi):
        return Uniform(phi[..., 0] - 1, phi[..., 0] + 1, validate_args=False)

    phi = torch.zeros(1, 1, dtype=torch.float64)
    # Closed at the left and open at the right: the rule sees half of the mass of the last interval.
    with pytest.raises(ValueError, match=r"integrates to 0\.75;"):
        es.quadrature(step, lambda z, phi: z, phi, low=-1, high=1, num_points=3)
    value = es.quadrature(step, lambda z, phi: z + 2, phi, low=-2, high=2, num_points=3)
    agree(value, torch.tensor([2.0], dtype=torch.float64))


@given(number, st.floats(0.3, 1.5))
def test_quadrature_gives_the_moments_of_a_gaussian(mu, sigma):
    phi = torch.tensor([[mu, sigma]], dtype=torch.float64, requires_grad=True)
    value = es.quadrature(gaussian, lambda z, phi: z**3, phi, low=-20, high=20)
    agree(value, torch.tensor([mu**3 + 3 * mu * sigma**2], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(value.sum(), phi)
    expected = [[3 * mu**2 + 3 * sigma**2, 6 * mu * sigma]]
    agree(gradient, torch.tensor(expected, dtype=torch.float64))


# Means. --------------------------------------------------------------------------------------


def mixture(phi):
    return MixtureSameFamily(
        Categorical(logits=phi[..., 0:2]), Normal(phi[..., 2:4], phi[..., 4:6])
    )


def gamma(phi):
    return Gamma(phi[..., 0], phi[..., 1])


def test_a_mixture_of_gaussians_has_a_gradient_by_implicit_reparameterization():
    phi = torch.tensor([0.3, -0.2, -1.0, 1.5, 0.5, 0.8], dtype=torch.float64)

    def f(z, phi):
        return torch.sin(z) + z**2

    exact = estimates(partial(es.quadrature, low=-15, high=15), mixture, f, phi)[0]
    result = es.compare(
        [es.implicit_pathwise, es.score_function],
        mixture,
        f,
        phi,
        exact=exact,
        num_estimates=20_000,
        seed=0,
    )
    for row in result.rows:
        assert (row.bias.abs() < 4 * row.standard_error).all(), row.name
        assert (row.standard_error < 0.1).all()


def test_a_gamma_is_reparameterized_by_its_own_rsample():
    a, b = 2.5, 1.2
    phi = torch.tensor([a, b], dtype=torch.float64)
    exact = torch.tensor([(2 * a + 1) / b**2, -2 * a * (a + 1) / b**3], dtype=torch.float64)
    row = es.compare(
        [es.pathwise], gamma, lambda z, phi: z**2, phi, exact=exact, num_estimates=20_000, seed=0
    )["pathwise"]
    assert (row.bias.abs() < 4 * row.standard_error).all()


def elbo_gradient(phi):
    phi = phi.clone().requires_grad_()
    gap = kl_divergence(gaussian(phi), TARGET)
    return -torch.autograd.grad(gap, phi)[0]


UNBIASED = [
    es.score_function,
    es.score_function_leave_one_out,
    es.pathwise,
    es.implicit_pathwise,
    es.sticking_the_landing,
]


def test_estimators_of_the_elbo_agree_with_the_divergence_in_closed_form():
    result = es.compare(
        [*UNBIASED, es.score_function_mean_baseline],
        gaussian,
        log_weight,
        PHI,
        exact=elbo_gradient(PHI),
        num_estimates=20_000,
        num_samples=2,
        seed=0,
    )
    for row in result.rows[:-1]:
        assert (row.bias.abs() < 4 * row.standard_error).all(), row.name
    # Half of the gradient, for two draws.
    biased = result["score function mean baseline"]
    assert ((biased.mean - result.exact / 2).abs() < 4 * biased.standard_error).all()
    assert (biased.bias.abs() > 10 * biased.standard_error).any()


# Repeating and comparing. --------------------------------------------------------------------


def test_estimates_come_in_pieces_of_bounded_size(monkeypatch):
    monkeypatch.setattr(es, "NUMBERS_AT_ONCE", 10)
    sizes = []

    def f(z, phi):
        sizes.append(z.shape)
        return z

    found = es.gradients(
        es.pathwise, gaussian, f, PHI, num_estimates=8, num_samples=3, generator=seeded()
    )
    assert sizes == [(3, 3), (3, 3), (3, 2)]
    assert found.shape == (8, 2)
    assert len(found[:, 1].unique()) == 8
    # More draws than fit: one estimate at a time.
    es.gradients(es.pathwise, gaussian, f, PHI, num_estimates=2, num_samples=30, generator=seeded())
    assert sizes[3:] == [(30, 1), (30, 1)]


def test_a_comparison_holds_moments_of_the_estimates():
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    result = es.compare(
        {"mine": es.pathwise, "other": es.score_function},
        gaussian,
        curve,
        PHI,
        exact=exact,
        num_estimates=R,
        num_samples=K,
        seed=0,
    )
    found, row = estimates(es.pathwise), result["mine"]
    centred = found - found.sum(0) / R
    variance = centred.square().sum(0) / (R - 1)
    agree(row.mean, found.sum(0) / R)
    agree(row.bias, found.sum(0) / R - exact)
    agree(row.variance, variance)
    agree(row.standard_error, (variance / R).sqrt())
    fourth = centred.pow(4).sum(0) / R
    agree(row.variance_error, ((fourth - variance.square()).clamp(min=0) / R).sqrt())
    assert row.estimates == R
    assert row.seconds_per_draw > 0
    assert [row.name for row in result.rows] == ["mine", "other"]
    with pytest.raises(KeyError, match=r"'third'; there are \['mine', 'other'\]"):
        result["third"]


def test_two_estimates_of_one_draw_are_the_least_that_can_be_compared():
    sizes = []

    def f(z, phi):
        sizes.append(z.shape)
        return curve(z, phi)

    row = es.compare([es.pathwise], gaussian, f, PHI, exact=PHI, num_estimates=2, seed=0).rows[0]
    assert sizes == [(1, 2)]
    assert (row.variance > 0).all()
    es.gradients(es.pathwise, gaussian, f, PHI, num_estimates=3, generator=seeded())
    assert sizes[1:] == [(1, 3)]


def test_the_cost_is_the_time_for_one_draw(monkeypatch):
    clock = iter([100.0, 106.0])
    monkeypatch.setattr(es.time, "perf_counter", lambda: next(clock))
    result = es.compare(
        [es.pathwise], gaussian, curve, PHI, exact=PHI, num_estimates=3, num_samples=4, seed=0
    )
    assert result.rows[0].seconds_per_draw == 0.5


def test_the_table_shows_one_component():
    numbers = torch.tensor([1.0, -2.5])
    row = es.Row("pathwise", 9, numbers, -numbers, numbers.abs() / 10, 4 * numbers, numbers, 2e-6)
    slow = es.Row("slow", 9, numbers, numbers, numbers, numbers, numbers, 6e-6)
    table = es.Comparison(torch.tensor([7.0, 8.0]), (row, slow)).table(1, cost=True)
    assert table.splitlines() == [
        "               mean       bias ± error     variance    time",
        "pathwise    -2.5000    +2.5000 ± 0.2500         -10    1.0×",
        "slow        -2.5000    -2.5000 ± -2.5000       -2.5    3.0×",
        "exact        8.0000",
    ]
    plain = str(es.Comparison(torch.tensor([7.0, 8.0]), (row,)))
    assert plain.splitlines()[1:] == [
        "pathwise     1.0000    -1.0000 ± 0.1000           4",
        "exact        7.0000",
    ]


# Wrong input. --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: estimates(es.pathwise, num_samples=0), ValueError, "^num_samples is 0"),
        (
            lambda: estimates(
                es.gumbel_softmax, one_hot, square, LOGITS, num_samples=-1, temperature=1.0
            ),
            ValueError,
            "^num_samples is -1",
        ),
        (lambda: estimates(es.pathwise, num_samples=1.5), ValueError, "num_samples is 1.5"),
        (lambda: estimates(es.pathwise, num_samples=True), ValueError, "num_samples is True"),
        (
            lambda: estimates(es.score_function_leave_one_out, num_samples=1),
            ValueError,
            "^num_samples is 1; a baseline from other draws needs 2 or more$",
        ),
        (
            lambda: estimates(es.score_function_mean_baseline, num_samples=1),
            ValueError,
            "^num_samples is 1; a baseline from other draws needs 2 or more$",
        ),
        (lambda: estimates(es.pathwise, mixture, phi=torch.ones(6)), TypeError, "no rsample"),
        (lambda: estimates(es.pathwise, lambda phi: phi), TypeError, "family gives Tensor"),
        (lambda: estimates(es.pathwise, lambda phi: Normal(phi, 1.0)), ValueError, "batch shape"),
        (lambda: estimates(es.pathwise, f=lambda z, phi: z.sum(-1)), ValueError, "f gives values"),
        (lambda: estimates(es.pathwise, phi=PHI[None]), ValueError, r"accepted is \(P,\)"),
        (lambda: estimates(es.straight_through), TypeError, "family gives Normal"),
        (lambda: estimates(es.gumbel_softmax, temperature=1.0), TypeError, "family gives Normal"),
        (
            lambda: estimates(es.gumbel_softmax, one_hot, square, LOGITS, temperature=0.0),
            ValueError,
            "temperature is 0.0",
        ),
        (
            lambda: estimates(es.gumbel_softmax, one_hot, square, LOGITS, temperature=math.inf),
            ValueError,
            "temperature is inf",
        ),
        (lambda: estimates(es.enumeration), TypeError, "family gives Normal"),
        (
            lambda: estimates(es.implicit_pathwise, one_hot, square, LOGITS),
            ValueError,
            r"draws of shape \(3,\)",
        ),
        (
            lambda: estimates(es.quadrature, one_hot, square, LOGITS, low=0, high=1),
            ValueError,
            r"draws of shape \(3,\)",
        ),
        (lambda: estimates(es.quadrature, low=1, high=1), ValueError, "accepted are low < high"),
        (
            lambda: estimates(es.quadrature, low=-1, high=1, num_points=2),
            ValueError,
            "3 points or more",
        ),
        (lambda: estimates(es.quadrature, low=0, high=9), ValueError, "integrates to 0.8"),
        (
            lambda: es.quadrature(
                gaussian, curve, torch.stack([PHI, PHI - 0.5, PHI + 2]), low=0, high=20
            ),
            ValueError,
            "integrates to 0.850",
        ),
        (
            lambda: estimates(es.pathwise, f=lambda z, phi: torch.sqrt(z)),
            ValueError,
            "^pathwise gave an estimate that is not finite",
        ),
        (
            lambda: estimates(
                partial(es.gumbel_softmax, temperature=1.0),
                one_hot,
                lambda z, phi: (z @ VALUES - 9).sqrt(),
                LOGITS,
            ),
            ValueError,
            r"^functools.partial\(.* gave an estimate that is not finite",
        ),
        (
            lambda: es.gradients(
                es.pathwise, gaussian, curve, PHI, num_estimates=0, generator=seeded()
            ),
            ValueError,
            "num_estimates is 0",
        ),
        (
            lambda: es.compare(
                [es.pathwise], gaussian, curve, PHI, exact=PHI[:1], num_estimates=9, seed=0
            ),
            ValueError,
            r"exact has the shape \(1,\)",
        ),
        (
            lambda: es.compare(
                [es.pathwise], gaussian, curve, PHI, exact=PHI, num_estimates=1, seed=0
            ),
            ValueError,
            "num_estimates is 1",
        ),
    ],
)
def test_wrong_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

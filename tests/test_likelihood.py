"""Estimates of the evidence: exact where they must be, and honest about their error elsewhere."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Independent, MultivariateNormal, Normal

from evidence import likelihood
from evidence.likelihood import annealed, importance_sampled
from evidence.models import VAE
from evidence.pixels import GaussianPixels
from evidence.toys import CurvedToy, LinearToy, random_discrete_toy, random_linear_toy


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(n=5, seed=1, d=3):
    toy = random_linear_toy(6, d, seed=seed)
    x, _ = toy.sample(n, generator=seeded(seed))
    return toy, x


def wide_posterior(toy, x, factor=1.3):
    exact = toy.posterior(x)
    return MultivariateNormal(exact.mean, factor * exact.covariance_matrix)


def prior(toy, n):
    return toy.p_z().expand((n,))


class Weighted:
    """A model whose log weights under the prior are the latents themselves, times a factor."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def log_joint(self, x, z):
        return Normal(0.0, 1.0).log_prob(z) + self.factor * z


def standard(n):
    return Normal(torch.zeros(n).double(), torch.ones(n).double())


# --- importance sampling --------------------------------------------------------------------------


def test_with_the_posterior_as_proposal_one_draw_is_exact():
    toy, x = linear()
    for draws_at_once in (1, 7, 1000):
        found = importance_sampled(
            toy, x, q_z=toy.posterior, num_samples=20, generator=seeded(),
            draws_at_once=draws_at_once,
        )  # fmt: skip
        torch.testing.assert_close(found.log_p_x, toy.log_p_x(x), rtol=0, atol=1e-11)
        torch.testing.assert_close(found.elbo, toy.log_p_x(x), rtol=0, atol=1e-11)
        assert found.standard_error.max() < 1e-6
        assert found.effective_sample_size.min() > 20 - 1e-6


def test_the_figures_are_those_of_the_weights():
    k, n = 50, 3
    z = torch.randn(k, n, generator=seeded(4), dtype=torch.float64)
    found = importance_sampled(
        Weighted(2.0), torch.zeros(n), q_z=standard(n), num_samples=k, generator=seeded(4),
        draws_at_once=n * k,
    )  # fmt: skip
    w = torch.exp(2 * z)
    expected = {
        "log_p_x": w.mean(0).log(),
        "standard_error": w.std(0) / k**0.5 / w.mean(0),
        "effective_sample_size": w.sum(0).square() / w.square().sum(0),
        "elbo": (2 * z).mean(0),
        "elbo_standard_error": (2 * z).std(0) / k**0.5,
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(found, name), value, rtol=1e-10, atol=0)
    assert found.num_samples == k
    assert found.mean == pytest.approx(expected["log_p_x"].mean().item())
    errors = expected["standard_error"]
    assert found.mean_standard_error == pytest.approx((errors**2).sum().sqrt().item() / n)
    spread = expected["log_p_x"].std().item() / n**0.5
    assert found.mean_sampling_error == pytest.approx(spread)
    torch.testing.assert_close(found.bias, -errors.square() / 2)


def test_pieces_join_to_the_figures_of_the_whole():
    weights, whole = likelihood._RunningWeights(), likelihood._RunningWeights()
    # Rising, so that the largest weight so far changes with every piece; far outside exp's range.
    log_w = 1000 + 2 * torch.randn(40, 3, generator=seeded(), dtype=torch.float64).sort(0).values
    log_w[0] = -math.inf
    for piece in log_w.split([1, 2, 17, 20]):
        weights.add(piece)
    whole.add(log_w)
    for a, b in zip(weights.figures()[:3], whole.figures()[:3], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
    torch.testing.assert_close(whole.figures()[0], log_w.logsumexp(0) - math.log(40))


@given(seed=st.integers(0, 1000), parts=st.integers(1, 8))
def test_the_mean_log_weight_does_not_depend_on_the_pieces(seed, parts):
    log_w = 50 + torch.randn(24, 2, generator=seeded(seed), dtype=torch.float64)
    weights = likelihood._RunningWeights()
    for piece in log_w.tensor_split(parts):
        weights.add(piece)
    *_, mean, error = weights.figures()
    torch.testing.assert_close(mean, log_w.mean(0))
    torch.testing.assert_close(error, log_w.std(0) / 24**0.5)


@pytest.mark.parametrize("where", [0, 39])
def test_a_weight_of_zero_in_any_piece_makes_the_bound_minus_infinity(where):
    log_w = torch.randn(40, 1, generator=seeded(), dtype=torch.float64)
    log_w[where] = -math.inf
    weights = likelihood._RunningWeights()
    for piece in log_w.split(10):
        weights.add(piece)
    assert weights.figures()[3].item() == -math.inf


def test_estimates_are_unbiased_and_their_errors_are_right():
    toy, x = linear(n=1)
    many = x.expand(1000, -1)
    found = importance_sampled(
        toy, many, q_z=lambda part: wide_posterior(toy, part), num_samples=40, generator=seeded(2)
    )
    exact = toy.log_p_x(x)
    ratio = torch.exp(found.log_p_x - exact)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 1000**0.5 < 0.02
    # The error that is stated, against that seen over a thousand repetitions.
    off = found.log_p_x - exact
    stated = found.standard_error.square().mean().sqrt().item()
    assert stated == pytest.approx(off.std().item(), rel=0.1)
    assert abs((off - found.bias).mean()) < 4 * off.std() / 1000**0.5


@pytest.mark.parametrize("q_kind", ["distribution", "function"])
def test_the_curve_and_the_bits_agree_with_their_exact_evidence(q_kind):
    curve = CurvedToy()
    x = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)
    bits = random_discrete_toy(5, 4, seed=1)
    b, _ = bits.sample(3, generator=seeded(1))
    for toy, data in ((curve, x), (bits, b)):
        q_z = prior(toy, 3) if q_kind == "distribution" else lambda part, t=toy: prior(t, len(part))
        found = importance_sampled(
            toy, data, q_z=q_z, num_samples=20_000, generator=seeded(3), draws_at_once=5000
        )
        z = (found.log_p_x - toy.log_p_x(data)) / found.standard_error
        assert z.abs().max() < 4
        assert 0 < found.standard_error.max() < 0.1


def test_the_vae_is_its_own_proposal_and_a_linear_one_is_exact():
    """A VAE with affine networks is the linear toy, if its weights are set so."""
    D, d, sigma = 6, 2, 0.4  # noqa: N806
    model = VAE(D, (), d, pixels=GaussianPixels(sigma)).double()
    W, b = (parameter.detach() for parameter in model.decoder.parameters())  # noqa: N806
    toy = LinearToy(W, b, sigma)
    x, _ = toy.sample(20, generator=seeded())
    found = importance_sampled(model, x, num_samples=5000, generator=seeded(1))
    z = (found.log_p_x - toy.log_p_x(x)) / found.standard_error
    assert z.abs().max() < 4
    assert found.effective_sample_size.median() > 100
    assert (found.elbo < found.log_p_x).all()


def test_memory_does_not_grow_with_the_number_of_draws():
    most = {}

    class Watched(VAE):
        def log_joint(self, x, z):
            most[key] = max(most.get(key, 0), z[..., 0].numel())
            return super().log_joint(x, z)

    model = Watched(12, (8,), 2)
    x = torch.zeros(10, 12)
    for key in (10, 1000, 5000):
        found = importance_sampled(model, x, num_samples=key, generator=seeded(), draws_at_once=500)
        assert found.log_p_x.shape == (10,)
        assert found.num_samples == key
    assert most[10] == 100
    assert most[1000] <= 500
    assert most[5000] <= 500
    # No array of one number a draw is kept either.
    assert all(value.shape == (10,) for value in vars(found).values() if torch.is_tensor(value))


def test_a_seed_gives_one_estimate_and_the_global_generator_is_left_alone():
    toy, x = linear()
    before = torch.get_rng_state()
    first, again, other = (
        importance_sampled(toy, x, q_z=prior(toy, 5), num_samples=9, generator=seeded(s)).log_p_x
        for s in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_draw_has_no_standard_error():
    toy, x = linear()
    found = importance_sampled(toy, x, q_z=prior(toy, 5), num_samples=1, generator=seeded())
    assert found.standard_error.isnan().all()
    assert found.elbo_standard_error.isnan().all()
    torch.testing.assert_close(found.elbo, found.log_p_x)


def test_impossible_data_have_no_evidence():
    model = SimpleNamespace(log_joint=lambda x, z: torch.full(z.shape, -math.inf))
    found = importance_sampled(
        model, torch.zeros(2), q_z=standard(2), num_samples=5, generator=seeded()
    )
    assert (found.log_p_x == -math.inf).all()


# --- annealed importance sampling -----------------------------------------------------------------


def test_with_one_temperature_annealing_is_importance_sampling():
    toy, x = linear()
    arguments = {"generator": seeded(3)}
    q = Independent(Normal(torch.zeros(5, 3).double(), 1.0), 1)
    monte_carlo = importance_sampled(
        toy, x, q_z=q, num_samples=1000, generator=seeded(3), draws_at_once=100
    )
    chains = annealed(
        toy, x, start=q, num_temperatures=1, num_chains=1000, draws_at_once=100, **arguments
    )
    error = (chains.standard_error.square() + monte_carlo.standard_error.square()).sqrt()
    assert ((chains.log_p_x - monte_carlo.log_p_x).abs() < 5 * error).all()
    assert chains.acceptance.isnan().all()
    assert chains.step_sizes.shape == (0, 5)


def test_annealing_finds_the_evidence_of_the_linear_toy():
    toy, x = linear(d=2)
    found = annealed(
        toy, x, start=prior(toy, 5), num_temperatures=50, num_chains=200, generator=seeded(1)
    )
    z = (found.log_p_x - toy.log_p_x(x)) / found.standard_error
    assert z.abs().max() < 4
    # The same number of draws from the prior, without the path.
    plain = importance_sampled(
        toy, x, q_z=prior(toy, 5), num_samples=200, generator=seeded(1), draws_at_once=1000
    )
    assert (found.effective_sample_size > 2 * plain.effective_sample_size).all()
    assert ((found.acceptance > 0.4) & (found.acceptance < 0.95)).all()
    assert found.step_sizes.shape == (49, 5)


def test_annealing_finds_the_evidence_of_the_curve_with_its_two_modes():
    toy = CurvedToy()
    x = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)
    found = annealed(
        toy, x, start=prior(toy, 3), num_temperatures=30, num_chains=400, generator=seeded(2)
    )
    z = (found.log_p_x - toy.log_p_x(x)) / found.standard_error
    assert z.abs().max() < 4
    assert found.standard_error.max() < 0.15


def test_the_mean_weight_is_right_however_badly_the_chains_mix():
    """Few temperatures and one leapfrog step: noisy, but without bias, or the test fails."""
    toy, x = linear(n=1, d=1)
    many = x.expand(4, -1)
    found = annealed(
        toy, many, start=prior(toy, 4), num_temperatures=3, num_chains=20_000, leapfrog_steps=1,
        generator=seeded(5), draws_at_once=80_000,
    )  # fmt: skip
    ratio = torch.exp(found.log_p_x - toy.log_p_x(x)) - 1
    assert (ratio.abs() < 4 * found.standard_error).all()
    assert found.standard_error.max() < 0.05


def test_a_transition_leaves_its_target_as_it_is():
    toy, x = linear(n=1, d=2)
    chains = likelihood._Chains(toy, x, prior(toy, 1), [0.0, 1.0], 3, seeded(1))
    exact = toy.posterior(x)
    eps = torch.randn(40_000, 1, 2, generator=seeded(2), dtype=torch.float64)
    for step in (0.1, 0.3):
        z, acceptance = chains._transition(
            exact.mean + eps @ exact.scale_tril.mT, 1.0, torch.tensor([step]).double()
        )
        error = (exact.variance / 40_000).sqrt()
        assert ((z.mean(0) - exact.mean).abs() < 4 * error).all()
        covariance = torch.cov(z[:, 0].T)
        assert torch.allclose(covariance, exact.covariance_matrix[0], rtol=0.05, atol=5e-4)
        assert 0.05 < acceptance.item() < 0.99


def test_steps_are_held_while_the_weights_are_made(monkeypatch):
    toy, x = linear()
    runs = []
    run = likelihood._Chains.run

    def watched(self, count, steps):
        runs.append((count, None if steps is None else steps.clone()))
        return run(self, count, steps)

    monkeypatch.setattr(likelihood._Chains, "run", watched)
    found = annealed(
        toy, x, start=prior(toy, 5), num_temperatures=6, num_chains=50, generator=seeded(),
        draws_at_once=85,
    )  # fmt: skip
    assert runs[0] == (likelihood.PILOT_CHAINS, None)
    assert [count for count, _ in runs[1:]] == [17, 17, 16]
    assert all(torch.equal(steps, found.step_sizes) for _, steps in runs[1:])


def test_a_vae_is_annealed_from_its_own_q_and_in_parts():
    model = VAE(12, (8,), 2, seed=3).double()
    x = (torch.rand(7, 12, generator=seeded(1)) < 0.3).double()
    exact = importance_sampled(model, x, num_samples=50_000, generator=seeded(2))
    found = annealed(
        model, x, num_temperatures=8, num_chains=60, generator=seeded(3), draws_at_once=200
    )
    error = (found.standard_error.square() + exact.standard_error.square()).sqrt()
    assert ((found.log_p_x - exact.log_p_x).abs() < 4 * error).all()
    assert found.step_sizes.shape == (7, 7)
    assert all(parameter.grad is None for parameter in model.parameters())


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["num_samples", "draws_at_once"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_other_numbers_are_refused(name, value):
    toy, x = linear()
    arguments = {"num_samples": 3, name: value}
    with pytest.raises(ValueError, match=rf"{name} is .*; accepted are whole numbers from 1"):
        importance_sampled(toy, x, q_z=prior(toy, 5), generator=seeded(), **arguments)


@pytest.mark.parametrize(
    "name", ["num_temperatures", "num_chains", "leapfrog_steps", "draws_at_once"]
)
def test_other_numbers_are_refused_for_chains(name):
    toy, x = linear()
    arguments = {"num_temperatures": 3, "num_chains": 3, name: 0}
    with pytest.raises(ValueError, match=rf"{name} is 0; accepted are whole numbers from 1"):
        annealed(toy, x, start=prior(toy, 5), generator=seeded(), **arguments)


def test_shapes_that_do_not_fit_are_refused():
    toy, x = linear()
    call = {"num_samples": 3, "generator": seeded()}
    with pytest.raises(ValueError, match=r"batch shape \(4,\); accepted for 5 data is \(5,\)"):
        importance_sampled(toy, x, q_z=prior(toy, 4), **call)
    with pytest.raises(ValueError, match=r"batch shape \(\)"):
        importance_sampled(toy, x, q_z=toy.p_z(), **call)
    with pytest.raises(ValueError, match="LinearToy has no q_z"):
        importance_sampled(toy, x, **call)
    with pytest.raises(ValueError, match=r"x has the shape \(0, 6\)"):
        importance_sampled(toy, x[:0], q_z=toy.posterior, **call)
    summed = SimpleNamespace(log_joint=lambda x, z: toy.log_joint(x, z).sum(1, keepdim=True))
    with pytest.raises(ValueError, match=r"gives the shape \(3, 1\) .* accepted is \(3, 5\)"):
        importance_sampled(summed, x, q_z=prior(toy, 5), **call)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(value):
    model = SimpleNamespace(log_joint=lambda x, z: torch.full(z.shape, value))
    with pytest.raises(ValueError, match="log weight that is NaN or infinite"):
        importance_sampled(
            model, torch.zeros(2), q_z=standard(2), num_samples=5, generator=seeded()
        )

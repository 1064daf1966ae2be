"""The gap between ELBO and evidence, and its two parts."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from evidence.inference_gap import _standardized_noise, fit_gaussian, split_gap
from evidence.models import VAE
from evidence.toys import CurvedToy, LinearToy, random_linear_toy


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(n=4, seed=1):
    toy = random_linear_toy(6, 3, seed=seed)
    x, _ = toy.sample(n, generator=seeded(seed))
    return toy, x


def diagonal_gap(toy):
    M = toy.W.T @ toy.W + toy.sigma**2 * torch.eye(toy.d).double()  # noqa: N806
    return (M.diagonal().log().sum() - M.logdet()) / 2


def test_noise_is_standardized_for_each_datum():
    eps = _standardized_noise(10, torch.zeros(3, 4).double(), seeded())
    assert eps.shape == (10, 3, 4)
    assert eps.mean(0).abs().max() < 1e-14
    for i in range(3):
        covariance = eps[:, i].T @ eps[:, i] / 10
        assert torch.allclose(covariance, torch.eye(4).double(), atol=1e-12)
    assert not torch.allclose(eps[:, 0], eps[:, 1])


def test_a_full_gaussian_reaches_the_posterior_of_the_linear_toy():
    toy, x = linear()
    q = fit_gaussian(toy, x, start=toy.p_z().expand((4,)), family="full", generator=seeded())
    assert kl_divergence(q, toy.posterior(x)).abs().max() < 1e-9


def test_a_diagonal_gaussian_stops_at_the_known_gap():
    toy, x = linear()
    q = fit_gaussian(toy, x, start=toy.p_z().expand((4,)), generator=seeded())
    assert isinstance(q, Independent)
    found = kl_divergence(
        MultivariateNormal(q.mean, torch.diag_embed(q.variance)), toy.posterior(x)
    )
    assert diagonal_gap(toy) > 0.1
    torch.testing.assert_close(found, diagonal_gap(toy).expand(4), rtol=1e-7, atol=0)
    torch.testing.assert_close(q.mean, toy.posterior(x).mean, rtol=0, atol=1e-6)


def test_orthogonal_columns_leave_no_gap_to_a_diagonal_gaussian():
    columns = torch.linalg.qr(torch.randn(6, 3, generator=seeded(), dtype=torch.float64)).Q
    toy = LinearToy(columns * torch.tensor([2.0, 1.0, 0.5]).double(), sigma=0.6)
    x, _ = toy.sample(3, generator=seeded())
    q = fit_gaussian(toy, x, start=toy.p_z().expand((3,)), generator=seeded())
    found = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    assert kl_divergence(found, toy.posterior(x)).abs().max() < 1e-9


def test_the_best_gaussian_of_the_curve_is_the_best_of_a_grid():
    toy = CurvedToy()
    x = torch.tensor([-1.0, 3.0], dtype=torch.float64)
    q = fit_gaussian(
        toy, x, start=Normal(torch.ones(2).double(), torch.ones(2).double()), num_samples=4000,
        generator=seeded(),
    )  # fmt: skip
    nodes = torch.linspace(-6, 6, 401, dtype=torch.float64)
    density = Normal(0.0, 1.0).log_prob(nodes).exp() * 0.03

    def elbo(mu, sigma):
        z = mu[..., None, None] + sigma[..., None, None] * nodes
        return (toy.log_joint(x[:, None], z) * density).sum(-1) + sigma.log()[..., None]

    mu, sigma = torch.meshgrid(
        torch.linspace(-0.5, 2.5, 151).double(), torch.linspace(0.05, 1.2, 116).double(),
        indexing="ij",
    )  # fmt: skip
    best = elbo(mu, sigma).flatten(0, 1).amax(0)
    reached = elbo(q.mean, q.stddev).diagonal()
    assert ((best - reached).abs() < 0.01).all()


def test_the_gap_of_the_linear_toy_splits_as_it_must():
    toy, x = linear()
    exact = toy.posterior(x)
    scale = (1 / exact.precision_matrix.diagonal(dim1=-2, dim2=-1)).sqrt()
    encoder = Independent(Normal(exact.mean + 0.3, 2 * scale), 1)
    gap = split_gap(toy, x, q_z=lambda _: encoder, num_samples=20_000, generator=seeded(2))
    truth = kl_divergence(
        MultivariateNormal(encoder.mean, torch.diag_embed(encoder.variance)), exact
    )
    assert ((gap.total - truth).abs() < 4 * gap.encoder.elbo_standard_error + 0.02).all()
    assert ((gap.approximation - diagonal_gap(toy)).abs() < 0.05).all()
    torch.testing.assert_close(gap.approximation + gap.amortization, gap.total)
    full = split_gap(
        toy, x, q_z=lambda _: encoder, family="full", num_samples=500, generator=seeded(2)
    )
    assert full.approximation.abs().max() < 1e-6
    assert (full.amortization > gap.amortization).all()


def test_the_evidence_can_be_a_better_estimate_than_that_of_the_best_q():
    toy, x = linear()
    full = split_gap(toy, x, family="full", q_z=lambda part: toy.p_z().expand((len(part),)),
                     num_samples=50, generator=seeded())  # fmt: skip
    gap = split_gap(toy, x, q_z=lambda part: toy.p_z().expand((len(part),)),
                    evidence=full.best, num_samples=50, generator=seeded())  # fmt: skip
    assert torch.equal(gap.evidence.log_p_x, full.best.log_p_x)
    # The posterior as a proposal has equal weights: this evidence is exact.
    torch.testing.assert_close(gap.evidence.log_p_x, toy.log_p_x(x))
    torch.testing.assert_close(gap.approximation + gap.best.elbo, gap.evidence.log_p_x)


def test_a_vae_keeps_its_weights_and_the_fit_is_no_worse_than_its_encoder():
    model = VAE(12, (8,), 3, seed=3)
    x = (torch.rand(10, 12, generator=seeded(1)) < 0.3).float()
    gap = split_gap(model, x, family="full", num_samples=4000, generator=seeded(2))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert (gap.amortization > 0).all()
    assert (gap.approximation > -0.05).all()
    assert gap.approximation.mean() < gap.amortization.mean()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"family": "banded"}, "accepted are 'diagonal' and 'full'"),
        ({"num_samples": 3}, "num_samples is 3; accepted are whole numbers above 3"),
        ({"num_samples": 8.0}, "num_samples is 8.0"),
        ({"max_iterations": 0}, "max_iterations is 0"),
        (
            {
                "start": Independent(
                    Normal(torch.zeros(5, 3).double(), torch.ones(5, 3).double()), 1
                )
            },
            "start is over 5 data",
        ),
    ],
)
def test_other_arguments_are_refused(changes, match):
    toy, x = linear()
    arguments = {"start": toy.p_z().expand((4,)), "generator": seeded()} | changes
    with pytest.raises(ValueError, match=match):
        fit_gaussian(toy, x, **arguments)


def test_an_elbo_that_is_not_finite_is_refused():
    toy, x = linear()
    start = Normal(torch.full((4, 3), 1e200, dtype=torch.float64), torch.ones(4, 3).double())
    with pytest.raises(ValueError, match="the ELBO of start"):
        fit_gaussian(toy, x, start=start, generator=seeded())

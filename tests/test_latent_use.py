"""Which latents are used, and what they carry."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from evidence.latent_use import latent_use, log_aggregate_posterior, rate_point, split_rate
from evidence.models import VAE


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Encoded(VAE):
    """A VAE whose encoder gives x itself as means, with standard deviations that are set."""

    def __init__(self, sigma, decoder_seed=0):
        sigma = torch.as_tensor(sigma).double()
        super().__init__(len(sigma), (4,), len(sigma), seed=decoder_seed)
        self.double()
        self.sigma = sigma

    def encode(self, x):
        return x, 2 * self.sigma.log().expand_as(x)


def test_active_units_are_those_whose_means_move():
    model = Encoded([1.0, 1.0, 0.5, 0.01])
    spread = torch.tensor([0.0, 0.0999, 0.1001, 2.0]).double()
    signs = torch.tensor([[1.0], [-1.0]]).double().repeat(500, 1)
    # The variance with the factor 1 / (n - 1), as of a sample.
    x = 0.7 + signs * spread * (999 / 1000) ** 0.5
    use = latent_use(model, x)
    torch.testing.assert_close(use.variance_of_means, spread**2, rtol=1e-9, atol=1e-12)
    assert use.active.tolist() == [False, False, True, True]
    assert use.num_active == 2
    expected = (x.square().mean(0) + model.sigma**2 - 1) / 2 - model.sigma.log()
    torch.testing.assert_close(use.rate, expected)


def test_the_rate_point_is_minus_the_elbo_in_two_terms():
    model = VAE(6, (5,), 3, seed=1).double()
    x = (torch.rand(2000, 6, generator=seeded()) < 0.4).double()
    point = rate_point(model, x, generator=seeded(1))
    eps = torch.randn(1, 2000, 3, generator=seeded(1), dtype=torch.float64)[0]
    elbo = model.elbo(x, eps)
    assert point.rate + point.distortion == pytest.approx(-elbo.mean().item(), rel=1e-9)
    rates = kl_divergence(model.q_z(x), Normal(torch.zeros(3).double(), 1.0)).sum(1)
    assert point.rate == pytest.approx(rates.mean().item())
    assert point.rate_error == pytest.approx(rates.std().item() / 2000**0.5)
    assert point.distortion_error == pytest.approx(
        (-elbo - rates).std().item() / 2000**0.5, rel=1e-6
    )


def test_the_aggregate_posterior_is_the_mixture():
    model = Encoded([0.3, 0.8])
    x = torch.randn(7, 2, generator=seeded(), dtype=torch.float64)
    z = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
    found = log_aggregate_posterior(model, z, x)
    for i in range(5):
        components = Normal(x, model.sigma).log_prob(z[i]).sum(1).exp()
        assert found[i].item() == pytest.approx(components.mean().log().item(), rel=1e-12)


def test_the_aggregate_posterior_does_not_depend_on_the_parts(monkeypatch):
    model = Encoded([0.3, 0.8])
    x = torch.randn(7, 2, generator=seeded(), dtype=torch.float64)
    whole = log_aggregate_posterior(model, x, x)
    monkeypatch.setattr("evidence.latent_use.PAIRS_AT_ONCE", 15)
    torch.testing.assert_close(log_aggregate_posterior(model, x, x), whole)


def test_far_apart_codes_carry_log_n_nats_and_equal_codes_none():
    n = 16
    far = torch.arange(n).double()[:, None] * torch.tensor([[100.0, 0.0]]).double()
    split = split_rate(Encoded([0.5, 1.0]), far, generator=seeded())
    assert split.rate == pytest.approx(latent_use(Encoded([0.5, 1.0]), far).rate.sum().item())
    assert split.mutual_information == pytest.approx(math.log(n), abs=1e-9)
    assert split.standard_error < 1e-9
    same = split_rate(Encoded([0.5, 1.0]), torch.zeros(n, 2).double(), generator=seeded())
    assert same.mutual_information == pytest.approx(0, abs=1e-9)
    assert same.kl_to_prior == pytest.approx(same.rate)


def test_codes_of_the_prior_split_as_a_gaussian_channel():
    """Codes N(0, 1 - s^2) with noise s: the aggregate posterior is the prior, and I = -log s."""
    s = 0.5
    x = torch.randn(3000, 1, generator=seeded(), dtype=torch.float64) * (1 - s**2) ** 0.5
    split = split_rate(Encoded([s]), x, generator=seeded(1))
    assert abs(split.mutual_information + math.log(s)) < 4 * split.standard_error < 0.07
    assert split.kl_to_prior == pytest.approx(split.rate - split.mutual_information)
    assert abs(split.kl_to_prior) < 4 * split.standard_error


@pytest.mark.parametrize("shape", [(1, 2), (4,), (2, 2, 2)])
def test_too_few_data_are_refused(shape):
    model = Encoded([1.0, 1.0])
    x = torch.zeros(shape).double()
    with pytest.raises(ValueError, match=r"accepted is \(n, D\) with n >= 2"):
        latent_use(model, x)
    with pytest.raises(ValueError, match="accepted is"):
        rate_point(model, x, generator=seeded())
    with pytest.raises(ValueError, match="accepted is"):
        split_rate(model, x, generator=seeded())

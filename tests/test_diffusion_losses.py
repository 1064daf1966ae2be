"""The loss of a denoiser: what its mean is, for every prediction, weighting and kind of time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from evidence.diffusion.losses import denoising_loss
from evidence.diffusion.networks import NO_LABEL
from evidence.diffusion.prediction import NetworkDenoiser, convert
from evidence.diffusion.schedule import (
    cosine,
    cosine_log_snr,
    linear_log_snr,
    stratified_uniform,
)

NUM_X = 40_000


class FromX0(nn.Module):
    """A denoiser that says x_0 is the constant c, put as the prediction that is asked for."""

    def __init__(self, prediction, c=0.3):
        super().__init__()
        self.prediction = prediction
        self.c = nn.Parameter(torch.tensor(c, dtype=torch.float64))
        self.levels = []
        self.labels = []

    def forward(self, x_t, log_snr, label=None):
        self.levels.append(log_snr)
        self.labels.append(label)
        x_0 = self.c * torch.ones_like(x_t)
        return convert(x_0, x_t, log_snr, given="x_0", wanted=self.prediction)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n=NUM_X, seed=1):
    return torch.randn(n, 2, generator=generator(seed), dtype=torch.float64)


def mean_error(x):
    return (x - 0.3).square().sum(1).mean().item()


def denoiser(prediction):
    return NetworkDenoiser(FromX0(prediction), prediction)


@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_the_elbo_weighting_is_one_number_whatever_is_predicted(prediction):
    """x_0_hat = c gives -1/2 times the integral of SNR', times the mean error."""
    x = data()
    loss = denoising_loss(
        denoiser(prediction), x, generator(), log_snr_of_time=linear_log_snr(2.0, -4.0),
        weighting="elbo",
    )  # fmt: skip
    expected = (math.exp(2.0) - math.exp(-4.0)) / 2 * mean_error(x)
    assert math.isclose(loss.item(), expected, rel_tol=0.02)


def test_the_elbo_weighting_does_not_see_how_time_runs():
    x = data()
    values = [
        denoising_loss(denoiser("x_0"), x, generator(), log_snr_of_time=path, weighting="elbo")
        for path in (linear_log_snr(1.0, -3.0), cosine_log_snr(1.0, -3.0))
    ]
    assert math.isclose(values[0].item(), values[1].item(), rel_tol=0.02)


@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_the_elbo_weighting_of_a_schedule_is_the_sum_over_its_steps(prediction):
    x, schedule = data(), cosine(5)
    loss = denoising_loss(denoiser(prediction), x, generator(), schedule=schedule, weighting="elbo")
    snr = schedule.snr
    weights = [0.5 * snr[1].item()]  # the decoder's, then those of the steps t = 2..T
    weights += [0.5 * (snr[t - 1] - snr[t]).item() for t in range(2, 6)]
    assert math.isclose(loss.item(), sum(weights) * mean_error(x), rel_tol=0.02)


def test_the_simple_weighting_is_the_error_of_what_is_predicted():
    x = data()
    path = linear_log_snr(3.0, -3.0)
    losses = {
        kind: denoising_loss(denoiser(kind), x, generator(), log_snr_of_time=path).item()
        for kind in ("x_0", "eps", "v")
    }
    # With a linear path, the mean of SNR is sinh(3) / 3, and that of abar is 1/2, by symmetry.
    assert math.isclose(losses["x_0"], mean_error(x), rel_tol=1e-9)
    assert math.isclose(losses["eps"], math.sinh(3.0) / 3 * mean_error(x), rel_tol=0.02)
    log_snr = torch.linspace(3, -3, 100_001, dtype=torch.float64)
    one_over_noise = (1 / torch.sigmoid(-log_snr)).mean().item()
    assert math.isclose(losses["v"], one_over_noise * mean_error(x), rel_tol=0.02)


def test_all_steps_are_seen_and_equally_often():
    model, schedule = denoiser("x_0"), cosine(5)
    denoising_loss(model, data(1000), generator(), schedule=schedule)
    (levels,) = model.network.levels
    for t in range(1, 6):
        assert (levels - schedule.log_snr[t]).abs().lt(1e-9).sum() == 200


def test_what_the_network_is_given_is_the_noised_datum():
    class Sees(nn.Module):
        def forward(self, x_t, log_snr):
            seen.append((x_t, log_snr))
            return x_t

    seen = []
    x = torch.full((20_000, 1, 2, 2), 3.0)
    model = NetworkDenoiser(Sees(), "x_0")
    denoising_loss(model, x, generator(), log_snr_of_time=linear_log_snr(2, -2))
    ((x_t, log_snr),) = seen
    abar = torch.sigmoid(log_snr)[:, None, None, None]
    eps = (x_t - abar.sqrt() * x) / (1 - abar).sqrt()
    assert abs(eps.mean().item()) < 0.02
    assert abs(eps.var().item() - 1) < 0.02
    assert log_snr.dtype == torch.float32


@pytest.mark.parametrize("dropout", [0.0, 0.3, 1.0])
def test_labels_are_hidden_as_often_as_stated(dropout):
    model = denoiser("x_0")
    x, label = data(10_000), torch.arange(10_000) % 10
    denoising_loss(
        model, (x, label), generator(), log_snr_of_time=linear_log_snr(), label_dropout=dropout
    )
    (given,) = model.network.labels
    is_hidden = given == NO_LABEL
    assert abs(is_hidden.double().mean().item() - dropout) < 0.02
    assert torch.equal(given[~is_hidden], label[~is_hidden])
    assert label.min() == 0


def test_draws_depend_on_the_generator_alone():
    x = data(100)
    path = cosine_log_snr()
    first, again, other = (
        denoising_loss(denoiser("v"), x, generator(seed), log_snr_of_time=path).item()
        for seed in (0, 0, 1)
    )
    assert first == again != other


def test_the_gradient_reaches_the_weights():
    model = denoiser("v")
    for weighting in ("simple", "elbo"):
        model.zero_grad()
        denoising_loss(
            model, data(100), generator(), log_snr_of_time=cosine_log_snr(3, -3),
            weighting=weighting,
        ).backward()  # fmt: skip
        assert model.network.c.grad.isfinite()
        assert model.network.c.grad != 0


def test_one_number_lies_in_each_part():
    numbers = stratified_uniform(1000, generator(), dtype=torch.float64)
    assert torch.equal((numbers * 1000).long(), torch.arange(1000))
    within = numbers * 1000 - torch.arange(1000)
    assert abs(within.mean().item() - 0.5) < 0.05
    assert abs(within.std().item() - 12**-0.5) < 0.03


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "of log_snr_of_time and schedule neither is given; accepted is one"),
        ({"log_snr_of_time": cosine_log_snr(), "schedule": cosine(4)}, "both is given"),
        ({"schedule": cosine(4), "weighting": "snr"}, "weighting is 'snr'; accepted are"),
        ({"schedule": cosine(4), "label_dropout": 1.1}, r"label_dropout is 1\.1; accepted"),
    ],
)
def test_other_settings_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        denoising_loss(denoiser("eps"), data(4), generator(), **settings)

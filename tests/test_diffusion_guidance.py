"""Guidance: what it is at one noise level, and what its samples are not."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.diffusion import clouds
from evidence.diffusion import sampling as sa
from evidence.diffusion import schedule as sc
from evidence.diffusion.exact import MixtureData
from evidence.diffusion.flow_matching import FlowNetwork, flow_loss
from evidence.diffusion.guidance import Guided, log_sharpened
from evidence.diffusion.losses import denoising_loss
from evidence.diffusion.networks import VectorNetwork
from evidence.diffusion.prediction import PREDICTIONS, Denoiser, NetworkDenoiser, convert
from evidence.model_store import train_once

DATA = clouds.mixture()


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Counting:
    def __init__(self):
        self.labels = []

    def predict(self, x_t, log_snr, wanted="eps", *, label=None):
        self.labels.append(label)
        return DATA.predict(x_t, log_snr, wanted, label=label)


@settings(max_examples=30)
@given(
    weight=st.floats(-3, 10),
    level=st.floats(-8, 8),
    label=st.integers(0, 2),
    seed=st.integers(0, 99),
)
def test_the_guided_score_is_the_slope_of_the_sharpened_log_density(weight, level, label, seed):
    x = normal(6, 2, seed=seed).requires_grad_()
    (slope,) = torch.autograd.grad(log_sharpened(DATA, x, level, label, weight).sum(), x)
    got = Guided(DATA, label, weight).predict(x.detach(), level, "score")
    scale = 1 + slope.abs().max().item()
    torch.testing.assert_close(got, slope, rtol=0, atol=1e-9 * scale)
    # The weight as the paper counts it, one less, is another denoiser.
    other = Guided(DATA, label, weight + 1).predict(x.detach(), level, "score")
    assert (other - slope).abs().max() > 1e-9 * scale or level < -6


@pytest.mark.parametrize("wanted", PREDICTIONS)
def test_guided_predictions_are_conversions_of_one_another(wanted):
    x = normal(6, 2)
    guided = Guided(DATA, 1, 2.5)
    eps = guided.predict(x, 0.4)
    want = convert(eps, x, 0.4, given="eps", wanted=wanted)
    torch.testing.assert_close(guided.predict(x, 0.4, wanted), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("weight", "asked"), [(0, 1), (1, 1), (0.5, 2), (3, 2)])
def test_at_zero_and_one_the_denoiser_is_asked_once(weight, asked):
    denoiser, x = Counting(), normal(6, 2)
    got = Guided(denoiser, 2, weight).predict(x, 0.4)
    assert len(denoiser.labels) == asked
    without, with_label = DATA.predict(x, 0.4), DATA.predict(x, 0.4, label=torch.full((6,), 2))
    want = (1 - weight) * without + weight * with_label
    torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


def test_each_datum_may_have_its_own_label():
    x, label = normal(6, 2), torch.tensor([0, 1, 2, 2, 1, 0])
    got = Guided(DATA, label, 3.0).predict(x, 0.4)
    for k in range(3):
        want = Guided(DATA, k, 3.0).predict(x, 0.4)
        torch.testing.assert_close(got[label == k], want[label == k], rtol=0, atol=1e-14)


def test_a_guided_network_goes_through_a_sampler():
    network = VectorNetwork(2, 8, 1, num_labels=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(normal(*parameter.shape, seed=1, dtype=torch.float32) / 4)
    x, schedule = normal(6, 2, dtype=torch.float32), sc.linear(8, 0.01, 0.5)
    results = [
        sa.ddim(Guided(NetworkDenoiser(network), label, 2.0), x, schedule) for label in (0, 1)
    ]
    assert results[0].dtype == torch.float32
    assert (results[0] - results[1]).abs().max() > 1e-3


def test_it_is_a_denoiser():
    assert isinstance(Guided(DATA, 0, 1.0), Denoiser)


# What guidance samples. ----------------------------------------------------------------------

LINE = MixtureData(
    torch.tensor([0.5, 0.5]).double(),
    torch.tensor([[-1.0], [1.0]]).double(),
    torch.ones(2, 1, 1).double(),
)
GRID = torch.linspace(-9, 11, 1001, dtype=torch.float64)[:, None]


def sharpened_moments(weight):
    density = log_sharpened(LINE, GRID, 30.0, 1, weight).softmax(0)
    mean = (density * GRID[:, 0]).sum()
    return mean.item(), (density * (GRID[:, 0] - mean) ** 2).sum().item()


def guided_samples(weight, n=2000):
    # Quantiles instead of draws: the ODE is monotone in one dimension, so they stay quantiles.
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x = math.sqrt(2) * torch.erfinv(2 * u - 1)[:, None]
    return sa.probability_flow(Guided(LINE, 1, weight), x, (-14, 14))[:, 0]


def test_at_weight_one_the_samples_have_the_conditional_law():
    mean, variance = sharpened_moments(1.0)
    assert mean == pytest.approx(1, abs=1e-6)
    assert variance == pytest.approx(1, abs=1e-6)
    x = guided_samples(1.0)
    assert x.mean().item() == pytest.approx(1, abs=2e-3)
    assert x.var().item() == pytest.approx(1, abs=5e-3)


def test_above_one_they_have_not_the_sharpened_law():
    """Further out and narrower than the sharpened density, by much more than any error here."""
    mean, variance = sharpened_moments(3.0)
    x = guided_samples(3.0)
    assert mean == pytest.approx(1.4395, abs=1e-3)
    assert variance == pytest.approx(0.6442, abs=1e-3)
    assert x.mean() > mean + 0.5
    assert x.var() < variance - 0.15


def test_the_sharpened_density_of_more_noise_is_not_the_noised_one():
    """Why: with w = 1 the two agree, with w = 3 not."""
    level = 0.0
    a, sigma = math.sqrt(0.5), math.sqrt(0.5)
    for weight, agree in ((1.0, True), (3.0, False)):
        clean = log_sharpened(LINE, GRID, 30.0, 1, weight).softmax(0)
        kernel = torch.distributions.Normal(a * GRID[:, 0], sigma).log_prob(GRID).exp()
        noised = (kernel * clean).sum(1)
        noised = noised / noised.sum()
        direct = log_sharpened(LINE, GRID, level, 1, weight).softmax(0)
        distance = (noised - direct).abs().sum() / 2
        assert (distance < 1e-6) == agree
        assert agree or distance > 0.05


def test_the_sharpened_density_is_the_product_and_stays_finite():
    x = normal(50, 2)
    label, weight = 2, 4.0
    want = DATA.noised(1.0).log_prob(x) + weight * DATA.posterior_of_label(x, 1.0)[:, label].log()
    torch.testing.assert_close(log_sharpened(DATA, x, 1.0, label, weight), want, rtol=0, atol=1e-10)
    far = torch.tensor([[-300.0, 200.0]], dtype=torch.float64)
    assert log_sharpened(DATA, far, 10.0, label, weight).isfinite().all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Guided(DATA, 0, math.nan), ValueError, "weight is nan"),
        (lambda: Guided(DATA, 0, True), ValueError, "weight is True"),
        (lambda: Guided(DATA, 0.5, 1.0), TypeError, "label is 0.5"),
        (lambda: Guided(DATA, torch.tensor([1.0]), 1.0), ValueError, "dtype torch.float32"),
        (lambda: Guided(DATA, torch.tensor([[1]]), 1.0), ValueError, r"shape \(1, 1\)"),
        (
            lambda: Guided(DATA, torch.tensor([0, 1]), 1.0).predict(normal(3, 2), 0.0),
            ValueError,
            "x_t has 3 entries and label 2",
        ),
        (
            lambda: Guided(DATA, 0, 1.0).predict(normal(3, 2), 0.0, label=torch.tensor([1])),
            ValueError,
            "Guided has its label already",
        ),
        (lambda: Guided(DATA, 3, 2.0).predict(normal(3, 2), 0.0), ValueError, "label"),
        (lambda: log_sharpened(DATA, normal(3, 2), 0.0, 3, 1.0), ValueError, "label is 3"),
        (lambda: log_sharpened(DATA, normal(3, 2), 0.0, -1, 1.0), ValueError, "label is -1"),
    ],
)
def test_what_is_given_is_named_when_it_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# What a network was never trained for. -------------------------------------------------------


def two_classes(n=64):
    label = torch.arange(n) % 2
    return (2.0 * label - 1)[:, None] + 0.1 * normal(n, 1, dtype=torch.float32), label


def make_denoiser():
    return NetworkDenoiser(VectorNetwork(1, 8, 1, condition=8, num_labels=2), "x_0")


def make_flow():
    return FlowNetwork(VectorNetwork(1, 8, 1, condition=8, num_labels=2))


KINDS = {
    "denoiser": (make_denoiser, partial(denoising_loss, log_snr_of_time=sc.cosine_log_snr(5, -5))),
    "flow": (make_flow, flow_loss),
}


def trained_once(kind, dropout, folder, monkeypatch, *, labels=True, ema_decay=None):
    """Train, or load what was trained before."""
    monkeypatch.setenv("EVIDENCE_CACHE", str(folder))
    make, loss = KINDS[kind]
    model, (x, label) = make(), two_classes()
    train_once(
        model,
        (x, label) if labels else x,
        partial(loss, label_dropout=dropout),
        name="two-classes",
        epochs=2,
        batch_size=16,
        seed=0,
        ema_decay=ema_decay,
        progress=False,
    )
    return model.eval()


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_without_hidden_labels_there_is_nothing_to_guide_from(
    kind, ema_decay, tmp_path, monkeypatch
):
    x = normal(4, 1, dtype=torch.float32)
    for _ in ("trained", "loaded"):
        model = trained_once(kind, 0.0, tmp_path, monkeypatch, ema_decay=ema_decay)
        for weight in (3.0, 0.0, 0.5):
            with pytest.raises(ValueError, match=r"expected a label, got .* labels only"):
                Guided(model, 1, weight)
        with pytest.raises(ValueError, match=r"train with label_dropout above 0"):
            sa.ddim(model, x, sc.linear(3, 0.1, 0.5))
        assert sa.ddim(Guided(model, 1, 1.0), x, sc.linear(3, 0.1, 0.5)).isfinite().all()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_with_some_hidden_labels_every_weight_is_served(kind, tmp_path, monkeypatch):
    x = normal(4, 1, dtype=torch.float32)
    for _ in ("trained", "loaded"):
        model = trained_once(kind, 0.3, tmp_path, monkeypatch)
        for weight in (0.0, 1.0, 3.0):
            assert sa.ddim(Guided(model, 1, weight), x, sc.linear(3, 0.1, 0.5)).isfinite().all()


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_without_labels_there_is_nothing_to_guide_to(kind, labels, tmp_path, monkeypatch):
    x, label = normal(4, 1, dtype=torch.float32), torch.zeros(4, dtype=torch.int64)
    model = trained_once(kind, 1.0, tmp_path, monkeypatch, labels=labels)
    for weight in (3.0, 1.0):
        with pytest.raises(ValueError, match=r"label is given: expected none, got .* without"):
            Guided(model, 1, weight)
    with pytest.raises(ValueError, match="train with labels and label_dropout below 1"):
        model.predict(x, 0.0, label=label)
    assert Guided(model, 1, 0.0).predict(x, 0.0).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_only_training_is_remembered(kind):
    make, loss = KINDS[kind]
    model, batch, seeded = make(), two_classes(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        loss(model, batch, seeded, label_dropout=0.0)
    loss(model.eval(), batch, seeded, label_dropout=0.0)
    assert not model.trained_with_label
    loss(model.train(), batch, seeded, label_dropout=0.0)
    assert model.trained_with_label
    assert not model.trained_without_label

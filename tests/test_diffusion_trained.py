"""The diffusions that pages use: what they are trained on, and that they learn from it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from evidence import digit_models
from evidence.datasets import load_mnist
from evidence.diffusion import trained
from evidence.diffusion.clouds import mixture
from evidence.diffusion.networks import ImageNetwork
from evidence.diffusion.trained import (
    cloud_diffusion,
    cloud_points,
    code_diffusion,
    digit_codes,
    digit_diffusion,
)
from evidence.digit_models import digit_classifier, digit_vae


@pytest.fixture(scope="module")
def few_digits():
    digits = {split: load_mnist(split, "sample") for split in ("train", "test")}
    return {
        split: replace(
            digits[split], images=digits[split].images[:n], labels=digits[split].labels[:n]
        )
        for split, n in (("train", 200), ("test", 50))
    }


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path, few_digits):
    for module in (digit_models, trained):
        monkeypatch.setattr(module, "load_mnist", few_digits.__getitem__)
    monkeypatch.setattr(trained, "digit_vae", partial(digit_vae, epochs=1))
    monkeypatch.setattr(digit_models, "EPOCHS", 1)
    monkeypatch.setattr(trained, "ImageNetwork", partial(ImageNetwork, hidden=32, condition=16))
    monkeypatch.setattr(trained, "DIGIT_EPOCHS", 2)
    monkeypatch.setattr(trained, "CODE_STEPS", 8)
    monkeypatch.setattr(trained, "CLOUD_EPOCHS", 2)
    monkeypatch.setattr(trained, "CLOUD_POINTS", 2048)
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path))
    monkeypatch.setenv("EVIDENCE_PROGRESS", "0")


def test_a_cloud_is_learned_better_than_by_a_network_of_zeros(monkeypatch):
    monkeypatch.setattr(trained, "CLOUD_EPOCHS", 40)
    model, history = cloud_diffusion("mixture", prediction="v")
    assert history.epochs == 40
    assert not model.training
    cloud = mixture()
    x_t = cloud.noised(0.0).sample((500,))
    exact = cloud.predict(x_t, 0.0, "v")
    with torch.no_grad():
        error = (model.predict(x_t.float(), 0.0, "v") - exact).square().mean()
    assert error < 0.5 * exact.square().mean()


@pytest.mark.parametrize("name", ["mixture", "moons", "shape"])
def test_points_of_a_cloud_are_the_same_each_time(name):
    points = cloud_points(name)
    assert points.shape == (2048, 2)
    assert points.dtype == torch.float32
    assert torch.equal(points, cloud_points(name))
    assert abs(points.var().item() - 1) < 0.1


def test_an_unknown_cloud_is_refused():
    with pytest.raises(ValueError, match="name is 'rings'; accepted are 'mixture', 'moons', 'sha"):
        cloud_diffusion("rings")


def test_a_seed_gives_a_model_of_its_own():
    def weights(seed):
        model, _ = cloud_diffusion("moons", seed=seed)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.mark.parametrize("conditional", [True, False])
def test_digits_are_learned_with_and_without_labels(conditional):
    model, history = digit_diffusion(conditional=conditional)
    assert history.loss[-1] < history.loss[0]
    x_t = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    label = torch.tensor([0, 1, 2]) if conditional else None
    with torch.no_grad():
        assert model.predict(x_t, 0.0, "eps", label=label).shape == x_t.shape
        assert model.predict(x_t, 0.0, "eps").shape == x_t.shape


def test_digits_are_seen_from_minus_one_to_one(monkeypatch):
    seen = []
    monkeypatch.setattr(trained, "train_once", lambda model, data, loss, **more: seen.append(data))
    digit_diffusion()
    ((images, labels),) = seen
    assert images.shape == (200, 1, 28, 28)
    assert (images.min(), images.max()) == (-1, 1)
    assert labels.shape == (200,)


@pytest.mark.parametrize(("source", "n"), [("vae", 1000), ("autoencoder", 200)])
def test_codes_are_standardised_and_lead_back(source, n):
    codes = digit_codes(3, source=source)
    assert codes.codes.shape == (n, 3)
    assert torch.allclose(codes.codes.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(codes.codes.square().mean(0), torch.ones(3), atol=1e-3)
    z = codes.codes * codes.std + codes.mean
    assert torch.allclose(codes.standardised(z), codes.codes, atol=1e-4)
    decoder = codes.model.decode
    expected = decoder(z).sigmoid() if source == "vae" else decoder(z)
    assert torch.allclose(codes.decode(codes.codes), expected, atol=1e-5)


def test_codes_of_a_vae_are_draws_and_not_means():
    codes = digit_codes(3, num_samples=2)
    first, second = codes.codes.chunk(2)
    assert not torch.allclose(first, second, atol=1e-2)
    assert torch.equal(codes.codes, digit_codes(3, num_samples=2).codes)


@pytest.mark.parametrize("source", ["vae", "autoencoder"])
def test_a_diffusion_of_codes_is_trained(source):
    model, history = code_diffusion(3, source=source)
    assert history.epochs == (2 if source == "vae" else 10)
    assert model.prediction == "v"
    assert model.predict(torch.zeros(4, 3), 0.0, "score").shape == (4, 3)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"source": "pca"}, "source is 'pca'; accepted are 'vae' and 'autoencoder'"),
        ({"num_samples": 0}, "num_samples is 0; accepted are whole numbers from 1"),
    ],
)
def test_other_codes_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        digit_codes(3, **arguments)


def test_the_classifier_learns_and_its_head_sees_its_features(monkeypatch, few_digits):
    monkeypatch.setattr(digit_models, "CLASSIFIER_EPOCHS", 30)
    model, history = digit_classifier()
    assert history.evaluations["test accuracy"][-1] > 0.5
    images = few_digits["test"].images
    assert model.features(images).shape == (50, 128)
    assert torch.equal(model.head(model.features(images)), model(images))
    state = torch.get_rng_state()
    again, _ = digit_classifier()
    assert torch.equal(again.head.weight, model.head.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_default_dtype_makes_no_difference(monkeypatch, tmp_path):
    def weights():
        models = digit_diffusion()[0], cloud_diffusion("moons")[0], code_diffusion(3)[0]
        return torch.cat([p.detach().flatten() for m in models for p in m.parameters()])

    expected = weights()
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path / "other"))  # so that all are trained again
    torch.set_default_dtype(torch.float64)
    try:
        found = weights()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)
    assert found.dtype == torch.float32


def test_the_diffusion_of_digits_asks_how_many_epochs_its_digits_take(monkeypatch):
    asked = []
    monkeypatch.setattr(trained, "epochs_for", lambda n, e: asked.append((n, e)) or 1)
    assert digit_diffusion()[1].epochs == 1
    assert asked == [(200, 2)]

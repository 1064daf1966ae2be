"""The networks on digits: what they are trained on, and that they are kept apart."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from evidence import digit_models
from evidence.datasets import load_mnist
from evidence.digit_models import digit_autoencoder, digit_classifier, digit_vae, epochs_for
from evidence.objectives import negative_elbo, warm_up
from evidence.pixels import LogisticPixels


@pytest.fixture(scope="module")
def few_digits():
    """Read before the cache is moved, so that the sample is not prepared for every test."""
    kept = {"train": 400, "test": 100}
    digits = {split: load_mnist(split, "sample") for split in kept}
    return {
        split: replace(digits[split], images=digits[split].images[:n]) for split, n in kept.items()
    }


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path, few_digits):
    monkeypatch.setattr(digit_models, "load_mnist", few_digits.__getitem__)
    monkeypatch.setenv("EVIDENCE_PROGRESS", "0")
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path))
    return tmp_path / "models"


def test_the_vae_learns_from_binary_draws_and_is_kept(cache):
    batches = []

    def loss(model, batch, generator, beta=1.0):
        batches.append((bool(((batch == 0) | (batch == 1)).all()), batch, beta))
        return negative_elbo(model, batch, generator, beta=beta)

    model, history = digit_vae(3, loss=loss, loss_schedules={"beta": warm_up(2)}, epochs=2)
    assert all(is_binary for is_binary, _, _ in batches)
    assert len(batches) == 8
    assert (batches[0][2], batches[-1][2]) == (0.0, pytest.approx(7 / 8))
    assert not model.training
    assert model.latent_dim == 3
    assert history.evaluations["test"][1] < history.evaluations["test"][0] < 500
    parts = history.evaluations["test reconstruction"][1] + history.evaluations["test kl"][1]
    assert parts == pytest.approx(history.evaluations["test"][1], rel=1e-6)
    assert [path.suffix for path in cache.iterdir()].count(".safetensors") == 1


def test_the_same_vae_is_loaded_and_another_is_trained(cache):
    def kept():
        return len(list(cache.glob("*.safetensors")))

    first, history = digit_vae(2, epochs=1)
    again, same = digit_vae(2, epochs=1)
    assert kept() == 1
    assert same == history
    assert torch.equal(first.decoder[0].weight, again.decoder[0].weight)
    digit_vae(2, epochs=1, loss=partial(negative_elbo, free_bits=0.1))
    digit_vae(2, epochs=1, loss_schedules={"beta": warm_up(1)})
    digit_vae(2, epochs=1, seed=1)
    assert kept() == 4


def test_pixels_with_grey_levels_are_trained_on_grey_levels():
    levels = []

    def loss(model, batch, generator):
        levels.append(len((batch * 255).round().unique()))
        return negative_elbo(model, batch, generator)

    _, history = digit_vae(2, pixels=LogisticPixels(), loss=loss, epochs=1)
    assert min(levels) > 100
    # 256 levels for each of 784 pixels; a uniform guess costs log(256) nats a pixel.
    assert history.evaluations["test"][0] < 0.7 * 784 * 5.55


def test_the_default_type_of_numbers_makes_no_difference(cache):
    first, _ = digit_vae(2, epochs=1)
    torch.set_default_dtype(torch.float64)
    try:
        again, _ = digit_vae(2, epochs=1)
        grey, _ = digit_vae(2, pixels=LogisticPixels(0.1), epochs=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in (*again.parameters(), *grey.parameters())} == {torch.float32}
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])


@pytest.mark.parametrize(
    ("num_digits", "epochs", "expected"),
    [
        (4_000, 60, 60), (12_000, 60, 60), (60_000, 60, 12), (60_000, 30, 6), (60_000, 10, 2),
        (60_000, 3, 1), (60_000, 1, 1), (60_000, 0, 0), (24_000, 7, 4), (4_000, 0, 0),
    ],
)  # fmt: skip
def test_many_digits_take_fewer_epochs(num_digits, epochs, expected):
    assert epochs_for(num_digits, epochs) == expected


@pytest.mark.parametrize(
    ("recipe", "epochs"),
    [(lambda: digit_autoencoder(2), 30), (lambda: digit_vae(2), 60), (digit_classifier, 10)],
)
def test_every_recipe_asks_how_many_epochs_its_digits_take(monkeypatch, recipe, epochs, few_digits):
    asked = []
    monkeypatch.setattr(digit_models, "epochs_for", lambda n, e: asked.append((n, e)) or 1)
    rates = []
    monkeypatch.setattr(
        digit_models,
        "train_once",
        lambda model, *_, epochs, schedule, **__: rates.append(
            (epochs, schedule(torch.optim.SGD(model.parameters())).T_max)
        ),
    )
    recipe()
    assert asked == [(400, epochs)]
    assert rates == [(1, 1)]

"""What data must be is asked on every way into a model: none takes raw bytes for pixels."""

from __future__ import annotations

import math
import warnings
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from evidence import plotting
from evidence.datasets import (
    binarize,
    check_images,
    mean_pixel_entropy,
    read_idx,
    static_binarization,
)
from evidence.inference_gap import fit_gaussian, split_gap
from evidence.latent_use import latent_use, log_aggregate_posterior, rate_point, split_rate
from evidence.likelihood import annealed, importance_sampled
from evidence.models import VAE, Autoencoder, squared_error
from evidence.objectives import negative_elbo, negative_iwae, on_binarized
from evidence.pixels import (
    BernoulliPixels,
    ContinuousBernoulliPixels,
    GaussianPixels,
    LogisticPixels,
    Pixels,
)
from evidence.training import train

D = 12
KINDS = {
    "bernoulli": BernoulliPixels, "continuous": ContinuousBernoulliPixels,
    "logistic": LogisticPixels, "gaussian": partial(GaussianPixels, 0.3),
    "learned gaussian": partial(GaussianPixels, 0.3, learned=True),
}  # fmt: skip
IN_UNIT = ("bernoulli", "continuous", "logistic")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def digits(n=6):
    """Grey levels k / 255, as those of digits, with both ends among them."""
    levels = torch.randint(256, (n, D), generator=generator()).float()
    levels[0, 0], levels[0, 1] = 0, 255
    return levels / 255


def with_one(value):
    x = digits()
    x[2, 3] = value
    return x


BAD = {
    "raw bytes": (lambda: digits() * 255, IN_UNIT, r"/ 255"),
    "standardised": (lambda: (digits() - 0.13) / 0.31, IN_UNIT, r"\* std \+ mean"),
    "from -1 to 1": (lambda: 2 * digits() - 1, IN_UNIT, r"\+ 1\) / 2"),
    "just above": (lambda: with_one(1 + 1e-6), IN_UNIT, r"given values from \S+ to 1, accepted"),
    "just below": (lambda: with_one(-1e-6), IN_UNIT, r"given values from -1e-06 to \S+, accepted"),
    "between levels": (lambda: with_one(0.5), ("logistic",), "256 levels"),
    "NaN": (lambda: with_one(math.nan), KINDS, "nan"),
    "infinite": (lambda: with_one(math.inf), KINDS, "inf"),
    "minus infinite": (lambda: with_one(-math.inf), KINDS, "-inf"),
}


def vae(kind="bernoulli", data_dim=D):
    return VAE(data_dim, (8,), 2, pixels=KINDS[kind](), seed=0)


def prior(model, n):
    return model.p_z().expand((n, 2))


WAYS = {
    "check": lambda m, x: m.check(x),
    "encode": lambda m, x: m.encode(x),
    "q_z": lambda m, x: m.q_z(x),
    "elbo": lambda m, x: m.elbo(x, torch.zeros(len(x), 2)),
    "log_joint": lambda m, x: m.log_joint(x, torch.zeros(3, len(x), 2)),
    "negative_elbo": lambda m, x: negative_elbo(m, x, generator()),
    "negative_iwae": lambda m, x: negative_iwae(m, x, generator(), num_samples=2),
    "importance": lambda m, x: importance_sampled(m, x, num_samples=2, generator=generator()),
    "importance, with a proposal": lambda m, x: importance_sampled(
        m, x, num_samples=2, generator=generator(), q_z=prior(m, len(x))
    ),
    "annealed": lambda m, x: annealed(
        m, x, num_temperatures=2, num_chains=2, generator=generator()
    ),
    "annealed, with a start": lambda m, x: annealed(
        m, x, num_temperatures=2, num_chains=2, generator=generator(), start=prior(m, len(x))
    ),
    "fit_gaussian": lambda m, x: fit_gaussian(
        m, x, start=prior(m, len(x)), generator=generator(), max_iterations=2
    ),
    "split_gap": lambda m, x: split_gap(
        m, x, generator=generator(), num_samples=2, max_iterations=2
    ),
    "latent_use": latent_use,
    "rate_point": lambda m, x: rate_point(m, x, generator=generator()),
    "split_rate": lambda m, x: split_rate(m, x, generator=generator()),
    "log_aggregate_posterior": lambda m, x: log_aggregate_posterior(m, torch.zeros(3, 2), x),
    "train": lambda m, x: train(
        m, x, negative_elbo, epochs=1, batch_size=3, progress=False
    ),
    "train, importance-weighted": lambda m, x: train(
        m, x, partial(negative_iwae, num_samples=2), epochs=1, batch_size=3, progress=False
    ),
}  # fmt: skip
# A density over the line gives what is infinitely far the density 0, and is right to.
BY_DENSITY = {"log_prob": lambda m, x: m.p_x_given_z(torch.zeros(len(x), 2)).log_prob(x)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [*WAYS, *BY_DENSITY])
def test_every_way_into_a_model_refuses_what_it_is_no_model_of(way, kind):
    run = (WAYS | BY_DENSITY)[way]
    run(vae(kind), digits())
    is_density_on_the_line = way in BY_DENSITY and "gaussian" in kind
    for bad, (make, kinds, words) in BAD.items():
        if kind not in kinds or (is_density_on_the_line and bad != "NaN"):
            continue
        if is_density_on_the_line:
            words = "within the support"  # torch's own
        with pytest.raises(ValueError, match=words):
            run(vae(kind), make())


@pytest.mark.parametrize("loss", [negative_elbo, partial(negative_iwae, num_samples=2)])
def test_losses_on_binary_draws_refuse_it_too(loss):
    for make, kinds, words in BAD.values():
        if "bernoulli" in kinds:
            with pytest.raises(ValueError, match=words):
                on_binarized(loss)(vae(), make(), generator())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_bytes_that_are_no_floats_are_refused_with_the_way_to_floats(dtype):
    x = (digits() * 255).to(dtype)
    for model in (vae(), vae("continuous"), vae("logistic")):
        for run in (WAYS["elbo"], WAYS["negative_elbo"], BY_DENSITY["log_prob"]):
            with pytest.raises(ValueError, match=r"use \w+\.to\(torch\.float32\)"):
                run(model, x)


def test_a_model_that_encodes_in_its_own_way_is_guarded_as_well():
    class Own(VAE):
        def encode(self, x):
            return self.encoder(x).chunk(2, dim=-1)

    model = Own(D, (8,), 2, seed=0)
    for make, kinds, words in BAD.values():
        if "bernoulli" in kinds:
            for loss in (negative_elbo, partial(negative_iwae, num_samples=2)):
                with pytest.raises(ValueError, match=words):
                    loss(model, make(), generator())


def test_pixels_of_ones_own_refuse_what_is_not_finite():
    class Own(Pixels):
        def forward(self, output):
            return torch.distributions.Laplace(output, 1.0)

        def output_with_mean(self, mean):
            return mean.clone()

    model = VAE(D, (8,), 2, pixels=Own(), seed=0)
    model.elbo(50 * digits(), torch.zeros(6, 2))
    with pytest.raises(ValueError, match=r"x: expected finite numbers, got nan at \[2, 3\]"):
        model.elbo(with_one(math.nan), torch.zeros(6, 2))


def test_pictures_that_are_not_flat_are_refused_with_the_way_to_rows():
    model = vae()
    with pytest.raises(ValueError, match=r"expected the shape \(\.\.\., 12\).*use x\.flatten\(1\)"):
        model.encode(digits().view(6, 1, 3, 4))
    with pytest.raises(ValueError, match=r"got \(6, 11\)$"):
        model.elbo(digits()[:, 1:], torch.zeros(6, 2))


def test_an_autoencoder_within_0_and_1_learns_nothing_else_and_encodes_anything():
    bounded = Autoencoder(D, 2, (8,), output="sigmoid")
    free = Autoencoder(D, 2, (8,))
    squared_error(bounded, digits())
    bounded.encode(3 * digits())
    for make, kinds, words in BAD.values():
        if "bernoulli" in kinds:
            squared_error(free, make())
            with pytest.raises(ValueError, match=words):
                squared_error(bounded, make())


def test_the_sampling_error_of_one_datum_is_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = importance_sampled(vae(), digits(1), num_samples=3, generator=generator())
        two = importance_sampled(vae(), digits(2), num_samples=3, generator=generator())
        assert math.isnan(one.mean_sampling_error)
    assert math.isfinite(one.mean_standard_error)
    expected = (two.log_p_x[0] - two.log_p_x[1]).abs().item() / 2
    assert two.mean_sampling_error == pytest.approx(expected)


def test_the_bound_on_the_log_variance_is_what_encode_says():
    for dtype, squares in ((torch.float32, True), (torch.bfloat16, True), (torch.float16, False)):
        model = VAE(D, (8,), 2, seed=0).to(dtype)
        with torch.no_grad():
            model.encoder[-1].bias.fill_(1e4)
        _, log_var = model.encode(digits().to(dtype))
        assert ((log_var / 2).exp().isfinite()).all()
        assert log_var.exp().isfinite().all() == squares


# --- pictures of any shape ----------------------------------------------------------------------


@pytest.fixture
def flags(tmp_path):
    """Flags of three stripes, 5 high and 9 wide, in colour: an idx file of bytes."""
    n, height, width = 60, 5, 9
    colours = torch.randint(256, (n, 3, 3), generator=generator(1), dtype=torch.uint8)
    pictures = colours.repeat_interleave(3, dim=2)[:, :, None].expand(n, 3, height, width)
    header = bytes([0, 0, 8, 4]) + b"".join(size.to_bytes(4, "big") for size in pictures.shape)
    path = tmp_path / "flags-idx4-ubyte"
    path.write_bytes(header + pictures.contiguous().numpy().tobytes())
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_oblong_pictures_in_colour_are_trained_on_evaluated_drawn_and_shown(flags, kind):
    pictures = read_idx(flags, dtype=torch.uint8, shape=(None, 3, 5, 9))
    x = pictures.flatten(1) / 255
    check_images(x, num_pixels=135)
    binary = binarize(x, generator())
    assert static_binarization(x).shape == binary.shape == (60, 135)
    assert 0 < mean_pixel_entropy(x) < 135 * math.log(2)

    model = VAE(135, (32,), 3, pixels=KINDS[kind](), data_mean=x.mean(0), activation=nn.Tanh)
    loss = on_binarized(negative_elbo) if kind == "bernoulli" else negative_elbo
    history = train(model, x, loss, epochs=20, batch_size=20, progress=False)
    assert history.loss[-1] < history.loss[0]
    seen = binary if kind == "bernoulli" else x
    with torch.no_grad():
        evidence = importance_sampled(model, seen, num_samples=20, generator=generator())
        assert evidence.log_p_x.shape == (60,)
        assert (evidence.log_p_x >= evidence.elbo).all()
        assert (
            split_gap(model, seen[:3], generator=generator(), num_samples=20, max_iterations=5)
            .total.isfinite()
            .all()
        )
        assert latent_use(model, seen).rate.shape == (3,)
        drawn = model.p_x_given_z(torch.randn(4, 3, generator=generator())).mean
    assert drawn.shape == (4, 135)

    shown = drawn.clamp(0, 1)
    ax = plotting.image_grid(shown, columns=2, shape=(3, 5, 9))
    assert len(ax.images) == 4
    expected = shown[3].view(3, 5, 9).permute(1, 2, 0).numpy()
    assert np.allclose(ax.images[3].get_array(), expected, rtol=0, atol=1e-6)
    ax.figure.canvas.draw()
    plt.close(ax.figure)

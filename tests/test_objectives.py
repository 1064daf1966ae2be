"""What a VAE is trained on: the losses' values and gradients, and what their options do."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from evidence.datasets import ImagesError, binarize
from evidence.models import VAE
from evidence.objectives import (
    CrossEntropy,
    negative_elbo,
    negative_iwae,
    on_binarized,
    warm_up,
)
from evidence.pixels import (
    BernoulliPixels,
    ContinuousBernoulliPixels,
    GaussianPixels,
    LogisticPixels,
)
from evidence.toys import LinearToy
from evidence.training import adam, train


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("EVIDENCE_PROGRESS", "0")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def grey(*shape, seed=0):
    return torch.randint(256, shape, generator=seeded(seed)).double() / 255


def random_vae(seed=0, size=1.0, pixels=None):
    model = VAE(6, (5,), 3, pixels=pixels, seed=seed).double()
    with torch.no_grad():
        for parameter in (*model.encoder.parameters(), *model.decoder.parameters()):
            parameter *= size
    return model


def draw(shape, seed):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def gradients_agree(loss, other, model):
    first = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    second = torch.autograd.grad(other, list(model.parameters()), retain_graph=True)
    return all(
        torch.allclose(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()) + 1e-12)
        for a, b in zip(first, second, strict=True)
    )


# --- the negative ELBO ----------------------------------------------------------------------------

PIXELS = [BernoulliPixels, ContinuousBernoulliPixels, partial(GaussianPixels, 0.3),
          partial(GaussianPixels, 0.3, learned=True), LogisticPixels]  # fmt: skip


@given(
    seed=st.integers(0, 1000), batch=st.integers(1, 6), size=st.floats(0.1, 8.0),
    pixels=st.sampled_from(PIXELS), binary=st.booleans(),
)  # fmt: skip
def test_both_forms_of_the_elbo_agree_in_value_and_gradient(seed, batch, size, pixels, binary):
    model = random_vae(seed, size, pixels())
    x = grey(batch, 6, seed=seed)
    x = x.round() if binary else x

    loss, terms = negative_elbo(model, x, seeded(seed))
    readable = -model.elbo(x, draw((batch, 3), seed)).mean()
    assert loss.item() == pytest.approx(readable.item(), rel=1e-12, abs=1e-9)
    assert (terms["reconstruction"] + terms["kl"]).item() == pytest.approx(
        loss.item(), rel=1e-12, abs=1e-9
    )
    assert terms["kl"].item() >= -1e-12
    assert gradients_agree(loss, readable, model)


def test_both_forms_agree_in_float32_at_the_size_of_digits():
    model = VAE(seed=1)
    x = torch.rand(128, 784, generator=seeded())
    loss, _ = negative_elbo(model, x, seeded(5))
    eps = torch.randn(128, 20, generator=seeded(5))
    assert loss.item() == pytest.approx(-model.elbo(x, eps).mean().item(), rel=1e-6)


def test_the_terms_are_what_their_names_say():
    model = random_vae()
    x = grey(4, 6).round()
    _, terms = negative_elbo(model, x, seeded(2))
    eps = draw((4, 3), 2)
    q_z = model.q_z(x)
    probability = torch.sigmoid(model.decode(q_z.mean + q_z.stddev * eps))
    cross_entropy = -(x * probability.log() + (1 - x) * (1 - probability).log())
    assert terms["reconstruction"].item() == pytest.approx(cross_entropy.sum(1).mean().item())
    # The KL as a plain mean of log-density ratios over many samples, within 4 standard errors.
    z = q_z.mean + q_z.stddev * draw((200_000, 4, 3), 3)
    ratios = (q_z.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(2).mean(1)
    standard_error = (ratios.std() / len(ratios) ** 0.5).item()
    assert abs(ratios.mean().item() - terms["kl"].item()) < 4 * standard_error < 0.05


def kl_of_latents(model, x):
    return kl_divergence(model.q_z(x), model.p_z()).mean(0)


@given(seed=st.integers(0, 1000), beta=st.floats(0, 10), free=st.floats(0, 0.5))
def test_beta_and_free_bits_are_as_defined(seed, beta, free):
    model, x = random_vae(seed), grey(5, 6, seed=seed).round()
    _, plain = negative_elbo(model, x, seeded(seed))
    loss, terms = negative_elbo(model, x, seeded(seed), beta=beta, free_bits=free)
    paid = sum(max(free, kl) for kl in kl_of_latents(model, x).tolist())
    assert loss.item() == pytest.approx(plain["reconstruction"].item() + beta * paid, rel=1e-10)
    # What is recorded is the ELBO's terms, whatever is paid.
    assert terms["kl"].item() == pytest.approx(plain["kl"].item(), rel=1e-12)


def test_a_latent_below_its_free_bits_feels_no_pull_and_one_above_feels_all_of_it():
    model, x = random_vae(size=3.0), grey(5, 6).round()
    kl = kl_of_latents(model, x)
    order = kl.argsort()
    free = kl[order[:2]].mean().item()

    def pull(**options):
        loss, terms = negative_elbo(model, x, seeded(1), **options)
        (slope,) = torch.autograd.grad(
            loss - terms["reconstruction"], model.encoder[-1].bias, retain_graph=True
        )
        return slope

    assert pull(free_bits=free)[order[0]] == 0
    assert pull()[order[0]] != 0
    assert torch.allclose(pull(free_bits=free)[order[1:]], pull()[order[1:]])


def test_in_bfloat16_the_sums_are_float32():
    model = VAE(seed=1)
    x = torch.rand(64, 784, generator=seeded())
    exact, _ = negative_elbo(model, x, seeded(5))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encoder(x).dtype == torch.bfloat16
        cast, terms = negative_elbo(model, x, seeded(5))
        heads = (*model.encode(x), model.decode(torch.zeros(2, 20)))
    assert {head.dtype for head in heads} == {torch.float32}
    assert {value.dtype for value in (cast, *terms.values())} == {torch.float32}
    assert cast.item() == pytest.approx(exact.item(), rel=1e-3)


@pytest.mark.parametrize("name", ["beta", "free_bits"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_other_weights_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; accepted are numbers from 0"):
        negative_elbo(random_vae(), grey(2, 6), seeded(), **{name: value})


# --- the importance-weighted bound ----------------------------------------------------------------


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("num_samples", [1, 7])
def test_the_iwae_loss_is_the_log_mean_of_weights(pixels, num_samples):
    model, x = random_vae(4, 2.0, pixels()), grey(5, 6).round()
    loss, terms = negative_iwae(model, x, seeded(2), num_samples=num_samples)
    q_z = model.q_z(x)
    z = q_z.mean + q_z.stddev * draw((num_samples, 5, 3), 2)
    log_w = model.log_joint(x, z) - q_z.log_prob(z).sum(-1)
    expected = -log_w.exp().mean(0).log().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-11)
    assert terms["negative_elbo"].item() == pytest.approx(-log_w.mean().item(), rel=1e-11)
    assert gradients_agree(loss, expected, model)
    assert terms["negative_elbo"] >= loss - 1e-12


def test_more_samples_give_a_tighter_bound_of_the_right_size():
    """With affine networks and Gaussian pixels, log p(x) is known: the bounds rise towards it."""
    model = VAE(6, (), 2, pixels=GaussianPixels(0.5)).double()
    with torch.no_grad():
        model.encoder[0].weight.mul_(0.1)
    W, b = (parameter.detach() for parameter in model.decoder.parameters())  # noqa: N806
    x, _ = LinearToy(W, b, 0.5).sample(300, generator=seeded())
    exact = LinearToy(W, b, 0.5).log_p_x(x).mean().item()
    with torch.no_grad():
        gaps = [
            exact + negative_iwae(model, x, seeded(1), num_samples=k)[0].item()
            for k in (1, 5, 50, 1000)
        ]
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] > -0.01
    assert gaps[3] < 0.05


@pytest.mark.parametrize("num_samples", [0, -1, 1.5, True])
def test_other_numbers_of_samples_are_refused(num_samples):
    with pytest.raises(ValueError, match=r"num_samples is .*; accepted are whole numbers from 1"):
        negative_iwae(random_vae(), grey(2, 6), seeded(), num_samples=num_samples)


# --- what they are called with --------------------------------------------------------------------


def test_binarized_losses_see_a_new_draw_each_time_and_keep_their_settings():
    seen = []

    def loss(model, batch, generator, *, beta):
        seen.append((batch, beta))
        return batch.sum()

    x, generator = grey(50, 6), seeded(3)
    for _ in range(2):
        on_binarized(loss)(None, x, generator, beta=0.3)
    assert torch.equal(seen[0][0], binarize(x, seeded(3)))
    assert not torch.equal(seen[0][0], seen[1][0])
    assert seen[0][1] == 0.3
    with pytest.raises(ImagesError):
        on_binarized(loss)(None, 255 * x, generator, beta=1.0)


@given(epochs=st.floats(0.1, 100), start=st.floats(0, 2), end=st.floats(0, 2), t=st.floats(0, 300))
def test_the_warm_up_is_a_line_and_then_a_constant(epochs, start, end, t):
    value = warm_up(epochs, start, end)(t)
    if t >= epochs:
        assert value == pytest.approx(end, abs=1e-12)
    else:
        share = t / epochs
        assert value == pytest.approx((1 - share) * start + share * end, abs=1e-12)
    assert warm_up(4)(0) == 0
    assert warm_up(4)(1) == 0.25


@pytest.mark.parametrize("epochs", [0, -1, math.inf, math.nan])
def test_other_warm_ups_are_refused(epochs):
    with pytest.raises(ValueError, match=r"epochs is .*; accepted are positive numbers"):
        warm_up(epochs)


# --- in training ----------------------------------------------------------------------------------


def stripes(n=300):
    """Rows of 12 pixels that are on or off in threes, with noise."""
    bits = (torch.rand(n, 4, generator=seeded(1)) < 0.5).float().repeat_interleave(3, 1)
    return (bits + (torch.rand(n, 12, generator=seeded(2)) < 0.03).float()) % 2


def trained(**options):
    x = stripes()
    model = VAE(12, (16,), 6)
    options = {"loss": negative_elbo, "epochs": 25} | options
    loss = options.pop("loss")
    history = train(
        model, x, loss, batch_size=50, optimizer=partial(adam, lr=1e-2), seed=1, **options
    )
    return model, x, history


def test_the_vae_learns():
    _, _, history = trained()
    assert history.loss[-1] < 0.95 * history.loss[0]
    for loss, a, b in zip(history.loss, *history.terms.values(), strict=True):
        assert loss == pytest.approx(a + b, rel=1e-6)


def test_a_large_beta_empties_the_latents_and_free_bits_fill_them():
    rates = {
        name: kl_of_latents(*trained(loss=partial(negative_elbo, **options))[:2])
        for name, options in {
            "beta 0.2": {"beta": 0.2},
            "beta 1": {},
            "beta 10": {"beta": 10.0},
            "beta 10 with free bits": {"beta": 10.0, "free_bits": 0.2},
        }.items()
    }
    total = {name: rate.sum().item() for name, rate in rates.items()}
    assert total["beta 0.2"] > 1.5 * total["beta 1"] > 3 * total["beta 10"]
    assert total["beta 10"] < 0.02
    assert (rates["beta 10 with free bits"] > 0.12).all()


def test_warm_up_begins_as_a_small_beta_and_ends_as_beta_one():
    _, _, plain = trained(epochs=8)
    _, _, warm = trained(epochs=8, loss_schedules={"beta": warm_up(epochs=6)})
    assert warm.terms["kl"][5] > 3 * plain.terms["kl"][5]
    # In the first epoch beta is between 0 and 1/6, from the seventh on it is 1.
    paid = [
        (loss - reconstruction) / kl
        for loss, reconstruction, kl in zip(warm.loss, *warm.terms.values(), strict=True)
    ]
    assert 0 < paid[0] < 1 / 6 < paid[1] < 2 / 6 < paid[2]
    assert paid[6:] == pytest.approx([1, 1], rel=1e-4)


def test_training_on_the_iwae_bound_beats_training_on_the_elbo_by_that_bound():
    def bound(model, x):
        with torch.no_grad():
            return negative_iwae(model, x, seeded(9), num_samples=200)[0].item()

    by_elbo = bound(*trained()[:2])
    by_iwae = bound(*trained(loss=partial(negative_iwae, num_samples=20))[:2])
    assert by_iwae < by_elbo - 0.02


@pytest.mark.parametrize("pixels", PIXELS)
def test_every_kind_of_pixels_can_be_trained(pixels):
    x = (grey(1, 12, seed=3).float() * stripes(200) * 255).round() / 255
    model = VAE(12, (16,), 2, pixels=pixels())
    history = train(model, x, negative_elbo, epochs=10, batch_size=50,
                    optimizer=partial(adam, lr=5e-3))  # fmt: skip
    assert history.loss[-1] < history.loss[0] - 0.3
    for name, value in pixels().state_dict().items():
        assert not torch.equal(model.pixels.state_dict()[name], value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_cross_entropy_is_that_of_torch_far_out_too(dtype):
    logits = torch.linspace(-100, 100, 4002, dtype=dtype).reshape(3, -1)
    x = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    logits.requires_grad_()
    slopes, values = [], []
    for cross_entropy in (
        CrossEntropy.apply,
        partial(torch.nn.functional.binary_cross_entropy_with_logits, reduction="sum"),
    ):
        value = 3 * cross_entropy(logits, x)
        slopes += torch.autograd.grad(value, logits)
        values.append(value)
    torch.testing.assert_close(*values, rtol=4 * torch.finfo(dtype).eps, atol=0)
    torch.testing.assert_close(*slopes, rtol=0, atol=4 * torch.finfo(dtype).eps)


def test_pixels_of_a_kind_derived_from_bernoulli_are_taken_at_their_word():
    class Sharper(BernoulliPixels):
        def forward(self, output):
            return super().forward(2 * output)

    model = VAE(6, (5,), 2, pixels=Sharper())
    x = (torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    eps = torch.randn(8, 2, generator=torch.Generator().manual_seed(1))
    loss, _ = negative_elbo(model, x, torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss, -model.elbo(x, eps).mean())

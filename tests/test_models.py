"""The networks of the book and their losses."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal

from evidence.models import VAE, Autoencoder, mlp, negative_elbo, squared_error
from evidence.training import train


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setenv("EVIDENCE_PROGRESS", "0")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", [Autoencoder, VAE])
def test_initial_weights_depend_on_the_seed_alone(kind):
    def make(seed):
        return kind(data_dim=7, hidden=(5,), latent_dim=2, seed=seed)

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = make(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = make(0), make(1)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_initial_weights_are_spread_as_those_of_torch():
    (layer,) = mlp((400, 300), seeded())
    torch.manual_seed(0)
    reference = nn.Linear(400, 300)
    for ours, torchs in zip(
        layer.state_dict().values(), reference.state_dict().values(), strict=True
    ):
        bound = 400**-0.5
        assert ours.abs().max() <= bound
        assert ours.abs().max().item() == pytest.approx(torchs.abs().max().item(), rel=0.02)
        assert ours.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
        assert abs(ours.mean()) < 4 * bound / (3 * ours.numel()) ** 0.5


def widths(network):
    return [(m.in_features, m.out_features) for m in network if isinstance(m, nn.Linear)]


def test_layers_are_as_asked_for():
    model = Autoencoder(784, 2, (400, 100), activation=nn.Tanh, output="sigmoid")
    assert widths(model.encoder) == [(784, 400), (400, 100), (100, 2)]
    assert widths(model.decoder) == [(2, 100), (100, 400), (400, 784)]
    names = [type(layer).__name__ for layer in model.decoder]
    assert names == ["Linear", "Tanh", "Linear", "Tanh", "Linear", "Sigmoid"]
    assert isinstance(model.encoder[-1], nn.Linear)
    vae = VAE()
    assert widths(vae.encoder) == [(784, 400), (400, 40)]
    assert widths(vae.decoder) == [(20, 400), (400, 784)]


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(1, 5), data_dim=st.integers(1, 6), latent_dim=st.integers(1, 4))
def test_shapes_and_composition(batch, data_dim, latent_dim):
    model = Autoencoder(data_dim, latent_dim, (3,), output="sigmoid")
    x = torch.rand(batch, data_dim, generator=seeded())
    z = model.encode(x)
    assert z.shape == (batch, latent_dim)
    assert model.decode(z).shape == x.shape
    assert torch.equal(model(x), model.decode(z))
    assert ((model(x) > 0) & (model(x) < 1)).all()


def test_without_hidden_layers_it_is_affine_and_spans_the_pca_subspace():
    generator = seeded(3)
    spread = torch.diag(torch.tensor([1.0, 0.9, 0.2, 0.1])).double()
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    x = torch.randn(400, 4, generator=generator, dtype=torch.float64) @ spread @ turn + 0.3
    model = Autoencoder(4, 2, ()).double()
    middle = (x[:1] + x[1:2]) / 2
    assert torch.allclose(model(middle), (model(x[:1]) + model(x[1:2])) / 2)
    history = train(
        model, x, squared_error, epochs=300, batch_size=400,
        optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    )  # fmt: skip
    # What is left is the variance outside the two leading principal directions.
    least = torch.linalg.svdvals(x - x.mean(0)).square()[2:].sum().item() / len(x)
    assert squared_error(model, x).item() == pytest.approx(least, rel=1e-3)
    assert squared_error(model, x).item() >= least
    assert history.loss[0] > 5 * least


def test_the_squared_error_sums_over_pixels_and_averages_over_data():
    class One(nn.Module):
        def forward(self, x):
            return torch.ones_like(x)

    batch = torch.tensor([[[1.0, 2.0]], [[4.0, 0.0]]])
    assert squared_error(One(), batch).item() == (0 + 1 + 9 + 1) / 2


@pytest.mark.parametrize("output", ["", "softmax", None])
def test_other_outputs_are_refused(output):
    with pytest.raises(ValueError, match="accepted are 'linear' and 'sigmoid'"):
        Autoencoder(4, 2, output=output)


@pytest.mark.parametrize("sizes", [(3,), (), (3, 0), (3, -1, 2), (3, 2.0), (True, 2)])
def test_other_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="accepted are two or more whole numbers from 1"):
        mlp(sizes, seeded())


# --- the VAE --------------------------------------------------------------------------------------


def random_vae(seed, size):
    model = VAE(6, (5,), 3, seed=seed).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= size
    return model


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000), batch=st.integers(1, 6), size=st.floats(0.1, 8.0), grey=st.booleans()
)
def test_both_forms_of_the_elbo_agree_in_value_and_gradient(seed, batch, size, grey):
    model = random_vae(seed, size)
    x = torch.rand(batch, 6, generator=seeded(seed), dtype=torch.float64)
    x = x if grey else x.round()

    loss, terms = negative_elbo(model, x, seeded(seed))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    eps = torch.randn(batch, 3, generator=seeded(seed), dtype=torch.float64)
    readable = -model.elbo(x, eps).mean()
    expected = torch.autograd.grad(readable, list(model.parameters()))

    assert loss.item() == pytest.approx(readable.item(), rel=1e-12)
    assert (terms["reconstruction"] + terms["kl"]).item() == pytest.approx(loss.item(), rel=1e-12)
    assert terms["kl"].item() >= -1e-12
    for a, b in zip(gradients, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()) + 1e-12)


def test_both_forms_agree_in_float32_at_the_size_of_digits():
    model = VAE(seed=1)
    x = torch.rand(128, 784, generator=seeded())
    loss, _ = negative_elbo(model, x, seeded(5))
    eps = torch.randn(128, 20, generator=seeded(5))
    assert loss.item() == pytest.approx(-model.elbo(x, eps).mean().item(), rel=1e-6)


def test_the_terms_are_what_their_names_say():
    model = random_vae(0, 1.0)
    x = torch.rand(4, 6, generator=seeded(), dtype=torch.float64).round()
    _, terms = negative_elbo(model, x, seeded(2))
    eps = torch.randn(4, 3, generator=seeded(2), dtype=torch.float64)
    q_z = model.q_z(x)
    probability = torch.sigmoid(model.decode(q_z.mean + q_z.stddev * eps))
    cross_entropy = -(x * probability.log() + (1 - x) * (1 - probability).log())
    assert terms["reconstruction"].item() == pytest.approx(cross_entropy.sum(1).mean().item())
    # The KL as a plain mean of log-density ratios over many samples, within 4 standard errors.
    z = q_z.mean + q_z.stddev * torch.randn(200_000, 4, 3, generator=seeded(3), dtype=torch.float64)
    ratios = (q_z.log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(2).mean(1)
    standard_error = (ratios.std() / len(ratios) ** 0.5).item()
    assert abs(ratios.mean().item() - terms["kl"].item()) < 4 * standard_error < 0.05


def test_the_decoder_takes_any_leading_shape():
    model = random_vae(0, 1.0)
    z = torch.randn(2, 5, 3, generator=seeded(), dtype=torch.float64)
    assert model.p_x_given_z(z).batch_shape == (2, 5, 6)
    assert torch.allclose(model.decode(z)[1, 2], model.decode(z[1, 2]))


def test_the_vae_learns():
    x = (torch.rand(200, 6, generator=seeded()) < 0.1).float()
    model = VAE(6, (5,), 3)
    history = train(model, x, negative_elbo, epochs=30, batch_size=20)
    assert history.loss[-1] < 0.8 * history.loss[0]
    for loss, a, b in zip(history.loss, *history.terms.values(), strict=True):
        assert loss == pytest.approx(a + b, rel=1e-6)


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

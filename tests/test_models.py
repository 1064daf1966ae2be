"""The networks of the book and their losses."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from evidence.models import VAE, Autoencoder, mlp, squared_error
from evidence.pixels import (
    BernoulliPixels,
    ContinuousBernoulliPixels,
    GaussianPixels,
    LogisticPixels,
)
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


def test_default_weights_are_drawn_layer_by_layer_and_stay_what_they_were():
    first, _, second = mlp((7, 5, 2), seeded(4))
    generator = seeded(4)
    for layer in (first, second):
        bound = layer.in_features**-0.5
        for parameter in (layer.weight, layer.bias):
            expected = torch.empty_like(parameter).uniform_(-bound, bound, generator=generator)
            assert torch.equal(parameter, expected)


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


@pytest.mark.parametrize("make", [mlp, VAE])
def test_other_initial_weights_are_refused(make):
    arguments = {"sizes": (3, 2), "generator": seeded()} if make is mlp else {}
    with pytest.raises(ValueError, match="weights is 'he'; accepted are 'uniform' and 'xavier'"):
        make(**arguments, weights="he")


def test_xavier_weights_have_the_variance_of_glorot_and_no_bias():
    first, _, second = mlp((300, 500, 20), seeded(), nn.Tanh, weights="xavier")
    for layer in (first, second):
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
        assert not layer.bias.any()
    again = mlp((300, 500, 20), seeded(), nn.Tanh, weights="xavier")
    assert torch.equal(again[0].weight, first.weight)


# --- the VAE --------------------------------------------------------------------------------------

PIXELS = {
    "bernoulli": BernoulliPixels,
    "continuous": ContinuousBernoulliPixels,
    "gaussian": lambda: GaussianPixels(0.3),
    "learned gaussian": lambda: GaussianPixels(0.3, learned=True),
    "logistic": LogisticPixels,
}


def random_vae(seed=0, size=1.0, pixels=None):
    model = VAE(6, (5,), 3, pixels=pixels, seed=seed).double()
    with torch.no_grad():
        for parameter in (*model.encoder.parameters(), *model.decoder.parameters()):
            parameter *= size
    return model


def grey(*shape, seed=0):
    return torch.randint(256, shape, generator=seeded(seed)).double() / 255


def test_the_architecture_of_burda_is_a_configuration():
    mean = torch.rand(784, generator=seeded())
    model = VAE(
        hidden=(200, 200), latent_dim=50, activation=nn.Tanh, weights="xavier", data_mean=mean
    )
    assert widths(model.encoder) == [(784, 200), (200, 200), (200, 100)]
    assert widths(model.decoder) == [(50, 200), (200, 200), (200, 784)]
    for network in (model.encoder, model.decoder):
        assert [type(layer) for layer in network[1::2]] == [nn.Tanh, nn.Tanh]
    pixels = torch.sigmoid(model.decoder[-1].bias)
    torch.testing.assert_close(pixels, 0.998 * mean + 0.001)
    assert not model.decoder[0].bias.any()


def test_the_choice_of_pixels_and_bias_leaves_the_other_weights_as_they_were():
    plain = VAE(6, (5,), 3).state_dict()
    other = VAE(
        6, (5,), 3, pixels=GaussianPixels(learned=True), data_mean=torch.zeros(6)
    ).state_dict()
    assert set(other) - set(plain) == {"pixels.scale.raw"}
    changed = {name for name in plain if not torch.equal(plain[name], other[name])}
    assert changed == {"decoder.2.bias"}


def test_a_data_mean_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"data_mean has the shape \(1, 6\); accepted is \(6,\)"):
        VAE(6, (5,), 3, data_mean=torch.zeros(1, 6))


def test_the_log_variance_is_bounded_and_nearly_the_output_where_it_matters():
    model = VAE(2, (), 1)
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.zero_()
        outputs = torch.tensor([-1e30, -50.0, -4.0, 0.0, 3.0, 50.0, 1e30])
        found = []
        for output in outputs:
            model.encoder[0].bias[1] = output
            found.append(model.encode(torch.zeros(1, 2))[1].item())
    assert found[0] == -20
    assert found[-1] == 20
    assert found == sorted(found)
    assert found[2:5] == pytest.approx([-4.0, 0.0, 3.0], abs=0.1)
    assert found[1] > -20


def test_the_log_variance_has_a_gradient_wherever_training_can_take_it():
    model = VAE(2, (), 1).double()
    with torch.no_grad():
        model.encoder[0].bias[1] = -60.0
    model.encode(torch.zeros(1, 2, dtype=torch.float64))[1].sum().backward()
    assert model.encoder[0].bias.grad[1] > 0.005


@pytest.mark.parametrize("name", PIXELS)
def test_the_log_joint_is_that_of_prior_and_pixels(name):
    model = random_vae(pixels=PIXELS[name]())
    x, z = grey(4, 6), torch.randn(7, 4, 3, generator=seeded(), dtype=torch.float64)
    x = x.round() if name == "bernoulli" else x
    found = model.log_joint(x, z)
    assert found.shape == (7, 4)
    prior = Normal(0.0, 1.0).log_prob(z[5, 2]).sum()
    output = model.decoder(z[5, 2])
    expected = prior + model.pixels(output).log_prob(x[2]).sum()
    assert found[5, 2].item() == pytest.approx(expected.item(), rel=1e-12)
    with torch.no_grad():
        assert model.p_x_given_z(z).batch_shape == (7, 4, 6)


def test_the_default_pixels_are_those_of_a_bernoulli():
    model = random_vae()
    z = torch.randn(4, 3, generator=seeded(), dtype=torch.float64)
    expected = Bernoulli(torch.sigmoid(model.decode(z))).log_prob(torch.ones(4, 6).double())
    found = model.p_x_given_z(z).log_prob(torch.ones(4, 6).double())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", PIXELS)
def test_the_elbo_is_the_mean_of_log_weights(name):
    model = random_vae(3, pixels=PIXELS[name]())
    x = grey(2, 6).round()
    eps = torch.randn(50_000, 2, 3, generator=seeded(1), dtype=torch.float64)
    with torch.no_grad():
        q_z = model.q_z(x)
        z = q_z.mean + q_z.stddev * eps
        log_w = model.log_joint(x, z) - q_z.log_prob(z).sum(-1)
        elbos = model.elbo(x.repeat(5000, 1), eps[:5000].reshape(-1, 3)).reshape(5000, 2)
    error = (log_w.var(0) / 50_000 + elbos.var(0) / 5000).sqrt()
    assert ((log_w.mean(0) - elbos.mean(0)).abs() < 4 * error).all()
    assert error.max() < 0.5


def test_the_elbo_is_distortion_and_rate():
    model = random_vae()
    x = grey(4, 6).round()
    eps = torch.randn(4, 3, generator=seeded(), dtype=torch.float64)
    mu, a = model.encoder(x).chunk(2, dim=1)
    q_z = Normal(mu, torch.exp(10 * torch.tanh(a / 20)))
    rate = kl_divergence(q_z, Normal(torch.zeros(3).double(), 1.0)).sum(-1)
    log_p = Bernoulli(logits=model.decoder(mu + q_z.stddev * eps)).log_prob(x).sum(-1)
    torch.testing.assert_close(model.elbo(x, eps), log_p - rate)


def test_the_decoder_takes_any_leading_shape():
    model = random_vae(0, 1.0)
    z = torch.randn(2, 5, 3, generator=seeded(), dtype=torch.float64)
    assert model.p_x_given_z(z).batch_shape == (2, 5, 6)
    assert torch.allclose(model.decode(z)[1, 2], model.decode(z[1, 2]))

"""The networks that denoise: shapes, conditions, initial weights."""

from __future__ import annotations

import pytest
import torch

from evidence.diffusion import bound, sampling
from evidence.diffusion.losses import denoising_loss
from evidence.diffusion.networks import NO_LABEL, ImageNetwork, VectorNetwork, time_embedding
from evidence.diffusion.prediction import NetworkDenoiser
from evidence.diffusion.schedule import cosine_log_snr, discretize

NETWORKS = {
    "vector": (lambda **more: VectorNetwork(3, hidden=8, blocks=2, condition=8, **more), (3,)),
    "image": (lambda **more: ImageNetwork(1, 4, 8, 1, condition=8, **more), (1, 4, 4)),
    "oblong colour image": (
        lambda **more: ImageNetwork(3, (2, 5), 8, 1, condition=8, **more),
        (3, 2, 5),
    ),
}


def batch(shape, n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=generator), torch.linspace(-9, 9, n)


def shaken(network, seed=0):
    """Give a network weights that are nowhere zero, so that everything it is told matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_output_has_the_shape_of_the_input_and_starts_at_zero(kind):
    make, shape = NETWORKS[kind]
    x_t, log_snr = batch(shape)
    out = make()(x_t, log_snr)
    assert out.shape == x_t.shape
    assert not out.any()


@pytest.mark.parametrize("kind", NETWORKS)
def test_data_of_a_batch_do_not_meet(kind):
    make, shape = NETWORKS[kind]
    network = shaken(make(num_labels=4))
    x_t, log_snr = batch(shape)
    label = torch.tensor([0, 1, 2, 3, NO_LABEL, 0])
    together = network(x_t, log_snr, label)
    for i in range(len(x_t)):
        alone = network(x_t[i : i + 1], log_snr[i : i + 1], label[i : i + 1])
        assert torch.allclose(together[i], alone[0], atol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_noise_level_and_the_label_matter(kind):
    make, shape = NETWORKS[kind]
    network = shaken(make(num_labels=4))
    x_t, log_snr = batch(shape)
    zeros = torch.zeros(6, dtype=torch.int64)
    out = network(x_t, log_snr, zeros)
    for other in (network(x_t, log_snr + 1, zeros), network(x_t, log_snr, zeros + 1)):
        assert ((out - other).flatten(1).abs().amax(1) > 1e-4).all()


@pytest.mark.parametrize("kind", NETWORKS)
def test_no_label_is_the_same_for_one_datum_and_for_all(kind):
    make, shape = NETWORKS[kind]
    network = shaken(make(num_labels=4))
    x_t, log_snr = batch(shape)
    none = torch.full((6,), NO_LABEL)
    assert torch.equal(network(x_t, log_snr), network(x_t, log_snr, none))
    for label in range(4):
        assert not torch.equal(network(x_t, log_snr), network(x_t, log_snr, none * 0 + label))


@pytest.mark.parametrize("kind", NETWORKS)
def test_weights_depend_on_the_seed_and_on_nothing_else(kind):
    make, _ = NETWORKS[kind]

    def weights(seed):
        return torch.cat([p.detach().flatten() for p in make(num_labels=2, seed=seed).parameters()])

    first = weights(0)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_weight_can_learn(kind):
    make, shape = NETWORKS[kind]
    network = shaken(make(num_labels=6))
    x_t, log_snr = batch(shape)
    network(x_t, log_snr, torch.tensor([0, 1, 2, 3, 4, 5])).square().sum().backward()
    for name, parameter in network.named_parameters():
        gradient = parameter.grad[:-1] if name.endswith("rows") else parameter.grad
        assert gradient.any(), name


def test_float64_networks_work():
    network = VectorNetwork(2, 4, 1, condition=8).double()
    x_t, log_snr = batch((2,))
    assert network(x_t.double(), log_snr.double()).dtype == torch.float64


def test_an_embedding_tells_all_log_snrs_apart():
    log_snr = torch.linspace(-31, 31, 400, dtype=torch.float64)
    embedded = time_embedding(log_snr, 16)
    assert embedded.shape == (400, 16)
    apart = torch.cdist(embedded, embedded) + 10 * torch.eye(400)
    assert apart.min() > 0.1
    slowest = 2 * torch.pi * log_snr / 64
    assert torch.allclose(embedded[:, 0], slowest.sin())
    assert torch.allclose(embedded[:, 8], slowest.cos())


@pytest.mark.parametrize("dim", [2, 7, 8.0, True])
def test_other_lengths_of_an_embedding_are_refused(dim):
    with pytest.raises(ValueError, match=r"dim is .*; accepted are even whole numbers from 4"):
        time_embedding(torch.zeros(3), dim)


def test_log_snrs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"log_snr has shape \(3, 1\); accepted is \(batch,\)"):
        time_embedding(torch.zeros(3, 1), 8)


@pytest.mark.parametrize(
    ("label", "match"),
    [
        (torch.tensor([0, 1, 2, 3, 4, 0]), "label goes from 0 to 4; accepted are 0 to 3"),
        (torch.tensor([0, 1, 2, 3, -2, 0]), "label goes from -2 to 3"),
        (torch.zeros(5, dtype=torch.int64), r"label has shape \(5,\)"),
        (torch.zeros(6), r"dtype torch\.float32; accepted are \(6,\) and torch\.int64"),
    ],
)
def test_other_labels_are_refused(label, match):
    network = VectorNetwork(3, 8, 1, condition=8, num_labels=4)
    with pytest.raises(ValueError, match=match):
        network(*batch((3,)), label)


def test_a_label_for_a_network_without_is_refused():
    with pytest.raises(ValueError, match="made with num_labels=0"):
        VectorNetwork(3, 8, 1, condition=8)(*batch((3,)), torch.zeros(6, dtype=torch.int64))


def test_images_of_another_size_are_refused():
    network = ImageNetwork(1, 4, 8, 1, condition=8)
    with pytest.raises(ValueError, match=r"shape \(6, 16\); accepted is \(batch, 1, 4, 4\)"):
        network(*batch((16,)))


@pytest.mark.parametrize("sizes", [{"hidden": 0}, {"blocks": -1}, {"num_labels": 1.5}])
def test_other_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=f"{next(iter(sizes))} is .*; accepted are whole numbers"):
        VectorNetwork(2, **sizes)


@pytest.mark.parametrize("size", [0, 2.0, True, (4,), (4, 0), (4, 5, 6), "ab"])
def test_what_is_no_size_of_an_image_is_refused(size):
    with pytest.raises(ValueError, match=r"size is .*; accepted .* or a pair \(height, width\)"):
        ImageNetwork(1, size)


def test_height_comes_before_width():
    network = ImageNetwork(1, (2, 5), 8, 1, condition=8)
    with pytest.raises(ValueError, match=r"\(6, 1, 5, 2\); accepted is \(batch, 1, 2, 5\)"):
        network(*batch((1, 5, 2)))


class FromFlat(torch.nn.Module):
    """The same network, for images as vectors."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x_t, log_snr, label=None):
        return self.network(x_t.view(-1, *self.network.shape), log_snr, label).flatten(1)


@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_oblong_colour_images_are_trained_sampled_and_bounded(prediction):
    network = shaken(ImageNetwork(3, (2, 5), 8, 1, condition=8))
    model = NetworkDenoiser(network, prediction)
    x = 2 * torch.randint(0, 4, (6, 3, 2, 5), generator=torch.Generator().manual_seed(0)) / 3 - 1
    schedule = discretize(cosine_log_snr(6, -6), 4)
    seeded = torch.Generator().manual_seed(0)
    denoising_loss(model, x, seeded, schedule=schedule).backward()
    assert all(parameter.grad.any() for parameter in network.parameters())
    flat = NetworkDenoiser(FromFlat(network), prediction)
    decoder = bound.DiscretizedGaussianDecoder(levels=4)
    bits, of_flat = (
        bound.bits_per_dim(
            bound.elbo(m, y, schedule, seeded.manual_seed(1), decoder=decoder).negative_elbo, 30
        )
        for m, y in ((model, x), (flat, x.flatten(1)))
    )
    assert bits.shape == (6,)
    torch.testing.assert_close(bits, of_flat)
    start = torch.randn(x.shape, generator=seeded)
    for sample in (
        lambda m, y: sampling.ancestral(m, y, schedule, seeded.manual_seed(2)),
        lambda m, y: sampling.ddim(m, y, schedule),
        lambda m, y: sampling.heun(m, y, schedule),
        lambda m, y: sampling.probability_flow(m, y, (-6, 6)),
    ):
        images = sample(model, start)
        assert images.shape == (6, 3, 2, 5)
        torch.testing.assert_close(images.flatten(1), sample(flat, start.flatten(1)))

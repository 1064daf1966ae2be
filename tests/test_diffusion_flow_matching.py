"""Flow matching: the same path as diffusion, by way of its exact velocity."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from evidence.diffusion import clouds
from evidence.diffusion import flow_matching as fm
from evidence.diffusion import sampling as sa
from evidence.diffusion import schedule as sc
from evidence.diffusion.networks import VectorNetwork
from evidence.diffusion.prediction import PREDICTIONS, Denoiser
from evidence.training import train
from evidence.two_samples import energy_distance

DATA = clouds.mixture()
TAUS = [1e-3, 0.1, 0.5, 0.83, 0.999]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


class ExactNetwork(nn.Module):
    """A network that has learned all there is: it knows the time from its second argument."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x, time, label=None):
        tau = (1 - time / fm.TIME_SPAN) / 2
        return self.factor * fm.exact_velocity(DATA, x, tau)


# The path and its velocity. ------------------------------------------------------------------


@pytest.mark.parametrize("tau", TAUS)
def test_a_denoisers_velocity_is_the_exact_one(tau):
    x = 1.5 * normal(40, 2)
    got, want = fm.velocity_from(DATA, x, tau), fm.exact_velocity(DATA, x, tau)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
    # Without the scale of space, and with the time read as that of the other path.
    unscaled = fm.velocity_from(DATA, x * math.hypot(tau, 1 - tau), tau)
    assert (unscaled - want).abs().max() > 1e-4
    eps, x_0 = (DATA.predict(x, math.log((1 - tau) / tau), wanted) for wanted in ("eps", "x_0"))
    assert (eps - x_0 - want).abs().max() > 1e-4


def test_the_exact_velocity_is_the_mean_of_the_pairs_that_pass_near():
    tau, n = 0.4, 400_000
    x_0, eps = DATA.sample(n, seeded(1)), normal(n, 2, seed=2)
    x = fm.straight_path(x_0, eps, tau)
    # Against the exact one at the places of the pairs themselves: the mean of u - u(x) is zero for
    # all functions of x, here 1, x and its square.
    rest = eps - x_0 - fm.exact_velocity(DATA, x, tau)
    for test in (torch.ones_like(x), x, x.square(), x.roll(1, 1)):
        product = test * rest
        z = product.mean(0) / product.std(0) * math.sqrt(n)
        assert z.abs().max() < 4


def test_the_exact_velocity_holds_at_both_ends():
    x = normal(10, 2)
    torch.testing.assert_close(fm.exact_velocity(DATA, x, 1.0), x, rtol=0, atol=1e-12)  # mean 0
    torch.testing.assert_close(fm.exact_velocity(DATA, x, 0.0), -x, rtol=0, atol=1e-12)


def test_tau_may_differ_from_datum_to_datum():
    x, tau = normal(5, 2), torch.tensor(TAUS, dtype=torch.float64)
    for velocity in (fm.velocity_from, fm.exact_velocity):
        got = velocity(DATA, x, tau)
        for i, value in enumerate(TAUS):
            want = velocity(DATA, x[i : i + 1], value)
            torch.testing.assert_close(got[i : i + 1], want, rtol=0, atol=1e-12)


def test_time_and_log_snr_are_inverse_to_each_other():
    tau = torch.tensor([0.0, *TAUS, 1.0], dtype=torch.float64)
    log_snr = fm.log_snr_at(tau)
    assert log_snr[0] == math.inf
    assert log_snr[-1] == -math.inf
    torch.testing.assert_close(log_snr.exp(), ((1 - tau) / tau) ** 2)
    torch.testing.assert_close(fm.tau_at(log_snr), tau, rtol=0, atol=1e-15)


# Integration. --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def same_curves():
    """Starts on the straight path, and their ends by the other path's ODE, scaled back."""
    start, stop = 0.98, 0.02
    x = normal(32, 2)
    ends = [fm.log_snr_at(torch.tensor(tau, dtype=torch.float64)).item() for tau in (start, stop)]
    x_t = sa.probability_flow(
        DATA, x / math.hypot(start, 1 - start), ends, rtol=1e-11, atol=1e-12, method="DOP853"
    )
    return x, start, stop, math.hypot(stop, 1 - stop) * x_t


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
@pytest.mark.parametrize("velocity", [fm.velocity_from, fm.exact_velocity])
def test_both_odes_have_the_same_curves_and_errors_fall_with_their_order(
    velocity, method, order, same_curves
):
    x, start, stop, want = same_curves
    errors = []
    for steps in (80, 160, 320):
        got = fm.integrate(partial(velocity, DATA), x, steps, method, start=start, stop=stop)
        errors.append((got - want).square().mean().sqrt().item())
    for coarse, fine in pairwise(errors):
        assert 2**order * 0.85 < coarse / fine < 2**order * 1.15


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_integration_makes_data_of_noise(method):
    x = fm.integrate(partial(fm.exact_velocity, DATA), normal(2000, 2), 100, method)
    others = DATA.sample(2000, seeded(5))
    expected = torch.cdist(others[:1000], others[1000:]).mean() / 1000
    assert energy_distance(x, others) < 3 * expected
    assert energy_distance(normal(2000, 2), others) > 20 * expected


def test_a_trajectory_is_in_the_order_of_the_walk():
    x, asked = normal(3, 2), []

    def velocity(x, tau):
        asked.append(tau)
        return torch.ones_like(x)

    states = fm.integrate(velocity, x, 4, trajectory=True)
    assert asked == [1.0, 0.75, 0.5, 0.25]
    assert torch.equal(states[0], x)
    torch.testing.assert_close(states, torch.stack([x - i / 4 for i in range(5)]))
    asked.clear()
    fm.integrate(velocity, x, 2, "heun", start=0.0, stop=1.0)
    assert asked == [0.0, 0.5, 0.5, 1.0]


def test_heun_is_exact_for_a_velocity_linear_in_time():
    x = normal(3, 2)
    got = fm.integrate(lambda x, tau: tau * torch.ones_like(x), x, 3, "heun")
    torch.testing.assert_close(got, x - 0.5, rtol=0, atol=1e-14)


# Learned. ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", PREDICTIONS)
@pytest.mark.parametrize("level", [-9.0, 0.3, 9.0])
def test_a_network_of_the_velocity_is_a_denoiser(wanted, level):
    model, x = fm.FlowNetwork(ExactNetwork()), normal(8, 2)
    assert isinstance(model, Denoiser)
    want = DATA.predict(x, level, wanted)
    with torch.no_grad():
        got = model.predict(x, level, wanted)
        each = model.predict(x, torch.full((8,), level, dtype=torch.float64), wanted)
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(each, got, rtol=1e-12, atol=1e-12)


def test_the_loss_is_least_at_the_exact_velocity():
    """The gradient of its mean, along a factor of the network, is zero at 1 and not at 0.9."""
    x = DATA.sample(4000, seeded(3))
    slopes = {}
    for factor in (1.0, 0.9):
        model = fm.FlowNetwork(ExactNetwork(factor))
        parts = []
        for i, part in enumerate(x.split(100)):
            loss = fm.flow_loss(model, part, seeded(100 + i))
            parts.append(torch.autograd.grad(loss, model.network.factor)[0])
        parts = torch.stack(parts)
        slopes[factor] = (parts.mean() / parts.std() * math.sqrt(len(parts))).item()
    assert abs(slopes[1.0]) < 4
    assert slopes[0.9] < -4


def test_the_loss_of_nothing_is_the_mean_square_of_the_velocity():
    """A sum over D and a mean over data: D + E|x_0|^2, here 4."""
    model = fm.FlowNetwork(VectorNetwork(2, 8, 1).double())
    loss = fm.flow_loss(model, DATA.sample(100_000, seeded(3)), seeded(4)).item()
    assert loss == pytest.approx(4, abs=0.05)


def test_labels_are_passed_on_and_dropped():
    seen = []

    class Network(nn.Module):
        def forward(self, x, time, label=None):
            seen.append(label)
            return x

    model, x, label = fm.FlowNetwork(Network()), normal(2000, 2), torch.ones(2000).long()
    fm.flow_loss(model, (x, label), seeded(), label_dropout=0.25)
    fm.flow_loss(model, (x, label), seeded(), label_dropout=0.0)
    fm.flow_loss(model, x, seeded())
    assert set(seen[0].tolist()) == {-1, 1}
    assert abs((seen[0] == -1).double().mean() - 0.25) < 0.04
    assert torch.equal(seen[1], label)
    assert seen[2] is None


def test_a_network_learns_to_sample_by_every_road():
    x = DATA.sample(2000, seeded(3)).float()
    model = fm.FlowNetwork(VectorNetwork(2, 48, 2))
    history = train(model, x, fm.flow_loss, epochs=40, batch_size=200, progress=False)
    assert history.loss[-1] < 0.8 * history.loss[0]
    noise, others = normal(1000, 2, dtype=torch.float32), DATA.sample(1000, seeded(5))
    before = energy_distance(noise, others)
    straight = fm.integrate(model, noise, 20, "heun")
    ddim = sa.ddim(model, noise, sc.discretize(sc.cosine_log_snr(9, -9), 40))
    assert straight.dtype == ddim.dtype == torch.float32
    assert not straight.requires_grad
    for samples in (straight, ddim):
        assert energy_distance(samples, others) < before / 8


def test_images_go_through_all_of_it():
    class Network(nn.Module):
        def forward(self, x, time, label=None):
            assert time.shape == (len(x),)
            return -x

    model, x = fm.FlowNetwork(Network()), normal(3, 1, 4, 4)
    assert fm.flow_loss(model, x, seeded()).ndim == 0
    assert fm.integrate(model, x, 3).shape == x.shape
    assert model.predict(x, torch.zeros(3)).shape == x.shape
    assert fm.velocity_from(model, x, torch.full((3,), 0.5)).shape == x.shape


X = normal(3, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fm.velocity_from(DATA, X, 0.0), "above 0 and below 1"),
        (lambda: fm.velocity_from(DATA, X, 1.0), "above 0 and below 1"),
        (lambda: fm.velocity_from(DATA, X, torch.tensor([0.1, 0.2])), r"tau has shape \(2,\)"),
        (lambda: fm.straight_path(X, X, 1.1), "tau goes from 1.1"),
        (lambda: fm.straight_path(X, X, math.nan), "tau goes from nan"),
        (lambda: fm.exact_velocity(DATA, X, torch.full((2,), 0.5)), r"tau has shape \(2,\)"),
        (lambda: fm.integrate(fm.straight_path, X, 0), "steps is 0"),
        (lambda: fm.integrate(fm.straight_path, X, 2.0), "steps is 2.0"),
        (lambda: fm.integrate(fm.straight_path, X, 2, "rk4"), "method is 'rk4'"),
        (lambda: fm.integrate(fm.straight_path, X, 2, start=1.5), "start is 1.5"),
        (lambda: fm.integrate(fm.straight_path, X, 2, stop=1.0), "start and stop are both 1.0"),
        (lambda: fm.flow_loss(None, X, seeded(), label_dropout=1.5), "label_dropout is 1.5"),
        (
            lambda: fm.integrate(partial(fm.velocity_from, DATA), X, 2, "heun", start=0.9),
            "above 0 and below 1",
        ),
    ],
)
def test_what_is_given_is_named_when_it_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""The Python side of the live figures of the forward process and of sampling."""

import base64
import math

import numpy as np
import pytest
import torch
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from evidence.diffusion import sampling, schedule
from evidence.diffusion.clouds import mixture
from evidence.diffusion.networks import VectorNetwork
from evidence.diffusion.prediction import NetworkDenoiser
from evidence.diffusion.trained import LOG_SNR
from evidence.live import Forward, Sampling
from evidence.live.noise import noise
from evidence.live.sampling import FRESH
from evidence.two_samples import energy_distance


def random_denoiser(**sizes):
    """A network that has learned nothing, but of which each weight counts."""
    network = VectorNetwork(2, **{"hidden": 12, "blocks": 2, "condition": 8, **sizes})
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return NetworkDenoiser(network, "eps")


DENOISER = random_denoiser()
FIGURE = Sampling(DENOISER)
DIGITS = Forward()


def moved(figure, **traits):
    for name, value in traits.items():
        setattr(figure, name, value)
    return figure


# --- sampling ----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    score=st.sampled_from(["exact", "learned"]),
    method=st.sampled_from(["ddim", "posterior", "beta"]),
    eta=st.floats(0, 1),
    num_steps=st.integers(5, 40),
    seed=st.integers(0, 999),
)
def test_states_are_those_of_the_samplers(score, method, eta, num_steps, seed):
    figure = moved(FIGURE, score=score, method=method, eta=eta, num_steps=num_steps, seed=seed)
    # The samplers draw noise themselves: they are given the figure's.
    eps = noise(seed, (num_steps + 1) * 600).reshape(-1, 300, 2)
    draws = iter(torch.from_numpy(eps[1:]))
    chain = schedule.discretize(schedule.cosine_log_snr(*LOG_SNR), num_steps)
    rule = {"trajectory": True, "generator": torch.Generator()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling.torch, "randn", lambda *a, **k: next(draws))
        start = torch.from_numpy(eps[0])
        if method == "ddim":
            expected = sampling.ddim(figure.denoiser(), start, chain, eta=eta, **rule)
        else:
            expected = sampling.ancestral(
                figure.denoiser(), start, chain, reverse_variance=method, **rule
            )
    torch.testing.assert_close(figure.states(), expected, rtol=0, atol=1e-11)
    assert figure.denoiser() is not DENOISER
    torch.testing.assert_close(figure.samples(), expected[0], rtol=0, atol=1e-11)


def test_ddpm_is_ddim_with_eta_one():
    states = [
        moved(FIGURE, method=method, eta=1.0, score="exact", num_steps=9).states()
        for method in ("ddim", "posterior", "beta")
    ]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=1e-12)
    assert (states[2] - states[1]).abs().max() > 0.1


def test_the_learned_score_is_the_network_with_rounded_weights():
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    rounded = moved(FIGURE, score="learned").denoiser()
    for log_snr in (-10.0, 0.0, 10.0):
        error = rounded.predict(x.double(), log_snr) - DENOISER.predict(x, log_snr)
        assert 1e-6 < error.abs().max() < 1e-2
    # A copy: the network that was given is as it was.
    assert next(DENOISER.parameters()).dtype == torch.float32
    packed = np.frombuffer(FIGURE.weights, "<f2")
    assert len(packed) == sum(p.numel() for p in DENOISER.parameters())


def test_the_start_stays_when_the_number_of_steps_changes():
    starts = [moved(FIGURE, num_steps=n, seed=3).states()[-1] for n in (5, 50)]
    assert torch.equal(*starts)
    assert torch.equal(starts[0].flatten(), torch.from_numpy(noise(3, 600)))


def test_the_energy_distance_is_the_double_sum():
    x, y = torch.randn(2, 40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = y[:15] + 1

    def mean(a, b):
        return np.mean([[math.dist(p, q) for q in b.tolist()] for p in a.tolist()])

    expected = 2 * mean(x, y) - mean(x, x) - mean(y, y)
    assert energy_distance(x, y) == pytest.approx(expected, abs=1e-12)
    assert energy_distance(x, x) == pytest.approx(0, abs=1e-12)


def test_the_reference_is_of_the_data_and_fresh_data_are_as_near_as_said():
    data, reference = mixture(), FIGURE.reference()
    assert reference.shape == (2000, 2)
    assert reference.mean(0).abs().max() < 0.05
    assert reference.var(0).mean().item() == pytest.approx(1, abs=0.03)
    generator = torch.Generator().manual_seed(7)
    distances = torch.tensor(
        [energy_distance(data.sample(300, generator), reference) for _ in range(200)]
    )
    # A share of 0.95, known to 0.0154 from so many draws.
    assert abs((distances < FRESH).double().mean().item() - 0.95) < 3 * 0.0154


def test_more_steps_come_nearer_to_the_data():
    figure = moved(FIGURE, score="exact", method="ddim", eta=0.5, seed=0)
    ends = [moved(figure, num_steps=n).energy_distance() for n in (5, 40)]
    assert ends[0] > FRESH > ends[1]
    assert figure.spread() == pytest.approx(1, abs=0.1)
    assert moved(figure, num_steps=5).spread() < 0.93


@pytest.mark.parametrize("walked", [0.0, 0.124, 0.125, 0.5, 0.876, 1.0])
def test_the_step_shown_is_the_nearest(walked):
    figure = moved(FIGURE, num_steps=8, walked=walked)
    assert abs(figure.step - 8 * (1 - walked)) <= 0.5
    assert figure.step in range(9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score", "guessed"), ("method", "euler"), ("eta", 1.01), ("eta", math.nan),
        ("num_steps", 4), ("num_steps", 101), ("num_steps", 7.5), ("walked", -0.1), ("seed", 1000),
    ],
)  # fmt: skip
def test_sampling_refuses(name, value):
    traits = ("score", "method", "eta", "num_steps", "walked", "seed")
    figure = moved(FIGURE, num_steps=20, walked=0.5)
    before = [getattr(figure, trait) for trait in traits]
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(figure, name, value)
    assert [getattr(figure, trait) for trait in traits] == before
    with pytest.raises(traitlets.TraitError, match=name):
        Sampling(DENOISER, **{name: value})


def test_networks_that_are_refused():
    with pytest.raises(TypeError, match="accepted is a NetworkDenoiser"):
        Sampling(DENOISER.network)
    with pytest.raises(TypeError, match="denoiser is a MixtureData"):
        Sampling(mixture())
    with pytest.raises(ValueError, match="predicts 'v'; accepted is 'eps'"):
        Sampling(NetworkDenoiser(VectorNetwork(2, hidden=4), "v"))
    with pytest.raises(ValueError, match="3 dimensions"):
        Sampling(NetworkDenoiser(VectorNetwork(3, hidden=4), "eps"))
    with pytest.raises(ValueError, match="2 labels"):
        Sampling(NetworkDenoiser(VectorNetwork(2, hidden=4, num_labels=2), "eps"))
    large = random_denoiser()
    large.network.last.weight.data[0, 0] = 70_000
    with pytest.raises(ValueError, match="weight of 70000"):
        Sampling(large)


# --- the forward process -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "short", "cosine"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.2504, 1.0])
def test_the_forward_process_is_that_of_the_schedule(name, share):
    figure = moved(DIGITS, schedule=name, share=share, digit=3, seed=8)
    made = {
        "linear": schedule.linear(1000), "short": schedule.linear(300),
        "cosine": schedule.cosine(1000),
    }[name]  # fmt: skip
    t = figure.step
    assert abs(t - share * made.num_steps) <= 0.5
    assert figure.alpha_bar() == pytest.approx(made.alpha_bar[t].item(), rel=1e-12)
    signal = figure.alpha_bar()
    assert figure.snr() == (math.inf if t == 0 else pytest.approx(signal / (1 - signal), rel=1e-9))
    eps = torch.from_numpy(noise(8, 784 + 800))
    for x_0, x_t, part in zip(
        figure.x_0(), figure.x_t(), (eps[:784], eps[784:]), strict=True
    ):  # fmt: skip
        expected = math.sqrt(signal) * x_0 + math.sqrt(1 - signal) * part.reshape(x_0.shape)
        torch.testing.assert_close(x_t, expected, rtol=0, atol=1e-12)


def test_the_short_schedule_alone_does_not_arrive():
    whole = {}
    for name in ("linear", "short", "cosine"):
        figure = moved(DIGITS, schedule=name, digit=0)
        a = figure.chain().alpha_bar[-1]
        end = Normal(a.sqrt() * figure.x_0()[0], (1 - a).sqrt())
        expected = kl_divergence(end, Normal(0.0, 1.0)).mean().item()
        assert figure.end_kl() == pytest.approx(expected, rel=1e-9)
        whole[name] = 784 * figure.end_kl()
    assert whole["linear"] < 0.1
    assert whole["cosine"] < 0.1
    assert whole["short"] > 10


def test_digits_are_grey_levels_and_all_differ():
    digits = torch.cat([moved(DIGITS, digit=i).x_0()[0] for i in range(20)])
    assert digits.min() == -1
    assert digits.max() == 1
    assert len(digits.unique(dim=0)) == 20
    levels = (digits + 1) * 255 / 2
    assert (levels - levels.round()).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("name", "value"),
    [("schedule", "sigmoid"), ("share", 1.1), ("share", math.nan), ("digit", 20), ("seed", -1)],
)
def test_forward_refuses(name, value):
    with pytest.raises(traitlets.TraitError, match=name):
        setattr(DIGITS, name, value)
    with pytest.raises(traitlets.TraitError, match=name):
        Forward(**{name: value})


# --- both --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: Sampling(DENOISER),
            {
                "score": "learned", "method": "beta", "eta": 0.3, "num_steps": 7, "walked": 0.2,
                "seed": 5,
            },
        ),
        (Forward, {"schedule": "short", "share": 0.9, "digit": 4, "seed": 5}),
    ],
)  # fmt: skip
def test_what_the_page_says_arrives_in_python_and_in_the_picture(make, told):
    figure = make()
    data, _ = figure._repr_mimebundle_()
    before = figure.picture()
    assert base64.b64decode(data["image/png"]) == before
    figure.set_state(told)
    assert {name: getattr(figure, name) for name in told} == told
    assert figure.picture() != before


def test_their_text_is_the_same_at_every_run():
    assert repr(Sampling(DENOISER)) == (
        "Sampling(score='exact', method='ddim', eta=0, num_steps=20, walked=0.6, seed=0)"
    )
    assert repr(Forward()) == "Forward(schedule='linear', share=0.25, digit=0, seed=0)"

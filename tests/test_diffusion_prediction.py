"""Predictions: all twelve conversions against their definitions, at both ends of the noise."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from evidence.diffusion.prediction import PREDICTIONS, Denoiser, NetworkDenoiser, convert
from evidence.diffusion.process import diffuse
from evidence.diffusion.schedule import from_log_snr


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadruple(log_snr, *shape, seed=0):
    """The noisy datum and all four quantities, from x_0 and eps by their definitions."""
    x_0, eps = randn(2, *shape, seed=seed)
    a, sigma = math.sqrt(1 / (1 + math.exp(-log_snr))), math.sqrt(1 / (1 + math.exp(log_snr)))
    x_t = a * x_0 + sigma * eps
    values = {"x_0": x_0, "eps": eps, "v": a * eps - sigma * x_0, "score": -eps / sigma}
    return x_t, values, a, sigma


@given(st.floats(-20, 20), st.integers(0, 99))
def test_every_conversion_is_that_of_the_definitions(log_snr, seed):
    x_t, values, a, sigma = quadruple(log_snr, 3, 2, seed=seed)
    # How much of x_0 or eps can be known from the other is limited by rounding of x_t itself.
    blow_up = {"x_0": 1 / a, "eps": 1 / sigma, "v": 1 / (a * sigma), "score": 1 / sigma**2}
    for given_, wanted in itertools.product(PREDICTIONS, PREDICTIONS):
        got = convert(values[given_], x_t, log_snr, given=given_, wanted=wanted)
        limit = 1e-14 if given_ == wanted else 1e-14 * blow_up[wanted]
        error = (got - values[wanted]).abs().max().item()
        assert error <= limit, (given_, wanted)


@pytest.mark.parametrize("log_snr", [-20.0, 20.0])
def test_conversions_that_need_not_lose_digits_lose_none(log_snr):
    x_t, values, _, _ = quadruple(log_snr, 50, 2)
    harmless = {("v", "x_0"), ("v", "eps"), ("eps", "score"), ("score", "eps"), ("v", "score")}
    if log_snr > 0:
        harmless |= {("eps", "x_0"), ("score", "x_0"), ("eps", "v"), ("score", "v")}
    else:
        harmless |= {("x_0", "eps"), ("x_0", "score"), ("x_0", "v")}
    for given_, wanted in harmless:
        got = convert(values[given_], x_t, log_snr, given=given_, wanted=wanted)
        torch.testing.assert_close(got, values[wanted], rtol=1e-13, atol=1e-13)


def test_conversions_use_the_same_noise_level_as_the_chain():
    schedule = from_log_snr(torch.tensor([4.0, 0.0, -3.0], dtype=torch.float64))
    x_0, eps = randn(2, 3, 1, 4, 4)
    t = torch.tensor([3, 1, 2])
    x_t = diffuse(x_0, eps, schedule, t)
    got = convert(eps, x_t, schedule.log_snr[t], given="eps", wanted="x_0")
    torch.testing.assert_close(got, x_0, rtol=1e-12, atol=1e-12)
    one = convert(eps[:1], x_t[:1], schedule.log_snr[3], given="eps", wanted="x_0")
    torch.testing.assert_close(one, x_0[:1], rtol=1e-12, atol=1e-12)


def test_float32_keeps_its_dtype_and_stays_finite():
    x_t, values, _, _ = quadruple(0.0, 4, 2)
    for log_snr in (-20.0, 20.0):
        for given_, wanted in itertools.product(PREDICTIONS, PREDICTIONS):
            got = convert(values[given_].float(), x_t.float(), log_snr, given=given_, wanted=wanted)
            assert got.dtype == torch.float32
            assert got.isfinite().all()


class Recorder(nn.Module):
    """Returns a fixed multiple of its input, and keeps what it was called with."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, *inputs):
        self.inputs = inputs
        return self.factor * inputs[0]


@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_a_network_is_asked_once_and_its_answer_converted(prediction):
    network = Recorder()
    denoiser = NetworkDenoiser(network, prediction)
    assert isinstance(denoiser, Denoiser)
    x_t = randn(3, 2).float()
    for log_snr in (1.5, torch.tensor([1.5, 1.5, 1.5])):
        for wanted in PREDICTIONS:
            got = denoiser.predict(x_t, log_snr, wanted)
            expected = convert(0.5 * x_t, x_t, 1.5, given=prediction, wanted=wanted)
            torch.testing.assert_close(got, expected)
            assert len(network.inputs) == 2
            assert network.inputs[1].shape == (3,)
            assert network.inputs[1].dtype == torch.float32
    torch.testing.assert_close(denoiser(x_t, 1.5), 0.5 * x_t)
    label = torch.tensor([0, 2, 1])
    denoiser.predict(x_t, 0.0, label=label)
    assert network.inputs[2] is label


def test_bad_arguments_are_refused():
    x = randn(2, 3)
    with pytest.raises(ValueError, match="given = 'noise'"):
        convert(x, x, 0.0, given="noise", wanted="eps")
    with pytest.raises(ValueError, match="wanted = 'X'"):
        convert(x, x, 0.0, given="eps", wanted="X")
    with pytest.raises(ValueError, match=r"value has shape \(2, 1\)"):
        convert(x[:, :1], x, 0.0, given="eps", wanted="v")
    with pytest.raises(TypeError, match="float32"):
        convert(x.float(), x, 0.0, given="eps", wanted="v")
    for log_snr, message in (
        (math.inf, "log_snr has inf"),
        (math.nan, "log_snr has nan"),
        (torch.zeros(3), r"log_snr has shape \(3,\)"),
        (torch.zeros(2, 1), r"log_snr has shape \(2, 1\)"),
    ):
        # Also where there is nothing to convert.
        for wanted in ("eps", "v"):
            with pytest.raises(ValueError, match=message):
                convert(x, x, log_snr, given="eps", wanted=wanted)
    with pytest.raises(ValueError, match="prediction = 'score'"):
        NetworkDenoiser(Recorder(), "score")
    with pytest.raises(TypeError, match="float64; accepted is that of the network"):
        NetworkDenoiser(Recorder()).predict(x, 0.0)
    with pytest.raises(ValueError, match="wanted = 'mean'"):
        NetworkDenoiser(Recorder()).predict(x.float(), 0.0, "mean")

"""Samplers, bounds and losses at the ends of the noise, in every dtype: right, or refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from evidence.diffusion import bound, clouds
from evidence.diffusion import sampling as sa
from evidence.diffusion import schedule as sc
from evidence.diffusion.flow_matching import FlowNetwork
from evidence.diffusion.guidance import Guided
from evidence.diffusion.losses import denoising_loss
from evidence.diffusion.prediction import NetworkDenoiser, convert, native

SAYS = (0.3, -0.8)
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LOWEST = [-10.0, -20.0, -30.0, -40.0, -200.0]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Says(nn.Module):
    """A network that always gives one answer; with a label another one."""

    def __init__(self, dtype, answer=SAYS):
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer, dtype=torch.float64).to(dtype))

    def forward(self, x_t, log_snr, label=None):
        answer = self.answer.expand_as(x_t)
        return answer if label is None else answer * (1 + label[:, None])


def denoiser(prediction, dtype):
    return NetworkDenoiser(Says(dtype), prediction)


def start(dtype):
    return torch.randn(5, 2, generator=seeded(), dtype=torch.float64).to(dtype)


def levels(*log_snr):
    return sc.from_log_snr(torch.tensor(log_snr, dtype=torch.float64))


def sampled(name, model, x, schedule):
    match name:
        case "ancestral":
            return sa.ancestral(model, x, schedule, seeded(1))
        case "ancestral beta":
            return sa.ancestral(model, x, schedule, seeded(1), reverse_variance="beta")
        case "heun":
            return sa.heun(model, x, schedule)
    return sa.ddim(model, x, schedule, eta=float(name[5:]), generator=seeded(1))


SAMPLERS = ["ancestral", "ancestral beta", "ddim 0", "ddim 0.5", "ddim 1", "heun"]
SCHEDULES = [sc.cosine(1000).respaced([1000]), *(levels(low) for low in LOWEST)]
TWO_STEPS = [levels(5.0, low) for low in LOWEST]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_predicted_datum_is_returned_as_it_is(name, dtype):
    said = torch.tensor(SAYS, dtype=torch.float64).to(dtype).expand(5, 2)
    for schedule in SCHEDULES + TWO_STEPS:
        # Heun's own rule multiplies a difference by the ratio of the two noise levels.
        ratio = math.exp((5 - schedule.log_snr[-1].item()) / 2)
        is_hopeless = name == "heun" and schedule.num_steps > 1
        is_hopeless &= ratio * torch.finfo(dtype).eps > 0.5
        if is_hopeless:
            with pytest.raises(ValueError, match=r"Heun's rule for this step multiplies rounding"):
                sampled(name, denoiser("x_0", dtype), start(dtype), schedule)
        else:
            got = sampled(name, denoiser("x_0", dtype), start(dtype), schedule)
            assert torch.equal(got, said)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_predicted_v_leads_where_it_says(name, dtype):
    v = torch.tensor(SAYS, dtype=torch.float64)
    for schedule in SCHEDULES:
        x = start(dtype)
        want = schedule.sqrt_alpha_bar[1] * x.double() - schedule.sigma[1] * v
        got = sampled(name, denoiser("v", dtype), x, schedule)
        torch.testing.assert_close(got.double(), want, rtol=0, atol=2 * torch.finfo(dtype).eps)
    if name != "heun":
        for schedule in TWO_STEPS:
            got = sampled(name, denoiser("v", dtype), x, schedule)
            want = sampled(name, denoiser("v", torch.float64), x.double(), schedule)
            assert got.isfinite().all()
            # The draws of different dtypes are not the same.
            if name == "ddim 0":
                atol = 4 * torch.finfo(dtype).eps
                torch.testing.assert_close(got.double(), want, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_predicted_eps_is_followed_within_the_digits_or_refused(name, dtype):
    eps = torch.tensor(SAYS, dtype=torch.float64)
    for schedule in SCHEDULES:
        x, a = start(dtype), schedule.sqrt_alpha_bar[1]
        want = x.double() / a - schedule.sigma[1] / a * eps
        lost = torch.finfo(dtype).eps / 2 / a
        if lost > sa.LOST:
            with pytest.raises(
                ValueError, match=rf"expected steps that {dtype}.*got one from t = 1"
            ):
                sampled(name, denoiser("eps", dtype), x, schedule)
            continue
        got = sampled(name, denoiser("eps", dtype), x, schedule)
        torch.testing.assert_close(got.double(), want, rtol=0, atol=6 * lost)


def test_a_single_step_of_a_chain_is_refused_too():
    x = start(torch.float32)
    for step in (sa.ddim_step, sa.ancestral_step):
        with pytest.raises(ValueError, match=r"a denoiser that predicts x_0 or v"):
            step(x, x, levels(-40.0), 1, x)
        assert step(x, x, levels(-20.0), 1, x).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("low", LOWEST)
def test_guidance_mixes_what_is_predicted(dtype, low):
    """With the label 1 twice as much is said, so with weight 3 four times as much."""
    label = torch.ones(5, dtype=torch.int64)
    for schedule in (levels(low), levels(5.0, low)):
        got = sa.ddim(Guided(denoiser("x_0", dtype), label, 3.0), start(dtype), schedule)
        want = 4 * torch.tensor(SAYS, dtype=torch.float64).expand(5, 2)
        torch.testing.assert_close(got.double(), want, rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert native(Guided(denoiser("v", dtype), label, 3.0)) == "v"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("low", [-10.0, -40.0, -200.0])
def test_the_ode_goes_where_a_constant_prediction_leads(dtype, low):
    """Of a constant x_0 the ODE is linear: (x - a x_0) / sigma stays as it is."""
    x, high = start(dtype), 4.0
    got = sa.probability_flow(denoiser("x_0", dtype), x, (low, high))
    ends = torch.tensor([low, high], dtype=torch.float64)
    (a, b), (s, r) = torch.sigmoid(ends).sqrt(), torch.sigmoid(-ends).sqrt()
    said = denoiser("x_0", dtype).network.answer.detach().double()
    want = b * said + r * (x.double() - a * said) / s
    tolerance = 1e-4 + torch.finfo(dtype).eps
    torch.testing.assert_close(got.double(), want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_odes_right_side_is_the_same_in_all_terms(dtype):
    x = start(dtype)
    for low in (-200.0, -10.0, 0.0, 5.0):
        log_snr = torch.tensor(low, dtype=torch.float64)
        a, sigma = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()
        said = denoiser("x_0", dtype).network.answer.detach().double()
        want = {
            "x_0": a / 2 * (said - a * x.double()),
            "v": -a * sigma / 2 * said.expand(5, 2),
            "eps": sigma / 2 * (sigma * x.double() - said),
        }
        for prediction in want:
            got = sa.ode_velocity(denoiser(prediction, dtype), x, log_snr)
            assert got.dtype == dtype
            atol = 4 * torch.finfo(dtype).eps
            torch.testing.assert_close(got.double(), want[prediction], rtol=0, atol=atol)


class Converted:
    """A denoiser that predicts x_0, put as another prediction; in float64."""

    def __init__(self, prediction):
        self.prediction = prediction

    def predict(self, x_t, log_snr, wanted="eps", *, label=None):
        x_0 = torch.tanh(x_t) + 0.2
        return convert(x_0, x_t, log_snr, given="x_0", wanted=wanted)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction", ["x_0", "v"])
def test_steps_in_other_terms_are_the_same_steps(name, prediction):
    schedule = sc.linear(1000).respaced([1, 40, 200, 201, 600, 1000])
    x = start(torch.float64)
    got, want = (sampled(name, Converted(p), x, schedule) for p in (prediction, "eps"))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("prediction", ["x_0", "v"])
def test_bounds_in_other_terms_are_the_same_bounds(prediction):
    schedule = sc.linear(1000).respaced([1, 40, 200, 201, 600, 1000])
    x, decoder = start(torch.float64), bound.GaussianDecoder()
    for of in (
        lambda p: bound.elbo(Converted(p), x, schedule, seeded(2), decoder=decoder),
        lambda p: bound.elbo(
            Converted(p), x, schedule, seeded(2), decoder=decoder, reverse_variance="beta"
        ),
        lambda p: bound.continuous_elbo(
            Converted(p), x, sc.cosine_log_snr(8, -8), seeded(2), decoder=decoder
        ),
    ):
        torch.testing.assert_close(of(prediction).elbo, of("eps").elbo, rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("low", LOWEST)
def test_the_bound_of_a_predicted_datum_holds_at_every_level(dtype, low):
    """The step from almost nothing but noise: half the rise of SNR times the error of x_0."""
    x_0, eps = start(dtype), torch.randn(5, 2, generator=seeded(3), dtype=dtype)
    schedule = levels(2.0, low)
    got = bound.step_term(denoiser("x_0", dtype), x_0, schedule, 2, eps)
    said = denoiser("x_0", dtype).network.answer.detach().double()
    rise = math.exp(2.0) - math.exp(low)
    want = rise / 2 * (x_0.double() - said).square().sum(1)
    torch.testing.assert_close(got, want, rtol=20 * torch.finfo(dtype).eps, atol=0)


def test_exact_data_are_sampled_from_any_level():
    """From log-SNR -200 one step leads to the mean, since nothing is known of the datum."""
    data = clouds.mixture()
    got = sa.ddim(data, start(torch.float64), levels(-200.0))
    mean = (data.weights[:, None] * data.means).sum(0).expand(5, 2)
    torch.testing.assert_close(got, mean, rtol=0, atol=1e-12)


def test_a_flow_is_sampled_from_any_level():
    flow = FlowNetwork(Says(torch.float32))
    got = sa.ddim(flow, start(torch.float32), levels(-200.0))
    # The state is noise there, and the velocity is noise less datum.
    want = start(torch.float64) - torch.tensor(SAYS, dtype=torch.float64)
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-6)


def test_a_conversion_that_its_dtype_has_no_number_for_is_refused():
    x = start(torch.float16)
    with pytest.raises(ValueError, match=r"x_0 from eps takes numbers of torch.float16.*factor of"):
        convert(x, x, -40.0, given="eps", wanted="x_0")
    assert convert(x, x, -20.0, given="eps", wanted="x_0").dtype == torch.float16


def test_what_is_not_finite_at_the_end_is_refused():
    for model in (denoiser("x_0", torch.float64), denoiser("eps", torch.float64)):
        with torch.no_grad():
            model.network.answer.mul_(math.inf)
        for name in SAMPLERS:
            with pytest.raises(ArithmeticError, match="expected finite numbers, got"):
                sampled(name, model, start(torch.float64), levels(2.0, -2.0))


def test_another_name_of_what_is_predicted_is_refused():
    with pytest.raises(ValueError, match=r"denoiser.prediction is 'noise': expected 'eps', 'x_0'"):
        sa.ddim(Converted("noise"), start(torch.float64), levels(-2.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("prediction", ["x_0", "eps", "v"])
def test_losses_are_finite_in_every_dtype(dtype, prediction):
    model, x = denoiser(prediction, dtype), start(dtype)
    for weighting in ("simple", "elbo"):
        loss = denoising_loss(
            model, x, seeded(), log_snr_of_time=sc.cosine_log_snr(8, -10), weighting=weighting
        )
        assert loss.dtype == dtype
        assert loss.isfinite()

"""Schedules: indexed by the step, accurate at both ends, refused where they are wrong."""

import math
from decimal import Decimal, getcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evidence.diffusion.schedule import (
    LearnedLogSNR,
    Schedule,
    at_step,
    cosine,
    cosine_log_snr,
    discretize,
    from_log_snr,
    linear,
    linear_log_snr,
)

CONTINUOUS = [
    linear_log_snr(20, -20), cosine_log_snr(20, -20), LearnedLogSNR(20, -20, seed=1),
    linear_log_snr(3.5, -1), cosine_log_snr(3.5, -1), LearnedLogSNR(3.5, -1, hidden=3, seed=2),
]  # fmt: skip


def float64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_linear_schedule_against_plain_arithmetic():
    num_steps, schedule = 1000, linear()
    abar_before, abar = 1.0, 1.0
    assert schedule.num_steps == num_steps
    for t in range(1, num_steps + 1):
        beta = 1e-4 + (0.02 - 1e-4) * (t - 1) / (num_steps - 1)
        abar_before, abar = abar, abar * (1 - beta)
        true = {
            "beta": beta,
            "alpha": 1 - beta,
            "alpha_bar": abar,
            "snr": abar / (1 - abar),
            "sigma": math.sqrt(1 - abar),
            "sqrt_alpha_bar": math.sqrt(abar),
            "posterior_variance": beta * (1 - abar_before) / (1 - abar),
        }
        for name, value in true.items():
            assert getattr(schedule, name)[t].item() == pytest.approx(value, rel=1e-11, abs=0), (
                name,
                t,
            )


def test_step_0_is_the_datum():
    for schedule in (linear(10), cosine(10), from_log_snr(float64(1.0))):
        assert schedule.alpha_bar[0] == schedule.alpha[0] == schedule.sqrt_alpha_bar[0] == 1
        assert schedule.beta[0] == schedule.sigma[0] == schedule.sigma_squared[0] == 0
        assert schedule.snr[0] == schedule.log_snr[0] == math.inf
        assert schedule.posterior_variance[0].isnan()
        assert schedule.posterior_variance[1] == 0
        for name in ("beta", "alpha", "snr", "log_snr", "sigma", "posterior_variance"):
            value = getattr(schedule, name)
            assert value.shape == (schedule.num_steps + 1,)
            assert value.dtype == torch.float64


def test_how_much_of_the_datum_is_left_in_published_schedules():
    assert linear().sqrt_alpha_bar[-1].item() == pytest.approx(0.0064, abs=5e-5)
    # The same two ends over 300 steps, as tutorials have it, leave 34 times as much.
    assert linear(300).sqrt_alpha_bar[-1].item() == pytest.approx(0.22, abs=5e-3)


def test_the_cosine_schedule_is_the_squared_cosine_until_its_last_step():
    schedule = cosine(50)
    f = [math.cos((t / 50 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(51)]
    for t in range(1, 50):
        assert schedule.alpha_bar[t].item() == pytest.approx(f[t] / f[0], rel=1e-11, abs=0)
    assert schedule.beta[50].item() == pytest.approx(0.999, rel=1e-12, abs=0)


# Thousandths, so that no two are nearly equal.
@given(st.lists(st.integers(-20_000, 20_000), min_size=1, max_size=8, unique=True))
def test_all_quantities_are_accurate_to_rounding_at_both_ends(values):
    getcontext().prec = 60
    values = sorted((value / 1000 for value in values), reverse=True)
    schedule = from_log_snr(float64(*values))
    abar = [Decimal(1)] + [1 / (1 + (-Decimal(value)).exp()) for value in values]

    def check(name, t, expected, rel=1e-13):
        assert getattr(schedule, name)[t].item() == pytest.approx(
            float(expected), rel=rel, abs=0
        ), (
            name,
            t,
        )

    for t in range(1, len(abar)):
        beta = 1 - abar[t] / abar[t - 1]
        check("alpha_bar", t, abar[t])
        check("sigma_squared", t, 1 - abar[t])
        check("sigma", t, (1 - abar[t]).sqrt())
        check("snr", t, abar[t] / (1 - abar[t]))
        # A small beta is a difference of two logarithms, known to 1e-15 of these.
        check("beta", t, beta, rel=max(1e-13, 1e-14 / float(beta)) if t > 1 else 1e-13)
        check("alpha", t, 1 - beta)


@pytest.mark.parametrize("log_snr_of_time", CONTINUOUS)
def test_continuous_schedules_fall_between_their_ends(log_snr_of_time):
    tau = torch.linspace(0, 1, 501, dtype=torch.float64)
    level = log_snr_of_time(tau).detach()
    high, low = (20.0, -20.0) if level[0] > 10 else (3.5, -1.0)
    assert (level.diff() < 0).all()
    assert level[0].item() == pytest.approx(high, abs=1e-9)
    assert level[-1].item() == pytest.approx(low, abs=1e-9)
    chain = discretize(log_snr_of_time, 501)
    torch.testing.assert_close(chain.log_snr[1:].detach(), level, rtol=0, atol=0)


def test_the_cosine_of_continuous_time_moves_at_constant_speed_on_the_circle():
    tau = torch.linspace(0, 1, 101, dtype=torch.float64)
    chain = from_log_snr(cosine_log_snr(8, -6)(tau))
    angle = torch.atan2(chain.sigma[1:], chain.sqrt_alpha_bar[1:])
    assert (angle.diff().diff().abs() < 1e-13).all()


def test_a_learned_schedule_falls_whatever_its_parameters_and_has_gradients():
    model = LearnedLogSNR(seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    chain = model.discretize(20)
    assert (chain.log_snr.diff() < 0).all()
    (chain.beta.sum() + chain.posterior_variance[1:].sum() + chain.sigma.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name
    same, other = LearnedLogSNR(seed=3), LearnedLogSNR(seed=4)
    assert (LearnedLogSNR(seed=3).raw_in == same.raw_in).all()
    assert (other.raw_in != same.raw_in).any()
    assert not LearnedLogSNR(learn_ends=False).highest.requires_grad


def test_respaced_keeps_the_noise_levels_and_renumbers_the_steps():
    schedule = linear(100)
    few = schedule.respaced([1, 10, 100])
    assert few.num_steps == 3
    assert torch.equal(few.alpha_bar, schedule.alpha_bar[[0, 1, 10, 100]])
    assert torch.equal(few.log_snr, schedule.log_snr[[0, 1, 10, 100]])
    assert few.beta[2].item() == pytest.approx(
        1 - schedule.alpha[2:11].prod().item(), rel=1e-12, abs=0
    )
    same = schedule.respaced(range(1, 101))
    torch.testing.assert_close(same.beta, schedule.beta, rtol=1e-12, atol=0)


def test_at_step_looks_up_the_step_itself():
    schedule = linear(10)
    x = torch.zeros(3, 2, 4, 4)
    value = at_step(schedule.beta, torch.tensor([1, 10, 5]), x)
    assert value.shape == (3, 1, 1, 1)
    assert value.dtype == torch.float32
    assert value.flatten().tolist() == schedule.beta[[1, 10, 5]].float().tolist()
    assert at_step(schedule.beta, 7, x).shape == ()
    assert at_step(schedule.beta, 7, x.double()) == schedule.beta[7]
    with pytest.raises(ValueError, match=r"t has shape \(2,\) and x \(3,"):
        at_step(schedule.beta, torch.tensor([1, 2]), x)


@pytest.mark.parametrize(
    ("alpha_bar", "error", "message"),
    [
        ([1.0, 0.5], TypeError, "accepted is a float64 tensor"),
        (torch.tensor([1.0, 0.5]), TypeError, "torch.float32"),
        (float64(1.0), ValueError, r"shape \(1,\)"),
        (float64(0.9, 0.5), ValueError, r"alpha_bar\[0\] = 0.9"),
        (float64(1.0, 0.5, 0.5, 0.2), ValueError, r"alpha_bar\[2\] = 0.5 after alpha_bar\[1\]"),
        (float64(1.0, 0.5, 0.6), ValueError, r"alpha_bar\[2\] = 0.6"),
        (float64(1.0, 1.0), ValueError, r"alpha_bar\[1\] = 1.0"),
        (float64(1.0, 0.5, 0.0), ValueError, r"alpha_bar\[2\] = 0.0"),
        (float64(1.0, math.nan, 0.1), ValueError, r"alpha_bar\[1\] = nan"),
    ],
)
def test_bad_alpha_bar_is_refused(alpha_bar, error, message):
    with pytest.raises(error, match=message):
        Schedule(alpha_bar)


def test_a_log_snr_that_contradicts_alpha_bar_is_refused():
    alpha_bar = float64(1.0, 0.5, 0.2)
    good = Schedule(alpha_bar).log_snr
    assert Schedule(alpha_bar, good).log_snr is good
    for log_snr, message in (
        (good + float64(0, 1e-9, 0), r"log_snr\[1\]"),
        (float64(40.0, good[1], good[2]), r"log_snr\[0\] = 40"),
        (good[:2], "shape"),
    ):
        with pytest.raises(ValueError, match=message):
            Schedule(alpha_bar, log_snr)
    with pytest.raises(TypeError, match="float32"):
        Schedule(alpha_bar, good.float())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: linear(0), ValueError, "num_steps = 0"),
        (lambda: linear(10.0), TypeError, "num_steps is 10.0"),
        (lambda: linear(True), TypeError, "num_steps is True"),
        (lambda: linear(10, first=0.0), ValueError, "first = 0.0"),
        (lambda: linear(10, last=1.0), ValueError, "last = 1.0"),
        (lambda: cosine(10, offset=-0.1), ValueError, "offset = -0.1"),
        (lambda: cosine(10, largest_beta=1.0), ValueError, "largest_beta = 1.0"),
        (lambda: cosine(0), ValueError, "num_steps = 0"),
        (lambda: discretize(linear_log_snr(), 1), ValueError, "num_steps = 1"),
        (lambda: discretize(lambda tau: tau, 5), ValueError, "log_snr of t = 2"),
        (lambda: from_log_snr(torch.zeros(2)), TypeError, "torch.float32"),
        (lambda: from_log_snr(float64(1.0, 1.0)), ValueError, "log_snr of t = 2 is 1.0"),
        (lambda: from_log_snr(float64(math.inf, 1.0)), ValueError, "log_snr of t = 1 is inf"),
        (lambda: from_log_snr(float64(40.0, 1.0)), ValueError, r"alpha_bar\[1\] = 1.0"),
        (lambda: linear_log_snr(1, 1), ValueError, "lowest < highest"),
        (lambda: cosine_log_snr(-1, 1), ValueError, "lowest < highest"),
        (lambda: LearnedLogSNR(math.inf, 1), ValueError, "lowest < highest"),
        (lambda: LearnedLogSNR(hidden=0), ValueError, "hidden = 0"),
        (lambda: linear(9).respaced([]), ValueError, "steps is empty"),
        (lambda: linear(9).respaced([0, 3]), ValueError, r"steps\[0\] = 0"),
        (lambda: linear(9).respaced([3, 3]), ValueError, r"steps\[1\] = 3 after 3"),
        (lambda: linear(9).respaced([3, 10]), ValueError, r"steps\[1\] = 10"),
        (lambda: linear(9).respaced([1.0]), TypeError, r"steps\[0\] is 1.0"),
    ],
)
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("t", "error", "message"),
    [
        (0, ValueError, "t = 0; accepted are steps from 1 to 5"),
        (6, ValueError, "t = 6"),
        (-1, ValueError, "t = -1"),
        (1.0, TypeError, "t is 1.0"),
        (True, TypeError, "t is True"),
        (torch.tensor([1, 6]), ValueError, "t = 6"),
        (torch.tensor(3), ValueError, r"shape \(\)"),
        (torch.tensor([1, 2], dtype=torch.int32), TypeError, "int32"),
    ],
)
def test_bad_steps_are_refused(t, error, message):
    with pytest.raises(error, match=message):
        linear(5).check_steps(t)

"""What the diffusion modules accept: whole numbers of any kind, and data that can be noised."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from evidence.diffusion import bound, clouds, flow_matching, process, sampling
from evidence.diffusion.arguments import as_whole_number
from evidence.diffusion.guidance import Guided
from evidence.diffusion.losses import denoising_loss
from evidence.diffusion.networks import ImageNetwork, VectorNetwork, time_embedding
from evidence.diffusion.prediction import NetworkDenoiser
from evidence.diffusion.schedule import (
    LearnedLogSNR,
    cosine,
    cosine_log_snr,
    discretize,
    from_log_snr,
    linear,
)

DATA = clouds.mixture()
SCHEDULE = linear(10, 0.01, 0.4)


def seeded():
    return torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(shape, generator=seeded(), dtype=torch.float64)


# Whole numbers. ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        range(1, 11, 3),
        (1, 4, 7, 10),
        np.arange(1, 11, 3),
        np.arange(1, 11, 3, dtype=np.uint8),
        torch.arange(1, 11, 3),
        torch.arange(1, 11, 3, dtype=torch.int32),
        [np.int64(1), 4, torch.tensor(7), np.int32(10)],
    ],
    ids=repr,
)
def test_steps_of_every_kind_are_kept(steps):
    kept = SCHEDULE.respaced(steps)
    assert torch.equal(kept.alpha_bar, SCHEDULE.alpha_bar[[0, 1, 4, 7, 10]])
    assert torch.equal(kept.log_snr, SCHEDULE.log_snr[[0, 1, 4, 7, 10]])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (np.array([1.0, 2.0]), r"steps\[0\] is .*1.0.*; accepted are ints"),
        (torch.tensor([1.0]), r"steps\[0\] is tensor\(1.\); accepted are ints"),
        (np.array([True, True]), r"steps\[0\] is .*True.*; accepted are ints"),
        (torch.tensor([True]), r"steps\[0\] is tensor\(True\); accepted are ints"),
        ([True, 2], r"steps\[0\] is True; accepted are ints"),
        (np.array([[1, 2]]), r"steps\[0\] is array\(\[1, 2\]\); accepted are ints"),
        (torch.tensor([[1]]), r"steps\[0\] is tensor\(\[1\]\); accepted are ints"),
        (np.array(5), r"steps is array\(5\); accepted is a sequence of ints"),
        (torch.tensor(5), r"steps is tensor\(5\); accepted is a sequence of ints"),
        (5, r"steps is 5; accepted is a sequence of ints"),
    ],
)
def test_what_are_no_steps_is_refused(steps, message):
    with pytest.raises(TypeError, match=message):
        SCHEDULE.respaced(steps)


WHOLE = {
    "linear": lambda n: linear(n(3)).alpha_bar,
    "cosine": lambda n: cosine(n(3)).alpha_bar,
    "discretize": lambda n: discretize(cosine_log_snr(), n(3)).alpha_bar,
    "LearnedLogSNR": lambda n: LearnedLogSNR(hidden=n(3))(normal(2).sigmoid()).detach(),
    "diffuse": lambda n: process.diffuse(normal(2, 2), normal(2, 2), SCHEDULE, n(3)),
    "step_term": lambda n: bound.step_term(DATA, normal(2, 2), SCHEDULE, n(3), normal(2, 2)),
    "ddim_step": lambda n: sampling.ddim_step(normal(2, 2), normal(2, 2), SCHEDULE, n(3)),
    "num_times": lambda n: (
        bound.elbo(
            DATA, normal(2, 2), SCHEDULE, seeded(), decoder=bound.GaussianDecoder(), num_times=n(3)
        ).elbo
    ),
    "bits_per_dim": lambda n: bound.bits_per_dim(normal(2), n(3)),
    "a shape": lambda n: sampling.ancestral(
        NetworkDenoiser(VectorNetwork(2, 4, 1)), (n(3), n(2)), SCHEDULE, seeded()
    ),
    "num_probes": lambda n: (
        sampling.ode_log_likelihood(
            DATA,
            normal(2, 2),
            highest=1,
            lowest=-1,
            trace="hutchinson",
            num_probes=n(3),
            generator=seeded(),
        ).log_prob
    ),
    "integrate": lambda n: flow_matching.integrate(lambda x, tau: x, normal(2, 2), n(3)),
    "time_embedding": lambda n: time_embedding(normal(2), n(6)),
    "VectorNetwork": lambda n: next(VectorNetwork(n(3), n(4), n(1)).parameters()).detach(),
    "ImageNetwork": lambda n: next(ImageNetwork(n(1), (n(3), n(2)), n(4)).parameters()).detach(),
    "Guided": lambda n: Guided(DATA, n(2), 2.0).predict(normal(2, 2), 0.0),
    "moons": lambda n: clouds.moons(n(3), seeded()),
    "shape": lambda n: clouds.shape(n(3), seeded()),
}


@pytest.mark.parametrize("kind", [np.int64, np.uint8], ids=["int64", "uint8"])
@pytest.mark.parametrize("name", WHOLE)
def test_numbers_of_numpy_are_whole_numbers_too(name, kind):
    torch.testing.assert_close(WHOLE[name](kind), WHOLE[name](int), rtol=0, atol=0)


@pytest.mark.parametrize("name", WHOLE)
def test_a_float_is_no_whole_number_even_if_it_is_whole(name):
    with pytest.raises((TypeError, ValueError), match="accepted"):
        WHOLE[name](float)


def test_truth_values_and_vectors_are_no_whole_numbers():
    for value in (True, np.bool_(True), torch.tensor(True), torch.tensor([2]), 2.0, "2", None):
        assert as_whole_number(value) is None
    for value in (2, np.int8(2), torch.tensor(2), torch.tensor(2, dtype=torch.uint8)):
        assert as_whole_number(value) == 2
        assert type(as_whole_number(value)) is int


# Data. ---------------------------------------------------------------------------------------

MODEL = NetworkDenoiser(VectorNetwork(2, 4, 1, num_labels=3), "x_0")
FLOW = flow_matching.FlowNetwork(VectorNetwork(2, 4, 1))
LEVELS = cosine_log_snr(6, -6)
GAUSSIAN = bound.GaussianDecoder()

TAKES_DATA = {
    "denoising_loss": lambda x: denoising_loss(MODEL, x, seeded(), log_snr_of_time=LEVELS),
    "denoising_loss of steps": lambda x: denoising_loss(MODEL, x, seeded(), schedule=SCHEDULE),
    "flow_loss": lambda x: flow_matching.flow_loss(FLOW, x, seeded()),
    "straight_path": lambda x: flow_matching.straight_path(x, x, 0.5),
    "integrate": lambda x: flow_matching.integrate(lambda x, tau: x, x, 2),
    "elbo": lambda x: bound.elbo(MODEL, x, SCHEDULE, seeded(), decoder=GAUSSIAN),
    "continuous_elbo": lambda x: bound.continuous_elbo(
        MODEL, x, LEVELS, seeded(), decoder=GAUSSIAN
    ),
    "prior_term": lambda x: bound.prior_term(x, SCHEDULE),
    "step_term": lambda x: bound.step_term(MODEL, x, SCHEDULE, 2, x),
    "reconstruction_term": lambda x: bound.reconstruction_term(MODEL, x, SCHEDULE, x, GAUSSIAN),
    "diffuse": lambda x: process.diffuse(x, x, SCHEDULE, 2),
    "q_x_t": lambda x: process.q_x_t(x, SCHEDULE, 2),
    "q_step": lambda x: process.q_step(x, SCHEDULE, 2),
    "q_before": lambda x: process.q_before(x, x, SCHEDULE, 2),
}


@pytest.mark.parametrize("name", TAKES_DATA)
def test_what_cannot_be_noised_is_refused_at_the_entry(name):
    call, x = TAKES_DATA[name], normal(4, 2).float()
    call(x)
    for bad in (torch.nan, torch.inf):
        spoiled = x.clone()
        spoiled[2, 1] = bad
        with pytest.raises(ValueError, match=rf"expected finite numbers, got 1 .*\(2, 1\): {bad}"):
            call(spoiled)
    with pytest.raises(TypeError, match=r"expected floating point, got torch.uint8.*127.5"):
        call((100 * x.abs()).to(torch.uint8))
    with pytest.raises(TypeError, match=r"expected a tensor \(batch, \.\.\.\), got a ndarray"):
        call(x.numpy())
    with pytest.raises(ValueError, match=r"has shape \(0, 2\); accepted is \(batch, \.\.\.\)"):
        call(x[:0])


def test_large_numbers_are_finite_though_their_sum_is_not():
    x = torch.full((4, 2), 3e38)
    assert process.diffuse(x, x, SCHEDULE, 1).isfinite().any()


@pytest.mark.parametrize("levels", [{"log_snr_of_time": LEVELS}, {"schedule": linear(1000)}])
def test_raw_grey_levels_are_refused_by_the_loss(levels):
    grey = torch.arange(256.0).reshape(-1, 2)
    with pytest.raises(ValueError, match=r"expected data of about unit size, got .* size 255"):
        denoising_loss(MODEL, grey, seeded(), **levels)
    assert denoising_loss(MODEL, grey / 127.5 - 1, seeded(), **levels).isfinite()
    # A chain whose noise covers them is another matter.
    far = {"log_snr_of_time": cosine_log_snr(6, -16)}
    assert denoising_loss(MODEL, grey, seeded(), **far).isfinite()


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (lambda x: (x, torch.zeros(4)), TypeError, r"label: expected an int64 tensor .*float32"),
        (lambda x: (x, [0, 1, 2, 0]), TypeError, r"label: expected an int64 tensor .*\[0, 1"),
        (lambda x: (x, torch.zeros(3, dtype=torch.int64)), ValueError, r"got \(3,\)"),
        (lambda x: (x, torch.eye(4, dtype=torch.int64)), ValueError, r"got \(4, 4\)"),
        (lambda x: (x,), ValueError, "got a tuple of 1"),
    ],
)
def test_labels_of_another_kind_are_refused_by_the_losses(batch, error, message):
    x = normal(4, 2).float()
    for call in (
        partial(denoising_loss, MODEL, log_snr_of_time=LEVELS),
        partial(flow_matching.flow_loss, FLOW),
    ):
        with pytest.raises(error, match=message):
            call(batch=batch(x), generator=seeded())


@pytest.mark.parametrize("as_images", [False, True])
@pytest.mark.parametrize(
    ("spoil", "got"),
    [
        (lambda x: (x + 1) * 127.5, "got 255 among numbers from 0 to 255"),
        (lambda x: (x + 1) / 2, "among numbers from"),
        (lambda x: x * 1.5, "among numbers from"),
        (lambda x: x + 0.002, "among numbers from"),
    ],
)
def test_a_decoder_of_grey_levels_refuses_others_before_the_chain_is_gone_through(
    spoil, got, as_images
):
    class Never:
        def predict(self, x_t, log_snr, wanted="eps", *, label=None):
            raise AssertionError("the denoiser was asked")

    x = 2 * torch.tensor([[0, 10, 128], [255, 77, 254]]) / 255 - 1
    x = x[:, None, :, None] if as_images else x
    decoder = bound.DiscretizedGaussianDecoder()
    decoder.check_data(x)
    for call in (
        lambda y: bound.elbo(Never(), y, SCHEDULE, seeded(), decoder=decoder),
        lambda y: bound.continuous_elbo(Never(), y, LEVELS, seeded(), decoder=decoder),
        lambda y: bound.reconstruction_term(Never(), y, SCHEDULE, y, decoder),
    ):
        with pytest.raises(ValueError, match=rf"expected 256 levels from -1 to 1.*{got}"):
            call(spoil(x))


def test_noise_and_states_are_of_the_kind_of_the_data():
    with pytest.raises(TypeError, match="eps: expected a tensor like x_0"):
        process.diffuse(normal(2, 2), None, SCHEDULE, 1)
    with pytest.raises(ValueError, match=r"eps: expected the shape and dtype of x_0"):
        flow_matching.straight_path(normal(2, 2), normal(2, 1), 0.5)
    x = torch.ones(2, 2, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"x_t: expected floating point, got torch.int64"):
        sampling.ddim_step(x, x, from_log_snr(normal(1)), 1)

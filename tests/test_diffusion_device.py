"""A device without float64: everything runs there, and computes what the CPU computes."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from half_device import DEVICE, DeviceGenerator, OnDevice, Pretend, to_device
from torch.distributions import Normal

from evidence import likelihood
from evidence.diffusion import bound, flow_matching, process, sampling
from evidence.diffusion.guidance import Guided
from evidence.diffusion.losses import denoising_loss
from evidence.diffusion.networks import VectorNetwork
from evidence.diffusion.prediction import NetworkDenoiser
from evidence.diffusion.schedule import cosine_log_snr, discretize
from evidence.precision import double_device

LEVELS = cosine_log_snr(6.0, -6.0)
SCHEDULE = discretize(LEVELS, 5)
X = torch.linspace(-1, 1, 8).reshape(4, 2)
LABEL = torch.tensor([0, 1, 2, 0])


def shaken(make):
    model = make()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model


def denoiser(prediction="eps", num_labels=0):
    return shaken(
        lambda: NetworkDenoiser(
            VectorNetwork(2, 8, 1, condition=8, num_labels=num_labels), prediction
        )
    )


def flow():
    return shaken(lambda: flow_matching.FlowNetwork(VectorNetwork(2, 8, 1, condition=8)))


@pytest.fixture(autouse=True)
def _nothing_is_known_of_the_device():
    double_device.cache_clear()
    yield
    double_device.cache_clear()


class Line:
    """A model of evidence: z is normal, x is z with noise."""

    def q_z(self, x):
        return Normal(x[:, :1] / 2, torch.full_like(x[:, :1], 0.8))

    def log_joint(self, x, z):
        one = torch.ones_like(z)
        prior = Normal(torch.zeros_like(z), one).log_prob(z).sum(-1)
        return prior + Normal(z, one).log_prob(x[:, :1]).sum(-1)


def terms(found):
    return torch.stack([found.prior, found.steps, found.reconstruction])


def loss_and_gradient(model, loss, batch, generator):
    value = loss(model, batch, generator)
    value.backward()
    return torch.cat([value.detach().reshape(1), *(p.grad.flatten() for p in model.parameters())])


def step(schedule=None, weighting="simple", prediction="eps", labels=False):
    loss = partial(
        denoising_loss,
        weighting=weighting,
        **({"schedule": schedule} if schedule else {"log_snr_of_time": LEVELS}),
    )
    make = partial(denoiser, prediction, 3 if labels else 0)

    def call(model, x, generator):
        label = to_device(LABEL) if isinstance(x, OnDevice) else LABEL
        return loss_and_gradient(model, loss, (x, label) if labels else x, generator)

    return make, call


GAUSSIAN = bound.GaussianDecoder()
CASES = {
    "loss": step(),
    "loss elbo": step(weighting="elbo", prediction="v"),
    "loss with labels": step(labels=True),
    "loss of steps": step(SCHEDULE),
    "loss of steps, elbo": step(SCHEDULE, "elbo", "x_0"),
    "flow loss": (flow, lambda m, x, g: loss_and_gradient(m, flow_matching.flow_loss, x, g)),
    "predict": (denoiser, lambda m, x, g: m.predict(x, 1.5, "v").detach()),
    "predict, levels on the device": (
        denoiser,
        lambda m, x, g: m.predict(x, x[:, 0] * 3, "x_0").detach(),
    ),
    "ancestral": (denoiser, lambda m, x, g: sampling.ancestral(m, x, SCHEDULE, g)),
    "ancestral from a shape": (
        denoiser,
        lambda m, x, g: sampling.ancestral(m, (4, 2), SCHEDULE, g, reverse_variance="beta"),
    ),
    "ddim": (partial(denoiser, "x_0"), lambda m, x, g: sampling.ddim(m, x, SCHEDULE)),
    "ddim with noise": (
        partial(denoiser, "v"),
        lambda m, x, g: sampling.ddim(m, x, SCHEDULE, eta=0.5, generator=g, trajectory=True),
    ),
    "heun": (partial(denoiser, "v"), lambda m, x, g: sampling.heun(m, x, SCHEDULE)),
    "guided": (
        partial(denoiser, "x_0", 3),
        lambda m, x, g: sampling.ddim(Guided(m, 1, 2.0), x, SCHEDULE),
    ),
    "probability flow": (denoiser, lambda m, x, g: sampling.probability_flow(m, x, (-1, 1))),
    "ode likelihood": (
        denoiser,
        lambda m, x, g: (
            sampling.ode_log_likelihood(m, x, highest=1, lowest=-1, rtol=1e-3, atol=1e-3).log_prob
        ),
    ),
    "ode likelihood by probes": (
        denoiser,
        lambda m, x, g: (
            sampling.ode_log_likelihood(
                m,
                x,
                highest=1,
                lowest=-1,
                rtol=1e-3,
                atol=1e-3,
                trace="hutchinson",
                num_probes=3,
                generator=g,
            ).log_prob
        ),
    ),
    "bound": (
        denoiser,
        lambda m, x, g: terms(bound.elbo(m, x, SCHEDULE, g, decoder=GAUSSIAN)).detach(),
    ),
    "bound of some steps": (
        partial(denoiser, "v"),
        lambda m, x, g: terms(
            bound.elbo(m, x, SCHEDULE, g, decoder=GAUSSIAN, num_times=2)
        ).detach(),
    ),
    "bound of grey levels": (
        denoiser,
        lambda m, x, g: terms(
            bound.elbo(m, x.sign(), SCHEDULE, g, decoder=bound.DiscretizedGaussianDecoder(levels=2))
        ).detach(),
    ),
    "continuous bound": (
        partial(denoiser, "x_0"),
        lambda m, x, g: terms(
            bound.continuous_elbo(m, x, LEVELS, g, decoder=GAUSSIAN, num_times=3)
        ).detach(),
    ),
    "flow by its velocity": (flow, lambda m, x, g: flow_matching.integrate(m, x, 3, "heun")),
    "flow by a sampler": (flow, lambda m, x, g: sampling.ddim(m, x, SCHEDULE)),
    "velocity of a denoiser": (
        denoiser,
        lambda m, x, g: flow_matching.velocity_from(m, x, 0.3).detach(),
    ),
    "forward chain": (
        denoiser,
        lambda m, x, g: torch.cat(
            [
                process.diffuse(x, x, SCHEDULE, 3),
                process.q_x_t(x, SCHEDULE, 2).stddev,
                process.q_step(x, SCHEDULE, 2).mean,
                process.q_before(x, x, SCHEDULE, torch.tensor([2, 3, 4, 5])).mean,
            ]
        ),
    ),
    "importance sampling": (
        Line,
        lambda m, x, g: likelihood.importance_sampled(m, x, num_samples=6, generator=g).log_p_x,
    ),
    "annealing": (
        Line,
        lambda m, x, g: (
            likelihood.annealed(m, x, num_temperatures=3, num_chains=4, generator=g).log_p_x
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_runs_without_float64_on_the_device_and_agrees_with_the_cpu(case):
    make, call = CASES[case]
    model = make()
    with Pretend():
        there = copy.deepcopy(model)
        if isinstance(there, torch.nn.Module):
            there = to_device(there)
        got = call(there, to_device(X), DeviceGenerator().manual_seed(0))
        got = got.cpu().double() if isinstance(got, OnDevice) else got.double()
    # The times are drawn in float32 there, so the comparison draws them so too.
    with pytest.MonkeyPatch.context() as patch:
        for name in ("losses", "bound"):
            module = __import__(f"evidence.diffusion.{name}", fromlist=[name])
            patch.setattr(module, "stratified_uniform", times_of_float32)
        want = call(model, X, torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)


def times_of_float32(num_samples, generator, *, shape=(), dtype=None):
    within = torch.rand(num_samples, *shape, generator=generator).to(dtype)
    parts = torch.arange(num_samples, dtype=dtype).view(-1, *[1] * len(shape))
    return (parts + within) / num_samples


def test_the_pretended_device_refuses_what_a_mac_refuses():
    with Pretend():
        x = to_device(X)
        assert x.device == DEVICE
        assert (x + 1).device == DEVICE
        assert x.cpu().double().dtype == torch.float64
        for make in (
            x.double,
            lambda: torch.zeros(2, dtype=torch.float64, device=DEVICE),
            lambda: X.double().to(DEVICE),
            lambda: x.sum(1, dtype=torch.float64),
            lambda: torch.as_tensor(x, dtype=torch.float64, device="cpu"),
        ):
            with pytest.raises(TypeError, match="doesn't support float64"):
                make()
        with pytest.raises(RuntimeError, match="tensors on the CPU and on the device"):
            x + X

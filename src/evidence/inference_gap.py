r"""How much of the gap between ELBO and log p(x) is whose fault.

.. math:: \log p_\theta(x) - \mathcal L(q_\phi) =
          \underbrace{\log p_\theta(x) - \mathcal L(q^*)}_{\text{approximation}} +
          \underbrace{\mathcal L(q^*) - \mathcal L(q_\phi)}_{\text{amortization}}

with :math:`q^*` the best Gaussian for this one x: what the family cannot do, and what one encoder
for all x does not do (Cremer, Li and Duvenaud, 2018). `fit_gaussian` finds :math:`q^*`, `split_gap`
all three terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from evidence.likelihood import LogEvidence, Model, encoder_of, importance_sampled

__all__ = ["InferenceGap", "fit_gaussian", "split_gap"]

FIT_SAMPLES = {"diagonal": 64, "full": 256}
"""How many draws a q of each family is fitted to."""


@dataclass(frozen=True)
class InferenceGap:
    """The gap of each x and its two parts, all of shape ``(n,)``, in nats.

    Attributes
    ----------
    encoder : LogEvidence
        From draws of the encoder's q: ``encoder.elbo`` is its ELBO.
    best : LogEvidence
        From draws of the best q of the family: ``best.elbo`` is its ELBO.
    evidence : LogEvidence
        What is taken for log p(x): ``evidence.log_p_x``.
    """

    encoder: LogEvidence
    best: LogEvidence
    evidence: LogEvidence

    @property
    def total(self) -> Tensor:
        """Evidence minus the encoder's ELBO: the divergence of its q to the posterior."""
        return self.evidence.log_p_x - self.encoder.elbo

    @property
    def approximation(self) -> Tensor:
        """Evidence minus the best ELBO of the family."""
        return self.evidence.log_p_x - self.best.elbo

    @property
    def amortization(self) -> Tensor:
        """Best ELBO of the family minus the encoder's."""
        return self.best.elbo - self.encoder.elbo


def split_gap(
    model: Model,
    x: Tensor,
    *,
    generator: torch.Generator,
    family: str = "diagonal",
    q_z: Callable[[Tensor], Distribution] | None = None,
    evidence: LogEvidence | None = None,
    num_samples: int = 1000,
    num_fit_samples: int | None = None,
    max_iterations: int = 200,
) -> InferenceGap:
    """Split the gap of each x into approximation and amortization.

    The ELBOs and the evidence are estimated with new draws, not with those that the best q was
    fitted to.

    Parameters
    ----------
    model : Model
        With ``log_joint(x, z)``, see `evidence.likelihood`.
    x : Tensor
        Shape ``(n, ...)``.
    generator : torch.Generator
        Of all draws.
    family : str
        ``"diagonal"`` or ``"full"``: the covariances among which the best is sought.
    q_z : callable, optional
        The encoder, by default ``model.q_z``.
    evidence : LogEvidence, optional
        An estimate of log p(x). By default that from draws of the best q, which is too low where
        this q is a poor proposal: see its effective sample size, and give that of the family
        ``"full"`` for ``"diagonal"``.
    num_samples : int
        Draws for each x and each estimate.
    num_fit_samples, max_iterations : int
        See `fit_gaussian`.

    Returns
    -------
    InferenceGap
        For each x.

    Raises
    ------
    ValueError
        If the model has no ``q_z`` and none is given, and as `fit_gaussian` and
        `importance_sampled`.
    """
    encoder = (encoder_of(model) if q_z is None else q_z)(x)
    best = fit_gaussian(
        model,
        x,
        start=encoder,
        family=family,
        generator=generator,
        num_samples=num_fit_samples,
        max_iterations=max_iterations,
    )
    of_encoder, of_best = (
        importance_sampled(model, x, q_z=q, num_samples=num_samples, generator=generator)
        for q in (encoder, best)
    )
    return InferenceGap(of_encoder, of_best, of_best if evidence is None else evidence)


def fit_gaussian(
    model: Model,
    x: Tensor,
    *,
    start: Distribution,
    generator: torch.Generator,
    family: str = "diagonal",
    num_samples: int | None = None,
    max_iterations: int = 200,
) -> Distribution:
    r"""Find the Gaussian q with the highest ELBO for each x, by L-BFGS.

    .. math:: \mathcal L = \frac1S \sum_s \log p_\theta(x, \mu + L \varepsilon_s)
              + \log\det L + \frac d2 \log(2 \pi e)

    The same :math:`\varepsilon_s` are used in all iterations, so this is a smooth function. They
    are shifted and turned so that for each x their mean is 0 and their covariance the identity: if
    the log joint is quadratic in z, as in the linear toy, the mean over them is the expectation
    itself, and the q found is exact. Otherwise more samples come nearer.

    Parameters
    ----------
    model : Model
        With ``log_joint(x, z)``, see `evidence.likelihood`.
    x : Tensor
        Shape ``(n, ...)``.
    start : Distribution
        Where the search begins, for all x, as ``model.q_z(x)``: its means and standard deviations.
    generator : torch.Generator
        Of the :math:`\varepsilon_s`.
    family : str
        ``"diagonal"`` or ``"full"``, of the covariance.
    num_samples : int, optional
        S, more than the number of latents; by default 64, and 256 for ``"full"``, whose many more
        numbers follow the noise of few draws.
    max_iterations : int
        Of L-BFGS, over all x together; it stops earlier where nothing improves.

    Returns
    -------
    Distribution
        Batch shape ``(n,)``, over the space of z; it carries no gradient.

    Raises
    ------
    ValueError
        If an argument is out of range, or the ELBO becomes NaN or infinite.
    """
    mu = start.mean.detach().clone()
    log_sigma = start.stddev.detach().log()
    d = mu[0].numel()
    if family not in FIT_SAMPLES:
        raise ValueError(f"family is {family!r}; accepted are 'diagonal' and 'full'")
    if len(mu) != len(x):
        raise ValueError(f"start is over {len(mu)} data; accepted is as many as x, {len(x)}")
    if num_samples is None:
        num_samples = FIT_SAMPLES[family]
    if type(num_samples) is not int or num_samples <= d:
        raise ValueError(
            f"num_samples is {num_samples!r}; accepted are whole numbers above {d}, the number of "
            "latents"
        )
    if type(max_iterations) is not int or max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations!r}; accepted are whole numbers from 1")
    eps = _standardized_noise(num_samples, mu.reshape(len(mu), d), generator)
    below = mu.new_zeros(len(mu), d, d)
    free = [mu, log_sigma, below] if family == "full" else [mu, log_sigma]
    for tensor in free:
        tensor.requires_grad_()

    def tril() -> Tensor:
        return below.tril(-1) + torch.diag_embed(log_sigma.reshape(-1, d).exp())

    optimizer = torch.optim.LBFGS(
        free,
        max_iter=max_iterations,
        history_size=20,
        tolerance_grad=0.0,
        tolerance_change=torch.finfo(mu.dtype).eps,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        if family == "full":
            noise = torch.einsum("nij,knj->kni", tril(), eps).reshape(-1, *mu.shape)
        else:
            noise = log_sigma.exp() * eps.reshape(-1, *mu.shape)
        # In float64, or the search would stop at the rounding of the sum over all x.
        elbo = model.log_joint(x, mu + noise).double().mean(0).sum() + log_sigma.double().sum()
        if not elbo.isfinite():
            raise ValueError(f"the ELBO of start, or of what it led to, is {elbo.item()}")
        # Only towards q: a model's own weights collect no gradient.
        for tensor, gradient in zip(free, torch.autograd.grad(-elbo, free), strict=True):
            tensor.grad = gradient.contiguous()
        return -elbo.detach()

    optimizer.step(loss)
    with torch.no_grad():
        if family == "full":
            return MultivariateNormal(mu.detach().reshape(-1, d), scale_tril=tril().detach())
        best = Normal(mu.detach(), log_sigma.detach().exp())
        return Independent(best, mu.ndim - 1)


def _standardized_noise(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw ``(count, n, d)`` normal numbers; for each x their mean is 0, their covariance I."""
    eps = torch.randn(
        (count, *like.shape), generator=generator, dtype=like.dtype, device=like.device
    )
    eps = eps - eps.mean(0)
    factor = torch.linalg.cholesky(torch.einsum("kni,knj->nij", eps, eps) / count)
    return torch.linalg.solve_triangular(factor, eps.permute(1, 2, 0), upper=False).permute(2, 0, 1)

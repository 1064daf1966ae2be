r"""Data about which a diffusion knows everything: Gaussians and mixtures of Gaussians.

If :math:`x_0` is a mixture with components :math:`\mathcal N(\mu_k, C_k)`, then

.. math:: x_t \mid k \sim \mathcal N(a \mu_k, S_k), \qquad S_k = a^2 C_k + \sigma^2 I, \qquad
          a = \sqrt{\bar\alpha},\ \sigma = \sqrt{1 - \bar\alpha}

and with :math:`u_k = S_k^{-1} (x_t - a \mu_k)` and responsibilities
:math:`r_k = p(k \mid x_t)` the exact predictions are

.. math:: E[x_0 \mid x_t] = \sum_k r_k (\mu_k + a C_k u_k), \qquad
          E[\varepsilon \mid x_t] = \sigma \sum_k r_k u_k, \qquad
          \nabla \log p(x_t) = -\sum_k r_k u_k

Each is computed by its own sum, so none suffers where another one cancels. The classes are
`evidence.diffusion.prediction.Denoiser` and work in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.nn.functional import logsigmoid

from evidence.diffusion.bound import (
    BoundTerms,
    GaussianDecoder,
    prior_term,
    reverse_variances,
)
from evidence.diffusion.prediction import check_prediction, log_snr_for
from evidence.diffusion.schedule import Schedule

__all__ = ["GaussianData", "MixtureData"]


class MixtureData:
    """Data drawn from a mixture of Gaussians; an exact `Denoiser` of itself.

    Parameters
    ----------
    weights : Tensor
        Shape ``(K,)``, positive, summing to 1.
    means : Tensor
        Shape ``(K, D)``.
    covs : Tensor
        Shape ``(K, D, D)``, symmetric and positive definite.

    Raises
    ------
    TypeError
        If a tensor is not float64.
    ValueError
        If a shape or a value is not as above.
    """

    prediction = "v"  # known to full precision at every noise level, as x_0 and eps are

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor) -> None:
        for name, value in (("weights", weights), ("means", means), ("covs", covs)):
            _check_float64(name, value)
            if not value.isfinite().all():
                raise ValueError(
                    f"{name} has a number that is not finite; accepted are finite ones"
                )
        if weights.ndim != 1 or means.ndim != 2 or len(means) != len(weights):
            raise ValueError(
                f"weights has shape {tuple(weights.shape)} and means {tuple(means.shape)}; "
                "accepted are (K,) and (K, D)"
            )
        num, dim = means.shape
        if covs.shape != (num, dim, dim):
            raise ValueError(
                f"covs has shape {tuple(covs.shape)}; accepted is (K, D, D) = {(num, dim, dim)}"
            )
        if not (weights > 0).all() or abs(weights.sum().item() - 1) > 1e-12:
            raise ValueError(
                f"weights = {weights.tolist()}; accepted are positive numbers that sum to 1"
            )
        if not torch.allclose(covs, covs.mT, rtol=1e-12, atol=0):
            raise ValueError("covs is not symmetric; accepted are covariance matrices")
        self.weights, self.means, self.covs = weights, means, covs
        # One decomposition serves every noise level: a^2 C + sigma^2 I has the same axes.
        self._variances, self._axes = torch.linalg.eigh(covs)
        if not (self._variances > 0).all():
            raise ValueError(
                f"covs has an eigenvalue {self._variances.min().item():g}; accepted are positive "
                "definite matrices"
            )

    @property
    def dim(self) -> int:
        """D."""
        return self.means.shape[1]

    @property
    def distribution(self) -> MixtureSameFamily:
        """The distribution of :math:`x_0`."""
        return _mixture(self.weights.log(), self.means, self.covs)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n data, shape ``(n, D)``, float64."""
        return self.sample_with_label(n, generator)[0]

    def sample_with_label(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n data ``(n, D)`` and the component of each, int64 of shape ``(n,)``."""
        label = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        eps = torch.randn(n, self.dim, generator=generator, dtype=torch.float64)
        scaled = self._variances[label].sqrt() * eps
        return self.means[label] + (self._axes[label] @ scaled[..., None]).squeeze(-1), label

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density of data ``(batch, D)``, in nats, shape ``(batch,)``."""
        self._check_x("x", x)
        return self.distribution.log_prob(x)

    def noised(self, log_snr: Tensor | float) -> MixtureSameFamily:
        """Return the distribution of :math:`x_t` at a noise level.

        Parameters
        ----------
        log_snr : Tensor or float
            One number, or shape ``(batch,)``, which becomes the batch shape.

        Raises
        ------
        ValueError
            If it is not finite or has another shape.
        """
        level = torch.as_tensor(log_snr, dtype=torch.float64)
        if level.ndim > 1 or not level.isfinite().all():
            raise ValueError(f"log_snr = {log_snr!r}; accepted are finite numbers, () or (batch,)")
        level = level[..., None, None]
        a = torch.exp(logsigmoid(level) / 2)
        noise = torch.sigmoid(-level)[..., None] * torch.eye(self.dim, dtype=torch.float64)
        log_weights = self.weights.log().expand(*level.shape[:-2], -1)
        return _mixture(
            log_weights, a * self.means, torch.sigmoid(level)[..., None] * self.covs + noise
        )

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor | float,
        wanted: str = "eps",
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        r"""Return the exact prediction, an expectation given :math:`x_t`.

        Parameters
        ----------
        x_t : Tensor
            Shape ``(batch, D)``, float64.
        log_snr : Tensor or float
            One number or shape ``(batch,)``.
        wanted : str
            ``"x_0"``, ``"eps"``, ``"v"`` or ``"score"``.
        label : Tensor, optional
            The component each datum is known to come from, int64 of shape ``(batch,)``; the
            expectation is then given that too.

        Returns
        -------
        Tensor
            Shape ``(batch, D)``.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above.
        """
        check_prediction("wanted", wanted)
        a, sigma, y, spread = self._components(x_t, log_snr)
        if label is None:
            r = self._log_responsibilities(y, spread).exp()[..., None]
        else:
            self._check_label(label, len(x_t))
            r = torch.nn.functional.one_hot(label, len(self.weights)).to(x_t)[..., None]
        u = (r * self._from_axes(y / spread)).sum(1)
        a, sigma = a.squeeze(-1), sigma.squeeze(-1)
        if wanted == "score":
            return -u
        if wanted == "eps":
            return sigma * u
        pulled = self._from_axes(self._variances * y / spread)
        x_0 = (r * (self.means + a[..., None] * pulled)).sum(1)
        return x_0 if wanted == "x_0" else a * sigma * u - sigma * x_0

    def score(self, x_t: Tensor, log_snr: Tensor | float) -> Tensor:
        r"""Return :math:`\nabla_{x_t} \log p(x_t)`, shape ``(batch, D)``."""
        return self.predict(x_t, log_snr, "score")

    def posterior_of_label(self, x_t: Tensor, log_snr: Tensor | float) -> Tensor:
        r"""Return :math:`p(k \mid x_t)`, shape ``(batch, K)``."""
        _, _, y, spread = self._components(x_t, log_snr)
        return self._log_responsibilities(y, spread).exp()

    def reverse_step(self, x_t: Tensor, schedule: Schedule, t: int | Tensor) -> MixtureSameFamily:
        r"""Return the exact :math:`p(x_{t-1} \mid x_t)`: a mixture, in general not Gaussian.

        .. math:: p(x_{t-1} \mid x_t) = \sum_k r_k \, \mathcal N\Bigl(
                  a_{t-1} \mu_k + \sqrt{\alpha_t}\, S_{k,t-1} S_{k,t}^{-1} (x_t - a_t \mu_k),\
                  \beta_t\, S_{k,t-1} S_{k,t}^{-1}\Bigr)

        Parameters
        ----------
        x_t : Tensor
            Shape ``(batch, D)``, float64.
        schedule : Schedule
            Of T steps.
        t : int or Tensor
            From 1 to T; a tensor is int64 of shape ``(batch,)``. At t = 1 it is the posterior of
            the datum.

        Returns
        -------
        MixtureSameFamily
            Batch shape ``(batch,)``, event shape ``(D,)``.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above.
        """
        log_r, mu, cov = self._reverse_components(x_t, schedule, t)
        return _mixture(log_r, mu, cov)

    def _reverse_components(
        self, x_t: Tensor, schedule: Schedule, t: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        self._check_x("x_t", x_t)
        schedule.check_steps(t)
        _, _, y, spread = self._components(x_t, schedule.log_snr[t])
        before = torch.as_tensor(t) - 1
        per_datum = (-1, 1, 1)  # against (batch, K, D)
        a_before = schedule.sqrt_alpha_bar[before].reshape(per_datum)
        spread_before = schedule.alpha_bar[before].reshape(
            per_datum
        ) * self._variances + schedule.sigma_squared[before].reshape(per_datum)
        ratio = spread_before / spread
        alpha, beta = schedule.alpha[t].reshape(per_datum), schedule.beta[t].reshape(per_datum)
        mu = a_before * self.means + self._from_axes(alpha.sqrt() * ratio * y)
        variances = (beta * ratio).expand_as(mu)
        cov = (self._axes * variances[..., None, :]) @ self._axes.mT
        return self._log_responsibilities(y, spread), mu, cov

    def _components(
        self, x_t: Tensor, log_snr: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a, sigma, x_t - a mu_k and the variances of x_t along the axes of C_k."""
        self._check_x("x_t", x_t)
        level = log_snr_for(log_snr, x_t).reshape(-1, 1, 1).to(x_t.device)
        a, sigma = torch.exp(logsigmoid(level) / 2), torch.exp(logsigmoid(-level) / 2)
        away = x_t[:, None, :] - a * self.means
        y = torch.einsum("...ki,kij->...kj", away, self._axes)
        spread = torch.sigmoid(level) * self._variances + torch.sigmoid(-level)
        return a, sigma, y, spread.expand_as(y)

    def _log_responsibilities(self, y: Tensor, spread: Tensor) -> Tensor:
        log_normal = -0.5 * (y.square() / spread + spread.log()).sum(-1)
        return (self.weights.log() + log_normal).log_softmax(-1)

    def _from_axes(self, y: Tensor) -> Tensor:
        return torch.einsum("kij,...kj->...ki", self._axes, y)

    def _check_x(self, name: str, x: Tensor) -> None:
        _check_float64(name, x)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}; accepted is (batch, D) with D = {self.dim}"
            )

    def _check_label(self, label: Tensor, batch: int) -> None:
        if not isinstance(label, Tensor) or label.dtype != torch.int64:
            raise TypeError(f"label is {label!r}; accepted is an int64 tensor (batch,)")
        if label.shape != (batch,):
            raise ValueError(f"label has shape {tuple(label.shape)}; accepted is {(batch,)}")
        if ((label < 0) | (label >= len(self.weights))).any():
            raise ValueError(
                f"label has values from {label.min().item()} to {label.max().item()}; accepted "
                f"are 0 to {len(self.weights) - 1}"
            )


class GaussianData:
    """Data drawn from one Gaussian; an exact `Denoiser` of itself.

    Parameters
    ----------
    mean : Tensor
        Shape ``(D,)``, float64.
    cov : Tensor
        Shape ``(D, D)``, float64, symmetric and positive definite.

    Raises
    ------
    TypeError
        If a tensor is not float64.
    ValueError
        If a shape or a value is not as above.
    """

    prediction = "v"  # as of `MixtureData`

    def __init__(self, mean: Tensor, cov: Tensor) -> None:
        for name, value, ndim in (("mean", mean, 1), ("cov", cov, 2)):
            _check_float64(name, value)
            if value.ndim != ndim:
                accepted = "(D,)" if ndim == 1 else "(D, D)"
                raise ValueError(f"{name} has shape {tuple(value.shape)}; accepted is {accepted}")
        self.mean, self.cov = mean, cov
        self._one = MixtureData(torch.ones(1, dtype=torch.float64), mean[None], cov[None])

    @property
    def dim(self) -> int:
        """D."""
        return len(self.mean)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n data, shape ``(n, D)``, float64."""
        return self._one.sample(n, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the exact evidence, the log-density of data ``(batch, D)``, in nats."""
        self._one._check_x("x", x)
        return MultivariateNormal(self.mean, self.cov).log_prob(x)

    def noised(self, log_snr: Tensor | float) -> MultivariateNormal:
        """Return the distribution of :math:`x_t`; see `MixtureData.noised`."""
        component = self._one.noised(log_snr).component_distribution
        return MultivariateNormal(
            component.loc[..., 0, :], component.covariance_matrix[..., 0, :, :]
        )

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor | float,
        wanted: str = "eps",
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """Return the exact prediction; see `MixtureData.predict`. There is one label, 0."""
        return self._one.predict(x_t, log_snr, wanted, label=label)

    def score(self, x_t: Tensor, log_snr: Tensor | float) -> Tensor:
        r"""Return :math:`\nabla_{x_t} \log p(x_t)`, shape ``(batch, D)``."""
        return self._one.score(x_t, log_snr)

    def reverse_step(self, x_t: Tensor, schedule: Schedule, t: int | Tensor) -> MultivariateNormal:
        r"""Return the exact :math:`p(x_{t-1} \mid x_t)`; see `MixtureData.reverse_step`."""
        _, mu, cov = self._one._reverse_components(x_t, schedule, t)
        return MultivariateNormal(mu[:, 0], cov[:, 0])

    def chain_elbo(
        self,
        x_0: Tensor,
        schedule: Schedule,
        *,
        decoder: GaussianDecoder,
        reverse_variance: str = "posterior",
    ) -> BoundTerms:
        r"""Return the whole bound in closed form, with this exact denoiser: no draws.

        The denoiser is linear in :math:`x_t`, so with the eigenvalues :math:`\ell_i` of the
        covariance, coordinates :math:`y_i` of :math:`x_0 - \mu` along its axes and
        :math:`s_i = \bar\alpha_t \ell_i + 1 - \bar\alpha_t`,

        .. math:: E \lVert \varepsilon - \hat\varepsilon(x_t) \rVert^2
                  = \sum_i \Bigl(\frac{\bar\alpha_t \ell_i}{s_i}\Bigr)^2
                  + \bar\alpha_t (1 - \bar\alpha_t) \Bigl(\frac{y_i}{s_i}\Bigr)^2

        Parameters
        ----------
        x_0 : Tensor
            Data, shape ``(batch, D)``, float64.
        schedule : Schedule
            Of T steps.
        decoder : GaussianDecoder
            For :math:`L_0`.
        reverse_variance : str
            ``"posterior"`` or ``"beta"``; see `evidence.diffusion.bound.reverse_variances`.

        Returns
        -------
        BoundTerms
            Each part of shape ``(batch,)``, in nats: the mean of
            `evidence.diffusion.bound.elbo` over its draws.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as above.
        """
        if not isinstance(decoder, GaussianDecoder):
            raise TypeError(f"decoder is {decoder!r}; accepted is a GaussianDecoder")
        self._one._check_x("x_0", x_0)
        error = self._expected_error(x_0, schedule)
        variance = reverse_variances(schedule, reverse_variance)[2:]
        true, beta = schedule.posterior_variance[2:], schedule.beta[2:]
        weight = beta**2 / (2 * variance * schedule.alpha[2:] * schedule.sigma_squared[2:])
        constant = 0.5 * self.dim * (torch.log(variance / true) + true / variance - 1)
        width = decoder.distribution(x_0[:1], schedule).scale[0, 0]
        missed = error[:, 0] * schedule.sigma_squared[1] / schedule.alpha_bar[1]
        return BoundTerms(
            prior=prior_term(x_0, schedule),
            steps=(weight * error[:, 1:] + constant).sum(1),
            reconstruction=0.5 * self.dim * torch.log(2 * torch.pi * width**2)
            + missed / (2 * width**2),
        )

    def _expected_error(self, x_0: Tensor, schedule: Schedule) -> Tensor:
        """Return the expected squared error of eps at steps 1 to T, shape ``(batch, T)``."""
        variances = self._one._variances[0]
        y = (x_0 - self.mean) @ self._one._axes[0]
        alpha_bar = schedule.alpha_bar[1:, None]
        sigma_squared = schedule.sigma_squared[1:, None]
        spread = alpha_bar * variances + sigma_squared
        of_noise = (alpha_bar * variances / spread).square().sum(-1)
        return of_noise + y.square() @ (alpha_bar * sigma_squared / spread.square()).T


def _mixture(log_weights: Tensor, means: Tensor, covs: Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(logits=log_weights), MultivariateNormal(means, covs))


def _check_float64(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor) or value.dtype != torch.float64:
        kind = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else repr(value)
        raise TypeError(f"{name} is {kind}; accepted is a float64 tensor")

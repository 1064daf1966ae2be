r"""Estimators of the gradient of an expectation, in one common form.

The gradient that is wanted is

.. math:: \nabla_\phi \, \mathbb E_{q_\phi(z)}[f(z, \phi)]

An estimator is a function ``estimator(family, f, phi, *, num_samples, generator)``:

`family`
    Takes parameters of shape ``(..., P)`` and returns a distribution of `torch.distributions` with
    batch shape ``(...)``: :math:`q_\phi`. Its event may have any shape.
`f`
    Takes draws of shape ``(num_samples, ..., *event)`` and parameters of shape ``(..., P)``, and
    returns values of shape ``(num_samples, ...)``. Take what depends on :math:`\phi` from
    the second argument: ``lambda z, phi: log_joint(z) - family(phi).log_prob(z)`` is the ELBO's.
`phi`
    The parameters, shape ``(..., P)``.

It returns a *surrogate* of shape ``(...)``, whose gradient in `phi` is one estimate for every entry
of the batch. The values of surrogates mean nothing, but they can be used as the loss of a training
loop. `gradients` repeats an estimator and returns its estimates, `compare` sets several side
by side.

================================  ==========================================  ==============
estimator                         needs                                       unbiased
================================  ==========================================  ==============
`score_function`                  log density of q                            yes
`score_function_mean_baseline`    the same, two draws                         no, (K - 1) / K
`score_function_leave_one_out`    the same, two draws                         yes
`pathwise`                        q with ``rsample``, f smooth in z           yes
`implicit_pathwise`               z a number, q with ``cdf``, f smooth in z   yes
`sticking_the_landing`            as pathwise, f a log weight                 yes
`iwae_pathwise`                   as pathwise, f a log weight                 for the K-bound
`doubly_reparameterized`          as pathwise, f a log weight                 for the K-bound
`straight_through`                z a one-hot vector or bits, f smooth in z   no
`gumbel_softmax`                  z a one-hot vector, f smooth in z           no
`enumeration`, `quadrature`       few states; one number                      exact
================================  ==========================================  ==============

All but the last are unbiased only if gradient and integral may be exchanged, as page 9 says.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    OneHotCategorical,
    RelaxedOneHotCategorical,
)

__all__ = [
    "Comparison",
    "Row",
    "compare",
    "doubly_reparameterized",
    "drawing_from",
    "enumeration",
    "gradients",
    "gumbel_softmax",
    "implicit_pathwise",
    "iwae_pathwise",
    "pathwise",
    "quadrature",
    "score_function",
    "score_function_leave_one_out",
    "score_function_mean_baseline",
    "sticking_the_landing",
    "straight_through",
]

Family = Callable[[Tensor], Distribution]
Integrand = Callable[[Tensor, Tensor], Tensor]
Estimator = Callable[..., Tensor]

NUMBERS_AT_ONCE = 2**22
"""`gradients` works in pieces of about this many draws, so its memory does not grow."""


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let `torch.distributions` draw from a generator, which they do not take as an argument.

    Inside, torch's global generator stands where `generator` stands; on leaving, `generator` has
    moved on by what was drawn and the global generator is as it was before.
    """
    before = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


# Estimators. ---------------------------------------------------------------------------------


def score_function(
    family: Family,
    f: Integrand,
    phi: Tensor,
    *,
    num_samples: int = 1,
    generator: torch.Generator,
    baseline: float | Tensor = 0.0,
) -> Tensor:
    r"""Return the surrogate of the score-function estimator, ``eq-score-function``.

    .. math:: \frac1K \sum_k (f(z_k, \phi) - b) \, \nabla_\phi \log q_\phi(z_k)
              + \nabla_\phi f(z_k, \phi)

    Also known as REINFORCE (Williams, 1992). The second term is zero if f does not depend on phi.

    Parameters
    ----------
    family, f, phi
        See the module.
    num_samples : int
        K, at least 1.
    generator : torch.Generator
        Of the draws.
    baseline : float or Tensor
        b, a number or of the batch shape; it must not depend on the draws.

    Returns
    -------
    Tensor
        The batch shape of `phi`.
    """
    q, z = _draw(family, phi, num_samples, generator)
    value = _values(f, z, phi)
    return _score_surrogate(q, z, value, baseline)


def score_function_mean_baseline(
    family: Family, f: Integrand, phi: Tensor, *, num_samples: int, generator: torch.Generator
) -> Tensor:
    r"""Return the surrogate of `score_function` with the mean of the same K draws as baseline.

    Biased: each draw is in its own baseline, and the first term comes out as :math:`(K-1)/K` of
    what it should be. `num_samples` is at least 2, else the estimate is zero.
    """
    _at_least_two(num_samples)
    q, z = _draw(family, phi, num_samples, generator)
    value = _values(f, z, phi)
    return _score_surrogate(q, z, value, value.mean(0))


def score_function_leave_one_out(
    family: Family, f: Integrand, phi: Tensor, *, num_samples: int, generator: torch.Generator
) -> Tensor:
    r"""Return the surrogate of `score_function` whose baselines are the means of the other draws.

    ``eq-leave-one-out``. Unbiased, since a draw is independent of its baseline (Mnih and Rezende,
    2016; Kool et al., 2019). `num_samples` is at least 2.
    """
    _at_least_two(num_samples)
    q, z = _draw(family, phi, num_samples, generator)
    value = _values(f, z, phi)
    others = (value.sum(0) - value) / (num_samples - 1)
    return _score_surrogate(q, z, value, others)


def pathwise(
    family: Family,
    f: Integrand,
    phi: Tensor,
    *,
    num_samples: int = 1,
    generator: torch.Generator,
) -> Tensor:
    r"""Return the surrogate of the pathwise estimator, ``eq-pathwise``: f at reparameterized draws.

    Kingma and Welling (2014); Rezende et al. (2014). The draws are those of the distribution's
    ``rsample``, which for a Gamma, a Beta or a Dirichlet is an implicit reparameterization.
    """
    _, z = _draw(family, phi, num_samples, generator, reparameterized=True)
    return _values(f, z, phi).mean(0)


def implicit_pathwise(
    family: Family,
    f: Integrand,
    phi: Tensor,
    *,
    num_samples: int = 1,
    generator: torch.Generator,
) -> Tensor:
    r"""Return the surrogate of the pathwise estimator by implicit reparameterization.

    ``eq-implicit`` (Figurnov et al., 2018). With the distribution function :math:`F_\phi`,

    .. math:: \nabla_\phi z = - \frac{\nabla_\phi F_\phi(z)}{q_\phi(z)}

    so q needs no ``rsample``: a mixture of Gaussians will do.

    Raises
    ------
    ValueError
        If z is not one number.
    """
    q, z = _draw(family, phi, num_samples, generator)
    if q.event_shape:
        raise ValueError(
            f"family gives draws of shape {tuple(q.event_shape)}; "
            "accepted are distributions over one number, with cdf"
        )
    with torch.no_grad():
        density = q.log_prob(z).exp()
    cdf = q.cdf(z)
    return _values(f, z - (cdf - cdf.detach()) / density, phi).mean(0)


def sticking_the_landing(
    family: Family,
    f: Integrand,
    phi: Tensor,
    *,
    num_samples: int = 1,
    generator: torch.Generator,
) -> Tensor:
    r"""Return the surrogate of `pathwise` without f's own dependence on phi.

    For the log weight :math:`f = \log p_\theta(x, z) - \log q_\phi(z \mid x)` the omitted term is a
    score, whose mean is zero; the estimate is then unbiased, and its variance vanishes where q is
    the posterior (Roeder et al., 2017). For other f it may be biased.
    """
    _, z = _draw(family, phi, num_samples, generator, reparameterized=True)
    return _values(f, z, phi.detach()).mean(0)


def iwae_pathwise(
    family: Family, f: Integrand, phi: Tensor, *, num_samples: int, generator: torch.Generator
) -> Tensor:
    r"""Return the surrogate of the pathwise gradient of the K-sample bound, ``def-iwae``.

    .. math:: \nabla_\phi \log \frac1K \sum_k e^{f(z_k, \phi)}

    Burda et al. (2016). f is a log weight; K is `num_samples`.
    """
    _, z = _draw(family, phi, num_samples, generator, reparameterized=True)
    return _values(f, z, phi).logsumexp(0) - math.log(num_samples)


def doubly_reparameterized(
    family: Family, f: Integrand, phi: Tensor, *, num_samples: int, generator: torch.Generator
) -> Tensor:
    r"""Return the surrogate of the doubly reparameterized gradient of the K-sample bound.

    .. math:: \sum_k \bar w_k^2 \, \frac{\partial f(z_k, \phi)}{\partial z_k}
              \frac{\partial z_k}{\partial \phi},
              \qquad \bar w_k = \frac{e^{f(z_k, \phi)}}{\sum_l e^{f(z_l, \phi)}}

    Tucker et al. (2019). f is the log weight; of its dependence on phi, only that through z is
    kept. With one draw it is `sticking_the_landing`.
    """
    _, z = _draw(family, phi, num_samples, generator, reparameterized=True)
    log_w = _values(f, z, phi.detach())
    with torch.no_grad():
        squared_share = log_w.softmax(0).square()
    return (squared_share * log_w).sum(0)


def straight_through(
    family: Family,
    f: Integrand,
    phi: Tensor,
    *,
    num_samples: int = 1,
    generator: torch.Generator,
) -> Tensor:
    r"""Return the surrogate of the straight-through estimator (Bengio et al., 2013).

    f is evaluated at a draw, and differentiated as if the draw were its mean:
    :math:`\nabla_z f(z) \, \nabla_\phi \mathbb E_{q_\phi}[z]`. Biased, unless f is affine.

    Raises
    ------
    TypeError
        If the family is not over one-hot vectors or bits.
    """
    q, z = _draw(family, phi, num_samples, generator)
    base = q.base_dist if isinstance(q, Independent) else q
    if not isinstance(base, OneHotCategorical | Bernoulli):
        raise TypeError(
            f"family gives {type(base).__name__}; accepted are OneHotCategorical and Bernoulli"
        )
    return _values(f, z + (q.mean - q.mean.detach()), phi).mean(0)


def gumbel_softmax(
    family: Family,
    f: Integrand,
    phi: Tensor,
    *,
    num_samples: int = 1,
    generator: torch.Generator,
    temperature: float,
    hard: bool = False,
) -> Tensor:
    r"""Return the surrogate of the Gumbel-softmax estimator.

    Maddison et al. (2017); Jang et al. (2017). The one-hot draw gives way to
    :math:`\mathrm{softmax}((\log \pi_\phi + g) / \tau)`, with independent Gumbel g. Biased: it is
    the pathwise gradient of another expectation, which comes near as :math:`\tau \to 0`,
    while the variance grows.

    Parameters
    ----------
    family, f, phi, num_samples, generator
        See the module; the family is over one-hot vectors.
    temperature : float
        :math:`\tau`, positive.
    hard : bool
        Evaluate f at the one-hot vector of the largest entry, and differentiate as if at the
        relaxed draw ("straight-through Gumbel-softmax").

    Raises
    ------
    TypeError
        If the family is not `OneHotCategorical`.
    ValueError
        If the temperature is not positive.
    """
    if not temperature > 0 or math.isinf(temperature):
        raise ValueError(f"temperature is {temperature!r}; accepted are positive numbers")
    q = _distribution(family, phi)
    if not isinstance(q, OneHotCategorical):
        raise TypeError(f"family gives {type(q).__name__}; accepted is OneHotCategorical")
    relaxed = RelaxedOneHotCategorical(torch.tensor(temperature, dtype=phi.dtype), logits=q.logits)
    with drawing_from(generator):
        z = relaxed.rsample((_positive_count("num_samples", num_samples),))
    if hard:
        one_hot = torch.nn.functional.one_hot(z.argmax(-1), z.shape[-1]).to(z)
        z = one_hot + (z - z.detach())
    return _values(f, z, phi).mean(0)


def enumeration(family: Family, f: Integrand, phi: Tensor, **_: object) -> Tensor:
    r"""Return the expectation itself, as a sum over all states of z; its gradient is exact.

    Arguments that concern draws are accepted and ignored, so it can stand among estimators.

    Raises
    ------
    TypeError
        If q cannot list its states.
    """
    q = _distribution(family, phi)
    if isinstance(q, Independent) and isinstance(q.base_dist, Bernoulli):
        z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * q.event_shape.numel()).to(phi)
        z = z.reshape(-1, *[1] * len(q.batch_shape), *q.event_shape)
        z = z.expand(-1, *q.batch_shape, *q.event_shape)
    elif isinstance(q, OneHotCategorical | Bernoulli | Categorical):
        z = q.enumerate_support()
    else:
        raise TypeError(
            f"family gives {type(q).__name__}; accepted are OneHotCategorical, Categorical, "
            "Bernoulli and Independent Bernoulli"
        )
    return (q.log_prob(z).exp() * _values(f, z, phi)).sum(0)


def quadrature(
    family: Family,
    f: Integrand,
    phi: Tensor,
    *,
    low: float,
    high: float,
    num_points: int = 4001,
    **_: object,
) -> Tensor:
    r"""Return the expectation itself by the trapezoidal rule in one z; its gradient is exact too.

    Arguments that concern draws are accepted and ignored, so it can stand among estimators.

    Parameters
    ----------
    family, f, phi
        See the module; z is one number.
    low, high : float
        Ends of the grid, outside of which q f must be negligible.
    num_points : int
        Points of the grid, at least 3.

    Raises
    ------
    ValueError
        If z is not one number, or the grid is too coarse or too narrow: q must integrate to 1
        within 1e-9 on it, for every entry of the batch.
    """
    q = _distribution(family, phi)
    if q.event_shape:
        raise ValueError(
            f"family gives draws of shape {tuple(q.event_shape)}; accepted are single numbers"
        )
    if not (low < high and num_points >= 3):
        raise ValueError(
            f"low, high, num_points are {low!r}, {high!r}, {num_points!r}; "
            "accepted are low < high and 3 points or more"
        )
    grid = torch.linspace(low, high, num_points, dtype=phi.dtype)
    z = grid.reshape(-1, *[1] * len(q.batch_shape)).expand(-1, *q.batch_shape)
    density = q.log_prob(z).exp()
    mass = torch.trapezoid(density.detach(), grid, dim=0)
    if not ((mass - 1).abs() <= 1e-9).all():
        worst = mass.flatten()[(mass - 1).abs().argmax()].item()
        raise ValueError(
            f"on {num_points} points between {low:g} and {high:g} the density integrates to "
            f"{worst:.12g}; accepted is 1 within 1e-9, by a wider or finer grid"
        )
    return torch.trapezoid(density * _values(f, z, phi), grid, dim=0)


# Comparing them. -----------------------------------------------------------------------------


def gradients(
    estimator: Estimator,
    family: Family,
    f: Integrand,
    phi: Tensor,
    *,
    num_estimates: int,
    num_samples: int = 1,
    generator: torch.Generator,
    **settings: object,
) -> Tensor:
    """Return independent estimates of the gradient.

    Parameters
    ----------
    estimator, family, f
        See the module.
    phi : Tensor
        Shape ``(P,)``.
    num_estimates : int
        R, how many.
    num_samples : int
        K, the draws in each.
    generator : torch.Generator
        Of all draws.
    **settings
        Further arguments of the estimator, as a temperature.

    Returns
    -------
    Tensor
        Shape ``(num_estimates, P)``.

    Raises
    ------
    ValueError
        If `phi` is not of shape ``(P,)``, or an estimate is not finite.
    """
    if phi.ndim != 1:
        raise ValueError(f"phi has the shape {tuple(phi.shape)}; accepted is (P,)")
    _positive_count("num_estimates", num_estimates)
    per_piece = max(1, NUMBERS_AT_ONCE // _positive_count("num_samples", num_samples))
    pieces = []
    for start in range(0, num_estimates, per_piece):
        count = min(per_piece, num_estimates - start)
        copies = phi.detach().expand(count, -1).clone().requires_grad_()
        surrogate = estimator(
            family, f, copies, num_samples=num_samples, generator=generator, **settings
        )
        (piece,) = torch.autograd.grad(surrogate.sum(), copies)
        pieces.append(piece)
    estimates = torch.cat(pieces)
    if not estimates.isfinite().all():
        name = getattr(estimator, "__name__", str(estimator))
        raise ValueError(f"{name} gave an estimate that is not finite at phi = {phi.tolist()}")
    return estimates


@dataclass(frozen=True)
class Row:
    """One estimator of a `Comparison`; all tensors have the shape ``(P,)`` of the parameters."""

    name: str
    estimates: int
    """How many estimates these figures come from."""
    mean: Tensor
    bias: Tensor
    """Mean minus the exact gradient."""
    standard_error: Tensor
    """Of the mean, hence of the bias."""
    variance: Tensor
    """Of one estimate."""
    variance_error: Tensor
    """Standard error of the variance, by the fourth moment."""
    seconds_per_draw: float
    """Wall time for one draw, its gradient included, in a large batch. Varies between machines."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; ``comparison["pathwise"]`` is one `Row`."""

    exact: Tensor
    """The exact gradient, ``(P,)``."""
    rows: tuple[Row, ...]

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r}; there are {[row.name for row in self.rows]}")

    def table(self, component: int = 0, *, cost: bool = False) -> str:
        """Return a plain table of one component of the gradient.

        Parameters
        ----------
        component : int
            Which of the P parameters.
        cost : bool
            Also print the time for a draw, as a ratio to the first row's; it varies between runs.
        """
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'':{width}}  {'mean':>9}  {'bias':>9} ± {'error':<8} {'variance':>9}"]
        if cost:
            lines[0] += f"  {'time':>6}"
        for row in self.rows:
            numbers = (row.mean, row.bias, row.standard_error, row.variance)
            mean, bias, error, variance = (float(number[component]) for number in numbers)
            line = f"{row.name:{width}}  {mean:9.4f}  {bias:+9.4f} ± {error:<8.4f} {variance:9.3g}"
            if cost:
                line += f"  {row.seconds_per_draw / self.rows[0].seconds_per_draw:5.1f}×"
            lines.append(line)
        lines.append(f"{'exact':{width}}  {float(self.exact[component]):9.4f}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def compare(
    estimators: Mapping[str, Estimator] | Sequence[Estimator],
    family: Family,
    f: Integrand,
    phi: Tensor,
    *,
    exact: Tensor,
    num_estimates: int,
    num_samples: int = 1,
    seed: int,
) -> Comparison:
    """Measure bias, variance and cost of several estimators of one gradient.

    Each estimator draws from a generator of its own with the same seed, so those that draw in the
    same way see the same draws.

    Parameters
    ----------
    estimators : mapping of str to callable, or sequence of callables
        With names; or without, then the functions' own names with blanks for underscores. Bind
        settings with `functools.partial`.
    family, f, phi
        See the module; `phi` has the shape ``(P,)``.
    exact : Tensor
        The gradient, ``(P,)``.
    num_estimates, num_samples : int
        R, at least 2, and K.
    seed : int
        Of all draws.

    Raises
    ------
    ValueError
        If `exact` and `phi` differ in shape or there are fewer than two estimates.
    """
    if exact.shape != phi.shape:
        raise ValueError(
            f"exact has the shape {tuple(exact.shape)}; accepted is {tuple(phi.shape)}"
        )
    if num_estimates < 2:
        raise ValueError(f"num_estimates is {num_estimates}; at least 2 are accepted")
    if not isinstance(estimators, Mapping):
        estimators = {one.__name__.replace("_", " "): one for one in estimators}
    rows = []
    for name, estimator in estimators.items():
        start = time.perf_counter()
        estimates = gradients(
            estimator,
            family,
            f,
            phi,
            num_estimates=num_estimates,
            num_samples=num_samples,
            generator=torch.Generator().manual_seed(seed),
        )
        seconds = time.perf_counter() - start
        mean = estimates.mean(0)
        variance = estimates.var(0)
        fourth = (estimates - mean).pow(4).mean(0)
        rows.append(
            Row(
                name=name,
                estimates=num_estimates,
                mean=mean,
                bias=mean - exact,
                standard_error=(variance / num_estimates).sqrt(),
                variance=variance,
                variance_error=((fourth - variance.square()).clamp(min=0) / num_estimates).sqrt(),
                seconds_per_draw=seconds / (num_estimates * num_samples),
            )
        )
    return Comparison(exact=exact.detach(), rows=tuple(rows))


# What they share. ----------------------------------------------------------------------------


def _distribution(family: Family, phi: Tensor) -> Distribution:
    q = family(phi)
    if not isinstance(q, Distribution):
        raise TypeError(
            f"family gives {type(q).__name__}; accepted is a torch.distributions.Distribution"
        )
    if q.batch_shape != phi.shape[:-1]:
        raise ValueError(
            f"family gives the batch shape {tuple(q.batch_shape)} for parameters of shape "
            f"{tuple(phi.shape)}; accepted is {tuple(phi.shape[:-1])}"
        )
    return q


def _draw(
    family: Family,
    phi: Tensor,
    num_samples: int,
    generator: torch.Generator,
    *,
    reparameterized: bool = False,
) -> tuple[Distribution, Tensor]:
    """Return q and K draws, ``(K, *batch, *event)``, with their path to phi or without."""
    q = _distribution(family, phi)
    if reparameterized and not q.has_rsample:
        raise TypeError(
            f"family gives {type(q).__name__}, which has no rsample; accepted are distributions "
            "that can be reparameterized"
        )
    shape = (_positive_count("num_samples", num_samples),)
    with drawing_from(generator):
        return q, q.rsample(shape) if reparameterized else q.sample(shape)


def _score_surrogate(q: Distribution, z: Tensor, value: Tensor, baseline: float | Tensor) -> Tensor:
    return ((value - baseline).detach() * q.log_prob(z) + value).mean(0)


def _values(f: Integrand, z: Tensor, phi: Tensor) -> Tensor:
    value = f(z, phi)
    # Checked because a value of another shape would be broadcast, and averaged over the wrong axis.
    expected = (len(z), *phi.shape[:-1])
    if tuple(value.shape) != expected:
        raise ValueError(
            f"f gives values of shape {tuple(value.shape)} for z of shape {tuple(z.shape)}; "
            f"accepted is {expected}"
        )
    return value


def _positive_count(name: str, count: int) -> int:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name} is {count!r}; accepted are whole numbers from 1")
    return count


def _at_least_two(num_samples: int) -> None:
    if _positive_count("num_samples", num_samples) < 2:
        raise ValueError("num_samples is 1; a baseline from other draws needs 2 or more")

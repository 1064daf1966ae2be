r"""What a denoiser predicts, and how one prediction becomes another.

Given :math:`x_t` and the noise level, four quantities say the same thing. With
:math:`a = \sqrt{\bar\alpha}`, :math:`\sigma = \sqrt{1 - \bar\alpha}` and
:math:`\lambda = \ln (a^2 / \sigma^2)`:

=========  =======================================================================================
name       meaning
=========  =======================================================================================
``x_0``    the datum, :math:`\hat x_0`
``eps``    the noise in it, :math:`\hat\varepsilon = (x_t - a \hat x_0) / \sigma`
``v``      :math:`\hat v = a \hat\varepsilon - \sigma \hat x_0` (Salimans and Ho, 2022)
``score``  the slope of the log-density of :math:`x_t`, :math:`\hat s = -\hat\varepsilon / \sigma`
=========  =======================================================================================

Everything that uses a model of the data, exact or trained, asks it through `Denoiser.predict`.

**What is asked for.** At much noise :math:`\hat x_0 = (x_t - \sigma \hat\varepsilon)/a` divides
by a small a, and at little noise :math:`\hat\varepsilon` from :math:`\hat x_0` by a small
:math:`\sigma`: on such a detour digits are lost that the prediction itself has. Samplers and bounds
therefore ask a denoiser for what it predicts by itself (`native`) and write their formulas in that.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from evidence.precision import like, on_cpu

__all__ = ["PREDICTIONS", "Denoiser", "NetworkDenoiser", "convert", "native"]

PREDICTIONS = ("x_0", "eps", "v", "score")
NATIVE = ("eps", "x_0", "v")
"""What a network may predict, and samplers and bounds may ask for."""


@runtime_checkable
class Denoiser(Protocol):
    """What samplers, bounds and likelihoods ask of a model.

    One that has an attribute ``prediction``, ``"eps"``, ``"x_0"`` or ``"v"``, is asked for that by
    samplers and bounds: see `native`.
    """

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor | float,
        wanted: str = "eps",
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """Return the prediction that is wanted, of the shape of `x_t`.

        Parameters
        ----------
        x_t : Tensor
            Noisy data, shape ``(batch, ...)``.
        log_snr : Tensor or float
            The noise level, one number or shape ``(batch,)``; finite.
        wanted : str
            ``"x_0"``, ``"eps"``, ``"v"`` or ``"score"``.
        label : Tensor, optional
            Class of each datum, int64 of shape ``(batch,)``, for a conditional model.
        """
        ...


def convert(
    value: Tensor, x_t: Tensor, log_snr: Tensor | float, *, given: str, wanted: str
) -> Tensor:
    r"""Turn one prediction into another.

    Each pair has its own formula :math:`c_x x_t + c\, \text{value}`, with coefficients computed in
    float64 from :math:`\lambda`, so nothing passes through a third quantity, where it might
    cancel. What remains is in the question: at much noise :math:`\hat x_0` from
    :math:`\hat\varepsilon` divides by a small :math:`a`.

    Parameters
    ----------
    value : Tensor
        The given prediction, of the shape and dtype of `x_t`.
    x_t : Tensor
        Noisy data, shape ``(batch, ...)``.
    log_snr : Tensor or float
        :math:`\lambda`, one number or shape ``(batch,)``; finite.
    given, wanted : str
        ``"x_0"``, ``"eps"``, ``"v"`` or ``"score"``.

    Returns
    -------
    Tensor
        Of the shape and dtype of `x_t`.

    Raises
    ------
    TypeError
        If `value` has another dtype than `x_t`.
    ValueError
        If a name is unknown, a shape does not fit, `log_snr` is not finite, or a coefficient is too
        large a number for the dtype of `x_t`.
    """
    check_prediction("given", given)
    check_prediction("wanted", wanted)
    if value.shape != x_t.shape:
        raise ValueError(
            f"value has shape {tuple(value.shape)}; accepted is that of x_t, {tuple(x_t.shape)}"
        )
    if value.dtype != x_t.dtype:
        raise TypeError(f"value is of {value.dtype}; accepted is that of x_t, {x_t.dtype}")
    log_snr = log_snr_for(log_snr, x_t)
    if given == wanted:
        return value
    of_x_t, of_value = _coefficients(log_snr, given, wanted)
    largest = max(of_x_t.abs().max().item(), of_value.abs().max().item())
    if not largest <= torch.finfo(x_t.dtype).max:
        raise ValueError(
            f"log_snr goes from {log_snr.min().item():g} to {log_snr.max().item():g}: expected one "
            f"at which {wanted} from {given} takes numbers of {x_t.dtype}, the dtype of x_t, got a "
            f"factor of {largest:.3g}"
        )
    return like(of_x_t, x_t) * x_t + like(of_value, x_t) * value


def _coefficients(log_snr: Tensor, given: str, wanted: str) -> tuple[Tensor, Tensor]:
    log_a, log_sigma = logsigmoid(log_snr) / 2, logsigmoid(-log_snr) / 2
    a, sigma = torch.exp(log_a), torch.exp(log_sigma)
    one, nothing = torch.ones_like(a), torch.zeros_like(a)
    # Ratios are exponentials of lambda itself, not quotients of rounded numbers.
    a_by_sigma, sigma_by_a = torch.exp(log_snr / 2), torch.exp(-log_snr / 2)
    match given, wanted:
        case "x_0", "eps":
            return 1 / sigma, -a_by_sigma
        case "x_0", "v":
            return a_by_sigma, -1 / sigma
        case "x_0", "score":
            return -1 / sigma**2, a_by_sigma / sigma
        case "eps", "x_0":
            return 1 / a, -sigma_by_a
        case "eps", "v":
            return -sigma_by_a, 1 / a
        case "eps", "score":
            return nothing, -1 / sigma
        case "v", "x_0":
            return a, -sigma
        case "v", "eps":
            return sigma, a
        case "v", "score":
            return -one, -a_by_sigma
        case "score", "x_0":
            return 1 / a, sigma * sigma_by_a
        case "score", "eps":
            return nothing, -sigma
        case "score", "v":
            return -sigma_by_a, -sigma_by_a
    raise AssertionError((given, wanted))


class NetworkDenoiser(nn.Module):
    """A network with the name of what it predicts; a `Denoiser`.

    Parameters
    ----------
    network : Module
        Called as ``network(x_t, log_snr)``, or ``network(x_t, log_snr, label)`` where a label is
        given, with `log_snr` of shape ``(batch,)`` and the dtype of `x_t`; it returns a tensor of
        the shape of `x_t`.
    prediction : str
        What it returns: ``"eps"``, ``"x_0"`` or ``"v"``.

    Attributes
    ----------
    trained_with_label, trained_without_label : Tensor
        Whether a loss of this package has trained it so; stored with the weights.

    Raises
    ------
    ValueError
        If `prediction` is another name.
    """

    def __init__(self, network: nn.Module, prediction: str = "eps") -> None:
        super().__init__()
        if prediction not in NATIVE:
            raise ValueError(f"prediction = {prediction!r}; accepted are 'eps', 'x_0' and 'v'")
        self.network = network
        self.prediction = prediction
        register_label_record(self)

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor | float,
        wanted: str = "eps",
        *,
        label: Tensor | None = None,
    ) -> Tensor:
        """Return the prediction that is wanted; see `Denoiser.predict`.

        Raises
        ------
        TypeError
            If `x_t` has another dtype than the network's parameters.
        ValueError
            If `wanted` is unknown, `log_snr` does not fit, the network returns another shape, or
            no label is given and it was trained with labels only, or the other way round.
        """
        check_prediction("wanted", wanted)
        (check_trained_without_label if label is None else check_trained_with_label)(self)
        parameter = next(self.network.parameters(), None)
        if parameter is not None and parameter.dtype != x_t.dtype:
            raise TypeError(
                f"x_t is of {x_t.dtype}; accepted is that of the network, {parameter.dtype}"
            )
        level = like(log_snr_for(log_snr, x_t).reshape(-1).expand(len(x_t)), x_t)
        inputs = (x_t, level) if label is None else (x_t, level, label)
        value = self.network(*inputs)
        return convert(value, x_t, log_snr, given=self.prediction, wanted=wanted)

    def forward(self, x_t: Tensor, log_snr: Tensor | float, label: Tensor | None = None) -> Tensor:
        """Return what the network itself predicts."""
        return self.predict(x_t, log_snr, self.prediction, label=label)


def native(denoiser: Denoiser) -> str:
    """Return what a denoiser predicts by itself: its ``prediction``, or eps if it names none.

    Raises
    ------
    ValueError
        If it names something else.
    """
    prediction = getattr(denoiser, "prediction", "eps")
    if prediction not in NATIVE:
        raise ValueError(
            f"denoiser.prediction is {prediction!r}: expected 'eps', 'x_0' or 'v', or no such "
            "attribute"
        )
    return prediction


def eps_error_for(prediction: str, log_snr: Tensor) -> Tensor:
    r"""Return the squared error of eps for a squared error of 1 of what is predicted.

    At a given :math:`x_t`: :math:`\mathrm{SNR}` for x_0 and :math:`\bar\alpha` for v.
    """
    match prediction:
        case "eps":
            return torch.ones_like(log_snr)
        case "x_0":
            return torch.exp(log_snr)
        case _:
            return torch.sigmoid(log_snr)


def register_label_record(module: nn.Module) -> None:
    """Give a module the two buffers that `note_labels` writes."""
    for name in ("trained_with_label", "trained_without_label"):
        module.register_buffer(name, torch.zeros((), dtype=torch.bool))


def note_labels(model: nn.Module, label: Tensor | None, no_label: int) -> None:
    """Note in a model whether a training step is with labels, without, or both.

    As tensors all the way, so that no device is waited for. Buffers, because these are averaged,
    stored and loaded along with the weights that they tell about.
    """
    if not (model.training and torch.is_grad_enabled() and hasattr(model, "trained_with_label")):
        return
    if label is None:
        model.trained_without_label.fill_(True)
        return
    is_hidden = label == no_label
    model.trained_without_label.logical_or_(is_hidden.any())
    model.trained_with_label.logical_or_((~is_hidden).any())


def check_trained_without_label(denoiser: Denoiser) -> None:
    """Raise a ValueError if a denoiser was trained with labels, and never without."""
    with_label = getattr(denoiser, "trained_with_label", None)
    without = getattr(denoiser, "trained_without_label", None)
    if (
        isinstance(with_label, Tensor)
        and isinstance(without, Tensor)
        and with_label
        and not without
    ):
        raise ValueError(
            "label is None: expected a label, got a denoiser that was trained with labels only and "
            "knows nothing of data without one; train with label_dropout above 0"
        )


def check_trained_with_label(denoiser: Denoiser) -> None:
    """Raise a ValueError if a denoiser was trained without labels, and never with."""
    with_label = getattr(denoiser, "trained_with_label", None)
    without = getattr(denoiser, "trained_without_label", None)
    if (
        isinstance(with_label, Tensor)
        and isinstance(without, Tensor)
        and without
        and not with_label
    ):
        raise ValueError(
            "label is given: expected none, got a denoiser that was trained without labels only; "
            "train with labels and label_dropout below 1"
        )


def check_prediction(name: str, prediction: str) -> None:
    """Raise ValueError unless `prediction` is one of `PREDICTIONS`."""
    if prediction not in PREDICTIONS:
        accepted = ", ".join(repr(one) for one in PREDICTIONS)
        raise ValueError(f"{name} = {prediction!r}; accepted are {accepted}")


def log_snr_for(log_snr: Tensor | float, x: Tensor) -> Tensor:
    """Return a noise level in float64, shaped to multiply x.

    Parameters
    ----------
    log_snr : Tensor or float
        One number, or shape ``(batch,)``; finite.
    x : Tensor
        Shape ``(batch, ...)``.

    Returns
    -------
    Tensor
        Shape ``()`` or ``(batch, 1, ..., 1)``, float64, on the CPU: x may live where there is no
        float64. What is computed from it is handed over by `evidence.precision.like`.

    Raises
    ------
    ValueError
        If its shape does not fit or a number is not finite.
    """
    level = on_cpu(log_snr)
    if not level.isfinite().all():
        bad = level[~level.isfinite()].flatten()[0].item()
        raise ValueError(f"log_snr has {bad}; accepted are finite numbers")
    if level.ndim == 0:
        return level
    if level.ndim > 1 or x.ndim == 0 or len(level) != len(x):
        raise ValueError(
            f"log_snr has shape {tuple(level.shape)}; accepted for x of shape {tuple(x.shape)} are "
            "one number and (batch,)"
        )
    return level.reshape(-1, *[1] * (x.ndim - 1))

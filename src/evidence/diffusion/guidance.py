r"""Classifier-free guidance: a denoiser that exaggerates what a label changes.

The convention of the weight here, of which there are two about:

.. math:: \hat\varepsilon_w = \hat\varepsilon(x_t) + w\,(\hat\varepsilon(x_t, c)
    - \hat\varepsilon(x_t))

so w = 0 ignores the label, w = 1 is the conditional denoiser itself, and above 1 is guidance. (The
paper's w, arXiv 2207.12598, is this one less 1.)

At each noise level by itself the guided score is the gradient of
:math:`\log p_t(x) + w \log p_t(c|x)`, which is `log_sharpened`. The samples do not have the density
:math:`p(x)\, p(c|x)^w` for all that: the sharpened densities of different noise levels are not
the noised versions of one another, and only along such a family does a sampler follow its scores.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evidence.diffusion.arguments import as_whole_number
from evidence.diffusion.prediction import (
    Denoiser,
    check_trained_with_label,
    check_trained_without_label,
    native,
)

if TYPE_CHECKING:
    from evidence.diffusion.exact import MixtureData

__all__ = ["Guided", "log_sharpened"]


class Guided:
    r"""A denoiser led towards a label, to be given to any sampler.

    Whatever is wanted, eps, x_0, v or the score, is mixed in the same way: each is an affine
    function of the others at a given x_t, and the weights 1 - w and w sum to 1. Samplers ask it for
    what the denoiser itself predicts (`evidence.diffusion.prediction.native`).

    Parameters
    ----------
    denoiser : Denoiser
        Its ``predict`` takes ``label``: int64 ``(batch,)``, or None for none.
    label : int or Tensor
        One label for all, or one for each datum of the batches to come, int64 ``(batch,)``.
    weight : float
        w of the module's formula. At 0 and at 1 the denoiser is asked once and not twice.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or of the wrong kind, or the weight needs predictions, with
        a label or without, for which the denoiser was never trained.
    """

    def __init__(self, denoiser: Denoiser, label: int | Tensor, weight: float) -> None:
        if isinstance(label, Tensor):
            if label.ndim > 1 or label.dtype != torch.int64:
                raise ValueError(
                    f"label has shape {tuple(label.shape)} and dtype {label.dtype}; accepted are "
                    "an int and an int64 tensor (batch,)"
                )
        elif as_whole_number(label) is None:
            raise TypeError(f"label is {label!r}; accepted are an int and an int64 tensor (batch,)")
        if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight):
            raise ValueError(f"weight is {weight!r}; accepted is a finite number")
        if weight != 1:
            check_trained_without_label(denoiser)
        if weight != 0:
            check_trained_with_label(denoiser)
        self.denoiser = denoiser
        self.label = torch.as_tensor(label, dtype=torch.int64)
        self.weight = float(weight)

    @property
    def prediction(self) -> str:
        """What it is best asked for."""
        return native(self.denoiser)

    def predict(
        self,
        x_t: Tensor,
        log_snr: Tensor | float,
        wanted: str = "eps",
        *,
        label: None = None,
    ) -> Tensor:
        """Return the guided prediction.

        Parameters
        ----------
        x_t : Tensor
            Shape ``(batch, ...)``.
        log_snr : Tensor or float
            A scalar, or ``(batch,)``.
        wanted : {"eps", "x_0", "v", "score"}
            What is to be predicted.
        label : None
            Not accepted: the label to be led to was given at the start.

        Returns
        -------
        Tensor
            Shape ``(batch, ...)``.

        Raises
        ------
        ValueError
            If there are labels for another number of data, or a second label.
        """
        if label is not None:
            raise ValueError(f"label is {label!r}; accepted is None: Guided has its label already")
        label = self.label.to(x_t.device)
        if label.ndim == 1 and len(label) != len(x_t):
            raise ValueError(
                f"x_t has {len(x_t)} entries and label {len(label)}; accepted are as many, or one "
                "label for all"
            )
        label = label.expand(len(x_t))
        if self.weight == 0:
            return self.denoiser.predict(x_t, log_snr, wanted)
        with_label = self.denoiser.predict(x_t, log_snr, wanted, label=label)
        if self.weight == 1:
            return with_label
        without = self.denoiser.predict(x_t, log_snr, wanted)
        return without + self.weight * (with_label - without)


def log_sharpened(
    data: MixtureData, x_t: Tensor, log_snr: Tensor | float, label: int, weight: float
) -> Tensor:
    r"""Return :math:`\log p_t(x) + w \log p_t(c|x)`, which is not normalised.

    Its gradient is the guided score at this noise level. At a high log-SNR it is the density that
    guidance is often said to sample.

    Parameters
    ----------
    data : MixtureData
        With K components, which are the labels.
    x_t : Tensor
        Shape ``(batch, D)``.
    log_snr : Tensor or float
        A scalar.
    label : int
        c, from 0 to K - 1.
    weight : float
        w.

    Returns
    -------
    Tensor
        Shape ``(batch,)``, nats.

    Raises
    ------
    ValueError
        If there is no such label.
    """
    num_labels = len(data.weights)
    number = as_whole_number(label)
    if number is None or not 0 <= number < num_labels:
        raise ValueError(f"label is {label!r}; accepted are 0 to {num_labels - 1}")
    noised = data.noised(log_snr)
    # From log densities, not from the posterior: that is 0 in floating point where w log p is not.
    log_joint = noised.component_distribution.log_prob(x_t[:, None]) + data.weights.log()
    log_posterior = log_joint[:, label] - log_joint.logsumexp(1)
    return log_joint.logsumexp(1) + weight * log_posterior

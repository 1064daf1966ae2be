"""The record of a training run: plain numbers, easy to plot and to store."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["History"]


@dataclass
class History:
    """What happened in training, one number an epoch.

    Two histories are equal when all but their seconds are.

    Attributes
    ----------
    loss : list of float
        Mean of the loss over the data of each epoch, while the weights were changing.
    terms : dict of str to list of float
        The same for each further term that the loss returned.
    evaluations : dict of str to list of float
        What `evaluate` returned after each epoch.
    seconds : list of float
        Duration of each epoch, without evaluation and checkpoint.
    """

    loss: list[float] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)
    evaluations: dict[str, list[float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list, compare=False)

    @property
    def epochs(self) -> int:
        """The number of epochs finished."""
        return len(self.loss)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, independent of this history."""
        return copy.deepcopy(vars(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> History:
        """Rebuild a history from `as_dict`.

        Raises
        ------
        ValueError
            If the data have other keys, or lists of different lengths.
        """
        if set(data) != set(vars(cls())):
            raise ValueError(
                f"data has the keys {sorted(data)}, accepted are {sorted(vars(cls()))}"
            )
        history = cls(**copy.deepcopy(dict(data)))
        lists = [history.seconds, *history.terms.values(), *history.evaluations.values()]
        if any(len(values) != history.epochs for values in lists):
            raise ValueError(f"data has {history.epochs} losses, but other lists of another length")
        return history

    def __repr__(self) -> str:
        # Without figures: this text is compared in stored notebooks, and seconds always differ.
        names = ", ".join(["loss", *self.terms, *self.evaluations, "seconds"])
        return f"History of {self.epochs} epoch{'' if self.epochs == 1 else 's'}: {names}"

    def append(
        self, means: Mapping[str, float], figures: Mapping[str, float], seconds: float
    ) -> None:
        """Add an epoch.

        Parameters
        ----------
        means : mapping of str to float
            ``loss`` and the terms.
        figures : mapping of str to float
            The evaluations.
        seconds : float
            The duration.

        Raises
        ------
        ValueError
            If the terms or evaluations have other names than in the epochs before.
        """
        terms = {name: mean for name, mean in means.items() if name != "loss"}
        for kept, new, source in (
            (self.terms, terms, "loss"),
            (self.evaluations, figures, "evaluate"),
        ):
            if self.epochs and set(kept) != set(new):
                raise ValueError(
                    f"{source} returned the names {sorted(new)} after epoch {self.epochs + 1}, "
                    f"and {sorted(kept)} before; they must stay the same"
                )
        for name, value in terms.items():
            self.terms.setdefault(name, []).append(value)
        for name, value in figures.items():
            self.evaluations.setdefault(name, []).append(value)
        self.loss.append(means["loss"])
        self.seconds.append(seconds)

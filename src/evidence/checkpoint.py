"""Checkpoints: a run that was stopped goes on as if it had not been.

A checkpoint is one safetensors file with the weights, the optimizer's, scheduler's and generator's
states and the history of a run, and with a description of the call that it belongs to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from evidence.history import History
from evidence.provenance import fingerprint
from evidence.state_file import load_state, save_state

__all__ = ["CheckpointError", "RunState", "describe_run"]

KIND = "training checkpoint"
FINGERPRINT_LENGTH = 64


class CheckpointError(ValueError):
    """A checkpoint belongs to another run. It is left as it is."""


def describe_run(**arguments: Any) -> dict[str, str]:
    """Describe a call of `evidence.training.train`, so that two calls can be told apart.

    Parameters
    ----------
    **arguments
        Those arguments that make a difference to the result; the model with the weights that it
        starts with.

    Returns
    -------
    dict of str to str
        For each argument its fingerprint, or the argument itself where it is short.

    Raises
    ------
    FingerprintError
        If an argument refers to something that cannot be hashed.
    """
    return {
        name: repr(value)
        if isinstance(value, int | float | torch.dtype | None)
        else fingerprint(value)
        for name, value in arguments.items()
    }


@dataclass
class RunState:
    """All that a run of `evidence.training.train` is between two epochs."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None
    generator: torch.Generator
    history: History
    average: AveragedModel | None = None

    @property
    def result(self) -> nn.Module:
        """What the run is for: the model, or the copy of it that holds the averaged weights."""
        return self.model if self.average is None else self.average.module

    def save(self, path: Path, definition: Mapping[str, str]) -> None:
        """Write the checkpoint of this moment in place of an earlier one."""
        state = {
            "kind": KIND,
            "definition": definition,
            "model_now": fingerprint(self.result),
            "model": self.model.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "history": self.history.as_dict(),
        }
        save_state(path, state)

    def resume(self, path: Path, definition: dict[str, str]) -> None:
        """Go on from a checkpoint, if there is one, after making sure that it is of this run."""
        try:
            state = load_state(path)
        except FileNotFoundError:
            return
        if state.get("kind") != KIND:
            raise CheckpointError(f"{path} is no checkpoint of a training run; give another path")
        saved = state["definition"]
        # A cell that is run again after an interruption comes with the model as it was left.
        if definition["model"] == state["model_now"]:
            definition["model"] = saved["model"]
        different = [
            f"{name} ({saved.get(name)} there, {definition[name]} here)"
            if len(definition[name]) < FINGERPRINT_LENGTH
            else name
            for name in definition
            if definition[name] != saved.get(name)
        ]
        if different:
            raise CheckpointError(
                f"{path} is the checkpoint of another run, with other arguments: "
                f"{', '.join(different)}. Give another path, or delete the file to start anew"
            )
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"])
        self.history = History.from_dict(state["history"])

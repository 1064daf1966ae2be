"""Run targets of the Makefile one after the other, and print where the time went."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence

__all__ = ["run_stages", "table"]

INTERRUPTED = 130


def run_stages(make: str, stages: Sequence[str]) -> int:
    """Make each target; stop at the first that fails; print the seconds of all in any case.

    Parameters
    ----------
    make : str
        The command, with its options if it has any.
    stages : sequence of str
        Targets, in order. Those after ``build`` find the book built: ``BUILT=1``.

    Returns
    -------
    int
        The exit status of the last one that ran.
    """
    seconds: dict[str, float] = {}
    status = 0
    built: list[str] = []
    for stage in stages:
        start = time.perf_counter()
        try:
            command = [*shlex.split(make), "--no-print-directory", stage, *built]
            status = subprocess.run(command).returncode
        except KeyboardInterrupt:
            status = INTERRUPTED
        seconds[stage] = time.perf_counter() - start
        if status:
            break
        if stage == "build":
            built = ["BUILT=1"]
    print(table(stages, seconds, status), flush=True)
    return status


def table(stages: Sequence[str], seconds: dict[str, float], status: int) -> str:
    """Write down the seconds of each stage that ran, and which one failed.

    Parameters
    ----------
    stages : sequence of str
        All that were to run.
    seconds : dict
        Of those that ran, in order.
    status : int
        The exit status of the last of them.
    """
    width = max(map(len, stages))
    lines = [f"\n{'stage':{width}}  seconds"]
    for stage in stages:
        if stage not in seconds:
            lines.append(f"{stage:{width}}        -  not run")
        else:
            has_failed = status and stage == list(seconds)[-1]
            lines.append(f"{stage:{width}}  {seconds[stage]:7.1f}{'  failed' * bool(has_failed)}")
    lines.append(f"{'all':{width}}  {sum(seconds.values()):7.1f}")
    return "\n".join(lines)

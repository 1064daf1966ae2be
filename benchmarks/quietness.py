"""Whether other work on the machine left a timing believable.

Of the cores that this process may use, the time that they were busy is compared with the processor
time that it took itself, its ended children included: the rest went to others. What a virtual
machine's host took away counts among them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

__all__ = ["Load", "doubts", "marked", "watched"]

# Idle, or part of another figure already.
NOT_BUSY = ("idle", "iowait", "guest", "guest_nice")
SPARE = 0.1
"""The share of a thread that others may take from each."""
SCATTER = 1.25
"""The largest ratio of the median of equal laps to the shortest."""


@dataclass
class Load:
    """What went on while something was timed.

    Attributes
    ----------
    cores : int
        How many this process may use.
    seconds : float
        On the clock on the wall.
    busy, own : float
        Processor seconds of these cores, and of them this process's own.
    """

    cores: int
    seconds: float = 0.0
    busy: float = 0.0
    own: float = 0.0

    @property
    def others(self) -> float:
        """How many cores other work took, as a mean."""
        return max(0.0, self.busy - self.own) / self.seconds


def cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(psutil.cpu_count()))


def clocks() -> tuple[float, float, float]:
    """Return the wall's clock, the time that the cores were busy, and the own processor time."""
    times = psutil.cpu_times(percpu=True)
    busy = sum(
        seconds
        for core in cores()
        for name, seconds in times[core]._asdict().items()
        if name not in NOT_BUSY
    )
    return time.perf_counter(), busy, sum(os.times()[:4])


@contextmanager
def watched() -> Iterator[Load]:
    """Measure what goes on within; the load that is given has its figures afterwards."""
    load = Load(len(cores()))
    before = clocks()
    yield load
    load.seconds, load.busy, load.own = (
        end - start for start, end in zip(before, clocks(), strict=True)
    )


def doubts(load: Load, threads: int, laps: Sequence[Sequence[float]] = ()) -> list[str]:
    """Return what makes a timing unbelievable; nothing if it is believable.

    Parameters
    ----------
    load : Load
        Of the time that it took.
    threads : int
        How many computed at once.
    laps : sequence of sequences of float
        Seconds of parts that should have taken equally long, all in a sequence.
    """
    found = []
    left = load.cores - load.others
    if threads * (1 - SPARE) > left:
        found.append(
            f"other work took {load.others:.2f} of {load.cores} cores, which leaves "
            f"{max(0.0, left):.2f} for {threads} threads"
        )
    scatter = max((statistics.median(each) / min(each) for each in laps), default=1.0)
    if scatter > SCATTER:
        found.append(f"equal parts took unequal times, in the median {scatter:.2f} of the least")
    return found


def marked(table: str, load: Load, threads: int, laps: Sequence[Sequence[float]] = ()) -> str:
    """Return a table with a last line that says whether to believe it; if not, all are marked."""
    found = doubts(load, threads, laps)
    if not found:
        return f"{table}\n(Other work took {load.others:.2f} of {load.cores} cores meanwhile.)"
    lines = [f"? {line}" for line in table.splitlines()]
    reason = "; ".join(found)
    return "\n".join([*lines, f"NOT BELIEVABLE: {reason}. Run it again on a quiet machine."])

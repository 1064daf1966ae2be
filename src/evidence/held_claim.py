"""What remains of a claim that held: its record, and the words in which it is shown.

Apart from `evidence.claims`, which makes it, so that the book's build can read records without
loading the libraries that a check needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["MIME_TYPE", "Claim", "Rejection", "format_figure"]

MIME_TYPE = "application/vnd.evidence.claim+json"
"""The MIME type under which a held claim travels from its cell to the built page."""


@dataclass(frozen=True)
class Rejection:
    """One wrong version and the figure with which it failed the claim's test."""

    name: str
    value: float


@dataclass(frozen=True)
class Claim:
    """A claim that held. It is what a cell shows and what the ledger lists.

    Attributes
    ----------
    label : str
        The label of the equation, as written after it on the page.
    statement : str
        What holds, in words; may contain ``$...$``.
    kind : str
        ``exact``, ``bound``, ``estimate`` or ``measured``.
    measure : str
        What `value` is: ``error``, ``slack``, ``z-score`` or ``margin``.
    value : float
        The figure for the claim as stated.
    tolerance : float
        The figure that the test allowed (the margin asked for, in a measured claim).
    cases : int
        Number of cases (draws for an estimate, seeds for a measured claim; 0 for a symbolic proof).
    rejected : tuple of Rejection
        The wrong versions, each with the figure it reached: the error, the z-score, or by how much
        it broke the inequality.
    """

    label: str
    statement: str
    kind: str
    measure: str
    value: float
    tolerance: float
    cases: int
    rejected: tuple[Rejection, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "rejected": [asdict(wrong) for wrong in self.rejected]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Claim:
        """Rebuild a claim from `as_dict`."""
        rejected = tuple(Rejection(**wrong) for wrong in data["rejected"])
        return cls(**{**data, "rejected": rejected})

    @property
    def scope(self) -> str:
        """Over what the claim was tested, in words."""
        if self.cases == 0:
            return "symbolically"
        unit = {"estimate": "draw", "measured": "seed"}.get(self.kind, "case")
        return f"{self.cases:,} {unit}{'s' if self.cases > 1 else ''}"

    @property
    def figure(self) -> str:
        """The claim's figure in words, for example ``largest error 2.2e-16 (allowed 1.0e-09)``."""
        if self.cases == 0:
            return "difference 0"
        if self.kind == "bound":
            note = " (0 up to rounding)" if self.value < 0 else ""
            return f"smallest slack {format_figure(self.value)}{note}"
        if self.kind == "measured":
            note = f" (asked for {format_figure(self.tolerance)})" if self.tolerance else ""
            return f"smallest margin {format_figure(self.value)}{note}"
        allowed = format_figure(self.tolerance)
        return f"largest {self.measure} {format_figure(self.value)} (allowed {allowed})"

    def describe_rejection(self, wrong: Rejection) -> str:
        """Say by how much a wrong version failed, in the words of this claim's kind."""
        words = "misses by" if self.kind in ("bound", "measured") else self.measure
        return f"{words} {format_figure(wrong.value)}"

    def __repr__(self) -> str:
        # Free of measured figures on purpose: they differ between processors at rounding level,
        # and this text is what the stored notebooks are compared by.
        count = len(self.rejected)
        plural = "s" if count > 1 else ""
        return (
            f"Claim {self.label} holds: {self.kind}, {self.scope}; "
            f"{count} wrong version{plural} rejected"
        )

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> dict[str, object]:
        wrong = "".join(
            f"\n- rejected: {wrong.name} ({self.describe_rejection(wrong)})"
            for wrong in self.rejected
        )
        return {
            "text/plain": repr(self),
            "text/markdown": (
                f"**✓ Claim holds** ({self.kind}, {self.scope}): {self.statement}; "
                f"{self.figure}.\n{wrong}"
            ),
            MIME_TYPE: self.as_dict(),
        }


def format_figure(value: float) -> str:
    """Write a figure with two or three significant digits, as the book shows it."""
    if value == 0:
        return "0"
    if 0.01 <= abs(value) < 999.5:
        return f"{value:.3g}"
    return f"{value:.1e}"

r"""Claims: a numbered equation is a promise that a cell keeps.

A claim compares the two sides of one equation of the book, numerically or symbolically, by two
different routes, and must also *reject* wrong versions of it that a reader could plausibly
believe. Four kinds exist:

===========  ==========================================  =========================================
kind         says                                        shows
===========  ==========================================  =========================================
`exact`      left = right, in sympy or in float64        largest ``|left - right|/max(1, |right|)``
`bound`      left <= right                               smallest slack ``right - left``
`estimate`   the mean of random draws is a known value   largest ``|mean - known|/standard error``
`measured`   left + margin < right, for trained models   smallest ``right - left`` over the seeds
===========  ==========================================  =========================================

In a notebook, put the call last in its cell::

    from evidence import claims

    claims.exact(
        "eq-kl-gaussian",
        "the Gaussian KL in closed form equals the library's",
        left=closed_form,  # shape (cases,)
        right=torch.distributions.kl_divergence(q_z, p_z),  # shape (cases,)
        wrong={"the entropy's half dropped": closed_form_without_half},
    )

A wrong version takes the place of `left`; a tuple ``(left, right)`` takes the place of both.
It must miss the claim's own test clearly, so that neither rounding nor luck rejects it.

A claim that does not hold raises `ClaimError`. One whose wrong version passes raises
`VacuousClaimError`, and one that cannot be tested as stated (shape, dtype, label, tolerance, text)
raises `ClaimInputError`. Sides of different shapes are never broadcast: only a plain Python number
may stand for a constant side. Claims keep no state and change no input, so running a cell twice is
the same as running it once.
"""

from __future__ import annotations

import math
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from evidence.held_claim import MIME_TYPE, Claim, Rejection

if TYPE_CHECKING:
    import sympy

__all__ = [
    "MIME_TYPE",
    "Claim",
    "ClaimError",
    "ClaimInputError",
    "Rejection",
    "VacuousClaimError",
    "bound",
    "estimate",
    "exact",
    "measured",
]

LOOSEST_TOLERANCE = 1e-9
STANDARD_ERRORS_ALLOWED = 4.0
FEWEST_DRAWS = 30
FEWEST_SEEDS = 3

# A wrong version must miss clearly, not by rounding or by luck of the seed.
TOLERANCES_TO_REJECT = 10.0
STANDARD_ERRORS_TO_REJECT = 8.0
ROUNDING = 1e-12
"""What long float64 sums can differ by, for sides of size 1: no wrong version may miss by less."""

LARGEST_NUMBER = 1e150
"""Squares and differences of sides up to this size stay finite in float64."""
LARGEST_INTEGER = 2**53
"""Up to this size float64 holds every integer."""

# Symbolic sides are evaluated at these values. Unlike primes below and between 0 and 1, so that no
# two add up to 1 by chance and probabilities and the alphas of a diffusion stay in their range.
FRACTIONS = ((7, 11), (5, 13), (14, 17), (4, 19), (12, 23), (20, 29), (9, 31), (25, 37))
"""Numerators and denominators, of either sign."""
INTEGERS = (2, 3, 4, 5, 6, 7, -2, -3, -4, -5, 0, 1)
SYMBOLIC_POINTS = 5


class ClaimError(AssertionError):
    """The claim does not hold: the message says which side, by how much and where."""


class VacuousClaimError(ClaimError):
    """A wrong version passes the claim's own test, so the test shows nothing."""


class ClaimInputError(ValueError):
    """The claim cannot be tested as it was stated (shape, dtype, label, tolerance, text)."""


def exact(
    label: str,
    statement: str,
    left: Any,
    right: Any,
    *,
    wrong: Mapping[str, Any],
    tol: float = LOOSEST_TOLERANCE,
) -> Claim:
    """Claim that two sides are equal, symbolically or in float64 over many cases.

    The error is ``|left - right| / max(1, |right|)``: relative for large numbers, absolute for
    small ones. Compare logarithms where the numbers themselves are far below 1.

    Parameters
    ----------
    label : str
        Label of the equation, for example ``eq-elbo-gap``.
    statement : str
        What is equal, in words, on one line and without a full stop; may contain ``$...$``.
    left, right : array_like or sympy expression
        The two sides, computed by different routes, of one shape ``(cases, ...)``, in float64 or
        integers (a plain Python number stands for a constant side); or two sympy expressions
        without floating-point numbers, whose difference must simplify to zero.
    wrong : mapping of str to array_like
        Wrong versions of the left side, or tuples ``(left, right)``; each must fail.
    tol : float
        Largest allowed error; 1e-9 at most.

    Returns
    -------
    Claim
        With the largest error over all elements (0 for sympy expressions).

    Raises
    ------
    ClaimError
        If an error exceeds `tol`, a number is not finite, or sympy expressions differ.
    VacuousClaimError
        If a wrong version comes within ten times `tol` (or within 1e-12), or within 1e-8 for
        sympy expressions, whose error is taken over five fixed points.
    ClaimInputError
        If the claim cannot be tested as stated; also if the difference of two sympy expressions
        neither simplifies to zero nor is seen to differ from it.
    """
    _check_statement(label, statement, wrong)
    tol = _check_number(label, "tol", tol, LOOSEST_TOLERANCE)
    if _is_symbolic(left) or _is_symbolic(right):
        return _exact_symbolic(label, statement, left, right, wrong)

    a, b = _sides(_claim(label), left, right, float64=True)
    errors = _errors(a, b)
    if errors.max() > tol:
        problem = f"left and right differ by {{}} relative to max(1, |right|), allowed {tol:g}"
        raise ClaimError(_failure(label, problem, a, b, errors, errors > tol))

    def error(who: str, left: Any, right: Any) -> float:
        return _errors(*_sides(who, left, right, float64=True)).max()

    return Claim(
        label=label,
        statement=statement,
        kind="exact",
        measure="error",
        value=float(errors.max()),
        tolerance=tol,
        cases=_cases(a),
        rejected=_reject(
            label,
            wrong,
            right,
            error,
            needed=max(tol * TOLERANCES_TO_REJECT, ROUNDING),
        ),
    )


def bound(
    label: str,
    statement: str,
    left: Any,
    right: Any,
    *,
    wrong: Mapping[str, Any],
    tol: float = LOOSEST_TOLERANCE,
) -> Claim:
    """Claim that ``left <= right`` in every case, up to rounding.

    The slack ``right - left`` is in the unit of the sides, so a bound that is tight between numbers
    beyond about 1e6 needs sides scaled to size 1: their rounding alone can exceed `tol`.

    Parameters
    ----------
    label, statement : str
        As in `exact`.
    left, right : array_like
        The two sides, float64 or integers, of one shape ``(cases, ...)``; a plain Python number is
        a constant side.
    wrong : mapping of str to array_like
        Wrong versions of the left side, or tuples ``(left, right)``; each must break the inequality
        in at least one case.
    tol : float
        By how much rounding may lift the left side above the right; 1e-9 at most.

    Returns
    -------
    Claim
        With the smallest slack over all elements.

    Raises
    ------
    ClaimError
        If ``left - right`` exceeds `tol`, or a number is not finite.
    VacuousClaimError
        If a wrong version exceeds its right side nowhere by more than ten times `tol`, or by no
        more than rounding (1e-12 of the largest ``|right|``, which counts as 1 at least).
    ClaimInputError
        If the claim cannot be tested as stated.
    """
    _check_statement(label, statement, wrong)
    tol = _check_number(label, "tol", tol, LOOSEST_TOLERANCE)
    a, b = _sides(_claim(label), left, right, float64=True)
    excess = a - b
    if excess.max() > tol:
        problem = f"left exceeds right by {{}}, allowed {tol:g}"
        raise ClaimError(_failure(label, problem, a, b, excess, excess > tol))

    def largest_excess(who: str, left: Any, right: Any) -> float:
        a, b = _sides(who, left, right, float64=True)
        return (a - b).max()

    size = max(1.0, float(np.abs(b).max()))
    return Claim(
        label=label,
        statement=statement,
        kind="bound",
        measure="slack",
        value=float((b - a).min()),
        tolerance=tol,
        cases=_cases(a),
        rejected=_reject(
            label,
            wrong,
            right,
            largest_excess,
            needed=max(tol * TOLERANCES_TO_REJECT, ROUNDING * size),
        ),
    )


def estimate(
    label: str,
    statement: str,
    left: Any,
    right: Any,
    *,
    wrong: Mapping[str, Any],
) -> Claim:
    """Claim that random draws have a known mean, within four standard errors.

    Parameters
    ----------
    label, statement : str
        As in `exact`.
    left : array_like
        Independent draws from a fixed seed, shape ``(draws,)`` or ``(draws, k)``, 30 at least.
    right : array_like
        Their known mean, a scalar or shape ``(k,)``; a plain Python number stands for all `k`.
    wrong : mapping of str to array_like
        Wrong versions: one with fewer axes than the draws replaces the known mean, one with as many
        replaces the draws, and a tuple ``(draws, known mean)`` replaces both.

    Returns
    -------
    Claim
        With the largest ``|mean - known| / standard error`` over the components.

    Raises
    ------
    ClaimError
        If that exceeds 4, or a number is not finite.
    VacuousClaimError
        If no component of a wrong version misses by more than eight standard errors.
    ClaimInputError
        If the claim cannot be tested as stated; also if the draws do not vary.
    """
    _check_statement(label, statement, wrong)
    mean, standard_error, known, draws = _estimate_sides(_claim(label), left, right)
    z = np.abs(mean - known) / standard_error
    worst = int(z.argmax())
    if z[worst] > STANDARD_ERRORS_ALLOWED:
        component = f" in component {worst} of {len(z)}" if len(z) > 1 else ""
        raise ClaimError(
            f"claim {label!r} does not hold: the mean of the {draws:,} draws (left) is "
            f"{mean[worst]:.6g} with standard error {standard_error[worst]:.2g} and the known mean "
            f"(right) is {known[worst]:.6g}{component}: {z[worst]:.1f} standard errors apart, "
            f"allowed {STANDARD_ERRORS_ALLOWED:g}"
        )

    def with_both_sides(name: str, version: Any) -> tuple[Any, Any]:
        if isinstance(version, tuple):
            return version
        is_known_mean = _as_array(_wrong(label, name), "given", version).ndim < np.ndim(left)
        return (left, version) if is_known_mean else (version, right)

    def largest_z(who: str, left: Any, right: Any) -> float:
        mean, standard_error, known, _ = _estimate_sides(who, left, right)
        return (np.abs(mean - known) / standard_error).max()

    return Claim(
        label=label,
        statement=statement,
        kind="estimate",
        measure="z-score",
        value=float(z[worst]),
        tolerance=STANDARD_ERRORS_ALLOWED,
        cases=draws,
        rejected=_reject(
            label,
            {name: with_both_sides(name, version) for name, version in wrong.items()},
            right,
            largest_z,
            needed=STANDARD_ERRORS_TO_REJECT,
        ),
    )


def measured(
    label: str,
    statement: str,
    left: Any,
    right: Any,
    *,
    wrong: Mapping[str, Any],
    margin: float = 0.0,
) -> Claim:
    """Claim that ``left + margin < right`` for trained models, for every one of several seeds.

    Parameters
    ----------
    label, statement : str
        As in `exact`.
    left, right : array_like
        One figure a seed, shape ``(seeds,)`` with three seeds at least; a plain Python number is a
        constant side.
    wrong : mapping of str to array_like
        Wrong versions of the left side, or tuples ``(left, right)``; each must fail for at least
        one seed.
    margin : float
        What must lie between the sides, in their unit; 0 or more.

    Returns
    -------
    Claim
        With the smallest ``right - left`` over the seeds.

    Raises
    ------
    ClaimError
        If ``left + margin >= right`` for a seed, or a number is not finite.
    VacuousClaimError
        If a wrong version fails for no seed by more than the rounding of float32 figures.
    ClaimInputError
        If the claim cannot be tested as stated.
    """
    _check_statement(label, statement, wrong)
    margin = _check_number(label, "margin", margin, LARGEST_NUMBER)
    a, b = _sides(_claim(label), left, right)
    if a.ndim != 1 or a.size < FEWEST_SEEDS:
        raise ClaimInputError(
            f"claim {label!r}: the figures have shape {a.shape}; expected (seeds,) with "
            f"{FEWEST_SEEDS} seeds or more"
        )
    shortfall = a + margin - b
    if shortfall.max() >= 0:
        problem = f"left + {margin:g} is not below right, but above it by {{}}"
        raise ClaimError(_failure(label, problem, a, b, shortfall, shortfall >= 0))

    def largest_shortfall(who: str, left: Any, right: Any) -> float:
        a, b = _sides(who, left, right)
        return (a + margin - b).max()

    size = max(np.abs(a).max(), np.abs(b).max(), margin)
    return Claim(
        label=label,
        statement=statement,
        kind="measured",
        measure="margin",
        value=float((b - a).min()),
        tolerance=margin,
        cases=_cases(a),
        rejected=_reject(
            label,
            wrong,
            right,
            largest_shortfall,
            needed=float(size * np.finfo(np.float32).eps),
        ),
    )


def _claim(label: str) -> str:
    return f"claim {label!r}"


def _wrong(label: str, name: str) -> str:
    return f"the wrong version {name!r} of claim {label!r}"


def _errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b) / np.maximum(1.0, np.abs(b))


def _cases(array: np.ndarray) -> int:
    return int(array.shape[0]) if array.ndim else 1


def _at(index: tuple[Any, ...], shape: tuple[int, ...]) -> str:
    if not shape:
        return ""
    place = int(index[0]) if len(shape) == 1 else tuple(int(i) for i in index)
    return f" at index {place} of shape {shape}"


def _failure(
    label: str,
    problem: str,
    a: np.ndarray,
    b: np.ndarray,
    amounts: np.ndarray,
    failing: np.ndarray,
) -> str:
    """Say what both sides are where they are furthest off; `problem` has ``{}`` for the amount."""
    where = np.unravel_index(amounts.argmax(), amounts.shape)
    return (
        f"claim {label!r} does not hold: {problem.format(f'{amounts[where]:.3g}')}: "
        f"left = {float(a[where])!r}, right = {float(b[where])!r}{_at(where, a.shape)}; "
        f"{failing.sum()} of {a.size} fail"
    )


def _check_statement(label: str, statement: str, wrong: Mapping[str, Any]) -> None:
    if not isinstance(label, str) or not re.fullmatch(r"eq-[A-Za-z0-9_-]+", label):
        raise ClaimInputError(
            f"claim label {label!r}: expected the label of an equation, 'eq-' followed by letters, "
            "digits and hyphens (labels that start with 'def-' are definitions and carry no claim)"
        )
    _check_text(label, "the statement", statement)
    if not isinstance(wrong, Mapping) or not wrong:
        raise ClaimInputError(
            f"claim {label!r}: no wrong version is given in wrong={wrong!r}; name at least one "
            "that a reader could believe, as {name: values}, so that the check is seen to fail"
        )
    for name in wrong:
        _check_text(label, f"the wrong version's name {name!r}", name)


def _check_text(label: str, what: str, text: str) -> None:
    """Refuse text that would not show as one line of prose and mathematics."""
    if not isinstance(text, str) or not text.strip():
        raise ClaimInputError(f"claim {label!r}: {what} is {text!r}; expected words")
    strange = next((character for character in text if not character.isprintable()), None)
    if strange:
        raise ClaimInputError(
            f"claim {label!r}: {what} contains {strange!r}; expected one line of plain text (a "
            "string with TeX is written r'...', or Python turns \\nu and \\theta into line breaks "
            "and tabs)"
        )
    if len(re.findall(r"(?<!\\)\$", text)) % 2:
        raise ClaimInputError(
            f"claim {label!r}: {what} has a $ without its partner: {text!r} (write \\$ for a "
            "dollar sign)"
        )


def _check_number(label: str, name: str, value: float, largest: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= largest:
        raise ClaimInputError(
            f"claim {label!r}: {name} is {value!r}; expected a number from 0 to {largest:g}"
        )
    return float(value)


def _as_array(who: str, side: str, values: Any) -> np.ndarray:
    try:
        if isinstance(values, torch.Tensor):
            return values.numpy(force=True)
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ClaimInputError(
            f"{who}: the {side} side cannot be read as an array ({error})"
        ) from error


def _side(who: str, side: str, values: Any, *, float64: bool = False) -> np.ndarray:
    """Return one side as finite float64 numbers, or say what is wrong with it."""
    array = _as_array(who, side, values)
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise ClaimInputError(
            f"{who}: the {side} side has dtype {array.dtype}; expected real numbers"
        )
    if float64 and array.dtype.kind == "f" and array.dtype != np.float64:
        raise ClaimInputError(
            f"{who}: the {side} side has dtype {array.dtype}; exact claims and bounds compare "
            "float64, so compute it in float64 from the start"
        )
    if array.size == 0:
        raise ClaimInputError(f"{who}: the {side} side is empty, shape {array.shape}")
    if array.dtype.kind in "iu":
        beyond = (array > LARGEST_INTEGER) | (array < -LARGEST_INTEGER)
        if beyond.any():
            where = np.unravel_index(beyond.argmax(), array.shape)
            raise ClaimInputError(
                f"{who}: the {side} side is {array[where]}{_at(where, array.shape)}; beyond 2**53 "
                "float64 does not hold every integer"
            )
    array = array.astype(np.float64)
    unfit = ~(np.abs(array) <= LARGEST_NUMBER)
    if unfit.any():
        where = np.unravel_index(unfit.argmax(), array.shape)
        raise ClaimError(
            f"{who}: the {side} side is {array[where]}{_at(where, array.shape)}; "
            f"expected finite numbers of size {LARGEST_NUMBER:g} at most"
        )
    return array


def _sides(
    who: str, left: Any, right: Any, *, float64: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return both sides as finite float64 arrays of one shape, or say what is wrong with them."""
    if left is right and isinstance(left, (np.ndarray, torch.Tensor)):
        raise ClaimInputError(
            f"{who}: left and right are one and the same array; compute them by different routes"
        )
    a = _side(who, "left", left, float64=float64)
    b = _side(who, "right", right, float64=float64)
    if _is_plain_number(left):
        a = np.full(b.shape, a)
    if _is_plain_number(right):
        b = np.full(a.shape, b)
    if a.shape != b.shape:
        raise ClaimInputError(
            f"{who}: left has shape {a.shape} and right has shape {b.shape}; both sides need one "
            "shape (a plain Python number, float(...), may stand for a constant side)"
        )
    return a, b


def _is_plain_number(value: Any) -> bool:
    # Only a plain constant is spread over the cases: silent broadcasting hides wrong shapes. A
    # numpy scalar is none, although np.float64 is a float: an array reduced by mistake is one.
    return type(value) in (int, float)


def _estimate_sides(
    who: str, left: Any, right: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return mean, standard error and known mean, each of shape (k,), and the number of draws."""
    draws = _side(who, "left", left)
    known = _side(who, "right", right)
    if draws.ndim not in (1, 2) or len(draws) < FEWEST_DRAWS:
        raise ClaimInputError(
            f"{who}: the draws (left) have shape {draws.shape}; expected (draws,) or (draws, k) "
            f"with {FEWEST_DRAWS} draws or more"
        )
    if _is_plain_number(right):
        known = np.full(draws.shape[1:], known)
    if known.shape != draws.shape[1:]:
        raise ClaimInputError(
            f"{who}: the known mean (right) has shape {known.shape}; expected {draws.shape[1:]} "
            f"for draws of shape {draws.shape}"
        )
    draws, known = draws.reshape(len(draws), -1), known.reshape(-1)
    spread = draws.std(axis=0, ddof=1)
    # Rounding gives even constants a spread, and a z-score that means nothing.
    still = spread <= ROUNDING * np.abs(draws).max(axis=0)
    if still.any():
        raise ClaimInputError(
            f"{who}: the draws (left) of component {int(still.argmax())} do not vary, so they have "
            "no standard error; state the constant as the known mean, or in an exact claim"
        )
    return draws.mean(axis=0), spread / math.sqrt(len(draws)), known, len(draws)


def _reject(
    label: str,
    wrong: Mapping[str, Any],
    right: Any,
    figure: Callable[[str, Any, Any], float],
    *,
    needed: float,
) -> tuple[Rejection, ...]:
    """Put every wrong version through the claim's own test and keep the figures it failed with."""
    rejected = []
    for name, version in wrong.items():
        who = _wrong(label, name)
        pair = version if isinstance(version, tuple) else (version, right)
        if len(pair) != 2:
            raise ClaimInputError(
                f"{who} is a tuple of {len(pair)}; expected (left, right), or an array"
            )
        try:
            value = float(figure(who, *pair))
        except ClaimError as error:
            # A version that is not even finite deceives nobody, so its failure shows nothing.
            raise ClaimInputError(f"{error}, also in a wrong version") from error
        if not value > needed:
            raise VacuousClaimError(
                f"claim {label!r} shows nothing: its wrong version {name!r} reaches {value:.3g} "
                f"and counts as rejected only beyond {needed:.3g}; use cases that tell the two "
                "apart, or test more tightly"
            )
        rejected.append(Rejection(name, value))
    return tuple(rejected)


def _exact_symbolic(
    label: str, statement: str, left: Any, right: Any, wrong: Mapping[str, Any]
) -> Claim:
    import sympy

    a, b = _symbolic_sides(_claim(label), left, right)
    rest = sympy.simplify(a - b)
    if rest != 0:
        error, sides = _largest_symbolic_error(_claim(label), a, b)
        if error > LOOSEST_TOLERANCE:
            raise ClaimError(
                f"claim {label!r} does not hold: {sides}; left - right simplifies to {rest}, not 0"
            )
        seen = "they have no numerical values" if math.isnan(error) else "their values agree"
        raise ClaimInputError(
            f"claim {label!r} could not be shown: left - right simplifies to {rest}, not 0, though "
            f"{seen} at the points tried; bring the sides closer to one form, state what the "
            "symbols are (positive=True), or compare in float64"
        )

    def symbolic_error(who: str, left: Any, right: Any) -> float:
        error, _ = _largest_symbolic_error(who, *_symbolic_sides(who, left, right))
        if math.isnan(error):
            raise ClaimInputError(f"{who} has no numerical value at any of the points tried")
        return error

    return Claim(
        label=label,
        statement=statement,
        kind="exact",
        measure="error",
        value=0.0,
        tolerance=0.0,
        cases=0,
        rejected=_reject(
            label,
            wrong,
            right,
            symbolic_error,
            needed=LOOSEST_TOLERANCE * TOLERANCES_TO_REJECT,
        ),
    )


def _symbolic_sides(who: str, left: Any, right: Any) -> tuple[sympy.Expr, sympy.Expr]:
    import sympy

    sides = []
    for side, value in (("left", left), ("right", right)):
        scalar = isinstance(value, sympy.Expr) and not getattr(value, "is_Matrix", False)
        if not scalar and type(value) is not int:
            raise ClaimInputError(
                f"{who}: the {side} side is a {type(value).__name__}; a side beside a sympy "
                "expression must be a sympy expression (no matrix) or an int"
            )
        expression = sympy.sympify(value)
        if expression.has(sympy.Float):
            raise ClaimInputError(
                f"{who}: the {side} side contains floating-point numbers: {value}; a symbolic "
                "claim is exact, so write sympy.Rational(1, 2) for 0.5"
            )
        sides.append(expression)
    return sides[0], sides[1]


def _is_symbolic(value: Any) -> bool:
    # Whoever has a sympy expression has imported sympy; for the others it is half a second.
    sympy = sys.modules.get("sympy")
    return sympy is not None and isinstance(value, sympy.Basic)


@cache
def _values_to_try() -> tuple[tuple[sympy.Rational, ...], tuple[sympy.Integer, ...]]:
    import sympy

    fractions = tuple(sympy.Rational(sign * p, q) for sign in (1, -1) for p, q in FRACTIONS)
    return fractions, tuple(sympy.Integer(n) for n in INTEGERS)


def _symbolic_points(who: str, symbols: list[sympy.Symbol]) -> Iterator[dict]:
    """Yield fixed values for the symbols, each in keeping with what the symbol is assumed to be."""
    accepted = {}
    for symbol in symbols:
        for values in _values_to_try():
            accepted[symbol] = [value for value in values if _suits(value, symbol)]
            if accepted[symbol]:
                break
        else:
            raise ClaimInputError(f"{who}: no number tried suits the assumptions on {symbol}")
    generator = random.Random(0)
    for _ in range(SYMBOLIC_POINTS):
        yield {symbol: generator.choice(values) for symbol, values in accepted.items()}


def _suits(value: sympy.Expr, symbol: sympy.Symbol) -> bool:
    return all(getattr(value, f"is_{name}") == truth for name, truth in symbol.assumptions0.items())


def _largest_symbolic_error(who: str, a: sympy.Expr, b: sympy.Expr) -> tuple[float, str]:
    """Return the largest error over the fixed points, NaN if there is none, and where it occurs."""
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    found = []
    for point in _symbolic_points(who, symbols):
        try:
            left, right = (complex(side.subs(point).evalf(30)) for side in (a, b))
        except (TypeError, ValueError, ZeroDivisionError):
            continue  # A pole, or a function without a numerical value.
        error = abs(left - right) / max(1.0, abs(right))
        if error <= LARGEST_NUMBER:
            values = ", ".join(f"{symbol} = {value}" for symbol, value in point.items())
            place = f" at {values}" if point else ""
            found.append((error, f"left = {_number(left)}, right = {_number(right)}{place}"))
    return max(found, default=(math.nan, ""))


def _number(value: complex) -> str:
    return f"{value:.6g}" if value.imag else f"{value.real:.6g}"

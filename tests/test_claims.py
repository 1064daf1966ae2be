"""Claims: what holds is shown, what does not says where, and what proves nothing is refused."""

import json
import math
import re
import warnings
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from evidence import claims
from evidence.claims import (
    MIME_TYPE,
    Claim,
    ClaimError,
    ClaimInputError,
    Rejection,
    VacuousClaimError,
)
from evidence.held_claim import format_figure

CASES = np.linspace(0.5, 3.0, 7)
CURVE = np.expm1(CASES - 1)
SEEDS = np.array([0.30, 0.25, 0.40])

numbers = st.floats(-1e6, 1e6)
arrays = hnp.arrays(
    np.float64, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(-1e6, 1e6)
)


def normal_draws(mean=0.0, shape=(4000,), seed=0):
    return mean + np.random.default_rng(seed).standard_normal(shape)


DRAWS = normal_draws()


def hold_exact(left=CASES**2, right=CASES * CASES, wrong=None, **options):
    wrong = {"the square dropped": CASES} if wrong is None else wrong
    return claims.exact("eq-square", "a square", left, right, wrong=wrong, **options)


def hold_bound(left=CASES - 1, right=CURVE, wrong=None, **options):
    wrong = {"doubled": 2 * CASES} if wrong is None else wrong
    return claims.bound("eq-convex", "a tangent", left, right, wrong=wrong, **options)


def hold_estimate(left=DRAWS, right=0.0, wrong=None):
    wrong = {"mean one": 1.0} if wrong is None else wrong
    return claims.estimate("eq-mean", "the mean is zero", left, right, wrong=wrong)


def hold_measured(left=SEEDS, right=SEEDS + 0.5, wrong=None, **options):
    wrong = {"the other way round": (SEEDS + 0.5, SEEDS)} if wrong is None else wrong
    return claims.measured("eq-trained", "training helps", left, right, wrong=wrong, **options)


HOLDING = [hold_exact, hold_bound, hold_estimate, hold_measured]
in_any_time = settings(deadline=None)  # a busy machine is no failure
every_kind = pytest.mark.parametrize("hold", HOLDING)
float64_kinds = pytest.mark.parametrize("hold", [hold_exact, hold_bound])


# --- Claims that hold ---------------------------------------------------------------------------


def test_exact_shows_the_largest_error():
    right = np.array([1.0, 4.0, 100.0])
    claim = hold_exact(right + np.array([1e-10, 2e-10, 5e-8]), right, wrong={"one more": right + 1})
    assert claim.value == pytest.approx(5e-10, rel=1e-4)  # 5e-8 relative to 100
    assert claim.rejected[0].name == "one more"
    assert claim.rejected[0].value == pytest.approx(1.0)  # at the 1.0, not at the 100.0
    assert (claim.kind, claim.measure, claim.cases, claim.tolerance) == ("exact", "error", 3, 1e-9)


def test_exact_is_absolute_below_one():
    assert hold_exact([1e-3], [1e-3 + 5e-10], wrong={"w": [1.0]}).value == pytest.approx(5e-10)


def test_exact_is_relative_for_huge_numbers():
    huge = np.array([1e100, -3e120])
    claim = hold_exact(huge * (1 + 1e-12), huge, wrong={"halved": huge / 2})
    assert 1e-13 < claim.value < 1e-11
    assert claim.rejected[0].value == pytest.approx(0.5)


def test_bound_shows_the_smallest_slack():
    left, right = np.array([0.0, 1.0, 2.0]), np.array([5.0, 1.25, 9.0])
    claim = hold_bound(left, right, wrong={"lifted": left + np.array([0.0, 0.5, 0.0])})
    assert claim.value == 0.25
    assert claim.rejected == (Rejection("lifted", 0.25),)
    assert (claim.kind, claim.measure, claim.cases) == ("bound", "slack", 3)


def test_a_tight_bound_may_be_broken_by_rounding_only():
    claim = hold_bound([1.0 + 1e-10], [1.0], wrong={"w": [1.1]})
    assert claim.value == pytest.approx(-1e-10, rel=1e-5)
    assert claim.figure.endswith("(0 up to rounding)")
    assert "rounding" not in hold_bound().figure


def test_estimate_shows_the_largest_z():
    draws = normal_draws(np.array([0.0, 0.1, 0.0]), shape=(400, 3))
    claim = hold_estimate(draws, np.zeros(3), {"mean one": np.ones(3)})
    by_hand = draws.mean(0) / (np.sqrt(((draws - draws.mean(0)) ** 2).sum(0) / 399) / 20)
    assert claim.value == pytest.approx(np.abs(by_hand).max(), rel=1e-12)
    assert (claim.kind, claim.measure, claim.cases, claim.tolerance) == (
        "estimate",
        "z-score",
        400,
        4.0,
    )


def test_measured_shows_the_smallest_margin():
    claim = hold_measured([1.0, 2.0, 3.0], [3.0, 2.75, 8.0], {"none": 5.0}, margin=0.5)
    assert claim.value == 0.75
    assert claim.tolerance == 0.5
    assert claim.rejected == (Rejection("none", 5.0 + 0.5 - 2.75),)
    assert (claim.kind, claim.measure, claim.cases) == ("measured", "margin", 3)


@every_kind
def test_a_claim_run_twice_is_the_same_claim(hold):
    assert hold() == hold()


def test_a_symbolic_claim_run_twice_is_the_same_claim():
    x = sympy.Symbol("x")
    first, second = (hold_exact((x + 1) ** 2, x**2 + 2 * x + 1, {"w": x**2 + 1}) for _ in "ab")
    assert first == second


@pytest.mark.parametrize("hold", [hold_exact, hold_bound, hold_measured])
def test_only_a_plain_number_is_a_constant_side(hold):
    assert hold(0.25, np.full(4, 0.25 if hold is hold_exact else 1.0), {"w": 2.0}).cases == 4
    assert hold(np.full(4, 0.0), 0 if hold is hold_exact else 1, {"w": 2}).cases == 4
    for constant in (np.float64(0.25), torch.tensor(0.25, dtype=torch.float64), [0.25]):
        with pytest.raises(ClaimInputError, match=r"left has shape .* right has shape \(4,\)"):
            hold(constant, np.full(4, 0.25), {"w": 2.0})


def test_scalars_are_one_case():
    assert hold_exact(0.5, 0.5, wrong={"doubled": 1.0}).cases == 1
    assert hold_exact(np.float64(0.5), np.array(0.5), wrong={"doubled": 1.0}).cases == 1
    assert hold_bound(0.5, 0.75, wrong={"doubled": 1.0}).value == 0.25


@every_kind
def test_tensors_that_require_gradients_are_read(hold):
    left, right = torch.zeros(40, dtype=torch.float64), torch.full((40,), 0.5, dtype=torch.float64)
    wrong = {"all ones": torch.full((40,), 1.0, dtype=torch.float64, requires_grad=True)}
    if hold is hold_exact:
        right = left.clone()
    if hold is hold_estimate:
        left, right = torch.from_numpy(normal_draws()), torch.tensor(0.0, dtype=torch.float64)
        wrong = {"mean one": torch.tensor(1.0, requires_grad=True)}
    left.requires_grad_()
    right.requires_grad_()
    assert hold(left, right, wrong).rejected
    assert left.requires_grad
    assert right.grad is None


@every_kind
def test_inputs_are_not_changed(hold):
    left, right = np.arange(40.0) % 7, np.arange(40.0) % 7
    if hold in (hold_bound, hold_measured):
        right += 1
    if hold is hold_estimate:
        right = np.array(left.mean())
    wrong = {"w": left + 20, "pair": (left + 30, right)}
    sides = [left, right, wrong["w"], *wrong["pair"]]
    copies = [side.copy() for side in sides]
    for side in sides:
        side.flags.writeable = False
    hold(left, right, wrong)
    for side, copy in zip(sides, copies, strict=True):
        np.testing.assert_array_equal(side, copy)
    assert list(wrong) == ["w", "pair"]


def test_cases_lie_along_the_first_axis():
    sides = np.zeros((4, 3)), np.zeros((4, 3))
    assert hold_exact(*sides, {"w": 1.0}).cases == 4
    assert hold_bound(*sides, {"w": 1.0}).cases == 4


def test_integers_are_compared_exactly():
    counts = np.array([2, 3**20, 2**53])
    claim = hold_exact(counts, torch.from_numpy(counts.copy()), {"one more": counts - 10**9}, tol=0)
    assert claim.value == 0
    assert (
        hold_exact(np.array([255], np.uint8), np.array([255]), {"none": np.array([0])}).value == 0
    )
    assert hold_bound(np.array([1], np.uint8), np.array([2], np.uint8), {"w": 3}).value == 1


@pytest.mark.parametrize("integer", [2**53 + 1, -(2**53) - 1, 2**64 - 1])
def test_integers_that_float64_cannot_hold_are_refused(integer):
    integers = np.array([1, integer], np.uint64 if integer > 2**63 else np.int64)
    with pytest.raises(ClaimInputError, match=rf"right side is {integer} at index 1 .*2\*\*53"):
        hold_exact([1, 2**53], integers, {"w": [5, 5]})


# --- Claims that do not hold --------------------------------------------------------------------


def test_a_broken_equation_says_which_by_how_much_and_where():
    left, right = np.ones((2, 3)), np.ones((2, 3))
    left[1, 2], right[1, 2], left[0, 0] = 3.0, 8.0, 1.25
    with pytest.raises(ClaimError) as error:
        hold_exact(left, right, {"w": left + 1})
    assert str(error.value) == (
        "claim 'eq-square' does not hold: left and right differ by 0.625 relative to "
        "max(1, |right|), allowed 1e-09: left = 3.0, right = 8.0 at index (1, 2) of shape (2, 3); "
        "2 of 6 fail"
    )


def test_a_broken_equation_between_scalars_has_no_index():
    with pytest.raises(ClaimError, match=r"left = 1\.0, right = 2\.0; 1 of 1 fail$"):
        hold_exact(1.0, 2.0, {"w": 3.0})


def test_a_broken_bound_says_which_by_how_much_and_where():
    with pytest.raises(ClaimError) as error:
        hold_bound([1.0, 2.5, 3.0, 9.0], [1.0, 2.0, 2.75, 10.0], {"w": 50.0})
    assert str(error.value) == (
        "claim 'eq-convex' does not hold: left exceeds right by 0.5, allowed 1e-09: left = 2.5, "
        "right = 2.0 at index 1 of shape (4,); 2 of 4 fail"
    )


def test_a_broken_estimate_says_which_by_how_much_and_where():
    draws = normal_draws(np.array([0.0, 0.2]), shape=(2500, 2))
    z = (draws[:, 1].mean()) / (draws[:, 1].std(ddof=1) / 50)
    assert z > 4
    with pytest.raises(ClaimError) as error:
        hold_estimate(draws, np.zeros(2), {"w": np.ones(2)})
    message = str(error.value)
    assert message.startswith(
        "claim 'eq-mean' does not hold: the mean of the 2,500 draws (left) is "
        f"{draws[:, 1].mean():.6g} with standard error 0.0"
    )
    assert message.endswith(
        f"the known mean (right) is 0 in component 1 of 2: {z:.1f} standard errors apart, allowed 4"
    )
    with pytest.raises(ClaimError, match=r"right\) is 0: "):
        hold_estimate(draws[:, 1], 0.0, {"w": 5.0})


def test_an_estimate_below_its_mean_fails_too():
    with pytest.raises(ClaimError, match="standard errors apart"):
        hold_estimate(normal_draws(-0.5), 0.0)


@pytest.mark.parametrize(("z", "holds"), [(3.9, True), (4.1, False)])
def test_an_estimate_holds_within_four_standard_errors(z, holds):
    draws = normal_draws(shape=(100,))
    known = float(draws.mean() - z * draws.std(ddof=1) / 10)
    if holds:
        assert hold_estimate(draws, known, {"w": 90.0}).value == pytest.approx(z)
    else:
        with pytest.raises(ClaimError, match=r"4\.1 standard errors apart"):
            hold_estimate(draws, known, {"w": 90.0})


def test_a_broken_measured_claim_says_which_by_how_much_and_where():
    with pytest.raises(ClaimError) as error:
        hold_measured([1.0, 2.0, 3.0], [2.0, 1.5, 4.0], {"w": 9.0}, margin=0.25)
    assert str(error.value) == (
        "claim 'eq-trained' does not hold: left + 0.25 is not below right, but above it by 0.75: "
        "left = 2.0, right = 1.5 at index 1 of shape (3,); 1 of 3 fail"
    )


def test_a_measured_claim_is_strict():
    with pytest.raises(ClaimError, match="is not below right"):
        hold_measured([1.0, 1.0, 1.0], [2.0, 1.0, 2.0], {"w": 9.0})
    with pytest.raises(ClaimError, match="is not below right"):
        hold_measured([1.0, 1.0, 1.0], [2.0, 1.5, 2.0], {"w": 9.0}, margin=0.5)
    assert hold_measured([1.0, 1.0, 1.0], [2.0, 1.5, 2.0], {"w": 9.0}, margin=0.499).value == 0.5


@every_kind
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e151])
def test_a_number_that_is_not_finite_is_found(hold, side, bad):
    values = normal_draws(shape=(50,))
    values[7] = bad
    where = r" at index 7 of shape \(50,\)"
    sides = {"left": DRAWS[:50], "right": DRAWS[:50] + 1, side: values}
    if hold is hold_estimate and side == "right":
        sides["right"], where = bad, ""
    with pytest.raises(ClaimError, match=f"the {side} side is {re.escape(str(bad))}{where}; exp"):
        hold(**sides, wrong={"w": 3.0})


# --- Sides that cannot be compared --------------------------------------------------------------


@pytest.mark.parametrize("hold", [hold_exact, hold_bound, hold_measured])
@pytest.mark.parametrize(
    ("left", "right"), [((5,), (5, 1)), ((5, 1), (5,)), ((5,), (1,)), ((5,), ()), ((5,), (4,))]
)
def test_shapes_are_never_broadcast(hold, left, right):
    message = rf"left has shape {re.escape(str(left))} and right has shape {re.escape(str(right))}"
    with pytest.raises(ClaimInputError, match=message):
        hold(np.zeros(left), np.ones(right), {"w": 3.0})
    with pytest.raises(ClaimInputError, match=message):
        hold(torch.zeros(left).double(), torch.ones(right).double(), {"w": 3.0})


@float64_kinds
@pytest.mark.parametrize(
    ("single", "dtype"),
    [
        (np.zeros(7, np.float32), "float32"),
        (np.zeros(7, np.float16), "float16"),
        (torch.zeros(7), "float32"),
        ([torch.tensor(0.0)] * 7, "float32"),
    ],
)
def test_exact_claims_and_bounds_want_float64(hold, single, dtype):
    double = np.zeros(7)
    with pytest.raises(ClaimInputError, match=f"left side has dtype {dtype}.*float64"):
        hold(single, double, {"w": 1.0})
    with pytest.raises(ClaimInputError, match=f"right side has dtype {dtype}"):
        hold(double, single, {"w": 1.0})
    with pytest.raises(ClaimInputError, match=f"wrong version 'w' .*left side has dtype {dtype}"):
        hold(double, double.copy(), {"w": single})


def test_estimates_and_measured_claims_take_float32():
    assert hold_estimate(torch.from_numpy(normal_draws()).float(), torch.tensor(0.0)).cases == 4000
    assert hold_measured(SEEDS.astype(np.float32), torch.tensor([1.0, 1.0, 1.0])).cases == 3


@every_kind
@pytest.mark.parametrize(
    "values",
    [
        np.zeros(50, complex),
        torch.zeros(50, dtype=torch.complex128),
        np.zeros(50, bool),
        torch.zeros(50, dtype=torch.bool),
        np.full(50, "0.5"),
        np.full(50, None),
        np.array([sympy.Rational(1, 2)] * 50),
        np.zeros(50, "M8[s]"),
        torch.zeros(50, dtype=torch.bfloat16),
        [[1.0], [1.0, 2.0]],
        None,
        True,
        "0.5",
    ],
    ids=lambda values: f"{type(values).__name__}-{getattr(values, 'dtype', '')}",
)
def test_only_real_numbers_are_compared(hold, values):
    for side in ("left", "right"):
        with pytest.raises(ClaimInputError, match=rf"claim 'eq-.*the {side} side (has|cannot)"):
            hold(**{side: values})
    with pytest.raises(ClaimInputError, match=r"the wrong version 'w' of claim 'eq-"):
        hold(wrong={"w": (values, values)})


@pytest.mark.skipif(np.longdouble(0).itemsize == 8, reason="long doubles are doubles here")
@every_kind
def test_nothing_wider_than_float64_is_narrowed(hold):
    with pytest.raises(ClaimInputError, match=r"left side has dtype .*expected real numbers"):
        hold(left=np.zeros(50, np.longdouble))


@every_kind
def test_empty_sides_are_refused(hold):
    with pytest.raises(ClaimInputError, match="left side is empty, shape"):
        hold(np.zeros((0, 3)), np.zeros((0, 3)))
    with pytest.raises(ClaimInputError, match="right side is empty, shape"):
        hold(right=[])


@float64_kinds
def test_one_array_is_not_two_sides(hold):
    same = torch.zeros(5, dtype=torch.float64)
    with pytest.raises(ClaimInputError, match="one and the same array"):
        hold(same, same, {"w": 1.0})


@float64_kinds
@pytest.mark.parametrize(
    "tol", [1.0000001e-9, 1e-6, 1, -1e-12, math.nan, math.inf, "1e-9", None, True, False]
)
def test_tolerances_beyond_rounding_are_refused(hold, tol):
    with pytest.raises(ClaimInputError, match=r"tol is .*expected a number from 0 to 1e-09"):
        hold(tol=tol)


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf, "0.1", None, True])
def test_margins_are_numbers_from_zero(margin):
    with pytest.raises(ClaimInputError, match=r"margin is .*expected a number from 0"):
        hold_measured(margin=margin)


@pytest.mark.parametrize(
    ("label", "accepted"),
    [
        ("eq-elbo", True),
        ("eq-ELBO_2", True),
        ("eq-", False),
        ("elbo", False),
        ("def-elbo", False),
        ("my-eq-elbo", False),
        ("eq-el bo", False),
        ("eq-elbo\n", False),
        ("", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("kind", [claims.exact, claims.bound, claims.measured])
def test_a_label_is_that_of_an_equation(kind, label, accepted):
    right = SEEDS.copy() if kind is claims.exact else SEEDS + 1
    if accepted:
        assert kind(label, "s", SEEDS, right, wrong={"w": 9.0}).label == label
    else:
        with pytest.raises(ClaimInputError, match=re.escape(f"claim label {label!r}: expected")):
            kind(label, "s", SEEDS, right, wrong={"w": 9.0})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected words"),
        (" \t", "expected words"),
        (None, "expected words"),
        (3, "expected words"),
        ("two\nlines", "one line"),
        ("$\nu$ and the rest", "one line"),  # \nu without the r prefix
        ("$\theta$", "one line"),
        ("$\beta$", "one line"),
        ("it costs $5", "without its partner"),
    ],
)
def test_texts_must_show_as_prose_and_mathematics(text, problem):
    with pytest.raises(ClaimInputError, match=f"the statement .*{problem}"):
        claims.exact("eq-a", text, CASES, CASES.copy(), wrong={"w": 9.0})
    with pytest.raises(ClaimInputError, match=f"the wrong version's name .*{problem}"):
        claims.exact("eq-a", "s", CASES, CASES.copy(), wrong={text: 9.0})


def test_texts_may_hold_mathematics():
    claim = claims.exact(
        "eq-a", r"$\nu = 1$ costs \$5", CASES, CASES.copy(), wrong={r"$\theta$ – dropped": 9.0}
    )
    assert claim.statement == r"$\nu = 1$ costs \$5"


# --- Wrong versions -----------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("wrong", [{}, None, [], ["dropped"], 3.0])
def test_a_claim_without_wrong_versions_is_refused(hold, wrong):
    arguments = {"left": SEEDS, "right": SEEDS + 1}
    kind = {hold_bound: claims.bound, hold_measured: claims.measured}.get(hold, claims.exact)
    kind = claims.estimate if hold is hold_estimate else kind
    with pytest.raises(ClaimInputError, match="no wrong version is given"):
        kind("eq-a", "s", **arguments, wrong=wrong)


@pytest.mark.parametrize(
    ("hold", "passing"),
    [
        (hold_exact, CASES**2),
        (hold_exact, (CASES, CASES.copy())),
        (hold_bound, CASES - 1),
        (hold_bound, (CASES, CASES + 5)),
        (hold_estimate, 0.0),
        (hold_estimate, normal_draws(seed=3)),
        (hold_estimate, (normal_draws(7.0), 7.0)),
        (hold_measured, SEEDS),
        (hold_measured, (SEEDS, SEEDS + 3)),
    ],
)
def test_a_wrong_version_that_passes_makes_the_claim_vacuous(hold, passing):
    with pytest.raises(VacuousClaimError, match=r"claim 'eq-.*' shows nothing: its .* 'p'"):
        hold(wrong={"p": passing})
    rejected = normal_draws(9.0) if hold is hold_estimate else (SEEDS + 9, SEEDS)
    assert hold(wrong={"r": rejected})
    with pytest.raises(VacuousClaimError, match="its wrong version 'p'"):
        hold(wrong={"r": rejected, "p": passing})


@float64_kinds
@pytest.mark.parametrize(
    ("tol", "excess", "rejected"),
    [
        (1e-9, 0.9e-8, False),
        (1e-9, 1.1e-8, True),
        (1e-11, 0.9e-10, False),
        (1e-11, 1.1e-10, True),
        (0.0, 0.9e-12, False),  # at rounding, whatever the tolerance
        (0.0, 1.1e-12, True),
        (1e-15, 0.9e-12, False),
    ],
)
def test_a_wrong_version_must_miss_by_ten_tolerances(hold, tol, excess, rejected):
    left, right = np.zeros(3), np.zeros(3)
    wrong = {"w": np.array([0.0, excess, 0.0])}
    if rejected:
        assert hold(left, right, wrong, tol=tol).rejected == (Rejection("w", excess),)
    else:
        with pytest.raises(VacuousClaimError, match="counts as rejected only beyond"):
            hold(left, right, wrong, tol=tol)


def test_a_wrong_bound_must_miss_by_more_than_the_rounding_of_large_numbers():
    right = np.full(3, 1e9)
    with pytest.raises(VacuousClaimError, match=r"beyond 0\.001"):
        hold_bound(right - 1, right, {"w": right + 0.9e-3})
    assert hold_bound(right - 1, right, {"w": right + 1.5e-3}).rejected


@pytest.mark.parametrize(
    ("z", "rejected"), [(7.9, False), (8.1, True), (-7.9, False), (-8.1, True)]
)
def test_a_wrong_estimate_must_miss_by_eight_standard_errors(z, rejected):
    draws = normal_draws(shape=(100,))
    right = float(draws.mean())
    wrong = {"w": right + z * float(draws.std(ddof=1)) / 10}
    if rejected:
        claim = hold_estimate(draws, right, wrong)
        assert claim.rejected[0].value == pytest.approx(abs(z))
    else:
        with pytest.raises(VacuousClaimError, match=r"reaches 7\.9 .* beyond 8"):
            hold_estimate(draws, right, wrong)


@pytest.mark.parametrize(("excess", "rejected"), [(0.0, False), (5e-6, False), (5e-5, True)])
def test_a_wrong_measured_version_must_miss_by_more_than_float32_rounding(excess, rejected):
    left, right = np.full(3, 10.0), np.full(3, 100.0)
    wrong = {"w": np.array([10.0, 99.0 + excess, 10.0])}
    if rejected:
        claim = hold_measured(left, right, wrong, margin=1.0)
        assert claim.rejected[0].value == pytest.approx(excess)
    else:
        with pytest.raises(VacuousClaimError):
            hold_measured(left, right, wrong, margin=1.0)


@every_kind
def test_a_wrong_version_that_is_not_finite_deceives_nobody(hold):
    left = normal_draws(shape=(50,))
    wrong = left + 20
    wrong[3] = math.nan
    right = {hold_exact: left.copy(), hold_estimate: 0.0}.get(hold, left + 1)
    with pytest.raises(
        ClaimInputError, match=r"the wrong version 'w' of claim .* is nan at index 3"
    ):
        hold(left, right, {"w": wrong})


@every_kind
def test_a_pair_has_two_sides(hold):
    with pytest.raises(ClaimInputError, match=r"'w' .* is a tuple of 3; expected \(left, right\)"):
        hold(wrong={"w": (1.0, 2.0, 3.0)})


@every_kind
def test_a_wrong_version_of_another_shape_is_refused(hold):
    with pytest.raises(ClaimInputError, match=r"the wrong version 'w' of claim .* shape"):
        hold(wrong={"w": np.ones((5, 5))})


def test_wrong_versions_of_an_estimate_replace_what_they_look_like():
    draws = normal_draws(shape=(900, 2))
    shifted = draws + 1
    claim = hold_estimate(
        draws,
        np.zeros(2),
        {
            "known mean": np.array([0.0, 1.0]),
            "known mean, the same for all": 1.0,
            "draws": shifted,
            "both": (shifted[:500], np.zeros(2)),
        },
    )
    z = [wrong.value for wrong in claim.rejected]
    error = draws.std(axis=0, ddof=1) / 30
    assert z[0] == pytest.approx(abs(draws.mean(axis=0)[1] - 1) / error[1])
    assert z[1] == pytest.approx((np.abs(draws.mean(axis=0) - 1) / error).max())
    assert z[2] == pytest.approx((shifted.mean(axis=0) / error).max())
    assert z[3] == pytest.approx(
        (shifted[:500].mean(0) / shifted[:500].std(0, ddof=1) * np.sqrt(500)).max()
    )


# --- What an estimate and a measured claim need ---------------------------------------------------


@pytest.mark.parametrize("shape", [(29,), (29, 4), (), (50, 2, 2)])
def test_an_estimate_needs_draws(shape):
    with pytest.raises(
        ClaimInputError, match=rf"draws \(left\) have shape {re.escape(str(shape))}"
    ):
        hold_estimate(np.zeros(shape) + normal_draws(shape=shape), 0.0)


@pytest.mark.parametrize(("shape", "known"), [((50,), (1,)), ((50, 2), (3,)), ((50, 2), (50, 2))])
def test_a_known_mean_has_one_entry_a_component(shape, known):
    with pytest.raises(ClaimInputError, match=r"known mean \(right\) has shape"):
        hold_estimate(normal_draws(shape=shape), np.zeros(known))


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9, -0.3])
def test_draws_without_spread_are_refused(constant):
    draws = np.full((1001, 2), constant)
    draws[:, 0] += normal_draws(shape=(1001,))
    with pytest.raises(ClaimInputError, match="component 1 do not vary"):
        hold_estimate(draws, np.array([constant, constant + 1e-17]))
    with pytest.raises(ClaimInputError, match=r"wrong version 'w' .* do not vary"):
        hold_estimate(wrong={"w": np.full(100, constant)})


@pytest.mark.parametrize("shape", [(2,), (1,), (), (3, 1), (5, 5)])
def test_a_measured_claim_needs_three_seeds(shape):
    with pytest.raises(
        ClaimInputError, match=rf"shape {re.escape(str(shape))}; expected \(seeds,\)"
    ):
        hold_measured(np.zeros(shape), np.ones(shape), {"w": 3.0})


def test_a_measured_claim_between_constants_is_refused():
    with pytest.raises(ClaimInputError, match="3 seeds or more"):
        hold_measured(0.5, 1.0, {"w": 3.0})


# --- Symbolic claims ------------------------------------------------------------------------------

x, y = sympy.symbols("x y", positive=True)
real = sympy.Symbol("r", real=True)
count = sympy.Symbol("n", integer=True, positive=True)
index = sympy.Symbol("k", integer=True)
# An identity that sympy does not simplify to zero: tan(pi/11) + 4 sin(3 pi/11) = sqrt(11).
HARD_ZERO = sympy.tan(sympy.pi / 11) + 4 * sympy.sin(3 * sympy.pi / 11) - sympy.sqrt(11)


@pytest.mark.parametrize(
    ("left", "right", "wrong"),
    [
        (sympy.log(x * y), sympy.log(x) + sympy.log(y), sympy.log(x + y)),
        (sympy.Abs(real), sympy.sqrt(real**2), real),  # differs for negative values only
        (sympy.Sum(index, (index, 1, count)), count * (count + 1) / 2, count * (count - 1) / 2),
        (sympy.Derivative(sympy.log(x), x), 1 / x, 1 / x**2),
        (sympy.Rational(1, 2), sympy.Integer(1) / 2, sympy.Rational(1, 3)),
        (x / x, 1, 2),
        (
            sympy.Integral(sympy.exp(-(real**2) / 2), (real, -sympy.oo, sympy.oo)),
            sympy.sqrt(2 * sympy.pi),
            sympy.sqrt(sympy.pi),
        ),
    ],
)
def test_symbolic_claims_hold(left, right, wrong):
    claim = hold_exact(left, right, {"w": wrong, "pair": (right, wrong)})
    assert (claim.cases, claim.value, claim.scope) == (0, 0.0, "symbolically")
    assert claim.figure == "difference 0"
    assert all(wrong.value > 0.01 for wrong in claim.rejected)


def test_a_symbolic_rejection_is_a_relative_error():
    assert hold_exact(x - x, 0, {"w": sympy.Integer(3)}).rejected == (Rejection("w", 3.0),)
    assert hold_exact(x - x + 8, 8, {"w": sympy.Integer(2)}).rejected == (Rejection("w", 0.75),)


def test_symbolic_wrong_versions_are_tried_on_both_signs_and_around_poles():
    wrong = {"positive": real, "negative": -real, "a pole at every integer": 1 / sympy.sin(real)}
    assert len(hold_exact(sympy.Abs(real), sympy.sqrt(real**2), wrong).rejected) == 3
    wrong = {"a pole at 2": index + 1 / (index - 2)}
    assert hold_exact(index + 0, (index**2 - index) / (index - 1), wrong).rejected


def test_a_broken_symbolic_claim_says_where():
    with pytest.raises(ClaimError) as error:
        hold_exact(sympy.log(x * y), sympy.log(x) + 2 * sympy.log(y), {"w": x})
    message = str(error.value)
    found = re.search(
        r"does not hold: left = (\S+), right = (\S+) at x = (\d+)/(\d+), y = (\d+)/(\d+); "
        r"left - right simplifies to -log\(y\), not 0$",
        message,
    )
    a, b, p, q, r, s = map(float, found.groups())
    assert a == pytest.approx(math.log(p / q * r / s), rel=1e-4)
    assert b == pytest.approx(math.log(p / q) + 2 * math.log(r / s), rel=1e-4)


def test_a_difference_that_sympy_cannot_simplify_is_not_called_false():
    f = sympy.Function("f")
    with pytest.raises(ClaimInputError, match=r"could not be shown.*their values agree"):
        hold_exact(HARD_ZERO, 0, {"w": x})
    with pytest.raises(ClaimInputError, match=r"could not be shown.*no numerical values"):
        hold_exact(f(x), f(y), {"w": x})
    with pytest.raises(ClaimInputError, match="could not be shown"):
        hold_exact(sympy.oo, sympy.oo, {"w": x})


@pytest.mark.parametrize(
    "wrong",
    [(x + 1) ** 2, x**2 + 2 * x + 1, (x + 1) ** 2 + HARD_ZERO, ((x + 1) ** 2, x**2 + 2 * x + 1)],
)
def test_a_symbolic_wrong_version_must_differ(wrong):
    with pytest.raises(VacuousClaimError, match=r"'w' reaches .* beyond 1e-08"):
        hold_exact((x + 1) ** 2, x**2 + 2 * x + 1, {"w": wrong})


@pytest.mark.parametrize("wrong", [sympy.zoo, sympy.oo, sympy.nan, sympy.Function("f")(x)])
def test_a_symbolic_wrong_version_has_a_value(wrong):
    with pytest.raises(ClaimInputError, match="'w' of claim 'eq-square' has no numerical value"):
        hold_exact(x + x, 2 * x, {"w": wrong})


@pytest.mark.parametrize("other", [0.5, CASES, "x", sympy.eye(2), sympy.true, True, None])
def test_sympy_is_compared_with_sympy(other):
    with pytest.raises(ClaimInputError, match=r"right side is a .*must be a sympy expression"):
        hold_exact(x, other, {"w": y})
    with pytest.raises(ClaimInputError, match=r"the wrong version 'w' .*left side is a "):
        hold_exact(x, x + 0, {"w": other})


def test_sympy_matrices_are_refused():
    with pytest.raises(ClaimInputError, match="left side"):
        hold_exact(sympy.eye(2), sympy.eye(2), {"w": x})
    with pytest.raises(ClaimInputError, match="no matrix"):
        hold_exact(sympy.MatrixSymbol("A", 2, 2), sympy.MatrixSymbol("A", 2, 2), {"w": x})


def test_floating_point_has_no_place_in_a_proof():
    with pytest.raises(
        ClaimInputError, match=r"left side contains floating-point numbers: 0\.1\*x"
    ):
        hold_exact(0.1 * x, x / 10, {"w": x})


def test_symbols_that_no_number_suits_are_refused():
    odd = sympy.Symbol("c", commutative=False)
    with pytest.raises(ClaimInputError, match="suits the assumptions on c"):
        hold_exact(odd, 2 * odd, {"w": odd})


@pytest.mark.parametrize("hold", [hold_bound, hold_estimate, hold_measured])
def test_only_exact_claims_are_symbolic(hold):
    with pytest.raises(ClaimInputError, match="left side has dtype object"):
        hold(sympy.Rational(1, 2), 1.0, {"w": 3.0})


# --- What is shown --------------------------------------------------------------------------------


@every_kind
def test_a_claim_travels_through_json(hold):
    claim = hold()
    data = json.loads(json.dumps(claim.as_dict(), allow_nan=False))
    assert data == claim.as_dict()
    assert Claim.from_dict(data) == claim
    assert set(data) == {
        "label", "statement", "kind", "measure", "value", "tolerance", "cases", "rejected",
    }  # fmt: skip
    assert all(type(value) in (str, float, int, list) for value in data.values())


def test_a_symbolic_claim_travels_through_json():
    claim = hold_exact(2 * x, x + x, {"w": 3 * x})
    assert Claim.from_dict(json.loads(json.dumps(claim.as_dict(), allow_nan=False))) == claim


def test_the_mime_bundle():
    claim = Claim(
        label="eq-gap",
        statement=r"$\log p$ less the bound is the KL",
        kind="exact",
        measure="error",
        value=2.2e-16,
        tolerance=1e-9,
        cases=1000,
        rejected=(Rejection("the half dropped", 0.6931), Rejection("the KL swapped", 4.0)),
    )
    bundle = claim._repr_mimebundle_()
    assert bundle == {
        "text/plain": "Claim eq-gap holds: exact, 1,000 cases; 2 wrong versions rejected",
        "text/markdown": (
            "**✓ Claim holds** (exact, 1,000 cases): "
            r"$\log p$ less the bound is the KL; largest error 2.2e-16 (allowed 1.0e-09)."
            "\n\n- rejected: the half dropped (error 0.693)"
            "\n- rejected: the KL swapped (error 4)"
        ),
        MIME_TYPE: claim.as_dict(),
    }
    assert json.loads(json.dumps(bundle, allow_nan=False)) == bundle


def test_the_plain_text_does_not_depend_on_measured_figures():
    one = hold_measured()
    other = hold_measured(SEEDS + 0.0123, wrong={"the other way round": (SEEDS + 0.7, SEEDS)})
    assert one.as_dict() != other.as_dict()
    assert repr(one) == repr(other) == one._repr_mimebundle_()["text/plain"]
    assert repr(one) == "Claim eq-trained holds: measured, 3 seeds; 1 wrong version rejected"


@pytest.mark.parametrize(
    ("hold", "scope", "figure", "rejection"),
    [
        (hold_exact, "7 cases", r"largest error 0 \(allowed 1\.0e-09\)", r"error \S+"),
        (hold_bound, "7 cases", r"smallest slack \S+", r"misses by \S+"),
        (hold_estimate, "4,000 draws", r"largest z-score \S+ \(allowed 4\)", r"z-score \S+"),
        (hold_measured, "3 seeds", r"smallest margin 0\.5", r"misses by 0\.5"),
    ],
)
def test_each_kind_in_words(hold, scope, figure, rejection):
    claim = hold()
    assert claim.scope == scope
    assert re.fullmatch(figure, claim.figure)
    assert re.fullmatch(rejection, claim.describe_rejection(claim.rejected[0]))


def test_a_margin_that_was_asked_for_is_shown():
    assert hold_measured(margin=0.25).figure == "smallest margin 0.5 (asked for 0.25)"


def test_one_case_is_singular():
    assert hold_exact(1.0, 1, {"w": 2.0}).scope == "1 case"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (0.01, "0.01"),
        (0.00999, "1.0e-02"),
        (0.12345, "0.123"),
        (-4.85, "-4.85"),
        (999.4, "999"),
        (999.6, "1.0e+03"),
        (123456.0, "1.2e+05"),
        (2.22e-16, "2.2e-16"),
    ],
)
def test_figures_have_two_or_three_digits(value, text):
    assert format_figure(value) == text


# --- For any numbers ------------------------------------------------------------------------------


def exact_error(a, b):
    """Return the largest error of `exact`, by rational arithmetic."""
    pairs = zip(map(Fraction, a.ravel().tolist()), map(Fraction, b.ravel().tolist()), strict=True)
    return max(abs(p - q) / max(Fraction(1), abs(q)) for p, q in pairs)


def holds(claim, *sides, **options):
    """Return whether a claim's sides pass; the wrong version misses by far and plays no part."""
    try:
        claim("eq-a", "s", *sides, wrong={"far off": (np.full(3, 1e9), np.zeros(3))}, **options)
    except ClaimError as error:
        assert "does not hold" in str(error)  # noqa: PT017 -- the other outcome is no failure
        return False
    return True


@in_any_time
@given(st.data())
def test_exact_holds_if_and_only_if_the_largest_error_is_allowed(data):
    right = data.draw(arrays)
    scales = st.sampled_from([0.0, 1e-13, 5e-10, 9e-10, 1.1e-9, 1e-7, 1.0])
    signs = st.sampled_from([-1.0, 1.0])
    step = data.draw(hnp.arrays(float, right.shape, elements=scales))
    step *= data.draw(hnp.arrays(float, right.shape, elements=signs))
    left = right + step * np.maximum(1.0, np.abs(right))
    tol = data.draw(st.sampled_from([1e-9, 1e-10, 1e-12]))
    error = exact_error(left, right)
    assume(abs(error / Fraction(tol) - 1) > Fraction(1, 1000))  # not decided by rounding
    assert holds(claims.exact, left, right, tol=tol) == (error <= tol)


@in_any_time
@given(st.data())
def test_bound_holds_if_and_only_if_no_element_exceeds(data):
    right = data.draw(arrays)
    steps = st.sampled_from([-1e3, -1.0, -1e-9, 0.0, 5e-10, 1.5e-9, 1e-6, 1.0])
    left = right + data.draw(hnp.arrays(float, right.shape, elements=steps))
    excess = max(
        Fraction(p) - Fraction(q)
        for p, q in zip(left.ravel().tolist(), right.ravel().tolist(), strict=True)
    )
    assume(abs(excess / Fraction(1e-9) - 1) > Fraction(1, 1000))
    assert holds(claims.bound, left, right) == (excess <= Fraction(1e-9))


@in_any_time
@given(
    hnp.arrays(float, 4, elements=numbers), hnp.arrays(float, 4, elements=numbers),
    st.floats(0, 1e6),
)  # fmt: skip
def test_measured_holds_if_and_only_if_every_seed_clears_the_margin(left, right, margin):
    gap = min(Fraction(q) - Fraction(p) for p, q in zip(left.tolist(), right.tolist(), strict=True))
    assume(abs(gap - Fraction(margin)) > Fraction(1, 10**6) or gap == margin == 0)
    assert holds(claims.measured, left, right, margin=margin) == (gap > margin)


@in_any_time
@given(st.integers(0, 2**32), st.floats(-7, 7), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_estimate_holds_if_and_only_if_z_is_four_at_most(seed, z, centre, scale):
    draws = torch.from_numpy(normal_draws(centre, (64,), seed) * scale)
    known = float(draws.mean() - z * draws.std() / 8)
    found = abs(float(draws.mean()) - known) / (float(draws.std()) / 8)
    assume(abs(found - 4) > 1e-6)
    wrong = {"far off": known + 100 * float(draws.std())}
    try:
        claim = claims.estimate("eq-a", "s", draws, known, wrong=wrong)
    except VacuousClaimError:
        raise
    except ClaimError:
        assert found > 4
    else:
        assert found < 4
        assert claim.value == pytest.approx(found, rel=1e-6, abs=1e-9)


@in_any_time
@given(arrays, st.floats(1e-3, 1e3))
def test_claims_are_the_same_for_arrays_and_tensors(right, step):
    wrong = right + step * np.maximum(1, np.abs(right))
    from_arrays = hold_exact(right.copy(), right, {"w": wrong})
    from_tensors = hold_exact(
        torch.from_numpy(right.copy()), torch.from_numpy(right), {"w": torch.from_numpy(wrong)}
    )
    assert from_arrays == from_tensors
    assert from_arrays.rejected[0].value == pytest.approx(float(exact_error(wrong, right)))


@in_any_time
@given(st.data())
def test_only_equal_shapes_are_compared(data):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)
    one, other = data.draw(shapes), data.draw(shapes)
    if one == other:
        assert holds(claims.exact, np.ones(one), np.ones(other))
    else:
        with pytest.raises(ClaimInputError, match="both sides need one shape"):
            holds(claims.exact, np.ones(one), np.ones(other))


@in_any_time
@given(
    st.sampled_from(HOLDING),
    hnp.arrays(float, 40, elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.sampled_from(["left", "right", "wrong"]),
)
def test_no_numbers_at_all_bring_a_warning_or_a_foreign_error(hold, values, place):
    sides = {"left": np.zeros(40), "right": np.ones(40)}
    sides[place] = {"w": values} if place == "wrong" else values
    sides.setdefault("wrong", {"w": 3.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            claim = hold(**sides)
        except (ClaimError, ClaimInputError) as error:
            assert "eq-" in str(error)  # noqa: PT017 -- both outcomes are right
        else:
            assert math.isfinite(claim.value)
            json.dumps(claim.as_dict(), allow_nan=False)


@in_any_time
@given(arrays, st.integers(0, 10**6))
def test_a_number_that_is_not_finite_is_found_anywhere(values, position):
    position %= values.size
    values = values.copy()
    values.reshape(-1)[position] = math.nan
    where = np.unravel_index(position, values.shape)
    place = int(where[0]) if values.ndim == 1 else tuple(map(int, where))
    with pytest.raises(ClaimError, match=re.escape(f"right side is nan at index {place} of shape")):
        hold_exact(np.zeros(values.shape), values, {"w": 3.0})

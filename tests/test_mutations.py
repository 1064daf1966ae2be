"""Break one helper at a time, by a sign, a factor or a dropped sum: a test or a claim must fail."""

import importlib
import sys
import types
from pathlib import Path

import pytest
import torch

from evidence import claims, two_samples
from evidence_book.pages import read_page

ROOT = Path(__file__).parents[1]

# Module, what stands there, what is put in its place, and the test of that module that notices.
ERROR = "test_the_squared_error_sums_over_pixels_and_averages_over_data"
ELBO = "test_both_forms_agree_in_float32_at_the_size_of_digits"
TERMS = "test_the_terms_are_what_their_names_say"
READABLE = "test_the_elbo_is_distortion_and_rate"
WEIGHTS = "test_the_figures_are_those_of_the_weights"
ANNEALED = "test_the_mean_weight_is_right_however_badly_the_chains_mix"
TRANSITION = "test_a_transition_leaves_its_target_as_it_is"
DIAGONAL = "test_a_diagonal_gaussian_stops_at_the_known_gap"
FULL = "test_a_full_gaussian_reaches_the_posterior_of_the_linear_toy"
LEVELS = "test_the_discretized_logistic_is_the_mass_of_scipys_logistic"
SLOPE = "test_the_continuous_bernoulli_is_that_of_torch_where_torchs_is_accurate"
PAIRS = "test_distances_in_many_dimensions_are_scipys"
MEANS = "test_epoch_means_are_means_over_the_data_with_a_short_last_batch"
MUTATIONS = {
    "squared error: mean over pixels": ("models", ".sum(1).mean()", ".mean(1).mean()", ERROR),
    "squared error: sum over data": ("models", ".sum(1).mean()", ".sum(1).sum()", ERROR),
    "squared error: sign": ("models", "(batch.dtype) - batch", "(batch.dtype) + batch", ERROR),
    "KL in closed form: sign": ("objectives", "- log_var - 1)", "+ log_var - 1)", ELBO),
    "KL in closed form: factor": ("objectives", "/ (2 * num_x)", "/ num_x", ELBO),
    "ELBO: sign of the KL": ("models", "given_z - kl_", "given_z + kl_", READABLE),
    "ELBO: mean over pixels": ("models", ".log_prob(x).sum(-1)", ".log_prob(x).mean(-1)", READABLE),
    "reparameterization: variance": ("models", "exp(log_var / 2))", "exp(log_var))", READABLE),
    "ELBO: terms exchanged": ("objectives", '{"reconstruction": rec', '{"kl_": rec', TERMS),
    "free bits: most instead of least": (
        "objectives", "min=free_bits", "max=free_bits",
        "test_a_latent_below_its_free_bits_feels_no_pull_and_one_above_feels_all_of_it",
    ),
    "IWAE: q left out": (
        "objectives", "(eps.square() - z.square() + log_var)", "(-z.square())",
        "test_more_samples_give_a_tighter_bound_of_the_right_size",
    ),
    "IWAE: sum instead of mean": (
        "objectives", "- math.log(num_samples)", "",
        "test_more_samples_give_a_tighter_bound_of_the_right_size",
    ),
    "continuous Bernoulli: no normaliser": ("pixels", "- _log_mass(self.logits)", "", SLOPE),
    "continuous Bernoulli: series": ("pixels", "1 / 24,", "1 / 12,",
        "test_the_gradient_near_zero_is_x_minus_one_half"),
    "discretized logistic: wide bins": (
        "pixels", "(1 - self.low) / 2 /", "(1 - self.low) /", LEVELS
    ),
    "discretized logistic: lost tail": ("pixels", "torch.where(is_first, below,",
        "torch.where(is_first, about,", LEVELS),
    "importance sampling: sum of weights": (
        "likelihood", "self.first.log() - math.log(self.count)", "self.first.log()", WEIGHTS
    ),
    "importance sampling: pieces on different scales": (
        "likelihood", "self.second * shrink.square()", "self.second * shrink",
        "test_pieces_join_to_the_figures_of_the_whole",
    ),
    "importance sampling: error of one draw": (
        "likelihood", "(spread / divisor).sqrt()", "spread.sqrt()", WEIGHTS
    ),
    "annealing: weights after the move": (
        "likelihood", "(there - here) * as_double", "there * as_double", ANNEALED
    ),
    "annealing: everything accepted": (
        "likelihood", "(uniform < chance)", "(uniform >= 0)", TRANSITION
    ),
    "annealing: energy without its half": (
        "likelihood", "before = log_f - _rows(momentum).square().sum(-1) / 2",
        "before = log_f - _rows(momentum).square().sum(-1)", TRANSITION,
    ),
    "annealing: not started at q": (
        "likelihood", "+ (1 - b) * log_density(self.start, z)", "", ANNEALED
    ),
    "best q: no entropy": (
        "inference_gap", ".sum() + log_sigma.double().sum()", ".sum()", DIAGONAL
    ),
    "best q: noise not standardized": (
        "inference_gap", "eps = eps - eps.mean(0)", "pass", FULL
    ),
    "best q: covariance left out": (
        "inference_gap", "below.tril(-1)", "0 * below", FULL
    ),
    "active units: spread of draws": (
        "latent_use", "q_z.mean.var(0)", "q_z.stddev.mean(0)",
        "test_active_units_are_those_whose_means_move",
    ),
    "aggregate posterior: sum": (
        "latent_use", " - math.log(len(x))", "", "test_the_aggregate_posterior_is_the_mixture"
    ),
    "loss schedules: whole epochs": (
        "training", "run.history.epochs + step / num_steps", "run.history.epochs",
        "test_scheduled_arguments_follow_the_epochs_done_with_their_fractions",
    ),
    "energy distance: factor": ("two_samples", "2 * _mean", "_mean", PAIRS),
    "energy distance: dropped term": ("two_samples", " - _mean_distance(y, y)", "", PAIRS),
    "nearest distances: wrong axis": ("two_samples", ".amin(1)", ".amin(0)", PAIRS),
    "training: batches weighed equally": (
        "training", "values.T @ values.new_tensor(sizes) / sum(sizes)", "values.mean(0)", MEANS
    ),
    "training: gradients pile up": (
        "training", "run.optimizer.zero_grad()", "pass", "test_it_finds_the_least_squares_solution"
    ),
    "binarization: sign": (
        "datasets", "(uniform < images)", "(uniform > images)",
        "test_draws_are_binary_with_the_stated_mean",
    ),
}  # fmt: skip


def broken(name: str, old: str, new: str) -> types.ModuleType:
    """Load a module of the package with one place of its source changed."""
    original = importlib.import_module(f"evidence.{name}")
    text = Path(original.__file__).read_text(encoding="utf-8")
    assert old in text, f"{name}.py no longer has {old!r}: renew this mutation"
    module = types.ModuleType(original.__name__)
    module.__file__ = original.__file__
    exec(compile(text.replace(old, new), original.__file__, "exec"), vars(module))
    return module


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_helper_is_noticed(mutation, monkeypatch):
    name, old, new, test = MUTATIONS[mutation]
    tests = importlib.import_module(f"test_{name}")
    getattr(tests, test)()  # passes as things are

    original = importlib.import_module(f"evidence.{name}")
    # Dataclasses look their module up by name while they are made.
    monkeypatch.setitem(sys.modules, original.__name__, original)
    module = broken(name, old, new)
    for attribute, value in vars(tests).items():
        if attribute in vars(original) and vars(original)[attribute] is value:
            monkeypatch.setattr(tests, attribute, getattr(module, attribute))
        elif value is original:
            monkeypatch.setattr(tests, attribute, module)
    with pytest.raises((AssertionError, KeyError)):
        getattr(tests, test)()


def run_claim(label):
    """Run the one cell of page 2 that holds a claim."""
    page = read_page(ROOT / "book" / "autoencoders" / "generate.md")
    (cell,) = (c for c in page.cells if c.cell_type == "code" and f'"{label}"' in c.source)
    exec(cell.source, {"claims": claims, "torch": torch})


def test_a_claim_notices_a_broken_helper(monkeypatch):
    run_claim("eq-energy-distance-line")
    right = two_samples.energy_distance
    monkeypatch.setattr(two_samples, "energy_distance", lambda x, y: right(x, y) / 2)
    with pytest.raises(claims.ClaimError, match="eq-energy-distance-line"):
        run_claim("eq-energy-distance-line")

"""Break one helper at a time, by a sign, a factor or a dropped sum: a test or a claim must fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evidence import claims, two_samples
from evidence_book.pages import read_page

ROOT = Path(__file__).parents[1]

# Module, what stands there, what is put in its place, and the tests that must notice, as for `-k`.
ERROR = "the_squared_error"
ELBO = "both_forms_agree or the_terms"
ENERGY = "scipys"
MEANS = "epoch_means or least_squares"
MUTATIONS = {
    "squared error: mean over pixels": ("models", ".sum(1).mean()", ".mean(1).mean()", ERROR),
    "squared error: sum over data": ("models", ".sum(1).mean()", ".sum(1).sum()", ERROR),
    "squared error: sign": ("models", "(batch.dtype) - batch", "(batch.dtype) + batch", ERROR),
    "KL in closed form: sign": ("models", "- log_var - 1)", "+ log_var - 1)", ELBO),
    "KL in closed form: factor": ("models", "/ (2 * num_x)", "/ num_x", ELBO),
    "ELBO: sign of the KL": ("models", "given_z - kl_", "given_z + kl_", ELBO),
    "ELBO: mean over pixels": ("models", ".log_prob(x).sum(-1)", ".log_prob(x).mean(-1)", ELBO),
    "reparameterization: variance": ("models", "exp(log_var / 2))", "exp(log_var))", ELBO),
    "energy distance: factor": ("two_samples", "2 * _mean", "_mean", ENERGY),
    "energy distance: dropped term": ("two_samples", " - _mean_distance(y, y)", "", ENERGY),
    "nearest distances: wrong axis": ("two_samples", ".amin(1)", ".amin(0)", ENERGY),
    "training: batches weighed equally": (
        "training", "values.T @ values.new_tensor(sizes) / sum(sizes)", "values.mean(0)", MEANS
    ),
    "training: gradients pile up": ("training", "run.optimizer.zero_grad()", "pass", MEANS),
    "binarization: sign": ("datasets", "(uniform < images)", "(uniform > images)", "draws_are_binary"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_helper_is_noticed(name, tmp_path):
    module, old, new, tests = MUTATIONS[name]
    shutil.copytree(ROOT / "src" / "evidence", tmp_path / "evidence")
    source = tmp_path / "evidence" / f"{module}.py"
    text = source.read_text(encoding="utf-8")
    assert old in text, f"{module}.py no longer has {old!r}: renew this mutation"
    source.write_text(text.replace(old, new), encoding="utf-8")

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         "-k", tests, str(ROOT / "tests" / f"test_{module}.py")],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1, run.stdout[-2000:] + run.stderr[-2000:]
    assert "1 failed" in run.stdout


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

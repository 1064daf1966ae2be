"""Pages on the full MNIST: every cell runs, on models that were hardly trained.

The whole of it, every page with its models trained to the end, takes the better part of an hour:
``EVIDENCE_MNIST=full make book``. Here a training is one step, so a claim about trained models need
not hold; that all cells run shows that none of them counts on the size of the sample.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from evidence import claims, datasets, model_store, training
from evidence_book.pages import read_page

ROOT = Path(__file__).parents[1]
FULL_DATA = os.environ.get("EVIDENCE_DATA")


@pytest.fixture
def full_data(monkeypatch, tmp_path):
    """The setting of ``EVIDENCE_MNIST=full``, with trainings of one step."""
    monkeypatch.setenv("EVIDENCE_MNIST", "full")
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path))
    monkeypatch.setenv("EVIDENCE_PROGRESS", "0")
    # The same files, a dozen times over.
    monkeypatch.setattr(datasets, "_load_full", functools.cache(datasets._load_full))

    whole = training.train

    @functools.wraps(whole)
    def one_step(model, data, loss, *, batch_size, **arguments):
        few = (
            data[:batch_size]
            if isinstance(data, torch.Tensor)
            else tuple(t[:batch_size] for t in data)
        )
        return whole(model, few, loss, batch_size=batch_size, **arguments | {"epochs": 1})

    for module in (training, model_store):
        monkeypatch.setattr(module, "train", one_step)
    dtype = torch.get_default_dtype()
    with matplotlib.rc_context({"backend": "agg"}):
        yield
    plt.close("all")
    torch.set_default_dtype(dtype)


@pytest.fixture
def doubted(monkeypatch):
    """Let claims fail: of a model that has learned nothing, wrong versions may hold as well."""

    def tried(check):
        def claim(*arguments, **more):
            with contextlib.suppress(claims.ClaimError):
                return check(*arguments, **more)

        return claim

    for kind in ("exact", "bound", "estimate", "measured"):
        monkeypatch.setattr(claims, kind, tried(getattr(claims, kind)))


@pytest.mark.full_data
@pytest.mark.skipif(
    not FULL_DATA,
    reason="needs the full MNIST: set EVIDENCE_DATA to the folder that holds its four files",
)
@pytest.mark.parametrize("page", ["vae/measured", "vae/looked-at"])
@pytest.mark.usefixtures("full_data", "doubted")
def test_the_cells_of_a_page_run_on_the_full_set(page):
    space = {"__name__": "__main__"}
    for cell in read_page(ROOT / "book" / f"{page}.md").cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{page}: {cell.source[:60]!r}", "exec"), space)
    assert space["torch"].is_tensor(space["z"])

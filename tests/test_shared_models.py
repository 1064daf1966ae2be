"""Training the models that pages share: which these are, and that none is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_book import SmallBook, code

from evidence import model_store
from evidence_book import models
from evidence_book.models import CALLS, calls_of, models_of, recipes, train_all
from evidence_book.pages import find_pages

ROOT = Path(__file__).parents[1]
# Calls of the recipes' modules that ask for nothing that several pages share.
OF_ONE_PAGE = {
    "cloud_points('mixture')",
    "cloud_points(name)",
    "digit_vae(loss=loss, epochs=3, seed=seed)",
    "epochs_for(len(digits), epoch)",
    "epochs_for(len(images), 2)",
    "epochs_for(len(x), 60)",
}


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVIDENCE_MNIST", raising=False)
    return lambda pages: SmallBook(tmp_path / "book", pages)


def test_the_calls_of_the_pages_are_those_that_are_known():
    called = set().union(*map(calls_of, find_pages(ROOT)))
    assert called - OF_ONE_PAGE == set(CALLS)
    assert called >= OF_ONE_PAGE


def test_every_model_has_a_recipe_and_comes_after_those_that_it_needs():
    names = models_of(find_pages(ROOT))
    assert names == list(recipes())
    for name in names:
        if name.startswith("diffusion of codes"):
            needed = "VAE 20, seed 0" if "VAE" in name else "autoencoder 20"
            assert names.index(needed) < names.index(name)


def test_a_page_asks_for_the_models_that_it_calls(book):
    pages = {
        "plain": [code("1 + 1")],
        "cloud": [
            code("from evidence.diffusion.trained import cloud_diffusion as cloud\n%time 1"),
            code("from evidence.diffusion.trained import cloud_diffusion\n%precision 3"),
            code("from evidence.diffusion.trained import cloud_diffusion"),
            code("def f():\n    return cloud_diffusion()[0], print('digit_vae()')"),
        ],
        "own": [code("def digit_vae(): ...\n\ndigit_vae()")],
        "new": [code("from evidence.digit_models import digit_vae\ndigit_vae(7)")],
    }
    made = book(pages)
    asked = {name: models_of([made.path(name)]) for name in pages}
    assert asked == {"plain": [], "cloud": ["diffusion of a mixture"], "own": [], "new": []}
    assert calls_of(made.path("new")) == {"digit_vae(7)"}
    assert models_of([made.path("own"), made.path("cloud")]) == ["diffusion of a mixture"]


def test_where_no_page_asks_for_a_model_nothing_is_started(book, monkeypatch):
    monkeypatch.setattr(models, "ProcessPoolExecutor", None)
    assert train_all([book({"plain": [code("1 + 1")]}).path("plain")]) == []


def test_an_impossible_number_of_jobs_is_refused():
    with pytest.raises(ValueError, match="jobs is 0; 1 or more is accepted"):
        train_all([], jobs=0)


# Two models of nine weights that take some seconds to train, in processes of their own. (What loads
# torch stands in functions, so that only these load it.)
RECIPES = """
import os, sys, time
from functools import partial
from pathlib import Path

from evidence_book import models


def squares(model, batch, generator):
    import torch

    noise = torch.randn(batch.shape, generator=generator)
    return (model(batch + noise) - batch).square().mean()


def waits_to_be_stopped(model):
    folder = Path(os.environ["EVIDENCE_CACHE"])
    part = (folder / "models").glob
    while (folder / "gate").exists() and list(part("tiny-0-*.part")):
        time.sleep(0.02)
    return {"one": 1.0}


def tiny(seed, progress=None):
    import torch
    from evidence import model_store

    model_store.CHECKPOINT_SECONDS = 0.0
    model = torch.nn.Linear(3, 3, bias=False)
    torch.nn.init.ones_(model.weight)
    x = torch.arange(12.0).reshape(4, 3) / 12
    history = model_store.train_once(
        model, x, squares, name=f"tiny-{seed}", epochs=15, batch_size=2,
        evaluate=waits_to_be_stopped, seed=seed, progress=progress,
    )
    print(f"seed {seed}: {model.weight.flatten().tolist()} {history.loss}", flush=True)


models.CALLS["digit_vae(7)"] = ("first", "second")
models.recipes = lambda: {"first": partial(tiny, 0), "second": partial(tiny, 1)}

if __name__ == "__main__":
    try:
        models.report([Path(sys.argv[1])], jobs=int(sys.argv[2]))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture
def command(tmp_path, book):
    """Start the training of two small models, for a page that asks for them."""
    page = book({"new": [code("from evidence.digit_models import digit_vae\ndigit_vae(7)")]})
    script = tmp_path / "tiny_recipes.py"
    script.write_text(RECIPES)
    started = []

    def start(jobs):
        process = subprocess.Popen(
            [sys.executable, script, page.path("new"), str(jobs)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def results(text):
    return sorted(line for line in text.splitlines() if line.startswith("seed"))


def test_a_training_that_is_stopped_goes_on_to_the_same_bits(
    command, tmp_path, monkeypatch, capsys
):
    store = tmp_path / "cache" / "models"
    # Within an epoch after the first, the training waits for as long as this is there.
    gate = tmp_path / "cache" / "gate"
    gate.parent.mkdir(exist_ok=True)
    gate.touch()
    stopped = command(jobs=1)
    while not list(store.glob("tiny-0-*.part")):
        assert stopped.poll() is None
        time.sleep(0.02)
    os.killpg(stopped.pid, signal.SIGINT)  # as Ctrl-C: to all processes
    out, said = stopped.communicate()
    assert stopped.returncode == 130
    assert "Traceback" not in said
    assert not results(out)
    assert not list(store.glob("*.safetensors"))
    part = next(store.glob("*.part"))
    gate.unlink()

    out, said = command(jobs=2).communicate()
    assert not part.exists()
    first, *lines = said.splitlines()
    assert first == "2 of 2 models are to be trained"
    assert {line.split(" in ")[0] for line in lines} == {"trained first", "trained second"}
    assert "; 1 of 2, about " in lines[0]
    assert "; 2 of 2, about 0 s left" in lines[1]
    assert "2 models: 2 trained, the others were there" in out

    again, silence = command(jobs=1).communicate()
    assert silence == ""
    assert "2 models: 0 trained" in again
    assert results(again) == results(out)

    # And these are what one run gives that nobody stopped.
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(models, "CALLS", {})
    monkeypatch.setattr(models, "recipes", None)
    space = {"__name__": "tiny_recipes"}
    exec(RECIPES, space)
    monkeypatch.setattr(model_store, "CHECKPOINT_SECONDS", 1e9)
    for seed in (0, 1):
        space["tiny"](seed, progress=False)
    assert results(capsys.readouterr().out) == results(out)


def test_a_training_that_fails_is_named(book, tmp_path, command):
    (tmp_path / "tiny_recipes.py").write_text(
        RECIPES.replace("def squares(", "def failing(").replace("squares,", "None,")
    )
    failed = command(jobs=1)
    _, said = failed.communicate()
    assert failed.returncode == 1
    assert "ModelError: the model 'first' cannot be trained: TypeError: " in said

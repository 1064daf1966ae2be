"""Models that are trained once: what is loaded, when it is not, and by whom it is trained."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from evidence import model_store, training
from evidence.checkpoint import RunState
from evidence.model_store import (
    DamagedModelWarning,
    NotStoredError,
    model_key,
    train_once,
    without_training,
)
from evidence.models import Autoencoder, squared_error
from evidence.objectives import warm_up
from evidence.training import adam

beta = 1.0


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EVIDENCE_PROGRESS", "0")
    monkeypatch.setenv("EVIDENCE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def trainings(monkeypatch):
    """Count how often something is trained."""
    calls = []
    train = model_store.train

    def counted(*arguments, **more):
        calls.append(more)
        return train(*arguments, **more)

    # The signature is that of `train` for as long as the module reads it from this function.
    counted.__signature__ = __import__("inspect").signature(train)
    monkeypatch.setattr(model_store, "train", counted)
    return calls


def data(seed=0, n=30):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


def scaled_error(model, batch, generator):
    return beta * squared_error(model, batch, generator)


def test_error(model):
    return {"error": squared_error(model, data(1)).item()}


test_error.__test__ = False


def call(function=train_once, **changes):
    arguments = {
        "model": Autoencoder(5, 2, (4,)), "data": data(), "loss": scaled_error,
        "epochs": 2, "batch_size": 10, "evaluate": test_error,
    } | ({"name": "small"} if function is train_once else {}) | changes  # fmt: skip
    positional = [arguments.pop(name) for name in ("model", "data", "loss")]
    return positional[0], function(*positional, **arguments)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_the_second_call_loads_what_the_first_has_trained(trainings, cache):
    initial = weights(Autoencoder(5, 2, (4,)))
    trained, history = call()
    assert len(trainings) == 1
    assert not same(weights(trained), initial)

    loaded, again = call()
    assert len(trainings) == 1
    assert same(weights(loaded), weights(trained))
    assert again == history
    assert again.seconds == history.seconds
    assert loaded.training is trained.training
    files = sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")
    assert len(files) == 1
    assert files[0].startswith("small-")


def test_the_file_is_safetensors_with_the_weights_and_the_history(cache):
    model, _ = call()
    (path,) = cache.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_tensor("model/encoder.0.weight"), model.encoder[0].weight)
        assert "evaluations" in file.metadata()["state"]


class Doubled(Autoencoder):
    def forward(self, x):
        return 2 * super().forward(x)


def other_loss(model, batch, generator):
    return 2.0 * squared_error(model, batch, generator)


def one_element_changed():
    x = data()
    x[3, 4] += 2**-20
    return x


CHANGES = {
    "wider model": lambda: {"model": Autoencoder(5, 2, (6,))},
    "other initial weights": lambda: {"model": Autoencoder(5, 2, (4,), seed=1)},
    "other activation": lambda: {"model": Autoencoder(5, 2, (4,), activation=nn.Tanh)},
    "other code of the model": lambda: {"model": Doubled(5, 2, (4,))},
    "other data": lambda: {"data": data(2)},
    "fewer data": lambda: {"data": data()[:-1]},
    "one element": lambda: {"data": one_element_changed()},
    "data in a tuple": lambda: {"data": (data(),)},
    "other loss": lambda: {"loss": other_loss},
    "lambda": lambda: {"loss": lambda m, b, g: scaled_error(m, b, g)},
    "epochs": lambda: {"epochs": 3},
    "batch size": lambda: {"batch_size": 15},
    "seed": lambda: {"seed": 1},
    "optimizer": lambda: {"optimizer": torch.optim.Adam},
    "learning rate": lambda: {"optimizer": partial(adam, lr=1e-2)},
    "schedule": lambda: {"schedule": partial(torch.optim.lr_scheduler.StepLR, step_size=1)},
    "loss schedule": lambda: {"loss_schedules": {"beta": warm_up(2.0)}},
    "slower loss schedule": lambda: {"loss_schedules": {"beta": warm_up(3.0)}},
    "no evaluation": lambda: {"evaluate": None},
    "autocast": lambda: {"autocast": torch.bfloat16},
}  # fmt: skip


def test_whatever_the_result_depends_on_changes_the_key(monkeypatch):
    keys = {name: call(model_key, **change())[1] for name, change in CHANGES.items()}
    keys["none"] = call(model_key)[1]
    monkeypatch.setattr(sys.modules[__name__], "beta", 2.0)
    keys["a global of the loss"] = call(model_key)[1]
    monkeypatch.undo()
    assert len(model_store.CODE) == 64
    with monkeypatch.context() as patch:
        patch.setattr(model_store, "CODE", "other code")
        keys["code"] = call(model_key)[1]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "3.0")
        keys["torch"] = call(model_key)[1]
    assert len(set(keys.values())) == len(CHANGES) + 4


def test_what_makes_no_difference_leaves_the_key():
    key = call(model_key)[1]
    assert call(model_key)[1] == key
    assert call(model_key, progress=False, description="digits", seed=0)[1] == key
    assert call(model_key, optimizer=adam, schedule=None)[1] == key
    assert call(model_key, model=Autoencoder(5, 2, (4,)).eval())[1] == key


def test_a_changed_definition_is_trained_and_both_are_kept(trainings, cache, monkeypatch):
    call()
    call(epochs=3)
    call(data=data(2))
    with monkeypatch.context() as patch:
        patch.setattr(model_store, "CODE", "other code")
        call()
    assert len(trainings) == 4
    call()
    call(epochs=3)
    assert len(trainings) == 4
    assert len(list(cache.glob("*.safetensors"))) == 4


@pytest.mark.parametrize("how", ["cut short", "one bit", "empty", "another model"])
def test_a_damaged_file_is_trained_anew_with_a_warning(trainings, cache, how):
    expected, history = call()
    (path,) = cache.glob("*.safetensors")
    content = path.read_bytes()
    if how == "another model":
        call(epochs=3)
        (other,) = set(cache.glob("*.safetensors")) - {path}
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(
            {
                "cut short": content[:-5],
                "one bit": content[:-1] + bytes([content[-1] ^ 1]),
                "empty": b"",
            }[how]
        )
    trainings.clear()
    with pytest.warns(DamagedModelWarning, match=f"{path.name}.*trained anew") as caught:
        model, again = call()
    assert caught[0].filename == __file__
    assert len(trainings) == 1
    assert same(weights(model), weights(expected))
    assert again == history
    call()
    assert len(trainings) == 1


def test_a_training_that_fails_stores_nothing(cache):
    def fail(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(evaluate=fail)
    assert not list(cache.glob("*.safetensors"))


class Stop(BaseException):
    """Ends a training as the end of its process would."""


def stopping(after):
    """An evaluation that stops the run in one of its epochs, and draws as `test_error` does not."""
    done = []

    def evaluate(model):
        done.append(None)
        if len(done) == after:
            raise Stop
        return test_error(model)

    return evaluate, done


def noisy_error(model, batch, generator):
    return squared_error(model, batch + torch.randn(batch.shape, generator=generator))


@pytest.fixture
def often(monkeypatch):
    monkeypatch.setattr(model_store, "CHECKPOINT_SECONDS", 0.0)


RUN = {
    "loss": noisy_error,
    "epochs": 6,
    "schedule": partial(torch.optim.lr_scheduler.StepLR, step_size=2),
    "ema_decay": 0.9,
}


@pytest.mark.usefixtures("often")
def test_a_training_that_was_stopped_goes_on_and_ends_with_the_same_bits(monkeypatch, cache):
    expected, history = call(**RUN)
    for path in cache.glob("*.safetensors"):
        path.unlink()

    evaluate, done = stopping(after=4)
    # The evaluation is part of the key; what the test counts must not be.
    monkeypatch.setattr(model_store, "model_key", lambda *_, **__: "0" * 64)
    monkeypatch.setattr(training, "describe_run", lambda **_: {"model": ""})
    with pytest.raises(Stop):
        call(**RUN, evaluate=evaluate)
    (part,) = cache.glob("*.part")
    assert not list(cache.glob("*.safetensors"))

    model, again = call(**RUN, evaluate=evaluate)
    assert len(done) == 4 + 3  # epochs 4, which was lost, to 6
    assert same(weights(model), weights(expected))
    assert again == history
    assert not part.exists()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("how", ["cut short", "empty", "another file"])
def test_a_damaged_checkpoint_starts_anew_with_a_warning(monkeypatch, cache, how):
    expected, history = call(**RUN)
    (path,) = cache.glob("*.safetensors")
    content = {"cut short": path.read_bytes()[:-5], "empty": b"", "another file": b"text"}[how]
    path.rename(f"{path}.part")
    Path(f"{path}.part").write_bytes(content)
    with pytest.warns(DamagedModelWarning, match="part .*the training starts anew") as caught:
        model, again = call(**RUN)
    assert caught[0].filename == __file__
    assert same(weights(model), weights(expected))
    assert again == history
    assert [path.suffix for path in cache.iterdir() if path.suffix != ".lock"] == [".safetensors"]


def test_short_epochs_leave_no_checkpoint_each(monkeypatch, cache):
    seen = []
    save = RunState.save
    monkeypatch.setattr(
        RunState, "save", lambda run, *rest: seen.append(run.history.epochs) or save(run, *rest)
    )
    call(epochs=5)
    assert seen == [5]
    monkeypatch.setattr(model_store, "CHECKPOINT_SECONDS", 0.0)
    call(epochs=4)
    assert seen == [5, 1, 2, 3, 4]


def test_without_training_only_what_is_stored_is_given(trainings, cache):
    with without_training(), pytest.raises(NotStoredError, match="small is not stored"):
        call()
    assert not trainings
    expected, history = call()
    with without_training():
        model, again = call()
    assert same(weights(model), weights(expected))
    assert again == history
    call(epochs=3)  # outside, as ever
    assert len(trainings) == 2


@pytest.mark.parametrize("name", ["", "a b", "../a", "A", "a/b", "ä"])
def test_names_that_are_no_plain_words_are_refused(name, cache):
    with pytest.raises(ValueError, match="lower-case letters, digits and hyphens"):
        call(name=name)
    assert not cache.exists()


def test_arguments_that_train_does_not_know_are_refused(cache, tmp_path):
    with pytest.raises(TypeError, match="epoch_count"):
        call(epoch_count=3)
    with pytest.raises(TypeError, match="accepts no checkpoint"):
        call(checkpoint=tmp_path / "run")
    with pytest.raises(TypeError, match="accepts no checkpoint_seconds"):
        call(checkpoint_seconds=1.0)
    assert not cache.exists()


SCRIPT = """
import hashlib, os, sys, time
import torch
from evidence.model_store import train_once
from evidence.models import Autoencoder, squared_error
from evidence.objectives import warm_up

def evaluate(model):
    with open(os.environ["LOG"], "a") as log:
        log.write("epoch\\n")
    time.sleep(0.2)
    return {"one": 1.0}

print("ready", flush=True)
sys.stdin.readline()
model = Autoencoder(5, 2, (4,))
x = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
history = train_once(
    model, x, squared_error, name="shared", epochs=5, batch_size=10, evaluate=evaluate
)
weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
print(hashlib.sha256(weights.numpy()).hexdigest(), history.as_dict())
"""


def test_two_processes_that_want_one_model_train_it_once(tmp_path, cache):
    script, log = tmp_path / "page.py", tmp_path / "log"
    script.write_text(SCRIPT)
    environment = os.environ | {"LOG": str(log), "OMP_NUM_THREADS": "1"}
    pages = [
        subprocess.Popen(
            [sys.executable, script], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    # Both have imported all they need before either begins, so that they meet.
    assert [page.stdout.readline() for page in pages] == ["ready\n"] * 2
    for page in pages:
        page.stdin.write("go\n")
        page.stdin.flush()
    answers = [page.communicate() for page in pages]
    assert [error for _, error in answers] == ["", ""]
    assert [page.returncode for page in pages] == [0, 0]
    assert answers[0] == answers[1]
    assert log.read_text() == "epoch\n" * 5
    assert len(list(cache.glob("shared-*.safetensors"))) == 1

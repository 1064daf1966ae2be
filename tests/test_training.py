"""The training loop: what it computes, how it stops, and how it goes on."""

from __future__ import annotations

import json
import math
import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from evidence import training
from evidence.checkpoint import CheckpointError, RunState
from evidence.history import History
from evidence.state_file import DamagedFileError, load_state, save_state
from evidence.training import NonFiniteLossError, adam, train


@pytest.fixture(autouse=True)
def quiet_and_reproducible(monkeypatch):
    monkeypatch.setenv("EVIDENCE_PROGRESS", "0")
    torch.manual_seed(0)


class Noisy(nn.Module):
    """A line with dropout and a buffer, so that every kind of state is at work."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(3, 3, generator=generator))
        self.offset = nn.Parameter(torch.zeros(3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.calls += 1
        return nn.functional.dropout(x @ self.weight + self.offset, 0.2, self.training)


def rows(n=50, seed=1):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def noisy_loss(model, batch, generator):
    noise = torch.randn(batch.shape, generator=generator)
    error = (model(batch + 0.1 * noise) - batch).square().sum(1).mean()
    return error, {"size": model.weight.square().sum()}


def plain_loss(model, batch, generator):
    return (model(batch) - batch).square().sum(1).mean()


def test_error(model):
    return {"error": plain_loss(model, rows(20, seed=9), None)}


test_error.__test__ = False


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# --- what is computed -----------------------------------------------------------------------------


def test_it_finds_the_least_squares_solution():
    x = rows(200).double()
    target = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 3.0
    model = nn.Linear(3, 1).double()

    def loss(model, batch, generator):
        x, y = batch
        return (model(x) - y).square().sum(1).mean()

    history = train(
        model, (x, target), loss, epochs=60, batch_size=20, optimizer=partial(adam, lr=0.05)
    )
    assert torch.allclose(
        model.weight, torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64), atol=1e-3
    )
    assert abs(model.bias.item() - 3.0) < 1e-3
    assert history.epochs == 60
    assert history.loss[-1] < 1e-4 < history.loss[0]


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**31))
def test_every_epoch_is_a_permutation_in_batches_and_keeps_pairs_together(n, batch_size, seed):
    model = nn.Linear(1, 1)
    labels = torch.arange(n)
    seen = []

    def loss(model, batch, generator):
        x, label = batch
        assert torch.equal(x.squeeze(1), label.float())
        seen.append(label.clone())
        return model(x).sum()

    train(
        model, (labels.float()[:, None], labels), loss, epochs=2, batch_size=batch_size, seed=seed
    )
    steps = math.ceil(n / batch_size)
    assert [len(batch) for batch in seen[:steps]] == [
        min(batch_size, n - i * batch_size) for i in range(steps)
    ]
    first, second = torch.cat(seen[:steps]), torch.cat(seen[steps:])
    assert torch.equal(first.sort().values, labels)
    assert torch.equal(second.sort().values, labels)
    if n > 12:
        assert not torch.equal(first, second)
        assert not torch.equal(first, labels)


def test_a_single_tensor_comes_as_a_tensor_and_a_tuple_of_one_as_a_tuple():
    kinds = []

    def loss(model, batch, generator):
        kinds.append(type(batch))
        return model(batch[0] if isinstance(batch, tuple) else batch).sum()

    train(nn.Linear(3, 1), rows(4), loss, epochs=1, batch_size=4)
    train(nn.Linear(3, 1), (rows(4),), loss, epochs=1, batch_size=4)
    assert kinds == [torch.Tensor, tuple]


def test_epoch_means_are_means_over_the_data_with_a_short_last_batch():
    x = rows(25)
    model = nn.Linear(3, 3)

    def loss(model, batch, generator):
        value = plain_loss(model, batch, generator)
        return value, {"mean": batch.mean(), "twice": 2 * value}

    frozen = partial(torch.optim.SGD, lr=0.0)
    history = train(model, x, loss, epochs=2, batch_size=10, optimizer=frozen)
    expected = plain_loss(model, x, None).item()
    assert history.loss == pytest.approx([expected] * 2, rel=1e-6)
    assert history.terms["twice"] == pytest.approx([2 * expected] * 2, rel=1e-6)
    assert history.terms["mean"] == pytest.approx([x.mean().item()] * 2, abs=1e-7)
    assert len(history.seconds) == 2


def test_a_seed_gives_one_run_whatever_the_global_generator_did_before():
    def run(seed, state):
        torch.manual_seed(state)
        model = Noisy()
        history = train(model, rows(), noisy_loss, epochs=3, batch_size=8, seed=seed)
        return weights(model), history

    first, again, other = run(0, state=1), run(0, state=2), run(1, state=1)
    assert same(first[0], again[0])
    assert first[1] == again[1]
    assert not same(first[0], other[0])


def test_the_global_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    train(Noisy(), rows(), noisy_loss, epochs=2, batch_size=8)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_data_are_left_as_they_were():
    x = rows()
    before = x.clone()
    train(Noisy(), x, noisy_loss, epochs=2, batch_size=8)
    assert torch.equal(x, before)


@pytest.mark.parametrize("mode", [True, False])
def test_modes_in_training_in_evaluation_and_afterwards(mode):
    model = Noisy().train(mode)
    seen = []

    def loss(model, batch, generator):
        seen.append(("loss", model.training, torch.is_grad_enabled()))
        return plain_loss(model, batch, generator)

    def evaluate(model):
        seen.append(("evaluate", model.training, torch.is_grad_enabled()))
        return {"one": torch.ones(())}

    history = train(model, rows(4), loss, epochs=2, batch_size=4, evaluate=evaluate)
    assert seen == [("loss", True, True), ("evaluate", False, False)] * 2
    assert model.training is mode
    assert history.evaluations == {"one": [1.0, 1.0]}
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_schedule_is_stepped_after_each_epoch():
    rates = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    train(
        nn.Linear(3, 3), rows(10), plain_loss, epochs=3, batch_size=5,
        optimizer=partial(Recording, lr=1.0),
        schedule=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
    )  # fmt: skip
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def rising(epochs_done):
    return 1.0 + epochs_done


def halving(epochs_done):
    return 0.5**epochs_done


def scheduled_loss(model, batch, generator, *, weight=1.0, other=0.0):
    error, terms = noisy_loss(model, batch, generator)
    return weight * error + other * terms["size"], terms


def test_scheduled_arguments_follow_the_epochs_done_with_their_fractions():
    seen = []

    def loss(model, batch, generator, **settings):
        seen.append(settings)
        return plain_loss(model, batch, generator)

    train(
        nn.Linear(3, 3), rows(10), loss, epochs=2, batch_size=4,
        loss_schedules={"weight": rising, "other": halving},
    )  # fmt: skip
    times = [0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3]
    assert [settings["weight"] for settings in seen] == pytest.approx([1 + t for t in times])
    assert [settings["other"] for settings in seen] == pytest.approx([0.5**t for t in times])
    assert all(set(settings) == {"weight", "other"} for settings in seen)


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1"])
def test_a_schedule_that_gives_no_finite_number_is_refused(value):
    def schedule(epochs_done):
        return value if epochs_done >= 1 else 0.5

    model, good = Noisy(), Noisy()
    arguments = {"loss": scheduled_loss, "batch_size": 25}
    train(good, rows(), epochs=1, loss_schedules={"weight": lambda t: 0.5}, **arguments)
    with pytest.raises(ValueError, match=r"loss_schedules\['weight'\] returned .* after 1 epochs"):
        train(model, rows(), epochs=3, loss_schedules={"weight": schedule}, **arguments)
    assert same(weights(model), weights(good))


def test_frozen_parameters_are_not_handed_to_the_optimizer():
    model = Noisy()
    model.offset.requires_grad_(False)
    train(model, rows(), noisy_loss, epochs=1, batch_size=10)
    assert torch.equal(model.offset, torch.zeros(3))


def test_no_epochs_change_nothing():
    model = Noisy()
    before = weights(model)
    history = train(model, rows(), noisy_loss, epochs=0, batch_size=10)
    assert same(weights(model), before)
    assert history == History()


def test_the_default_optimizer_is_adam_in_one_kernel():
    (group,) = adam(nn.Linear(2, 2).parameters()).param_groups
    assert (group["lr"], group["fused"]) == (1e-3, True)


class CountReads(TorchDispatchMode):
    """Counts how often the host reads a value, for which it has to wait for the device."""

    def __init__(self):
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_host_never_waits_for_a_step():
    def reads(steps):
        with CountReads() as counter:
            train(nn.Linear(3, 3), rows(60), plain_loss, epochs=1, batch_size=60 // steps)
        return counter.reads

    assert reads(30) == reads(2) > 0


def test_subnormal_numbers_do_not_stay_in_the_optimizer():
    made = []

    def factory(parameters):
        made.append(adam(parameters))
        return made[0]

    model = nn.Linear(3, 3)

    def loss(model, batch, generator):
        return 1e-39 * model.weight.sum() + model.bias.sum()

    train(model, rows(6), loss, epochs=1, batch_size=6, optimizer=factory)
    state = made[0].state
    assert torch.equal(state[model.weight]["exp_avg"], torch.zeros(3, 3))
    assert (state[model.bias]["exp_avg"] > 0.05).all()


# --- History --------------------------------------------------------------------------------------


def test_a_history_survives_json():
    history = train(Noisy(), rows(), noisy_loss, epochs=2, batch_size=8, evaluate=test_error)
    text = json.dumps(history.as_dict(), allow_nan=False)
    again = History.from_dict(json.loads(text))
    assert again == history
    assert again.seconds == history.seconds
    assert set(history.terms) == {"size"}
    assert set(history.evaluations) == {"error"}
    assert repr(history) == "History of 2 epochs: loss, size, error, seconds"


def test_histories_differ_by_losses_and_not_by_seconds():
    assert History([1.0], {}, {}, [2.0]) == History([1.0], {}, {}, [3.0])
    assert History([1.0], {}, {}, [2.0]) != History([1.5], {}, {}, [2.0])


def test_a_history_shares_nothing_with_its_dict():
    history = History([1.0], {"kl": [2.0]}, {}, [3.0])
    history.as_dict()["terms"]["kl"].append(4.0)
    assert history.terms == {"kl": [2.0]}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({"loss": [1.0]}, "keys"),
        ({"loss": [1.0], "terms": {"kl": []}, "evaluations": {}, "seconds": [1.0]}, "length"),
    ],
)
def test_a_history_refuses_other_data(data, match):
    with pytest.raises(ValueError, match=match):
        History.from_dict(data)


# --- stopping -------------------------------------------------------------------------------------


def exploding_after(calls, what):
    """Make a loss that is fine for some calls and then is not."""
    count = iter(range(10**6))

    def loss(model, batch, generator):
        value = plain_loss(model, batch, generator)
        bad = next(count) >= calls
        if what == "loss":
            return value * (math.nan if bad else 1.0)
        if what == "term":
            return value, {"kl": torch.tensor(math.inf if bad else 1.0)}
        # A loss of 0 whose gradient is infinite: sqrt at 0.
        corner = model.weight[0, 0]
        return value + (corner - corner.detach()).sqrt() if bad else value

    return loss


@pytest.mark.parametrize("what", ["loss", "term"])
def test_a_value_that_is_not_finite_stops_the_run_at_the_last_good_weights(what):
    # 5 steps an epoch: the 13th call is step 3 of epoch 3.
    good = Noisy()
    reference = train(good, rows(), exploding_after(10**6, what), epochs=2, batch_size=10)
    model = Noisy()
    with pytest.raises(NonFiniteLossError) as caught:
        train(model, rows(), exploding_after(12, what), epochs=9, batch_size=10)
    error = caught.value
    assert (error.epoch, error.step) == (3, 3)
    assert math.isnan(error.value) if what == "loss" else error.value == math.inf
    assert error.last_finite_loss > 0
    assert error.history == reference
    assert same(weights(model), weights(good))
    assert "epoch 3, step 3" in str(error)
    assert f"{error.last_finite_loss:g}" in str(error)
    assert ("'kl' became inf" if what == "term" else "loss became nan") in str(error)


def test_a_first_step_that_is_not_finite_gives_back_the_initial_weights():
    model = Noisy()
    before = weights(model)
    with pytest.raises(NonFiniteLossError, match=r"epoch 1, step 1; no loss .* started with"):
        train(model, rows(), exploding_after(0, "loss"), epochs=3, batch_size=10)
    assert same(weights(model), before)


def test_weights_that_are_not_finite_stop_the_run_although_the_loss_is():
    model = Noisy()
    good = Noisy()
    reference = train(good, rows(), exploding_after(10**6, "weights"), epochs=1, batch_size=10)
    with pytest.raises(NonFiniteLossError, match="weight became NaN or infinite in epoch 2") as e:
        # The last step of the second epoch.
        train(model, rows(), exploding_after(9, "weights"), epochs=3, batch_size=10)
    assert e.value.history == reference
    assert same(weights(model), weights(good))


def interrupt_in_step(monkeypatch, step):
    count = iter(range(1, 10**6))
    original = training._value_and_terms

    def interrupted(returned):
        if next(count) == step:
            raise KeyboardInterrupt
        return original(returned)

    monkeypatch.setattr(training, "_value_and_terms", interrupted)


def test_an_interrupted_model_holds_the_weights_of_its_last_epoch(monkeypatch):
    good = Noisy()
    train(good, rows(), noisy_loss, epochs=2, batch_size=10)
    model = Noisy().eval()
    interrupt_in_step(monkeypatch, 13)
    with pytest.raises(KeyboardInterrupt):
        train(model, rows(), noisy_loss, epochs=5, batch_size=10)
    assert same(weights(model), weights(good))
    assert model.training is False
    assert all(parameter.grad is None for parameter in model.parameters())


# --- going on -------------------------------------------------------------------------------------

OPTIMIZERS = {
    "adam": adam,
    "momentum": partial(torch.optim.SGD, lr=0.01, momentum=0.9),
    "two groups": lambda parameters: torch.optim.AdamW(
        [{"params": [p], "lr": 0.01 * (i + 1)} for i, p in enumerate(parameters)]
    ),
}
SCHEDULES = {
    "none": None,
    "milestones": partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[2, 3], gamma=0.3),
    "cosine": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=4),
    "lambda": partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.9**epoch),
}


def resumable(model, path, optimizer="adam", schedule="none", **changes):
    arguments = {
        "epochs": 4, "batch_size": 8, "optimizer": OPTIMIZERS[optimizer],
        "schedule": SCHEDULES[schedule], "evaluate": test_error, "checkpoint": path,
    } | changes  # fmt: skip
    data, loss = arguments.pop("data", rows()), arguments.pop("loss", noisy_loss)
    return train(model, data, loss, **arguments)


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ("adam", "none"), ("adam", "milestones"), ("momentum", "cosine"), ("two groups", "lambda"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stop_in_step", [1, 8, 15, 23])  # of 7 steps an epoch
@pytest.mark.parametrize("keep_model", [True, False])
def test_a_resumed_run_ends_like_one_that_was_never_stopped(
    tmp_path, monkeypatch, optimizer, schedule, stop_in_step, keep_model
):
    whole = Noisy()
    expected = resumable(whole, None, optimizer, schedule)

    path = tmp_path / "run.safetensors"
    model = Noisy()
    with monkeypatch.context() as patch:
        interrupt_in_step(patch, stop_in_step)
        with pytest.raises(KeyboardInterrupt):
            resumable(model, path, optimizer, schedule)
    assert path.exists() == (stop_in_step > 7)
    torch.manual_seed(stop_in_step)
    if not keep_model:
        model = Noisy()
    history = resumable(model, path, optimizer, schedule)
    assert same(weights(model), weights(whole))
    assert history == expected
    assert history.evaluations == expected.evaluations


@pytest.mark.parametrize("stop_in_step", [1, 8, 18])
def test_a_resumed_run_goes_on_with_its_scheduled_arguments(tmp_path, monkeypatch, stop_in_step):
    options = {"loss": scheduled_loss, "loss_schedules": {"weight": rising, "other": halving}}
    whole, plain = Noisy(), Noisy()
    expected = resumable(whole, None, **options)
    resumable(plain, None, loss=scheduled_loss)
    assert not same(weights(plain), weights(whole))

    path = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch:
        interrupt_in_step(patch, stop_in_step)
        with pytest.raises(KeyboardInterrupt):
            resumable(Noisy(), path, **options)
    model = Noisy()
    assert resumable(model, path, **options) == expected
    assert same(weights(model), weights(whole))


def test_a_run_can_be_stopped_after_every_epoch(tmp_path, monkeypatch):
    whole = Noisy()
    expected = resumable(whole, None)
    path = tmp_path / "run.safetensors"
    save = RunState.save

    def save_and_stop(self, *arguments):
        save(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunState, "save", save_and_stop)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            resumable(Noisy(), path)
    model = Noisy()
    assert resumable(model, path) == expected
    assert same(weights(model), weights(whole))


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    first = Noisy()
    expected = resumable(first, path)
    monkeypatch.setattr(training, "_take_steps", None)
    again = Noisy()
    history = resumable(again, path)
    assert same(weights(again), weights(first))
    assert history == expected
    assert history.seconds == expected.seconds


def test_tied_weights_are_resumed_as_tied_weights(tmp_path, monkeypatch):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.down = nn.Parameter(torch.randn(3, 3, generator=generator))
            self.up = self.down

        def forward(self, x):
            return x @ self.down @ self.up.T

    whole, model = Tied(), Tied()
    resumable(whole, None, loss=plain_loss)
    path = tmp_path / "run.safetensors"
    with monkeypatch.context() as patch:
        interrupt_in_step(patch, 10)
        with pytest.raises(KeyboardInterrupt):
            resumable(Tied(), path, loss=plain_loss)
    resumable(model, path, loss=plain_loss)
    assert torch.equal(model.down, whole.down)
    assert model.up is model.down


def test_a_checkpoint_is_safetensors_and_json_and_nothing_is_pickled(tmp_path, monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    path = tmp_path / "run.safetensors"
    model = Noisy()
    resumable(model, path, schedule="milestones")
    resumable(Noisy(), path, schedule="milestones")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_tensor("model/weight"), model.weight)
        assert json.loads(file.metadata()["state"])


OTHER_RUNS = {
    "epochs": {"epochs": 5},
    "batch_size": {"batch_size": 9},
    "seed": {"seed": 1},
    "optimizer": {"optimizer": "momentum"},
    "schedule": {"schedule": "cosine"},
    "loss_schedules": {"loss_schedules": {"weight": rising}},
    "evaluate": {"evaluate": None},
    "autocast": {"autocast": torch.bfloat16},
    "ema_decay": {"ema_decay": 0.9},
    "data": {"data": rows(seed=2)},
    "loss": {"loss": plain_loss},
}


def test_a_checkpoint_is_written_no_more_often_than_asked_and_at_the_end(tmp_path, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])
    save = RunState.save
    monkeypatch.setattr(
        RunState, "save", lambda run, *rest: saved.append(run.history.epochs) or save(run, *rest)
    )

    def three_seconds(model):
        now[0] += 3.0
        return {}

    for path, seconds in (("every", 0.0), ("seldom", 7.0), ("never", 1e9)):
        arguments = {"epochs": 7, "evaluate": three_seconds, "checkpoint_seconds": seconds}
        resumable(Noisy(), tmp_path / path, **arguments)
    assert saved == [1, 2, 3, 4, 5, 6, 7, 3, 6, 7, 7]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), "10", True])
def test_an_impossible_time_between_checkpoints_is_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match=r"checkpoint_seconds is .*; accepted are finite numbers"):
        resumable(Noisy(), tmp_path / "run", checkpoint_seconds=seconds)


@pytest.mark.parametrize("name", OTHER_RUNS)
def test_the_checkpoint_of_another_run_is_refused_and_kept(tmp_path, name):
    path = tmp_path / "run.safetensors"
    resumable(Noisy(), path)
    content = path.read_bytes()
    model = Noisy()
    before = weights(model)
    with pytest.raises(CheckpointError, match=rf"another run.*: {name}( \(|\.)"):
        resumable(model, path, **OTHER_RUNS[name])
    assert path.read_bytes() == content
    assert same(weights(model), before)


@pytest.mark.parametrize("model", [Noisy(seed=3), nn.Linear(3, 3)])
def test_the_checkpoint_of_another_model_is_refused_and_kept(tmp_path, model):
    path = tmp_path / "run.safetensors"
    resumable(Noisy(), path, loss=plain_loss)
    content = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"another run.*: model\."):
        resumable(model, path, loss=plain_loss)
    assert path.read_bytes() == content


def damage(content, how):
    middle = len(content) // 2
    return {
        "cut short": content[:-10],
        "one bit": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
        "one character of the header": content.replace(b"model_now", b"model_noW", 1),
        "empty": b"",
        "text": b"not a checkpoint",
        "zeros": content[:middle] + bytes(len(content) - middle),
    }[how]


@pytest.mark.parametrize(
    "how", ["cut short", "one bit", "one character of the header", "empty", "text", "zeros"]
)
def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path, how):
    path = tmp_path / "run.safetensors"
    resumable(Noisy(), path)
    damaged = damage(path.read_bytes(), how)
    path.write_bytes(damaged)
    model = Noisy()
    before = weights(model)
    with pytest.raises(DamagedFileError, match=r"run\.safetensors"):
        resumable(model, path)
    assert path.read_bytes() == damaged
    assert same(weights(model), before)


def test_a_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path):
    path = tmp_path / "model.safetensors"
    save_state(path, {"model": {"weight": torch.ones(2)}})
    content = path.read_bytes()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        resumable(Noisy(), path)
    assert path.read_bytes() == content


def test_a_write_that_fails_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    whole = Noisy()
    expected = resumable(whole, None)
    replace = Path.replace
    count = iter(range(10))

    def full_disk(self, target):
        if next(count) == 2:
            raise OSError("No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_disk)
        with pytest.raises(OSError, match="No space"):
            resumable(Noisy(), path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert load_state(path)["history"]["loss"] == expected.loss[:2]
    model = Noisy()
    assert resumable(model, path) == expected
    assert same(weights(model), weights(whole))


# --- the average of the weights -------------------------------------------------------------------


def averages_by_hand(decay, **arguments):
    """Train without an average and return, for each epoch, the average of what was gone through."""
    average, after = {}, []

    def keep(model):
        after.append({name: tensor.clone() for name, tensor in average.items()})
        return {}

    class Recording(torch.optim.SGD):
        def step(self, *more):
            super().step(*more)
            for name, tensor in model.named_parameters():
                old = average.get(name, tensor.detach().clone())
                average[name] = decay * old + (1 - decay) * tensor.detach()

    model = Noisy()
    history = train(
        model, rows(), noisy_loss, batch_size=10, evaluate=keep,
        optimizer=partial(Recording, lr=0.05), **arguments,
    )  # fmt: skip
    return model, after, history


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_model_holds_the_average_of_its_weights_and_is_evaluated_with_it(decay):
    live, after, plain = averages_by_hand(decay, epochs=3)
    evaluated = []

    def evaluate(model):
        evaluated.append(weights(model))
        return test_error(model)

    model = Noisy()
    history = train(
        model, rows(), noisy_loss, epochs=3, batch_size=10, evaluate=evaluate,
        optimizer=partial(torch.optim.SGD, lr=0.05), ema_decay=decay,
    )  # fmt: skip
    assert history.loss == plain.loss  # steps are taken from the weights, not from their average
    assert len(evaluated) == 3
    for seen, expected in zip(evaluated, after, strict=True):
        for name, tensor in expected.items():
            assert torch.allclose(seen[name], tensor, rtol=0, atol=1e-6)
    assert same(weights(model), evaluated[-1])
    assert torch.equal(model.calls, live.calls)
    assert torch.allclose(model.weight, live.weight, atol=1e-6) == (decay == 0)
    assert history.evaluations["error"][-1] == test_error(model.eval())["error"]


def test_an_interrupted_model_holds_the_average_of_its_last_epoch(monkeypatch):
    good, model = Noisy(), Noisy()
    train(good, rows(), noisy_loss, epochs=2, batch_size=10, ema_decay=0.9)
    interrupt_in_step(monkeypatch, 13)
    with pytest.raises(KeyboardInterrupt):
        train(model, rows(), noisy_loss, epochs=5, batch_size=10, ema_decay=0.9)
    assert same(weights(model), weights(good))


@pytest.mark.parametrize("stop_in_step", [1, 8, 15, 23])
@pytest.mark.parametrize("keep_model", [True, False])
def test_a_resumed_average_ends_like_one_that_was_never_stopped(
    tmp_path, monkeypatch, stop_in_step, keep_model
):
    whole, plain = Noisy(), Noisy()
    expected = resumable(whole, None, ema_decay=0.9)
    resumable(plain, None)
    assert not same(weights(plain), weights(whole))

    path = tmp_path / "run.safetensors"
    model = Noisy()
    with monkeypatch.context() as patch:
        interrupt_in_step(patch, stop_in_step)
        with pytest.raises(KeyboardInterrupt):
            resumable(model, path, ema_decay=0.9)
    if not keep_model:
        model = Noisy()
    history = resumable(model, path, ema_decay=0.9)
    assert same(weights(model), weights(whole))
    assert history == expected
    assert history.evaluations == expected.evaluations


def test_no_epochs_change_nothing_with_an_average_either():
    model = Noisy()
    before = weights(model)
    train(model, rows(), noisy_loss, epochs=0, batch_size=10, ema_decay=0.9)
    assert same(weights(model), before)


@pytest.mark.parametrize("decay", [1, 1.5, -0.1, math.nan, "0.9", True])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(ValueError, match=r"ema_decay is .*; accepted are numbers in \[0, 1\)"):
        train(Noisy(), rows(), noisy_loss, epochs=1, batch_size=10, ema_decay=decay)


# --- progress -------------------------------------------------------------------------------------


def test_nothing_is_written_when_progress_is_off(capfd, monkeypatch):
    monkeypatch.setenv("EVIDENCE_PROGRESS", "0")
    train(Noisy(), rows(), noisy_loss, epochs=3, batch_size=1)
    assert capfd.readouterr() == ("", "")


def test_the_bar_is_labelled_and_goes_away(capfd, monkeypatch):
    monkeypatch.delenv("EVIDENCE_PROGRESS")
    train(Noisy(), rows(), noisy_loss, epochs=3, batch_size=1, description="a small model")
    out, err = capfd.readouterr()
    assert out == ""
    assert "a small model" in err
    assert err.rstrip(" \r").endswith("]")  # a bar, blanked out: no line of its own is left
    assert "\n" not in err


def test_progress_can_be_chosen_by_argument(capfd, monkeypatch):
    train(Noisy(), rows(), noisy_loss, epochs=1, batch_size=1, progress=True)
    assert "training" in capfd.readouterr().err
    monkeypatch.setenv("EVIDENCE_PROGRESS", "1")
    train(Noisy(), rows(), noisy_loss, epochs=1, batch_size=1, progress=False)
    assert capfd.readouterr() == ("", "")


def test_an_unknown_progress_setting_is_refused(monkeypatch):
    monkeypatch.setenv("EVIDENCE_PROGRESS", "no")
    with pytest.raises(ValueError, match="EVIDENCE_PROGRESS is 'no'; accepted are 0 and 1"):
        train(Noisy(), rows(), noisy_loss, epochs=1, batch_size=8)


# --- bfloat16 -------------------------------------------------------------------------------------


def test_autocast_computes_in_bfloat16_and_keeps_float32_weights():
    dtypes = set()

    def loss(model, batch, generator):
        out = model(batch)
        dtypes.add(out.dtype)
        return (out.float() - batch).square().sum(1).mean()

    cast, plain = nn.Linear(3, 3), nn.Linear(3, 3)
    plain.load_state_dict(cast.state_dict())
    arguments = {"epochs": 20, "batch_size": 10, "optimizer": partial(adam, lr=0.02)}
    in_bfloat16 = train(cast, rows(), loss, autocast=torch.bfloat16, **arguments)
    assert dtypes == {torch.bfloat16}
    in_float32 = train(plain, rows(), loss, **arguments)
    assert {parameter.dtype for parameter in cast.parameters()} == {torch.float32}
    assert in_bfloat16.loss != in_float32.loss
    assert in_bfloat16.loss == pytest.approx(in_float32.loss, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, "bfloat16"])
def test_autocast_to_other_types_is_refused(dtype):
    with pytest.raises(ValueError, match=r"autocast is .*; accepted are torch\.bfloat16 and None"):
        train(Noisy(), rows(), noisy_loss, epochs=1, batch_size=8, autocast=dtype)


def test_autocast_of_a_float64_model_is_refused():
    with pytest.raises(ValueError, match=r"float32 model; this one has torch\.float64"):
        train(
            nn.Linear(3, 3).double(), rows().double(), plain_loss,
            epochs=1, batch_size=8, autocast=torch.bfloat16,
        )  # fmt: skip


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"data": rows(0)}, ValueError, r"data is empty, of shape \(0, 3\)"),
        ({"data": torch.ones(())}, ValueError, r"shapes \[\(\)\]"),
        ({"data": (rows(4), rows(5))}, ValueError, r"\[\(4, 3\), \(5, 3\)\]; .* one n"),
        ({"data": [rows(4)]}, TypeError, "data is a list; accepted are a tensor"),
        ({"data": ()}, TypeError, "data is a tuple"),
        ({"data": rows(4).numpy()}, TypeError, "data is a ndarray"),
        ({"data": rows().double()}, ValueError, r"data is torch\.float64, model torch\.float32"),
        ({"data": rows().to("meta")}, ValueError, "data lies on meta, model on cpu"),
        ({"data": (rows(), rows().to("meta"))}, ValueError, "several devices"),
        ({"batch_size": 0}, ValueError, "batch_size is 0; it must be 1 or more"),
        ({"batch_size": 2.0}, TypeError, r"batch_size is 2\.0; it must be a whole number"),
        ({"batch_size": True}, TypeError, "batch_size is True"),
        ({"epochs": -1}, ValueError, "epochs is -1; it must be 0 or more"),
        ({"epochs": "3"}, TypeError, "epochs is '3'"),
        ({"model": nn.Linear(3, 3).requires_grad_(False)}, ValueError, "nothing can be trained"),
        ({"model": nn.ReLU()}, ValueError, "nothing can be trained"),
        (
            {"model": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double())},
            ValueError,
            "several kinds",
        ),
        ({"loss": lambda m, b, g: m(b)}, TypeError, r"loss returned \(50, 3\) for its value"),
        ({"loss": lambda m, b, g: 1.0}, TypeError, "loss returned float for its value"),
        ({"loss": lambda m, b, g: b.sum()}, ValueError, "has no gradient"),
        (
            {"loss": lambda m, b, g: (m(b).sum(), {"kl": m(b)})},
            TypeError,
            r"\(50, 3\) for kl; accepted are scalar tensors",
        ),
        (
            {"loss": lambda m, b, g: (m(b).sum(), {"loss": m(b).sum()})},
            ValueError,
            "named 'loss'",
        ),
        ({"evaluate": lambda m: {"kl": math.nan}}, ValueError, "evaluate returned nan for 'kl'"),
    ],
)
def test_what_is_refused(changes, error, match):
    arguments = {"epochs": 1, "batch_size": 50} | changes
    model = arguments.pop("model", nn.Linear(3, 3))
    data, loss = arguments.pop("data", rows()), arguments.pop("loss", plain_loss)
    before = weights(model)
    with pytest.raises(error, match=match):
        train(model, data, loss, **arguments)
    assert same(weights(model), before)


@settings(deadline=None, max_examples=30)
@given(
    bad=st.sampled_from([math.nan, math.inf, -math.inf]),
    row=st.integers(0, 49),
    column=st.integers(0, 2),
)
def test_data_that_are_not_finite_are_refused_by_place(bad, row, column):
    x = rows()
    x[row, column] = bad
    with pytest.raises(ValueError, match=rf"1 elements .* index \({row}, {column}\): {bad}"):
        train(nn.Linear(3, 3), x, plain_loss, epochs=1, batch_size=8)


def test_large_finite_data_are_accepted():
    x = torch.full((4, 3), 3e38)
    assert x.sum().isinf()
    train(nn.Linear(3, 3), x, lambda m, b, g: m(b * 0).sum(), epochs=1, batch_size=4)


def test_names_of_terms_and_evaluations_must_stay():
    def loss_with_terms(names):
        names = iter(names)
        return lambda m, b, g: (plain_loss(m, b, g), {next(names): m(b).sum()})

    model, arguments = nn.Linear(3, 3), {"epochs": 2, "batch_size": 2}
    with pytest.raises(ValueError, match=r"\['kl'\] after epoch 2, and \['size'\] before"):
        train(model, rows(4), loss_with_terms(["size", "size", "kl", "kl"]), **arguments)
    with pytest.raises(ValueError, match=r"\['kl'\] in step 2, and \['size'\] before"):
        train(model, rows(4), loss_with_terms(["size", "kl"]), **arguments)
    figures = iter(["bound", "error"])
    with pytest.raises(ValueError, match=r"evaluate returned the names \['error'\]"):
        train(model, rows(4), plain_loss, evaluate=lambda m: {next(figures): 1.0}, **arguments)

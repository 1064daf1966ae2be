"""The training loop of every page: `train`, and what it leaves behind, a `History`.

The data are tensors in memory, so an epoch needs no data loader: it is one permutation, one gather
into a second tensor, and views of that tensor as batches. A model is trained on a loss of its own::

    def squared_error(model, batch, generator):
        return (model(batch) - batch).square().sum(1).mean()

    history = train(model, x, squared_error, epochs=10, batch_size=128)

A run is reproducible: all randomness comes from `seed`. It is also safe to stop. Whatever ends it
early, the model holds the weights of the last epoch that was finished; with a `checkpoint`, the
same call made again goes on from there and ends with the same bits as a run that was never stopped.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from evidence.checkpoint import CheckpointError, RunState, describe_run
from evidence.history import History

__all__ = ["CheckpointError", "History", "NonFiniteLossError", "adam", "train"]

Data = Tensor | tuple[Tensor, ...]
Loss = Callable[..., Tensor | tuple[Tensor, Mapping[str, Tensor]]]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
ScheduleFactory = Callable[[Optimizer], LRScheduler]
Evaluation = Callable[[nn.Module], Mapping[str, float]]
LossSchedule = Callable[[float], float]


class NonFiniteLossError(ArithmeticError):
    """Training met a loss, or left weights, that are NaN or infinite.

    Attributes
    ----------
    epoch, step : int
        Where, both counted from 1.
    value : float
        The first value that is not finite (the loss, or one of its recorded terms).
    last_finite_loss : float or None
        The last loss before it; None if there was none.
    history : History
        The epochs before. The model holds the weights with which they ended.
    """

    def __init__(
        self,
        problem: str,
        *,
        epoch: int,
        step: int,
        value: float,
        last_finite_loss: float | None,
        history: History,
    ) -> None:
        before = (
            "no loss before it was finite"
            if last_finite_loss is None
            else f"the last finite loss was {last_finite_loss:g}"
        )
        kept = f"of epoch {history.epochs}" if history.epochs else "it started with"
        super().__init__(
            f"{problem} in epoch {epoch}, step {step}; {before}. The model holds the weights "
            f"{kept} again. A smaller learning rate, or a loss computed from logits and "
            "log-variances, is the usual remedy."
        )
        self.epoch = epoch
        self.step = step
        self.value = value
        self.last_finite_loss = last_finite_loss
        self.history = history


def adam(parameters: Iterable[nn.Parameter], lr: float = 1e-3) -> Optimizer:
    """Make the book's usual optimizer: Adam (arXiv 1412.6980), fused into one kernel if possible.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        What is to be trained.
    lr : float
        The learning rate; ``functools.partial(adam, lr=3e-4)`` is a factory for `train`.
    """
    parameters = list(parameters)
    is_fusable = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    return torch.optim.Adam(parameters, lr=lr, fused=is_fusable)


def train(
    model: nn.Module,
    data: Data,
    loss: Loss,
    *,
    epochs: int,
    batch_size: int,
    optimizer: OptimizerFactory = adam,
    schedule: ScheduleFactory | None = None,
    loss_schedules: Mapping[str, LossSchedule] | None = None,
    evaluate: Evaluation | None = None,
    autocast: torch.dtype | None = None,
    ema_decay: float | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 0.0,
    progress: bool | None = None,
    description: str = "training",
) -> History:
    """Minimise a loss over data, in place.

    Parameters
    ----------
    model : nn.Module
        The model, on the device of the data. Its training mode is on in training, off while
        `evaluate` runs, and afterwards what it was.
    data : Tensor or tuple of Tensor
        Shape ``(n, ...)`` each, finite. Floating point data have the model's dtype.
    loss : callable
        ``loss(model, batch, generator)`` with a batch of the form of `data`; returns a scalar
        tensor, the mean over the batch, or a pair of it and a dict of further scalars to record.
        What it draws comes from the generator, which lies on the device of the data. (Draws
        from torch's global generator, as in dropout, are reproducible too.)
    epochs : int
        How often to go through the data; 0 or more.
    batch_size : int
        1 or more. The last batch of an epoch is short if need be; nothing is dropped.
    optimizer : callable
        Makes the optimizer from the parameters that require a gradient.
    schedule : callable, optional
        Makes a learning-rate scheduler from the optimizer; it is stepped after each epoch.
    loss_schedules : dict of str to callable, optional
        Further arguments of the loss that change as training goes on: by name, a function of the
        number of epochs done so far, fractions included. Before each step it is evaluated, and the
        loss is called as ``loss(model, batch, generator, name=value)``. Being a function of time
        and nothing else, it needs no state to resume from.
    evaluate : callable, optional
        ``evaluate(model)`` returns finite numbers by name, to be recorded after each epoch. It runs
        without gradients. For a run to be resumable, what it draws must not depend on the epoch.
    autocast : torch.dtype, optional
        ``torch.bfloat16``: evaluate the loss with its matrix products in bfloat16; the weights
        stay float32. A loss should leave bfloat16 before it sums over many elements.
    ema_decay : float, optional
        In [0, 1): with it, what `evaluate` is given and what the model holds afterwards (also after
        an interruption) is the exponential moving average of the weights: the weights after the
        first step, and after each further one ``ema_decay`` times the average before plus
        ``1 - ema_decay`` times the new weights. Steps are taken from the weights themselves, and
        buffers are not averaged. `evaluate` is given a copy of the model.
    seed : int
        Of the order of the data and of the loss's draws.
    checkpoint : path, optional
        A safetensors file, written after every epoch. If it is there, the run goes on from it.
    checkpoint_seconds : float
        The least time between two writings of the checkpoint, for short epochs of large models; it
        is written after the last epoch all the same.
    progress : bool, optional
        Whether to show a bar; by default, unless the environment has ``EVIDENCE_PROGRESS=0``.
    description : str
        What the bar is labelled with.

    Returns
    -------
    History
        Of all epochs, those before a resumption included.

    Raises
    ------
    NonFiniteLossError
        If a loss, a term or a weight is NaN or infinite.
    CheckpointError
        If the checkpoint was written by a run with other arguments.
    DamagedFileError
        If the checkpoint is damaged.
    ValueError, TypeError
        If an argument is out of range or of the wrong kind.
    """
    tensors = _check_data(data)
    parameters = _check_model(model, tensors)
    _check_values(tensors)
    _check_whole_number("epochs", epochs, at_least=0)
    _check_whole_number("batch_size", batch_size, at_least=1)
    _check_decay(ema_decay)
    _check_seconds(checkpoint_seconds)
    device = tensors[0].device
    forward = _forward_context(autocast, device, parameters)
    is_bar_shown = _is_bar_shown() if progress is None else progress

    made = optimizer([parameter for parameter in parameters if parameter.requires_grad])
    run = RunState(
        model=model,
        optimizer=made,
        scheduler=schedule(made) if schedule else None,
        generator=torch.Generator(device).manual_seed(seed),
        history=History(),
        average=None
        if ema_decay is None
        else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema_decay)),
    )
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        definition = describe_run(
            model=model, data=data, loss=loss, epochs=epochs, batch_size=batch_size,
            optimizer=optimizer, schedule=schedule, loss_schedules=loss_schedules,
            evaluate=evaluate, autocast=autocast, ema_decay=ema_decay, seed=seed,
        )  # fmt: skip
        run.resume(checkpoint, definition)
    history = run.history

    _keep_freed_memory()
    # The shuffled data have memory of their own for the whole run: fresh memory would cost page
    # faults in every epoch.
    shuffled = [torch.empty_like(tensor, requires_grad=False) for tensor in tensors]
    sizes = [len(part) for part in shuffled[0].split(batch_size)]
    saved_at = time.monotonic()
    with (
        _restored(model, run.result) as keep_weights,
        _bar(epochs * len(sizes), history.epochs * len(sizes), description, is_bar_shown) as bar,
    ):
        while history.epochs < epochs:
            start = time.perf_counter()
            _shuffle(tensors, shuffled, run.generator)
            batches = [part.split(batch_size) for part in shuffled]
            model.train()
            with _seeded_global_generator(run.generator):
                names, values = _take_steps(
                    run,
                    batches[0] if isinstance(data, Tensor) else zip(*batches, strict=True),
                    len(sizes),
                    loss,
                    loss_schedules or {},
                    forward,
                    bar,
                )
            _check_finite(names, values, run)
            means = values.T @ values.new_tensor(sizes) / sum(sizes)
            _flush_subnormals(run.optimizer)
            seconds = time.perf_counter() - start

            history.append(
                dict(zip(names, means.tolist(), strict=True)),
                _evaluated(run.result, evaluate),
                seconds,
            )
            if run.scheduler is not None:
                run.scheduler.step()
            is_due = time.monotonic() - saved_at >= checkpoint_seconds or history.epochs == epochs
            if checkpoint is not None and is_due:
                run.save(checkpoint, definition)
                saved_at = time.monotonic()
            keep_weights()
            bar.set_postfix(loss=f"{history.loss[-1]:.5g}", refresh=False)
    if run.average is not None:
        model.load_state_dict(run.result.state_dict())
    made.zero_grad()
    return history


def _take_steps(
    run: RunState,
    batches: Iterable[Any],
    num_steps: int,
    loss: Loss,
    loss_schedules: Mapping[str, LossSchedule],
    forward: Callable[[], AbstractContextManager],
    bar: tqdm,
) -> tuple[tuple[str, ...], Tensor]:
    """Make one optimizer step a batch; return the names and values ``(steps, names)`` recorded."""
    names: tuple[str, ...] | None = None
    for step, batch in enumerate(batches):
        settings = _settings(loss_schedules, run.history.epochs + step / num_steps)
        with forward():
            value, terms = _value_and_terms(loss(run.model, batch, run.generator, **settings))
        run.optimizer.zero_grad()
        value.backward()
        run.optimizer.step()
        if run.average is not None:
            run.average.update_parameters(run.model)
        if names is None:
            names = ("loss", *terms)
            # The values stay on the device and are looked at when the epoch ends: to look at each
            # (`loss.item()`) would make the host wait for the device in every step.
            values = torch.empty(
                num_steps, len(names), device=value.device, dtype=_at_least_float32(value.dtype)
            )
        elif names != ("loss", *terms):
            raise ValueError(
                f"loss returned the terms {list(terms)} in step {step + 1}, "
                f"and {list(names[1:])} before; they must stay the same"
            )
        values[step, 0] = value.detach()
        for column, term in enumerate(terms.values(), start=1):
            values[step, column] = term.detach()
        bar.update()
    return names, values.cpu().double()


def _settings(loss_schedules: Mapping[str, LossSchedule], epochs_done: float) -> dict[str, float]:
    """Return the scheduled arguments of the loss for one step."""
    settings = {name: schedule(epochs_done) for name, schedule in loss_schedules.items()}
    for name, value in settings.items():
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise ValueError(
                f"loss_schedules[{name!r}] returned {value!r} after {epochs_done:g} epochs; "
                "accepted are finite numbers"
            )
    return settings


def _value_and_terms(returned: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
    value, terms = returned if isinstance(returned, tuple) else (returned, {})
    for name, scalar in (("its value", value), *terms.items()):
        if not isinstance(scalar, Tensor) or scalar.ndim != 0:
            given = tuple(scalar.shape) if isinstance(scalar, Tensor) else type(scalar).__name__
            raise TypeError(
                f"loss returned {given} for {name}; accepted are scalar tensors, of shape ()"
            )
    if "loss" in terms:
        raise ValueError("loss returned a term named 'loss'; that name is taken by its value")
    if not value.requires_grad:
        raise ValueError(
            "the value that loss returned has no gradient: it does not depend on the model's "
            "weights, or gradients are turned off"
        )
    return value, terms


def _check_finite(names: tuple[str, ...], values: Tensor, run: RunState) -> None:
    """Raise if a value of an epoch, or a weight that it left, is not finite."""
    finite = values.isfinite()
    if finite.all() and all(parameter.isfinite().all() for parameter in run.model.parameters()):
        return
    if finite.all():
        # The loss has no value at these weights yet, but the gradient that led to them was not
        # finite: the square root at 0 is such a case.
        step, value = len(values) - 1, math.nan
        problem = "a weight became NaN or infinite"
        before = values[:, 0]
    else:
        step, column = (~finite).nonzero()[0].tolist()
        value = values[step, column].item()
        problem = f"{'the loss' if column == 0 else f'the term {names[column]!r}'} became {value}"
        before = values[:step, 0]
    last = before[-1].item() if len(before) else (run.history.loss or [None])[-1]
    raise NonFiniteLossError(
        problem,
        epoch=run.history.epochs + 1,
        step=step + 1,
        value=value,
        last_finite_loss=last,
        history=run.history,
    )


def _shuffle(
    tensors: Sequence[Tensor], targets: Sequence[Tensor], generator: torch.Generator
) -> None:
    """Put the rows of all tensors into the targets, in one new order."""
    num_rows, device = len(tensors[0]), tensors[0].device
    order = torch.randperm(num_rows, generator=generator, device=device)
    with torch.no_grad():
        for tensor, target in zip(tensors, targets, strict=True):
            torch.index_select(tensor, 0, order, out=target)


def _flush_subnormals(optimizer: Optimizer) -> None:
    """Set the subnormal numbers in an optimizer's state to zero.

    The averages of a gradient that has become exactly zero, as that of a ReLU which is never active
    any more, decay geometrically and stay subnormal for ever. A CPU takes many times longer for
    subnormal numbers: with two in five hidden units idle, Adam's step took twice the time.
    """
    for state in optimizer.state.values():
        for tensor in state.values():
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                tensor.masked_fill_(tensor.abs() < torch.finfo(tensor.dtype).tiny, 0)


def _keep_freed_memory() -> None:
    """Let the C library keep what a step frees, because the next step asks for it again.

    glibc returns freed memory to the system beyond twice the size of the largest block that it has
    seen freed, if that block was below 32 MiB. What is returned comes back a page fault for every
    4 KiB: in batches of 512 digits up to 600 faults and 1.5 ms a step. Freeing one such block
    raises the limit for good; it is never written to, so no memory is used. Elsewhere this does
    nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


@torch.no_grad()
def _evaluated(model: nn.Module, evaluate: Evaluation | None) -> dict[str, float]:
    if evaluate is None:
        return {}
    model.eval()
    figures = {name: float(value) for name, value in evaluate(model).items()}
    for name, value in figures.items():
        if not math.isfinite(value):
            raise ValueError(f"evaluate returned {value} for {name!r}; it must be finite")
    return figures


@contextmanager
def _restored(model: nn.Module, result: nn.Module) -> Iterator[Callable[[], None]]:
    """Give back the mode that the model had, and after a failure the weights last kept.

    Those kept are of `result`: the model itself, or the average of its weights.
    """
    was_training = model.training
    kept: dict[str, Any] = {}

    def keep() -> None:
        for name, value in result.state_dict().items():
            kept[name] = value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)

    keep()

    try:
        yield keep
    except BaseException:
        model.load_state_dict(kept)
        model.zero_grad()
        raise
    finally:
        model.train(was_training)


@contextmanager
def _seeded_global_generator(generator: torch.Generator) -> Iterator[None]:
    """Make what is drawn from torch's global generator depend on the run alone.

    Dropout and `rsample` of torch.distributions take no generator. The global one gets a seed from
    the run's for an epoch, and its own state back afterwards.
    """
    device = generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _forward_context(
    autocast: torch.dtype | None, device: torch.device, parameters: list[nn.Parameter]
) -> Callable[[], AbstractContextManager]:
    if autocast is None:
        return nullcontext
    if autocast != torch.bfloat16:
        raise ValueError(
            f"autocast is {autocast!r}; accepted are torch.bfloat16 and None (float16 would need "
            "its gradients scaled)"
        )
    if parameters[0].dtype != torch.float32:
        raise ValueError(
            f"autocast works on a float32 model; this one has {parameters[0].dtype} weights"
        )
    has_bfloat16 = torch.amp.is_autocast_available(device.type) and (
        device.type != "cuda" or torch.cuda.is_bf16_supported()
    )
    if not has_bfloat16:
        raise ValueError(f"autocast to torch.bfloat16 is not supported on the device {device}")
    return lambda: torch.autocast(device.type, dtype=autocast)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _check_data(data: Data) -> tuple[Tensor, ...]:
    tensors = (data,) if isinstance(data, Tensor) else data
    if not (isinstance(tensors, tuple) and tensors and all(isinstance(t, Tensor) for t in tensors)):
        raise TypeError(
            f"data is a {type(data).__name__}; accepted are a tensor and a tuple of tensors"
        )
    if any(tensor.ndim == 0 for tensor in tensors) or len({len(t) for t in tensors}) > 1:
        raise ValueError(
            f"data has the shapes {[tuple(t.shape) for t in tensors]}; "
            "accepted are shapes (n, ...) with one n"
        )
    if len(tensors[0]) == 0:
        raise ValueError(f"data is empty, of shape {tuple(tensors[0].shape)}")
    if len({tensor.device for tensor in tensors}) > 1:
        raise ValueError(f"data lies on several devices: {[str(t.device) for t in tensors]}")
    return tensors


def _check_values(tensors: tuple[Tensor, ...]) -> None:
    for index, tensor in enumerate(tensors):
        # A sum is finite only if all its terms are: a quick test that needs no memory. A large sum
        # can overflow, so only the slow one decides.
        if tensor.is_floating_point() and not tensor.sum().isfinite():
            bad = (~tensor.isfinite()).nonzero()
            if len(bad):
                where = tuple(bad[0].tolist())
                raise ValueError(
                    f"data has {len(bad)} elements that are not finite"
                    + (f" in tensor {index}" if len(tensors) > 1 else "")
                    + f", the first at index {where}: {tensor[where].item()}"
                )


def _check_model(model: nn.Module, tensors: tuple[Tensor, ...]) -> list[nn.Parameter]:
    parameters = list(model.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise ValueError("model has no parameter that requires a gradient: nothing can be trained")
    kinds = {(parameter.dtype, parameter.device) for parameter in parameters}
    if len(kinds) > 1:
        raise ValueError(
            f"model has parameters of several kinds: {sorted(map(str, kinds))}; "
            "accepted are one dtype and one device"
        )
    ((dtype, device),) = kinds
    for tensor in tensors:
        if tensor.device != device:
            raise ValueError(f"data lies on {tensor.device}, model on {device}; move one of them")
        if tensor.is_floating_point() and tensor.dtype != dtype:
            raise ValueError(f"data is {tensor.dtype}, model {dtype}; convert one of them")
    return parameters


def _check_whole_number(name: str, value: int, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if value < at_least:
        raise ValueError(f"{name} is {value}; it must be {at_least} or more")


def _check_decay(value: float | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"ema_decay is {value!r}; accepted are numbers in [0, 1), and None")


def _check_seconds(value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"checkpoint_seconds is {value!r}; accepted are finite numbers from 0")


def _is_bar_shown() -> bool:
    setting = os.environ.get("EVIDENCE_PROGRESS", "1")
    if setting not in ("0", "1"):
        raise ValueError(f"EVIDENCE_PROGRESS is {setting!r}; accepted are 0 and 1")
    return setting == "1"


def _bar(num_steps: int, done: int, description: str, is_shown: bool) -> tqdm:
    if not is_shown:
        return tqdm(disable=True)
    # Imported only here: in a notebook without widgets the import itself prints a warning.
    from tqdm.auto import tqdm as tqdm_of_the_place

    return tqdm_of_the_place(
        total=num_steps, initial=done, desc=description, unit="step", leave=False
    )

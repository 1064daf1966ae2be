"""Train the models that several pages use, before the pages run.

A page that asks for such a model finds it in the store (`evidence.model_store`) or trains it in its
cell. Where all are trained first, two at a time on two cores, no cell waits for a training, and
whoever waits sees how far it is. A training that is stopped goes on from where it was, the next
time.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from evidence_book.pages import KERNEL_SETTINGS, read_page

RECIPE_MODULES = ("evidence.digit_models", "evidence.diffusion.trained")
SEEDS = range(3)
# How long a model takes, about, beside another: the first beginning of its name that is here. Only
# the time that is left is reckoned from it.
COSTS = {"diffusion of digits": 6.0, "VAE": 3.0, "diffusion of": 0.5}


class ModelError(RuntimeError):
    """A model cannot be trained; the message names it and says why."""


def _of_seeds(name: str) -> tuple[str, ...]:
    return tuple(f"{name}, seed {seed}" for seed in SEEDS)


# A page's call, as it stands in the page, and the models that it asks for. (That this is all that
# the book's pages call is a test's business.)
CALLS: dict[str, tuple[str, ...]] = {
    "digit_autoencoder(2)": ("autoencoder 2, seed 0",),
    "digit_autoencoder(2, seed=seed)": _of_seeds("autoencoder 2"),
    "digit_autoencoder(8)": ("autoencoder 8",),
    "digit_autoencoder(32)": ("autoencoder 32",),
    "digit_vae()": ("VAE 20, seed 0",),
    "digit_vae(20)": ("VAE 20, seed 0",),
    "digit_vae(seed=seed)": _of_seeds("VAE 20"),
    "digit_vae(2)": ("VAE 2",),
    "digit_vae(2, epochs=30, seed=seed)": _of_seeds("VAE 2, shorter"),
    "digit_vae(20, pixels=LogisticPixels(0.1), epochs=30)": ("VAE of grey levels",),
    "digit_classifier()": ("classifier",),
    "digit_diffusion()": ("diffusion of digits",),
    "cloud_diffusion()": ("diffusion of a mixture",),
    "cloud_diffusion('mixture')": ("diffusion of a mixture",),
    "cloud_diffusion(name)": ("diffusion of moons", "diffusion of a shape"),
    "digit_codes(20, source=kind)": ("autoencoder 20", "VAE 20, seed 0"),
    "code_diffusion(20, source=kind, seed=seed)": (
        "autoencoder 20",
        "VAE 20, seed 0",
        *_of_seeds("diffusion of codes (autoencoder)"),
        *_of_seeds("diffusion of codes (VAE)"),
    ),
}


def recipes() -> dict[str, Callable[..., Any]]:
    """Return what makes each model, by name: the long ones first, what needs another after it."""
    # Here, since torch takes seconds to load, and most commands do without.
    from evidence.diffusion.trained import cloud_diffusion, code_diffusion, digit_diffusion
    from evidence.digit_models import digit_autoencoder, digit_classifier, digit_vae
    from evidence.pixels import LogisticPixels

    def of_seeds(name: str, recipe: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
        parts = zip(_of_seeds(name), SEEDS, strict=True)
        return {full: partial(recipe, seed=seed) for full, seed in parts}

    return {
        "diffusion of digits": digit_diffusion,
        **of_seeds("VAE 20", digit_vae),
        "VAE 2": partial(digit_vae, 2),
        "autoencoder 20": partial(digit_autoencoder, 20),
        "VAE of grey levels": lambda **more: digit_vae(
            20, pixels=LogisticPixels(0.1), epochs=30, **more
        ),
        **of_seeds("VAE 2, shorter", partial(digit_vae, 2, epochs=30)),
        **of_seeds("autoencoder 2", partial(digit_autoencoder, 2)),
        "autoencoder 8": partial(digit_autoencoder, 8),
        "autoencoder 32": partial(digit_autoencoder, 32),
        "classifier": digit_classifier,
        "diffusion of a mixture": partial(cloud_diffusion, "mixture"),
        "diffusion of moons": partial(cloud_diffusion, "moons"),
        "diffusion of a shape": partial(cloud_diffusion, "shape"),
        **of_seeds(
            "diffusion of codes (autoencoder)", partial(code_diffusion, 20, source="autoencoder")
        ),
        **of_seeds("diffusion of codes (VAE)", partial(code_diffusion, 20, source="vae")),
    }


def calls_of(page: Path) -> set[str]:
    """Return the calls of recipes on a page, each as it stands there."""
    sources = [cell.source for cell in read_page(page).cells if cell.cell_type == "code"]
    if not any(module in source for source in sources for module in RECIPE_MODULES):
        return set()
    trees = []
    for source in sources:
        try:
            trees.append(ast.parse(source))
        except SyntaxError:  # a command of IPython's, or a mistake that the kernel will show
            continue
    names = {
        alias.asname or alias.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in RECIPE_MODULES
        for alias in node.names
    }
    return {
        ast.unparse(node)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    }


def models_of(pages: Iterable[Path]) -> list[str]:
    """Return the names of the shared models that pages ask for, in the order of training.

    A call that is not in `CALLS` has no models here: its page trains them.
    """
    asked = {name for page in pages for call in calls_of(page) for name in CALLS.get(call, ())}
    return [name for name in recipes() if name in asked] if asked else []


def train_all(pages: Iterable[Path], jobs: int | None = None) -> list[str]:
    """Train all models that pages ask for and the store does not have, several at a time.

    The setting (``EVIDENCE_MNIST``, ``EVIDENCE_CACHE``) is that of the environment. Each process
    has one thread, as a page's kernel has, so the models are the same bits as those that a page
    would train, whatever the number of jobs.

    Parameters
    ----------
    pages : iterable of Path
        MyST sources.
    jobs : int, optional
        How many at once; by default one on each core.

    Returns
    -------
    list of str
        The names of the models that were trained.

    Raises
    ------
    ModelError
        If a training fails. The others that run are finished first.
    ValueError
        If `jobs` is below 1.
    """
    jobs = os.cpu_count() or 1 if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; 1 or more is accepted")
    names = models_of(pages)
    if not names:
        return []
    os.environ.update(KERNEL_SETTINGS)
    # Bars of several processes at once need one lock, and each a line of its own.
    context = multiprocessing.get_context("spawn")
    lock, lines = context.RLock(), context.Queue()
    for line in range(jobs):
        lines.put(line)
    tqdm.set_lock(lock)
    pool = ProcessPoolExecutor(
        min(jobs, len(names)), context, _start, (lock, lines, sys.stderr.isatty())
    )
    try:
        stored = dict(zip(names, pool.map(_is_stored, names), strict=True))
        missing = [name for name in names if not stored[name]]
        if missing:
            tqdm.write(f"{len(missing)} of {len(names)} models are to be trained", sys.stderr)
            _watch({pool.submit(_train, name): name for name in missing})
        return missing
    finally:
        pool.shutdown(cancel_futures=True)


def report(pages: Iterable[Path], jobs: int | None = None) -> None:
    """Train the shared models and say how many there were."""
    start = time.perf_counter()
    pages = list(pages)
    trained = train_all(pages, jobs)
    print(
        f"{len(models_of(pages))} models: {len(trained)} trained, the others were there, "
        f"in {time.perf_counter() - start:.0f} s"
    )


def _watch(trainings: dict[Future[float], str]) -> None:
    """Say of each model that it is trained, and how much is left."""
    start = time.perf_counter()
    costs = {name: _cost(name) for name in trainings.values()}
    spent = 0.0
    for done, future in enumerate(as_completed(trainings), start=1):
        name, seconds = trainings[future], future.result()
        spent += costs[name]
        left = (time.perf_counter() - start) * (sum(costs.values()) / spent - 1)
        tqdm.write(
            f"trained {name} in {seconds:.0f} s; {done} of {len(trainings)}, "
            f"about {_duration(left)} left",
            sys.stderr,
        )


def _cost(name: str) -> float:
    return next((cost for start, cost in COSTS.items() if name.startswith(start)), 1.0)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


# In the processes that train.

_show_bars = False
_is_stopped = False


def _start(lock: Any, lines: Any, show_bars: bool) -> None:
    """Prepare a process: its bars go on a line of their own, and a stop leaves no trace."""
    global _show_bars
    _show_bars = show_bars
    signal.signal(signal.SIGINT, _stop)
    if show_bars:
        import tqdm.auto

        tqdm.auto.tqdm.set_lock(lock)
        tqdm.auto.tqdm = partial(tqdm.auto.tqdm, position=lines.get())


def _stop(*_: Any) -> None:
    """End a training: Ctrl-C reaches all processes, and the one in front says so."""
    global _is_stopped
    _is_stopped = True
    sys.exit(130)


def _is_stored(name: str) -> bool:
    from evidence.model_store import NotStoredError, without_training

    with _named(name), without_training():
        try:
            recipes()[name]()
        except NotStoredError:
            return False
    return True


def _train(name: str) -> float:
    if _is_stopped:  # the pool goes on to the next one
        sys.exit(130)
    start = time.perf_counter()
    with _named(name):
        recipes()[name](progress=_show_bars)
    return time.perf_counter() - start


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of an error which model it is about, in a form that any process can read."""
    try:
        yield
    except Exception as error:
        raise ModelError(
            f"the model {name!r} cannot be trained: {type(error).__name__}: {error}"
        ) from None

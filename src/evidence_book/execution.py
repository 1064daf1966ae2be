"""Execute the pages of the book side by side and keep their outputs in jupyter-cache."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from filelock import FileLock, Timeout
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.cache.main import JupyterCacheBase
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from evidence.storage import cache_problem
from evidence_book import models
from evidence_book.pages import (
    cache_folder,
    cell_timeout,
    execution_key,
    find_pages,
    read_page,
    set_kernel_environment,
)

# As many outputs are kept for each page: of other settings, and of code that one may go back to.
KEPT_OUTPUTS = 8


class ExecutionError(RuntimeError):
    """A cell of a page failed; the message holds the page and the traceback."""


@dataclass(frozen=True)
class Execution:
    """How one page was executed: seconds it took, 0 where its outputs were kept already."""

    page: Path
    seconds: float


def match_pages_by_code() -> None:
    """Make jupyter-cache match a page by its code and by all that its outputs depend on.

    Left alone it hashes the page's code and all cell metadata: an edited caption would execute the
    page again, and an edited helper would not.
    """
    if getattr(JupyterCacheBase, "matches_pages_by_code", False):
        return
    hashed, merge = (
        JupyterCacheBase.create_hashed_notebook,
        JupyterCacheBase.merge_match_into_notebook,
    )

    def create_hashed_notebook(
        self: JupyterCacheBase, nb: nbformat.NotebookNode, **kwargs: object
    ) -> tuple[nbformat.NotebookNode, str]:
        root = self.path.parents[1]
        metadata = {**nb.metadata, "evidence": execution_key(nb, root)}
        nb = nbformat.NotebookNode({**nb, "metadata": nbformat.NotebookNode(metadata)})
        hashing = {"nb_metadata": ("kernelspec", "evidence"), "cell_metadata": ("tags",)}
        return hashed(self, nb, **{**hashing, **kwargs})

    def merge_match_into_notebook(
        self: JupyterCacheBase, nb: nbformat.NotebookNode, **kwargs: object
    ) -> tuple[int, nbformat.NotebookNode]:
        return merge(self, nb, **{"cell_meta": (), **kwargs})

    JupyterCacheBase.create_hashed_notebook = create_hashed_notebook
    JupyterCacheBase.merge_match_into_notebook = merge_match_into_notebook
    JupyterCacheBase.matches_pages_by_code = True


def open_cache(root: Path) -> JupyterCacheAbstract:
    """Open the store of the outputs of executed pages."""
    match_pages_by_code()
    return get_cache(cache_folder(root))


@functools.cache  # One object in a process, which may take the lock several times.
def build_lock(root: Path) -> FileLock:
    """Return the lock of all builds of a book."""
    (root / "_build").mkdir(exist_ok=True)
    return FileLock(root / "_build" / ".lock")


def wait_for_other_builds(root: Path) -> None:
    """Take the lock of the builds of a book. Two at once would write the same files."""
    lock = build_lock(root)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another build of this book is running: waiting for it to end", flush=True)
        lock.acquire()


@contextmanager
def only_build(root: Path) -> Iterator[None]:
    """Be the only build of a book, also where a build stops with an error."""
    wait_for_other_builds(root)
    try:
        yield
    finally:
        build_lock(root).release(force=True)


def prepare_kernels(root: Path, pages: Iterable[Path], jobs: int | None = None) -> None:
    """Set the environment of kernels, and do once what several of them would do or wait for.

    Models that several pages use are trained here, two at a time on two cores. A kernel that finds
    no list of fonts makes one, for seconds, and says so in its first page. Where the cache cannot
    be written in, kernels get one below ``_build``: a warning in each page would be of no use.

    Parameters
    ----------
    root : Path
        The folder of ``_toc.yml``.
    pages : iterable of Path
        What is to be executed.
    jobs : int, optional
        How many models are trained at once; by default one on each core.
    """
    set_kernel_environment(root)
    if (problem := cache_problem()) is not None:
        own = root / "_build" / ".cache"
        print(f"{problem}; this build uses {own.relative_to(root)}", file=sys.stderr, flush=True)
        os.environ["EVIDENCE_CACHE"] = str(own)
    Path(os.environ["MPLCONFIGDIR"]).mkdir(parents=True, exist_ok=True)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    import matplotlib.font_manager  # noqa: F401 (importing it makes the list)

    # Here and not in a cell, which has a limit and shows no progress.
    models.train_all(pages, jobs)


def keep_outputs(root: Path, page: Path, nb: nbformat.NotebookNode, seconds: float) -> None:
    """Keep the outputs of an executed page, for the build and for `executed`.

    Parameters
    ----------
    root, page : Path
        The folder of ``_toc.yml``, and the page in it.
    nb : NotebookNode
        The page with its outputs.
    seconds : float
        How long the execution took.

    Raises
    ------
    ExecutionError
        If a cell wrote to stderr. A warning is mended, or silenced where it is expected; a page
        that keeps it would show it until the page's code changes.
    """
    noise = [
        f"cell {index} wrote to stderr:\n{output.text}"
        for index, cell in enumerate((c for c in nb.cells if c.cell_type == "code"), start=1)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    if noise:
        raise ExecutionError("\n".join([f"{page.relative_to(root)} failed:", *noise]))
    cache = open_cache(root)
    bundle = CacheBundleIn(nb, page, data={"execution_seconds": seconds})
    with FileLock(cache_folder(root).with_suffix(".lock")):
        cache.change_cache_limit(KEPT_OUTPUTS * max(1, len(find_pages(root))))
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def execute_pages(root: Path, jobs: int | None = None) -> list[Execution]:
    """Execute every page whose code, helper code or lock has changed, several at a time.

    Parameters
    ----------
    root : Path
        The folder of ``_toc.yml``.
    jobs : int, optional
        How many kernels run at once; by default one on each core. Each has one thread, so the
        outputs do not depend on it.

    Returns
    -------
    list of Execution
        One for each page, in the order of the book.

    Raises
    ------
    ExecutionError
        If a cell of any page fails or writes to stderr; the other pages are executed and kept
        all the same.
    evidence_book.models.ModelError
        If a model that several pages use cannot be trained. No page is executed then.
    """
    jobs = os.cpu_count() or 1 if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs: expected 1 or more, got {jobs}")
    pages = find_pages(root)
    seconds = dict.fromkeys(pages, 0.0)
    waiting = unexecuted(root, pages)
    failures = []
    if waiting:
        prepare_kernels(root, waiting, jobs)

    def keep(page: Path, nb: nbformat.NotebookNode, taken: float) -> None:
        seconds[page] = taken
        keep_outputs(root, page, nb, taken)
        print(f"executed {page.relative_to(root)} in {taken:.1f} s", flush=True)

    async def run(page: Path, nb: nbformat.NotebookNode, slots: asyncio.Semaphore) -> None:
        async with slots:
            start = time.perf_counter()
            try:
                await _client(page, nb).async_execute()
                keep(page, nb, time.perf_counter() - start)
            except ExecutionError as error:
                failures.append(str(error))
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                failures.append(f"{page.relative_to(root)} failed:\n{error}")

    async def run_all() -> None:
        slots = asyncio.Semaphore(jobs)
        await asyncio.gather(
            *(run(page, waiting[page], slots) for page in longest_first(root, waiting))
        )

    asyncio.run(run_all())
    if failures:
        raise ExecutionError("\n\n".join(failures))
    return [Execution(page, seconds[page]) for page in pages]


def unexecuted(root: Path, pages: Iterable[Path]) -> dict[Path, nbformat.NotebookNode]:
    """Return those pages, as notebooks, that have no outputs for the present code and settings."""
    cache = open_cache(root)
    notebooks = {page: read_page(page) for page in pages}
    return {page: nb for page, nb in notebooks.items() if not _is_cached(cache, nb)}


def longest_first(root: Path, pages: Iterable[Path]) -> list[Path]:
    """Order pages by how long they took last, so that no core waits for a long one at the end.

    Those that were never executed come first, from the end of the book, where pages take longest.
    """
    seconds = {
        record.uri: record.data["execution_seconds"]
        for record in reversed(open_cache(root).list_cache_records())
    }
    from_the_end = list(pages)[::-1]
    return sorted(from_the_end, key=lambda page: -seconds.get(str(page), math.inf))


def executed(page: Path, cache: JupyterCacheAbstract) -> nbformat.NotebookNode:
    """Return a page as a notebook with the outputs of its last execution.

    Raises
    ------
    KeyError
        If the page, as it stands, has not been executed with the present helper code.
    """
    return cache.merge_match_into_notebook(read_page(page))[1]


def _is_cached(cache: JupyterCacheAbstract, nb: nbformat.NotebookNode) -> bool:
    try:
        cache.merge_match_into_notebook(nb)
    except (KeyError, ValueError):  # never executed, or stopped while its outputs were written
        return False
    return True


def _client(page: Path, nb: nbformat.NotebookNode) -> NotebookClient:
    return NotebookClient(
        nb,
        timeout=cell_timeout(),
        resources={"metadata": {"path": str(page.parent)}},
        # How output is cut into messages is a matter of timing.
        coalesce_streams=True,
        # It warns at every start that its sockets on this machine are not encrypted.
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )


def report(root: Path, jobs: int | None = None) -> None:
    """Execute the pages and print how long it took."""
    start = time.perf_counter()
    runs = execute_pages(root, jobs)
    fresh = [run for run in runs if run.seconds]
    print(
        f"{len(runs)} pages: {len(fresh)} executed, {len(runs) - len(fresh)} unchanged, "
        f"in {time.perf_counter() - start:.1f} s"
    )

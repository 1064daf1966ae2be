"""Execute the pages of the book side by side and keep their outputs in jupyter-cache."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.cache.main import JupyterCacheBase
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from evidence_book.pages import cache_folder, find_pages, read_page, set_kernel_environment

CELL_TIMEOUT_SECONDS = 300


class ExecutionError(RuntimeError):
    """A cell of a page failed; the message holds the page and the traceback."""


@dataclass(frozen=True)
class Execution:
    """How one page was executed: seconds it took, 0 where its outputs were kept already."""

    page: Path
    seconds: float


def match_pages_by_code_alone() -> None:
    """Make jupyter-cache match a page by its code, and leave captions and alt texts to the page.

    Left alone it hashes all cell metadata: an edited caption would execute the page again.
    """
    if getattr(JupyterCacheBase, "matches_by_code_alone", False):
        return
    hashed, merge = (
        JupyterCacheBase.create_hashed_notebook,
        JupyterCacheBase.merge_match_into_notebook,
    )

    def create_hashed_notebook(
        self: JupyterCacheBase, nb: nbformat.NotebookNode, **kwargs: object
    ) -> tuple[nbformat.NotebookNode, str]:
        return hashed(self, nb, **{"cell_metadata": ("tags",), **kwargs})

    def merge_match_into_notebook(
        self: JupyterCacheBase, nb: nbformat.NotebookNode, **kwargs: object
    ) -> tuple[int, nbformat.NotebookNode]:
        return merge(self, nb, **{"cell_meta": (), **kwargs})

    JupyterCacheBase.create_hashed_notebook = create_hashed_notebook
    JupyterCacheBase.merge_match_into_notebook = merge_match_into_notebook
    JupyterCacheBase.matches_by_code_alone = True


def open_cache(root: Path) -> JupyterCacheAbstract:
    """Open the cache of the present helper code, and drop the caches of all older code."""
    match_pages_by_code_alone()
    folder = cache_folder(root)
    for old in folder.parent.glob("*"):
        if old != folder:
            shutil.rmtree(old)
    return get_cache(folder)


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
        If a cell of any page fails; the other pages are executed and kept all the same.
    """
    set_kernel_environment()
    jobs = os.cpu_count() or 1 if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}; 1 or more is accepted")
    cache = open_cache(root)
    pages = find_pages(root)
    seconds = dict.fromkeys(pages, 0.0)
    waiting = {page: read_page(page) for page in pages}
    waiting = {page: nb for page, nb in waiting.items() if not _is_cached(cache, nb)}
    failures = []

    def keep(page: Path, nb: nbformat.NotebookNode, taken: float) -> None:
        seconds[page] = taken
        bundle = CacheBundleIn(nb, page, data={"execution_seconds": taken})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        print(f"executed {page.relative_to(root)} in {taken:.1f} s", flush=True)

    async def run(page: Path, nb: nbformat.NotebookNode, slots: asyncio.Semaphore) -> None:
        async with slots:
            start = time.perf_counter()
            try:
                await _client(page, nb).async_execute()
            except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                failures.append(f"{page.relative_to(root)} failed:\n{error}")
            else:
                keep(page, nb, time.perf_counter() - start)

    async def run_all() -> None:
        slots = asyncio.Semaphore(jobs)
        await asyncio.gather(*(run(page, nb, slots) for page, nb in waiting.items()))

    asyncio.run(run_all())
    if failures:
        raise ExecutionError("\n\n".join(failures))
    return [Execution(page, seconds[page]) for page in pages]


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
        timeout=CELL_TIMEOUT_SECONDS,
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

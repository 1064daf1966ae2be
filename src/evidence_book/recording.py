"""nbval, with its executions kept: what it ran and compared is what the build renders.

`notebooks/conftest.py` puts these classes in place of nbval's own. Each notebook that nbval has
executed from its first cell to its last, without an error, is kept as `execution.execute_pages`
keeps a page, so a build that follows has nothing left to execute.
"""

from __future__ import annotations

import contextlib
import copy
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete
from nbval import plugin
from nbval.kernel import RunningKernel

from evidence_book.execution import ExecutionError, keep_outputs
from evidence_book.pages import page_of

__all__ = ["record_executions"]


class Recording:
    """The outputs of a notebook, made from a kernel's messages as nbclient makes them.

    Parameters
    ----------
    notebook : NotebookNode
        What is executed. It is copied; outputs that it holds are not kept.
    """

    def __init__(self, notebook: nbformat.NotebookNode) -> None:
        self.notebook = copy.deepcopy(notebook)
        self.cells = [
            (index, cell)
            for index, cell in enumerate(self.notebook.cells)
            if cell.cell_type == "code"
        ]
        for _, cell in self.cells:
            cell.outputs, cell.execution_count = [], None
        self.client = NotebookClient(self.notebook, record_timing=False)
        self.started = time.perf_counter()
        self.begun = self.ended = 0
        self.request = ""

    def begin(self, source: str, request: str) -> None:
        """Note that the next cell is executed, by the request of this identifier."""
        _, cell = self.cells[self.begun]
        if cell.source == source:  # Otherwise only some cells are run: nothing will be whole.
            self.begun += 1
        self.request = request
        self.client.clear_before_next_output = False  # as nbclient does before each cell

    def take(self, message: dict[str, Any]) -> None:
        """Add a message of the kernel to the outputs of the cell that it is about."""
        if message["parent_header"].get("msg_id") != self.request:
            return
        index, cell = self.cells[self.begun - 1]
        try:
            self.client.process_message(message, cell, index)
        except CellExecutionComplete:
            self.ended += 1
            cell.outputs = plugin.coalesce_streams(cell.outputs)

    def is_whole(self) -> bool:
        """Tell whether all cells have run to their end, without an error that was not expected."""
        return self.begun == self.ended == len(self.cells) and not any(
            output.output_type == "error"
            and "raises-exception" not in cell.metadata.get("tags", [])
            for _, cell in self.cells
            for output in cell.outputs
        )

    def finish(self, language_info: dict[str, Any]) -> tuple[nbformat.NotebookNode, float]:
        """Return the executed notebook, with the state of its widgets, and seconds that it took."""
        self.client.set_widgets_metadata()
        self.notebook.metadata["language_info"] = language_info
        return self.notebook, time.perf_counter() - self.started


class RecordingKernel(RunningKernel):
    """A kernel of nbval that shows a `Recording` what it is asked and what it answers."""

    recording: Recording | None = None

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> str:
        """Execute a cell, counted as a reader's Jupyter counts it."""
        request = self.kc.execute(
            cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False
        )
        if self.recording:
            self.recording.begin(cell_input, request)
        return request

    def get_message(self, stream: str, timeout: float | None = None) -> dict[str, Any]:
        """Return the next message of a stream."""
        message = super().get_message(stream, timeout)
        if self.recording and stream == "iopub":
            self.recording.take(message)
        return message


def record_executions() -> None:
    """Have nbval keep the outputs of each notebook that it executes as a whole.

    Its classes name themselves when they call their base class, so they are changed in place.
    """
    start, stop = plugin.IPyNbFile.setup, plugin.IPyNbFile.teardown

    def setup(self: plugin.IPyNbFile) -> None:
        start(self)
        self.kernel.recording = Recording(self.nb)

    def teardown(self: plugin.IPyNbFile) -> None:
        if self.kernel is not None and self.kernel.is_alive():
            _keep(self)
        stop(self)

    plugin.RunningKernel = RecordingKernel
    plugin.IPyNbFile.setup, plugin.IPyNbFile.teardown = setup, teardown


def _keep(file: plugin.IPyNbFile) -> None:
    recording, file.kernel.recording = file.kernel.recording, None
    if not recording.is_whole():
        return
    reply = file.kernel.kc.kernel_info(reply=True, timeout=60)
    notebook, seconds = recording.finish(reply["content"]["language_info"])
    root = Path(file.config.rootpath)
    # What may not be kept, the build executes again, and says why it refuses it.
    with contextlib.suppress(ExecutionError):
        keep_outputs(root, page_of(file.path, root), notebook, seconds)

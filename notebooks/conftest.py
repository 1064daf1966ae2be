"""How nbval runs the notebooks: the environment of kernels, what is compared, what is kept."""

import pytest

from evidence.held_claim import MIME_TYPE
from evidence_book.execution import longest_first, prepare_kernels
from evidence_book.pages import cell_timeout, find_pages, notebook_of
from evidence_book.recording import record_executions


def pytest_configure(config):
    record_executions()
    if hasattr(config, "workerinput"):  # of several processes, the first has done the rest
        config.notebooks = config.workerinput["notebooks"]
        return
    root = config.rootpath
    pages = find_pages(root)
    prepare_kernels(root, pages)
    config.notebooks = [str(notebook_of(page, root)) for page in longest_first(root, pages)]
    given = (str(argument) for argument in config.invocation_params.args)
    if not any(argument.startswith("--nbval-cell-timeout") for argument in given):
        config.option.nbval_cell_timeout = cell_timeout()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    # All processes must have one order.
    node.workerinput["notebooks"] = node.config.notebooks


def pytest_collection_modifyitems(config, items):
    places = {name: place for place, name in enumerate(config.notebooks)}
    items.sort(key=lambda item: places.get(str(item.path), len(places)))


def pytest_collectstart(collector):
    # A claim's own figures differ between processors in their last digits. Its verdict, in the
    # text of the same output, is compared.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += (MIME_TYPE, "text/markdown")

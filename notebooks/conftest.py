"""How nbval runs the notebooks: the environment of kernels, what is compared, what is kept."""

from evidence.held_claim import MIME_TYPE
from evidence_book.execution import longest_first, prepare_kernels
from evidence_book.pages import cell_timeout, find_pages, page_of
from evidence_book.recording import record_executions


def pytest_configure(config):
    record_executions()
    if hasattr(config, "workerinput"):  # of several processes, the first has done the rest
        return
    prepare_kernels(config.rootpath, find_pages(config.rootpath))
    given = (str(argument) for argument in config.invocation_params.args)
    if not any(argument.startswith("--nbval-cell-timeout") for argument in given):
        config.option.nbval_cell_timeout = cell_timeout()


def pytest_collection_modifyitems(config, items):
    root = config.rootpath
    pages = longest_first(root, {page_of(item.path, root) for item in items})
    items.sort(key=lambda item: pages.index(page_of(item.path, root)))


def pytest_collectstart(collector):
    # A claim's own figures differ between processors in their last digits. Its verdict, in the
    # text of the same output, is compared.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += (MIME_TYPE, "text/markdown")

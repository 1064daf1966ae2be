"""What nbval leaves uncompared in the notebooks, and the environment of their kernels."""

from evidence.held_claim import MIME_TYPE
from evidence_book.pages import set_kernel_environment


def pytest_configure(config):
    set_kernel_environment()


def pytest_collectstart(collector):
    # A claim's own figures differ between processors in their last digits. Its verdict, in the
    # text of the same output, is compared.
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += (MIME_TYPE, "text/markdown")

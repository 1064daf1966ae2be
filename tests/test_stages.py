"""The stages of `make test`: in order, to the first failure, with a table of their seconds."""

import re
import shutil
import subprocess
import sys

import pytest
from small_book import SmallBook

from evidence_book.stages import table

MAKEFILE = """
lint unit nbval browser:
	@echo making $@ $(BUILT)
build:
	@echo making $@ $(BUILT)
	@$(FAIL)
"""
STAGES = ["lint", "build", "browser"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def run(tmp_path, makefile, *stages):
    book = SmallBook(tmp_path, {})
    book.write("Makefile", makefile)
    return subprocess.run(
        [sys.executable, "-m", "evidence_book", "stages", *stages],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip


@needs_make
def test_all_stages_run_in_order_and_their_seconds_come_last(tmp_path):
    # (Without the name of the browser's stage, for which a browser would be looked for.)
    done = run(tmp_path, MAKEFILE, "lint", "unit", "build", "nbval")
    assert done.returncode == 0, done.stderr
    said, end = done.stdout.split("\n\n")
    # The stages after the build are told that there is one.
    assert said.splitlines() == ["making lint", "making unit", "making build", "making nbval 1"]
    rows = [line.split() for line in end.splitlines()]
    assert [row[0] for row in rows] == ["stage", "lint", "unit", "build", "nbval", "all"]
    assert float(rows[-1][1]) == pytest.approx(sum(float(row[1]) for row in rows[1:-1]), abs=0.3)


@needs_make
def test_a_failure_ends_it_and_the_table_comes_all_the_same(tmp_path):
    done = run(tmp_path, MAKEFILE.replace("$(FAIL)", "false"), "lint", "build", "nbval")
    assert done.returncode != 0
    assert "making nbval" not in done.stdout
    rows = done.stdout.split("\n\n")[1].splitlines()
    assert rows[1].startswith("lint ")
    assert re.fullmatch(r"build +\d+\.\d  failed", rows[2])
    assert re.fullmatch(r"nbval +-  not run", rows[3])


def test_the_table_says_what_failed_and_what_did_not_run():
    assert table(STAGES, {"lint": 1.26, "build": 100}, 2).splitlines() == [
        "",
        "stage    seconds",
        "lint         1.3",
        "build      100.0  failed",
        "browser        -  not run",
        "all        101.3",
    ]
    assert "failed" not in table(STAGES, dict.fromkeys(STAGES, 1.0), 0)

"""Whether a timing is to be believed: the rule, on made-up figures; and `make bench` in small."""

import importlib.util
import subprocess
import sys

import pytest
from small_book import REPO


@pytest.fixture(scope="module")
def quietness():
    path = REPO / "benchmarks" / "quietness.py"
    spec = importlib.util.spec_from_file_location("quietness", path)
    module = importlib.util.module_from_spec(spec)
    # Where a dataclass looks for its module.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def load(quietness, cores, others):
    """Ten seconds in which this process took a core and a half."""
    return quietness.Load(cores, seconds=10.0, busy=15.0 + 10 * others, own=15.0)


@pytest.mark.parametrize(
    ("cores", "others", "threads", "is_believed"),
    [
        (2, 0.0, 2, True),
        (2, 0.19, 2, True),
        (2, 0.21, 2, False),
        (2, 1.0, 1, True),  # the other core is free
        (2, 1.2, 1, False),
        (2, 3.0, 2, False),
        (16, 6.0, 8, True),
        (16, 10.0, 8, False),
    ],
)
def test_others_may_take_what_is_left_over(quietness, cores, others, threads, is_believed):
    found = quietness.doubts(load(quietness, cores, others), threads)
    assert (found == []) is is_believed
    if not is_believed:
        assert f"other work took {others:.2f} of {cores} cores" in found[0]


def test_equal_parts_that_take_unequal_times_are_not_believed(quietness):
    quiet = load(quietness, 2, 0.0)
    steady, restless = [1.0, 1.1, 1.2, 9.0, 1.0], [1.0, 1.4, 1.3, 1.5, 1.2]
    assert quietness.doubts(quiet, 2, [steady]) == []
    (found,) = quietness.doubts(quiet, 2, [steady, restless])
    assert "1.30 of the least" in found


def test_what_is_not_believed_is_marked_line_by_line(quietness):
    table = "a  1\nb  2"
    assert quietness.marked(table, load(quietness, 2, 0.03), 2) == (
        "a  1\nb  2\n(Other work took 0.03 of 2 cores meanwhile.)"
    )
    assert quietness.marked(table, load(quietness, 2, 0.87), 2) == (
        "? a  1\n? b  2\nNOT BELIEVABLE: other work took 0.87 of 2 cores, which leaves 1.13 for "
        "2 threads. Run it again on a quiet machine."
    )


def test_the_work_of_others_is_what_is_not_one_s_own(quietness, monkeypatch):
    times = iter([(100.0, 50.0, 7.0), (110.0, 68.0, 22.0)])
    monkeypatch.setattr(quietness, "clocks", lambda: next(times))
    monkeypatch.setattr(quietness, "cores", lambda: [0, 1])
    with quietness.watched() as watch:
        pass
    assert (watch.cores, watch.seconds, watch.busy, watch.own) == (2, 10.0, 18.0, 15.0)
    assert watch.others == pytest.approx(0.3)


def test_the_clocks_count_the_cores_of_this_process_alone(quietness, monkeypatch):
    class Times(dict):
        _asdict = dict.copy

    core = Times(user=5.0, system=2.0, steal=1.0, idle=100.0, iowait=3.0, guest=4.0)
    monkeypatch.setattr(quietness, "cores", lambda: [1])
    monkeypatch.setattr(
        quietness.psutil, "cpu_times", lambda percpu: [Times(user=99.0), core, Times(user=99.0)]
    )
    assert quietness.clocks()[1] == 8.0


def test_the_benchmark_runs_and_says_whether_to_believe_it():
    done = subprocess.run(
        [sys.executable, REPO / "benchmarks" / "training_speed.py", "--only", "training",
         "--source", "sample", "--digits", "256", "--epochs", "1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "this book, float32" in done.stdout
    assert ("NOT BELIEVABLE: " in done.stdout) != ("cores meanwhile.)" in done.stdout)


def test_nothing_in_the_makefile_slows_the_benchmark_down():
    # It halves what a small training loop reaches on quiet cores.
    assert "OMP_WAIT_POLICY" not in (REPO / "Makefile").read_text(encoding="utf-8")

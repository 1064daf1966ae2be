"""What README.md says is so: its commands, settings and paths exist, and are tried by some test."""

import ast
import functools
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig

import pytest
import yaml
from small_book import REPO

README = (REPO / "README.md").read_text(encoding="utf-8")
MAKEFILE = (REPO / "Makefile").read_text(encoding="utf-8")
SETTING_BEFORE = re.compile(r"\w+=")
SETTING = re.compile(r"\bEVIDENCE_[A-Z]+\b")
# Where what a target does is run: a test, or a stage of `make test`.
TRIED_BY = {
    "bench": "tests/test_quietness.py::test_the_benchmark_runs_and_says_whether_to_believe_it",
    "book": "build",
    "browser": "make test",
    "budget": "tests/test_budget.py",
    "build": "make test",
    "clean": "tests/test_readme.py::test_clean_removes_what_was_built_and_nothing_else",
    "fonts": "tests/test_fonts.py",
    "format": "tests/test_readme.py::test_format_mends_what_lint_finds_but_in_environments",
    "help": "tests/test_readme.py::test_help_lists_every_command_of_the_readme",
    "lab": "tests/test_live_lab_browser.py",
    "lint": "make test",
    "lock": "tests/test_build.py::test_lock_leaves_cuda_out_and_keeps_what_fits",
    "models": "tests/test_shared_models.py",
    "mutants": "tests/test_mutations.py",
    "nbval": "make test",
    "notebooks": "tests/test_pairing.py",
    "serve": "tests/test_build.py::"
    "test_serving_goes_on_after_a_failed_build_and_shows_what_is_saved",
    "test": "tests/test_stages.py::test_all_stages_run_in_order_and_their_seconds_come_last",
    "unit": "make test",
}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def targets(text):
    return set(re.findall(r"(?:^ *|`)make ([a-z]+)", text, re.MULTILINE))


def section(title):
    return README.partition(f"\n{title}\n")[2].partition("\n#")[0]


def make(*arguments, folder=REPO):
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands(*arguments):
    """What `make` would run in a fresh checkout, without the folder of the environment."""
    lines = make("--dry-run", "VENV=absent", *arguments).splitlines()
    # A look at the version of Python, and the mark of a finished installation, are make's own.
    own = ("python3 -c", "touch ")
    return [line.strip().replace("absent/bin/", "") for line in lines if not line.startswith(own)]


@functools.cache
def commands_of_the_book():
    done = subprocess.run(
        [sys.executable, "-m", "evidence_book", "--help"], capture_output=True, text=True
    )
    return re.search(r"\{(.+?)\}", done.stdout)[1].split(",")


# --- commands -------------------------------------------------------------------------------------


def test_every_command_of_the_readme_has_a_recipe_a_word_of_help_and_a_test():
    named = targets(README)
    assert len(named) > 15
    helped = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, re.MULTILINE))
    assert named == helped
    assert named == set(TRIED_BY)


@pytest.mark.parametrize("target", sorted(TRIED_BY))
def test_what_is_said_to_try_a_command_exists(target):
    place, _, name = TRIED_BY[target].partition("::")
    if place.startswith("tests/"):
        text = (REPO / place).read_text(encoding="utf-8")
        assert f"def {name or 'test_'}" in text
    elif place == "make test":
        (stages,) = re.findall(r"evidence_book stages .*", MAKEFILE)
        assert target in stages.split()
    else:
        assert re.search(rf"^{target}: {place} ", MAKEFILE, re.MULTILINE)


@needs_make
def test_help_lists_every_command_of_the_readme():
    assert targets(make("help")) == targets(README)


@needs_make
@pytest.mark.parametrize("target", sorted(TRIED_BY))
def test_what_make_runs_are_commands_that_there_are(target):
    for line in commands(target):
        program, *arguments = itertools.dropwhile(SETTING_BEFORE.match, shlex.split(line))
        if arguments[:2] == ["-m", "evidence_book"]:
            assert arguments[2] in commands_of_the_book()
        elif arguments and arguments[0].endswith(".py"):
            assert (REPO / arguments[0]).is_file()
        else:
            folders = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
            assert shutil.which(program, path=folders), line


@needs_make
def test_without_make_the_same_is_run():
    (block,) = re.findall(r"```\n(.*?)```", section("### Without make"), re.DOTALL)
    said = [line.partition("#")[0].strip() for line in block.splitlines()]
    said = [part for line in said for part in line.split(" && ") if part]
    said.remove(". .venv/bin/activate")
    environment = commands("absent/.installed")
    environment[0] = environment[0].replace("absent", ".venv")
    environment = [line.removeprefix("python -m ").replace(" --quiet", "") for line in environment]
    run = commands("lint", "unit", "nbval", "browser", "BUILT=1")[len(environment) :]
    build = commands("build")[len(environment) :]
    assert said == [*environment, *build, *run]


@needs_make
def test_another_port_and_another_environment_are_passed_on():
    assert commands("serve", "PORT=8001")[-1].endswith("evidence_book serve --port 8001")
    assert "python3.12 -m venv elsewhere" in make(
        "-n", "book", "PYTHON=python3.12", "VENV=elsewhere"
    )


@needs_make
def test_an_environment_of_another_python_than_asked_for_is_not_taken(tmp_path):
    shutil.copy(REPO / "Makefile", tmp_path)
    for name, number in (("venv/bin/python", "3.11.7"), ("python3.12", "3.12.1")):
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\necho Python {number}\n")
        program.chmod(0o755)
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()

    def lint(*arguments):
        command = ["make", "-n", "VENV=venv", "lint", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    refused = lint(f"PYTHON={program}")
    assert refused.returncode != 0
    assert "is Python 3.12.1, but the environment venv has Python 3.11.7" in refused.stderr
    # Where none is asked for, the one that is there is taken; and that one may be asked for.
    assert lint().returncode == 0
    assert lint(f"PYTHON={tmp_path / 'venv/bin/python'}").returncode == 0


@needs_make
def test_clean_removes_what_was_built_and_nothing_else(tmp_path):
    shutil.copy(REPO / "Makefile", tmp_path)
    for name in ("_build/html", ".venv/bin", "mutants", "book", ".venv-other"):
        (tmp_path / name).mkdir(parents=True)
    make("clean", folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", "book", ".venv-other"}


def test_format_mends_what_lint_finds_but_in_environments(tmp_path):
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    untidy = 'import os\nx = {  "a":1 }\n'
    names = ("mine.py", ".venv312/theirs.py", "_build/made.py", "mutants/broken.py")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(untidy)

    def run(*arguments):
        command = [sys.executable, "-m", "ruff", *arguments, "."]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert run("check").returncode == 1
    assert run("format", "--check").returncode == 1
    # (The module has no docstring, which nothing can mend.)
    assert run("check", "--fix").returncode == 1
    run("format")
    mine, *others = ((tmp_path / name).read_text() for name in names)
    assert mine == 'x = {"a": 1}\n'
    assert set(others) == {untidy}
    (tmp_path / "mine.py").unlink()
    assert run("check").returncode == 0


# --- settings -------------------------------------------------------------------------------------


def settings_in(folder):
    """The settings that Python files name in strings of their own: not in words about them."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if SETTING.search(text):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Constant) and SETTING.fullmatch(str(node.value)):
                    yield node.value


def test_every_setting_is_in_the_readme_is_read_and_has_a_test():
    read, tried = set(settings_in(REPO / "src")), set(settings_in(REPO / "tests"))
    assert len(read) >= 5
    assert set(SETTING.findall(README)) == read
    assert read <= tried


# --- places ---------------------------------------------------------------------------------------


def test_every_place_named_in_the_readme_exists():
    table = section("## Where things are")
    folders = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(folders) >= 7
    for name in folders:
        assert (REPO / name).is_dir(), name
    files = re.findall(r"`([\w./-]+\.(?:md|py|txt|toml|in|yml))`", README)
    assert {"CONTRIBUTING.md", "LICENSE-TEXT.md", "requirements.txt"} <= set(files)
    for name in files:
        assert any((folder / name).is_file() for folder in (REPO, REPO / "benchmarks")), name


def test_the_readme_names_the_versions_of_the_lock():
    (torch,) = re.findall(r"^torch==(\S+)$", (REPO / "requirements.txt").read_text(), re.MULTILINE)
    assert set(re.findall(r"torch==([\d.]+\d)", README)) == {torch}


# --- the workflow on GitHub -----------------------------------------------------------------------


def test_the_workflow_runs_commands_that_there_are():
    workflow = yaml.safe_load((REPO / ".github/workflows/book.yml").read_text(encoding="utf-8"))
    jobs = workflow["jobs"]
    run = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {name for text in run for name in targets(text)} <= targets(README)
    assert "make test PYTHON=python" in run
    for job in jobs.values():
        assert set(job.get("needs", "").split()) <= set(jobs)
        assert 0 < job["timeout-minutes"] <= 120

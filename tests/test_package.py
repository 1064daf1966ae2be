"""The package as somebody else installs it: a wheel that is whole and declares what it needs."""

import ast
import email
import fnmatch
import functools
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_book import REPO

# Compared with in `make bench` if they are there.
OPTIONAL = {"pyro", "pythae"}
WHAT_MAKES_A_BOOK = ("book", "notebooks", "src", "tests", "benchmarks", "results", ".github", ".ci")
BESIDE_IT = ("Makefile", "_config.yml", "_toc.yml", "jupytext.toml", "requirements.txt")
LICENCES = ("LICENSE", "LICENSE-TEXT.md")


def files_below(folder):
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    # Of a build in that folder.
    return {name for name in found if ".egg-info/" not in name}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The sources as in an archive of them: what git ignores is not there, and there is no git."""
    ignored = (REPO / ".gitignore").read_text(encoding="utf-8").split()
    patterns = [".git", *(pattern.rstrip("/") for pattern in ignored)]
    copy = tmp_path_factory.mktemp("archive") / "sources"
    shutil.copytree(
        REPO, copy, ignore=lambda _, names: {n for p in patterns for n in fnmatch.filter(names, p)}
    )
    return copy


@pytest.fixture(scope="module")
def built(sources):
    """The folder of the source archive and of the wheel, which is made from that archive."""
    command = [
        sys.executable, "-m", "uv", "build", "--offline", "--no-cache", "--no-build-isolation",
        "--python", sys.executable, "--out-dir", sources.parent / "dist", sources,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sources.parent / "dist"


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def requirements(wheel, *extras):
    """What the wheel asks for: its dependencies, or those of extras alone."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    asked = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    if not extras:
        return [one for one in asked if "extra" not in str(one.marker)]
    return [one for one in asked if str(one.marker) in {f'extra == "{extra}"' for extra in extras}]


def names(asked):
    return {canonicalize_name(one.name) for one in asked}


def imported_modules(folder):
    """The top-level modules that Python files import, or whose files they read."""
    found = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("files"):
                found.update(one.value for one in node.args if isinstance(one, ast.Constant))
    return {name.partition(".")[0] for name in found}


packages_of_modules = functools.cache(importlib.metadata.packages_distributions)


def imported_packages(folder):
    """Of each module of others that is imported: the packages it may come from."""
    own = {"evidence", "evidence_book", *(path.stem for path in folder.rglob("*.py"))}
    modules = imported_modules(folder) - own - OPTIONAL - sys.stdlib_module_names
    providers = packages_of_modules()
    return {module: {canonicalize_name(one) for one in providers[module]} for module in modules}


def test_the_wheel_holds_every_file_of_the_packages(sources, wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == files_below(sources / "src")
    assert {"evidence/live/shared.js", "evidence_book/templates/layout.html"} <= held


def test_the_source_archive_holds_the_whole_book(sources, built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for folder in WHAT_MAKES_A_BOOK:
        missing = {f"{folder}/{name}" for name in files_below(sources / folder)} - held
        assert not missing
    assert set(BESIDE_IT + LICENCES) <= held


def test_evidence_declares_what_it_imports_and_nothing_else(sources, wheel):
    declared = names(requirements(wheel))
    imported = imported_packages(sources / "src" / "evidence")
    assert len(imported) > 10
    assert {module for module, packages in imported.items() if not packages & declared} == set()
    assert declared <= set().union(*imported.values())


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("src/evidence_book", ["book"]),
        ("tests", ["book", "dev"]),
        ("benchmarks", ["dev"]),
    ],
)
def test_the_extras_declare_what_the_book_and_its_checks_import(sources, wheel, folder, extras):
    declared = names(requirements(wheel)) | names(requirements(wheel, *extras))
    imported = imported_packages(sources / folder)
    assert {module for module, packages in imported.items() if not packages & declared} == set()


def test_a_reader_is_bound_to_no_exact_version(wheel):
    for one in requirements(wheel):
        assert {each.operator for each in one.specifier} <= {">="}, one
        assert one.specifier.contains(importlib.metadata.version(one.name))


# --- in an environment of the reader's own --------------------------------------------------------


def with_all_they_need(asked):
    """Packages with what they need in their turn, as installed here."""
    found, waiting = set(), [canonicalize_name(one.name) for one in asked]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            needed = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [
                canonicalize_name(one.name)
                for one in needed
                if one.marker is None or one.marker.evaluate({"extra": ""})
            ]
    return found


@pytest.fixture(scope="module")
def bare_python(wheel, tmp_path_factory):
    """The Python of an environment with the wheel, and with what it declares: nothing else."""
    folder = tmp_path_factory.mktemp("reader")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (python,) = (folder / "venv").glob("*/python") or (folder / "venv").glob("*/python.exe")
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-cache",
         "--no-deps", "--python", python, wheel], check=True,
    )  # fmt: skip
    # Links to the files of this environment, which spare a second torch.
    declared = folder / "declared"
    declared.mkdir()
    for name in with_all_they_need(requirements(wheel)):
        package = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            link = declared / top
            if not link.exists():
                link.symlink_to(package.locate_file(top))
    (site,) = (folder / "venv").rglob("site-packages")
    (site / "declared.pth").write_text(f"{declared}\n")
    return python


def run(python, code, folder):
    command = [python, "-I", "-W", "error::ImportWarning", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_s_lines_and_every_module_run_in_a_reader_s_environment(
    bare_python, sources, tmp_path
):
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Use the package in your own project")[2]
    (lines,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    code = [line for line in lines.splitlines() if line and not line.startswith(("import", "from"))]
    assert len(code) == 5
    checks = """
import evidence, importlib, math, pathlib, pkgutil, sys
assert pathlib.Path(evidence.__file__).is_relative_to(sys.prefix), evidence.__file__
assert history.loss[-1] < history.loss[0], history.loss
# Better than without knowing anything about 64 pixels.
assert -64 * math.log(2) < log_p_x.mean < 0, log_p_x.mean
assert samples.shape == (16, 64)
assert set(samples.unique().tolist()) <= {0.0, 1.0}
modules = [module.name for module in pkgutil.walk_packages(evidence.__path__, "evidence.")]
for name in modules:
    importlib.import_module(name)
print(len(modules))
"""
    # All modules but the package itself.
    expected = len(list((sources / "src" / "evidence").rglob("*.py"))) - 1
    assert int(run(bare_python, lines + checks, tmp_path)) == expected > 20


def test_what_is_not_declared_cannot_be_imported_there(bare_python, tmp_path):
    code = "from importlib.util import find_spec; print(*map(find_spec, ('sphinx', 'pytest')))"
    assert run(bare_python, code, tmp_path).strip() == "None None"

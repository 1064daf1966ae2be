"""Commands of the book's build: ``python -m evidence_book --help``."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

# jsonschema imports this package, where it is installed, to check a kind of address that no
# notebook holds; building its grammar would take two seconds of every command.
sys.modules["rfc3987_syntax"] = None

from sphinx_external_toc.parsing import MalformedError  # noqa: E402

from evidence.storage import make_settings_absolute  # noqa: E402
from evidence_book import checks, execution, locking, models, pairing, stages  # noqa: E402
from evidence_book.pages import PageError, find_pages  # noqa: E402


def build(root: Path) -> int:
    """Build the HTML strictly: any warning fails, all of them are shown."""
    from jupyter_book.cli.main import build as jupyter_book_build

    # It asks every object in memory what it is, deprecated names of torch among them.
    warnings.filterwarnings("ignore", category=FutureWarning, module="sphinx_external_toc")
    try:
        jupyter_book_build.main(
            [str(root), "-q", "-W", "-n", "--keep-going"], standalone_mode=False
        )
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1  # a key of the user stopped it
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The book is built: open {root / '_build' / 'html' / 'index.html'}")
    return 0


def at_least_one(text: str) -> int:
    """Read a number of kernels from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is given, 1 or more is accepted")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m evidence_book", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    jobs = argparse.ArgumentParser(add_help=False)
    jobs.add_argument("--jobs", type=at_least_one, help="kernels at once (default: one a core)")
    commands.add_parser(
        "models", parents=[jobs], help="train the models that pages share, and go on if stopped"
    )
    commands.add_parser(
        "execute", parents=[jobs], help="execute the pages that changed, in parallel"
    )
    whole = commands.add_parser(
        "build", parents=[jobs], help="execute, then build the HTML with every check on"
    )
    whole.add_argument(
        "--browser", action="store_true", help="stop at once where what follows has no Chromium"
    )
    notebooks = commands.add_parser(
        "notebooks", help="write the paired notebooks from the executed pages"
    )
    notebooks.add_argument(
        "--keep", choices=["page", "notebook"],
        help="what counts where a notebook was edited and its page says something else",
    )  # fmt: skip
    commands.add_parser(
        "lab", help="open the notebooks in JupyterLab, paired with the pages; takes its options"
    )
    commands.add_parser("check-pairs", help="compare the notebooks with their pages")
    serve = commands.add_parser("serve", help="build and serve; rebuild on every save")
    serve.add_argument("--port", type=int, default=8000, help="port on this machine (%(default)s)")
    commands.add_parser("budget", help="measure what each built page costs its reader")
    commands.add_parser("fonts", help="make the book's fonts again from their pinned packages")
    lock = commands.add_parser("lock", help="write requirements.txt from pyproject.toml")
    lock.add_argument("--upgrade", action="store_true", help="take the newest versions of all")
    in_order = commands.add_parser("stages", help="make targets in order and print their seconds")
    in_order.add_argument("--make", default="make", help="the command (%(default)s)")
    in_order.add_argument("targets", nargs="+", help="of the Makefile")
    options, others = parser.parse_known_args(arguments)
    if others and options.command != "lab":
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    make_settings_absolute()
    root = Path.cwd()
    if not (root / "_toc.yml").exists():
        parser.error(f"there is no _toc.yml in {root}; run this in the book's top folder")
    try:
        check_before(root, options)
        return run(root, options, others)
    except (
        checks.NotReadyError,
        execution.ExecutionError,
        locking.LockError,
        MalformedError,
        models.ModelError,
        PageError,
        pairing.EditedNotebookError,
    ) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130


def check_before(root: Path, options: argparse.Namespace) -> None:
    """Look for what the command needs, before it starts to work."""
    command = options.command
    targets = getattr(options, "targets", ())
    builds = command in ("build", "serve") or "build" in targets
    if builds or command in ("execute", "notebooks"):
        checks.check_writable(root / "_build")
    if builds or command in ("execute", "notebooks", "models"):
        checks.check_data(is_tested=bool(targets))
    if builds:
        checks.check_configuration(root)
    if command == "notebooks":
        checks.check_writable(root / "notebooks")
    if command == "lock":
        checks.check_writable(root)
    if "browser" in targets or getattr(options, "browser", False):
        checks.check_browser()


def run(root: Path, options: argparse.Namespace, others: list[str]) -> int:
    """Run the command that was asked for in the book's top folder; return its exit status.

    `others` are arguments for the program that the command starts.
    """
    if options.command == "execute":
        with execution.only_build(root):
            execution.report(root, options.jobs)
    elif options.command == "build":
        with execution.only_build(root):
            execution.report(root, options.jobs)
            return build(root)
    elif options.command == "models":
        models.report(find_pages(root), options.jobs)
    elif options.command == "notebooks":
        with execution.only_build(root):
            for path in pairing.write_notebooks(root, options.keep):
                print(f"{'wrote' if path.exists() else 'removed'} {path.relative_to(root)}")
    elif options.command == "lab":
        from jupyterlab.labapp import LabApp

        pairing.keep_layout_of_pages()
        # The settings of the pairing are seen from the book's top folder, which is the root.
        hook = "--ContentsManager.pre_save_hook=evidence_book.pairing.note_saved_sources"
        LabApp.launch_instance(["--LabApp.default_url=/lab/tree/notebooks", hook, *others])
    elif options.command == "check-pairs":
        found = pairing.problems(root)
        print("\n".join(found) or "pages and notebooks agree")
        return int(bool(found))
    elif options.command == "serve":
        from evidence_book import serving

        serving.serve(root, options.port)
    elif options.command == "fonts":
        from evidence_book import fonts

        try:
            print("\n".join(f"wrote {path}" for path in fonts.make()))
        except fonts.FontsError as error:
            print(error, file=sys.stderr)
            return 1
    elif options.command == "budget":
        from evidence_book import budget

        try:
            print(budget.report(root))
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 1
    elif options.command == "stages":
        return stages.run_stages(options.make, options.targets)
    else:
        locking.lock(root, upgrade=options.upgrade)
        print("wrote requirements.txt")
    return 0


if __name__ == "__main__":
    sys.exit(main())

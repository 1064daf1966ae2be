"""Which modules of this package some code imports, and a hash of what they do.

Results are kept under such hashes: trained models by `evidence.model_store`, the outputs of pages
by the build of the book. What a module does is its code alone. An edited docstring or comment
changes no result, so it changes no hash.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["closure", "closure_hash", "imported_names"]

PACKAGE = Path(__file__).parent


def closure_hash(names: Iterable[str], package: Path | None = None) -> str:
    """Hash modules of a package together with all modules of it that they import.

    Parameters
    ----------
    names : iterable of str
        Names that an import may hold, as ``"evidence.training"``. Those that are not modules of
        the package, such as ``"torch"`` or ``"evidence.claims.exact"``, make no difference.
    package : Path
        The package's folder; by default that of `evidence`.

    Returns
    -------
    str
        SHA-256 in hexadecimal. Modules that are not imported, even through others, make no
        difference, and neither do docstrings and comments.
    """
    digest = hashlib.sha256()
    for name, code in closure(names, package).items():
        digest.update(f"{name}\0{code}\0".encode())
    return digest.hexdigest()


def closure(names: Iterable[str], package: Path | None = None) -> dict[str, str]:
    """Return the modules that some names lead to, directly or through others.

    Parameters
    ----------
    names, package
        As in `closure_hash`.

    Returns
    -------
    dict of str to str
        Names of modules, sorted, and a hash of each module's own code.

    Raises
    ------
    ValueError
        If a module of the package has a relative import.
    """
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        path = source_file(name, package)
        if name in found or path is None:  # None: a name imported from a module
            continue
        found[name], imports = _read(path, path.stat().st_mtime_ns, path.stat().st_size)
        # Importing a module runs the packages around it as well.
        waiting += [name.rpartition(".")[0], *imports]
    return dict(sorted(found.items()))


def source_file(name: str, package: Path | None = None) -> Path | None:
    """Return the file of a module of the package, None for any other name."""
    package = package or PACKAGE
    top, *rest = name.split(".")
    if top != package.name:
        return None
    path = package.joinpath(*rest)
    candidates = (path.with_suffix(".py") if rest else path, path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def imported_names(tree: ast.AST) -> list[str]:
    """Return the names of all modules that code may import, wherever in it the import stands.

    Of ``from a import b`` these are ``a`` and ``a.b``, which may be a module or not.

    Raises
    ------
    ValueError
        If an import is relative.
    """
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                raise ValueError(
                    f"expected an absolute import, got a relative one in line {node.lineno}"
                )
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


# Of each file only the present content is asked for; the stamps tell an edited one.
@functools.lru_cache(maxsize=512)
def _read(path: Path, modified: int, size: int) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(path.read_bytes())
    try:
        imports = tuple(imported_names(tree))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    _drop_docstrings(tree)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _drop_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        # A text that stands alone does nothing: docstrings, and those of constants.
        node.body = [statement for statement in body if not _is_bare_text(statement)]


def _is_bare_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )

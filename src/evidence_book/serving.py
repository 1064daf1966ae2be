"""Serve the built book on this machine while it is written, and rebuild it on every save."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import uvicorn
import watchfiles
from sphinx_autobuild.middleware import JavascriptInjectorMiddleware
from sphinx_autobuild.server import RebuildServer
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles

from evidence_book.checks import NotReadyError

HOST = "127.0.0.1"
LAST_PORT = 2**16 - 1
# What a build reads. Notebooks, the environment and what a build writes are none of it.
WATCHED = ("book", "src", "_config.yml", "_toc.yml", "requirements.txt")


class Rebuilder(RebuildServer):
    """Rebuild the book after every change of its sources, then have open pages load anew."""

    def __init__(self, root: Path) -> None:
        super().__init__([root / name for name in WATCHED], None, None)
        self.root = root

    async def watch(self) -> None:
        """Wait for changes for as long as the server runs."""
        # By polling: an editor that saves under a new name ends the watch of a single file.
        async for _ in watchfiles.awatch(*self.paths, force_polling=True):
            await asyncio.to_thread(rebuild, self.root)
            self.flag.set()


def rebuild(root: Path) -> int:
    """Build in a process of its own, so that changed code of the build counts; return its status.

    A failing build says why; what was built before is served on.
    """
    status = subprocess.run([sys.executable, "-m", "evidence_book", "build"], cwd=root).returncode
    print("built" if status == 0 else "the build failed, see above: mend it and save", flush=True)
    return status


def take_port(port: int) -> socket.socket:
    """Take a port of this machine before the book is built, for when it is.

    Raises
    ------
    NotReadyError
        If there is no such port, it is taken, or may not be used.
    """
    if not 1 <= port <= LAST_PORT:
        raise NotReadyError(f"PORT: expected a number from 1 to {LAST_PORT}, got {port}")
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise NotReadyError(
            f"PORT: expected a free port of this machine, got {port} ({error.strerror}); "
            f"choose another: make serve PORT={port % LAST_PORT + 1}"
        ) from None


def serve(root: Path, port: int) -> None:
    """Build, then serve the HTML at ``http://127.0.0.1:port`` until interrupted.

    Parameters
    ----------
    root : Path
        The folder of ``_toc.yml``.
    port : int
        A free port of this machine; nothing outside it can reach the server.

    Raises
    ------
    NotReadyError
        If the port cannot be taken; nothing is built then.
    """
    taken = take_port(port)
    html = root / "_build" / "html"
    html.mkdir(parents=True, exist_ok=True)
    rebuilder = Rebuilder(root)
    app = Starlette(
        routes=[
            WebSocketRoute("/websocket-reload", rebuilder),
            Mount("/", StaticFiles(directory=html, html=True)),
        ],
        middleware=[Middleware(JavascriptInjectorMiddleware, ws_url=f"{HOST}:{port}")],
        lifespan=rebuilder.lifespan,
    )
    rebuild(root)
    print(f"serving http://{HOST}:{port}, and rebuilding on every save; Ctrl-C ends it", flush=True)
    # Ctrl-C, which the server has seen by then and ended for.
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([taken])

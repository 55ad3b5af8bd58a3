"""The agent over HTTP: health and metrics on loopback, and the control socket that `fieldlab status` asks."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from edge.config import SHORTEST_TOKEN
from edge.gate import Gate
from fieldlab.errors import ConfigError, RefusedError
from fieldlab.secrets import hide, read_secret

log = structlog.get_logger()

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
Status = Callable[[], dict[str, Any]]


class _Server(uvicorn.Server):
    """uvicorn, without its own signal handlers: the agent has one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def application(status: Status, extra: Sequence[BaseRoute] = (), *, address: str = "", token: str = "") -> Starlette:
    """What an agent answers.

    On a loopback address only local names are answered, so that no web page of elsewhere can read through a
    person's browser (DNS rebinding). With a `token`, what comes over the network must bring it.
    """
    host = address.rpartition(":")[0]
    allowed = [*_LOCAL_NAMES] if host in ("", *_LOCAL_NAMES) else ["*"]
    return Starlette(
        routes=routes(status, extra),
        middleware=[Middleware(Gate, token=token), Middleware(TrustedHostMiddleware, allowed_hosts=allowed)],
    )


def routes(status: Status, extra: Sequence[BaseRoute] = ()) -> list[BaseRoute]:
    """The routes of an agent: its health, and `extra`. `status` may block; it runs in a thread."""

    async def now(_: Request) -> Response:
        found = msgspec.json.encode(await asyncio.to_thread(status)).decode()
        return Response(hide(found), media_type="application/json")

    async def healthy(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        found = await asyncio.to_thread(status)
        return PlainTextResponse("ready\n" if found["ready"] else "not ready\n", 200 if found["ready"] else 503)

    async def metrics(_: Request) -> Response:
        from edge.metrics import render  # noqa: PLC0415  whoever is never asked does without

        body, media_type = render(await asyncio.to_thread(status))
        return Response(body, media_type=media_type)

    return [
        Route("/status", now),
        Route("/healthz", healthy),
        Route("/readyz", ready),
        Route("/metrics", metrics),
        *extra,
    ]


def read_token(path: Path | None) -> str:
    """The token of the network, from its file; empty if there is none.

    Raises:
        ConfigError: if it cannot be read, is open to others, or too short.
    """
    token = read_secret(path) if path is not None else ""
    if path is not None and len(token) < SHORTEST_TOKEN:
        raise ConfigError(f"a token has at least {SHORTEST_TOKEN} characters: openssl rand -hex 32", file=path)
    return token


def listen(address: str) -> socket.socket:
    """A listening socket at `host:port`.

    Raises:
        RefusedError: if the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    try:
        family, _, _, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(64)
    except (OSError, ValueError) as e:
        raise RefusedError(f"[agent] http = {address!r} cannot be used: {e}; choose another port") from e
    return listener


def listen_locally(path: Path) -> socket.socket:
    """A listening Unix socket, mode 0600; a dead one at that path is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        # A Unix socket's path may have 107 bytes; a deep data folder is reached through its open directory.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)
    finally:
        os.umask(before)
    listener.listen(16)
    return listener


async def serve(app: Starlette, sockets: Sequence[socket.socket], stop: asyncio.Event) -> None:
    """Serve on every socket until `stop` is set."""
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1, ws="none"
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=list(sockets)))
    await asyncio.wait({running, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await running

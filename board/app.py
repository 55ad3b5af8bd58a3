"""The board's routes, to be mounted by the agent's web server.

Importing this raises ModuleNotFoundError where plotly, the chart library, is not installed.
"""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

import anyio.to_thread
import msgspec
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from board import assets, detail
from board.guard import Guard
from board.hub import ClosingError, Hub, Snapshot
from board.series import Charts
from fieldlab.model import SignalInfo
from ingest.stores.base import Reader, StoreError

assets.plotly_version()  # without it there is no board: importing this module says so
MAX_STREAMS = 32
_TICK = 1.0  # seconds between two signs of life


def routes(
    reader: Reader,
    status: Callable[[], Mapping[str, Any]],
    closing: Callable[[], bool] = lambda: False,
    *,
    hosts: Collection[str] = (),
) -> list[BaseRoute]:
    """The board: `/`, `/static/…`, `/api/…` and the event stream `/api/events`.

    Args:
        reader: the store to show; called in a thread, one call at a time.
        status: the agent's health as JSON can hold it; called in the same thread.
        closing: becomes true when the server stops: no reading starts any more, and the event streams end within a
            second, after a reading under way. Without it an open page would keep a stopping server waiting.
        hosts: names that the Host header may hold besides loopback ones.
    """
    board = _Board(Hub(reader, status, closing), closing)
    guard = [Middleware(Guard, hosts=hosts)]
    return [
        Route("/", board.page, middleware=guard),
        Route("/static/plotly.min.js", board.plotly, middleware=guard),
        Route("/static/{name}", board.static, middleware=guard),
        Route("/api/events", board.events, middleware=guard),
        Route("/api/part/{id:path}", board.part, middleware=guard),
        Route("/api/finding/{id}", board.finding, middleware=guard),
        Route("/api/window/{id}", board.window, middleware=guard),
        Route("/api/{section:path}", board.section, middleware=guard),
    ]


class _Board:
    """The endpoints; the state is in the hub."""

    def __init__(self, hub: Hub, closing: Callable[[], bool]) -> None:
        self._hub = hub
        self._closing = closing
        self._streams = 0

    async def page(self, request: Request) -> Response:
        return _send(request, assets.own()["index.html"])

    async def static(self, request: Request) -> Response:
        found = assets.own().get(request.path_params["name"])
        return _send(request, found) if found else Response(status_code=404)

    async def plotly(self, request: Request) -> Response:
        return _send(request, await anyio.to_thread.run_sync(assets.plotly))

    async def section(self, request: Request) -> Response:
        snapshot = await self._hub.fresh(5.0)
        found = snapshot.sections.get(request.path_params["section"])
        if found is None:
            return JSONResponse({"error": snapshot.error or "there is no such section"}, 404 if snapshot.read else 503)
        headers = {"ETag": f'"{found.tag}"', "Cache-Control": "no-cache"}
        if _matches(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(found.body, media_type="application/json", headers=headers)

    async def part(self, request: Request) -> Response:
        name = request.path_params["id"]
        return await self._answer(lambda reader, _, __: detail.part(reader, name))

    async def finding(self, request: Request) -> Response:
        name = request.path_params["id"]
        return await self._answer(lambda reader, _, infos: detail.finding(reader, name, infos))

    async def window(self, request: Request) -> Response:
        name, query = request.path_params["id"], request.query_params
        try:
            start, end = (int(float(query[k]) * 1e6) for k in ("from", "to"))
        except (KeyError, ValueError, OverflowError):
            return JSONResponse({"error": "needs `from` and `to`, in ms"}, 400)

        def read(reader: Reader, charts: Charts, infos: list[SignalInfo]) -> dict[str, Any] | None:
            key = charts.key(name)
            return None if key is None else detail.window(reader, key, start, end, infos)

        return await self._answer(read)

    async def _answer(self, read: Callable[[Reader, Charts, list[SignalInfo]], dict[str, Any] | None]) -> Response:
        try:
            found = await self._hub.ask(read)
        except (StoreError, ClosingError) as e:
            return JSONResponse({"error": str(e) or "the agent stops"}, 503)
        if found is None:
            return JSONResponse({"error": "nobody knows that one"}, 404)
        headers = {"Cache-Control": "no-store"}
        return Response(msgspec.json.encode(found), media_type="application/json", headers=headers)

    async def events(self, request: Request) -> Response:  # noqa: ARG002  the signature of an endpoint
        if self._streams >= MAX_STREAMS:
            return JSONResponse({"error": f"{MAX_STREAMS} pages are open already"}, 503, {"Retry-After": "10"})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._changes(), media_type="text/event-stream", headers=headers)

    async def _changes(self) -> AsyncIterator[bytes]:
        """A message a second: the time, the state of reading, and the tags of the sections that changed."""
        self._streams += 1
        seen: dict[str, str] = {}
        try:
            yield b"retry: 1000\n\n"
            while not self._closing():
                began = time.monotonic()
                snapshot = await self._hub.fresh(_TICK)
                yield _tick(snapshot, seen)
                await asyncio.sleep(max(0.05, _TICK - (time.monotonic() - began)))
            await self._hub.idle()  # whoever closes us closes the store next
        finally:
            self._streams -= 1


def _tick(snapshot: Snapshot, seen: dict[str, str]) -> bytes:
    """One server-sent event; brings `seen` up to date."""
    tags = {name: section.tag for name, section in snapshot.sections.items()}
    changed = {name: tag for name, tag in tags.items() if seen.get(name) != tag}
    gone = [name for name in seen if name not in tags]
    seen.clear()
    seen.update(tags)
    data = {
        "time": time.time() * 1000,
        "read": snapshot.read,
        "error": snapshot.error,
        "changed": changed,
        "gone": gone,
    }
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _send(request: Request, asset: assets.Asset) -> Response:
    headers = {"ETag": asset.etag, "Cache-Control": asset.cache, "Vary": "Accept-Encoding"}
    if _matches(request, asset.etag):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.body, media_type=asset.media_type, headers=headers | {"Content-Encoding": "gzip"})
    return Response(gzip.decompress(asset.body), media_type=asset.media_type, headers=headers)


def _matches(request: Request, etag: str) -> bool:
    given = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") == etag for tag in given.split(","))

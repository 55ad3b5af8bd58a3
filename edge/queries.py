"""Queries of the first store through a running agent: no second process opens a live store."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from fieldlab.model import SignalKey
from ingest.stores.base import Reader, StoreError

_MOST = 1_000_000


def routes(reader: Reader) -> Sequence[BaseRoute]:
    """`/query/counts`, `telemetry?signal=PATH`, `findings`, `verdicts`, `events`, `conditions`, `actions`, `signals`.

    Each takes `start` and `end` (ns) where the reader does.
    """

    def route(path: str, ask: Callable[[Request], Any]) -> Route:
        async def answer(request: Request) -> Response:
            try:
                found = await asyncio.to_thread(ask, request)
            except KeyError as e:
                return Response(f"the parameter {e} is missing", 400, media_type="text/plain")
            except ValueError as e:
                return Response(str(e), 400, media_type="text/plain")
            except StoreError as e:
                return Response(str(e), 503, media_type="text/plain")
            return Response(msgspec.json.encode(found), media_type="application/json")

        return Route(path, answer)

    def counts(request: Request) -> dict[str, int]:
        return {key.path: count for key, count in reader.counts(*_window(request)).items()}

    def telemetry(request: Request) -> dict[str, Any]:
        key = SignalKey.parse(request.query_params["signal"])
        series = reader.telemetry(key, *_window(request), limit=_MOST)
        values: list[Any] = [None if v != v else v for v in series.value.tolist()]  # noqa: PLR0124  NaN is not itself
        for row, text in series.text.items():
            values[row] = text
        return {"time": series.time.tolist(), "value": values, "status": series.status.tolist()}

    return [
        route("/query/counts", counts),
        route("/query/telemetry", telemetry),
        route("/query/findings", lambda request: reader.findings(*_window(request), limit=_MOST)),
        route("/query/verdicts", lambda request: reader.verdicts(*_window(request), limit=_MOST)),
        route("/query/events", lambda request: reader.events(*_window(request), limit=_MOST)),
        route("/query/conditions", lambda _: reader.conditions(limit=_MOST)),
        route("/query/actions", lambda request: reader.actions(*_window(request), limit=_MOST)),
        route("/query/signals", lambda _: reader.signals()),
    ]


def _window(request: Request) -> tuple[int, int]:
    return int(request.query_params.get("start", 0)), int(request.query_params.get("end", 2**63 - 1))

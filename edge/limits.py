"""Limits in force and before: what a person sees of them, and asks of them, while the agent runs or not.

A wish becomes a record of the journal, so a replay grants it at the same place again. What it freezes on, if not the
newest values, is looked up in the store first and goes into the record.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from analytics.config import VECTOR_KINDS, AnalyticsConfig, ChartConfig
from analytics.engine import Engine
from analytics.versions import Wish
from edge.config import AgentConfig
from edge.judge import Judge
from fieldlab.errors import RefusedError
from fieldlab.model import BatchBuilder, Control, Record, RecordKind, SignalInfo, SignalKey, SignalTable
from ingest.journal import Journal
from ingest.stores.base import Reader, StoreError

MOST_VALUES = 100_000  # readings of a signal that a range is read of: the newest
MOST_ITEMS = 10_000  # values that a wish may bring: more make no limits better
_PATIENCE = 8.0  # seconds that an answer may take; the analytics may have a backlog


def overview(engine: Engine) -> dict[str, Any]:
    """What `fieldlab limits list --json` prints."""
    learning = [{"chart": name, "signal": key.path} for key, name, found in engine.limits() if found is None]
    asked = [msgspec.to_builtins(a) for a in reversed(engine.asked())]
    return {"versions": engine.versions(), "learning": learning, "asked": asked}


def routes(
    journal: Journal, judge: Judge, reader: Callable[[], Reader | None], config: Callable[[], AgentConfig]
) -> Sequence[BaseRoute]:
    """`GET /limits`, and `POST /limits/freeze` with `chart`, `signal`, `recipe`, `version`, `start`, `end`, `by`."""

    async def answer(request: Request) -> Response:
        if request.scope["server"][1] is not None:
            return PlainTextResponse("only over the agent's Unix socket\n", 403)
        try:
            if request.method == "GET":
                return _json(await judge.look(overview))
            control = await asyncio.to_thread(asked_for, dict(request.query_params), reader(), config())
        except (ValueError, KeyError, RefusedError) as e:
            return PlainTextResponse(f"{e}\n", 400)
        except (StoreError, RuntimeError) as e:
            return PlainTextResponse(f"{e}\n", 503)
        await asyncio.wrap_future(journal.write([control]))
        judge.wake()
        return _json({"asked": await _answer(judge, control.detail["id"])})

    return [Route("/limits", answer), Route("/limits/freeze", answer, methods=["POST"])]


def asked_for(asked: dict[str, str], reader: Reader | None, config: AgentConfig) -> Control:
    """The record of a wish.

    Raises:
        ValueError: if it makes no sense.
        RefusedError: if the store has no values of the range.
    """
    version = int(asked["version"]) if asked.get("version") else None
    wish = Wish(
        id=secrets.token_hex(8), chart=asked["chart"], signal=asked.get("signal", ""),
        recipe=asked.get("recipe"), version=version,
    )  # fmt: skip
    if asked.get("start") or asked.get("end"):
        if version is not None:
            raise ValueError("a version that is brought back needs no range")
        if reader is None:
            raise RefusedError("no store of this agent can be queried for that range: freeze on the newest values")
        start, end = int(asked.get("start") or 0), int(asked.get("end") or 2**63 - 1)
        items = items_of(reader, config.analytics(), wish, start, end)
        if len(items) > MOST_ITEMS:
            raise ValueError(f"{len(items)} values are more than a journal record should hold: at most {MOST_ITEMS}")
        wish = msgspec.structs.replace(wish, items=items)
    return Control(time=time.time_ns(), action="freeze", by=asked.get("by", ""), detail=msgspec.to_builtins(wish))


async def _answer(judge: Judge, wish: str) -> list[dict[str, Any]]:
    """What became of a wish; empty if the analytics have not come to it in time."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and not judge.error:
        found = await judge.look(lambda engine: [a for a in engine.asked() if a.id == wish])
        if found:
            return [msgspec.to_builtins(a) for a in found]
        await asyncio.sleep(0.05)
    return []


def without_agent(config: AgentConfig, control: Callable[[], Control] | None = None) -> dict[str, Any]:
    """The same from the journal of an agent that does not run; a wish is granted when it runs again.

    Raises:
        RefusedError: if there is no journal yet.
    """
    path = config.agent.data / "journal.db"
    if not path.exists():
        raise RefusedError(f"there is no journal in {config.agent.data}: no agent has run on it yet")
    journal = Journal(path, max_bytes=int(config.agent.journal_max), max_series=config.agent.max_series)
    try:
        if control is not None:
            journal.write([control()]).result()
            return {"asked": []}
        return overview(Judge(journal, config.analytics()).engine)
    finally:
        journal.close()


def items_of(reader: Reader, config: AnalyticsConfig, wish: Wish, start: int, end: int) -> list[list[float]]:
    """What the chart's values were in [start, end) by the readings that the store has, as the agent would chart them.

    Raises:
        RefusedError: if there is no such chart or signal, or more than one, or no value.
    """
    chart = next((c for c in config.charts if c.label == wish.chart), None)
    if chart is None or chart.kind in VECTOR_KINDS:
        raise RefusedError(
            f"there is no chart {wish.chart!r}" if chart is None else "a multivariate chart takes no range"
        )
    infos = reader.signals()
    keys = [
        info.key
        for info in infos
        if any(fnmatchcase(info.key.short, glob) for glob in chart.signals)
        and (not wish.signal or wish.signal == info.key.path or fnmatchcase(info.key.short, wish.signal))
    ]
    if len(keys) != 1:
        found = f"fits {len(keys)} signals" if wish.signal else f"has {len(keys)} signals"
        raise RefusedError(f"{wish.signal or chart.label} {found}: a range is of one; name it with --signal")
    records, table = _records(reader, infos, keys[0], _beside(config, chart, keys[0]), start, end)
    engine = Engine(table)
    most = sum(len(r.batch) for r in records if r.batch is not None) + 1
    alone = msgspec.structs.replace(chart, baseline=most, signals=(keys[0].short,))  # learns on, and never freezes
    detail = msgspec.to_builtins(AnalyticsConfig(charts=(alone,), parts=config.parts, lateness=config.lateness))
    engine.fold([Record(0, RecordKind.CONTROL, 0, rows=(Control(time=0, action="configure", detail=detail),))])
    engine.fold(records)
    items = engine.collected(alone.label, keys[0], wish.recipe)
    if not items:
        raise RefusedError(f"the store has no value of {keys[0].path} in that time")
    return items


def _beside(config: AnalyticsConfig, chart: ChartConfig, key: SignalKey) -> set[str]:
    """Names of the signals on its machine without which a signal's values cannot be formed."""
    part = config.part_of(key.place.machine)
    names = {*chart.limits_by}
    if part is not None:
        names |= {part.signal, *(s for s in (part.nested, getattr(part, "phases", "")) if isinstance(s, str))}
    if chart.companion:
        names.add(chart.companion.split("/")[1])
    return names


def _records(
    reader: Reader, infos: Sequence[SignalInfo], key: SignalKey, beside: set[str], start: int, end: int
) -> tuple[list[Record], SignalTable]:
    """Descriptions and readings, as a journal would hold them, and time going by behind them."""
    chosen = [i for i in infos if i.key == key or (i.key.place == key.place and i.key.name in beside)]
    table, rows = SignalTable(), []
    for info in chosen:
        index = table.index(info.key)
        pieces = [reader.telemetry(info.key, start, end, limit=MOST_VALUES)]
        if info.key != key:  # what ran at the start was said before it
            pieces.insert(0, reader.telemetry(info.key, 0, start, limit=1))
        for series in pieces:
            values: list[Any] = [None if np.isnan(v) else v for v in series.value.tolist()]
            for row, text in series.text.items():
                values[row] = text
            rows += list(zip(series.time.tolist(), [index] * len(values), values, series.status.tolist(), strict=True))
    builder = BatchBuilder()
    for when, index, value, status in sorted(rows, key=lambda row: row[:2]):
        builder.add(index, when, value, status)
    last = max((row[0] for row in rows), default=0)
    records = [
        Record(1, RecordKind.SIGNAL, 0, rows=tuple(chosen)),
        Record(2, RecordKind.READINGS, 0, batch=builder.build()),
    ]
    return [*records, *(Record(3, RecordKind.TICK, last + s * 10**9) for s in (0, 60))], table


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")

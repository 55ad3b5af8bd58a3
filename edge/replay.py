"""Runs a recorded file through the pipeline of an agent: source, journal, analytics, and the stores if asked."""

import asyncio
import contextlib
import difflib
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog

from analytics.config import VECTOR_KINDS, ChartConfig
from analytics.engine import KINDS, Engine
from edge.catalog import Catalog
from edge.config import AgentConfig, in_file
from edge.intake import Intake
from edge.replay_rows import Rows
from edge.sources.replay.source import Played, Player
from fieldlab.errors import ConfigError, RefusedError
from fieldlab.model import Control, Finding, SignalInfo
from fieldlab.model.record import Row
from ingest.forwarder import Forwarder
from ingest.gaps import Gaps
from ingest.journal import Journal
from ingest.stores import load_kind as load_store
from ingest.stores.base import StoreError

log = structlog.get_logger()

_CONSUMER = "analytics"
_CHUNK = 20_000  # readings judged at once


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay did.

    Attributes:
        file: the recording.
        rows: rows of the file.
        readings: readings that the journal took.
        alarm_rows: rows with an alarm of any chart; None without `out`.
        findings: excursions that were found.
        seconds: how long it took.
        charts: a chart each: `chart`, `judged` values, `alarms`, and `limits` by signal with how they were learned.
        stored: readings that each store took, with `store`; the same ones again change nothing there.
        counters: of the source and of the judgement; what was not judged, and why.
    """

    file: str
    rows: int
    readings: int
    alarm_rows: int | None
    findings: int
    seconds: float
    charts: list[dict[str, Any]]
    stored: dict[str, int]
    counters: dict[str, int]


def replay(
    config: AgentConfig, file: Path, *, out: Path | None = None, chart: str = "", store: bool = False
) -> Summary:
    """Play a file.

    Args:
        config: one of its sources has the kind `replay`.
        file: CSV or Parquet.
        out: gets one row for each row of the file.
        chart: whose statistic `out` shows; empty: the first.
        store: keep journal and results: in the data folder, and in the configured stores.

    Raises:
        ConfigError: if the configuration does not fit the file.
        RefusedError: if the file cannot be read, or a store or the data folder cannot be used.
    """
    started = time.perf_counter()
    named = _named(config, chart)
    with contextlib.ExitStack() as stack:
        data = (
            config.agent.data if store else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fieldlab-")))
        )
        try:
            data.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise RefusedError(f"the data folder {data} cannot be made: {e.strerror or e}") from e
        journal = Journal(
            data / "journal.db", max_bytes=int(config.agent.journal_max), max_series=config.agent.max_series
        )
        stack.callback(journal.close)
        rows = Rows(named)
        run = _Run(config, file, journal, rows)
        forward = stack.enter_context(_Stores(config, journal)) if store else None
        for played in run.play():
            rows.add_rows(played.time, played.written)
            if forward:
                forward.drain()
        alarm_rows = None
        if out is not None:
            try:
                with out.open("w", encoding="utf-8", newline="") as sheet:
                    alarm_rows = rows.write(sheet)
            except OSError as e:
                raise RefusedError(f"{out} cannot be written: {e.strerror or e}") from e
        return Summary(
            file=str(file),
            rows=run.player.counters["rows"],
            readings=run.player.counters["readings"],
            alarm_rows=alarm_rows,
            findings=run.findings,
            seconds=round(time.perf_counter() - started, 3),
            charts=run.charts(),
            stored=forward.stored() if forward else {},
            counters=run.player.counters | run.engine.counters,
        )


class _Run:
    """One file through journal and judgement."""

    def __init__(self, config: AgentConfig, file: Path, journal: Journal, rows: Rows) -> None:
        self._journal = journal
        self._rows = rows
        self._lateness = config.agent.lateness.ns
        found = [i for i, source in enumerate(config.sources) if source.kind == "replay"]
        if len(found) != 1:
            raise ConfigError(f'needs one [[source]] kind = "replay", there are {len(found)}', file=config.file)
        catalog = Catalog(journal.signals, config.rules, self._tell)
        self._config = config
        self._source = source = config.sources[found[0]]
        try:
            context = config.source_context(found[0])
            intake = Intake(context.name, journal, catalog, Gaps(journal, context.agent))
            self.player = Player(source.config, context, file, intake)
        except ConfigError as e:
            raise in_file(config, e, source) from e
        self.engine = Engine(journal.signals, rows.watch)
        self.findings = 0
        charts = tuple(_as_replayed(c, config) for c in config.charts)
        self._analytics = msgspec.structs.replace(config.analytics(), charts=charts)

    def _tell(self, info: SignalInfo) -> None:
        self._journal.write([info])

    def play(self) -> Iterator[Played]:
        """Play and judge, a chunk of rows at a time."""
        position = self._journal.position
        before = self._journal.register(_CONSUMER, stateful=True)
        if before.state is not None:
            log.warning(
                "analytics_starts_afresh", reason="the journal holds what was learned before; a replay learns anew"
            )
        detail = msgspec.to_builtins(self._analytics)
        self._journal.write([Control(time=time.time_ns(), action="configure", by="replay", detail=detail)]).result()
        try:
            for played in self.player.play():
                position = self._judge(position)
                yield played
        except ConfigError as e:
            raise in_file(self._config, e, self._source) from e
        now = time.time_ns()  # two ticks release what waited for readings that may be late
        self._journal.tick(now).result()
        self._journal.tick(now + self._lateness + 1).result()
        self._judge(position)
        self._warn()

    def _judge(self, position: int) -> int:
        end = self._journal.position
        while position < end:
            chunk = self._journal.read(position, KINDS, max_readings=_CHUNK, upto=end)
            rows: list[Row] = self.engine.fold(chunk.records)
            for row in rows:
                if isinstance(row, Finding) and row.state == "raised":
                    self.findings += row.rule != "baseline"
                    if row.rule == "baseline":
                        log.warning("baseline_refused", chart=row.chart, signal=row.signal, reason=row.detail)
            self._journal.advance(
                _CONSUMER,
                chunk.upto,
                keep_from=chunk.upto,
                state=self.engine.snapshot(),
                config_hash=self.engine.config_hash,
                rows=rows,
            ).result()
            position = chunk.upto
        return position

    def _warn(self) -> None:
        for told in self.charts():
            for signal, limits in told["limits"].items():
                if limits is None:
                    why = "its baseline was never complete and fit"
                    log.warning("limits_not_frozen", chart=told["chart"], signal=signal, reason=why)
                elif "frozen although" in limits["note"]:
                    log.warning("baseline_unstable", chart=told["chart"], signal=signal, note=limits["note"])
            if not told["limits"]:
                known = ", ".join(f"{self.player.place.machine}/{name}" for name in self.player.signals.values())
                log.warning("chart_without_signals", chart=told["chart"], signals=known)

    def charts(self) -> list[dict[str, Any]]:
        """What every chart did."""
        vectors = {c.label for c in self._analytics.charts if c.kind in VECTOR_KINDS}
        found: dict[str, dict[str, Any]] = {
            c.label: {
                "chart": c.label,
                "kind": c.kind,
                "judged": self._rows.judged.get(c.label, 0),
                "alarms": self._rows.alarms.get(c.label, 0),
                "limits": {},
            }
            for c in self._analytics.charts
        }
        for key, chart, limits in self.engine.limits():
            signal = f"{key.place.machine}/_all" if chart in vectors else key.short
            found[chart]["limits"][signal] = msgspec.to_builtins(limits) if limits else None
        return list(found.values())


class _Stores:
    """The configured stores, as the agent drives them."""

    def __init__(self, config: AgentConfig, journal: Journal) -> None:
        self._runner = asyncio.Runner()
        self._forwarders = []
        for i, configured in enumerate(config.stores):
            try:
                made, _ = load_store(configured.kind).create(
                    configured.config, config.store_context(i), journal.signals
                )
            except ConfigError as e:
                raise in_file(config, e, configured) from e
            except StoreError as e:
                raise RefusedError(str(e)) from e
            self._forwarders.append(
                Forwarder(journal, made, ThreadPoolExecutor(1, thread_name_prefix=f"store-{made.name}"))
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.drain()
        finally:
            self._runner.close()
            for forwarder in self._forwarders:
                forwarder.store.close()

    def drain(self) -> None:
        """Wait until every store has what the journal has."""

        async def work() -> None:
            stop = asyncio.Event()
            stop.set()
            await asyncio.gather(*(f.run(stop) for f in self._forwarders))

        self._runner.run(work())

    def stored(self) -> dict[str, int]:
        """Readings that each store took."""
        self.drain()
        return {f.name: int(f.counts.stored.sum()) for f in self._forwarders}


def _named(config: AgentConfig, chart: str) -> str:
    labels = [c.label for c in config.charts]
    if not chart:
        return labels[0] if labels else ""
    if chart not in labels:
        near = difflib.get_close_matches(chart, labels, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(map(repr, labels)) or 'none'}"
        raise ConfigError(f"there is no chart {chart!r}; {hint}", file=config.file)
    return chart


def _as_replayed(chart: ChartConfig, config: AgentConfig) -> ChartConfig:
    """Rows are values, unless the chart or a `[[part]]` says otherwise; an unstable baseline is a warning."""
    per = chart.per or ("" if config.parts and chart.kind not in VECTOR_KINDS else "reading")
    return msgspec.structs.replace(chart, per=per, on_unstable="warn")

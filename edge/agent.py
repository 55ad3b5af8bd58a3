"""The agent: sources to journal to stores and analytics, supervised, until told to stop."""

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import structlog
from starlette.routing import BaseRoute

from edge import accounts, http, queries, remedy
from edge.actions.command import Commandable
from edge.actions.runner import NAME as ACTIONS
from edge.actions.runner import Actions
from edge.backpressure import Backpressure
from edge.catalog import Catalog
from edge.config import AgentConfig, in_file
from edge.intake import Intake
from edge.judge import Judge
from edge.sources import load_kind as load_source
from edge.sources.base import Resending, Source
from fieldlab.errors import ConfigError, RefusedError
from fieldlab.model import AgentRow, SignalInfo
from ingest.deadletter import DeadLetters
from ingest.forwarder import Forwarder
from ingest.gaps import Gaps
from ingest.journal import Journal
from ingest.ledger import Ledger
from ingest.stores import load_kind as load_store
from ingest.stores.base import Reader, Store, StoreError
from ingest.worker import Worker

log = structlog.get_logger()

BoardRoutes = Callable[[Reader, Callable[[], dict[str, Any]], Callable[[], bool]], Sequence[BaseRoute]]

SOCKET = "agent.sock"
_TICK = 1.0
_FIGURES_EVERY = 10.0
_LEDGER_EVERY = 60.0
_DRAIN = 10.0  # seconds that a stop waits for the stores; the journal keeps the rest
_CLOSE = 3.0  # seconds for a store to be closed
_RESTART_PAUSE = 5.0


class Agent:
    """One edge agent.

    Args:
        config: its configuration file.
        board: makes the board's routes from a reader, `status`, and whether the agent is closing.

    Raises:
        ConfigError: if a source's or store's table makes no sense as a whole.
        RefusedError: if another agent uses the data folder, or the HTTP address cannot be had.
    """

    def __init__(self, config: AgentConfig, board: BoardRoutes | None = None) -> None:
        self._config = config
        self._started = time.time_ns()
        self._lock = _own(config.agent.data)
        self._journal = Journal(
            config.agent.data / "journal.db",
            max_bytes=int(config.agent.journal_max),
            max_series=config.agent.max_series,
        )
        self._stop = asyncio.Event()
        self._drain = asyncio.Event()
        self._end_actions = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._readers: list[Reader] = []
        self._catalog = Catalog(self._journal.signals, config.rules, self._tell)
        self._gaps = Gaps(self._journal, config.agent.name)
        self._intakes: list[Intake] = []
        self._threads: dict[str, Worker] = {}  # of each store
        self._stores = [self._make_lanes(i) for i in range(len(config.stores))]
        self._forwarders = [lane for lanes in self._stores for lane in lanes]
        self._judge = Judge(self._journal, config.analytics())
        self._ledger = Ledger(self._journal, self._stores, config.agent.name)
        self._sources = [self._make_source(i) for i in range(len(config.sources))]
        self._backpressure = Backpressure(self._journal, self._gaps, [source.name for source in self._sources])
        self._actions = self._make_actions()
        kept = {f.name for f in self._forwarders} | {"analytics"} | ({ACTIONS} if self._actions else set())
        if retired := [name for name in self._journal.consumers() if name not in kept]:
            log.warning("consumers_retired", names=retired, reason="no longer in the configuration")
            self._journal.retire(retired)
        self._sockets = [http.listen_locally(config.agent.data / SOCKET)]
        if config.agent.http:
            self._sockets.append(http.listen(config.agent.http))
        resending = [source for source in self._sources if isinstance(source, Resending)]
        routes = remedy.routes(DeadLetters(self._journal), self._forwarders, resending)
        stores = [live.store for live, _ in self._stores]
        reader = self._readers[0] if self._readers else None
        routes += accounts.routes(self._journal, self._gaps, stores, config.agent.name, reader)
        if self._readers:
            routes += queries.routes(self._readers[0])
        if board and self._readers:
            routes += board(self._readers[0], self.status, self._drain.is_set)
        self._app = http.application(self.status, routes, address=config.agent.http)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; then end cleanly: sources first, then what the stores can still take."""
        self._journal.add_listener(self._wake_from_thread)
        agent = self._config.agent
        log.info("agent_started", agent=agent.name, data=str(agent.data), http=agent.http and f"http://{agent.http}/")
        await self._judge.configure()
        serving = asyncio.create_task(http.serve(self._app, self._sockets, self._drain))
        consumers = [asyncio.create_task(f.run(self._drain)) for f in self._forwarders]
        consumers.append(asyncio.create_task(self._judge.run(self._drain)))
        chores = [asyncio.create_task(chore) for chore in self._chores()]
        watched = [serving, *consumers, *chores]
        sources = [asyncio.create_task(self._supervise(s)) for s in self._sources]
        acting = [asyncio.create_task(self._actions.run(self._end_actions))] if self._actions else []
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *watched], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # these never end by themselves: an error here ends the agent
        finally:
            self._end_actions.set()  # first: what was begun ends while its source is connected
            await _settle(acting, _DRAIN)
            self._stop.set()
            log.info("agent_stopping", agent=self._config.agent.name)
            await _settle(sources, _DRAIN)
            await _cancel(chores)
            self._gaps.flush()
            self._journal.write([self._figures()])
            self._journal.write(self._ledger.rows(time.time_ns()))
            self._drain.set()
            self._wake()
            await _settle([*consumers, serving], _DRAIN)
            for live, _ in self._stores:
                await self._close(live.store)
            await asyncio.to_thread(self._journal.close)
            (self._config.agent.data / SOCKET).unlink(missing_ok=True)
            self._lock.close()
            log.info("agent_stopped", agent=self._config.agent.name)

    async def _close(self, store: Store) -> None:
        """Close a store behind its last write; one that hangs is left, as the journal still has what it was given."""
        thread = self._threads[store.name]
        try:
            await asyncio.wait_for(asyncio.wrap_future(thread.submit(store.close)), _CLOSE)
        except TimeoutError:
            log.warning("store_not_closed", store=store.name, reason="its last write does not end")
        except Exception:  # the journal still wants to be closed
            log.exception("store_not_closed", store=store.name)
        thread.shutdown(wait=False)

    def status(self) -> dict[str, Any]:
        """The agent's health, as JSON can hold it; safe to call from any thread."""
        sources = [msgspec.to_builtins(s.status()) for s in self._sources]
        consumers = [msgspec.to_builtins(f.status()) for f in self._forwarders]
        consumers.append(msgspec.to_builtins(self._judge.status()))
        if self._actions:
            consumers.append(msgspec.to_builtins(self._actions.status()))
        journal = self._journal.stats()
        ready = all(s["connected"] for s in sources) and not journal.error and not any(c["error"] for c in consumers)
        return {
            "agent": self._config.agent.name,
            "time": time.time_ns(),
            "uptime": (time.time_ns() - self._started) / 1e9,
            "ready": ready,
            "memory_bytes": _resident_memory(),
            "sources": sources,
            "consumers": consumers,
            "ledger": self._ledger.totals(),
            **accounts.overview(self._journal, self._gaps, self._ledger),
            "actions": self._actions.outcomes if self._actions else {},
            "set_aside_input": sum(intake.set_aside_count for intake in self._intakes),
            "journal": msgspec.to_builtins(journal),
        }

    # ---- parts ----

    def _make_lanes(self, index: int) -> tuple[Forwarder, Forwarder]:
        """The two lanes of a store: live readings and everything else, and back-fill."""
        configured = self._config.stores[index]
        try:
            store, reader = load_store(configured.kind).create(
                configured.config, self._config.store_context(index), self._journal.signals
            )
        except ConfigError as e:
            raise in_file(self._config, e, configured) from e
        except StoreError as e:
            raise RefusedError(str(e)) from e
        if reader is not None:
            self._readers.append(reader)
        drop = getattr(configured.config, "when_full", "hold") == "drop-oldest"
        thread = self._threads[store.name] = Worker(f"store-{store.name}")
        return (
            Forwarder(self._journal, store, thread, drop_oldest=drop, gaps=self._gaps),
            Forwarder(self._journal, store, thread, backfill=True, drop_oldest=drop, gaps=self._gaps),
        )

    def _make_source(self, index: int) -> Source:
        configured = self._config.sources[index]
        context = self._config.source_context(index)
        self._intakes.append(Intake(context.name, self._journal, self._catalog, self._gaps))
        try:
            return load_source(configured.kind).create(configured.config, context, self._intakes[-1])
        except ConfigError as e:
            raise in_file(self._config, e, configured) from e

    def _make_actions(self) -> Actions | None:
        """The consumer that acts on machines; none unless it is configured."""
        if not self._config.actions:
            return None
        able = {a.source: cast("Commandable", self._sources[a.source]) for a in self._config.actions}
        return Actions(self._journal, self._config.actions, able)

    def _tell(self, info: SignalInfo) -> None:
        """A new or changed description: a row for stores and analytics, ahead of its readings. Any thread may call."""
        self._journal.write([info])

    def _wake_from_thread(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to wake
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for forwarder in self._forwarders:
            forwarder.wake()
        self._judge.wake()
        if self._actions:
            self._actions.wake()

    async def _supervise(self, source: Source) -> None:
        """A source that breaks is started again; it never stops the others."""
        while not self._stop.is_set():
            try:
                await source.run(self._stop)
            except Exception:
                log.exception("source_broke", source=source.name, restart_in=_RESTART_PAUSE)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _RESTART_PAUSE)

    def _chores(self) -> list[Coroutine[Any, Any, None]]:
        # Each waits for its commit: while the disk refuses, at most one of each waits for it.
        async def tick() -> None:
            self._gaps.flush()
            await asyncio.wrap_future(self._journal.tick(time.time_ns()))

        async def held() -> None:
            await asyncio.to_thread(self._backpressure.look)

        async def figures() -> None:
            row = await asyncio.to_thread(self._figures)
            await asyncio.wrap_future(self._journal.write([row]))

        async def ledger() -> None:
            if rows := await asyncio.to_thread(self._ledger.rows, time.time_ns()):
                await asyncio.wrap_future(self._journal.write(rows))

        return [
            _every(_TICK, tick),
            _every(_TICK, held),
            _every(_FIGURES_EVERY, figures),
            _every(_LEDGER_EVERY, ledger),
        ]

    def _figures(self) -> AgentRow:
        journal = self._journal.stats()
        figures = {
            "memory_bytes": float(_resident_memory()),
            "journal_bytes": float(journal.bytes),
            "journal_records": float(journal.records),
            "uptime_seconds": (time.time_ns() - self._started) / 1e9,
            "sources_connected": float(sum(s.status().connected for s in self._sources)),
            "sources": float(len(self._sources)),
        }
        return AgentRow(time=time.time_ns(), agent=self._config.agent.name, figures=figures)


async def _every(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        await work()
        await asyncio.sleep(seconds)


async def _settle(tasks: Sequence["asyncio.Task[None]"], seconds: float) -> None:
    """Wait for tasks to end by themselves, then cancel what is left; their errors are logged."""
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
    await _cancel(tasks)


async def _cancel(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        try:
            await task
        except asyncio.CancelledError:
            pass
        except Exception:
            log.exception("task_failed_at_stop")


def _own(data: Path) -> Any:
    """Make the data folder, mode 0700, and lock it: one agent a folder.

    Raises:
        RefusedError: if another agent has it, or it cannot be made.
    """
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (data / "lock").open("w")
    except OSError as e:
        raise RefusedError(f"the data folder {data} cannot be used: {e}") from e
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise RefusedError(f"another agent uses the data folder {data}; see `fieldlab status`") from None
    return lock


def _resident_memory() -> int:
    """Bytes, from /proc; 0 where there is none."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")

"""The agent: sources to journal to stores and analytics, supervised, until told to stop."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
import structlog
from starlette.routing import BaseRoute

from edge import accounts, acknowledge, capabilityreport, http, limits, oeereport, partreport, queries, remedy
from edge.acting import RunningActions
from edge.backpressure import Backpressure
from edge.catalog import Catalog
from edge.config import AgentConfig, load
from edge.judge import Judge
from edge.process import own, resident_memory
from edge.reading import CurrentReader
from edge.reload import Watcher, needs_a_person, refuse_fixed
from edge.running_source import RunningSource
from edge.running_store import RunningStore
from edge.sources.base import Resending
from edge.switch import Switch
from edge.tasks import Task, Watched, cancel, every, settle
from fieldlab.errors import FieldlabError
from fieldlab.model import AgentRow, SignalInfo
from ingest.deadletter import DeadLetters
from ingest.forwarder import Forwarder
from ingest.gaps import Gaps
from ingest.journal import Journal
from ingest.ledger import Ledger
from ingest.stores.base import Reader

log = structlog.get_logger()

BoardRoutes = Callable[[Reader, Callable[[], dict[str, Any]], Callable[[], bool]], Sequence[BaseRoute]]

SOCKET = "agent.sock"
_TICK = 1.0
_FIGURES_EVERY = 10.0
_LEDGER_EVERY = 60.0
_DRAIN = 10.0  # seconds that a stop waits for the stores; the journal keeps the rest


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
        self._started = self._applied = time.time_ns()
        self._refused = self._waiting = ""
        self._reloads = 0
        token = http.read_token(config.agent.http_token_file)
        self._lock = own(config.agent.data)
        self._journal = Journal(
            config.agent.data / "journal.db",
            max_bytes=int(config.agent.journal_max),
            max_series=config.agent.max_series,
        )
        self._loop = asyncio.get_running_loop()
        self._drain = asyncio.Event()
        self._watched = Watched()
        self._catalog = Catalog(self._journal.signals, config.rules, self._tell)
        self._gaps = Gaps(self._journal, config.agent.name)
        # Changed in place by a reload: routes hold these lists.
        self._stores = [RunningStore(config, i, self._journal, self._gaps) for i in range(len(config.stores))]
        self._forwarders: list[Forwarder] = []
        self._judge = Judge(self._journal, config.analytics())
        self._sources = [
            RunningSource(config, i, self._journal, self._catalog, self._gaps) for i in range(len(config.sources))
        ]
        self._resending: list[Resending] = []
        self._set_aside = 0  # by sources that are gone
        self._actions = RunningActions(self._journal, config.actions, self._sources)
        self._rewire()
        self._retire()
        self._board = board
        self._sockets = [http.listen_locally(config.agent.data / SOCKET)]
        if config.agent.http:
            self._sockets.append(http.listen(config.agent.http))
        self._reader = cast("Reader", CurrentReader(self._current_reader))
        self._app = http.application(self.status, self._routes(), address=config.agent.http, token=token)
        self._watcher = Watcher(config.file, auto=config.agent.reload == "auto")

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; then end cleanly: sources first, then what the stores can still take."""
        self._journal.add_listener(self._wake_from_thread)
        agent = self._config.agent
        log.info("agent_started", agent=agent.name, data=str(agent.data), http=agent.http and f"http://{agent.http}/")
        await self._judge.configure()
        serving = self._watched.start(http.serve(self._app, self._sockets, self._drain))
        for store in self._stores:
            store.start(self._watched)
        judging = self._watched.start(self._judge.run(self._drain))
        chores = self._chores()
        for source in self._sources:
            source.start()
        self._actions.start()
        stopping: Task = asyncio.create_task(_until(stop))
        try:
            await self._reload_until(stopping)
        finally:
            await self._actions.stop(_DRAIN)  # first: what was begun ends while its source is connected
            log.info("agent_stopping", agent=agent.name)
            await asyncio.gather(*(source.stop(_DRAIN) for source in self._sources))
            await cancel(chores)
            self._gaps.flush()
            self._journal.write([self._figures()])
            self._journal.write(self._ledger.rows(time.time_ns()))
            self._drain.set()
            for store in self._stores:
                store.drain()
            self._wake()
            await settle([*(task for store in self._stores for task in store.tasks), judging, serving], _DRAIN)
            for store in self._stores:
                await store.close()
            await asyncio.to_thread(self._journal.close)
            (agent.data / SOCKET).unlink(missing_ok=True)
            self._lock.close()
            log.info("agent_stopped", agent=agent.name)

    def reload(self) -> None:
        """Read the configuration file again, because a person asks for it (SIGHUP)."""
        self._watcher.ask()

    def status(self) -> dict[str, Any]:
        """The agent's health, as JSON can hold it; safe to call from any thread."""
        sources = [msgspec.to_builtins(running.source.status()) for running in list(self._sources)]
        consumers = [msgspec.to_builtins(f.status()) for f in list(self._forwarders)]
        consumers.append(msgspec.to_builtins(self._judge.status()))
        consumers += [msgspec.to_builtins(status) for status in self._actions.status()]
        journal = self._journal.stats()
        ready = all(s["connected"] for s in sources) and not journal.error and not any(c["error"] for c in consumers)
        return {
            "agent": self._config.agent.name,
            "time": time.time_ns(),
            "uptime": (time.time_ns() - self._started) / 1e9,
            "ready": ready,
            "memory_bytes": resident_memory(),
            "configuration": {
                "file": str(self._config.file),
                "applied": self._applied,
                "reloads": self._reloads,
                "refused": self._refused,
                "waiting": self._waiting,
            },
            "sources": sources,
            "consumers": consumers,
            "ledger": self._ledger.totals(),
            **accounts.overview(self._journal, self._gaps, self._ledger),
            "actions": self._actions.outcomes,
            "not_judged": self._judge.unjudged(),
            "set_aside_input": self._set_aside + sum(r.intake.set_aside_count for r in list(self._sources)),
            "journal": msgspec.to_builtins(journal),
        }

    # ---- a new configuration ----

    async def _reload_until(self, stopping: Task) -> None:
        """Apply what the file becomes, until it is time to stop; raises what ends the agent."""
        while True:
            looking = asyncio.create_task(self._watcher.next())
            waited: list[asyncio.Future[Any]] = [stopping, self._watched.failed, looking]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if self._watched.failed.done():
                looking.cancel()
                self._watched.failed.result()
            if stopping.done():
                looking.cancel()
                return
            await self._reload(asked=looking.result())

    async def _reload(self, *, asked: bool) -> None:
        """Apply the file as it is now, or say why not; the old configuration goes on then."""
        old = self._config
        self._refused = self._waiting = ""
        try:
            new = await asyncio.to_thread(load, old.file)
            refuse_fixed(old, new)
            if not asked and (why := needs_a_person(old, new)):
                self._waiting = f"{why}: send SIGHUP to apply the file"
                log.warning("configuration_waits", file=str(old.file), reason=self._waiting)
                return
            await self._switch(Switch(old, new, self._journal, self._catalog, self._gaps))
        except FieldlabError as e:
            self._refused = str(e)
            log.error("configuration_refused", file=str(old.file), error=str(e))  # noqa: TRY400  the file is at fault
            return
        self._catalog.follow(new.rules)
        await self._judge.configure(new.analytics())
        await asyncio.to_thread(self._retire)
        self._watcher.auto = new.agent.reload == "auto"
        self._applied, self._reloads = time.time_ns(), self._reloads + 1
        kept = [source.name for source in self._sources] + [store.name for store in self._stores]
        log.info("configuration_applied", file=str(new.file), running=kept)

    async def _switch(self, switch: Switch) -> None:
        """Start, stop and leave alone what the switch says; all is as it was if it raises."""
        before, queryable = list(self._sources), self._current_reader() is not None
        acted = self._actions.touched(switch.new.actions, switch.leaving(self._sources))
        if acted:
            await self._actions.stop(_DRAIN)
        try:
            await switch.make(self._sources, self._stores)
            self._config = switch.new
        finally:
            self._set_aside += sum(s.intake.set_aside_count for s in before if s not in self._sources)
            self._rewire()
            for source in self._sources:
                source.start()
            for store in self._stores:
                store.start(self._watched)
            if acted:
                outcomes = self._actions.outcomes
                self._actions = await asyncio.to_thread(
                    RunningActions, self._journal, self._config.actions, self._sources, outcomes
                )
                self._actions.start()
        if queryable != (self._current_reader() is not None):
            self._app.router.routes[:] = http.routes(self.status, self._routes())

    def _rewire(self) -> None:
        """Have everything that holds stores and sources hold those that there are."""
        self._forwarders[:] = [lane for store in self._stores for lane in store.lanes]
        self._resending[:] = [s.source for s in self._sources if isinstance(s.source, Resending)]
        self._ledger = Ledger(self._journal, [store.lanes for store in self._stores], self._config.agent.name)
        self._backpressure = Backpressure(self._journal, self._gaps, [source.name for source in self._sources])

    def _retire(self) -> None:
        """Forget the cursors of what is no longer configured."""
        kept = {f.name for f in self._forwarders} | {status.name for status in self._actions.status()} | {"analytics"}
        if retired := [name for name in self._journal.consumers() if name not in kept]:
            log.warning("consumers_retired", names=retired, reason="no longer in the configuration")
            self._journal.retire(retired)

    # ---- parts ----

    def _current_reader(self) -> Reader | None:
        return next((store.reader for store in self._stores if store.reader is not None), None)

    def _routes(self) -> list[BaseRoute]:
        """What the agent answers, beside its health."""
        routes = remedy.routes(DeadLetters(self._journal), self._forwarders, self._resending)
        stores = lambda: [store.store for store in self._stores]  # noqa: E731  as they are at the time
        routes += accounts.routes(self._journal, self._gaps, stores, self._config.agent.name, self._current_reader)
        routes.append(acknowledge.route(self._journal))
        routes += limits.routes(self._journal, self._judge, self._current_reader, lambda: self._config)
        if self._current_reader() is None:
            return routes
        routes += queries.routes(self._reader)
        routes += partreport.routes(self._reader)
        routes += capabilityreport.routes(self._reader, lambda: self._config)
        routes += oeereport.routes(self._reader, lambda: self._config, self._gaps.since)
        if self._board is not None:
            routes += self._board(self._reader, self.status, self._drain.is_set)
        return routes

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
        self._actions.wake()

    def _chores(self) -> list[Task]:
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

        chores = ((_TICK, tick), (_TICK, held), (_FIGURES_EVERY, figures), (_LEDGER_EVERY, ledger))
        return [self._watched.start(every(seconds, work)) for seconds, work in chores]

    def _figures(self) -> AgentRow:
        journal = self._journal.stats()
        sources = list(self._sources)
        figures = {
            "memory_bytes": float(resident_memory()),
            "journal_bytes": float(journal.bytes),
            "journal_records": float(journal.records),
            "uptime_seconds": (time.time_ns() - self._started) / 1e9,
            "sources_connected": float(sum(running.source.status().connected for running in sources)),
            "sources": float(len(sources)),
        }
        return AgentRow(time=time.time_ns(), agent=self._config.agent.name, figures=figures)


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()

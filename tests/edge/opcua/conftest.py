"""A node-opcua server under control of the test, a sink that records, and a source in a thread of its own."""

import asyncio
import contextlib
import itertools
import json
import os
import queue
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from edge.sources.base import Delivery, Over, SourceContext
from edge.sources.opcua import KIND, OpcuaConfig
from edge.sources.opcua.polling import PollingSource
from edge.sources.opcua.source import OpcuaSource
from fieldlab.config import Duration
from fieldlab.model import Batch, Gap, GapCause, Guarantee, SignalInfo, SignalKey, SignalTable, gap_id
from fieldlab.model.record import Row
from ingest.stores.base import DeadLetter

SERVER = Path(__file__).parents[2] / "interop" / "server.js"
EPOCH_TICKS = 116_444_736_000_000_000


class Reading(NamedTuple):
    """One reading, as the sink was given it."""

    name: str
    time: int
    value: float | int | str | None
    status: int


class RecordingSink:
    """Keeps everything in memory; futures are done by another thread, as a journal does it.

    `hold()` keeps them pending until `release()`.
    """

    def __init__(self, max_series: int = 100_000) -> None:
        self.table = SignalTable(max_series=max_series)
        self.infos: dict[int, SignalInfo] = {}
        self.scales: dict[str, tuple[float, float]] = {}
        self.batches: list[Batch] = []
        self.overflow: dict[int, int] = {}
        self.appends: list[tuple[Batch, Delivery | None]] = []
        self.letters: list[DeadLetter] = []
        self.backfilled: list[Batch] = []
        self.rows: list[Row] = []
        self.rests: dict[str, list[tuple[int, int]]] = {}
        self.known_gaps: dict[str, Gap] = {}
        self.deliveries: list[Delivery] = []
        self._free = threading.Event()
        self._free.set()
        self._queue: queue.SimpleQueue[Future[None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._commit, daemon=True)
        self._thread.start()

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        index = self.table.index(info.key)
        self.scales[info.key.name] = (scale, offset)
        self.infos[index] = info
        return index

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        return self.table.index(key)

    def append(
        self, batch: Batch, *, delivery: Delivery | None = None, overflow: dict[int, int] | None = None
    ) -> "Future[None]":
        self.batches.append(batch)
        self.appends.append((batch, delivery))
        if delivery is not None:
            self.deliveries.append(delivery)
        for signal, count in (overflow or {}).items():
            self.overflow[signal] = self.overflow.get(signal, 0) + count
        return self._later()

    def backfill(self, batch: Batch, *, delivery: Delivery | None = None) -> "Future[None]":
        self.backfilled.append(batch)
        return self._later()

    def write(self, rows: Sequence[Row]) -> "Future[None]":
        self.rows += rows
        return self._later()

    def set_aside(self, letters: Sequence[DeadLetter], *, delivery: Delivery | None = None) -> "Future[None]":
        self.letters.extend(letters)
        return self._later()

    # Gaps, as `ingest.gaps` has them but for what flaps: newest revision of each in `known_gaps`, by id.

    def open_gap(self, source: str, cause: GapCause, since: Mapping[int, int], *, detail: str = "") -> None:
        for signal, start in since.items():
            if not self._open_gaps(source, cause, {signal: 0}):
                self._gap(source, cause, signal, start, state="open", detail=detail)

    def end_gap(
        self,
        source: str,
        until: Mapping[int, int] | int,
        *,
        state: Over,
        cause: GapCause | None = None,
        lost: int = 0,
        detail: str = "",
    ) -> None:
        for gap in self._open_gaps(source, cause, until):
            end = until if isinstance(until, int) else until[self.table.index(gap.key)]
            self.known_gaps[gap.id] = msgspec.structs.replace(
                gap, state=state, end=max(end, gap.time), lost=gap.lost + lost, detail=detail or gap.detail
            )

    def note_gap(
        self,
        source: str,
        cause: GapCause,
        spans: Mapping[int, tuple[int, int]],
        *,
        state: Over = "ended",
        lost: Mapping[int, int] | int = 0,
        detail: str = "",
    ) -> None:
        for signal, (start, end) in spans.items():
            count = lost if isinstance(lost, int) else lost.get(signal, 0)
            self._gap(source, cause, signal, start, state=state, end=end, lost=count, detail=detail)

    def gaps(self, source: str) -> list[Gap]:
        found = [g for g in self.known_gaps.values() if g.source == source and g.state in ("open", "ended")]
        return sorted(found, key=lambda gap: gap.time)

    def close_gaps(
        self,
        recovered: Mapping[str, int],
        *,
        state: Over = "closed",
        detail: str = "",
        rests: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ) -> "Future[None]":
        for id_, count in recovered.items():
            if (gap := self.known_gaps.get(id_)) is not None:
                self.known_gaps[id_] = msgspec.structs.replace(
                    gap, state=state, recovered=gap.recovered + count, detail=detail or gap.detail
                )
                self.rests[id_] = list((rests or {}).get(id_, ()))
        return self._later()

    def signals_of(self, source: str) -> dict[int, SignalKey]:
        return {i: self.table[i] for i in range(len(self.table))}

    def last_times(self, signals: Iterable[int]) -> dict[int, int]:
        wanted = set(signals)
        found: dict[int, int] = {}
        for batch in list(self.batches):
            for signal, time in zip(batch.signal.tolist(), batch.time.tolist(), strict=True):
                if signal in wanted:
                    found[signal] = max(time, found.get(signal, time))
        return found

    def _gap(self, source: str, cause: GapCause, signal: int, start: int, **rest: Any) -> None:
        key = self.table[signal]
        made = Gap(
            time=start, key=key, agent="a", cause=cause, id=gap_id(key, source, cause, start), source=source, **rest
        )
        self.known_gaps[made.id] = made

    def _open_gaps(self, source: str, cause: GapCause | None, signals: Mapping[int, int] | int) -> list[Gap]:
        return [
            g
            for g in self.known_gaps.values()
            if (g.source, g.state) == (source, "open")
            and cause in (None, g.cause)
            and (isinstance(signals, int) or self.table.index(g.key) in signals)
        ]

    def _later(self) -> "Future[None]":
        future: Future[None] = Future()
        self._queue.put(future)
        return future

    def _commit(self) -> None:
        while (future := self._queue.get()) is not None:
            self._free.wait()
            future.set_result(None)

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def close(self) -> None:
        self._free.set()
        self._queue.put(None)
        self._thread.join()

    def readings(self, name: str | None = None) -> list[Reading]:
        """Everything appended, in order; of one signal if `name` is given."""
        found = []
        for batch in list(self.batches):
            texts = batch.texts()
            integers = dict(zip(batch.integer_row.tolist(), batch.integer.tolist(), strict=True))
            columns = zip(
                batch.signal.tolist(), batch.time.tolist(), batch.value.tolist(), batch.status.tolist(), strict=True
            )
            for row, (signal, time, value, status) in enumerate(columns):
                known: Any = texts.get(row, integers.get(row, value))
                found.append(Reading(self.table[signal].name, time, None if known != known else known, status))
        return [r for r in found if name in (None, r.name)]


class Interop:
    """tests/interop/server.js, as a process."""

    def __init__(self, node_modules: Path, folder: Path, port: int, **options: Any) -> None:
        self.url = f"opc.tcp://127.0.0.1:{port}/interop"
        self.uri = "urn:fieldlab:interop"
        self.prefix = ""
        self._modules = node_modules
        self._folder = folder
        self.options = {"port": port, "pki": str(folder / "pki"), **options}
        self.process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    def start(self, **options: Any) -> "Interop":
        self.options.update(options)
        with (self._folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["node", str(SERVER), json.dumps(self.options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"NODE_OPCUA_MODULES": str(self._modules), "PATH": os.environ["PATH"]},
            )
        self._rest = b""
        assert self._line(60)["ready"]
        return self

    def _line(self, timeout: float = 30) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        while True:
            line, found, self._rest = self._rest.partition(b"\n")
            if not found:
                self._rest = line
                ready, _, _ = select.select([self.process.stdout], [], [], timeout)
                chunk = os.read(self.process.stdout.fileno(), 1 << 20) if ready else b""
                if not chunk:
                    pytest.fail(f"the node-opcua server said nothing: {self.log[-2000:]}")
                self._rest += chunk
            elif line.startswith(b"{"):
                answer: dict[str, Any] = json.loads(line)
                return answer

    @property
    def log(self) -> str:
        return (self._folder / "server.log").read_text("utf-8", "replace")

    def ask(self, command: str, **rest: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.send(command, **rest)
        return self.answer()

    def send(self, command: str, **rest: Any) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"command": command, **rest}).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        answer = self._line()
        assert "error" not in answer, answer["error"]
        return answer

    def produced(self, name: str | None = None) -> list[tuple[str, int, Any, int]]:
        """(name, ns, value, status) of everything that the server produced."""
        rows = self.ask("produced")["produced"]
        return [
            (n, (int(t) - EPOCH_TICKS) * 100, value, status) for n, t, value, status, _ in rows if name in (None, n)
        ]

    def unacknowledged(self, source: "Running") -> list[int]:
        """What the server still holds for `source`."""
        return [n for s in self.subscriptions(source) for n in s["unacknowledged"]]

    def subscriptions(self, source: "Running") -> list[dict[str, Any]]:
        """What the server says of the subscription of `source`; empty if no session has it."""
        assert isinstance(source.opcua, OpcuaSource)
        feed = source.opcua._feed
        found = self.ask("subscriptions")["subscriptions"]
        return [s for s in found if feed is not None and s["id"] == feed.id]

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self.process = None


class Share:
    """A test's own variables on the server that all tests share: names get a prefix on the way there."""

    def __init__(self, server: Interop, number: int, variables: dict[str, Any]) -> None:
        self.server = server
        self.url = server.url
        self.uri = server.uri
        self.prefix = f"t{number}."
        for name, what in variables.items():
            self.ask("add", name=name, **what)

    def send(self, command: str, **rest: Any) -> None:
        if "name" in rest:
            rest["name"] = self.prefix + rest["name"]
        if "names" in rest:
            rest["names"] = [self.prefix + name for name in rest["names"]]
        self.server.send(command, **rest)

    def ask(self, command: str, **rest: Any) -> dict[str, Any]:
        self.send(command, **rest)
        return self.server.answer()

    def produced(self, name: str | None = None) -> list[tuple[str, int, Any, int]]:
        ours = [
            (n.removeprefix(self.prefix), *rest) for n, *rest in self.server.produced() if n.startswith(self.prefix)
        ]
        return [(n, t, value, status) for n, t, value, status in ours if name in (None, n)]

    def unacknowledged(self, source: "Running") -> list[int]:
        return self.server.unacknowledged(source)

    def subscriptions(self, source: "Running") -> list[dict[str, Any]]:
        return self.server.subscriptions(source)


class Running:
    """A source in a thread."""

    def __init__(self, config: OpcuaConfig, context: SourceContext, sink: RecordingSink) -> None:
        self.source = KIND.create(config, context, sink)
        assert isinstance(self.source, OpcuaSource | PollingSource)
        self.opcua = self.source
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self.error: BaseException | None = None
        self._thread.start()
        self._started.wait()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started.set()
        try:
            await self.source.run(self._stop)
        except BaseException as e:
            self.error = e
            raise

    @property
    def status(self) -> Any:
        return self.source.status()

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
        assert not self._thread.is_alive(), "the source does not stop"
        assert self.error is None, self.error


def bind(table: dict[str, Any]) -> OpcuaConfig:
    def custom(kind: type, value: Any) -> Any:
        return Duration.parse(value) if kind is Duration else kind(value)

    return msgspec.convert(table, OpcuaConfig, dec_hook=custom)


@pytest.fixture(scope="session")
def shared(
    node_opcua: Path, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Callable[[dict[str, Any]], Share]]:
    """`shared(variables)` adds variables to one server, which starts in 2 s of CPU and so is started once."""
    servers: list[Interop] = []
    numbers = itertools.count()

    def make(variables: dict[str, Any]) -> Share:
        if not servers:
            servers.append(Interop(node_opcua, tmp_path_factory.mktemp("shared"), free_port()))
            servers[0].start()
        return Share(servers[0], next(numbers), variables)

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def interop(
    node_opcua: Path, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Callable[..., Interop]]:
    """`interop(**options)` starts a node-opcua server of the test's own; see server.js."""
    running: list[Interop] = []

    def make(**options: Any) -> Interop:
        server = Interop(node_opcua, tmp_path_factory.mktemp("interop"), free_port(), **options)
        running.append(server)
        return server.start()

    yield make
    for server in running:
        server.kill()


@pytest.fixture
def sink() -> Iterator[RecordingSink]:
    made = RecordingSink()
    yield made
    made.close()


@pytest.fixture
def new_sink() -> Iterator[Callable[..., RecordingSink]]:
    made: list[RecordingSink] = []

    def make(**options: Any) -> RecordingSink:
        made.append(RecordingSink(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def context(tmp_path: Path) -> SourceContext:
    return SourceContext(
        name="opcua-0", agent="line-3", index=0, site="drachten", area="shavers", line="3", data=tmp_path / "data"
    )


@pytest.fixture
def table() -> Callable[..., OpcuaConfig]:
    """`table(server, names, **keys)`: the configuration of a source that reads these variables."""

    def make(server: Interop | Share, names: Sequence[str | dict[str, Any]], **keys: Any) -> OpcuaConfig:
        signals = [
            {"node": f"nsu={server.uri};s={server.prefix}{n}", "name": n} if isinstance(n, str) else n for n in names
        ]
        defaults = {
            "kind": "opcua", "url": server.url, "machine": "cnc-07", "security": "none", "interval": "20ms",
            "sampling": "0ms", "keep_alive": "500ms", "retry_missing": "300ms", "queue": 1000,
        }  # fmt: skip
        return bind({**defaults, "signal": signals, **keys})

    return make


@pytest.fixture
def run_source(context: SourceContext) -> Iterator[Callable[..., Running]]:
    """`run_source(config, sink)` runs a source in a thread, and stops it at the end of the test."""
    running: list[Running] = []

    def make(config: OpcuaConfig, into: RecordingSink) -> Running:
        running.append(Running(config, context, into))
        return running[-1]

    yield make
    for one in running:
        one.stop()


class Proxy:
    """Forwards to a server; can swallow what comes (`swallow`), and cut every connection (`cut`).

    `allow` is how many bytes of the server still pass on each connection, then it hangs; `delay` holds up each piece.
    """

    def __init__(self, port: int, to: int) -> None:
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", port))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.swallow = False
        self.open = True
        self.allow: int | None = None
        self.delay = 0.0
        self._passed: dict[socket.socket, int] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
            except OSError:
                return
            if not self.open:
                ours.close()
                continue
            theirs = socket.create_connection(("127.0.0.1", self._to))
            self._pairs.append((ours, theirs))
            self._passed[theirs] = 0
            for source, sink in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                if self.delay:
                    threading.Event().wait(self.delay)
                if self.allow is not None and source in self._passed:
                    data = data[: max(0, self.allow - self._passed[source])]
                    self._passed[source] += len(data)
                if data and not self.swallow:
                    sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                hang_up(end)

    def cut(self) -> None:
        for pair in self._pairs:
            for end in pair:
                hang_up(end)
        self._pairs.clear()

    def hang_after(self, octets: int) -> None:
        """Each connection, also those that are up, hangs after so many more bytes of the server."""
        self._passed = dict.fromkeys(self._passed, 0)
        self.allow = octets

    def close(self) -> None:
        self._listener.close()
        self.cut()


RECOVERIES: list[tuple[str, float, float]] = []


@pytest.fixture
def recovered() -> Callable[[str, float, float], None]:
    """`recovered(event, seconds, within)` asserts how long a recovery took, and puts it into the table at the end."""

    def note(event: str, seconds: float, within: float) -> None:
        RECOVERIES.append((event, seconds, within))
        assert seconds < within, f"{event}: {seconds:.1f} s"

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long the recovery from each event took."""
    if RECOVERIES:
        terminalreporter.section("OPC UA: recovery times")
    for event, seconds, within in RECOVERIES:
        terminalreporter.line(f"{seconds:8.2f} s (of {within:3.0f})  {event}")


def hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@pytest.fixture
def proxy(free_port: Any) -> Iterator[Callable[[Any], Proxy]]:
    """`proxy(server)` puts one before a server, whose `url` then leads to it."""
    made: list[Proxy] = []

    def make(server: Any) -> Proxy:
        port = free_port()
        to = int(server.url.split(":")[2].split("/")[0])
        server.url = server.url.replace(f":{to}/", f":{port}/")
        made.append(Proxy(port, to))
        return made[-1]

    yield make
    for one in made:
        one.close()

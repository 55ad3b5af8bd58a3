"""A recording sink, a source that runs beside the test, a publisher, an edge node: everything around a real broker."""

import asyncio
import base64
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edge.agent import Agent
from edge.config import load
from edge.sources.base import Delivery, Over, SourceContext
from edge.sources.mqtt import KIND
from edge.sources.mqtt.config import MqttConfig, validate
from edge.sources.mqtt.formats import dialect_of
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.source import MqttSource
from fieldlab.cli.common import ask_agent
from fieldlab.model import Batch, Gap, GapCause, Guarantee, SignalInfo, SignalKey, SignalTable, gap_id
from fieldlab.model.record import Row
from ingest.stores.base import DeadLetter

INTEROP = Path(__file__).parents[2] / "interop"


class Kept(msgspec.Struct, frozen=True, eq=False):
    """One call of the sink."""

    batch: Batch | None
    letters: tuple[DeadLetter, ...]
    delivery: Delivery | None
    future: Future[None]


class RecordingSink:
    """Keeps what it is given; the test says when it counts as on disk (`hold`, `release`)."""

    def __init__(self) -> None:
        self.table = SignalTable()
        self.guarantees: dict[str, Guarantee] = {}
        self.calls: list[Kept] = []
        self.rows: list[Row] = []
        self.past: list[Batch] = []
        self.known_gaps: dict[str, Gap] = {}
        self.hold = False
        self._lock = threading.Lock()

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        return self.index(info.key, info.guarantee)

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        self.guarantees[key.short] = guarantee
        return self.table.index(key)

    def append(
        self, batch: Batch, *, delivery: Delivery | None = None, overflow: dict[int, int] | None = None
    ) -> Future[None]:
        return self._keep(batch, (), delivery)

    def backfill(self, batch: Batch, *, delivery: Delivery | None = None) -> Future[None]:
        self.past.append(batch)
        return self._keep(batch, (), delivery)

    def write(self, rows: Sequence[Row]) -> Future[None]:
        self.rows += rows
        return self._keep(None, (), None)

    def set_aside(self, letters: Sequence[DeadLetter], *, delivery: Delivery | None = None) -> Future[None]:
        return self._keep(None, tuple(letters), delivery)

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
    ) -> Future[None]:
        for id_, count in recovered.items():
            if (gap := self.known_gaps.get(id_)) is not None:
                self.known_gaps[id_] = msgspec.structs.replace(
                    gap, state=state, recovered=gap.recovered + count, detail=detail or gap.detail
                )
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def signals_of(self, source: str) -> dict[int, SignalKey]:
        return {i: self.table[i] for i in range(len(self.table))}

    def last_times(self, signals: Iterable[int]) -> dict[int, int]:
        wanted = set(signals)
        found: dict[int, int] = {}
        for batch in [call.batch for call in self.calls if call.batch is not None]:
            for signal, at in zip(batch.signal.tolist(), batch.time.tolist(), strict=True):
                if signal in wanted:
                    found[signal] = max(at, found.get(signal, at))
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

    def _keep(self, batch: Batch | None, letters: tuple[DeadLetter, ...], delivery: Delivery | None) -> Future[None]:
        future: Future[None] = Future()
        with self._lock:
            self.calls.append(Kept(batch, letters, delivery, future))
        if not self.hold:
            future.set_result(None)
        return future

    def release(self, first: int = 0, last: int | None = None) -> None:
        """Say that calls [first, last) are on disk."""
        for call in self.calls[first:last]:
            if not call.future.done():
                call.future.set_result(None)

    def readings(self, first: int = 0) -> list[tuple[str, int, Any, int]]:
        """(machine/signal, time, value or text, status) of every reading of the calls from `first`, in order."""
        found: list[tuple[str, int, Any, int]] = []
        for call in self.calls[first:]:
            if (batch := call.batch) is not None:
                texts = batch.texts()
                found += [
                    (
                        self.table[int(batch.signal[i])].short,
                        int(batch.time[i]),
                        texts.get(i, float(batch.value[i])),
                        int(batch.status[i]),
                    )
                    for i in range(len(batch))
                ]
        return found

    def values(self, first: int = 0) -> list[Any]:
        """Values of the Good readings, in order."""
        return [value for _, _, value, status in self.readings(first) if status == 0]

    def letters(self) -> list[DeadLetter]:
        return [letter for call in self.calls for letter in call.letters]

    def deliveries(self, first: int = 0) -> list[tuple[int, int, bool]]:
        """(id, hash, redelivered) of every acknowledged message of the calls from `first`, in order."""
        return [
            (int(i), int(h), bool(r))
            for call in self.calls[first:]
            if (d := call.delivery) is not None
            for i, h, r in zip(d.ids, d.hashes, d.redelivered, strict=True)
        ]


class Ear:
    """The dialect of a format, without a broker: what it makes of messages."""

    def __init__(self, context: SourceContext, form: str, keys: dict[str, Any]) -> None:
        self.config = MqttConfig(url="mqtt://host", format=form, **keys)
        validate(self.config, context)
        self.infos: dict[str, SignalInfo] = {}
        self.rows = Rows()
        self.arrival = 1_795_000_000_000_000_000
        self._table = SignalTable()
        self.dialect: Any = dialect_of(self.config, context, self)

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        assert info.key.name not in self.infos or info.key.place != self.infos[info.key.name].key.place, "told twice"
        self.infos[info.key.name] = info
        return self._table.index(info.key)

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        self.infos[key.name] = msgspec.structs.replace(self.infos[key.name], guarantee=guarantee)
        return self._table.index(key)

    def say(self, topic: str, payload: Any, *, qos: int = 1, retained: bool = False) -> list[tuple[str, Any, int, int]]:
        """(machine/signal, value or text, time, status) of a message's readings."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.arrival += 1_000_000_000
        added = self.dialect.read(topic.encode(), body, self.arrival, self.rows, retained=retained, qos=qos)
        if not added:
            return []
        batch = self.rows.build()
        batch.check()
        assert len(batch) == added
        texts = batch.texts()
        return [
            (
                self._table[int(batch.signal[i])].short,
                texts.get(i, None if np.isnan(batch.value[i]) else float(batch.value[i])),
                int(batch.time[i]),
                int(batch.status[i]),
            )
            for i in range(added)
        ]

    def values(self, topic: str, payload: Any, **how: Any) -> dict[str, Any]:
        """Signal → value; a signal that comes twice has its last."""
        return {name.partition("/")[2]: value for name, value, _, _ in self.say(topic, payload, **how)}


class Running:
    """A source that runs in a thread of its own, as under an agent."""

    def __init__(self, source: MqttSource) -> None:
        self.source = source
        self.error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self.source.run(self._stop))
        except BaseException as e:  # noqa: BLE001  # the fixture asserts that there was none
            self.error = e
        finally:
            self._loop.close()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive(), "the source does not stop"

    def cut(self) -> None:
        """Cut the connection from outside, as a network does."""
        sock: Any = self.source._client.socket()
        sock.shutdown(2)

    def counter(self, name: str) -> int:
        return self.source.status().counters[name]


class Publisher:
    """A real client that publishes at QoS 1 and waits for the broker's acknowledgement."""

    def __init__(self, broker: Any) -> None:
        self.client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self.client.max_queued_messages_set(0)
        self.client.max_inflight_messages_set(1000)
        self.client.username_pw_set(broker.user, broker.password)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def send(self, topic: str, *payloads: str | bytes, qos: int = 1, retain: bool = False) -> None:
        infos = [self.client.publish(topic, payload, qos=qos, retain=retain) for payload in payloads]
        for info in infos:
            info.wait_for_publish(20)
            assert info.is_published()

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def new_sink() -> Callable[[], RecordingSink]:
    return RecordingSink


@pytest.fixture
def context(tmp_path: Path) -> SourceContext:
    return SourceContext(
        name="mqtt-0", agent="line-3", index=0, site="drachten", area="shavers", line="3", data=tmp_path / "data"
    )


@pytest.fixture
def configure() -> Callable[..., MqttConfig]:
    """`configure(broker, **keys)` gives a configuration for a broker of the fixture `mosquitto`."""

    def make(broker: Any, **keys: Any) -> MqttConfig:
        made: dict[str, Any] = {"username": broker.user, "password_file": broker.password_file, **keys}
        return MqttConfig(url=broker.url, **made)

    return make


@pytest.fixture
def run(
    configure: Callable[..., MqttConfig], context: SourceContext, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Running]]:
    """`run(broker, sink, **keys)` starts a source and waits until it is subscribed (not with `wait=False`)."""
    monkeypatch.setattr("edge.sources.mqtt.source._FAREWELL", 0.3)  # tests hold what an agent's journal finishes
    monkeypatch.setattr("edge.sources.mqtt.source._BACK_OFF", (0.05, 0.2))
    running: list[Running] = []

    def start(broker: Any, sink: RecordingSink, *, wait: bool = True, **keys: Any) -> Running:
        source = KIND.create(configure(broker, **keys), context, sink)
        assert isinstance(source, MqttSource)
        made = Running(source)
        running.append(made)
        if wait:
            wait_until(lambda: made.source._subscriptions.answered, what=f"subscribed; {made.source.status()}")
        return made

    yield start
    for made in running:
        made.stop()
        assert made.error is None


@pytest.fixture
def publisher() -> Iterator[Callable[[Any], Publisher]]:
    """`publisher(broker)` connects a publisher."""
    made: list[Publisher] = []

    def connect(broker: Any) -> Publisher:
        made.append(Publisher(broker))
        return made[-1]

    yield connect
    for each in made:
        each.close()


@pytest.fixture
def ear(context: SourceContext) -> Callable[..., Ear]:
    """`ear(format, **keys)` is a dialect that listens; see `Ear`."""
    return lambda form, **keys: Ear(context, form, keys)


@pytest.fixture
def payload() -> Callable[..., str]:
    """`payload(value, offset)` is one native message; times are whole milliseconds apart."""
    start = time.time_ns() // 1_000_000_000

    def make(value: float, offset: int = 0) -> str:
        return f'{{"value": {value!r}, "ts": {start * 1000 + offset}, "status": 0}}'

    return make


@pytest.fixture
def isnan() -> Callable[[Any], bool]:
    return lambda value: bool(np.isnan(value))


class Encoder:
    """npm's sparkplug-payload in a process of its own; see tests/interop/sparkplug.js."""

    def __init__(self, node: str) -> None:
        self._process = subprocess.Popen(
            [node, str(INTEROP / "sparkplug.js")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=INTEROP
        )

    def __call__(self, payload: dict[str, Any]) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(payload).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the encoder refuses {payload}"
        return base64.b64decode(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def encode(sparkplug_payload: str) -> Iterator[Encoder]:
    """`encode(payload)` is the bytes that npm's encoder makes of it."""
    made = Encoder(sparkplug_payload)
    yield made
    made.close()


class EdgeNode:
    """An edge node: births, data and deaths as the specification wants them, with npm's encoder.

    `births` and `data` return (topic, payload), not yet published.
    """

    def __init__(self, encode: Encoder, group: str = "g", node: str = "n") -> None:
        self.group, self.node = group, node
        self.bdseq = 0
        self.seq = 0
        self.clock = time.time_ns() // 1_000_000 - 60_000
        self._encode = encode

    def topic(self, kind: str, device: str = "") -> str:
        return f"spBv1.0/{self.group}/{kind}/{self.node}" + (f"/{device}" if device else "")

    def tick(self) -> int:
        self.clock += 1
        return self.clock

    def metric(self, name: str | None, value: Any, type: str = "Double", **more: Any) -> dict[str, Any]:  # noqa: A002  # npm's word
        made = {"value": value, "type": type, "timestamp": self.tick(), **more}
        return made if name is None else {"name": name, **made}

    def _next(self, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        made = {"timestamp": self.tick(), "seq": self.seq, "metrics": metrics}
        self.seq = (self.seq + 1) % 256
        return made

    def nbirth(self, *metrics: dict[str, Any], bdseq: int | None = None) -> tuple[str, bytes]:
        self.seq = 0
        self.bdseq = self.bdseq if bdseq is None else bdseq
        own = self.metric("bdSeq", self.bdseq, "UInt64")
        control = self.metric("Node Control/Rebirth", value=False, type="Boolean")
        return self.topic("NBIRTH"), self._encode(self._next([own, control, *metrics]))

    def ndeath(self, bdseq: int | None = None) -> tuple[str, bytes]:
        own = {"name": "bdSeq", "value": self.bdseq if bdseq is None else bdseq, "type": "UInt64"}
        return self.topic("NDEATH"), self._encode({"timestamp": self.tick(), "metrics": [own]})

    def send(self, kind: str, *metrics: dict[str, Any], device: str = "") -> tuple[str, bytes]:
        return self.topic(kind, device), self._encode(self._next(list(metrics)))


@pytest.fixture
def edge_node(encode: Encoder) -> Callable[..., EdgeNode]:
    """`edge_node(group, node)` is a new edge node."""
    return lambda *names: EdgeNode(encode, *names)


@pytest.fixture
def live_agent(wait_until: Any) -> Callable[[Path], contextlib.AbstractContextManager[Path]]:
    """`with live_agent(file) as data` runs an agent in this process until then; `data` is its folder."""

    @contextlib.contextmanager
    def live(file: Path) -> Iterator[Path]:
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()
        config = load(file)

        async def run() -> None:
            await Agent(config).run(stop)

        thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
        thread.start()
        data = config.agent.data

        def up() -> bool:
            status = ask_agent(data, "/status")
            return status is not None and all(each["connected"] for each in status["sources"])

        try:
            wait_until(up, 30, what="a connected agent")
            yield data
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(30)
            loop.close()

    return live

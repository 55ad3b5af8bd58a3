"""The tests that every kind of source passes, ours and others': subclass `SourceContract` in a test module of pytest.

A plug-in's author writes one thing, a `Device`: something real that speaks the protocol, on loopback, which the tests
can make produce, cut off and restore. The sink is the real one, with a real journal behind it; only the moment at which
it says "on disk" can be held back.

    class TestMine(SourceContract):
        kind = KIND

        @pytest.fixture
        def device(self): ...   # yields a `Device`
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import msgspec
import numpy as np
import pytest

from edge.catalog import Catalog
from edge.intake import Intake
from edge.sources.base import Delivery, Source, SourceContext, SourceKind
from fieldlab.config import Document
from fieldlab.errors import ConfigError
from fieldlab.model import Batch, Guarantee, RecordKind
from fieldlab.model.status import BAD_NO_COMMUNICATION
from ingest.gaps import Gaps
from ingest.journal import Journal
from ingest.stores.base import DeadLetter

_KINDS = frozenset({RecordKind.READINGS, RecordKind.BACKFILL})
_PENDING = 200_000  # readings that may wait for the disk: more is not bounded


class Device(Protocol):
    """Something that a source of the kind can read, on loopback."""

    def table(self) -> str:
        """The `[[source]]` table that reads it, as TOML; secrets in files."""
        ...

    def produce(self, count: int) -> Mapping[str, Sequence[float]]:
        """Have it send `count` values of each signal, none of them sent before: `machine/signal` → values, in order."""
        ...

    def cut(self) -> None:
        """Cut it off, as a network or a power switch does."""
        ...

    def restore(self) -> None:
        """End `cut`, at the same address."""
        ...

    def spoil(self) -> bool:
        """Have it send something that cannot be read; False if its protocol has no such thing."""
        ...


class Reading(NamedTuple):
    """One reading, as the journal has it."""

    signal: str
    time: int
    value: float
    status: int


class Gate(Intake):
    """The sink of an agent, whose word that a reading is on disk can be held back, or be a refusal.

    Attributes:
        given: readings that the source handed over.
    """

    def __init__(self, journal: Journal) -> None:
        catalog = Catalog(journal.signals, (), lambda info: _ignore(journal.write([info])))
        super().__init__("contract-0", journal, catalog, Gaps(journal, "contract"))
        self._gate = threading.Lock()
        self._held: list[tuple[Future[None], Future[None]]] = []
        self._closed = self._refusing = False
        self.given = 0

    def append(
        self, batch: Batch, *, delivery: Delivery | None = None, overflow: dict[int, int] | None = None
    ) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        self.given += len(batch)
        if self._refusing:
            return self._refuse()
        return self._pass(super().append(batch, delivery=delivery, overflow=overflow))

    def set_aside(self, letters: Sequence[DeadLetter], *, delivery: Delivery | None = None) -> "Future[None]":
        """See `edge.sources.base.Sink`."""
        if self._refusing:
            return self._refuse()
        return self._pass(super().set_aside(letters, delivery=delivery))

    def hold(self) -> None:
        """From now on nothing is said to be on disk."""
        with self._gate:
            self._closed = True

    def release(self) -> None:
        """End `hold` and `refuse`."""
        with self._gate:
            self._closed = self._refusing = False
            held, self._held = self._held, []
        for inner, outer in held:
            inner.add_done_callback(partial(_copy, outer))

    def refuse(self) -> None:
        """From now on nothing gets to disk, and the source is told."""
        self._refusing = True

    def _pass(self, inner: "Future[None]") -> "Future[None]":
        with self._gate:
            if not self._closed:
                return inner
            outer: Future[None] = Future()
            self._held.append((inner, outer))
            return outer

    def _refuse(self) -> "Future[None]":
        refused: Future[None] = Future()
        refused.set_exception(OSError("the disk refuses"))
        return refused


def _ignore(_: "Future[None]") -> None:
    """A description is in the journal soon."""


def _copy(to: "Future[None]", done: "Future[None]") -> None:
    error = done.exception()
    if error is None:
        to.set_result(None)
    else:
        to.set_exception(error)


class Bench:
    """A source under test, on a journal of its own. It may be stopped and started anew, as an agent is.

    Attributes:
        gate: the sink.
        source: the one that runs, or ran last.
    """

    def __init__(self, kind: SourceKind, table: str, folder: Path, patience: float = 60.0) -> None:
        self.file = folder / "fieldlab.toml"
        self.file.write_text(table, "utf-8")
        document = Document(self.file)
        self.config = document.bind(kind.config, document.data["source"][0], "source[0]")
        self.context = SourceContext(
            name="contract-0", agent="contract", index=0, site="s", area="a", line="l", data=folder / "data"
        )
        self.context.data.mkdir()
        self._kind = kind
        self._patience = patience
        self.journal = Journal(self.context.data / "journal.db")
        self.gate = Gate(self.journal)
        self.source: Source = kind.create(self.config, self.context, self.gate)
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, *, anew: bool = False) -> None:
        """Run the source in a thread; `anew`: a new one, as after a restart of the agent."""
        if anew:
            self.source = self._kind.create(self.config, self.context, self.gate)
        began = threading.Event()

        async def run() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            began.set()
            await self.source.run(self._stop)

        def main() -> None:
            try:
                asyncio.run(run())
            except BaseException as e:  # noqa: BLE001  `stop` raises it in the test's thread
                self._error = e

        self._thread = threading.Thread(target=main, daemon=True)
        self._thread.start()
        assert began.wait(10)

    def stop(self, seconds: float = 30) -> None:
        """Stop the source, which must end in time and without an error."""
        if self._thread is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # it ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"the source does not stop within {seconds:.0f} s"
        self._thread = None
        assert self._error is None, f"run() raised {self._error!r}"

    def close(self) -> None:
        """End everything."""
        self.gate.release()
        try:
            self.stop()
        finally:
            self.journal.close()

    def readings(self) -> list[Reading]:
        """Everything that the journal has, in order."""
        found: list[Reading] = []
        position = 0
        while records := (chunk := self.journal.read(position, _KINDS)).records:
            position = chunk.upto
            for batch in (record.batch for record in records if record.batch is not None):
                columns = (batch.signal.tolist(), batch.time.tolist(), batch.value.tolist(), batch.status.tolist())
                found += [
                    Reading(self.journal.signals[s].short, t, v, status)
                    for s, t, v, status in zip(*columns, strict=True)
                ]
        return found

    def values(self) -> dict[str, list[float]]:
        """Good values of each signal, in order."""
        found: dict[str, list[float]] = {}
        for reading in self.readings():
            if reading.status == 0 and not np.isnan(reading.value):
                found.setdefault(reading.signal, []).append(reading.value)
        return found

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition."""
        end = time.monotonic() + self._patience
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"not within {self._patience:.0f} s: {what}; {self.source.status()}")
            time.sleep(0.02)

    def until_read(self, produced: Mapping[str, Sequence[float]]) -> None:
        """Wait until the journal has everything that was produced."""

        def missing() -> list[str]:
            have = self.values()
            return [signal for signal, sent in produced.items() if set(sent) - set(have.get(signal, ()))]

        self.until(lambda: not missing(), f"everything of {sorted(produced)} is in the journal")

    def connect(self, device: Device) -> dict[str, list[float]]:
        """Start, and wait until values come; returns those."""
        self.start()
        self.until(lambda: self.source.status().connected, "connected")
        first = {signal: list(values) for signal, values in device.produce(3).items()}
        self.until_read(first)
        return first


class SourceContract:
    """What every source keeps. Give `kind`, and a fixture `device`.

    Attributes:
        kind: the kind under test.
        guarantee: of its readings, as `device` is configured. With `end-to-end`, what was not acknowledged comes again.
        patience: seconds to wait for anything.
    """

    kind: ClassVar[SourceKind]
    guarantee: ClassVar[Guarantee] = "end-to-end"
    patience: ClassVar[float] = 60.0

    @pytest.fixture
    def bench(self, device: Device, tmp_path: Path) -> Iterator[Bench]:
        """The source, not yet running."""
        made = Bench(self.kind, device.table(), tmp_path, self.patience)
        yield made
        made.close()

    def test_an_unknown_key_names_its_line(self, device: Device, tmp_path: Path) -> None:
        """A typing error is refused, not passed over."""
        file = tmp_path / "wrong.toml"
        file.write_text(device.table().replace("[[source]]", "[[source]]\nno_such_key = 1", 1), "utf-8")
        document = Document(file)
        with pytest.raises(ConfigError) as error:
            document.bind(self.kind.config, document.data["source"][0], "source[0]")
        assert (error.value.key, error.value.line) == ("source[0].no_such_key", 2)

    def test_making_it_touches_nothing(self, device: Device, tmp_path: Path) -> None:
        """A source is made before its machine is there; it says so, and tells no secret."""
        device.cut()
        bench = Bench(self.kind, device.table(), tmp_path, self.patience)
        try:
            status = bench.source.status()
            assert not status.connected
            assert status.error
            assert status.name == bench.source.name == "contract-0"
            assert "@" not in status.url
            assert msgspec.json.decode(msgspec.json.encode(status), type=type(status)) == status
        finally:
            bench.close()
            device.restore()

    def test_everything_is_read_once_and_in_order(self, bench: Bench, device: Device) -> None:
        """Each value arrives once, with a time of its own that can be true."""
        produced = bench.connect(device)
        for _ in range(5):
            for signal, values in device.produce(20).items():
                produced[signal] += values
        bench.until_read(produced)
        have = bench.values()
        for signal, values in produced.items():
            assert [v for v in have[signal] if v in set(values)] == values
        now = time.time_ns()
        for signal in produced:
            times = [r.time for r in bench.readings() if r.signal == signal and r.status == 0]
            assert times == sorted(set(times))
            assert all(now - 86_400 * 10**9 < t < now + 60 * 10**9 for t in times)
        status = bench.source.status()
        assert status.connected
        assert not status.error
        assert status.signals >= len(produced)
        assert status.last_data > 0
        assert all(isinstance(n, int) for n in status.counters.values())

    def test_what_waits_for_the_disk_is_bounded(self, bench: Bench, device: Device) -> None:
        """While the disk is slow the source does not pile up readings; afterwards it goes on."""
        produced = bench.connect(device)
        before = bench.gate.given
        bench.gate.hold()
        for _ in range(5):
            for signal, values in device.produce(50).items():
                produced[signal] += values
        assert bench.gate.given - before <= _PENDING
        bench.gate.release()
        if self.guarantee == "end-to-end":
            bench.until_read(produced)
        bench.until_read(device.produce(3))

    def test_what_was_not_acknowledged_comes_again(self, bench: Bench, device: Device) -> None:
        """A disk that refuses, and an agent that starts anew: what is `end-to-end` is neither lost nor doubled."""
        if self.guarantee != "end-to-end":
            pytest.skip("the guarantee of this source does not promise it")
        produced = bench.connect(device)
        bench.gate.refuse()
        given = bench.gate.given
        for signal, values in device.produce(5).items():
            produced[signal] += values
        bench.until(lambda: bench.gate.given > given, "readings were refused")
        bench.stop()
        bench.gate.release()
        bench.start(anew=True)
        bench.until_read(produced)
        have = bench.values()
        for signal, values in produced.items():
            assert sorted(v for v in have[signal] if v in set(values)) == sorted(values)

    def test_a_lost_connection_is_said_and_comes_back(self, bench: Bench, device: Device) -> None:
        """Each signal gets one status without a value, never an old value; then reading goes on by itself."""
        produced = bench.connect(device)
        device.cut()
        bench.until(
            lambda: not (now := bench.source.status()).connected and bool(now.error), "the loss is said, and why"
        )
        bench.until(
            lambda: {r.signal for r in bench.readings() if r.status == BAD_NO_COMMUNICATION} >= set(produced),
            "each signal is marked BadNoCommunication",
        )
        lost = [r for r in bench.readings() if r.status == BAD_NO_COMMUNICATION]
        assert sorted(r.signal for r in lost) == sorted({r.signal for r in lost})
        assert all(np.isnan(r.value) for r in lost)
        device.restore()
        bench.until(lambda: bench.source.status().connected, "connected again")
        bench.until_read(device.produce(3))
        bench.until(lambda: not bench.source.status().error, "nothing is wrong any more")

    def test_what_cannot_be_read_stops_nothing(self, bench: Bench, device: Device) -> None:
        """Poison is kept aside, with its reason, and reading goes on."""
        bench.connect(device)
        if not device.spoil():
            pytest.skip("its protocol has nothing that cannot be read")
        asked = "SELECT reason FROM deadletter WHERE reason != ''"
        bench.until(lambda: bool(bench.journal.select(asked)), "it is in the dead letter, with a reason")
        assert bench.gate.set_aside_count > 0
        bench.until_read(device.produce(3))

    def test_it_stops_in_time_and_runs_again(self, bench: Bench, device: Device) -> None:
        """Also while its machine is away."""
        bench.connect(device)
        bench.stop(20)
        bench.start()
        bench.until(lambda: bench.source.status().connected, "connected again")
        bench.until_read(device.produce(3))
        device.cut()
        bench.until(lambda: not bench.source.status().connected, "the loss is noticed")
        bench.stop(20)
        device.restore()

    def test_check_tells_what_is_wrong_and_disturbs_nothing(self, bench: Bench, device: Device) -> None:
        """Beside a running source, and with its machine away."""
        bench.connect(device)
        lines = asyncio.run(self.kind.check(bench.config, bench.context))
        assert lines
        assert [line.text for line in lines if line.level == "fail"] == []
        bench.until_read(device.produce(3))
        assert bench.source.status().connected
        device.cut()
        lines = asyncio.run(self.kind.check(bench.config, bench.context))
        assert [line for line in lines if line.level == "fail"]
        device.restore()

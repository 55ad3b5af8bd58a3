"""Two lanes a store, one ledger, and what a store that is behind may drop."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fieldlab.model import Batch, Record, RecordKind, SignalKey
from ingest.forwarder import Forwarder
from ingest.journal import Journal
from ingest.ledger import Ledger
from ingest.stores.base import QUERYABLE, DeadLetter, StoreUnavailableError

KEY = SignalKey.parse("drachten/shavers/3/cnc-07/diameter")


class Gate:
    """A store that the test opens and closes, and that notes what it was given, in order."""

    name = "gate"
    kinds = QUERYABLE

    def __init__(self) -> None:
        self.open = threading.Event()
        self.kinds_seen: list[RecordKind] = []
        self.values: list[float] = []

    def write(self, records: Sequence[Record]) -> Sequence[DeadLetter]:
        if not self.open.is_set():
            raise StoreUnavailableError("closed", retry_after=0.01)
        for record in records:
            self.kinds_seen.append(record.kind)
            if record.batch is not None:
                self.values += record.batch.value.tolist()
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db", max_bytes=2_000_000)
    yield made
    made.close()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def batch(first: int, count: int) -> Batch:
    return Batch.of([0] * count, np.arange(first, first + count) * 1_000, np.arange(first, first + count, dtype=float))


async def run_until(lanes: Sequence[Forwarder], journal: Journal, done: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def wake() -> None:
        for lane in lanes:
            loop.call_soon_threadsafe(lane.wake)

    journal.add_listener(wake)
    async with asyncio.timeout(60):
        await asyncio.gather(*(lane.run(done) for lane in lanes))


def test_both_lanes_arrive_and_the_ledger_adds_up(journal: Journal, thread: ThreadPoolExecutor) -> None:
    journal.signals.index(KEY)
    gate = Gate()
    gate.open.set()
    for i in range(20):
        journal.append(batch(1_000_000 + i * 1_000, 1_000), kind=RecordKind.BACKFILL).result()
    journal.append(batch(5_000_000, 10)).result()

    async def scenario() -> Sequence[Forwarder]:
        lanes = [Forwarder(journal, gate, thread), Forwarder(journal, gate, thread, backfill=True)]
        done = asyncio.Event()
        done.set()  # forward what there is, then end
        await run_until(lanes, journal, done)
        return lanes

    lanes = asyncio.run(scenario())
    assert sorted(gate.values) == [*range(1_000_000, 1_020_000), *range(5_000_000, 5_000_010)]
    # The live reading, committed last, is not behind the 20,000 of the back-fill.
    assert gate.kinds_seen.index(RecordKind.READINGS) < 5
    totals = Ledger(journal, [lanes], "test").totals()
    assert (totals["committed"], totals["stored"], totals["lost"]) == (20_010, 20_010, 0)
    assert journal.consumers() == ["gate", "gate.backfill"]


def test_counts_are_the_same_after_a_restart(journal: Journal, thread: ThreadPoolExecutor) -> None:
    journal.signals.index(KEY)
    gate = Gate()
    gate.open.set()

    async def scenario(count: int) -> Forwarder:
        lane = Forwarder(journal, gate, thread)
        for i in range(count):
            journal.append(batch(int(lane.counts.stored.sum()) + i * 10, 10)).result()
        done = asyncio.Event()
        done.set()
        await run_until([lane], journal, done)
        return lane

    assert asyncio.run(scenario(7)).counts.stored.tolist() == [70]
    assert asyncio.run(scenario(0)).counts.stored.tolist() == [70]
    assert asyncio.run(scenario(3)).counts.stored.tolist() == [100]


def test_a_store_that_is_behind_drops_the_oldest_counted_and_the_sources_go_on(
    journal: Journal, thread: ThreadPoolExecutor
) -> None:
    journal.signals.index(KEY)
    gate = Gate()
    sent = 0

    async def scenario() -> Forwarder:
        nonlocal sent
        lane = Forwarder(journal, gate, thread, drop_oldest=True)
        done = asyncio.Event()
        running = asyncio.create_task(run_until([lane], journal, done))
        async with asyncio.timeout(60):
            while not lane.counts.dropped.sum():
                await asyncio.wrap_future(journal.append(batch(sent, 5_000)))
                sent += 5_000
        gate.open.set()
        done.set()
        lane.wake()
        await running
        return lane

    lane = asyncio.run(scenario())
    dropped = int(lane.counts.dropped.sum())
    assert 0 < dropped < sent
    assert gate.values == [float(i) for i in range(dropped, sent)], "what was dropped is the oldest, and nothing else"
    totals = Ledger(journal, [[lane]], "test").totals()
    assert totals["committed"] == totals["stored"] + totals["dropped"]
    assert totals["lost"] == dropped


def test_a_store_that_holds_keeps_the_sources_waiting(journal: Journal, thread: ThreadPoolExecutor) -> None:
    journal.signals.index(KEY)
    gate = Gate()

    async def scenario() -> int:
        lane = Forwarder(journal, gate, thread)
        done = asyncio.Event()
        running = asyncio.create_task(run_until([lane], journal, done))
        sent = 0
        async with asyncio.timeout(60):
            while not journal.full:
                await asyncio.wrap_future(journal.append(batch(sent, 5_000)))
                sent += 5_000
            held = journal.append(batch(sent, 10))
            await asyncio.wrap_future(journal.write())  # rows and cursors still go through
            assert not held.done()
            gate.open.set()
            await asyncio.wrap_future(held)
        done.set()
        lane.wake()
        await running
        return sent + 10

    sent = asyncio.run(scenario())
    assert gate.values == [float(i) for i in range(sent)]

"""The ledger counted again from the disk: it adds up for every signal and store, and says where it does not."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fieldlab.model import Batch, Guarantee, Record, RecordKind, SignalKey
from ingest.audit import Audit, audit
from ingest.forwarder import Forwarder
from ingest.gaps import Gaps
from ingest.journal import Journal
from ingest.ledger import loss
from ingest.report import report
from ingest.stores.base import QUERYABLE, DeadLetter, StoreUnavailableError
from ingest.worker import Worker

KEYS = [SignalKey.parse(f"drachten/shavers/3/cnc-07/{name}") for name in ("load", "poison")]
SECOND = 1_000_000_000


class Store:
    """Keeps what is no poison; takes nothing while it is `away`."""

    kinds = QUERYABLE

    def __init__(self, name: str) -> None:
        self.name = name
        self.resent = 0

    def write(self, records: Sequence[Record]) -> list[DeadLetter]:
        letters = []
        for record in records:
            if record.batch is not None and (bad := int((record.batch.signal == 1).sum())):
                times = record.batch.time[record.batch.signal == 1]
                letters.append(
                    DeadLetter(
                        store=self.name, machine="drachten/shavers/3/cnc-07", signal="poison", readings=bad,
                        reason="field type conflict", first=int(times.min()), last=int(times.max()), body=b"",
                        counts={1: bad},
                    )
                )  # fmt: skip
        return letters

    def resend(self, letter: DeadLetter) -> list[DeadLetter]:
        self.resent += letter.readings
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    """Opens the one journal of the test; the one before is closed."""
    made: list[Journal] = []

    def make(**options: Any) -> Journal:
        if made:
            made[-1].close()
        made.append(Journal(tmp_path / "journal.db", **options))
        for key in KEYS:
            made[-1].signals.index(key)
        return made[-1]

    yield make
    made[-1].close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker("audit")
    yield made
    made.shutdown()


def batch(signal: int, start: int, count: int) -> Batch:
    return Batch.of([signal] * count, (np.arange(count) + start) * SECOND, np.arange(count, dtype=float))


def forward(*lanes: Forwarder) -> None:
    async def run() -> None:
        stop = asyncio.Event()
        stop.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*(lane.run(stop) for lane in lanes))

    asyncio.run(run())


def lanes_of(journal: Journal, store: Store, worker: Worker, gaps: Gaps | None = None) -> tuple[Forwarder, Forwarder]:
    return (
        Forwarder(journal, store, worker, gaps=gaps),
        Forwarder(journal, store, worker, backfill=True, gaps=gaps),
    )


def row(found: Audit, signal: int, store: int = 0) -> tuple[int, ...]:
    s = found.stores[store]
    columns = (s.before, s.stored, s.dead, s.dropped, s.waiting)
    return tuple(int(column[signal]) for column in columns)


def test_it_adds_up_for_each_store_at_any_moment(open_journal: Callable[..., Journal], worker: Worker) -> None:
    journal = open_journal()
    fast, slow = lanes_of(journal, Store("fast"), worker), lanes_of(journal, Store("slow"), worker)
    journal.append(batch(0, 0, 10)).result()
    journal.append(batch(1, 0, 4)).result()
    journal.append(batch(0, 9, 1)).result()  # the newest time again, with another value
    journal.append(batch(0, -20, 5), kind=RecordKind.BACKFILL).result()
    forward(*fast)
    found = audit(journal, ["fast", "slow"])
    assert found.broken() == {}
    assert (row(found, 0, 0), row(found, 1, 0)) == ((0, 16, 0, 0, 0), (0, 0, 4, 0, 0))
    assert (row(found, 0, 1), row(found, 1, 1)) == ((0, 0, 0, 0, 16), (0, 0, 0, 0, 4))
    forward(*slow)
    journal = open_journal()
    late = lanes_of(journal, Store("late"), worker)
    journal.append(batch(0, 100, 3)).result()
    forward(*late)
    found = audit(journal, ["fast", "slow", "late"])
    assert found.broken() == {}
    assert row(found, 0, 0)[-1] == 3, "waiting for the fast one, which does not run"
    assert row(found, 0, 2)[1:] == (19 - row(found, 0, 2)[0], 0, 0, 0)


@settings(max_examples=15, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(0, 1), st.integers(0, 50), st.integers(1, 40)),
            st.tuples(st.just("backfill"), st.integers(0, 1), st.integers(-50, 50), st.integers(1, 40)),
            st.tuples(st.sampled_from(["forward", "kill", "stop"]), st.just(0), st.just(0), st.just(0)),
        ),
        max_size=14,
    )
)
def test_it_adds_up_whatever_happens(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    """`kill` forgets what memory knows and takes the database as it is on disk."""
    path = tmp_path_factory.mktemp("audit") / "journal.db"
    worker = Worker("audit")
    journal = Journal(path)
    for key in KEYS:
        journal.signals.index(key)
    try:
        lanes = lanes_of(journal, Store("one"), worker)
        for what, signal, start, count in steps:
            if what == "append":
                journal.append(batch(signal, start, count)).result()
            elif what == "backfill":
                journal.append(batch(signal, start, count), kind=RecordKind.BACKFILL).result()
            elif what == "forward":
                forward(*lanes)
            else:
                copy = path.with_name("copy.db")
                if what == "kill":
                    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
                        source.backup(target)
                    source.close()
                    target.close()
                journal.close()
                if what == "kill":
                    copy.replace(path)
                journal = Journal(path)
                lanes = lanes_of(journal, Store("one"), worker)
            found = audit(journal, ["one"])
            assert found.broken() == {}
            totals = journal.identity.totals(2)
            assert all((found.counts[name] == totals[name]).all() for name in found.counts)
            stored = sum(lane.counts.stored.sum() for lane in lanes)
            assert found.stores[0].stored.sum() == stored, "what memory says"
    finally:
        journal.close()
        worker.shutdown()


def test_what_was_stored_after_the_last_checkpoint_is_counted_again(
    open_journal: Callable[..., Journal], worker: Worker
) -> None:
    journal = open_journal()
    live, _ = lanes_of(journal, Store("one"), worker)
    journal.append(batch(0, 0, 10)).result()

    async def run() -> None:
        running = asyncio.create_task(live.run(asyncio.Event()))
        async with asyncio.timeout(30):
            moved = asyncio.Event()
            loop = asyncio.get_running_loop()

            def tell() -> None:
                loop.call_soon_threadsafe(moved.set)

            journal.add_listener(tell)
            while not (state := journal.consumer("one")) or not state.position:
                await moved.wait()
                moved.clear()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        journal._writer.listeners.clear()

    asyncio.run(run())
    known = journal.consumer("one")
    assert known is not None
    assert (known.keep_from, known.position) == (0, 1), "its cursor is ahead of its counts"
    found = audit(journal, ["one"])
    assert found.broken() == {}
    assert row(found, 0) == (0, 10, 0, 0, 0)


class Choosing(Store):
    """Takes `load` alone, or no readings at all."""

    def __init__(self, name: str, *, readings: bool = True) -> None:
        super().__init__(name)
        self.kinds = frozenset({RecordKind.FINDING}) | (
            {RecordKind.READINGS, RecordKind.BACKFILL} if readings else frozenset()
        )

    def write(self, records: Sequence[Record]) -> list[DeadLetter]:
        del records
        return []

    def takes(self) -> NDArray[np.bool_]:
        return np.array([True, False])


def test_what_a_store_is_not_to_take_is_left_out(open_journal: Callable[..., Journal], worker: Worker) -> None:
    journal = open_journal()
    lanes = lanes_of(journal, Choosing("uns"), worker)
    takes = {"uns": lanes[0].store.takes}  # type: ignore[attr-defined]  # it is choosy
    journal.append(batch(0, 0, 30)).result()
    journal.append(batch(1, 0, 20)).result()
    forward(*lanes)
    journal.append(batch(1, 50, 7)).result()
    for found in (audit(journal, ["uns"], takes), audit(open_journal(), ["uns"], takes)):
        assert (row(found, 0), row(found, 1)) == ((0, 30, 0, 0, 0), (0, 0, 0, 0, 7))
        assert found.stores[0].left_out.tolist() == [0, 20]
        assert found.broken() == {}


def test_a_store_that_takes_readings_only_now_did_not_see_those_before(
    open_journal: Callable[..., Journal], worker: Worker
) -> None:
    count = 0
    stored = 0
    for readings in (False, True, False, True, True):
        journal = open_journal()
        lanes = lanes_of(journal, Choosing("uns", readings=readings), worker)
        journal.append(batch(0, count, 10)).result()
        journal.append(batch(0, count - 1000, 4), kind=RecordKind.BACKFILL).result()
        count += 10
        stored += 14 if readings else 0
        forward(*lanes)
        if readings:
            found = audit(journal, ["uns"], {"uns": lanes[0].store.takes})  # type: ignore[attr-defined]  # it is choosy
            assert found.broken() == {}
            assert row(found, 0)[1] == stored


def test_a_reading_that_vanished_is_found(open_journal: Callable[..., Journal], worker: Worker) -> None:
    journal = open_journal()
    lanes_of(journal, Store("one"), worker)
    journal.append(batch(0, 0, 10)).result()
    journal.append(batch(0, 50, 10)).result()
    open_journal()  # saves the counts
    journal = open_journal()
    journal.execute(lambda db: db.execute("DELETE FROM record WHERE position = 2")).result()
    journal.execute(lambda db: db.execute("UPDATE consumer SET state = ? WHERE name = 'one'", (b"\x90",))).result()
    found = report(journal, Gaps(journal, "line-3"), ["one"], "line-3")
    assert found["holds"] is False
    assert found["faults"] == [
        "drachten/shavers/3/cnc-07/load: one: committed 20 is not stored + dead + dropped + waiting = 10"
    ]


def test_a_damaged_record_is_told(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    journal.append(batch(0, 0, 10)).result()
    journal.execute(lambda db: db.execute("UPDATE record SET data = substr(data, 1, 40)")).result()
    found = report(journal, Gaps(journal, "line-3"), [], "line-3")
    assert found["holds"] is False
    assert "1 damaged records" in found["faults"][-1]


def test_what_a_store_refused_is_a_gap_until_it_is_sent_again(
    open_journal: Callable[..., Journal], worker: Worker
) -> None:
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    lanes = lanes_of(journal, Store("one"), worker, gaps)
    journal.append(batch(1, 0, 4)).result()
    forward(*lanes)
    (gap,) = gaps.unsettled("one")
    assert (gap.cause, gap.key, gap.time, gap.end, gap.lost) == ("store_refused", KEYS[1], 0, 3 * SECOND, 4)
    assert "field type conflict" in gap.detail
    ((body_of,),) = journal.select("SELECT readings FROM deadletter")
    letter = DeadLetter(
        store="one", machine="m", signal="poison", readings=body_of, reason="", first=0, last=3 * SECOND, body=b"",
        counts={1: body_of},
    )  # fmt: skip
    asyncio.run(lanes[0].resend(letter, lambda db: None))
    gaps.close({}).result(10)
    (gap,) = gaps.since()
    assert (gap.state, gap.recovered) == ("closed", 4)
    assert audit(journal, ["one"]).broken() == {}


def test_what_is_dropped_is_a_gap_with_its_interval(open_journal: Callable[..., Journal], worker: Worker) -> None:
    journal = open_journal(max_bytes=2_000_000)
    gaps = Gaps(journal, "line-3")

    class Away(Store):
        def write(self, records: Sequence[Record]) -> list[DeadLetter]:
            raise StoreUnavailableError("away")

    lane = Forwarder(journal, Away("one"), worker, drop_oldest=True, gaps=gaps)
    Forwarder(journal, Away("one"), worker, backfill=True)
    start = 0
    while not journal.full:
        journal.append(batch(0, start, 5_000)).result(10)
        start += 5_000

    forward(lane)
    gaps.flush()
    gaps.close({}).result(10)
    (gap,) = gaps.unsettled("one")
    dropped = int(lane.counts.dropped[0])
    assert (gap.cause, gap.lost, gap.time, gap.end) == ("journal_full", dropped, 0, (dropped - 1) * SECOND)
    found = audit(journal, ["one"])
    assert found.broken() == {}
    assert found.stores[0].dropped[0] == dropped


def test_no_zero_claims_more_than_its_guarantee() -> None:
    assert loss("end-to-end", 0) == "0 lost"
    assert loss("end-to-end", 2) == "2 lost"
    assert loss("end-to-end", 0, 1) == "0 known lost, 1 gap not closed"
    assert loss("from-receipt", 0) == "unverifiable before receipt"
    assert loss("from-receipt", 3, 2) == "3 known lost, 2 gaps not closed, unverifiable before receipt"
    assert loss("sampled", 0) == "unverifiable between polls"
    unsure: tuple[Guarantee, ...] = ("from-receipt", "sampled")
    for guarantee in unsure:
        assert "0 " not in loss(guarantee, 0)


def test_a_broken_promise_is_no_closed_gap(open_journal: Callable[..., Journal]) -> None:
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    gaps.claim("mqtt-0", 0)
    gaps.claim("mqtt-0", 1, "from-receipt")
    gaps.claim("mqtt-0", 1, "end-to-end")
    gaps.open("mqtt-0", "source_down", {0: 1, 1: 1})
    gaps.end("mqtt-0", 2, state="closed")
    gaps.close({}).result(10)
    again = Gaps(open_journal(), "line-3")
    assert {g.key: g.state for g in again.since()} == {KEYS[0]: "closed", KEYS[1]: "unverifiable"}
    assert again.guarantees() == {0: "end-to-end", 1: "from-receipt"}, "the weakest since the journal began"

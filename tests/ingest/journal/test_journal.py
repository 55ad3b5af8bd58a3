import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fieldlab.errors import FieldlabError
from fieldlab.model import (
    AgentRow,
    Batch,
    ChartPoint,
    Finding,
    MachineState,
    Place,
    RecordKind,
    SignalKey,
)
from ingest.journal import Delivery, Journal, JournalClosedError
from ingest.stores.base import DeadLetter

Open = Callable[..., Journal]
READINGS = frozenset({RecordKind.READINGS})
EVERY = frozenset(RecordKind)
PLACE = Place("site", "area", "line", "machine")
STATE = MachineState(time=5, place=PLACE, state="running")
LETTER = DeadLetter(store="s", machine="m", signal="x", readings=2, reason="why", first=1, last=2, body=b"raw")


def batch(start: int, n: int = 1, signal: int = 0) -> Batch:
    """Readings whose time and value are their number."""
    numbers = np.arange(start, start + n)
    return Batch.of(np.full(n, signal, np.uint32), numbers.astype(np.int64) + 1, numbers.astype(np.float64))


def values(journal: Journal, signal: int | None = None) -> list[float]:
    found: list[float] = []
    position = 0
    while True:
        chunk = journal.read(position, READINGS, max_readings=7)
        position = chunk.upto
        for record in chunk.records:
            assert record.batch is not None
            chosen = slice(None) if signal is None else record.batch.signal == signal
            found += record.batch.value[chosen].tolist()
        if not chunk.records:
            return found


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.005)


# ---- append and read ----


def test_readings_come_back_in_order_and_after_a_restart(open_journal: Open) -> None:
    journal = open_journal()
    journal.register("store")
    for i in range(20):
        journal.append(batch(i * 3, 3)).result()
    assert values(journal) == [float(i) for i in range(60)]
    journal.close()
    assert values(open_journal()) == [float(i) for i in range(60)]


def test_a_read_is_bounded_but_never_empty_while_there_is_more(journal: Journal) -> None:
    journal.register("store")
    for i in range(4):
        journal.append(batch(i * 10, 10)).result()
    chunk = journal.read(0, READINGS, max_readings=25)
    assert [len(r.batch or ()) for r in chunk.records] == [10, 10]
    assert chunk.upto == chunk.records[-1].position
    assert len(journal.read(0, READINGS, max_readings=3).records) == 1


def test_a_read_gives_only_the_kinds_that_were_asked_for(journal: Journal) -> None:
    journal.register("store")
    journal.append(batch(0)).result()
    journal.write([STATE, AgentRow(time=9, agent="a")]).result()
    journal.tick(77).result()
    journal.append(batch(5), kind=RecordKind.BACKFILL).result()
    assert [r.kind for r in journal.read(0, EVERY).records] == [
        RecordKind.READINGS,
        RecordKind.MACHINE_STATE,
        RecordKind.AGENT,
        RecordKind.TICK,
        RecordKind.BACKFILL,
    ]
    ticks = journal.read(0, frozenset({RecordKind.TICK}))
    assert [r.time for r in ticks.records] == [77]
    assert ticks.upto == journal.position, "nothing of that kind was left out"
    assert journal.read(0, frozenset({RecordKind.FINDING})).upto == journal.position
    assert journal.read(2, EVERY, upto=3).records[0].rows == (AgentRow(time=9, agent="a"),)
    assert journal.lag(0, READINGS) == (1, 1)
    assert journal.age(0, READINGS) >= 0.0
    assert journal.age(10**6, READINGS) == 0.0


def test_a_large_append_becomes_records_of_bounded_size(journal: Journal) -> None:
    journal.register("store")
    journal.append(batch(0, 45_000)).result()
    chunk = journal.read(0, READINGS, max_readings=10**6)
    assert [len(r.batch or ()) for r in chunk.records] == [20_000, 20_000, 5_000]


@pytest.mark.parametrize(
    "bad",
    [
        Batch.of([99], [1], [1.0]),
        Batch(np.array([0, 1], np.uint32), np.array([1]), np.array([1.0]), np.array([0], np.uint32)),
    ],
    ids=["unknown signal", "columns differ"],
)
def test_a_batch_that_cannot_be_kept_fails_alone(journal: Journal, bad: Batch) -> None:
    journal.register("store")
    futures = [journal.append(batch(0)), journal.append(bad), journal.append(batch(1))]
    with pytest.raises(ValueError, match=r"signal|length"):
        futures[1].result(20)
    futures[0].result(20)
    futures[2].result(20)
    assert values(journal) == [0.0, 1.0]
    with pytest.raises(ValueError, match="of kind TICK"):
        journal.append(batch(3), kind=RecordKind.TICK).result(20)
    broken = Delivery(
        "s", np.array([1], np.uint16), np.array([], np.uint64), np.array([True]), np.array([0], np.uint32)
    )
    with pytest.raises(ValueError, match="one length"):
        journal.append(batch(3), delivery=broken).result(20)
    with pytest.raises(ValueError, match="not in the table"):
        journal.append(batch(3), overflow={99: 1}).result(20)


def test_rows_that_cannot_be_kept_fail_alone(journal: Journal) -> None:
    journal.register("store")
    nan = ChartPoint(time=1, place=PLACE, signal="s", chart="c", statistic=float("nan"))
    huge = Finding(time=2**70, place=PLACE, signal="s", chart="c", rule="1", id="x")
    letter = DeadLetter(store="s", machine="\ud800", signal="", readings=1, reason="", first=0, last=0, body=b"")
    good = journal.append(batch(0))
    for future in (journal.write([nan]), journal.advance("store", 1, rows=[huge]), journal.write(letters=[letter])):
        with pytest.raises((ValueError, OverflowError)):
            future.result(20)
    good.result(20)
    assert journal.write([STATE]).result(20) is None
    assert [r.kind for r in journal.read(0, EVERY).records] == [RecordKind.READINGS, RecordKind.MACHINE_STATE]
    consumer = journal.consumer("store")
    assert consumer is not None
    assert consumer.position == 0, "a refused write moves no cursor"


# ---- cursors ----


def test_a_cursor_only_moves_forward(open_journal: Open) -> None:
    journal = open_journal()
    assert journal.register("store").position == 0
    for i in range(5):
        journal.append(batch(i)).result()
    journal.advance("store", 4, state=b"x", config_hash="h").result()
    journal.advance("store", 2).result()
    found = journal.consumer("store")
    assert found is not None
    assert (found.position, found.keep_from, found.state, found.hash) == (4, 4, b"x", "h")
    journal.close()
    found = open_journal().register("store")
    assert (found.position, found.keep_from, found.state, found.hash) == (4, 4, b"x", "h")


def test_a_cursor_never_passes_the_newest_record(open_journal: Open) -> None:
    journal = open_journal()
    journal.register("store")
    journal.advance("store", 10**9, keep_from=10**9).result()
    found = journal.consumer("store")
    assert found is not None
    assert (found.position, found.keep_from) == (0, 0)
    journal.append(batch(0)).result()
    journal.close()  # saves the identity state: only the store holds the record now
    journal = open_journal()
    journal.tick(1).result()
    assert values(journal) == [0.0]


def test_a_stateful_consumer_keeps_its_records_until_told(journal: Journal) -> None:
    journal.register("analytics", stateful=True)
    for i in range(5):
        journal.append(batch(i)).result()
    journal.advance("analytics", 5).result()
    found = journal.consumer("analytics")
    assert found is not None
    assert (found.position, found.keep_from) == (5, 0)
    journal.advance("analytics", 5, keep_from=3, state=b"at 3").result()
    found = journal.consumer("analytics")
    assert found is not None
    assert (found.position, found.keep_from, found.state) == (5, 3, b"at 3")


def test_results_and_cursor_come_together_or_not_at_all(journal: Journal, tmp_path: Path) -> None:
    journal.register("analytics")
    journal.append(batch(0)).result()
    seen = []
    journal.add_listener(lambda: seen.append((journal.lag(1, EVERY)[0], journal.consumer("analytics"))))
    journal.advance("analytics", 1, rows=[STATE], letters=[LETTER]).result()
    wait(lambda: seen)
    assert seen[0][0] == 1
    assert seen[0][1] is not None
    assert seen[0][1].position == 1
    with sqlite3.connect(tmp_path / "journal.db") as db:
        assert db.execute("SELECT store, machine, signal, readings, reason, body FROM deadletter").fetchall() == [
            ("s", "m", "x", 2, "why", b"raw")
        ]
    db.close()


def test_retired_consumers_hold_nothing(journal: Journal) -> None:
    journal.register("a")
    journal.register("b")
    assert journal.consumers() == ["a", "b"]
    journal.retire(["a"])
    assert journal.consumers() == ["b"]
    assert journal.consumer("a") is None


# ---- trimming ----


def many(journal: Journal, n: int, start: int = 0, size: int = 100) -> None:
    for future in [journal.append(batch((start + i) * size, size), kind=kind(i)) for i in range(n)]:
        future.result()


def kind(i: int) -> RecordKind:
    """Alternating, so that no two appends share a record."""
    return RecordKind.BACKFILL if i % 2 else RecordKind.READINGS


def positions(journal: Journal) -> list[int]:
    found: list[int] = []
    while chunk := journal.read(found[-1] if found else 0, EVERY).records:
        found += [r.position for r in chunk]
    return found


def test_trimming_stops_at_the_smallest_keep_from(open_journal: Open) -> None:
    journal = open_journal()
    journal.register("slow")
    journal.register("fast")
    many(journal, 30)
    journal.close()  # saves the identity state, which needs no records any more
    journal = open_journal()
    journal.advance("fast", 30).result()
    assert positions(journal) == list(range(1, 31))
    journal.advance("slow", 12).result()
    wait(lambda: positions(journal) == list(range(13, 31)))
    journal.advance("slow", 30).result()
    wait(lambda: positions(journal) == [])


def test_positions_are_never_used_again(open_journal: Open) -> None:
    journal = open_journal()
    journal.register("store")
    many(journal, 10)
    journal.close()
    journal = open_journal()
    journal.advance("store", 10).result()
    wait(lambda: positions(journal) == [])
    journal.close()
    journal = open_journal()
    assert journal.position == 10
    journal.tick(1).result()
    assert positions(journal) == [11]


def test_a_backlog_is_trimmed_without_new_work(open_journal: Open) -> None:
    journal = open_journal()
    journal.register("store")
    for future in [journal.tick(i) for i in range(2000)]:
        future.result()
    journal.close()
    journal = open_journal()
    assert len(positions(journal)) == 2000
    journal.advance("store", 2000).result()  # the last commit there is
    wait(lambda: journal.stats().records == 0)


def test_records_are_kept_until_the_identity_state_is_saved_behind_them(journal: Journal) -> None:
    journal.register("store")
    many(journal, 10)
    journal.advance("store", 10).result()
    assert positions(journal) == list(range(1, 11))


# ---- signals ----


def test_signal_numbers_are_stable_and_committed_with_their_first_use(open_journal: Open, tmp_path: Path) -> None:
    journal = open_journal()
    key = SignalKey.parse("site/area/line/machine/new")
    number = journal.signals.index(key)
    journal.append(Batch.of([number], [1], [1.0])).result()
    with sqlite3.connect(tmp_path / "journal.db") as db:
        assert db.execute("SELECT path FROM signal WHERE id = ?", (number,)).fetchall() == [(key.path,)]
    db.close()
    journal.close()
    journal = open_journal()
    assert journal.signals.find(key) == number
    assert journal.signals[number] == key


# ---- threads and groups ----


def test_many_threads_lose_nothing_and_keep_their_order(journal: Journal) -> None:
    journal.register("store")

    def work(signal: int) -> None:
        futures = [journal.append(batch(i * 3, 3, signal)) for i in range(200)]
        for future in futures:
            future.result(30)

    threads = [threading.Thread(target=work, args=(signal,)) for signal in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for signal in range(5):
        assert values(journal, signal) == [float(i) for i in range(600)]
    assert journal.identity.totals(5)["committed"].tolist() == [600] * 5


def test_what_arrives_during_a_commit_shares_the_next(journal: Journal) -> None:
    journal.register("store")
    commits: list[int] = []
    started, go = threading.Event(), threading.Event()

    def block(_: sqlite3.Connection) -> None:
        started.set()
        go.wait(20)

    held = journal.execute(block)
    assert started.wait(20)
    journal.add_listener(lambda: commits.append(journal.position))
    futures = [journal.append(batch(i)) for i in range(100)] + [journal.advance("store", 0), journal.tick(5)]
    assert journal.stats().waiting == 103
    go.set()
    for future in [held, *futures]:
        future.result(20)
    wait(lambda: len(commits) >= 2)
    assert len(commits) == 2, "the blocked commit, and one for all the rest"
    assert journal.lag(0, READINGS) == (1, 100), "neighbouring appends share a record too"


def test_a_listener_that_fails_stops_nothing(journal: Journal) -> None:
    def fail() -> None:
        raise RuntimeError("listener")

    journal.add_listener(fail)
    journal.append(batch(0)).result(20)
    journal.append(batch(1)).result(20)


@pytest.mark.parametrize(
    "statement", ["nonsense", "SELECT * FROM no_such_table", "INSERT INTO consumer (name) VALUES (1)"]
)
def test_work_that_fails_fails_alone(journal: Journal, statement: str) -> None:
    journal.register("store")
    first = journal.append(batch(0))
    failing = journal.execute(lambda db: (db.execute("DELETE FROM consumer"), db.execute(statement)))
    second = journal.append(batch(1))
    with pytest.raises(sqlite3.Error):
        failing.result(20)
    first.result(20)
    second.result(20)
    assert values(journal) == [0.0, 1.0]
    assert journal.consumer("store") is not None, "what it did before it failed is undone"


# ---- opening and closing ----


def test_after_close_nothing_is_taken(journal: Journal) -> None:
    future = journal.append(batch(0))
    journal.close()
    assert future.result(20) is None
    with pytest.raises(JournalClosedError):
        journal.append(batch(1)).result(20)
    with pytest.raises(JournalClosedError):
        journal.read(0, EVERY)
    journal.close()


def test_a_journal_has_one_owner(open_journal: Open, tmp_path: Path) -> None:
    open_journal()
    with pytest.raises(FieldlabError, match="another program has this journal open"):
        Journal(tmp_path / "journal.db")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FieldlabError, match="cannot be opened"):
        Journal(tmp_path / "none" / "journal.db")


def test_the_file_is_private_and_its_name_may_hold_anything(tmp_path: Path) -> None:
    folder = tmp_path / "odd #1 100%?mode=x é"
    folder.mkdir()
    journal = Journal(folder / "journal.db")
    try:
        journal.register("store")
        assert journal.consumers() == ["store"]
        assert (folder / "journal.db").stat().st_mode & 0o077 == 0
    finally:
        journal.close()


def test_a_newer_format_is_refused_and_left_alone(open_journal: Open, tmp_path: Path) -> None:
    open_journal().close()
    file = tmp_path / "journal.db"
    db = sqlite3.connect(file)
    db.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
    db.commit()
    db.close()
    before = file.read_bytes()
    with pytest.raises(FieldlabError, match=r"format 2; this program knows 1: install a newer Fieldlab"):
        open_journal()
    assert file.read_bytes() == before


# ---- the write-ahead log ----


def test_the_log_stays_small_behind_a_lagging_consumer(journal: Journal, tmp_path: Path) -> None:
    journal.register("slow")
    wal = tmp_path / "journal.db-wal"
    largest = position = 0
    for i in range(150):
        for future in [journal.append(batch((i * 4 + k) * 2000, 2000), kind=kind(k)) for k in range(4)]:
            future.result()
        position = journal.read(position, EVERY, max_readings=100).upto
        largest = max(largest, wal.stat().st_size)
    assert journal.stats().bytes > 20_000_000
    assert largest < 12_000_000, "2,000 pages and a group"

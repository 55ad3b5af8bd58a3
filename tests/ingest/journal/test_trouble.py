"""A journal that is full, on a disk that refuses, or damaged."""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from fieldlab.model import Batch, MachineState, Place, RecordKind
from ingest.journal import Journal, JournalClosedError

Open = Callable[..., Journal]
READINGS = frozenset({RecordKind.READINGS, RecordKind.BACKFILL})
STATE = MachineState(time=5, place=Place("site", "area", "line", "machine"), state="running")


def batch(start: int, n: int = 1000, signal: int = 0) -> Batch:
    numbers = np.arange(start, start + n)
    return Batch.of(np.full(n, signal, np.uint32), numbers.astype(np.int64) + 1, numbers.astype(np.float64))


def kind(i: int) -> RecordKind:
    """Alternating, so that no two appends share a record."""
    return RecordKind.BACKFILL if i % 2 else RecordKind.READINGS


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.005)


def consume(journal: Journal, position: int) -> tuple[int, list[float]]:
    """Read and advance to the end, as a store does."""
    found: list[float] = []
    while True:
        chunk = journal.read(position, READINGS, max_readings=3000)
        for record in chunk.records:
            assert record.batch is not None
            found += record.batch.value.tolist()
        position = chunk.upto
        journal.advance("store", position).result(20)
        if not chunk.records:
            return position, found


# ---- full ----


def test_full_holds_readings_and_nothing_else(open_journal: Open) -> None:
    journal = open_journal(max_bytes=1_000_000)
    journal.register("store")
    futures = []
    for i in range(80):
        futures.append(journal.append(batch(i * 1000), kind=kind(i)))
        wait(lambda: futures[-1].done() or journal.full)
    journal.write([STATE]).result(20)
    held = [future for future in futures if not future.done()]
    assert 20 < len(held) < 60
    journal.tick(5).result(20)
    assert not any(future.done() for future in held)
    assert journal.stats().waiting == len(held)
    position, found = 0, []
    while not all(future.done() for future in held):
        position, more = consume(journal, position)
        found += more
    found += consume(journal, position)[1]
    assert found == [float(i) for i in range(80_000)]
    totals = journal.identity.totals(1)
    assert totals["committed"].tolist() == [80_000]


def test_a_full_journal_gets_room_though_only_its_own_state_holds_records(open_journal: Open) -> None:
    journal = open_journal(max_bytes=300_000)
    journal.register("store")
    for i in range(2):
        journal.append(batch(i * 10_000, 10_000), kind=kind(i)).result(20)
    assert journal.full
    held = journal.append(batch(30_000))
    journal.advance("store", journal.position).result(20)
    held.result(20)
    assert not journal.full


def test_closing_a_full_journal_fails_what_waits(open_journal: Open) -> None:
    journal = open_journal(max_bytes=300_000)
    journal.register("store")
    journal.append(batch(0, 20_000)).result(20)
    held = journal.append(batch(20_000))
    assert not held.done()
    journal.close()
    with pytest.raises(JournalClosedError, match="full"):
        held.result(20)
    journal = open_journal()
    assert consume(journal, 0)[1] == [float(i) for i in range(20_000)]
    assert journal.identity.totals(1)["received"].tolist() == [20_000]


# ---- the disk refuses ----


def cap_pages(journal: Journal, more: int) -> None:
    """Let the disk be full after `more` pages. SQLite itself says so: SQLITE_FULL."""

    def cap(db: sqlite3.Connection) -> None:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + more}")

    journal.execute(cap).result(20)


def test_a_full_disk_keeps_readings_waiting_and_loses_and_doubles_none(open_journal: Open) -> None:
    journal = open_journal()
    journal.register("store")
    done = [journal.append(batch(i * 1000), kind=kind(i)) for i in range(10)]
    for future in done:
        future.result(20)
    cap_pages(journal, 1)  # not one more append fits, however few the writer takes at once
    waiting = fill_disk(journal)
    assert "full" in journal.stats().error
    # The same signal and times as one that waits: decided once, so it is a repeat, not a second reading.
    repeat = journal.append(batch(10_000))
    assert not any(future.done() for future in waiting)
    journal.execute(lambda db: db.execute("PRAGMA max_page_count = 1000000")).result(20)
    for future in [*waiting, repeat]:
        future.result(20)
    wait(lambda: not journal.stats().error)
    assert consume(journal, 0)[1][:20_000] == [float(i) for i in range(20_000)]
    totals = {name: column[0] for name, column in journal.identity.totals(1).items()}
    assert totals["received"] == 21_000
    assert totals["committed"] + totals["duplicate"] == 21_000
    journal.close()
    again = {name: column[0] for name, column in open_journal().identity.totals(1).items()}
    assert again == totals


def fill_disk(journal: Journal) -> list["Future[None]"]:
    waiting = [journal.append(batch((10 + i) * 1000), kind=kind(i)) for i in range(10)]
    wait(lambda: journal.stats().error)
    return waiting


def test_on_a_full_disk_a_consumer_makes_room(open_journal: Open) -> None:
    journal = open_journal()
    journal.register("store")
    for i in range(100):
        journal.append(batch(i * 1000), kind=kind(i)).result(20)
    cap_pages(journal, 5)
    journal.append(batch(100_000, 20_000))
    wait(lambda: journal.stats().error)
    position, found = consume(journal, 0)
    wait(lambda: not journal.stats().error)
    assert found + consume(journal, position)[1] == [float(i) for i in range(120_000)]


def test_a_state_saved_while_readings_wait_does_not_hold_them(open_journal: Open, tmp_path: Path) -> None:
    journal = open_journal()
    journal.register("store")
    cap_pages(journal, 90)
    waiting = journal.append(batch(0, 20_000))  # 100 pages
    wait(lambda: journal.stats().error)
    for future in [journal.tick(i) for i in range(4200)]:  # enough for the identity state to be due
        future.result(20)
    assert not waiting.done()
    journal.execute(lambda db: db.execute("PRAGMA max_page_count = 1000000")).result(20)
    waiting.result(20)
    (tmp_path / "crashed").mkdir()
    for name in ("journal.db", "journal.db-wal"):  # as a power cut would leave them
        shutil.copy(tmp_path / name, tmp_path / "crashed" / name)
    after = Journal(tmp_path / "crashed" / "journal.db")
    try:
        assert after.identity.totals(1)["received"].tolist() == [20_000]
    finally:
        after.close()


def test_closing_while_the_disk_refuses_fails_what_waits(open_journal: Open) -> None:
    journal = open_journal()
    journal.register("store")
    journal.append(batch(0)).result(20)
    cap_pages(journal, 0)
    waiting = fill_disk(journal)
    journal.close()
    for future in waiting:
        with pytest.raises(JournalClosedError):
            future.result(20)
    journal = open_journal()
    assert journal.identity.totals(1)["received"].tolist() == [1000], "what was not committed is not counted"
    assert consume(journal, 0)[1] == [float(i) for i in range(1000)]


# ---- damage ----


def bend(file: Path, position: int) -> None:
    """Flip a bit in a record, as a bad disk does."""
    db = sqlite3.connect(file)
    (data,) = db.execute("SELECT data FROM record WHERE position = ?", (position,)).fetchone()
    bent = bytearray(data)
    bent[len(bent) // 2] ^= 4
    db.execute("UPDATE record SET data = ? WHERE position = ?", (bytes(bent), position))
    db.commit()
    db.close()


def test_a_damaged_record_is_set_aside_and_the_rest_is_read(open_journal: Open, tmp_path: Path) -> None:
    journal = open_journal()
    journal.register("store")
    for i in range(4):
        journal.append(batch(i, 1), kind=kind(i)).result(20)
    journal.close()
    bend(tmp_path / "journal.db", 2)
    journal = open_journal()
    chunk = journal.read(0, READINGS)
    assert [r.position for r in chunk.records] == [1, 3, 4]
    assert chunk.upto == 4
    assert journal.stats().set_aside == 1
    aside = tmp_path / "journal.damaged-2"
    assert aside.stat().st_mode & 0o077 == 0
    assert len(aside.read_bytes()) > 20
    wait(lambda: journal.lag(0, READINGS) == (3, 3))
    assert [r.position for r in journal.read(0, READINGS).records] == [1, 3, 4]
    journal.close()
    assert open_journal().stats().set_aside == 1


def test_a_read_of_nothing_but_damage_moves_on(open_journal: Open, tmp_path: Path) -> None:
    journal = open_journal()
    journal.register("store")
    for i in range(3):
        journal.append(batch(i, 1), kind=kind(i)).result(20)
    journal.close()
    bend(tmp_path / "journal.db", 1)
    journal = open_journal()
    chunk = journal.read(0, READINGS, max_readings=1)
    assert (chunk.records, chunk.upto) == ([], 1)
    assert [r.position for r in journal.read(chunk.upto, READINGS, max_readings=1).records] == [2]


def test_a_record_that_cannot_be_set_aside_is_passed_over(open_journal: Open, tmp_path: Path) -> None:
    journal = open_journal()
    journal.register("store")
    for i in range(2):
        journal.append(batch(i, 1), kind=kind(i)).result(20)
    journal.close()
    bend(tmp_path / "journal.db", 1)
    (tmp_path / "journal.damaged-1").mkdir()
    journal = open_journal()
    assert [r.position for r in journal.read(0, READINGS).records] == [2]


@pytest.mark.parametrize("content", [b"this is not a database" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_file_that_is_no_database_is_set_aside(open_journal: Open, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "journal.db").write_bytes(content)
    journal = open_journal()
    journal.register("store")
    journal.append(batch(0)).result(20)
    assert journal.stats().set_aside == 1
    (aside,) = tmp_path.glob("journal.damaged-*")
    assert aside.read_bytes() == content


def test_a_database_with_torn_pages_is_set_aside_with_its_log(open_journal: Open, tmp_path: Path) -> None:
    journal = open_journal()
    journal.register("store")
    for i in range(200):
        journal.append(batch(i, 1), kind=kind(i)).result(20)
    journal.close()
    file = tmp_path / "journal.db"
    with file.open("r+b") as handle:
        size = os.fstat(handle.fileno()).st_size
        for page in range(1, size // 4096):
            handle.seek(page * 4096)
            handle.write(b"\xff" * 100)
    journal = open_journal()
    journal.register("store")
    journal.append(batch(0)).result(20)
    assert journal.stats().set_aside == 1


def test_a_damaged_identity_state_starts_the_counts_again(open_journal: Open, tmp_path: Path) -> None:
    journal = open_journal()
    journal.register("store")
    journal.append(batch(0)).result(20)
    journal.close()
    db = sqlite3.connect(tmp_path / "journal.db")
    db.execute("UPDATE consumer SET state = x'00112233' WHERE name = '_identity'")
    db.commit()
    db.close()
    journal = open_journal()
    assert journal.identity.totals(1)["committed"].tolist() == [1000], "folded again from the oldest record"

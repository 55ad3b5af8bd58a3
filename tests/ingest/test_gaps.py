"""Gaps: opened, ended, closed, kept across restarts, bounded."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fieldlab.model import Batch, Gap, RecordKind, SignalKey
from ingest import gaps as module
from ingest.gaps import Gaps
from ingest.journal import Journal
from ingest.journal.journal import JournalClosedError

SECOND = 1_000_000_000
KEYS = [SignalKey.parse(f"drachten/shavers/3/cnc-07/s{i}") for i in range(3)]


class _Clock:
    """The time module, as far as gaps need it, under control of the test."""

    def __init__(self, clock: list[float]) -> None:
        self._clock = clock

    def monotonic(self) -> float:
        return self._clock[0]


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Callable[[], Journal]]:
    """Opens the one journal of the test; the one before is closed."""
    made: list[Journal] = []

    def make() -> Journal:
        if made:
            made[-1].close()
        made.append(Journal(tmp_path / "journal.db"))
        for key in KEYS:
            made[-1].signals.index(key)
        return made[-1]

    yield make
    made[-1].close()


def rows(journal: Journal) -> list[Gap]:
    """Every `Gap` row in the journal, in order."""
    journal.write().result()
    found: list[Any] = []
    for record in journal.read(0, frozenset({RecordKind.GAP})).records:
        found += record.rows
    return [row for row in found if isinstance(row, Gap)]


def test_a_gap_opens_ends_and_closes(open_journal: Callable[[], Journal]) -> None:
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    gaps.open("opcua-0", "source_down", {0: 100, 1: 90}, detail="refused")
    gaps.open("opcua-0", "source_down", {0: 150}, detail="still refused")
    assert [(g.key, g.time, g.state, g.end, g.source) for g in gaps.unsettled("opcua-0")] == [
        (KEYS[1], 90, "open", 0, "opcua-0"),
        (KEYS[0], 100, "open", 0, "opcua-0"),
    ]
    assert gaps.unsettled("opcua-1") == []
    gaps.end("opcua-0", {0: 500}, state="ended", lost=3)
    gaps.end("opcua-0", 600, state="closed", detail="the session was kept")
    (left,) = gaps.unsettled()
    assert (left.key, left.state, left.end, left.lost, left.detail) == (KEYS[0], "ended", 500, 3, "refused")
    gaps.close({left.id: 42, "unknown": 1}).result(10)
    assert gaps.unsettled() == []
    newest = {row.id: row for row in rows(journal)}
    assert {(g.key.name, g.state, g.end, g.recovered) for g in newest.values()} == {
        ("s0", "closed", 500, 42),
        ("s1", "closed", 600, 0),
    }
    assert all(g.agent == "line-3" for g in newest.values())
    revisions = [row.revision for row in rows(journal) if row.id == left.id]
    assert revisions == sorted(set(revisions)), "a revision is written once"
    assert gaps.counts() == {"source_down": {"closed": 2}}


def test_a_gap_that_was_read_again_in_part_becomes_pieces(open_journal: Callable[[], Journal]) -> None:
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    for signal, start in ((0, 100), (1, 100)):
        gaps.open("opcua-0", "source_down", {signal: start})
    gaps.end("opcua-0", 900, state="ended")
    gaps.note("opcua-0", "source_down", {0: (10**12, 10**12 + 5)})
    first, second = sorted((gap for gap in gaps.unsettled() if gap.end == 900), key=lambda gap: gap.key.name)
    rests = {first.id: [(100, 200), (800, 900)], second.id: [(500, 900)]}
    gaps.close({first.id: 7, second.id: 3}, state="ended", detail="the history begins at 200", rests=rests).result(10)
    of = {
        "s0": [
            ("ended", 100, 200, 0),
            ("closed", 200, 800, 7),
            ("ended", 800, 900, 0),
            ("ended", 10**12, 10**12 + 5, 0),
        ]
    }
    of["s1"] = [("closed", 100, 500, 3), ("ended", 500, 900, 0)]
    for known in (gaps, Gaps(journal, "line-3")):
        assert {n: [(g.state, g.time, g.end, g.recovered) for g in found] for n, found in pieces(journal).items()} == of
        gone = [(gap.time, gap.state) for gap in known.unsettled() if gap.key.name == "s0"]
        assert gone == [(100, "ended"), (800, "ended"), (10**12, "ended")]
    gaps.note("opcua-0", "source_down", {0: (10**12 + 5, 10**12 + 9)})
    assert 10**12 + 9 in [gap.end for gap in gaps.unsettled()], "the newest is still the one that goes on"


def pieces(journal: Journal) -> dict[str, list[Gap]]:
    """Signal → the newest revision of each of its gaps, in order."""
    newest = {row.id: row for row in rows(journal)}
    found: dict[str, list[Gap]] = {}
    for gap in sorted(newest.values(), key=lambda gap: gap.time):
        found.setdefault(gap.key.name, []).append(gap)
    return found


def test_gaps_survive_a_restart(open_journal: Callable[[], Journal]) -> None:
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    gaps.claim("opcua-0", 0)
    gaps.open("opcua-0", "source_down", {0: 100})
    gaps.note("opcua-0", "queue_overflow", {1: (5, 9)}, lost={1: 7})
    gaps.close({}).result(10)
    journal.append(Batch.of([0, 0, 2], [10, 70, 50], [1.0, 2.0, 3.0])).result()
    before = gaps.unsettled()
    journal = open_journal()
    again = Gaps(journal, "line-3")
    assert again.unsettled() == before
    assert (again.of_source("opcua-0"), again.of_source("opcua-1")) == ([0], [])
    assert journal.identity.newest([0, 1, 2, 9]) == {0: 70, 2: 50}
    again.open("opcua-0", "source_down", {0: 400})
    assert again.unsettled() == before, "a gap that was open at the crash goes on"
    again.end("opcua-0", 800, state="ended")
    assert [(g.time, g.end) for g in again.unsettled() if g.cause == "source_down"] == [(100, 800)]


def test_a_thousand_gaps_at_once_are_one_transaction(
    open_journal: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal()
    indexes = [journal.signals.index(SignalKey.parse(f"drachten/shavers/3/m/x{i}")) for i in range(1_000)]
    gaps = Gaps(journal, "line-3")
    written: list[int] = []
    write = journal.write

    def counted(found: Any, **rest: Any) -> Any:
        written.append(len(found))
        return write(found, **rest)

    monkeypatch.setattr(journal, "write", counted)
    gaps.open("opcua-0", "source_down", dict.fromkeys(indexes, 100))
    gaps.end("opcua-0", 200, state="unverifiable")
    gaps.close({}).result(10)
    assert written[0] == 1_000
    assert len(written) <= 3
    assert journal.select("SELECT state, end, count(*) FROM gap GROUP BY 1, 2") == [("unverifiable", 200, 1_000)]


def test_while_the_disk_is_busy_changes_share_one_write(open_journal: Callable[[], Journal]) -> None:
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    go = threading.Event()
    stuck = journal.execute(lambda _: go.wait(10))
    gaps.open("s", "source_down", {0: 1})
    for n in range(50):
        gaps.note("s", "queue_overflow", {1: (n * 10 * SECOND, n * 10 * SECOND + 1)}, lost=1)
    done = gaps.close({})
    assert journal.stats().waiting <= 3
    go.set()
    stuck.result(10)
    done.result(10)
    assert journal.select("SELECT count(*) FROM gap") == [(51,)]
    assert len(rows(journal)) == 51


def test_a_connection_that_flaps_is_one_gap(
    open_journal: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [50.0]
    monkeypatch.setattr("ingest.gaps.time", _Clock(clock))
    gaps = Gaps(open_journal(), "line-3")
    for n in range(20):
        gaps.open("s", "source_down", {0: n * SECOND // 2})
        gaps.end("s", n * SECOND // 2 + 10, state="ended")
        clock[0] += 0.5
    (one,) = gaps.unsettled()
    assert (one.time, one.end) == (0, 19 * SECOND // 2 + 10)
    clock[0] += 1.0
    gaps.open("s", "source_down", {0: 30 * SECOND})
    assert [(g.time, g.state) for g in gaps.unsettled()] == [(0, "ended"), (30 * SECOND, "open")]


def test_overflow_after_overflow_is_one_gap_written_once_a_second(
    open_journal: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [50.0]
    monkeypatch.setattr("ingest.gaps.time", _Clock(clock))
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    for n in range(100):
        gaps.note("s", "queue_overflow", {0: (n * SECOND // 10, (n + 1) * SECOND // 10)}, lost=2)
        journal.execute(lambda _: None).result(10)  # the write before, if there was one, is on disk
        clock[0] += 0.1
    gaps.flush()
    gaps.close({}).result(10)
    found = rows(journal)
    assert len(found) <= 12
    assert (found[-1].time, found[-1].end, found[-1].lost) == (0, 10 * SECOND, 200)


def test_the_table_is_bounded_and_its_sums_stay(
    open_journal: Callable[[], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT", 10)
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    gaps.open("s", "source_down", {1: 1})
    for n in range(40):
        gaps.note("s", "queue_overflow", {0: (n * 10 * SECOND, (n * 10 + 2) * SECOND)}, lost=3)
        gaps.close({g.id: 1 for g in gaps.unsettled() if n < 20 and g.state == "ended"}).result(10)
    for known in (gaps, Gaps(open_journal(), "line-3")):
        assert 9 <= len(known.since()) <= 12
        assert known.counts() == {
            "queue_overflow": {"ended": 20, "closed": 20},
            "source_down": {"open": 1},
        }
        folded = known.folded()
        assert folded[0, "queue_overflow", "closed"].gaps == 20, "what is settled goes first"
        kept = [g for g in known.since() if g.cause == "queue_overflow"]
        sums = folded.values()
        assert sum(g.lost for g in kept) + sum(f.lost for f in sums) == 120
        assert len(kept) * 2 + sum(f.seconds for f in sums) == pytest.approx(80)
        assert sum(f.recovered for f in sums) == 20


def test_two_stores_gaps_of_one_signal_are_two_points(open_journal: Callable[[], Journal]) -> None:
    gaps = Gaps(open_journal(), "line-3")
    gaps.note("influxdb-0", "journal_full", {0: (100, 200)}, lost=1)
    gaps.note("influxdb-1", "journal_full", {0: (100, 200)}, lost=1)
    assert [(g.source, g.time) for g in gaps.unsettled()] == [("influxdb-0", 100), ("influxdb-1", 101)]


def test_strange_words_and_a_closed_journal_harm_nobody(open_journal: Callable[[], Journal]) -> None:
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    gaps.open("s", "source_down", {0: 1}, detail="bad \ud800 words " * 1000)
    gaps.close({}).result(10)
    assert len(rows(journal)[0].detail) <= 600
    journal.close()
    gaps.end("s", 5, state="ended")
    with pytest.raises(JournalClosedError):
        gaps.close({}).result(10)
    with sqlite3.connect(journal._writer.path) as db:
        assert db.execute("SELECT state FROM gap").fetchall() == [("open",)]
    db.close()


def test_what_a_gap_grew_by_is_known_after_a_crash(open_journal: Callable[[], Journal]) -> None:
    journal = open_journal()
    gaps = Gaps(journal, "line-3")
    gaps.note("opcua-0", "queue_overflow", {0: (100, 200)}, lost=1)
    journal.write().result(10)
    before = rows(journal)
    gaps.note("opcua-0", "queue_overflow", {0: (300, 400)}, lost=2)
    gaps.precede()
    journal.write().result(10)
    assert rows(journal) == before, "a row a second at most"
    again = Gaps(journal, "line-3")  # as after a kill
    (gap,) = again.unsettled()
    assert (gap.time, gap.end, gap.lost, gap.revision) == (100, 400, 3, 1)
    again.flush()
    assert [(row.end, row.revision) for row in rows(journal)] == [(200, 1), (400, 2)], "the stores are told"
    assert Gaps(journal, "line-3").unsettled()[0].revision == 2

"""Letters of sources: kept once, whatever the broker sends again; also after a crash before the acknowledgement."""

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldlab.model import Batch, RecordKind
from ingest.deadletter import DeadLetters, once
from ingest.journal import Delivery, Journal, letters
from ingest.stores.base import DeadLetter


def letter(body: str, **keys: Any) -> DeadLetter:
    made: dict[str, Any] = {"store": "mqtt-0", "machine": "m", "signal": "s0", "readings": 1, "reason": "not JSON"}
    return DeadLetter(**{**made, "first": 1, "last": 2, "body": body.encode(), **keys})


def messages(*ids: int, redelivered: bool = False, session: str = "a") -> Delivery:
    n = len(ids)
    numbers = np.array(ids, np.uint16)
    flags = np.full(n, redelivered)
    return Delivery(session, numbers, numbers.astype(np.uint64) * 7, flags, np.arange(n, dtype=np.uint32))


def bodies(tmp_path: Path) -> list[str]:
    with sqlite3.connect(tmp_path / "journal.db") as db:
        found = [bytes(body).decode() for (body,) in db.execute("SELECT body FROM deadletter ORDER BY id")]
    db.close()
    return found


def test_a_redelivered_message_makes_no_second_letter(journal: Journal, tmp_path: Path) -> None:
    journal.set_aside([letter("a"), letter("b")], delivery=messages(1, 2)).result(10)
    journal.set_aside([letter("b"), letter("c")], delivery=messages(2, 3, redelivered=True)).result(10)
    assert bodies(tmp_path) == ["a", "b", "c"]


@pytest.mark.parametrize("clean", [True, False])
def test_also_after_a_crash(open_journal: Any, tmp_path: Path, clean: bool) -> None:
    first = open_journal()
    first.set_aside([letter("a", counts={0: 1})], delivery=messages(1)).result(10)
    if clean:
        first.close()
    else:  # what is on disk at this moment is what a crash leaves
        with sqlite3.connect(tmp_path / "journal.db") as live, sqlite3.connect(tmp_path / "crash.db") as copy:
            live.backup(copy)
        live.close()
        copy.close()
        first.close()
        for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / "crash.db").rename(tmp_path / "journal.db")
    second = open_journal()
    second.set_aside([letter("a", counts={0: 1})], delivery=messages(1, redelivered=True)).result(10)
    assert bodies(tmp_path) == ["a"]
    counts = {name: int(column[0]) for name, column in second.identity.totals(5).items()}
    assert (counts["received"], counts["committed"], counts["rejected"], counts["duplicate"]) == (2, 0, 1, 1)
    assert counts["received"] == counts["committed"] + counts["rejected"] + counts["duplicate"]


def test_an_id_used_again_without_dup_or_in_another_session_is_another_message(
    journal: Journal, tmp_path: Path
) -> None:
    journal.set_aside([letter("a")], delivery=messages(1)).result(10)
    journal.set_aside([letter("b")], delivery=messages(1)).result(10)
    journal.set_aside([letter("c")], delivery=messages(1, redelivered=True, session="b")).result(10)
    journal.set_aside([letter("d")]).result(10)
    assert bodies(tmp_path) == ["a", "b", "c", "d"]


def test_letters_and_readings_share_one_window(journal: Journal, tmp_path: Path) -> None:
    journal.append(Batch.of([0], [10], [1.0]), delivery=messages(5)).result(10)
    journal.set_aside([letter("a")], delivery=messages(5, redelivered=True)).result(10)
    assert bodies(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [
        letter("a", counts={5: 1}),
        letter("a", counts={0: -1}),
        letter("a", reason="\ud800"),
        letter("a", first=2**63),
        letter("a", readings=2**63),
    ],
)
def test_what_cannot_be_kept_fails_alone(journal: Journal, tmp_path: Path, wrong: DeadLetter) -> None:
    good = journal.append(Batch.of([0], [10], [1.0]))
    bad = journal.set_aside([wrong], delivery=messages(1))
    with pytest.raises(ValueError, match=r"\S"):
        bad.result(10)
    good.result(10)
    journal.set_aside([letter("b")], delivery=messages(1, redelivered=True)).result(10)
    assert bodies(tmp_path) == ["b"], "it did not make its message known"


def test_letters_are_bounded_and_the_oldest_go_counted(
    open_journal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letters, "MOST_LETTERS", 20)
    journal = open_journal()
    for n in range(50):
        journal.write(letters=[letter(f"{n}", store="a" if n % 2 else "b", readings=3, first=n, last=n + 1)]).result(10)
        stats = journal.stats()
        assert stats.letters <= 20
        assert stats.letters + stats.letters_dropped == n + 1
    left = bodies(tmp_path)
    assert left == [str(n) for n in range(50 - len(left), 50)], "the newest are left"
    dropped = journal.select("SELECT store, reason, letters, readings, first, last FROM deadletter_dropped")
    assert sum(row[2] for row in dropped) == 50 - len(left)
    assert sum(row[3] for row in dropped) == 3 * (50 - len(left))
    assert {row[0]: row[4] for row in dropped} == {"a": 1, "b": 0}
    assert {row[1] for row in dropped} == {"the dead letters were full"}


def test_letters_are_bounded_in_bytes_also_after_a_start(open_journal: Any) -> None:
    journal = open_journal(max_bytes=400_000)  # a quarter of it for the bodies of letters
    for _ in range(30):
        journal.write(letters=[letter("x" * 10_000)]).result(10)
    assert journal.stats().letters <= 10
    journal.close()
    journal = open_journal(max_bytes=400_000)
    for _ in range(5):
        journal.write(letters=[letter("x" * 10_000)]).result(10)
    assert journal.stats().letters <= 10
    assert journal.stats().letters + journal.stats().letters_dropped == 35


def test_what_was_replayed_is_removed_with_its_counts_or_not_at_all(journal: Journal) -> None:
    journal.write(letters=[letter("a"), letter("b")]).result(10)
    box = DeadLetters(journal)
    first, second = box.list()
    journal.register("store", stateful=True)
    journal.advance("store", 0, keep_from=0, state=b"one", work=box.removal(first.id)).result(10)
    with pytest.raises(KeyError):  # somebody else has replayed it
        journal.advance("store", 0, keep_from=0, state=b"two", work=box.removal(first.id)).result(10)
    found = journal.consumer("store")
    assert found is not None
    assert found.state == b"one", "counted once"
    assert box.list() == [second]


def test_a_source_keeps_a_letter_once(journal: Journal) -> None:
    """Killed between keeping its readings and removing it, it is there to be kept again."""
    batch = Batch.of(np.zeros(2, np.uint32), [10, 20], [1.0, 2.0])
    journal.append(Batch.of(np.zeros(1, np.uint32), [1000], [9.0])).result(10)  # those of the letter are not the newest
    for _ in range(2):
        journal.append(batch, delivery=once(letter("a")), kind=RecordKind.BACKFILL).result(10)
    totals = {name: int(column[0]) for name, column in journal.identity.totals(1).items()}
    assert (totals["received"], totals["committed"], totals["duplicate"]) == (5, 3, 2)
    journal.append(batch, delivery=once(letter("b")), kind=RecordKind.BACKFILL).result(10)
    assert journal.identity.totals(1)["committed"].tolist() == [5], "another letter is another"

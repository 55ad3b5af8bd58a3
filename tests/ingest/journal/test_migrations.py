"""Journals of earlier releases open and go on; a step to another format is all or nothing."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fieldlab.errors import FieldlabError
from fieldlab.model import Batch, MachineState, RecordKind
from ingest.deadletter import DeadLetters
from ingest.journal import Journal, schema
from ingest.journal.migrations import migrate

RELEASED = Path(__file__).with_name("format-1.db")  # made by the code of release 0.1.0 (commit f9513da)
Open = Callable[..., Journal]


def test_a_journal_of_the_last_release_opens_and_goes_on(tmp_path: Path) -> None:
    shutil.copy(RELEASED, tmp_path / "journal.db")
    for round_ in range(2):  # as it was, and after it was used
        journal = Journal(tmp_path / "journal.db")
        try:
            store = journal.consumer("store")
            assert store is not None
            assert store.position == 10
            records = journal.read(0, frozenset(RecordKind)).records
            values = [v for r in records if r.batch is not None for v in r.batch.value.tolist()]
            assert values == [float(n) for n in range(100 + round_)]
            assert [row.state for r in records for row in r.rows if isinstance(row, MachineState)] == ["running"]
            assert sum(r.kind is RecordKind.TICK for r in records) == 1
            assert [journal.signals[i].name for i in range(3)] == ["s0", "s1", "s2"]
            assert journal.identity.totals(3)["committed"].tolist() == [34 + round_, 33, 33]
            (letter,) = DeadLetters(journal).list()
            assert letter.reason == "field type conflict"
            assert journal.stats().set_aside == 0
            assert journal.select("SELECT count(*) FROM gap") == [(0,)]
            if round_ == 0:
                journal.append(Batch.of(np.zeros(1, np.uint32), [10**9], [100.0])).result(20)
        finally:
            journal.close()


def old(path: Path) -> None:
    """A journal of format 0: before there was a column for where a letter came from, say."""
    Journal(path).close()
    db = sqlite3.connect(path)
    db.execute("ALTER TABLE deadletter DROP COLUMN time")
    db.execute("UPDATE meta SET value = '0' WHERE key = 'format'")
    db.commit()
    db.close()


def add_time(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE deadletter ADD COLUMN time INTEGER NOT NULL DEFAULT 0")


def formats(path: Path) -> tuple[str, bool]:
    db = sqlite3.connect(path)
    ((found,),) = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchall()
    columns = [row[1] for row in db.execute("PRAGMA table_info(deadletter)")]
    db.close()
    return found, "time" in columns


def with_step(monkeypatch: pytest.MonkeyPatch, step: Callable[[sqlite3.Connection], object]) -> None:
    def with_this(db: sqlite3.Connection, path: Path, found: int, wanted: int) -> None:
        migrate(db, path, found, wanted, {0: step})

    monkeypatch.setattr(schema, "migrate", with_this)


def test_an_older_format_is_migrated_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.db"
    old(path)
    seen = []

    def step(db: sqlite3.Connection) -> None:
        seen.append(formats(tmp_path / "journal.db.format-0"))
        add_time(db)

    with_step(monkeypatch, step)
    Journal(path).close()
    assert seen == [("0", False)], "there is a whole copy meanwhile"
    assert formats(path) == ("1", True)
    assert not (tmp_path / "journal.db.format-0").exists()


def test_a_step_that_fails_changes_nothing_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    old(path)

    def step(db: sqlite3.Connection) -> None:
        add_time(db)
        raise ValueError("a row makes no sense")

    with_step(monkeypatch, step)
    for _ in range(2):
        with pytest.raises(
            FieldlabError, match=r"from journal format 0 to 1: a row makes no sense.*journal\.db\.format-0"
        ):
            Journal(path)
        assert formats(path) == formats(tmp_path / "journal.db.format-0") == ("0", False)
    with_step(monkeypatch, add_time)
    Journal(path).close()
    assert formats(path) == ("1", True)


def test_a_format_without_a_way_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    old(path)
    with pytest.raises(FieldlabError, match="format 0; this program cannot read formats below 1: start the release"):
        Journal(path)
    assert formats(path) == ("0", False)

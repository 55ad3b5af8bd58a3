"""Reading a database without its trees, its log with SQLite's own checksums, and what becomes of a damaged journal."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fieldlab.errors import FieldlabError
from fieldlab.model import Batch
from ingest.journal import Journal, salvage, writer
from ingest.journal.pages import Pages
from ingest.journal.schema import TABLES
from ingest.journal.wal import read_log

Open = Callable[..., Journal]
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    st.binary(max_size=40),
    st.integers(100, 30_000).map(bytes),
)


def logged(folder: Path, rows: list[tuple[Any, Any]]) -> tuple[Path, Path]:
    """A database with a row table and a table without rowids, copied with its log while it is open."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    with contextlib.closing(sqlite3.connect(folder / "a.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)")
        db.execute("CREATE TABLE w (k INTEGER PRIMARY KEY, a, b) WITHOUT ROWID")
        for i, row in enumerate(rows):
            db.execute("INSERT INTO t VALUES (?, ?, ?)", (i, *row))
            db.execute("INSERT INTO w VALUES (?, ?, ?)", (-i, *row))
            if i == len(rows) // 2:
                db.execute("PRAGMA wal_checkpoint")
        shutil.copy(folder / "a.db", folder / "copy.db")
        shutil.copy(folder / "a.db-wal", folder / "copy.db-wal")
    return folder / "copy.db", folder / "copy.db-wal"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=30))
def test_pages_give_every_row_of_a_whole_database(tmp_path: Path, rows: list[tuple[Any, Any]]) -> None:
    with Pages(*logged(tmp_path / "x", rows)) as pages:
        found = list(pages.rows())
        assert pages.unreadable == 0
    of_t = {row.rowid: row.values[1:] for row in found if row.rowid is not None and len(row.values) == 3}
    of_w = {row.values[0]: row.values[1:] for row in found if row.rowid is None and len(row.values) == 3}
    expected = {i: tuple(0.0 if v == 0 and isinstance(v, float) else v for v in row) for i, row in enumerate(rows)}
    assert of_t == expected
    assert of_w == {-i: row for i, row in expected.items()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pages_of_any_bytes_end_in_peace(tmp_path: Path, data: st.DataObject) -> None:
    file, log = logged(tmp_path / "x", [(i, bytes(i * 300)) for i in range(40)])
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 9))
        content[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    file.write_bytes(content)
    log.write_bytes(data.draw(st.binary(max_size=10_000)) if data.draw(st.booleans()) else log.read_bytes())
    with Pages(file, log) as pages:
        assert sum(1 for _ in pages.rows()) < 10_000


def test_frames_are_whole_where_sqlite_says_so(tmp_path: Path) -> None:
    _, log = logged(tmp_path / "x", [(i, bytes(5000)) for i in range(100)])
    found = read_log(log)
    assert len(found.good) > 100
    assert found.good.all()
    assert found.damaged == ""
    content = bytearray(log.read_bytes())
    step = 24 + found.page_size
    for frame in np.random.default_rng(3).choice(len(found.good) - 10, 20, replace=False).tolist():
        bent = bytearray(content)
        bent[32 + frame * step + 500] ^= 16
        log.write_bytes(bent)
        again = read_log(log)
        assert np.flatnonzero(~again.good).tolist() == [frame]
        assert again.damaged == f"frame {frame} of its write-ahead log is damaged"


def test_every_table_can_be_told_from_the_others() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(TABLES)
        looks = [(t.types, t.rowid) for t in salvage._tables(db)]
    assert len(set(looks)) == len(looks), "two tables look the same: rows of one would be taken for the other's"


def broken(open_journal: Open, folder: Path) -> None:
    journal = open_journal()
    journal.append(Batch.of(np.zeros(1, np.uint32), [1], [1.0])).result(20)
    journal.close()
    with (folder / "journal.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 64)


def test_a_crash_before_the_new_journal_is_in_its_place_only_delays_it(
    open_journal: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(open_journal, tmp_path)

    def crash(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(salvage, "finish", crash)
        with pytest.raises(KeyboardInterrupt):
            open_journal()
    assert (tmp_path / "journal.salvaged").exists()
    journal = open_journal()
    assert journal.stats().set_aside == 1
    assert not list(tmp_path.glob("journal.salva*"))
    assert journal.identity.totals(1)["committed"].tolist() == [1]


def test_without_room_the_damaged_journal_stays_as_it_is(
    open_journal: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(open_journal, tmp_path)
    before = (tmp_path / "journal.db").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(salvage, "_copy", full)
        with pytest.raises(FieldlabError, match=r"damaged .*No space left on device.*as much room again"):
            open_journal()
    assert (tmp_path / "journal.db").read_bytes() == before
    assert not [f for f in tmp_path.iterdir() if "damaged" in f.name or "salva" in f.name]
    assert open_journal().stats().set_aside == 1


def test_damage_found_while_running_says_what_to_do() -> None:
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert writer._is_damage(error)
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    assert not writer._is_damage(error)

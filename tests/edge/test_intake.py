"""What a source hands over, in the order in which it reaches the disk."""

import sqlite3
import threading
from pathlib import Path

from edge.catalog import Catalog
from edge.intake import Intake
from fieldlab.model import Batch, RecordKind, SignalKey
from ingest.gaps import Gaps
from ingest.journal import Journal

KEYS = [SignalKey.parse(f"drachten/shavers/3/cnc-07/s{i}") for i in range(3)]


def test_what_is_known_of_a_gap_is_on_disk_before_the_readings_behind_it(tmp_path: Path) -> None:
    """Or a kill in between would leave the readings, and nobody would know that some are missing before them."""
    journal = Journal(tmp_path / "journal.db")
    writing, go_on = threading.Event(), threading.Event()

    def busy(_: sqlite3.Connection) -> None:
        writing.set()
        assert go_on.wait(10)

    journal.write(work=busy)
    assert writing.wait(10)
    catalog = Catalog(journal.signals, (), lambda _: None)
    gaps = Gaps(journal, "line-3")
    intake = Intake("opcua-0", journal, catalog, gaps)
    indices = [intake.index(key) for key in KEYS]
    for index in indices:  # the first write is on its way: what follows waits for it
        intake.open_gap("opcua-0", "agent_down", {index: 100})
    readings = intake.append(Batch.of(indices, [200] * 3, [1.0] * 3))
    last = journal.write()  # behind the readings
    go_on.set()
    readings.result(10)
    last.result(10)
    records = journal.read(0, frozenset({RecordKind.GAP, RecordKind.READINGS})).records
    journal.close()
    assert records[-1].kind == RecordKind.READINGS
    assert sum(len(record.rows) for record in records) == len(KEYS), "every gap"

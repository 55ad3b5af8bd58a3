"""The ledger adds up, and tells what changed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fieldlab.model import Batch, SignalKey
from fieldlab.model.status import BAD
from ingest.forwarder import Forwarder
from ingest.journal import Journal
from ingest.ledger import Ledger
from ingest.stores.base import QUERYABLE, DeadLetter
from ingest.worker import Worker

KEYS = [SignalKey.parse(f"drachten/shavers/3/cnc-07/{name}") for name in ("load", "poison", "silent")]


class Refuser:
    """Keeps everything but the readings of one signal."""

    name = "refuser"
    kinds = QUERYABLE

    def write(self, records: object) -> list[DeadLetter]:
        counts = np.zeros(3, int)
        for record in records:  # type: ignore[attr-defined]  # records
            if record.batch is not None:
                counts += np.bincount(record.batch.signal, minlength=3)
        if not counts[1]:
            return []
        return [
            DeadLetter(
                store="refuser", machine="m", signal="poison", readings=int(counts[1]), reason="no", first=0, last=0,
                body=b"", counts={1: int(counts[1])},
            )
        ]  # fmt: skip

    def close(self) -> None:
        pass


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    for key in KEYS:
        made.signals.index(key)
    yield made
    made.close()


def test_the_ledger_adds_up(journal: Journal) -> None:
    worker = Worker("ledger")
    lanes = [Forwarder(journal, Refuser(), worker, backfill=backfill) for backfill in (False, True)]
    ledger = Ledger(journal, [lanes], "line-3")
    assert ledger.rows(1) == []
    times = np.arange(10) * 1_000
    status = np.where(np.arange(10) < 2, BAD, 0).astype(np.uint32)
    value = np.where(status > 0, np.nan, 1.0)
    load = Batch.of([0] * 10, times, value, status)
    journal.append(load).result()
    journal.append(load).result()  # the newest comes again: a duplicate
    journal.append(Batch.of([1] * 4, times[:4], np.ones(4)), overflow={0: 5}).result()
    totals = ledger.totals()
    assert totals["received"] == totals["committed"] + totals["duplicate"] + totals["rejected"]
    assert (totals["bad"] > 0, totals["stored"], totals["dead"]) == (True, 0, 0)
    assert (totals["overflow"], totals["lost"]) == (5, 5)

    async def forward() -> None:
        stop = asyncio.Event()
        stop.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*(lane.run(stop) for lane in lanes))

    asyncio.run(forward())
    totals = ledger.totals()
    assert totals["committed"] == totals["stored"] + totals["dead"]
    assert totals["dead"] == 4
    signals = {str(row["signal"]): row for row in ledger.signals()}
    assert set(signals) == {"cnc-07/load", "cnc-07/poison"}
    assert (signals["cnc-07/poison"]["stored"], signals["cnc-07/poison"]["dead"]) == (0, 4)
    assert sum(int(row["committed"]) for row in signals.values()) == totals["committed"]

    first = {row.key.name: row for row in ledger.rows(2)}
    assert set(first) == {"load", "poison"}
    assert (first["poison"].dead, first["poison"].agent, first["poison"].time) == (4, "line-3", 2)
    assert ledger.rows(3) == [], "only what changed"
    journal.append(Batch.of([2], [1], [1.0])).result()
    assert [row.key.name for row in ledger.rows(4)] == ["silent"]
    worker.shutdown()

"""Sources that are held by a full journal have a gap meanwhile."""

from pathlib import Path

import numpy as np

from edge.backpressure import Backpressure
from fieldlab.model import Batch, Guarantee, SignalKey
from ingest.gaps import Gaps
from ingest.journal import Journal

SECOND = 1_000_000_000


def test_a_full_journal_is_a_gap_until_it_has_room(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", max_bytes=1_000_000)
    try:
        journal.register("store", stateful=True)
        gaps = Gaps(journal, "line-3")
        guarantees: tuple[Guarantee, ...] = ("end-to-end", "from-receipt", "sampled")
        names = {}
        for guarantee in guarantees:
            index = journal.signals.index(SignalKey.parse(f"a/b/c/m/{guarantee}"))
            names[index] = guarantee
            gaps.claim("mqtt-0", index, guarantee)
        watch = Backpressure(journal, gaps, ["mqtt-0", "opcua-1"])
        watch.look()
        assert gaps.since() == []
        start = 0
        while not journal.full:
            times = (np.arange(3_000) + start) * SECOND
            journal.append(Batch.of(np.tile(np.arange(3, dtype=np.uint32), 1_000), times, np.ones(3_000))).result(10)
            start += 3_000
        watch.look()
        watch.look()
        newest = journal.identity.newest(names)
        assert {(g.key.name, g.cause, g.state, g.time) for g in gaps.since()} == {
            (name, "journal_full", "open", newest[index]) for index, name in names.items()
        }
        journal.advance("store", journal.position, keep_from=journal.position, state=b"").result(10)
        while journal.full:
            journal.write().result(10)
        again = Backpressure(journal, gaps, ["mqtt-0", "opcua-1"])
        again.look()  # as after a restart
        assert {(g.key.name, g.state) for g in gaps.since()} == {
            ("end-to-end", "closed"), ("from-receipt", "unverifiable"), ("sampled", "unverifiable"),
        }  # fmt: skip
    finally:
        journal.close()

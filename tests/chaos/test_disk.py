"""A disk that is full, read-only or broken for a while: readings wait, and in the end all are there, once."""

import json
import random
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fieldlab.errors import FieldlabError
from fieldlab.model import Batch, RecordKind, SignalKey
from ingest.journal import Journal

START = 1_763_900_000_000_000_000
SQLITE_READONLY, SQLITE_FULL, SQLITE_IOERR = 8, 13, 10
TROUBLES = {
    "full": ("write", SQLITE_FULL),
    "read-only": ("write", SQLITE_READONLY),
    "EIO at a write": ("write", SQLITE_IOERR | 3 << 8),
    "EIO at a sync": ("sync", SQLITE_IOERR | 4 << 8),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_disk_in_trouble_ten_times_loses_and_doubles_nothing(
    tmp_path: Path,
    file_layer: Callable[[], Any],
    wait_until: Callable[..., Any],
    seed: int,
    tell: Callable[..., None],
    trouble: str,
) -> None:
    chance = random.Random(f"{seed}{trouble}")
    what, code = TROUBLES[trouble]
    sent, refused = 0, 0
    futures: list[Future[None]] = []
    with file_layer() as layer:
        journal = Journal(tmp_path / "journal.db")
        index = journal.signals.index(SignalKey.parse("site/area/line/machine/s"))
        journal.register("store", stateful=True)

        def send(count: int) -> None:
            nonlocal sent
            for _ in range(count):
                numbers = np.arange(sent, sent + 10)
                futures.append(journal.append(Batch.of(np.full(10, index), numbers + 1, numbers.astype(float))))
                sent += 10

        for _ in range(10):
            send(chance.randint(1, 20))
            wait_until(futures[-1].done)
            after = 0 if what == "sync" else chance.randint(0, 6)  # it goes wrong in the middle of a commit

            def refuse(asked: str, file: str) -> int:
                nonlocal after, refused
                if asked != what or not file.endswith(("journal.db", "-wal")):
                    return 0
                after -= 1
                refused += after < 0
                return code if after < 0 else 0

            layer.refuse = refuse
            send(chance.randint(1, 20))
            journal.tick(5)
            wait_until(lambda: journal.error)
            assert not futures[-1].done()
            layer.refuse = lambda asked, file: 0
            wait_until(futures[-1].done)
            wait_until(lambda: not journal.error)
        for future in futures:
            future.result(20)
        journal.close()
        journal = Journal(tmp_path / "journal.db")
        found: list[float] = []
        for record in journal.read(0, frozenset({RecordKind.READINGS}), max_readings=10**6).records:
            assert record.batch is not None
            found += record.batch.value.tolist()
        totals = {name: int(column[0]) for name, column in journal.identity.totals(1).items()}
        stats = journal.stats()
        journal.close()
    tell(
        trouble=trouble.replace(" ", "_"),
        sent=sent,
        committed=totals["committed"],
        lost=sent - len(found),
        refused=refused,
    )
    assert found == [float(n) for n in range(sent)], "all of it, once, in order"
    assert totals["received"] == totals["committed"] == sent
    assert stats.set_aside == 0
    assert refused > 0


def test_a_journal_that_cannot_be_read_for_a_while_gives_everything_later(
    tmp_path: Path, file_layer: Callable[[], Any]
) -> None:
    with file_layer() as layer:
        journal = Journal(tmp_path / "journal.db")
        index = journal.signals.index(SignalKey.parse("site/area/line/machine/s"))
        for n in range(50):
            journal.append(Batch.of([index], [n + 1], [float(n)])).result(20)
        layer.refuse = lambda what, file: SQLITE_IOERR | 1 << 8 if what == "read" else 0
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            journal.read(0, frozenset({RecordKind.READINGS}))
        layer.refuse = lambda what, file: 0
        assert len(journal.read(0, frozenset({RecordKind.READINGS})).records) == 50
        journal.close()


def test_a_folder_that_cannot_be_written_is_an_error_in_words(tmp_path: Path, file_layer: Callable[[], Any]) -> None:
    with file_layer() as layer:
        layer.refuse = lambda what, file: SQLITE_READONLY if what in ("write", "open") else 0
        with pytest.raises(FieldlabError, match=r"journal\.db: the journal cannot be opened"):
            Journal(tmp_path / "journal.db")
    Journal(tmp_path / "journal.db").close()


def test_an_agent_outlives_a_full_disk(
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    """No file of the agent's, its log included, may grow beyond 4 kB for a while: to it, that is a full disk."""
    broker, database = mosquitto(), influxd.create_database()
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
    process = agent(store + mqtt_source(broker)).start()
    publisher = publish(broker)
    sent = 0

    def send(count: int) -> None:
        nonlocal sent
        topic = "fieldlab/drachten/shavers/3/cnc-07/load"
        numbers = range(sent, sent + count)
        publisher.send([(topic, json.dumps({"value": n, "ts": START + n * 10**6})) for n in numbers])
        sent += count

    limits = psutil.Process(process.process.pid)
    for _ in range(3):
        send(300)
        wait_until(lambda: process.ledger()["stored"] == sent, 20.0)
        limits.rlimit(psutil.RLIMIT_FSIZE, (4096, -1))
        send(300)
        error = wait_until(lambda: process.status()["journal"]["error"], 20.0, "it says that the disk refuses")
        assert process.status()["ready"] is False
        assert process.ledger()["committed"] < sent
        limits.rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
        wait_until(lambda: process.ledger()["stored"] == sent, 30.0, "all is stored when there is room again")
    wait_until(lambda: process.status()["ready"], 20.0)
    ledger = adds_up(process)
    rows = influxd.query("SELECT count(value), sum(value) FROM telemetry", database)
    tell(sent=sent, stored=rows[0]["count"], dead=ledger["dead"], lost=sent - rows[0]["count"], words=repr(error))
    assert (rows[0]["count"], rows[0]["sum"]) == (sent, sum(range(sent)))
    assert ledger["committed"] == ledger["stored"] == sent
    assert process.stop() == 0

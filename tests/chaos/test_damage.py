"""Journals damaged at random places: what is readable is kept, the rest is set aside and told, and the agent starts."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldlab.model import Batch, RecordKind, SignalKey
from ingest.journal import Journal
from ingest.stores.base import DeadLetter

PAGE = 4096
RECORDS = 600
ROWS_A_PAGE = 60  # of the smallest records, at most
READINGS = frozenset({RecordKind.READINGS, RecordKind.BACKFILL})
START = 1_763_900_000_000_000_000


def make(folder: Path) -> None:
    """A journal with records of one reading, and now and then of thousands, and rows in its other tables."""
    journal = Journal(folder / "journal.db")
    for i in range(20):
        journal.signals.index(SignalKey.parse(f"site/area/line/machine/s{i}"))
    journal.register("store")
    letter = DeadLetter(store="s", machine="m", signal="x", readings=1, reason="r", first=1, last=1, body=b"b" * 900)
    for n in range(RECORDS):
        many = 3000 if n % 97 == 96 else 1
        batch = Batch.of(np.full(many, n % 20, np.uint32), n * 10_000 + np.arange(many), np.full(many, float(n)))
        journal.append(batch, kind=RecordKind.BACKFILL if n % 2 else RecordKind.READINGS).result(20)
        if n == RECORDS // 2:  # from here on in the log; the writing thread waits, and does not use its connection
            journal._writer._database._db.execute("PRAGMA wal_checkpoint")
        if n % 50 == 0:
            journal.write(letters=[letter]).result(20)
    journal.advance("store", 0, state=b"x" * 300, keep_from=0).result(20)
    for name in ("journal.db", "journal.db-wal"):  # as a kill leaves them, and as a clean end does
        (folder / "killed").mkdir(exist_ok=True)
        shutil.copy(folder / name, folder / "killed" / name)
    journal.close()
    (folder / "closed").mkdir()
    shutil.copy(folder / "journal.db", folder / "closed" / "journal.db")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the journal as a kill left it, and as a clean end did."""
    folder = tmp_path_factory.mktemp("whole")
    make(folder)
    return folder


def hurt(file: Path, chance: random.Random) -> int:
    """Damage one to three pages of a file; how many. The last transaction of a log is as a power cut may leave it."""
    content = bytearray(file.read_bytes())
    end = len(content) // PAGE - (8 if file.name.endswith("-wal") else 0)
    pages = chance.sample(range(end), chance.randint(1, 3))
    for page in pages:
        at = page * PAGE
        way = chance.choice(["zeros", "torn", "flipped", "noise", "header"])
        if way == "zeros":
            content[at : at + PAGE] = bytes(PAGE)
        elif way == "torn":
            content[at + 512 : at + PAGE] = bytes(PAGE - 512)
        elif way == "noise":
            content[at : at + PAGE] = chance.randbytes(PAGE)
        elif way == "header":
            content[at : at + 12] = chance.randbytes(12)
        else:
            content[at + chance.randrange(PAGE)] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return len(pages)


def kept(journal: Journal) -> set[int]:
    """The numbers of the records that are there; each is right, and there once."""
    found: Counter[int] = Counter()
    position = 0
    while position < journal.position:
        chunk = journal.read(position, READINGS)
        for record in chunk.records:
            assert record.batch is not None
            (number,) = set(record.batch.value.astype(int).tolist())
            assert set(record.batch.signal.tolist()) == {number % 20}
            assert record.batch.time.tolist() == (number * 10_000 + np.arange(len(record.batch))).tolist()
            assert len(record.batch) == (3000 if number % 97 == 96 else 1)
            found[number] += 1
        position = chunk.upto
    assert set(found.values()) <= {1}
    return set(found)


def goes_on(journal: Journal) -> None:
    """It takes more readings, and whoever has read everything gets them."""
    before = journal.position
    store = journal.register("store")
    assert store.position <= before
    index = journal.signals.index(SignalKey.parse("site/area/line/machine/new"))
    journal.append(Batch.of([index], [10**15], [1.0])).result(20)
    assert [len(record.batch or ()) for record in journal.read(before, READINGS).records] == [1]


@pytest.mark.parametrize("left", ["closed", "killed"])
def test_60_damaged_journals_keep_what_is_readable(
    whole: Path, tmp_path: Path, seed: int, tell: Callable[..., None], left: str
) -> None:
    chance = random.Random(f"{seed}{left}")
    lost = aside = damaged = 0
    for round_ in range(30):
        folder = tmp_path / str(round_)
        shutil.copytree(whole / left, folder)
        files = sorted(folder.iterdir())
        pages = hurt(chance.choice(files), chance)
        journal = Journal(folder / "journal.db")
        told: list[object] = list(journal.select("SELECT 1 FROM gap WHERE cause = 'journal_damaged'"))
        journal.damaged = lambda *what, told=told: told.append(what)
        try:
            missing = set(range(RECORDS)) - kept(journal)
            goes_on(journal)
            set_aside = journal.stats().set_aside
        finally:
            journal.close()
        assert len(missing) <= pages * ROWS_A_PAGE, (round_, len(missing))
        assert not missing or set_aside, f"round {round_}: {len(missing)} lost and not told"
        assert not missing or told, f"round {round_}: {len(missing)} lost and no gap"
        assert set_aside == len([f for f in folder.glob("journal.damaged-*") if not f.name.endswith("-wal")])
        lost, aside, damaged = lost + len(missing), aside + bool(set_aside), damaged + pages
        again = Journal(folder / "journal.db")  # what was salvaged is whole
        assert again.stats().set_aside == set_aside
        again.close()
    tell(sent=30 * RECORDS, pages_damaged=damaged, journals_set_aside=aside, unreadable=lost, lost_untold=0)
    assert aside > 10


def test_a_truncated_journal_keeps_what_is_before_the_cut(
    whole: Path, tmp_path: Path, tell: Callable[..., None]
) -> None:
    shutil.copy(whole / "closed" / "journal.db", tmp_path)
    file = tmp_path / "journal.db"
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.truncate(size // 2 + 1000)
    journal = Journal(file)
    found = kept(journal)
    goes_on(journal)
    assert journal.stats().set_aside == 1
    journal.close()
    tell(sent=RECORDS, kept=len(found))
    assert len(found) > RECORDS * 0.3


def test_an_empty_file_beside_its_log_gives_what_the_log_has(whole: Path, tmp_path: Path) -> None:
    """SQLite would remove the log."""
    shutil.copytree(whole / "killed", tmp_path, dirs_exist_ok=True)
    (tmp_path / "journal.db").write_bytes(b"")
    journal = Journal(tmp_path / "journal.db")
    assert len(kept(journal)) > RECORDS * 0.3
    assert journal.stats().set_aside == 1
    journal.close()


def test_an_empty_file_that_was_a_journal_is_told(tmp_path: Path) -> None:
    Journal(tmp_path / "journal.db").close()
    (tmp_path / "journal.db").write_bytes(b"")
    journal = Journal(tmp_path / "journal.db")
    assert journal.stats().set_aside == 1
    goes_on(journal)
    journal.close()


def test_a_torn_end_of_the_log_is_no_damage(whole: Path, tmp_path: Path) -> None:
    """A power cut leaves one: what was not synced was not acknowledged."""
    shutil.copytree(whole / "killed", tmp_path, dirs_exist_ok=True)
    log = tmp_path / "journal.db-wal"
    log.write_bytes(log.read_bytes()[:-2000])
    journal = Journal(tmp_path / "journal.db")
    assert journal.stats().set_aside == 0
    assert len(kept(journal)) >= RECORDS - 1
    journal.close()


def test_an_agent_starts_on_a_damaged_journal_and_tells(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
    seed: int,
    tell: Callable[..., None],
) -> None:
    broker = mosquitto()
    away = f'[[store]]\nkind = "influxdb"\nurl = "http://127.0.0.1:{free_port()}"\nbucket = "b"\n'
    process = agent('[[store]]\nkind = "embedded"\n' + away + mqtt_source(broker)).start()
    publisher = publish(broker)

    def send(start: int, count: int) -> None:
        topic = "fieldlab/drachten/shavers/3/cnc-07/load"
        publisher.send(
            [(topic, json.dumps({"value": n, "ts": START + n * 10**6})) for n in range(start, start + count)]
        )

    for start in range(0, 1000, 100):
        send(start, 100)
        wait_until(lambda start=start: process.ledger()["stored"] == start + 100, 20.0)
    process.kill()
    process.start()  # so that its state is in the file, not in its log alone
    assert process.stop() == 0
    content = bytearray((process.data / "journal.db").read_bytes())
    chance = random.Random(seed)
    for page in chance.sample(range(2, len(content) // PAGE), 3):
        content[page * PAGE : page * PAGE + 200] = chance.randbytes(200)
    (process.data / "journal.db").write_bytes(content)
    process.start()
    send(1000, 500)

    def stored() -> int:
        return len(process.query("telemetry?signal=drachten/shavers/3/cnc-07/load")["time"])

    wait_until(lambda: stored() == 1500, 30.0, "all of it is in the store, once")
    journal = process.status()["journal"]
    assert journal["set_aside"] == 1
    gaps = [gap for gap in process.status()["gaps"]["newest"] if gap["cause"] == "journal_damaged"]
    assert {(gap["state"], gap["signal"]) for gap in gaps} == {("unverifiable", "cnc-07/load")}
    tell(sent=1500, stored=stored(), set_aside=journal["set_aside"], lost=0)
    assert process.stop() == 0
    (told,) = [e for e in process.log if e["event"] == "journal_set_aside"]
    assert Path(told["file"]).exists()

"""What is the embedded store's own: its file, kill -9, one process, retention, bounded memory, reading meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from fieldlab.config import Duration, Size
from fieldlab.errors import ConfigError
from fieldlab.model import Batch, MachineState, Place, Record, RecordKind, SignalInfo, SignalKey, SignalTable
from ingest.stores.base import StoreContext, StoreError, StoreMisconfiguredError, StoreUnavailableError
from ingest.stores.embedded import KIND
from ingest.stores.embedded.config import EmbeddedConfig
from ingest.stores.embedded.kind import create_reader, open_database
from ingest.stores.embedded.store import EmbeddedStore

T0 = 1_763_900_000_000_000_000
CNC = Place("drachten", "shavers", "3", "cnc-07")
KEYS = [SignalKey(CNC, f"s{i}") for i in range(100)]


def context(data: Path) -> StoreContext:
    return StoreContext(name="embedded", agent="line-3", data=data)


def record(position: int, n: int = 1000, start: int | None = None) -> Record:
    first = T0 + position * n if start is None else start
    rows = np.arange(n)
    batch = Batch.of((rows % 100).astype(np.uint32), first + rows, rows.astype(np.float64))
    return Record(position, RecordKind.READINGS, T0, batch)


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    opened: list[Any] = []

    def make(**keys: Any) -> Any:
        store, reader = KIND.create(EmbeddedConfig(**keys), context(tmp_path / "data"), SignalTable(KEYS))
        opened.append(store)
        return store, reader

    yield make
    for store in opened:
        store.close()


def test_people_see_the_schema_in_the_file(open_store: Callable[..., Any], tmp_path: Path) -> None:
    store, _ = open_store()
    info = Record(2, RecordKind.SIGNAL, T0, rows=(SignalInfo(key=KEYS[0], unit="mm"),))
    store.write([record(0, 3), info])
    store.close()
    database = open_database(EmbeddedConfig(), context(tmp_path / "data"))
    cursor = database.cursor()
    assert cursor.execute("SELECT * EXCLUDE (integer) FROM telemetry ORDER BY time LIMIT 1").fetchall() == [
        ("drachten", "shavers", "3", "cnc-07", "s0", T0, 0.0, 0, None)
    ]
    assert cursor.execute("SELECT signal, unit, time FROM signal").fetchall() == [("s0", "mm", T0)]
    with pytest.raises(Exception, match="Permission"):
        cursor.execute("SELECT * FROM read_text('/etc/hostname')")
    database.close()


def test_readings_survive_a_restart_and_an_index_that_means_another_signal(
    open_store: Callable[..., Any], tmp_path: Path
) -> None:
    store, _ = open_store()
    store.write([record(0)])
    store.close()
    table = SignalTable(reversed(KEYS))
    store, reader = KIND.create(EmbeddedConfig(), context(tmp_path / "data"), table)
    assert reader is not None
    store.write([record(1)])
    assert reader.counts() == dict.fromkeys(KEYS, 20)
    assert reader.telemetry(KEYS[0], T0 + 1000, 2**62).value[0] == 99.0
    store.close()


def test_kill_9_in_the_middle_and_the_same_records_again(open_store: Callable[..., Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    code = f"""
import sys
import msgspec
import numpy as np
from pathlib import Path
from fieldlab.model import *
from ingest.stores.base import StoreContext
from ingest.stores.embedded import KIND
from ingest.stores.embedded.config import EmbeddedConfig
keys = [SignalKey(Place("drachten", "shavers", "3", "cnc-07"), f"s{{i}}") for i in range(100)]
store, _ = KIND.create(EmbeddedConfig(), StoreContext(name="e", agent="a", data=Path({str(data)!r})), SignalTable(keys))
rows = np.arange(1000)
for position in range(100_000):
    batch = Batch.of((rows % 100).astype(np.uint32), {T0} + position * 1000 + rows, rows.astype(float))
    store.write([Record(position, RecordKind.READINGS, {T0}, batch)])
    print(position, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        while int(child.stdout.readline()) < 30:
            pass
    finally:
        os.kill(child.pid, signal.SIGKILL)
        rest = child.communicate()[0].split()
    acknowledged = int(rest[-1]) if rest else 30
    store, reader = open_store()
    before = sum(reader.counts().values())
    assert before in ((acknowledged + 1) * 1000, (acknowledged + 2) * 1000)  # the last may have been kept unseen
    for position in range(acknowledged + 3):
        store.write([record(position)])
    assert reader.counts() == dict.fromkeys(KEYS, (acknowledged + 3) * 10)


def test_a_second_process_is_told_to_ask_the_agent(open_store: Callable[..., Any], tmp_path: Path) -> None:
    open_store()
    code = f"""
from pathlib import Path
from ingest.stores.base import StoreContext
from ingest.stores.embedded.config import EmbeddedConfig
from ingest.stores.embedded.kind import create_reader
create_reader(EmbeddedConfig(), StoreContext(name="e", agent="a", data=Path({str(tmp_path / "data")!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ask the agent" in done.stderr


def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "embedded.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreMisconfiguredError, match="move it aside"):
        open_database(EmbeddedConfig(), context(tmp_path))
    with pytest.raises(StoreError, match="no agent has stored"):
        create_reader(EmbeddedConfig(), context(tmp_path / "nowhere"))


def test_reading_while_it_writes(open_store: Callable[..., Any]) -> None:
    store, reader = open_store()
    store.write([record(0)])
    stop = threading.Event()
    errors: list[Exception] = []
    looks = [0]

    def look() -> None:
        try:
            while not stop.is_set():
                total = sum(reader.counts().values())
                assert total % 1000 == 0, total  # only whole writes are seen
                assert len(reader.telemetry(KEYS[3], 0, 2**62).time) >= 10
                looks[0] += 1
        except Exception as e:  # noqa: BLE001  # handed to the test's own thread
            errors.append(e)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for position in range(1, 60):
        store.write([record(position)])
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert looks[0] > 0
    assert sum(reader.counts().values()) == 60_000


def test_retention_counts_back_from_the_newest_reading(open_store: Callable[..., Any]) -> None:
    store, reader = open_store(retention=Duration(3600))
    old = record(0, 100)
    store.write([old, record(1, 100, start=T0 + 3601 * 10**9)])
    assert reader.counts() == dict.fromkeys(KEYS, 1)
    assert reader.telemetry(KEYS[0], 0, 2**62).time.tolist() == [T0 + 3601 * 10**9]


def test_a_source_in_the_far_future_deletes_nothing(open_store: Callable[..., Any]) -> None:
    store, reader = open_store(retention=Duration(3600))
    now = time.time_ns()
    store.write([record(0, 100, start=now), record(1, 100, start=2**62)])
    assert reader.counts() == dict.fromkeys(KEYS, 2)


def test_after_close_the_answer_is_an_error(open_store: Callable[..., Any]) -> None:
    store, reader = open_store()
    store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.write([record(0)])
    with pytest.raises(StoreUnavailableError, match="closed"):
        reader.counts()


def test_a_failed_write_leaves_nothing_behind(open_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    store, reader = open_store()
    assert isinstance(store, EmbeddedStore)
    cursor = store._database.cursor()
    cursor.execute("ALTER TABLE machine_state RENAME TO away")  # so that the second half of a write fails
    broken = Record(2, RecordKind.MACHINE_STATE, T0, rows=(MachineState(time=T0, place=CNC, state="idle"),))
    with pytest.raises(StoreUnavailableError):
        store.write([record(0), broken])
    assert reader.counts() == {}
    cursor.execute("ALTER TABLE away RENAME TO machine_state")
    store.write([record(0), broken])
    assert reader.counts() == dict.fromkeys(KEYS, 10)
    cursor.close()


def test_memory_is_bounded(open_store: Callable[..., Any]) -> None:
    store, reader = open_store(memory=Size(32 * 10**6))
    store.write([record(0, 50_000)])
    process = psutil.Process()
    before = process.memory_info().rss
    for position in range(1, 20):
        store.write([record(position, 50_000)])
    assert len(reader.telemetry(KEYS[0], 0, 2**62, limit=5).time) == 5
    assert sum(reader.counts().values()) == 10**6
    assert len(reader.latest(0)) == len(KEYS)
    assert process.memory_info().rss - before < 80 * 10**6


@pytest.mark.parametrize(
    ("keys", "key"),
    [({"memory": Size(1)}, "memory"), ({"threads": 0}, "threads"), ({"retention": Duration(0)}, "retention")],
)
def test_a_table_that_makes_no_sense_names_its_key(keys: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        KIND.create(EmbeddedConfig(**keys), context(tmp_path), SignalTable())
    assert caught.value.key == key
    assert KIND.check(EmbeddedConfig(**keys), context(tmp_path))[0].level == "fail"
    assert KIND.check(EmbeddedConfig(), context(tmp_path))[0].level == "ok"


def test_the_file_is_opened_anew_while_somebody_reads(
    open_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As each hour: what DuckDB keeps of every piece that it wrote is let go."""
    monkeypatch.setattr("ingest.stores.embedded.store._BETWEEN_SWEEPS", 0.0)
    store, reader = open_store()
    ended = threading.Event()
    counts: list[int] = []

    def read() -> None:
        while not ended.is_set():
            counts.append(sum(reader.counts().values()))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for position in range(30):
            store.write([record(position)])
    finally:
        ended.set()
        thread.join()
    assert counts == sorted(counts)
    assert len(counts) > 3
    assert reader.counts() == dict.fromkeys(KEYS, 300)


def test_rows_that_come_again_replace_those_of_this_run_and_of_an_earlier_one(open_store: Callable[..., Any]) -> None:
    def states(*given: tuple[str, int, str]) -> Record:
        rows = tuple(
            MachineState(time=T0 + at, place=msgspec.structs.replace(CNC, machine=machine), state=state)
            for machine, at, state in given
        )
        return Record(1, RecordKind.MACHINE_STATE, T0, rows=rows)

    store, reader = open_store()
    store.write([states(("a", 5, "idle"), ("b", 9, "idle"))])
    store.write([states(("a", 9, "busy"), ("a", 5, "off"))])
    store.write([states(("a", 9, "down"), ("b", 7, "late"))])
    store.close()
    store, reader = open_store()
    store.write([states(("b", 9, "again"), ("a", 10, "run"))])
    store.write([states(("a", 10, "end"))])
    assert [(s.place.machine, s.state) for s in reader.machine_states()] == [("a", "end"), ("b", "again")]
    assert store._database.cursor().execute("SELECT count(*) FROM machine_state").fetchone() == (5,)


def test_many_small_writes_do_not_fill_its_memory(open_store: Callable[..., Any]) -> None:
    """Left open, it holds 48 MB after some 4.5 million readings so written, and its next checkpoint fails."""
    store, _ = open_store()
    used = []
    for position in range(700):
        store.write([record(position, 2000)])
        if position % 50 == 49:
            cursor = store._database.cursor()
            (held,) = cursor.execute("SELECT sum(memory_usage_bytes) FROM duckdb_memory()").fetchone()
            cursor.close()
            used.append(int(held))
    assert max(used) < 24_000_000, used

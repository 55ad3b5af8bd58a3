"""The whole agent killed 21 times: nothing lost or doubled, and judgement is that of one fold over the journal."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from analytics.engine import KINDS, Engine
from fieldlab.model import RecordKind
from fieldlab.model.record import KIND_OF_ROW
from ingest.journal import Journal

START = 1_763_900_000_000_000_000
SECOND = 1_000_000_000
PARTS = 700
SHIFTED = (range(120, 135), range(300, 306))  # parts made while the tool is worn
RESULTS = (RecordKind.FINDING, RecordKind.PART, RecordKind.CHART, RecordKind.MACHINE_STATE)
DATABASE = "ingest.journal.database:Database."
PLACED = {
    "between commit and acknowledgement": (DATABASE + "commit after {}", (3, 20)),
    "between store write and cursor move": ("ingest.stores.embedded.store:EmbeddedStore.write after {}", (1, 5)),
    "in an analytics transaction": (DATABASE + "_move after {} analytics", (1, 5)),
    "before an analytics transaction": (DATABASE + "_move before {} analytics", (1, 5)),
    "in a store's transaction": (DATABASE + "_move after {} embedded", (1, 4)),
    "in a transaction of readings": (DATABASE + "_insert after {}", (3, 20)),
}
CHARTS = """
[[signal]]
match = "cnc-07/diameter"
unit = "mm"
lsl = 24.9
usl = 25.1
[[chart]]
name = "size"
kind = "individuals"
signals = ["cnc-07/diameter"]
baseline = 40
arl0 = 100000
[[chart]]
name = "drift"
kind = "ewma"
signals = ["cnc-07/diameter"]
baseline = 40
arl0 = 100000
[[part]]
machine = "cnc-07"
id = "part_id"
"""


def messages(seed: int) -> list[tuple[str, str]]:
    """What the machine says: each part's id and eight readings of its diameter."""
    noise = random.Random(seed)
    found = []

    def say(signal: str, time: int, value: object) -> None:
        payload = json.dumps({"value": value, "ts": time})
        found.append((f"fieldlab/drachten/shavers/3/cnc-07/{signal}", payload))

    for part in range(PARTS):
        at = START + part * 10 * SECOND
        say("part_id", at, f"P{part:04d}")
        middle = 25.0 + noise.gauss(0, 0.01) + (0.08 if any(part in shifted for shifted in SHIFTED) else 0.0)
        for reading in range(8):
            say("diameter", at + (reading + 1) * SECOND, round(middle + noise.gauss(0, 0.001), 6))
    return found


def results(journal: Path, folder: Path) -> tuple[list[Any], list[Any]]:
    """What a journal says that was judged, and what one fold over it gives: of a copy, while nobody writes."""
    for file in journal.parent.glob("journal.db*"):
        if not file.name.endswith(("-shm", "-lock")):
            shutil.copy(file, folder / file.name)
    copy = Journal(folder / "journal.db")
    try:
        assert copy.select("SELECT min(position) FROM record") == [(1,)], "the journal holds everything"
        engine = Engine(copy.signals)
        told, folded = [], []
        position = 0
        while chunk := copy.read(position, frozenset(RecordKind)).records:
            told += [row for record in chunk if record.kind in RESULTS for row in record.rows]
            folded += engine.fold([record for record in chunk if record.kind in KINDS])
            position = chunk[-1].position
    finally:
        copy.close()
    return told, folded


def test_21_kills_of_the_agent_lose_and_double_nothing_and_change_no_judgement(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
    tmp_path: Path,
    faults: Any,
    seed: int,
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    broker = mosquitto()
    # A store that is away keeps every record in the journal, so that all of it can be folded again at the end.
    away = f'[[store]]\nkind = "influxdb"\nurl = "http://127.0.0.1:{free_port()}"\nbucket = "b"\n'
    process = agent('[[store]]\nkind = "embedded"\n' + away + mqtt_source(broker) + CHARTS)
    process.start()
    process.kill()
    publisher = publish(broker)
    chance = random.Random(seed)
    stream = messages(seed)
    kinds = [*PLACED] * 2 + ["while it works"] * 4 + ["when it has settled"] * 2 + ["while it starts"] * 3
    chance.shuffle(kinds)
    given = iter(stream)

    def send(count: int) -> bool:
        part = list(islice(given, count))
        publisher.send(part)
        return bool(part)

    for kind in kinds:
        send(chance.randint(20, 120))
        if kind in PLACED:
            where, (least, most) = PLACED[kind]
            faults.kill_at(where.format(chance.randint(least, most)))
            process.launch()
            wait_until(lambda: dead(process, send), 60.0, f"it killed itself {kind}")
            faults.kill_at()
            continue
        if kind == "while it starts":
            process.launch()
            wait_until(process.data.joinpath("journal.db-wal").exists, 30.0, "it is half way up")
        else:
            process.start()
            send(chance.randint(20, 120))
        if kind == "when it has settled":
            wait_until(lambda: process.consumer("embedded")["lag_records"] == 0, 30.0, "the store has everything")
        process.kill()
    process.start()
    assert send(100), "it was sent something to the end"
    while send(1000):
        pass
    sent = len(stream)
    wait_until(lambda: process.status()["ledger"]["committed"] == sent, 60.0, "everything is committed")

    def settled() -> bool:
        return all(process.consumer(name)["lag_records"] == 0 for name in ("embedded", "analytics"))

    wait_until(settled, 60.0, "the store has everything, and all is judged")
    ledger = adds_up(process)
    found = process.query("telemetry?signal=drachten/shavers/3/cnc-07/diameter")
    ids = process.query("telemetry?signal=drachten/shavers/3/cnc-07/part_id")
    assert process.stop() == 0
    tell(
        **{kind.replace(" ", "_"): n for kind, n in Counter(kinds).items()},
        sent=sent,
        committed=ledger["committed"],
        stored=len(found["time"]) + len(ids["time"]),
        dead=ledger["dead"],
        lost=sent - ledger["stored"],
    )
    assert ledger["stored"] == ledger["committed"] == sent
    assert list(zip(found["time"], found["value"], strict=True)) == [
        (p["ts"], p["value"]) for t, p in ((t, json.loads(p)) for t, p in stream) if t.endswith("/diameter")
    ]
    assert len(ids["time"]) == PARTS
    (tmp_path / "copy").mkdir()
    told, folded = results(process.data / "journal.db", tmp_path / "copy")
    judged = {type(row).__name__ for row in folded}
    assert {"Finding", "Verdict", "PartEvent", "ChartPoint"} <= judged, "there is something to compare"
    for result in RESULTS:
        rows = [[row for row in side if KIND_OF_ROW[type(row)] is result] for side in (told, folded)]
        assert rows[0] == rows[1], f"the same rows of {result.name}, in the same order"
    assert process.troubles == []


def dead(process: Any, send: Callable[[int], bool]) -> bool:
    """Whether it has killed itself; what is sent meanwhile takes it there."""
    if process.process.poll() is None:
        send(1)
        return False
    assert process.process.returncode == -9, process.log[-5:]
    process.process = None
    return True

"""An agent under 1,000 signals at 10 Hz stays as small as it was: memory, open files, threads, journal.

As many readings as 20 minutes of that have, as fast as the agent does them: some ten times as fast. Where services are
not required, two minutes' worth, and only the caps are looked at. `FIELDLAB_SOAK_MINUTES=20`: in their own time.
"""

import contextlib
import itertools
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import psutil
import pytest

MB = 1_000_000
SIGNALS, HERTZ = 1_000, 10
PER_MESSAGE = 20  # values: a machine that sends every two seconds what it has
MINUTES = float(os.environ.get("FIELDLAB_SOAK_MINUTES", "0"))  # 0: not in their own time
WHOLE = bool(MINUTES) or os.environ.get("FIELDLAB_REQUIRE_SERVICES") == "1"
READINGS = int((MINUTES or (20 if WHOLE else 2)) * 60 * SIGNALS * HERTZ)
AHEAD = 400_000  # readings that may be sent and not yet done
LIMIT = MINUTES * 60 + 1200.0  # s: for a machine that is no faster than the machines
TURN = SIGNALS * PER_MESSAGE  # readings of one message of every signal
GROWS = 20.0  # MB in the second half: the cache of the embedded store differs by that from one look to the next

CHART = """[[chart]]
name = "soak"
kind = "ewma"
signals = ["mill-1/*"]
per = "10s"
baseline = 30
"""


class Sample(NamedTuple):
    """What the agent's process is at one moment; `done` by every consumer."""

    committed: int
    done: int
    rss: int
    files: int
    threads: int
    journal: int


class Machines:
    """Publishes 1,000 signals of random values, each as an array; counts what the broker has taken."""

    def __init__(self, publisher: Any, started: float) -> None:
        self.sent = 0
        self._publisher = publisher
        self._started = started
        self._random = np.random.default_rng(7)
        self._topics = [f"fieldlab/drachten/shavers/3/mill-{i // 50}/s{i % 50}" for i in range(SIGNALS)]

    def turn(self, number: int) -> None:
        """Two seconds of every signal."""
        values = self._random.normal(10.0, 1.0, (SIGNALS, PER_MESSAGE)).round(4)
        first = self._started + number * PER_MESSAGE / HERTZ
        times = [round(first + i / HERTZ, 3) for i in range(PER_MESSAGE)]
        rows = zip(self._topics, values.tolist(), strict=True)
        self._publisher.send(
            [(topic, msgspec.json.encode({"value": row, "ts": times}).decode()) for topic, row in rows]
        )
        self.sent += TURN


def _look(process: Any) -> Sample:
    status = process.status()
    seen = psutil.Process(process.process.pid)
    journal = sum(path.stat().st_size for path in process.data.glob("journal.db*"))
    committed = status["ledger"]["committed"]
    done = committed - max(consumer["lag_readings"] for consumer in status["consumers"])
    return Sample(committed, done, seen.memory_info().rss, seen.num_fds(), seen.num_threads(), journal)


def _feed(machines: Machines, done: Callable[[], int], begun: float) -> None:
    """Turns until all is sent or the time is over; in its own time, or as fast as the agent does them."""
    for number in itertools.count():
        elapsed = time.monotonic() - begun
        if machines.sent >= READINGS or elapsed > LIMIT:
            return
        machines.turn(number)
        due = begun + (number + 1) * PER_MESSAGE / HERTZ if MINUTES else 0.0
        while machines.sent - done() > AHEAD or time.monotonic() < due:
            time.sleep(0.05)  # the pace of the machines, not a wait for the agent
            if time.monotonic() - begun > LIMIT:
                return


@contextlib.contextmanager
def _watched_board(address: str) -> Iterator[list[int]]:
    """Somebody keeps the board open, and Prometheus asks for the metrics."""
    ended, bytes_read = threading.Event(), [0]

    def look() -> None:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{address}/api/events", timeout=60) as events:
            while not ended.is_set() and (line := events.readline()):
                bytes_read[0] += len(line)

    def scrape() -> None:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not ended.wait(1.0):
            for path in ("", "metrics"):
                with direct.open(f"http://{address}/{path}", timeout=60) as answer:
                    bytes_read[0] += len(answer.read())

    threads = [threading.Thread(target=work, daemon=True) for work in (look, scrape)]
    for thread in threads:
        thread.start()
    try:
        yield bytes_read
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.timeout(LIMIT + 400)
@pytest.mark.parametrize(("kind", "most"), [("influxdb", 150 * MB), ("embedded", 250 * MB)])
def test_stays_as_small_as_it_was(
    kind: str,
    most: int,
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker = mosquitto()
    address = f"127.0.0.1:{free_port()}"
    store = '[[store]]\nkind = "embedded"\n'
    if kind == "influxdb":
        bucket = influxd.create_database()
        store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{bucket}"\n'
    tables = store + mqtt_source(broker) + CHART
    process = agent(tables, "soak", http=address if kind == "embedded" else "", keys='journal_max = "200MB"').start()
    span = READINGS / SIGNALS / HERTZ
    begun = time.monotonic()
    machines = Machines(publish(broker), round(time.time() - (0 if MINUTES else span), 3))
    samples: list[Sample] = []
    feeding = threading.Thread(
        target=_feed, args=(machines, lambda: samples[-1].done if samples else 0, begun), daemon=True
    )
    with _watched_board(address) if kind == "embedded" else contextlib.nullcontext():
        feeding.start()
        while feeding.is_alive():
            samples.append(_look(process))
            feeding.join(5.0 if MINUTES else 0.25)
        took = time.monotonic() - begun
        wait_until(lambda: process.ledger()["stored"] == machines.sent and process.settled(), 300.0, "all is stored")
        samples.append(_look(process))
    used = psutil.Process(process.process.pid).cpu_times()
    settled = [s for s in samples if s.committed >= READINGS / 2]
    figures = {
        name: {"middle": round(of[0], 1), "last": round(of[-1], 1), "most": round(max(of), 1)}
        for name, unit in (("rss", MB), ("files", 1), ("threads", 1), ("journal", MB))
        if (of := [getattr(s, name) / unit for s in settled])
    }
    half = (settled[-1].committed - settled[0].committed) / 1e6
    grown = half * float(np.polyfit([s.committed / 1e6 for s in settled], [s.rss / MB for s in settled], 1)[0])
    told = {
        "seconds": round(took, 1),
        "times_as_fast": round(span / took, 1),
        "cpu_s_per_million": round((used.user + used.system) / (READINGS / 1e6), 2),
        "lost": process.ledger()["lost"],
        "rss_grown_in_second_half_mb": round(grown, 1),
        **figures,
    }
    with capsys.disabled():
        print(f"\nsoak {kind}: {machines.sent:,} readings, MB: {json.dumps(told)}")
    if folder := os.environ.get("FIELDLAB_SOAK_OUT"):
        rows = [dict(sample._asdict()) for sample in samples]
        (Path(folder) / f"soak-{kind}.json").write_bytes(msgspec.json.encode({**told, "samples": rows}))
    assert machines.sent == READINGS
    assert told["lost"] == 0
    assert max(s.rss for s in samples) < most
    assert max(s.journal for s in samples) < 100 * MB, (
        "the journal is half of its cap at most, while the stores keep up"
    )
    if WHOLE:
        assert grown < GROWS, "memory grows"
        # The embedded store opens and closes files as it checkpoints: what is usual counts, not a moment.
        for name, room in (("files", 3), ("threads", 2)):
            of = [getattr(s, name) for s in settled]
            third = len(of) // 3
            assert np.median(of[-third:]) <= np.median(of[:third]) + room, f"{name} grow: {of}"
            assert max(of) < 64, f"{name}: {of}"
    assert not process.troubles
    assert process.stop() == 0

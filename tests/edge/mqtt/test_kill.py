"""`kill -9` of the process that reads: what it had not on disk comes again to the next one, in the same session."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge.sources.base import SourceContext

TOPIC = "fieldlab/drachten/shavers/3/printer-1/nozzle"

# Keeps values below 50, and never says that a later one is on disk; prints session, readings and what is in flight.
CHILD = """
import asyncio, sys
from concurrent.futures import Future
from pathlib import Path
from edge.sources.base import SourceContext
from edge.sources.mqtt import KIND
from edge.sources.mqtt.config import MqttConfig
from fieldlab.model import SignalTable

class Sink:
    table = SignalTable()
    readings = 0
    session = ""
    def index(self, key, guarantee="end-to-end"):
        return self.table.index(key)
    def append(self, batch, *, delivery=None, overflow=None):
        future = Future()
        if batch.value.max() < 50:
            future.set_result(None)
        self.session = delivery.session
        self.readings += len(batch)
        return future
    def signals_of(self, source):
        return {}
    def last_times(self, signals):
        return {}

async def main():
    sink = Sink()
    config = MqttConfig(url=sys.argv[1], username=sys.argv[2], password_file=Path(sys.argv[3]))
    place = {"site": "s", "area": "a", "line": "l"}
    context = SourceContext(name="mqtt-0", agent="line-3", index=0, data=Path(sys.argv[4]), **place)
    source = KIND.create(config, context, sink)
    task = asyncio.create_task(source.run(asyncio.Event()))
    while not task.done():
        in_flight, ready = source.status().counters["in_flight"], int(source._subscriptions.answered)
        print(sink.session or "-", sink.readings, in_flight, ready, flush=True)
        await asyncio.sleep(0.02)
    await task

asyncio.run(main())
"""


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`spawn(*arguments)` runs `child` in a process of its own."""
    made: list[subprocess.Popen[str]] = []

    def start(*arguments: object, child: str = CHILD) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", child, *map(str, arguments)]
        made.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_kill(
    mosquitto: Any,
    spawn: Any,
    context: SourceContext,
    run: Any,
    sink: Any,
    publisher: Any,
    payload: Any,
    wait_until: Any,
) -> None:
    broker = mosquitto()
    child = spawn(broker.url, broker.user, broker.password_file, context.data)

    def until(readings: int, in_flight: int) -> str:
        for line in child.stdout:
            found = line.split()
            if len(found) == 4 and found[1:] == [str(readings), str(in_flight), "1"]:
                return str(found[0])
        raise AssertionError("the child ended")

    until(0, 0)  # subscribed
    publish = publisher(broker).send
    publish(TOPIC, *(payload(float(i), i) for i in range(50)))
    session = until(50, 0)
    publish(TOPIC, *(payload(float(i), i) for i in range(50, 100)))
    until(100, 50)
    child.kill()
    child.wait()

    run(broker, sink)
    publish(TOPIC, payload(100.0, 100))
    wait_until(lambda: len(sink.values()) >= 51)
    assert sink.values() == [float(i) for i in range(50, 101)]
    assert [redelivered for _, _, redelivered in sink.deliveries()] == [True] * 50 + [False]
    assert {call.delivery.session for call in sink.calls} == {session}


# Takes poison, and dies when it would acknowledge: the commit is on disk, and the broker does not know.
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from edge.catalog import Catalog
from edge.intake import Intake
from edge.sources.base import SourceContext
from edge.sources.mqtt import KIND
from edge.sources.mqtt.client import MqttClient
from edge.sources.mqtt.config import MqttConfig
from ingest.gaps import Gaps
from ingest.journal import Journal

if sys.argv[5] == "die":
    MqttClient.acknowledge = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

async def main():
    data = Path(sys.argv[4])
    data.mkdir(exist_ok=True)
    journal = Journal(data / "journal.db")
    sink = Intake("mqtt-0", journal, Catalog(journal.signals, [], lambda info: None), Gaps(journal, "line-3"))
    config = MqttConfig(url=sys.argv[1], username=sys.argv[2], password_file=Path(sys.argv[3]))
    context = SourceContext(name="mqtt-0", agent="line-3", index=0, data=data, site="s", area="a", line="l")
    source = KIND.create(config, context, sink)
    stop = asyncio.Event()
    task = asyncio.create_task(source.run(stop))
    while not task.done():
        counters = source.status().counters
        print(int(source._subscriptions.answered), counters["messages"], counters["in_flight"], flush=True)
        await asyncio.sleep(0.02)
        if counters["messages"] >= 4 and not counters["in_flight"]:
            stop.set()
    totals = {name: int(column.sum()) for name, column in journal.identity.totals(len(journal.signals)).items()}
    letters = journal._one("SELECT count(*) FROM deadletter")[0]
    journal.close()
    print("end", letters, *(totals[n] for n in ("received", "committed", "rejected", "duplicate")), flush=True)

asyncio.run(main())
"""


def test_killed_between_commit_and_acknowledgement_keeps_one_letter(
    mosquitto: Any, spawn: Any, context: SourceContext, publisher: Any, payload: Any
) -> None:
    broker = mosquitto()
    arguments = (broker.url, broker.user, broker.password_file, context.data)
    first = spawn(*arguments, "die", child=KILLED)
    assert any(line.split()[0] == "1" for line in first.stdout), "subscribed"
    publish = publisher(broker).send
    publish(TOPIC, payload(1.0, 1), "poison", payload(2.0, 2), "poison, too")
    assert first.wait(20) == -9

    second = spawn(*arguments, "live", child=KILLED)
    last = [line.split() for line in second.stdout][-1]
    assert last[0] == "end"
    letters, received, committed, rejected, duplicate = map(int, last[1:])
    assert (letters, committed, rejected) == (2, 2, 2)
    assert received == committed + rejected + duplicate
    assert duplicate >= 1, "something was redelivered, and known"

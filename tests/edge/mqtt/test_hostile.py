"""What publishers really send, from a real broker into a real journal: all is stored or set aside, and counted."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge.catalog import Catalog
from edge.intake import Intake
from edge.sources.base import SourceContext
from ingest.gaps import Gaps
from ingest.journal import Journal

TOPIC = "fieldlab/drachten/shavers/3/printer-1/nozzle"
NOW = time.time_ns() // 1_000_000
STORED: dict[str, tuple[bytes, ...]] = {
    "type changes": (b'{"value": 1}', b'{"value": 1.5}', b'{"value": "on"}', b'{"value": true}', b'{"value": null}'),
    "huge whole number": (b'{"value": 9223372036854775807}', b'{"value": 1' + b"0" * 300 + b"}"),
    "beyond 64 bits": (b'{"value": 1' + b"0" * 400 + b"}",),
    "duplicated keys": (b'{"value": 1, "value": 2}', b'{"ts": 5, "value": 3, "ts": %d}' % NOW),
    "nested beside": (b'{"value": 4, "x": ' + b"[" * 200 + b"]" * 200 + b"}",),
    "missing time": (b'{"value": 5}', b'{"value": 6, "ts": null}'),
    "odd text": (b'{"value": "\\u0000\\n\\" , = \\\\ \xc2\xb0C"}', b'{"value": ""}'),
    "bad without a value": (b'{"status": "bad"}', b'{"value": 7, "status": 2147483648}'),
    "wide": (b'{"value": 8, "note": "' + b"x" * 1_000_000 + b'"}',),
    "array": (json.dumps({"value": [1, "a", True, None, 2**60], "ts": [NOW + i for i in range(5)]}).encode(),),
}
SET_ASIDE: dict[str, tuple[bytes, ...]] = {
    "NaN": (b'{"value": NaN}', b'{"value": Infinity}', b'{"value": -Infinity}', b"nan"),
    "beyond a double": (b'{"value": 1e999}',),
    "deep nesting": (
        b'{"value": ' + b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"value": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ),
    "invalid UTF-8": (b'{"value": "\xff"}', b'{"value": 1, "x": "\xc3("}', b"\xed\xa0\x80", b'{"value": "\\ud800"}'),
    "absurd time": (
        *(
            b'{"value": 1, "ts": %s}' % each
            for each in (b"0", b"-1", b"1e300", b"99999999999999999999", b"true", b"{}")
        ),
        *(b'{"value": 1, "ts": "%s"}' % each for each in (b"0001-01-01T00:00:00Z", b"2026-13-01T00:00:00Z", b"soon")),
        b'{"value": 1, "ts": %d}' % (NOW + 2 * 86_400_000),
        b'{"value": [1, 2], "ts": [%d, 5]}' % NOW,
    ),
    "no value": (b"{}", b'{"v": 1}', b"[]", b"null", b"", b"\x00", b"21,5"),
    "odd status": (
        b'{"value": 1, "status": -1}',
        b'{"value": 1, "status": "odd"}',
        b'{"value": 1, "status": 4294967296}',
    ),
    "array without times": (b'{"value": [1, 2]}', b'{"value": [1, 2], "ts": [1]}', b'{"value": [[1]], "ts": [1]}'),
}


@pytest.fixture
def journal(context: SourceContext) -> Iterator[Journal]:
    context.data.mkdir()
    made = Journal(context.data / "journal.db")
    yield made
    made.close()


def totals(journal: Journal) -> dict[str, int]:
    found = journal.identity.totals(len(journal.signals))
    return {name: int(column.sum()) for name, column in found.items()}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_everything_is_stored_or_set_aside_and_counted(
    mosquitto: Any, run: Any, journal: Journal, publisher: Any, wait_until: Any, protocol: str
) -> None:
    broker = mosquitto()
    sink = Intake("mqtt-0", journal, Catalog(journal.signals, [], lambda _info: None), Gaps(journal, "line-3"))
    running = run(broker, sink, protocol=protocol)
    publish = publisher(broker).send
    stored = [each for group in STORED.values() for each in group]
    aside = [each for group in SET_ASIDE.values() for each in group]
    publish(TOPIC, *stored, *aside)
    messages = len(stored) + len(aside)
    readings = len(stored) + 4  # the array has five
    wait_until(lambda: totals(journal)["received"] == readings + len(aside))
    wait_until(lambda: running.counter("in_flight") == 0)
    assert running.counter("messages") == messages
    assert running.counter("set_aside") == len(aside)
    assert running.counter("readings") == readings
    counts = totals(journal)
    assert counts["received"] == counts["committed"] + counts["duplicate"] + counts["rejected"]
    assert (counts["committed"], counts["rejected"], counts["duplicate"]) == (readings, len(aside), 0)
    letters = journal.select("SELECT reason, body FROM deadletter ORDER BY id", ())
    assert [body for _, body in letters] == aside, "each with its bytes"
    assert all(len(reason) > 20 and TOPIC in reason for reason, _ in letters), "each with topic and reason"
    before = running.counter("messages")
    running.cut()
    wait_until(lambda: running.counter("connects") == 2 and running.source.status().connected)
    publish(TOPIC, b'{"value": 9}')
    wait_until(lambda: running.counter("messages") == before + 1 and running.counter("in_flight") == 0)
    assert running.counter("redelivered") == 0, "all of it was acknowledged"


def test_the_same_message_again_is_stored_once_and_counted(
    mosquitto: Any, run: Any, journal: Journal, publisher: Any, wait_until: Any
) -> None:
    """A publisher that sends twice what it measured once: the same time, value and status."""
    broker = mosquitto()
    sink = Intake("mqtt-0", journal, Catalog(journal.signals, [], lambda _info: None), Gaps(journal, "line-3"))
    run(broker, sink)
    one = b'{"value": 1.5, "ts": %d}' % NOW
    publisher(broker).send(TOPIC, one, one, one, b'{"value": 2.5, "ts": %d}' % NOW)
    wait_until(lambda: totals(journal)["received"] == 4)
    counts = totals(journal)
    assert (counts["received"], counts["committed"], counts["duplicate"], counts["moved"]) == (4, 2, 2, 1)


def test_the_log_is_limited_and_the_count_is_not(
    mosquitto: Any, run: Any, sink: Any, publisher: Any, wait_until: Any, monkeypatch: Any
) -> None:
    said: list[int] = []
    monkeypatch.setattr("edge.sources.mqtt.intake._log.warning", lambda _event, **keys: said.append(keys["count"]))
    broker = mosquitto()
    running = run(broker, sink)
    publisher(broker).send(TOPIC, *[b"poison"] * 1500)
    wait_until(lambda: running.counter("set_aside") == 1500 and running.counter("in_flight") == 0)
    assert len(sink.letters()) == 1500
    assert said == [1, 10, 100, 1000]

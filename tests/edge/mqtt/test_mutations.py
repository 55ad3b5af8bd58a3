"""Mutated payloads: never a crash, and many at once are read exactly as one by one.

`FIELDLAB_FUZZ` says how many for each configuration; 1,500 by default.
"""

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.formats import dialect_of
from edge.sources.mqtt.frames import Frames
from edge.sources.mqtt.intake import Intake
from fieldlab.model import Batch, Guarantee, SignalInfo, SignalKey, SignalTable

COUNT = int(os.environ.get("FIELDLAB_FUZZ", "1500"))
NOW = 1_795_000_000_000_000_000
S = NOW / 1e9
GROUP = 20
SEEDS = [
    json.dumps(each).encode()
    for each in (
        {"value": 210.5, "ts": S, "status": 0},
        {"value": 3, "ts": NOW // 10**6},
        {"value": 2**53 + 1, "ts": NOW, "status": 0},
        {"value": True},
        {"value": "printing", "ts": "2026-11-23T20:00:00.5Z"},
        {"value": None, "status": 2**31},
        {"value": 1.0, "ts": S, "status": "good"},
        {"value": [1.0, 2.5, 3.0], "ts": [S - 2, S - 1, S]},
        {"value": [1, 2], "ts": [NOW // 10**6 - 1, NOW // 10**6], "status": 0},
        {"value": [1.5, 2.5], "ts": [NOW - 1, NOW], "status": 1073741824},
        {"value": [1.5, None, "x", True, 2**60], "ts": [NOW - 4, NOW - 3, NOW - 2, NOW - 1, NOW], "status": [0] * 5},
        {"value": [1, 2**53 + 1], "ts": [NOW // 10**6 - 1, NOW // 10**6]},
        {"value": [1.0, 2.5], "ts": [NOW / 1e9 - 1, NOW]},
        {"data": {"a": 1, "b": {"c": [1, 2]}}, "temps": {"tool0": {"actual": 210.5, "target": 215}}, "ts": S},
        21.5,
    )
]
SEEDS += [b'{"value": 1.5, "ts": %d, "unit": "\xc2\xb0C"}' % NOW, b'{"value": 1.5, "unit": "\xb0C"}']
TOKENS = [
    *(b"NaN", b"-Infinity", b"1e999", b"-1e-999", b"1" + b"0" * 400, b"9223372036854775808", b"-0.0", b"1e17"),
    *(b"[" * 3000, b'{"a":' * 300, b"]", b"}", b'"', b"\\ud800", b"\xff", b"\xc3", b"\x00", b"\n", b",", b":", b"null"),
    *(
        b'"value": 1, ',
        b'"ts": 5, ',
        b'"status": -1, ',
        b'"status": 4294967296, ',
        b"true",
        b'"x"',
        b"18446744073709551616",
    ),
]
CONFIGS: dict[str, dict[str, Any]] = {
    "json": {},
    "dotted": {"value": "data.a", "status": ""},
    "plain": {"value": ""},
    "text": {"format": "plain"},
    "values": {"values": {"nozzle": "temps.tool0.actual", "*": "data.*", "*.target": "temps.*.target", "v": "value"}},
}


def mutated(random_: random.Random) -> bytes:
    payload = random_.choice(SEEDS)
    for _ in range(random_.choice((0, 0, 1, 1, 2, 5))):
        at, stop = sorted(random_.randrange(len(payload) + 1) for _ in range(2))
        kind = random_.randrange(6)
        if kind == 0:
            payload = payload[:at] + bytes([random_.randrange(256)]) + payload[at + 1 :]
        elif kind == 1:
            payload = payload[:at] + payload[stop:]
        elif kind == 2:
            payload = payload[:at] + random_.choice(TOKENS) + payload[at:]
        elif kind == 3:
            payload = payload[:at]
        elif kind == 4:
            payload = payload[:stop] + payload[at:]
        else:
            payload = payload[:at] + random_.choice(SEEDS)[at:]
    return payload


class Numbers:
    """Gives signals their numbers."""

    def __init__(self) -> None:
        self._table = SignalTable()

    def index(self, key: SignalKey, guarantee: Guarantee = "end-to-end") -> int:
        return self._table.index(key)

    def describe(self, info: SignalInfo, *, scale: float = 1.0, offset: float = 0.0) -> int:
        return self._table.index(info.key)


def columns(batch: Batch | None) -> Any:
    if batch is None:
        return None
    value = np.where(np.isnan(batch.value), -1.25e300, batch.value).tolist()
    text = (batch.text_row.tolist(), batch.text, batch.integer_row.tolist(), batch.integer.tolist())
    return batch.signal.tolist(), batch.time.tolist(), value, batch.status.tolist(), text


@pytest.mark.parametrize("name", CONFIGS)
def test_mutated_payloads(name: str) -> None:
    config = MqttConfig(url="mqtt://host", **CONFIGS[name])
    context = SourceContext(name="m", agent="a", index=0, site="s", area="a", line="l", data=Path("unused"))

    def intake() -> Intake:
        return Intake("m", dialect_of(config, context, Numbers()))

    random_ = random.Random(20261123)
    together, singly = intake(), intake()
    topics = [b"fieldlab/s/a/l/m/" + each for each in (b"one", b"two", b"_three", b"fo\xffur", b"five")]
    for start in range(0, COUNT, GROUP):
        payloads = [mutated(random_) for _ in range(GROUP)]
        names = random_.choices(topics, weights=[10, 10, 1, 1, 10], k=GROUP)
        heads = random_.choices([0x32, 0x3A, 0x30, 0x33, 0x31], weights=[40, 3, 3, 1, 1], k=GROUP)
        ids = [(start + i & 0x7FFF).to_bytes(2, "big") if head & 6 else b"" for i, head in enumerate(heads)]
        together.add_many(Frames(names, payloads, heads, ids, NOW, 0))
        for i, head in enumerate(heads):
            singly.add(
                names[i],
                payloads[i],
                NOW + i,
                mid=int.from_bytes(ids[i], "big"),
                qos=(head & 6) >> 1,
                redelivered=bool(head & 8),
                retained=bool(head & 1),
            )
        one, other = together.take("s"), singly.take("s")
        assert columns(one.batch) == columns(other.batch), payloads
        assert columns(one.unacknowledged) == columns(other.unacknowledged), payloads
        assert [(d.body, d.reason) for d in one.letters] == [(d.body, d.reason) for d in other.letters], payloads
        assert one.acknowledge == other.acknowledge
        assert (one.delivery is None) == (other.delivery is None)
        if one.delivery is not None and other.delivery is not None:
            for column in ("ids", "hashes", "redelivered", "first_row"):
                assert getattr(one.delivery, column).tolist() == getattr(other.delivery, column).tolist()
        for batch in (one.batch, one.unacknowledged):
            if batch is not None:
                batch.check()
    counters = together.counters
    assert counters == singly.counters
    assert min(counters[each] for each in ("readings", "set_aside", "ignored", "qos0", "retained", "redelivered")) > 0
    assert counters["messages"] >= COUNT

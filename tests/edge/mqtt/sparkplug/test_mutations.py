"""Mutated messages through the whole dialect: never a crash, and what is refused has a reason.

`FIELDLAB_FUZZ` says how many; 5,000 by default. 200,000:
`FIELDLAB_FUZZ=200000 pytest tests/edge/mqtt/sparkplug/test_mutations.py`.
"""

import os
import random
from typing import Any

COUNT = int(os.environ.get("FIELDLAB_FUZZ", "5000"))


def seeds(n: Any) -> list[tuple[str, bytes]]:
    m = n.metric
    dataset = {"numOfColumns": 2, "columns": ["a", "b"], "types": ["Int64", "String"], "rows": [[1, "x"], [2, "y"]]}
    template = {"isDefinition": False, "metrics": [m("x", 1.5, "Float"), m("d", dataset, "DataSet")]}
    good = {"Quality": {"type": "Int32", "value": 192}, "s": {"type": "PropertySet", "value": {}}}
    metrics = [
        m("a", -1, "Int8", alias=1, properties=good),
        m("b", {"$long": "18446744073709551615"}, "UInt64", alias=2),
        m("c", "text", "String", alias=3, metadata={"description": "x"}),
        m("d", dataset, "DataSet", alias=4),
        m("t", template, "Template", alias=5),
        m("w", {"$bytes": [1, 2, 3]}, "Bytes", alias=6),
        m("h", 1.5, alias=7, isHistorical=True),
        m("n", None, alias=8),
        m("e", True, "Boolean", alias=9),
    ]
    made = [n.nbirth(*metrics), n.send("DBIRTH", *metrics, device="dev")]
    made += [n.send("NDATA", {**each, "name": None}) for each in metrics]
    made += [n.send("DDATA", {**each, "name": None}, device="dev") for each in metrics]
    return [*made, n.send("DDEATH", device="dev"), n.ndeath()]


def mutated(random_: random.Random, data: bytes, others: list[bytes]) -> bytes:
    for _ in range(random_.choice((0, 1, 1, 2, 5))):
        at, stop = sorted(random_.randrange(len(data) + 1) for _ in range(2))
        kind = random_.randrange(6)
        if kind == 0:
            data = data[:at] + bytes([random_.randrange(256)]) + data[at + 1 :]
        elif kind == 1:
            data = data[:at] + data[stop:]
        elif kind == 2:
            data = data[:at] + random_.choice((b"\xff" * 11, b"\x00", b"\x80", b"\x12\xff\x7f", b"\x7f")) + data[at:]
        elif kind == 3:
            data = data[:at]
        elif kind == 4:
            other = random_.choice(others)
            data = data[:at] + other[random_.randrange(len(other)) :]
        else:
            data = data + data[at:stop]
    return data


def test_mutations(host: Any, edge_node: Any) -> None:
    random_ = random.Random(7)
    h = host()
    messages = seeds(edge_node())
    payloads = [payload for _, payload in messages]
    read = refused = 0
    for i in range(COUNT):
        if i % 50 == 0:
            for topic, payload in messages[:2]:  # it is alive, most of the time
                h((topic, payload))
        topic, payload = random_.choice(messages)
        try:
            found = h((topic, mutated(random_, payload, payloads)))
        except ValueError as e:
            refused += bool(str(e))
        else:
            read += not isinstance(found, str)
        h.now += 0.1
        h.say()
        if i % 100 == 0:
            h.save()
        assert all(each.reason for each in h.dialect.rejected())
        assert h.count("waiting") <= 5000
    assert read > COUNT / 20, "not everything was refused"
    assert refused > COUNT / 20, "and not everything read"

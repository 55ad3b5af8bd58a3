"""A node-opcua server through the agent into three real stores: every reading once, with its own time and status."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

NAMES = [f"v{i}" for i in range(10)]
OTHERS = {
    "doubtful": {"type": "Double", "value": 1.5},
    "text": {"type": "String", "value": "T01"},
    "switch": {"type": "Boolean", "value": True},
}


def produce(server: Any, start: int) -> None:
    """2,000 numbers, and readings that are Uncertain, Bad, text and boolean."""
    server.ask("burst", names=NAMES, rounds=200, every=4, type="Double")
    for i in range(start, start + 10):
        server.ask("set", name="doubtful", type="Double", value=i + 0.5, status="UncertainLastUsableValue")
        server.ask("set", name="doubtful", type="Double", value=i + 0.25, status="BadSensorFailure")
        server.ask("set", name="text", type="String", value=f"T{i}")
        server.ask("set", name="switch", type="Boolean", value=i % 2 == 1)


def as_stored(row: tuple[str, int, Any, int]) -> tuple[str, int, float | None, str | None, int | None]:
    """(signal, ns, value, text, status) as ingest/README.md has a reading."""
    name, at, value, status = row
    bad = status >= 0x80000000
    number = None if bad or isinstance(value, str) else float(value)
    return name, at, number, value if isinstance(value, str) and not bad else None, status or None


def test_every_reading_is_in_each_store_once(
    opcua_server: Callable[..., Any],
    influxd: Any,
    victoria_metrics: Any,
    agent: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    server = opcua_server({**{n: {"type": "Double", "value": 0} for n in NAMES}, **OTHERS})
    database = influxd.create_database()
    process = agent(
        '[[store]]\nkind = "embedded"\n'
        f'[[store]]\nkind = "influxdb"\nname = "one"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
        f'[[store]]\nkind = "influxdb"\nname = "vm"\napi = "v2"\nurl = "{victoria_metrics.url}"\n'
        + server.source([*NAMES, *OTHERS])
    )

    def everything_is_committed() -> bool:
        return bool(process.ledger()["committed"] == len(server.produced()) and process.settled())

    process.start()
    wait_until(lambda: process.status()["sources"][0]["signals"] == len(NAMES) + len(OTHERS))
    produce(server, 0)
    wait_until(everything_is_committed, 30.0, "the first half is stored")
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < 8
    process.start()
    wait_until(lambda: process.status()["sources"][0]["signals"] == len(NAMES) + len(OTHERS))
    produce(server, 50)
    wait_until(everything_is_committed, 30.0, "the second half is stored")

    produced = server.produced()
    expected = Counter(map(as_stored, produced))
    assert len(expected) == len(produced) > 4_000
    rows = influxd.query('SELECT value, text, status FROM telemetry GROUP BY "signal", machine', database)
    assert {row["machine"] for row in rows} == {"cnc-07"}
    found = Counter((r["signal"], r["time"], r.get("value"), r.get("text"), r.get("status")) for r in rows)
    assert found == expected

    for name in [*NAMES, *OTHERS]:
        series = process.query(f"telemetry?signal=drachten/shavers/3/cnc-07/{name}")
        rows = zip(series["time"], series["value"], series["status"], strict=True)
        got = Counter((t, v, s) for t, v, s in rows)
        assert got == Counter((t, None if s >> 31 else v, s) for n, t, v, s in produced if n == name), name

    for name in NAMES:
        samples = [
            (at, value)
            for series in victoria_metrics.export(f'telemetry_value{{signal="{name}"}}')
            for at, value in zip(series["timestamps"], series["values"], strict=True)
        ]
        mine = [(t // 1_000_000, float(v)) for n, t, v, _ in produced if n == name]
        assert Counter(samples) == Counter(mine), name

    ledger = process.ledger()
    assert ledger["stored"] == ledger["committed"] == len(produced)
    assert ledger["lost"] == ledger["dead"] == 0
    assert process.stop() == 0
    assert process.troubles == []

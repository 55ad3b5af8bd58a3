"""Alarms of a node-opcua server go through the agent into two real stores and onto the board, once, also over kills."""

import json
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy between us and loopback
LIMITS = {"lowLowLimit": 10, "lowLimit": 25, "highLimit": 75, "highHighLimit": 90}
ROUNDS, EACH = 2, 50


def test_events_are_in_each_store_once_and_on_the_board(
    opcua_server: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
) -> None:
    server = opcua_server({"a": {"type": "Double", "value": 0}, "temperature": {"type": "Double", "value": 50}})
    server.ask("notifier", name="press")
    server.ask("alarm", name="hot", source="press", input="temperature", kind="ExclusiveLimitAlarmType", limits=LIMITS)
    database = influxd.create_database()
    board = f"127.0.0.1:{free_port()}"
    process = agent(
        '[[store]]\nkind = "embedded"\n'
        f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
        + server.source(["a"], "[[source.events]]\nqueue = 5000\n"),
        http=board,
    )

    def counters() -> dict[str, int]:
        found: dict[str, int] = process.status()["sources"][0]["counters"]
        return found

    def alarms() -> dict[str, Any]:
        with _DIRECT.open(f"http://{board}/api/alarms", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def state() -> list[tuple[str, Any, Any]]:
        return [(c["name"], c["active"], c["acknowledged"]) for c in alarms()["conditions"]]

    process.start()
    wait_until(lambda: counters()["condition_refreshes"], what="the conditions were asked for")
    server.ask("set", name="temperature", type="Double", value=95)
    wait_until(lambda: state() == [("hot", True, False)], what="the alarm is on the board")
    for n in range(ROUNDS):  # killed while events are under way
        server.ask("raise", name="press", message=f"round {n}", severity=n + 1, count=EACH)
        if n % 2:
            wait_until(lambda: counters()["events"], what="some have come")
        process.kill()
        process.start()
    server.ask("acknowledge", name="hot", comment="seen")
    wait_until(lambda: state() == [("hot", True, True)], what="so is its acknowledgement")
    expected = Counter(f"round {n} {i}" for n in range(ROUNDS) for i in range(EACH))

    def in_influxdb() -> Counter[str]:
        rows = influxd.query('SELECT "message" FROM "event"', database)
        return Counter(row["message"] for row in rows if row["message"].startswith("round"))

    def in_embedded() -> Counter[str]:
        return Counter(e["message"] for e in process.query("events") if e["message"].startswith("round"))

    wait_until(lambda: sum(in_influxdb().values()) >= ROUNDS * EACH and process.settled(), 30.0, "all are stored")
    assert in_influxdb() == expected
    assert in_embedded() == expected
    rows = influxd.query('SELECT * FROM "event" WHERE "condition" != \'\' ORDER BY time DESC LIMIT 1', database)
    assert {k: rows[0][k] for k in ("machine", "active", "acknowledged", "retain", "kind")} == {
        "machine": "cnc-07",
        "active": True,
        "acknowledged": True,
        "retain": True,
        "kind": "ExclusiveLimitAlarmType",
    }
    assert [c["message"] for c in process.query("conditions")] == [rows[0]["message"]]
    assert process.stop() == 0
    server.ask("set", name="temperature", type="Double", value=50)
    server.ask("acknowledge", name="hot", comment="cool again", confirm=True)
    process.start()
    wait_until(lambda: state() == [], what="what ended while the agent was away is off the board")
    assert process.stop() == 0

"""A new configuration for a running agent: what stays is not touched, what is wrong is refused, nothing is lost."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHART = '[[chart]]\nname = "load"\nkind = "individuals"\nsignals = ["*/load"]\nper = "reading"\nbaseline = 30\n'


def influx(server: Any, database: str, name: str = "") -> str:
    named = f'name = "{name}"\n' if name else ""
    return f'[[store]]\nkind = "influxdb"\n{named}api = "v1"\nurl = "{server.url}"\nbucket = "{database}"\n'


def series(machine: str, start: int, count: int) -> list[tuple[str, str]]:
    """Messages of the signals a and b of a machine, with times of their own."""
    return [
        (f"fieldlab/x/y/z/{machine}/{name}", f'{{"value": {i}, "ts": {1_763_900_000 + i * 0.01:.2f}}}')
        for i in range(start, start + count)
        for name in ("a", "b")
    ]


def stored(server: Any, database: str) -> int:
    rows = server.query('SELECT count("value") AS n FROM telemetry', database)
    return int(rows[0]["n"]) if rows else 0


class Reloading:
    """An agent's reloads, by its status."""

    def __init__(self, process: Any, wait_until: Callable[..., Any]) -> None:
        self.process = process
        self._wait_until = wait_until

    @property
    def now(self) -> dict[str, Any]:
        found: dict[str, Any] = self.process.status()["configuration"]
        return found

    def apply(self, tables: str, *, ask: bool = True) -> None:
        """Write the file, send SIGHUP, and wait until it runs."""
        reloads = self.now["reloads"]
        self.process.configure(tables)
        if ask:
            self.hang_up()
        self._wait_until(lambda: self.now["reloads"] > reloads, 30.0, lambda: str(self.now))
        assert self.now["refused"] == self.now["waiting"] == ""

    def hang_up(self) -> None:
        self.process.process.send_signal(signal.SIGHUP)

    def events(self, event: str, **more: Any) -> list[dict[str, Any]]:
        return [e for e in self.process.log if e["event"] == event and more.items() <= e.items()]


@pytest.fixture
def reloading(wait_until: Callable[..., Any]) -> Callable[[Any], Reloading]:
    return lambda process: Reloading(process, wait_until)


def test_source_and_store_come_and_go_under_flow(
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    reloading: Callable[[Any], Reloading],
    wait_until: Callable[..., Any],
    fieldlab: Callable[..., Any],
) -> None:
    first, second = mosquitto(), mosquitto()
    one, two = influxd.create_database(), influxd.create_database()
    alone = influx(influxd, one) + mqtt_source(first)
    both = influx(influxd, one) + influx(influxd, two, "second") + mqtt_source(first) + mqtt_source(second)
    process = agent(alone, "reload").start()
    reload = reloading(process)
    a, b = publish(first), publish(second)
    a.send(series("m1", 0, 300))
    a.send(series("m1", 300, 2000), wait=False)
    reload.apply(both)
    a.send(series("m1", 2300, 500), wait=False)
    wait_until(lambda: all(s["connected"] for s in process.status()["sources"]), 30.0)
    b.send(series("m2", 0, 700))
    sent = 2 * (300 + 2000 + 500 + 700)
    wait_until(lambda: stored(influxd, two) == sent and process.settled(), 60.0, "the new store has everything")
    assert stored(influxd, one) == sent
    mine = next(s for s in process.status()["sources"] if s["name"] == "mqtt-0")
    assert (mine["counters"]["connects"], mine["counters"]["reconnects"]) == (1, 0)  # it was never disturbed
    a.send(series("m1", 2800, 1000), wait=False)
    reload.apply(alone)  # a person asked: the second store and source go
    a.send(series("m1", 3800, 200))
    wait_until(lambda: process.ledger()["stored"] == sent + 2400 and process.settled(), 60.0)
    assert stored(influxd, one) == sent + 2400
    assert [c["name"] for c in process.status()["consumers"]] == ["influxdb", "influxdb.backfill", "analytics"]
    assert reload.events("consumers_retired")[-1]["names"] == ["second", "second.backfill"]
    ledger = process.ledger()
    assert (ledger["committed"], ledger["duplicate"], ledger["lost"]) == (sent + 2400, 0, 0)
    assert fieldlab("report", "ledger", "--config", process.config).code == 0  # every signal adds up, for every store
    assert not process.troubles
    assert process.stop() == 0


def test_changed_source_begins_anew_with_its_session(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    reloading: Callable[[Any], Reloading],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    process = agent(mqtt_source(broker), "changed").start()
    reload = reloading(process)
    sender = publish(broker)
    sender.send(series("m1", 0, 500), wait=False)
    reload.apply(mqtt_source(broker, "in_flight = 500\n"))
    sender.send(series("m1", 500, 500))
    wait_until(lambda: process.ledger()["stored"] == 2000 and process.settled(), 60.0)
    ledger = process.ledger()
    assert (ledger["committed"], ledger["lost"]) == (2000, 0)
    assert len(reload.events("mqtt_connected")) == 2
    assert process.stop() == 0


def test_bad_file_is_refused_and_the_old_one_runs_on(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    reloading: Callable[[Any], Reloading],
    wait_until: Callable[..., Any],
    fieldlab: Callable[..., Any],
) -> None:
    broker = mosquitto()
    good = mqtt_source(broker)
    process = agent(good, "bad").start()
    reload = reloading(process)
    bad = {
        good.replace("topics", "topcis"): "topics",  # the nearest known key
        good + "[[store]\n": "is not TOML",
        good.replace(broker.url, "mqtt://user:secret-word@127.0.0.1"): "url",
        good + '[[source]]\nkind = "opcua"\nmachine = "c"\nurl = "opc.tcp://127.0.0.1:9"\nusername = "u"\n'
        'password_file = "nowhere"\n[[source.signal]]\nname = "a"\nnode = "nsu=urn:x;s=a"\n': "nowhere",
    }  # fmt: skip
    for tables, words in bad.items():
        process.configure(tables)
        reload.hang_up()
        wait_until(lambda words=words: words in reload.now["refused"], 20.0, words)
    assert "secret-word" not in str(process.log)
    refused = reload.events("configuration_refused")
    assert all(str(process.config) in e["error"] or "nowhere" in e["error"] for e in refused)
    assert f"{process.config}:" in refused[0]["error"]
    process.configure(good.replace("[[source]]", '[[source]]\nmachine = "m"', 1))
    for key, value in (("name", '"other"'), ("http", '"127.0.0.1:1"'), ("data", '"elsewhere"')):
        text = process.config.read_text("utf-8")
        line = next(n for n in text.splitlines() if n.startswith(f"{key} ="))
        process.config.write_text(text.replace(line, f"{key} = {value}"), "utf-8")
        reload.hang_up()
        wait_until(lambda key=key: f"agent.{key}: cannot change" in reload.now["refused"], 20.0)
        process.config.write_text(text, "utf-8")
    publish(broker).send(series("m1", 0, 50))
    wait_until(lambda: process.ledger()["stored"] == 100, 20.0)
    assert process.status()["sources"][0]["counters"]["connects"] == 1
    assert reload.now["reloads"] == 0
    reload.apply(good)
    assert process.stop() == 0


def test_file_alone_is_enough_but_not_for_what_cannot_be_taken_back(
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    reloading: Callable[[Any], Reloading],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    store = influx(influxd, influxd.create_database())
    more = influx(influxd, influxd.create_database(), "second")
    source = mqtt_source(broker)
    process = agent(store + source, "auto").start()
    reload = reloading(process)
    reload.apply(store + source + '[[signal]]\nmatch = "m1/a"\nunit = "mm"\nscale = 2.0\n', ask=False)
    publish(broker).send(series("m1", 10, 1))
    wait_until(lambda: process.settled() and process.ledger()["stored"] == 2, 20.0)
    values = [s["signal"] for s in process.status()["ledger_signals"]]
    assert values == ["m1/a", "m1/b"]
    database = store.split('bucket = "')[1].split('"')[0]
    assert sorted(r["value"] for r in influxd.query("SELECT value FROM telemetry", database)) == [10.0, 20.0]
    reload.apply(store + more + source + '[[signal]]\nmatch = "m1/a"\nunit = "cm"\n', ask=False)
    wait_until(
        lambda: influxd.query("SELECT last(unit) AS unit FROM signal WHERE signal = 'a'", database)[0]["unit"] == "cm"
    )
    process.configure(store + source)
    wait_until(lambda: "removes the store second" in reload.now["waiting"], 20.0)
    assert len(process.status()["consumers"]) == 5
    reloads = reload.now["reloads"]
    reload.hang_up()
    wait_until(lambda: reload.now["reloads"] == reloads + 1 and not reload.now["waiting"], 20.0)
    assert len(process.status()["consumers"]) == 3
    assert process.stop() == 0


def test_charts_come_and_go(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    reloading: Callable[[Any], Reloading],
    wait_until: Callable[..., Any],
) -> None:
    broker = mosquitto()
    source = mqtt_source(broker)
    process = agent(source, "charts").start()
    reload = reloading(process)
    sender = publish(broker)
    sent = 0

    def load(count: int, odd: float = 0.0) -> None:
        nonlocal sent
        messages = []
        for _ in range(count):
            value = (sent * 7919 % 101) / 101 + odd
            messages.append(("fieldlab/x/y/z/m/load", f'{{"value": {value}, "ts": {1_763_900_000 + sent}}}'))
            sent += 1
        sender.send(messages)
        wait_until(lambda: process.ledger()["stored"] == sent and process.settled(), 30.0)

    def findings() -> int:
        return len(process.query("findings"))

    load(10)
    reload.apply(source + CHART)
    load(60)
    load(3, odd=50.0)
    load(5)  # later ones, so that these are judged
    wait_until(lambda: findings() > 0, 20.0, "the new chart alarms")
    reload.apply(source)
    known = findings()
    load(10)
    load(3, odd=50.0)
    load(5)
    assert findings() == known
    assert process.stop() == 0


def test_opcua_session_stays(
    opcua_server: Callable[..., Any],
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    reloading: Callable[[Any], Reloading],
    wait_until: Callable[..., Any],
) -> None:
    server = opcua_server({"load": {"type": "Double", "value": 0}})
    broker = mosquitto()
    process = agent(server.source(["load"]), "stays").start()
    reload = reloading(process)
    held = process.data / "opcua" / "opcua-0.json"
    wait_until(held.exists, 20.0)
    session = held.read_bytes()
    reload.apply(server.source(["load"]) + mqtt_source(broker))
    wait_until(lambda: all(s["connected"] for s in process.status()["sources"]), 30.0)
    publish(broker).send(series("m1", 0, 100))
    wait_until(lambda: process.ledger()["stored"] == 201, 30.0)
    opcua = process.status()["sources"][0]
    assert opcua["connected"]
    assert opcua["counters"]["reconnects"] == 0
    assert held.read_bytes() == session
    assert len(reload.events("opcua_connected")) == 1
    assert process.stop() == 0


def test_a_new_password_is_a_change(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    mqtt_source: Callable[..., str],
    reloading: Callable[[Any], Reloading],
    tmp_path: Path,
) -> None:
    broker = mosquitto()
    secret = tmp_path / "password"
    secret.write_text(broker.password)
    secret.chmod(0o600)
    source = mqtt_source(broker).replace(str(broker.password_file), str(secret))
    process = agent(source, "rotated").start()
    reload = reloading(process)
    reload.apply(source)
    assert process.status()["sources"][0]["counters"]["connects"] == 1
    secret.write_text(broker.password + "\n")
    reload.apply(source)
    reload._wait_until(lambda: process.status()["sources"][0]["connected"], 20.0)
    assert len(reload.events("mqtt_connected")) == 2
    assert process.stop() == 0

"""Reloads that change what is done to machines, and one whose way back is gone too."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NODES: dict[str, dict[str, Any]] = {
    "load": {"type": "Double", "value": 10},
    "part_id": {"type": "String", "value": ""},
    "hold": {"type": "Int16", "value": 0},
}
PARTS = '[[part]]\nmachine = "cnc-07"\nid = "part_id"\n[[signal]]\nmatch = "cnc-07/load"\nlsl = 0.0\nusl = 20.0\n'


def hold(value: int, source: str = "cnc-07") -> str:
    head = f'[[action]]\nname = "hold"\non = "verdict"\nsource = "{source}"\nallow_insecure = true\nlimit = "1/s"\n'
    node = "nsu=urn:fieldlab:interop;s=hold"
    return f'{head}write = {{ node = "{node}", value = {value} }}\ndry_run = false\n'


def test_actions_change_when_a_person_asks_and_act_once(
    opcua_server: Callable[..., Any], agent: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    server = opcua_server(NODES)
    tables = server.source(["load", "part_id"]) + PARTS
    process = agent(tables).start()
    made = 0

    def part(load: float) -> None:
        """A part is made; its verdict comes with the beginning of the next one."""
        nonlocal made
        made += 1
        for name, kind, value in (("part_id", "String", f"P{made}"), ("load", "Double", load)):
            tick = str(time.time_ns() // 100 + 116_444_736_000_000_000)
            server.ask("set", name=name, type=kind, value=value, tick=tick)

    def verdicts() -> dict[str, str]:
        return {row["id"]: row["verdict"] for row in process.query("verdicts")}

    def judged(number: int) -> None:
        wait_until(lambda: f"P{number}" in verdicts(), 30.0, lambda: str(process.query("verdicts")))

    def asked() -> list[list[Any]]:
        found: list[list[Any]] = server.ask("asked")["writes"]
        return found

    def configuration() -> dict[str, Any]:
        found: dict[str, Any] = process.status()["configuration"]
        return found

    def hang_up(count: int) -> None:
        process.process.send_signal(signal.SIGHUP)
        wait_until(lambda: configuration()["reloads"] == count, 30.0, lambda: str(configuration()))

    part(50.0)
    part(10.0)
    judged(1)
    assert verdicts()["P1"] == "fail"
    process.configure(tables + hold(7))
    wait_until(lambda: "[[action]]" in configuration()["waiting"], 20.0, "a saved file alone moves no machine")
    part(50.0)
    part(10.0)
    judged(3)
    assert asked() == []
    hang_up(1)
    part(50.0)
    part(10.0)
    wait_until(lambda: asked() == [["hold", 7, "Int16"]], 30.0, "what failed since then acts, and nothing older")

    process.configure(tables + hold(8, "nowhere"))
    process.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "nowhere" in configuration()["refused"], 20.0, "a bad one is refused")
    part(50.0)
    part(10.0)
    wait_until(lambda: asked() == [["hold", 7, "Int16"]] * 2, 30.0, "and the old one goes on")

    process.configure(tables + hold(8))
    hang_up(2)
    part(50.0)
    part(10.0)
    wait_until(lambda: asked()[2:] == [["hold", 8, "Int16"]], 30.0, "the new value, once")
    process.configure(tables)
    hang_up(3)
    part(50.0)
    part(10.0)
    judged(made - 1)
    assert len(asked()) == 3
    assert process.status()["actions"]["done"] == 3, "outcomes are counted over all of them"
    assert process.status()["sources"][0]["counters"]["reconnects"] == 0
    assert process.stop() == 0
    assert process.troubles == [e for e in process.log if e["event"] == "configuration_refused"]


def test_when_the_way_back_is_gone_too_the_agent_ends_and_says_so_and_nothing_is_lost(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """The new configuration names a file that is not there; the old one's file has gone meanwhile."""
    broker = mosquitto()
    secret = tmp_path / "password"
    secret.write_text(broker.password)
    secret.chmod(0o600)
    source = mqtt_source(broker).replace(str(broker.password_file), str(secret))
    process = agent(source, "no-way-back").start()
    publisher = publish(broker)

    def send(start: int, count: int) -> None:
        topic = "fieldlab/x/y/z/m/load"
        rows = range(start, start + count)
        publisher.send([(topic, json.dumps({"value": n, "ts": 1_763_900_000 + n})) for n in rows])

    send(0, 100)
    wait_until(lambda: process.ledger()["stored"] == 100, 20.0)
    secret.unlink()
    process.configure(source.replace(str(secret), str(tmp_path / "nowhere")))
    process.process.send_signal(signal.SIGHUP)
    wait_until(lambda: process.process.poll() is not None, 30.0, "it ends")
    assert process.process.returncode not in (0, -9), "so that whoever supervises it starts it again"
    process.process = None
    said = " ".join(str(event) for event in process.log)
    assert "what ran before cannot be started again" in said
    assert str(secret) in said
    assert broker.password not in said
    send(100, 100)
    secret.write_text(broker.password)
    secret.chmod(0o600)
    process.configure(source)
    process.start()
    wait_until(
        lambda: process.ledger()["stored"] == 200, 20.0, "nothing is lost: the journal and the session are there"
    )
    ledger = process.ledger()
    assert (ledger["committed"], ledger["lost"]) == (200, 0)
    assert process.stop() == 0

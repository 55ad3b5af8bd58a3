"""Names that do not resolve, clocks that jump, floods, and ten thousand new series: all behind a whole agent."""

import json
from collections.abc import Callable
from typing import Any

import psutil

START = 1_763_900_000_000_000_000
HOUR = 3600
MB = 1_000_000


def topic(signal: str = "load", machine: str = "cnc-07") -> str:
    return f"fieldlab/drachten/shavers/3/{machine}/{signal}"


def timed(start: int, count: int) -> list[tuple[str, str]]:
    return [(topic(), json.dumps({"value": n, "ts": START + n * 10**6})) for n in range(start, start + count)]


def test_names_that_do_not_resolve_are_waited_for(
    mosquitto: Callable[..., Any],
    influxd: Any,
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
    faults: Any,
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    broker, database = mosquitto(), influxd.create_database()
    url = influxd.url.replace("127.0.0.1", "influx.test")
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{url}"\nbucket = "{database}"\n'
    process = agent(store + mqtt_source(broker).replace("127.0.0.1", "broker.test"))
    faults.resolve({"broker.test": "127.0.0.1"})
    process.start()
    publisher = publish(broker)
    publisher.send(timed(0, 500))
    error = wait_until(lambda: process.consumer("influxdb")["error"], 20.0, "the store's name is not known")
    assert "influx.test" in error
    faults.resolve({"influx.test": "127.0.0.1"})
    wait_until(lambda: process.ledger()["stored"] == 500, 60.0, "the name resolves, and all is stored")
    assert process.stop() == 0
    process.start(connected=False)
    wait_until(lambda: process.status()["sources"][0]["error"], 20.0, "the broker's name is not known")
    publisher.send(timed(500, 500))
    faults.resolve({"broker.test": "127.0.0.1", "influx.test": "127.0.0.1"})
    wait_until(lambda: process.ledger()["stored"] == 1000, 60.0, "what waited at the broker is stored")
    ledger = adds_up(process)
    count = influxd.query("SELECT count(value) FROM telemetry", database)[0]["count"]
    tell(sent=1000, committed=ledger["committed"], stored=count, dead=ledger["dead"], lost=1000 - count)
    assert count == ledger["committed"] == 1000
    assert process.stop() == 0


def test_a_clock_that_jumps_by_hours_loses_and_doubles_nothing(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
    faults: Any,
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    """Machine times stay what they are. Times of arrival go with the clock, but never back, and none is given twice."""
    broker = mosquitto()
    faults.set_clock(0)
    process = agent('[[store]]\nkind = "embedded"\n' + mqtt_source(broker)).start()
    publisher = publish(broker)
    sent = 0
    for hours in (0, 3, -5, 0, 24, -1):
        faults.set_clock(hours * HOUR)
        publisher.send(timed(sent, 100))
        publisher.send([(topic("arrival"), json.dumps({"value": n})) for n in range(sent, sent + 100)])
        sent += 100
        wait_until(lambda sent=sent: process.ledger()["stored"] == 2 * sent, 30.0, f"all is stored at {hours} h")
        position = process.status()["journal"]["position"]
        wait_until(lambda p=position: process.status()["journal"]["position"] > p + 1, 10.0, "it goes on ticking")
    ledger = adds_up(process)
    given = process.query("telemetry?signal=drachten/shavers/3/cnc-07/load")
    arrived = process.query("telemetry?signal=drachten/shavers/3/cnc-07/arrival")
    stored = len(given["time"]) + len(arrived["time"])
    tell(sent=2 * sent, committed=ledger["committed"], stored=stored, dead=ledger["dead"], lost=2 * sent - stored)
    assert given["time"] == [START + n * 10**6 for n in range(sent)]
    assert given["value"] == [float(n) for n in range(sent)]
    assert arrived["value"] == [float(n) for n in range(sent)], "in the order of arrival, whatever the clock said"
    assert len(set(arrived["time"])) == sent
    assert arrived["time"][-1] - arrived["time"][0] > 23 * HOUR * 10**9, "the clock did jump"
    assert process.status()["ready"]
    assert process.stop() == 0
    assert process.troubles == []


def test_a_flood_of_twenty_times_the_rate_is_held_and_all_of_it_kept(
    mosquitto: Callable[..., Any],
    influxd_factory: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    wait_until: Callable[..., Any],
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    """The store is away and the journal small: what does not fit waits at the broker, and memory stays what it was."""
    broker, influxd = mosquitto(), influxd_factory()
    database = influxd.create_database()
    store = f'[[store]]\nkind = "influxdb"\napi = "v1"\nurl = "{influxd.url}"\nbucket = "{database}"\n'
    process = agent(store + mqtt_source(broker), keys='journal_max = "3MB"').start()
    publisher = publish(broker)
    block, calm, flood = 500, 10, 20 * 40

    def send(start: int, count: int) -> None:
        messages = []
        for n in range(start, start + count):
            values = list(range(n * block, (n + 1) * block))
            payload = {"value": values, "ts": [START + v * 10**6 for v in values]}
            messages.append((topic(), json.dumps(payload)))
        publisher.send(messages)

    send(0, calm)
    wait_until(lambda: process.ledger()["stored"] == calm * block, 20.0)
    memory = psutil.Process(process.process.pid)
    before = memory.memory_info().rss
    influxd.stop()
    send(calm, flood)
    wait_until(lambda: process.status()["journal"]["full"], 60.0, "the journal is full")
    sent = (calm + flood) * block
    held = process.ledger()["committed"]
    most = memory.memory_info().rss
    influxd.start()
    wait_until(lambda: process.ledger()["stored"] == sent, 90.0, "all of it is stored")
    most = max(most, memory.memory_info().rss)
    ledger = adds_up(process)
    rows = influxd.query("SELECT count(value), sum(value) FROM telemetry", database)[0]
    tell(
        sent=sent,
        committed_when_full=held,
        stored=rows["count"],
        dead=ledger["dead"],
        lost=sent - rows["count"],
        grown=f"{(most - before) / MB:.0f}MB",
    )
    assert held < sent, "the journal held the source"
    assert (rows["count"], rows["sum"]) == (sent, sum(range(sent)))
    assert ledger["committed"] == ledger["stored"] == sent
    assert most - before < 80 * MB
    assert process.stop() == 0


def test_ten_thousand_new_series_are_capped_and_counted_with_a_reason(
    mosquitto: Callable[..., Any],
    agent: Callable[..., Any],
    publish: Callable[..., Any],
    mqtt_source: Callable[..., str],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
    tell: Callable[..., None],
    adds_up: Callable[[Any], dict[str, int]],
) -> None:
    broker = mosquitto(max_inflight_messages=0)
    process = agent('[[store]]\nkind = "embedded"\n' + mqtt_source(broker), keys="max_series = 1000").start()
    publisher = publish(broker)
    publisher.send(timed(0, 10))
    wait_until(lambda: process.ledger()["stored"] == 10, 20.0)
    names = [f"made-up-{n}" for n in range(10_000)]
    publisher.send([(topic(name), json.dumps({"value": 1.0, "ts": START})) for name in names])
    publisher.send(timed(10, 10))  # what was known goes on
    wait_until(lambda: process.ledger()["stored"] == 999 + 20, 60.0, "what fits is stored")
    wait_until(lambda: process.status()["set_aside_input"] == 9001, 30.0, "and the rest set aside")
    ledger = adds_up(process)
    journal = process.status()["journal"]
    letters = json.loads(fieldlab("deadletter", "list", "--config", process.config, "--json").out)["deadletters"]
    aside = journal["letters"] + journal["letters_dropped"]
    tell(sent=10_020, stored=ledger["stored"], dead=aside, lost=10_020 - ledger["stored"] - aside)
    assert aside == 9001
    assert {"max_series is 1000" in letter["reason"] for letter in letters} == {True}
    assert ledger["committed"] == ledger["stored"] == 1019
    assert process.stop() == 0

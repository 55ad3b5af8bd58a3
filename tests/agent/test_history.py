"""What a whole agent missed is in its store in the end, series by series, as the server says it produced it."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

NAMES = [f"v{i}" for i in range(5)]
KEEPING = {"type": "Double", "value": 0, "history": 1_000_000}
STORE = '[[store]]\nkind = "embedded"\n'


@pytest.fixture
def producing() -> Iterator[Callable[..., threading.Thread]]:
    """`producing(server, **burst)` has the server produce while the test does something else."""
    threads: list[threading.Thread] = []

    def start(server: Any, **burst: Any) -> threading.Thread:
        threads.append(threading.Thread(target=lambda: server.ask("burst", names=NAMES, type="Double", **burst)))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join()


def stored(process: Any, name: str) -> list[tuple[int, float]]:
    """Every reading of a series that has a value, in order of time."""
    series = process.query(f"telemetry?signal=drachten/shavers/3/cnc-07/{name}")
    rows = zip(series["time"], series["value"], series["status"], strict=True)
    return sorted((t, v) for t, v, status in rows if not status >> 31)


def everything(process: Any, server: Any) -> bool:
    produced = server.produced()
    return all(stored(process, name) == [(t, float(v)) for n, t, v, _ in produced if n == name] for name in NAMES)


def forget(server: Any) -> None:
    """The server gives up what it holds for an agent that is gone, as it does after `lifetime`."""
    for subscription in server.ask("subscriptions")["subscriptions"]:
        server.ask("trouble", id=subscription["id"], what="subscription")


def gaps(process: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = process.status()["gaps"]["newest"]
    return found


def test_a_kill_loses_nothing_that_the_server_keeps(
    opcua_server: Callable[..., Any],
    agent: Callable[..., Any],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
    producing: Callable[..., threading.Thread],
) -> None:
    server = opcua_server(dict.fromkeys(NAMES, KEEPING))
    process = agent(STORE + server.source(NAMES))
    process.start()
    wait_until(lambda: process.ledger()["committed"] >= len(NAMES))
    work = producing(server, rounds=500, every=4)
    wait_until(lambda: process.ledger()["committed"] > 200, what="it is in the middle of it")
    process.kill()
    work.join()
    forget(server)
    process.start()
    wait_until(lambda: len(gaps(process)) == 5 and {g["state"] for g in gaps(process)} == {"closed"}, 40)
    wait_until(lambda: everything(process, server), 30.0, "the store has what the server produced")
    assert {g["cause"] for g in gaps(process)} == {"agent_down"}
    recovered = sum(g["recovered"] for g in gaps(process))
    assert recovered == process.status()["sources"][0]["counters"]["recovered"] > 0
    ledger = process.ledger()
    assert ledger["committed"] == len(server.produced()), "and none twice"

    report = fieldlab("report", "ledger", "--config", process.config, "--format", "json")
    assert report.code == 0, report.err
    shown = json.loads(report.out)
    assert {(g["state"], g["cause"]) for g in shown["gaps"]} == {("closed", "agent_down")}

    assert process.stop() == 0
    process.start()
    wait_until(lambda: len(gaps(process)) == 10 and {g["state"] for g in gaps(process)} == {"closed"}, 40)
    assert process.status()["sources"][0]["counters"]["recovered"] == 0, "a second run changes nothing"
    assert everything(process, server)
    assert process.stop() == 0


def test_a_kill_in_the_middle_of_reading_again_changes_nothing(
    opcua_server: Callable[..., Any],
    agent: Callable[..., Any],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    server = opcua_server(dict.fromkeys(NAMES, KEEPING), historyValues=500)  # 30 calls: time for a kill
    process = agent(STORE + server.source(NAMES))
    process.start()
    wait_until(lambda: process.ledger()["committed"] >= len(NAMES))
    process.kill()
    server.ask("produce", names=NAMES, rounds=15_000, type="Double")
    forget(server)
    process.start()
    wait_until(lambda: 0 < process.status()["sources"][0]["counters"]["recovered"] < 75_000, 40)
    assert {g["state"] for g in gaps(process)} == {"ended"}
    process.kill()
    forget(server)
    process.start()
    wait_until(lambda: len(gaps(process)) >= 5 and {g["state"] for g in gaps(process)} == {"closed"}, 60)
    wait_until(lambda: everything(process, server), 30.0, "each reading once")
    ledger = process.ledger()
    print(f"produced {len(server.produced())}, {ledger}")
    assert (
        ledger["committed"]
        == ledger["stored"]
        == sum(len(process.query(f"telemetry?signal=drachten/shavers/3/cnc-07/{name}")["time"]) for name in NAMES)
    ), "what was read again twice is a duplicate"
    assert ledger["duplicate"] > 0
    assert ledger["received"] == ledger["committed"] + ledger["duplicate"] + ledger["rejected"]
    report = fieldlab("report", "ledger", "--config", process.config, "--format", "json")
    assert report.code == 0, report.out
    assert process.stop() == 0


def test_what_nobody_keeps_is_shown(
    opcua_server: Callable[..., Any],
    agent: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    server = opcua_server({name: {"type": "Double", "value": 0} for name in NAMES})
    process = agent(STORE + server.source(NAMES))
    process.start()
    wait_until(lambda: process.ledger()["committed"] >= len(NAMES))
    process.kill()
    server.ask("burst", names=NAMES[:1], rounds=20, every=1, type="Double")
    forget(server)
    process.start()
    told = {f"cnc-07/{name}": ("closed", "nothing changed meanwhile") for name in NAMES}
    told["cnc-07/v0"] = ("ended", "keeps no history of this node")

    def as_told() -> bool:
        found = {g["signal"]: g for g in gaps(process)}
        return found.keys() == told.keys() and all(
            found[signal]["state"] == state and words in found[signal]["detail"]
            for signal, (state, words) in told.items()
        )

    wait_until(as_told, 30)
    assert process.status()["ledger_losses"][0]["gaps_not_closed"] == 1
    assert process.stop() == 0

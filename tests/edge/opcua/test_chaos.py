"""Kills, freezes, another namespace order, cuts, delays: what the server produced is what is kept, series by series."""

import os
import random
import signal
from collections import Counter
from typing import Any

import pytest

from ingest.journal.identity import Identity, Part

SERIES = [f"s{i}" for i in range(4)]
VARIABLES = {name: {"type": "Double", "value": 0} for name in SERIES}


def kept(sink: Any) -> dict[str, Counter[Any]]:
    """Series → (time, value), as the journal keeps them."""
    identity = Identity()
    found: dict[str, Counter[Any]] = {name: Counter() for name in SERIES}
    for batch, delivery in list(sink.appends):
        parts = [Part(delivery, 0, len(batch))] if delivery is not None else []
        decided, _ = identity.decide(batch, parts)
        for index, time, value, status in zip(
            decided.signal.tolist(), decided.time.tolist(), decided.value.tolist(), decided.status.tolist(), strict=True
        ):
            if status == 0:
                found[sink.table[index].name][time, value] += 1
    return found


def made(server: Any) -> dict[str, Counter[Any]]:
    """The same, as the server says."""
    found: dict[str, Counter[Any]] = {name: Counter() for name in SERIES}
    for name, time, value, _ in server.produced():
        found[name][time, float(value)] += 1
    return found


@pytest.mark.parametrize("seed", [11, 12])
def test_network_and_freezes_lose_and_double_nothing(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any, seed: int
) -> None:
    rng = random.Random(seed)
    print(f"seed {seed}")
    server = interop(variables=VARIABLES)
    process = server.process
    between = proxy(server)
    config = table(server, SERIES, timeout="1s", keep_alive="300ms")
    source = run_source(config, sink)
    wait_until(lambda: len(sink.readings()) == len(SERIES))
    for round_ in range(3):
        what = rng.choice(["cut", "delay", "freeze", "hang"])
        print(f"round {round_}: {what}")
        server.send("burst", names=SERIES, rounds=40, every=rng.choice([5, 15]), type="Double")
        if what == "cut":
            between.cut()
        elif what == "delay":
            between.delay = 0.1
        elif what == "hang":
            between.hang_after(rng.randrange(5000))
            wait_until(lambda: not source.status.connected, 15, "the silence")
        else:
            os.kill(process.pid, signal.SIGSTOP)
            wait_until(lambda: not source.status.connected, 15, "the silence")
            os.kill(process.pid, signal.SIGCONT)
        server.answer()
        between.delay = 0.0
        if what == "hang":
            between.allow = None
            between.cut()
        wait_until(lambda: source.status.connected, 30)
    wait_until(lambda: {n: set(c) for n, c in kept(sink).items()} == {n: set(c) for n, c in made(server).items()}, 30)
    assert kept(sink) == made(server), "each once"
    assert source.status.counters["gaps"] == 0
    assert sink.overflow == {}


def test_a_killed_server_in_another_order_loses_only_what_it_took_with_it(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    """A killed server takes its queues with it; of what it says afterwards everything is kept, each in its series."""
    server = interop(variables=VARIABLES, noise=2)
    source = run_source(table(server, SERIES), sink)
    wait_until(lambda: len(sink.readings()) == len(SERIES))
    before: dict[str, Counter[Any]] = {name: Counter() for name in SERIES}
    for round_ in range(2):
        wait_until(lambda: source.status.connected and source.status.signals == len(SERIES), 30)
        server.ask("burst", names=SERIES, rounds=30, every=5, type="Double")
        said = made(server)
        wait_until(lambda said=said: all(set(said[n]) <= set(kept(sink)[n]) for n in SERIES), 30)
        for name in SERIES:
            before[name] |= said[name]
        server.kill()
        wait_until(lambda: not source.status.connected, 15)
        server.start(swap=round_ == 0)
    wait_until(lambda: source.status.connected and source.status.signals == len(SERIES), 30)
    for name in SERIES:
        server.ask("set", name=name, type="Double", value=SERIES.index(name) + 0.5)
    said = made(server)
    wait_until(lambda: all(set(said[n]) <= set(kept(sink)[n]) for n in SERIES), 30)
    for name in SERIES:
        assert kept(sink)[name] == before[name] | said[name], "each once, in its own series"

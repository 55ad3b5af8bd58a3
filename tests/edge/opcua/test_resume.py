"""What the server held while nobody listened is fetched: after a lost connection, after a killed or stopped agent."""

from collections import Counter
from typing import Any

import pytest

import edge.sources.opcua.link as link_module
from ingest.journal.identity import Identity, Part

VARIABLES = {"a": {"type": "Double", "value": 0}}


def all_of(server: Any) -> Counter[Any]:
    return Counter((t, float(v)) for _, t, v, _ in server.produced("a"))


def committed(appends: Any) -> Counter[Any]:
    """(time, value) of what the journal's identity keeps of these appends: known notifications and repeats go."""
    identity = Identity()
    found: Counter[Any] = Counter()
    for batch, delivery in list(appends):
        kept, _ = identity.decide(batch, [Part(delivery, 0, len(batch))] if delivery is not None else [])
        good = kept.status == 0
        found.update(zip(kept.time[good].tolist(), kept.value[good].tolist(), strict=True))
    return found


SECURITY = "Basic256Sha256/SignAndEncrypt"


@pytest.mark.parametrize("security", ["none", SECURITY])
@pytest.mark.parametrize("loss", ["cut", "swallow"])
def test_a_lost_connection_loses_nothing(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any, security: str, loss: str
) -> None:
    server = shared(VARIABLES)
    between = proxy(server)
    source = run_source(table(server, ["a"], security=security, timeout="1s"), sink)
    wait_until(lambda: sink.readings("a"))
    server.send("burst", names=["a"], rounds=150, every=20, type="Double")  # 3 s
    wait_until(lambda: len(sink.readings("a")) > 20)
    between.open = False
    if loss == "cut":
        between.cut()
    else:
        between.swallow = True  # half-open: the socket stays, and nothing arrives any more
    wait_until(lambda: not source.status.connected, 10, "the loss is noticed")
    between.swallow = False
    between.cut()
    between.open = True
    server.server.answer()
    wait_until(lambda: source.status.connected, 20)
    expected = all_of(server)
    wait_until(lambda: set(committed(sink.appends)) == set(expected), what="every value, also those sent in vain")
    assert committed(sink.appends) == expected, "and none twice"
    counters = source.status.counters
    assert counters["resumed"] == 1
    assert counters["gaps"] == 0
    assert not sink.overflow


@pytest.mark.parametrize("on_disk", [1, 6])
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_restarted_agent_goes_on_where_it_was(
    shared: Any, new_sink: Any, table: Any, run_source: Any, wait_until: Any, proxy: Any, how: str, on_disk: int
) -> None:
    """Neither what was received and not on disk is lost, nor what was on disk and not acknowledged doubled."""
    server = shared(VARIABLES)
    between = proxy(server)
    first = new_sink()
    source = run_source(table(server, ["a"]), first)
    wait_until(lambda: source.status.counters["acknowledged"] >= 1)
    first.hold()  # what is received now is not acknowledged
    for i in range(5):
        server.ask("set", name="a", type="Double", value=10 + i)
        wait_until(lambda i=i: len(first.readings("a")) == 2 + i)
    if how == "killed":
        between.open = False
        between.cut()
    source.stop()
    before = [append for append in first.appends if append[1] is not None][:on_disk]
    assert len(before) == on_disk
    between.open = True
    server.ask("set", name="a", type="Double", value=77)
    second = new_sink()
    again = run_source(table(server, ["a"]), second)
    expected = all_of(server)
    wait_until(
        lambda: set(committed(before + second.appends)) == set(expected), what="what was not on disk, and the new"
    )
    assert committed(before + second.appends) == expected
    wait_until(lambda: again.status.counters["resumed"] == 1, what="counted when everything is there")
    assert again.status.counters["republished"] >= 5
    assert sum(int(d.redelivered[0]) for d in second.deliveries) >= 5, "the journal is told to look for known ones"
    hashes = {int(d.ids[0]): int(d.hashes[0]) for d in first.deliveries}
    known = [d for d in second.deliveries if d.redelivered[0] and int(d.ids[0]) in hashes]
    assert len(known) >= 5
    assert all(hashes[int(d.ids[0])] == int(d.hashes[0]) for d in known)
    wait_until(lambda: not server.unacknowledged(again), what="acknowledged by the new session")


def test_a_session_that_has_timed_out_gives_its_subscription_to_the_next(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(link_module, "SESSION_TIMEOUT_MS", 1000)
    server = shared(VARIABLES)
    config = table(server, ["a"], security=SECURITY)
    source = run_source(config, sink)
    wait_until(lambda: source.status.counters["acknowledged"] >= 1)
    source.stop()
    wait_until(lambda: not server.subscriptions(source), what="the session has timed out")
    for i in range(3):
        server.ask("set", name="a", type="Double", value=20 + i)
    again = run_source(config, sink)
    expected = all_of(server)
    wait_until(lambda: set(committed(sink.appends)) == set(expected))
    assert committed(sink.appends) == expected
    assert again.status.counters["transfers"] == 1


def test_another_configuration_starts_anew(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = shared({**VARIABLES, "b": {"type": "Double", "value": 5}})
    source = run_source(table(server, ["a"]), sink)
    wait_until(lambda: sink.readings("a"))
    source.stop()
    again = run_source(table(server, ["a", "b"]), sink)
    wait_until(lambda: sink.readings("b"))
    assert again.status.counters["resumed"] == again.status.counters["transfers"] == 0

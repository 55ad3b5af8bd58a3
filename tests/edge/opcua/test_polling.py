"""`mode = "poll"`: values by Read, in batches, without a subscription."""

import asyncio
from typing import Any

from edge.sources.opcua import KIND
from edge.sources.opcua.config import declared

BAD_NO_COMMUNICATION = 0x80310000


def test_values_are_read_and_a_subscription_is_never_made(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, context: Any
) -> None:
    names = [f"v{i}" for i in range(25)]
    variables = {n: {"type": "Double", "value": i} for i, n in enumerate(names)}
    server = interop(variables={**variables, "text": {"type": "String", "value": "a"}}, readLimit=4)
    config = table(server, [*names, "text", "absent"], mode="poll", sampling="20ms")
    assert {known.info.guarantee for known in declared(config, context)} == {"sampled"}
    source = run_source(config, sink)
    wait_until(lambda: len(sink.readings()) >= 26, what="each once, in calls of 4")
    assert {r.name: r.value for r in sink.readings()} == {**{n: float(i) for i, n in enumerate(names)}, "text": "a"}
    assert abs(source.status.counters["clock_offset_ms"]) < 5000, "the server's clock is this machine's"
    reads = source.status.counters["reads"]
    wait_until(lambda: source.status.counters["reads"] > reads + 5, what="more rounds")
    assert len(sink.readings()) == 26, "unchanged values are not given again"
    assert server.ask("subscriptions")["subscriptions"] == []
    server.ask("set", name="v3", type="Double", value=77.5)
    server.ask("set", name="text", type="String", value="b", status="BadSensorFailure")
    wait_until(lambda: len(sink.readings()) >= 28)
    assert sink.readings("v3")[-1].value == 77.5
    assert {r.time for r in sink.readings("v3")} == {t for _, t, _, _ in server.produced("v3")}, (
        "the server's own times"
    )
    assert sink.readings("text")[-1][2:] == (None, 0x808C0000)
    assert set(source.status.missing) == {"cnc-07/absent"}
    server.ask("add", name="absent", type="Double", value=9.0)
    wait_until(lambda: sink.readings("absent"), what="it is found when it comes")
    assert source.status.missing == {}


def test_check_makes_no_subscription(shared: Any, table: Any, context: Any) -> None:
    server = shared({"a": {"type": "Double", "value": 1.0}})
    lines = asyncio.run(KIND.check(table(server, ["a"], mode="poll", sampling="5s"), context))
    assert [line.level for line in lines if "a round of 1 signals" in line.text] == ["ok"]
    assert not any("publishes" in line.text for line in lines)
    slow = asyncio.run(KIND.check(table(server, ["a"], mode="poll", sampling="0ms"), context))
    assert [line.level for line in slow if "a round of 1 signals" in line.text] == ["warn"]


def test_a_restart_of_the_server(interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> None:
    server = interop(variables={"a": {"type": "Double", "value": 1.0}}, noise=2)
    source = run_source(table(server, ["a"], mode="poll", sampling="20ms"), sink)
    wait_until(lambda: sink.readings("a"))
    server.kill()
    wait_until(lambda: sink.readings("a")[-1].status == BAD_NO_COMMUNICATION, 30)
    server.start(swap=True, variables={"a": {"type": "Double", "value": 2.0}})
    wait_until(lambda: sink.readings("a")[-1].value == 2.0, 30)
    assert source.status.counters["reconnects"] == 1


def test_the_disk_holds_and_reading_stops(shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> None:
    server = shared({"a": {"type": "Double", "value": 0.0}})
    source = run_source(table(server, ["a"], mode="poll", sampling="10ms"), sink)
    wait_until(lambda: sink.readings("a"))
    sink.hold()
    server.ask("burst", names=["a"], rounds=150, every=10, type="Double")
    assert source.status.counters["pending"] <= 64
    sink.release()
    server.ask("set", name="a", type="Double", value=-1.0)
    wait_until(lambda: sink.readings("a")[-1].value == -1.0)

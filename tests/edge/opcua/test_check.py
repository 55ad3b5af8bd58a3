"""`fieldlab check`: what works and what does not, without a trace."""

import asyncio
from typing import Any

from edge.sources.opcua import KIND


def run(config: Any, context: Any) -> Any:
    return asyncio.run(KIND.check(config, context))


def test_a_healthy_server(interop: Any, table: Any, context: Any) -> None:
    server = interop(
        variables={"a": {"type": "Double", "value": 1.25}, "b": {"type": "String", "value": "x"}}, sampleRate=50
    )
    lines = run(table(server, ["a", "b"], security="best"), context)
    assert {line.level for line in lines} <= {"ok", "warn"}
    by_subject = {line.subject: line for line in lines}
    value = by_subject["opcua-0 cnc-07/a"]
    assert (value.level, value.data["value"], value.data["status"]) == ("ok", 1.25, "Good")
    assert value.data["source_time"].startswith("20")
    merged = {k: v for line in lines if line.subject == "opcua-0" for k, v in line.data.items()}
    assert merged["security"] == "Aes256_Sha256_RsaPss/SignAndEncrypt"
    assert merged["days"] > 30
    assert abs(merged["clock_offset"]) < 1
    assert merged["revised_interval"] >= 0.02
    assert merged["monitored items a call"] == 500
    assert merged["slower_sampling"] == 2
    assert merged["signals"] == 2
    assert not list((context.data / "certificates").glob("servers/*")), "check pins nothing"
    after = server.ask("subscriptions")
    assert (after["subscriptions"], after["sessions"], after["orphans"]) == ([], 0, 0)


def test_what_would_not_work(shared: Any, table: Any, context: Any) -> None:
    server = shared(
        {
            "a": {"type": "Double", "value": 1.25},
            "bad": {"type": "Double", "value": 0, "status": "BadSensorFailure"},
        }
    )
    names = ["a", "bad", "missing", {"name": "alien", "node": "nsu=urn:nobody;s=x"}, {"name": "folder", "node": "i=85"}]
    lines = run(table(server, names), context)
    levels = {line.subject.removeprefix("opcua-0 cnc-07/"): line for line in lines if "/" in line.subject}
    assert levels["a"].level == "ok"
    assert levels["bad"].level == "warn"
    assert "BadSensorFailure" in levels["bad"].text
    for name, word in (("missing", "BadNodeIdUnknown"), ("alien", "urn:nobody"), ("folder", "not a variable")):
        assert levels[name].level == "fail", name
        assert word in levels[name].text
    assert sum(line.level == "fail" for line in lines) == 3
    assert any("without security" in line.text for line in lines)


def test_an_index_in_a_node_is_warned_of(shared: Any, table: Any, context: Any) -> None:
    server = shared({"a": {"type": "Double", "value": 1}})
    lines = run(table(server, [{"name": "a", "node": f"ns=2;s={server.prefix}a"}]), context)
    assert any(line.level == "warn" and "nsu=URI" in line.text for line in lines)


def test_a_dead_server(table: Any, context: Any, free_port: Any) -> None:
    class Dead:
        prefix = ""
        uri = "urn:x"
        url = f"opc.tcp://127.0.0.1:{free_port()}"

    (line,) = run(table(Dead, ["a"]), context)
    assert line.level == "fail"
    assert "is the server running" in line.text


def test_events_are_asked_for(shared: Any, table: Any, context: Any) -> None:
    server = shared({"a": {"type": "Double", "value": 1}})
    tables = [{}, {"node": "nsu=urn:fieldlab:interop;s=none", "machine": "m2"}, {"types": ["None"], "machine": "m3"}]
    lines = {line.subject: line for line in run(table(server, ["a"], events=tables), context)}
    good = lines["opcua-0 cnc-07 events"]
    assert (good.level, good.data["condition_refresh"], good.data["queue"]) == ("ok", True, 1000)
    assert good.data["event_types"] > 50
    assert lines["opcua-0 m2 events"].level == lines["opcua-0 m3 events"].level == "fail"
    assert "BadNodeIdUnknown" in lines["opcua-0 m2 events"].text
    assert "no event type None" in lines["opcua-0 m3 events"].text

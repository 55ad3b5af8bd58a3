"""Addresses by name: paths, wildcards and instances of a type, resolved at every connect; deadbands."""

import asyncio
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.client import Client

from edge.sources.opcua import KIND, browse
from edge.sources.opcua.config import validate
from edge.sources.opcua.nodes import NodeAddress, Segment
from fieldlab.errors import ConfigError

UA = "http://opcfoundation.org/UA/"


OBJECTS = ("", -1, "Objects")
MACHINES = (f"{UA}Machinery/", -1, "Machines")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/Objects/2:Machine", [OBJECTS, ("", 2, "Machine")]),
        (f"/Objects/nsu={UA}Machinery/;Machines/nsu=urn:x;a:b", [OBJECTS, MACHINES, ("urn:x", -1, "a:b")]),
        (f"/Objects/nsu={UA}Machinery/:Machines/nsu=urn:a:b:Load", [OBJECTS, MACHINES, ("urn:a:b", -1, "Load")]),
        ("/Objects/nsu=urn:x;in&/out", [OBJECTS, ("urn:x", -1, "in/out")]),
    ],
)
def test_paths_are_read(text: str, expected: list[tuple[str, int, str]]) -> None:
    assert [(s.uri, s.index, s.name) for s in NodeAddress.parse(text).path] == expected


def test_wild() -> None:
    assert NodeAddress.parse("/Objects/nsu=urn:x;Axis*/a&*b").path[1:] == (
        Segment("urn:x", -1, "Axis*", True),
        Segment("", -1, "a*b", False),
    )
    for wrong in ("/", "/a//b", "/a/"):
        with pytest.raises(ValueError, match="node"):
            NodeAddress.parse(wrong)


def test_a_path_a_start_and_a_wildcard(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, context: Any
) -> None:
    values = {f"axis_{i}": {"type": "Double", "value": i} for i in range(3)}
    server = interop(variables={**values, "load": {"type": "Double", "value": 7.5}}, noise=2)
    uri = server.uri
    signals = [
        {"name": "load", "node": f"/Objects/nsu={uri};Machine/nsu={uri};load"},
        {"name": "first", "node": f"/nsu={uri};axis_0", "start": f"nsu={uri};i=1000"},
        {"name": "all.{1}", "node": f"/Objects/nsu={uri};Machine/axis_*"},
        {"name": "gone", "node": f"/Objects/nsu={uri};Machine/nsu={uri};gone"},
    ]
    config = table(server, signals)
    lines = asyncio.run(KIND.check(config, context))
    assert {line.subject.rpartition("/")[2] for line in lines if line.level == "ok" and "cnc-07/" in line.subject} == {
        "load", "first", "all.axis_0", "all.axis_1", "all.axis_2",
    }  # fmt: skip
    assert any(line.level == "fail" and "no node at" in line.text for line in lines)
    source = run_source(config, sink)
    wait_until(lambda: len(sink.readings()) == 5)
    assert {r.name: r.value for r in sink.readings()} == {
        "load": 7.5, "first": 0.0, "all.axis_0": 0.0, "all.axis_1": 1.0, "all.axis_2": 2.0,
    }  # fmt: skip
    assert list(source.status.missing) == ["cnc-07/gone"]
    server.ask("add", name="gone", type="Double", value=4.0)
    wait_until(lambda: sink.readings("gone"), what="a path is tried again")
    server.kill()
    wait_until(lambda: not source.status.connected, 30)
    more = {**server.options["variables"], "axis_9": {"type": "Double", "value": 9.0}}
    server.start(swap=True, variables=more)
    wait_until(lambda: sink.readings("all.axis_9"), 30, what="what a restart brings, whatever the order of namespaces")
    wait_until(lambda: sink.readings("load")[-1].value == 7.5)


def test_instances_of_a_type(interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> None:
    mill = {"uri": f"{UA}MachineTool/", "type": "MachineToolType", "in": [f"{UA}Machinery/", 1001]}
    name = "Production.ActiveProgram.Name"
    server = interop(
        nodesets=["di", "machinery", "ia", "isa95JobControl", "machineryJobs", "machineTool"],
        instances=[
            {**mill, "name": f"mill-{i}", "values": {name: {"type": "String", "value": f"{i}.nc"}}} for i in (1, 2)
        ],
    )
    mt = f"nsu={UA}MachineTool/"
    signal = {
        "name": "program", "machine": "{0}", "type": f"{mt};i=13",
        "node": f"/{mt};Production/{mt};ActiveProgram/{mt};Name",
    }  # fmt: skip
    run_source(table(server, [signal]), sink)
    wait_until(lambda: len(sink.readings()) == 2)
    by_machine = {
        sink.table[int(batch.signal[i])].place.machine: text
        for batch in sink.batches
        for i, text in batch.texts().items()
    }
    assert by_machine == {"mill-1": "1.nc", "mill-2": "2.nc"}


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ({"name": "a", "node": "/Objects/*"}, "several nodes"),
        ({"name": "a{2}", "node": "/Objects/*"}, "no wildcard"),
        ({"name": "a", "node": "i=85", "start": "i=84"}, "must be a path"),
        ({"name": "a", "node": "/a", "deadband": "2"}, "percent"),
        ({"name": "a", "node": "/a", "deadband": -1.0}, "at least 0"),
        ({"name": "{0}", "node": "/a", "type": "i=58", "start": "i=84"}, "not both"),
    ],
)
def test_what_makes_no_sense(table: Any, context: Any, signal: dict[str, Any], words: str) -> None:
    class Nowhere:
        url, uri, prefix = "opc.tcp://h:1", "urn:x", ""

    with pytest.raises(ConfigError, match=words):
        validate(table(Nowhere, [signal]), context)


def test_deadbands(interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> None:
    server = interop(variables={n: {"type": "Double", "value": 0.0} for n in ("plain", "absolute")})
    server.ask("analog", parent="press", name="percent", low=0, high=200, unit="newton", value=0.0)
    signals = [
        "plain",
        {"name": "absolute", "node": f"nsu={server.uri};s=absolute", "deadband": 1.0},
        {"name": "percent", "node": f"nsu={server.uri};s=press.percent", "deadband": "10%"},
    ]
    source = run_source(table(server, signals), sink)
    wait_until(lambda: len(sink.readings()) == 3, what=str(source.status))
    for value in (0.5, 0.9, 1.5, 2.0):
        for name in ("absolute", "plain"):
            server.ask("set", name=name, type="Double", value=value)
    for value in (10.0, 19.0, 25.0, 30.0):
        server.ask("write", name="press.percent", type="Double", value=value)
    wait_until(lambda: sink.readings("plain")[-1].value == 2.0 and sink.readings("percent")[-1].value == 25.0)
    assert [r.value for r in sink.readings("plain")] == [0.0, 0.5, 0.9, 1.5, 2.0]
    assert [r.value for r in sink.readings("absolute")] == [0.0, 1.5]
    assert [r.value for r in sink.readings("percent")] == [0.0, 25.0]


def test_browse_next(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = shared({f"n{i}": {"type": "Double", "value": 1} for i in range(30)})
    monkeypatch.setattr(browse, "_REFERENCES_PER_NODE", 7)

    async def names() -> set[str]:
        async with Client(server.url) as client:
            session = client.uaclient.session
            namespaces = await browse.read_namespaces(session)
            folder = NodeAddress.parse(f"nsu={server.uri};i=1000").resolve(namespaces)
            found = await browse.browse(session, [folder, ua.NodeId(ua.Int32(85))], browse.CallLimits())
            return {r.BrowseName.Name or "" for r in found[0]}

    assert {f"{server.prefix}n{i}" for i in range(30)} <= asyncio.run(names())

"""Servers that take little in one call, or do not register nodes: every call stays within their OperationLimits."""

import asyncio
from typing import Any

import pytest

from edge.sources.opcua import KIND

TINY = {
    "maxNodesPerRead": 3, "maxMonitoredItemsPerCall": 3, "maxNodesPerTranslateBrowsePathsToNodeIds": 3,
    "maxNodesPerRegisterNodes": 3, "maxNodesPerBrowse": 3,
}  # fmt: skip
VARIABLES = {f"v{i}": {"type": "Double", "value": i} for i in range(10)}


def signals(server: Any) -> list[Any]:
    """Ten nodes by browse path, an array of integers whose texts are asked for, and a structure."""
    paths = [{"name": n, "node": f"/Objects/nsu={server.uri};Machine/nsu={server.uri};{n}"} for n in VARIABLES]
    return [
        *paths,
        "whole",
        "range",
        {"name": "w_{1}", "node": f"/Objects/nsu={server.uri};Machine/nsu={server.uri};v*"},
    ]


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
def test_batches_are_cut_by_the_limits_of_the_server(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, context: Any, mode: str
) -> None:
    server = interop(
        variables={
            **VARIABLES,
            "whole": {"type": "UInt32", "value": 5},
            "range": {"type": "ExtensionObject", "value": None},
        },
        limits=TINY,
    )
    source = run_source(table(server, signals(server), mode=mode, sampling="50ms"), sink)
    expected = {
        **{n: float(i) for i, n in enumerate(VARIABLES)},
        **{f"w_{n}": float(i) for i, n in enumerate(VARIABLES)},
    }
    expected |= {"whole": 5.0, "range.Low": 0.0, "range.High": 1.0}
    wait_until(lambda: {r.name: r.value for r in sink.readings() if r.status == 0} == expected, 30)
    assert source.status.missing == {}
    assert source.status.counters["reconnects"] == 0
    lines = asyncio.run(KIND.check(table(server, signals(server), mode=mode, sampling="1s"), context))
    assert [line.text for line in lines if line.level == "fail"] == []
    sizes = server.ask("sizes")["sizes"]
    if mode == "poll":
        assert sizes["Register"] == 3
    else:
        assert sizes["CreateMonitoredItems"] == 3
    assert {name: size for name, size in sizes.items() if size > 3} == {}, "no call is larger than it may be"


def test_a_server_that_registers_no_nodes_is_read_all_the_same(
    interop: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = interop(variables=VARIABLES, refuseRegister=True)
    source = run_source(table(server, list(VARIABLES), mode="poll", sampling="20ms"), sink)
    wait_until(lambda: {r.name: r.value for r in sink.readings()} == {n: float(i) for i, n in enumerate(VARIABLES)})
    assert server.ask("sizes")["sizes"]["Register"] == len(VARIABLES), "it was asked"
    server.ask("set", name="v3", type="Double", value=33.0)
    wait_until(lambda: sink.readings("v3")[-1].value == 33.0)
    assert source.status.missing == {}

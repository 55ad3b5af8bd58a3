"""Commands on a live session, against node-opcua: typed exactly, permitted, sent once, or refused in words."""

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

import pytest

from edge.actions.command import Answer, CallMethod, Command, WriteNode
from edge.sources.opcua import KIND
from fieldlab.errors import ConfigError

NODES = {
    "load": {"type": "Double", "value": 0},
    "hold": {"type": "Boolean", "value": False},
    "small": {"type": "SByte", "value": 0},
    "word": {"type": "UInt16", "value": 0},
    "wide": {"type": "Int64", "value": "0"},
    "big": {"type": "UInt64", "value": "0"},
    "real": {"type": "Float", "value": 0},
    "text": {"type": "String", "value": ""},
    "note": {"type": "LocalizedText", "value": ""},
    "when": {"type": "DateTime", "value": "2026-01-01T00:00:00Z"},
    "row": {"type": "Double", "value": [1, 2, 3]},
    "any": {"type": "Int16", "value": 1, "dataType": "Number"},
    "duration": {"type": "Double", "value": 1, "dataType": "Duration"},
    "fixed": {"type": "Double", "value": 0, "access": "CurrentRead"},
    "not_mine": {
        "type": "Double",
        "value": 0,
        "access": "CurrentRead | CurrentWrite",
        "userAccess": "CurrentRead",
    },
}


@pytest.fixture
def server(interop: Callable[..., Any]) -> Any:
    made = interop(variables=NODES)
    made.ask("method", name="Hold", parent="Unit", inputs=[["reason", "String"], ["level", "Byte"]])
    made.ask("method", name="Never", parent="Unit", executable=False)
    made.ask("method", name="Grumpy", parent="Unit", status="BadInvalidState")
    made.ask("analog", name="speed", parent="Axis", low=0, high=100, unit="percent", value=10)
    return made


@pytest.fixture
def do(
    server: Any, table: Any, run_source: Any, sink: Any, wait_until: Callable[..., Any]
) -> Callable[..., tuple[str, str]]:
    """`do(what, **keys)`: the outcome and the words of a command on a running source."""
    running = run_source(table(server, ["load"]), sink)
    wait_until(lambda: running.status.connected)

    def run(what: WriteNode | CallMethod, **keys: Any) -> tuple[str, str]:
        command = Command(what=what, **{"signed": False, **keys})
        future: concurrent.futures.Future[Answer] = asyncio.run_coroutine_threadsafe(
            running.source.command(command), running._loop
        )
        answer = future.result(20)
        return answer.outcome, answer.detail

    return run


def write(name: str, value: Any) -> WriteNode:
    return WriteNode(node=f"nsu=urn:fieldlab:interop;s={name}", value=value)


def call(method: str, *arguments: Any) -> CallMethod:
    uri = "nsu=urn:fieldlab:interop"
    return CallMethod(object=f"{uri};s=Unit", method=f"{uri};s=Unit.{method}", arguments=arguments)


def test_a_value_becomes_the_type_of_its_node(server: Any, do: Any) -> None:
    for name, value in (
        ("hold", True),
        ("small", -128),
        ("word", 65535),
        ("wide", -(2**63)),
        ("big", 2**64 - 1),
        ("real", 1.5),
        ("load", 7),
        ("text", "held by F1"),
        ("note", "held"),
        ("when", "2026-11-23T12:00:00+01:00"),
        ("row", (1.5, 2, 3)),
        ("any", 5),
        ("duration", 2.5),
        ("Axis.speed", 100),
    ):
        assert do(write(name, value)) == ("done", "Good"), name
    asked = server.ask("asked")["writes"]
    assert [(name, kind) for name, _, kind in asked] == [
        ("hold", "Boolean"),
        ("small", "SByte"),
        ("word", "UInt16"),
        ("wide", "Int64"),
        ("big", "UInt64"),
        ("real", "Float"),
        ("load", "Double"),
        ("text", "String"),
        ("note", "LocalizedText"),
        ("when", "DateTime"),
        ("row", "Double"),
        ("any", "Int16"),
        ("duration", "Double"),
        ("Axis.speed", "Double"),
    ]
    values = {name: value for name, value, _ in asked}
    assert (values["hold"], values["small"], values["word"], values["load"]) == (True, -128, 65535, 7)
    assert (values["wide"], values["big"]) == ([0x80000000, 0], [0xFFFFFFFF, 0xFFFFFFFF])
    assert values["when"] == "2026-11-23T11:00:00.000Z"


MISFITS = [
    ("hold", 1, "Boolean"),
    ("hold", "true", "Boolean"),
    ("word", True, "UInt16"),
    ("word", 1.0, "UInt16"),
    ("word", -1, "out of the range of a UInt16: 0 to 65535"),
    ("word", 65536, "out of the range"),
    ("small", 128, "-128 to 127"),
    ("big", -1, "out of the range"),
    ("real", 1e39, "out of the range of a Float"),
    ("load", float("nan"), "out of the range of a Double"),
    ("load", 2**53 + 1, "Double"),
    ("load", "1", "Double"),
    ("load", (1.0,), "ValueRank"),
    ("row", 1.0, "ValueRank"),
    ("row", (1.0, "x"), "Double"),
    ("text", 5, "String"),
    ("when", "yesterday", "DateTime"),
    ("when", "2026-11-23T12:00:00", "DateTime"),
    ("Axis.speed", 100.5, "0 to 100 (EURange)"),
    ("fixed", 1.0, "is not writable (AccessLevel)"),
    ("not_mine", 1.0, "may not be written by this user"),
    ("nowhere", 1.0, "BadNodeIdUnknown"),
]


def test_what_does_not_fit_is_refused_and_not_sent(server: Any, do: Any) -> None:
    for name, value, word in MISFITS:
        outcome, detail = do(write(name, value))
        assert outcome == "refused", (name, value, detail)
        assert word in detail, (name, value, detail)
        assert "nothing was sent" in detail
    for what, word in (
        (call("Hold", "because"), "takes 2 arguments (reason, level), not 1"),
        (call("Hold", "because", 256), "argument level: 256 is out of the range of a Byte"),
        (call("Hold", 1, 1), "argument reason"),
        (call("Never"), "cannot be called now (Executable)"),
        (call("Nothing"), "is no method"),
        (CallMethod(object="nsu=urn:fieldlab:interop;s=load", method="i=1"), "is no object"),
        (WriteNode(node="i=85", value=1), "is not a variable"),
        (WriteNode(node="nsu=urn:nobody;s=x", value=1), "urn:nobody"),
        (WriteNode(node="/Objects/nsu=urn:fieldlab:interop;Nobody", value=1), "no node at"),
    ):
        outcome, detail = do(what)
        assert (outcome, "nothing was sent" in detail) == ("refused", True), detail
        assert word in detail
    assert do(write("hold", True), signed=True) == ("refused", "the session is not signed: nothing was sent")
    assert do(write("hold", True), until=1) == ("refused", "stale: the server answered too late; nothing was sent")
    assert server.ask("asked") == {"writes": [], "calls": []}


def test_a_method_gets_its_arguments(server: Any, do: Any) -> None:
    assert do(call("Hold", "because", 3)) == ("done", "Good: heard")
    outcome, detail = do(call("Grumpy"))
    assert (outcome, detail.partition(":")[0]) == ("refused", "BadInvalidState")
    path = "/Objects/nsu=urn:fieldlab:interop;Unit"
    by_path = CallMethod(object=path, method=f"{path}/nsu=urn:fieldlab:interop;Hold", arguments=("again", 0))
    assert do(by_path) == ("done", "Good: heard")
    assert server.ask("asked")["calls"] == [
        ["Unit.Hold", ["because", 3]],
        ["Unit.Grumpy", []],
        ["Unit.Hold", ["again", 0]],
    ]


def test_a_dry_run_looks_and_sends_nothing(server: Any, do: Any) -> None:
    outcome, detail = do(write("hold", True), dry=True)
    assert outcome == "dry_run"
    assert detail.startswith("would write True as Boolean to ns=")
    assert detail.endswith("which is False now")
    assert do(call("Hold", "x", 1), dry=True)[1].startswith("would call ")
    outcome, detail = do(write("fixed", 1.0), dry=True)
    assert (outcome, detail.partition(":")[0]) == ("dry_run", "would be refused")
    assert server.ask("asked") == {"writes": [], "calls": []}


def test_a_signed_session_is_enough_said(
    shared: Any, table: Any, run_source: Any, sink: Any, wait_until: Callable[..., Any]
) -> None:
    """What a command asks for unless insecure is allowed: the default security of a source gives it."""
    server = shared({"load": {"type": "Double", "value": 0}})
    running = run_source(table(server, ["load"], security="best"), sink)
    wait_until(lambda: running.status.connected)
    what = WriteNode(node=f"nsu=urn:fieldlab:interop;s={server.prefix}load", value=3.0)
    made = running.source.command(Command(what=what))
    answer: Answer = asyncio.run_coroutine_threadsafe(made, running._loop).result(20)
    assert answer == Answer(outcome="done", detail="Good")
    wait_until(lambda: any(r.value == 3.0 for r in sink.readings("load")), what="the value came back")


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
def test_both_readers_take_commands_while_they_are_connected(
    shared: Any, table: Any, run_source: Any, sink: Any, wait_until: Callable[..., Any], mode: str, free_port: Any
) -> None:
    server = shared({"load": {"type": "Double", "value": 0}})
    running = run_source(table(server, ["load"], mode=mode), sink)
    wait_until(lambda: running.status.connected)
    what = WriteNode(node=f"nsu=urn:fieldlab:interop;s={server.prefix}load", value=2.0)

    def send(source: Any) -> Answer:
        made = source.source.command(Command(what=what, signed=False))
        answer: Answer = asyncio.run_coroutine_threadsafe(made, source._loop).result(20)
        return answer

    assert send(running).outcome == "done"
    wait_until(lambda: any(r.value == 2.0 for r in sink.readings("load")), what="the value that was written came back")

    class Nowhere:
        prefix, uri, url = "", server.uri, f"opc.tcp://127.0.0.1:{free_port()}"

    away = run_source(table(Nowhere, ["load"], mode=mode), sink)
    assert send(away) == Answer(outcome="failed", detail="the source is not connected: nothing was sent")


@pytest.mark.parametrize(
    ("what", "key", "word"),
    [
        (WriteNode(node="speed", value=1), "write.node", "must look like"),
        (WriteNode(node="ns=2;s=speed", value=1), "write.node", "index"),
        (WriteNode(node="/Objects/2:Unit", value=1), "write.node", "index"),
        (WriteNode(node="/Objects/*", value=1), "write.node", "wildcard"),
        (CallMethod(object="?", method="i=1"), "call.object", "must look like"),
        (CallMethod(object="i=1", method="ns=3;i=1"), "call.method", "index"),
    ],
)
def test_an_address_that_may_mean_another_node_is_refused(what: WriteNode | CallMethod, key: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as raised:
        KIND.validate_command(what)
    assert raised.value.key == key

"""Actions of a whole agent: what crosses the wire without them, and what with them, seen by a recorder in between."""

import contextlib
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import struct_from_binary

ENCODING: Final = "_Encoding_DefaultBinary"
NAMES: Final = {
    number: name.removesuffix(ENCODING)
    for name, number in vars(ObjectIds).items()
    if name.endswith(f"Request{ENCODING}")
}
# Calls that a subscription needs (OPC 10000-5, 9.1; 10000-9, 5.5.7): they change nothing on a machine.
OF_THE_SERVER: Final = {
    ("i=2253", "i=11492"): "Server.GetMonitoredItems",
    ("i=2253", "i=12873"): "Server.ResendData",
    ("i=2782", "i=3875"): "ConditionType.ConditionRefresh",
    ("i=2782", "i=12912"): "ConditionType.ConditionRefresh2",
}


class Recorder:
    """A proxy that keeps every request that crosses it (OPC 10000-6, 7.1.2 and 6.7.2; without security)."""

    def __init__(self, port: int) -> None:
        self.requests: list[str] = []
        self.calls: list[tuple[str, str]] = []
        self.withhold = ""  # the request whose answer, or which itself, is not let through
        self.withheld = threading.Event()
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    client.close()
                    continue
                self._open += [client, server]
                silent = threading.Event()
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(*pair, silent), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, asks: bool, silent: threading.Event) -> None:
        chunks: dict[int, bytes] = {}
        with contextlib.suppress(OSError):
            while head := _exactly(source, 8):
                frame = head + _exactly(source, struct.unpack_from("<I", head, 4)[0] - 8)
                if asks and frame[:3] == b"MSG":
                    (request,) = struct.unpack_from("<I", frame, 20)
                    chunks[request] = chunks.get(request, b"") + frame[24:]
                    if frame[3:4] == b"F":
                        name = self._note(chunks.pop(request))
                        if self.withhold in (f"{name} itself", f"the answer to {name}"):
                            silent.set()
                            self.withheld.set()
                            if self.withhold.endswith("itself"):
                                continue
                if asks or not silent.is_set():
                    target.sendall(frame)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _note(self, body: bytes) -> str:
        assert body[0] in (0, 1), "a type id is a NodeId of two or four bytes"
        (number,) = struct.unpack_from("<H", body, 2) if body[0] else (body[1],)
        name = NAMES[number]
        self.requests.append(name)
        if name == "CallRequest":
            asked = struct_from_binary(ua.CallRequest, Buffer(body))
            self.calls += [(c.ObjectId.to_string(), c.MethodId.to_string()) for c in asked.Parameters.MethodsToCall]
        return name

    def cut(self) -> None:
        """Break every connection."""
        gone, self._open = self._open, []
        for one in gone:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()


def _exactly(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = source.recv(size - len(found))
        if not more:
            return b""
        found += more
    return found


@pytest.fixture
def record() -> Iterator[Callable[[Any], Recorder]]:
    """`record(server)` puts a recorder before a server; its `url` leads through it from then on."""
    made: list[Recorder] = []

    def make(server: Any) -> Recorder:
        made.append(Recorder(int(server.url.partition("127.0.0.1:")[2].partition("/")[0])))
        server.url = f"opc.tcp://127.0.0.1:{made[-1].port}/interop"
        return made[-1]

    yield make
    for one in made:
        one.close()


NODES: Final[dict[str, dict[str, Any]]] = {
    "load": {"type": "Double", "value": 10},
    "part_id": {"type": "String", "value": ""},
    "hold": {"type": "Int16", "value": 0},
    "note": {"type": "String", "value": ""},
    "fixed": {"type": "Int16", "value": 0, "access": "CurrentRead"},
}
URI: Final = "nsu=urn:fieldlab:interop"
KEYS: Final = 'lateness = "0s"\n'
CHART: Final = (
    '[[chart]]\nname = "load"\nkind = "individuals"\nsignals = ["cnc-07/load"]\nper = "reading"\nbaseline = 20\n'
)
PARTS: Final = (
    '[[part]]\nmachine = "cnc-07"\nid = "part_id"\n[[signal]]\nmatch = "cnc-07/load"\nlsl = 0.0\nusl = 20.0\n'
)


def action(name: str, what: str, more: str = "dry_run = false\n", on: str = "finding") -> str:
    head = f'[[action]]\nname = "{name}"\non = "{on}"\nsource = "cnc-07"\nallow_insecure = true\nlimit = "1/s"\n'
    return f"{head}{what}\n{more}"


def write(node: str, value: Any) -> str:
    return f'write = {{ node = "{URI};s={node}", value = {json.dumps(value)} }}'


class Mill:
    """The machine's side: readings with its own clock, `behind` seconds late."""

    def __init__(self, server: Any, behind: float = 0.0) -> None:
        self._server = server
        self._behind = behind
        self._noise = random.Random(3)

    def set(self, name: str, value: Any, kind: str) -> None:
        tick = str((time.time_ns() - int(self._behind * 1e9)) // 100 + 116_444_736_000_000_000)
        self._server.ask("set", name=name, type=kind, value=value, tick=tick)

    def run(self, readings: int, level: float = 10.0) -> None:
        for _ in range(readings):
            self.set("load", level + self._noise.gauss(0, 1), "Double")

    def part(self, name: str, load: float) -> None:
        self.set("part_id", name, "String")
        self.set("load", load, "Double")


def learned(process: Any) -> bool:
    return any(event["event"] == "limits_frozen" for event in process.log)


def outcomes(process: Any) -> list[tuple[str, str]]:
    """(action, outcome) of the audit in the store, oldest first."""
    return [(row["action"], row["outcome"]) for row in reversed(process.query("actions"))]


def raise_a_finding(process: Any, mill: Mill, wait_until: Callable[..., Any]) -> None:
    """Learn the limits, then break them."""
    mill.run(30)
    wait_until(lambda: process.ledger()["committed"] >= 25 and process.settled(), 30.0)
    mill.run(3, level=40.0)
    wait_until(lambda: [f for f in process.query("findings") if f["chart"] == "load"], 30.0, "a finding")


def asked(server: Any) -> list[list[Any]]:
    found: list[list[Any]] = server.ask("asked")["writes"]
    return found


def test_without_actions_nothing_is_written_and_nothing_is_called(
    opcua_server: Callable[..., Any],
    agent: Callable[..., Any],
    record: Callable[[Any], Recorder],
    fieldlab: Callable[..., Any],
    wait_until: Callable[..., Any],
) -> None:
    """Connect, browse, subscribe (data, events), poll, judge, reconnect, check, discover, read history. Then, with an
    action, a Write: the recorder can see one.
    """
    server = opcua_server(NODES | {"load": {**NODES["load"], "history": 10_000}})
    recorder = record(server)
    wild = f'[[source.signal]]\nname = "{{1}}"\nnode = "/Objects/{URI};Machine/{URI};*"\n'
    polled = server.source(["load"]).replace('machine = "cnc-07"', 'machine = "polled"\nmode = "poll"')
    path = f'[[source.signal]]\nname = "by-path"\nnode = "/Objects/{URI};Machine/{URI};load"\n'
    looked = server.source([]).replace('machine = "cnc-07"', 'machine = "looked-up"') + wild + path
    tables = (
        server.source(["load", "part_id"], "[[source.events]]\nseverity = 1\n")
        + polled.replace('sampling = "0ms"', 'sampling = "200ms"')
        + looked
        + CHART
    )
    process = agent(tables, keys=KEYS).start()
    mill = Mill(server)
    raise_a_finding(process, mill, wait_until)
    recorder.cut()
    wait_until(lambda: process.status()["sources"][0]["counters"]["reconnects"] >= 1, 30.0, "a reconnect")
    wait_until(lambda: all(s["connected"] for s in process.status()["sources"]), 30.0)
    done = fieldlab("check", process.config)
    assert done.code == 0, done.out + done.err
    found = fieldlab("discover", server.url, "--security", "none", "--data", process.folder / "looked")
    assert found.code == 0, found.err
    process.kill()
    for subscription in server.ask("subscriptions")["subscriptions"]:
        server.ask("trouble", id=subscription["id"], what="subscription")
    mill.run(5)
    process.start()
    wait_until(lambda: "HistoryReadRequest" in recorder.requests, 30.0, "what was missed is read again")
    assert process.stop() == 0
    seen = set(recorder.requests)
    assert "ConditionType.ConditionRefresh" in {OF_THE_SERVER.get(call) for call in recorder.calls}
    assert {"ReadRequest", "BrowseRequest", "CreateSubscriptionRequest", "CreateMonitoredItemsRequest"} <= seen
    assert {"PublishRequest", "TranslateBrowsePathsToNodeIdsRequest", "RegisterNodesRequest"} <= seen
    assert seen.isdisjoint({"WriteRequest", "HistoryUpdateRequest", "AddNodesRequest", "DeleteNodesRequest"})
    assert [call for call in recorder.calls if call not in OF_THE_SERVER] == []
    assert asked(server) == []
    assert "actions" not in {c["name"] for c in process.start().status()["consumers"]}
    assert process.stop() == 0

    call = f'call = {{ object = "{URI};s=Unit", method = "{URI};s=Unit.Hold", arguments = ["because"] }}'
    server.ask("method", name="Hold", parent="Unit", inputs=[["reason", "String"]])
    acting = agent(tables + action("hold", write("hold", 1)) + action("call", call), "acting", keys=KEYS).start()
    raise_a_finding(acting, mill, wait_until)
    wait_until(lambda: outcomes(acting) and "unknown" not in dict(outcomes(acting)).values(), 20.0, "it is done")
    assert recorder.requests.count("WriteRequest") >= 1, "the recorder sees a write when there is one"
    assert [call for call in recorder.calls if call not in OF_THE_SERVER] != []
    assert acting.stop() == 0


def test_a_finding_acts_once_and_a_dry_run_changes_nothing(
    opcua_server: Callable[..., Any], agent: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    """Of one finding: a write, a dry run, and three that the machine does not allow. A restart repeats none."""
    server = opcua_server(NODES)
    tables = server.source(["load", "hold"]) + CHART
    tables += action("hold", write("hold", 7)) + action("dry", write("hold", 8), "")
    tables += action("say", write("note", "held by {finding.id}, {chart}"))
    tables += action("wrong", write("hold", "x")) + action("fixed", write("fixed", 1)) + action("gone", write("no", 1))
    tables += action("cleared", write("hold", 0), 'dry_run = false\nstate = "cleared"\n')
    process = agent(tables, keys=KEYS).start()
    mill = Mill(server)
    raise_a_finding(process, mill, wait_until)
    expected = {
        "hold": "done", "dry": "dry_run", "say": "done", "wrong": "refused", "fixed": "refused", "gone": "refused",
    }  # fmt: skip
    wait_until(lambda: dict(outcomes(process)) == expected, 20.0, f"{expected}")
    (finding,) = process.query("findings")
    assert asked(server) == [["hold", 7, "Int16"], ["note", f"held by {finding['id']}, load", "String"]]
    rows = {row["action"]: row for row in process.query("actions")}
    assert len(rows) == len(process.query("actions")) == 6, "one row a trigger"
    assert {row["trigger"] for row in rows.values()} == {finding["id"]}
    assert rows["dry"]["detail"].startswith("would write 8 as Int16")
    assert "AccessLevel" in rows["fixed"]["detail"]
    assert "BadNodeIdUnknown" in rows["gone"]["detail"]
    key = "signal=drachten/shavers/3/cnc-07/hold"
    wait_until(lambda: process.query(f"telemetry?{key}")["value"][-1:] == [7.0], 20.0, "the machine says so itself")
    assert process.status()["actions"] == {"done": 2, "dry_run": 1, "refused": 3}
    assert process.stop() == 0
    process.start()
    mill.run(40)  # back to normal: the finding clears, and what waits for that acts, once
    wait_until(lambda: dict(outcomes(process)).get("cleared") == "done", 30.0, "the clearing acts")
    wait_until(process.settled, 20.0)
    assert [w[:2] for w in asked(server)] == [["hold", 7], ["note", f"held by {finding['id']}, load"], ["hold", 0]]
    logged = [e for e in process.log if e["event"] == "action"]
    assert [(e["action"], e["outcome"]) for e in logged] == [*expected.items(), ("cleared", "done")]
    assert process.stop() == 0
    assert process.troubles == []


def test_verdicts_act_within_the_limit(
    opcua_server: Callable[..., Any], agent: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    """Each failing part asks; beyond the limit nothing is sent, and the audit says so."""
    server = opcua_server(NODES)
    tables = server.source(["load", "part_id"]) + PARTS
    tables += action("reject", write("note", "{part}"), "dry_run = false\n", "verdict").replace("1/s", "2/h")
    process = agent(tables).start()  # parts and their readings may come in any order within `lateness`
    mill = Mill(server)
    for number in range(6):
        mill.part(f"P{number}", 50.0 + number if number else 11.0)  # a value that is not new is not sent
    mill.part("", 10.0)
    wait_until(lambda: len(process.query("verdicts")) >= 6, 30.0, "verdicts")
    wait_until(lambda: len(outcomes(process)) == 5 and process.settled(), 20.0, "an end for each")
    assert [outcome for _, outcome in outcomes(process)] == ["done", "done", "limited", "limited", "limited"]
    assert asked(server) == [["note", "P1", "String"], ["note", "P2", "String"]]
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("withhold", "then"),
    [("WriteRequest itself", "kill"), ("the answer to WriteRequest", "kill"), ("the answer to WriteRequest", "cut")],
)
def test_what_was_sent_is_not_sent_again(
    opcua_server: Callable[..., Any],
    agent: Callable[..., Any],
    record: Callable[[Any], Recorder],
    wait_until: Callable[..., Any],
    withhold: str,
    then: str,
) -> None:
    """kill -9 between the intent and the result, before or after the machine has heard of it; or a lost connection."""
    server = opcua_server(NODES)
    recorder = record(server)
    recorder.withhold = withhold
    process = agent(server.source(["load"]) + CHART + action("hold", write("hold", 1)), keys=KEYS).start()
    mill = Mill(server)
    raise_a_finding(process, mill, wait_until)
    assert recorder.withheld.wait(20), "it was sent"
    if then == "kill":
        process.kill()
    recorder.withhold = ""
    recorder.cut()
    if then == "kill":
        process.start()
    else:
        wait_until(lambda: process.status()["actions"] == {"unknown": 1}, 20.0, "no answer will come")
    wait_until(lambda: process.status()["sources"][0]["connected"] and process.settled(), 20.0)
    assert outcomes(process) == [("hold", "unknown")]
    assert process.query("actions")[0]["detail"].startswith("sent")
    before = process.ledger()["committed"]
    mill.run(30)
    wait_until(lambda: process.ledger()["committed"] >= before + 30 and process.settled(), 30.0, "life goes on")
    assert outcomes(process) == [("hold", "unknown")], "nobody knows, and nobody tries again"
    assert recorder.requests.count("WriteRequest") == 1
    assert len(asked(server)) == (0 if withhold.endswith("itself") else 1)
    assert process.stop() == 0


def test_what_happened_long_ago_does_nothing(
    opcua_server: Callable[..., Any], agent: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    server = opcua_server({})
    mill = Mill(server, behind=600.0)
    for name, what in NODES.items():
        server.ask("add", name=name, **what)
        mill.set(name, what["value"], what["type"])
    process = agent(server.source(["load"]) + CHART + action("hold", write("hold", 1)), keys=KEYS).start()
    raise_a_finding(process, mill, wait_until)
    wait_until(lambda: outcomes(process) == [("hold", "refused")], 20.0, "it is refused")
    (row,) = process.query("actions")
    assert row["detail"].startswith("stale: the trigger is 6")
    assert asked(server) == []
    assert process.stop() == 0


def test_check_shows_what_actions_would_do_and_does_none(
    opcua_server: Callable[..., Any], agent: Callable[..., Any], fieldlab: Callable[..., Any]
) -> None:
    server = opcua_server(NODES)
    server.ask("method", name="Hold", parent="Unit", inputs=[["reason", "String"]])
    call = f'call = {{ object = "{URI};s=Unit", method = "{URI};s=Unit.Hold", arguments = [%s] }}'
    tables = server.source(["load"]) + CHART + action("hold", write("hold", 1)) + action("dry", write("hold", 1), "")
    tables += action("call", call % '"because"')
    wrong = {
        "range": write("hold", 40000),
        "type": write("hold", "x"),
        "right": write("fixed", 1),
        "node": write("no", 1),
    }
    wrong |= {"count": call % "", "kind": call % "1", "words": write("hold", "{part}")}
    process = agent(tables)
    done = fieldlab("check", process.config, "--json")
    lines = {line["subject"]: line for line in json.loads(done.out)["lines"]}
    assert done.code == 0, done.out
    assert "would write 1 as Int16" in lines["action hold"]["text"]
    assert "which is 0 now; at most 1/s" in lines["action hold"]["text"]
    assert "dry run" in lines["action dry"]["text"]
    assert "would call" in lines["action call"]["text"]
    process.configure(tables + "".join(action(name, what) for name, what in wrong.items()))
    done = fieldlab("check", process.config, "--json")
    assert done.code == 1
    failed = {line["subject"]: line["text"] for line in json.loads(done.out)["lines"] if line["level"] == "fail"}
    assert failed.keys() == {f"action {name}" for name in wrong}
    assert "out of the range of a Int16" in failed["action range"]
    assert "AccessLevel" in failed["action right"]
    assert "takes 1 arguments (reason), not 0" in failed["action count"]
    assert server.ask("asked") == {"writes": [], "calls": []}
    process.configure(tables + '[[action]]\nname = "x"\non = "finding"\nsource = "nobody"\n' + write("hold", 1) + "\n")
    done = fieldlab("agent", process.config)
    number = process.config.read_text().splitlines().index('source = "nobody"') + 1
    assert done.code == 2
    assert f"fieldlab.toml:{number}: action[3].source: source 'nobody' does not exist" in done.err

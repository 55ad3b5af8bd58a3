"""Structures, unions and enumerations: one signal a field, by the server's own definitions."""

import asyncio
import contextlib
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asyncua import ua as asyncua_ua
from asyncua.common.structures104 import new_enum, new_struct, new_struct_field
from asyncua.server.server import Server
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.opcua.structures import DEEPEST, FAILURES, MOST_VALUES, Field, Structure, Types
from edge.sources.opcua.wire import DecodeError

ua: Any = asyncua_ua  # the structures that a test defines are put into this module
GOOD, BAD_DECODING, NO_DATA, NO_COMMUNICATION = 0, 0x80070000, 0x809B0000, 0x80310000
URI = "urn:fieldlab:structures"


class Machine:
    """An asyncua server in a thread, with structures of its own."""

    uri = URI
    prefix = ""

    def __init__(self, port: int) -> None:
        self.url = f"opc.tcp://127.0.0.1:{port}/structures"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = Server()
        await server.init()
        server.set_endpoint(self.url)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        index = await server.register_namespace(URI)
        state, _ = await new_enum(server, index, "DoorState", ["open", "closed"]), None
        point, _ = await new_struct(
            server, index, "Point", [new_struct_field(n, ua.VariantType.Double) for n in ("x", "y")]
        )
        tool, _ = await new_struct(
            server,
            index,
            "Tool",
            [
                new_struct_field("position", point),
                new_struct_field("path", point, array=True),
                new_struct_field("door", state),
                new_struct_field("name", ua.VariantType.String),
                new_struct_field("count", ua.VariantType.Int64),
            ],
        )
        spare, _ = await new_struct(
            server,
            index,
            "Spare",
            [
                new_struct_field("always", ua.VariantType.Int32),
                new_struct_field("wear", ua.VariantType.Float, optional=True),
                new_struct_field("note", ua.VariantType.String, optional=True),
            ],
        )
        either, _ = await new_struct(
            server,
            index,
            "Either",
            [new_struct_field("number", ua.VariantType.Double), new_struct_field("text", ua.VariantType.String)],
            is_union=True,
        )
        await server.load_data_type_definitions()
        first = ua.Tool(
            position=ua.Point(1.0, 2.0), path=[ua.Point(3.0, 4.0)], door=ua.DoorState(1), name="T1", count=2**60 + 1
        )
        union = ua.Either()
        union.number = 2.5
        values = {
            "tool": (first, tool),
            "points": ([ua.Point(1.0, 2.0), ua.Point(3.0, 4.0)], point),
            "spare": (ua.Spare(always=1, wear=0.5), spare),
            "either": (union, either),
            "any": (ua.Point(5.0, 6.0), None),
            "plain": (1.0, None),
        }
        self.nodes = {}
        for name, (value, kind) in values.items():
            variant = ua.Variant(value) if kind is None else ua.Variant(value, ua.VariantType.ExtensionObject)
            data_type = {"any": ua.NodeId(22), "plain": None}.get(name, kind.nodeid if kind is not None else None)
            node_id = ua.NodeId(name, index)
            self.nodes[name] = await server.nodes.objects.add_variable(
                node_id, ua.QualifiedName(name, index), variant, datatype=data_type
            )
        self.nodes["door"] = await server.nodes.objects.add_variable(
            ua.NodeId("door", index),
            ua.QualifiedName("door", index),
            ua.Variant(0, ua.VariantType.Int32),
            datatype=state.nodeid,
        )
        self.server = server
        async with server:
            self._ready.set()
            await self._stop.wait()

    def do(self, work: Callable[[], Any]) -> Any:
        """Run a coroutine of the server's loop."""
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(10)

    def write(self, name: str, value: Any) -> None:
        self.do(lambda: self.nodes[name].write_value(value))

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(15)


@pytest.fixture
def machine(free_port: Any) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def make() -> Machine:
        made.append(Machine(free_port()))
        return made[-1]

    yield make
    for one in made:
        one.close()


def values(sink: Any) -> dict[str, Any]:
    """Signal → (value, status) of its last reading."""
    return {r.name: (r.value, r.status) for r in sink.readings()}


FIRST = {
    "tool.position.x": (1.0, GOOD), "tool.position.y": (2.0, GOOD), "tool.path[0].x": (3.0, GOOD),
    "tool.path[0].y": (4.0, GOOD), "tool.door": (1.0, GOOD), "tool.name": ("T1", GOOD), "tool.count": (2**60 + 1, GOOD),
    "points[0].x": (1.0, GOOD), "points[0].y": (2.0, GOOD), "points[1].x": (3.0, GOOD), "points[1].y": (4.0, GOOD),
    "spare.always": (1.0, GOOD), "spare.wear": (0.5, GOOD), "either.number": (2.5, GOOD),
    "any.x": (5.0, GOOD), "any.y": (6.0, GOOD), "plain": (1.0, GOOD), "door": (0.0, GOOD),
}  # fmt: skip
NAMES = ["tool", "points", "spare", "either", "any", "plain", "door"]


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
def test_each_field_is_a_signal(
    machine: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, mode: str
) -> None:
    server = machine()
    source = run_source(table(server, NAMES, mode=mode, sampling="20ms"), sink)
    wait_until(lambda: values(sink) == FIRST, what="every field")
    infos = {info.key.name: info for info in sink.infos.values()}
    for name in ("door", "tool.door"):
        assert (infos[name].kind, infos[name].states) == ("state", {"0": "open", "1": "closed"})
    assert infos["tool.name"].kind == "text"
    assert infos["tool.count"].kind == "gauge"
    server.write("spare", ua.Spare(always=2, note="worn"))
    wait_until(lambda: values(sink).get("spare.note") == ("worn", GOOD))
    assert values(sink)["spare.wear"] == (None, NO_DATA), "a field that is absent now has no value any more"
    other = ua.Either()
    other.text = "now text"
    server.write("either", other)
    wait_until(lambda: values(sink).get("either.text") == ("now text", GOOD))
    assert values(sink)["either.number"] == (None, NO_DATA)
    server.write("points", [ua.Point(9.0, 9.0)])
    wait_until(lambda: values(sink).get("points[0].x") == (9.0, GOOD))
    assert values(sink)["points[1].x"] == values(sink)["points[1].y"] == (None, NO_DATA), "the array is shorter"
    server.write("any", ua.Spare(always=3, wear=1.0))  # of a type that was not there at the connect
    wait_until(lambda: values(sink).get("any.always") == (3.0, GOOD))
    assert (sink.letters, source.status.counters["undecodable"]) == ([], 0)
    server.close()
    wait_until(lambda: values(sink)["tool.position.x"] == (None, NO_COMMUNICATION), what="a loss is one of each field")


def test_a_malformed_structure_goes_to_the_dead_letter_and_stops_nobody(
    machine: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    server = machine()
    source = run_source(table(server, NAMES), sink)
    wait_until(lambda: values(sink) == FIRST)
    index = server.do(lambda: server.server.get_namespace_index(URI))
    damaged = ua.ExtensionObject(TypeId=ua.NodeId(99, index), Body=b"\x01")
    server.write("points", [damaged])
    wait_until(lambda: values(sink)["points[0].x"] == (None, BAD_DECODING))
    (letter,) = sink.letters
    assert (letter.machine, letter.signal, letter.readings) == ("drachten/shavers/3/cnc-07", "points", 1)
    assert "ns=2;i=99" in letter.reason
    assert "DataTypeDefinition" in letter.reason
    assert source.status.counters["undecodable"] == 1
    server.write("plain", 5.0)
    wait_until(lambda: values(sink)["plain"] == (5.0, GOOD), what="the others go on")
    server.write("points", [ua.Point(7.0, 7.0)])
    wait_until(lambda: values(sink)["points[0].x"] == (7.0, GOOD), what="and so does it, when it can be read")
    wait_until(lambda: source.status.counters["pending"] == 0, what="acknowledged when letter and readings are kept")
    assert source.status.counters["reconnects"] == 0


def test_what_node_opcua_says_of_its_own_types(
    shared: Any, sink: Any, table: Any, run_source: Any, wait_until: Any
) -> None:
    """ServerStatusDataType (OPC 10000-5, 12.10): a structure with a structure, an enumeration and texts."""
    server = shared(
        {"state": {"type": "Int32", "value": 4, "dataType": "ServerState"}, "whole": {"type": "UInt32", "value": 4}}
    )
    server.ask("discrete", name="door", kind="TwoStateDiscrete", value=True, trueState="shut", falseState="ajar")
    server.ask("discrete", name="mode", kind="MultiStateDiscrete", value=1, enumStrings=["idle", "busy"])
    server.ask(
        "discrete",
        name="step",
        kind="MultiStateValueDiscrete",
        value=70,
        enumValues=[{"displayName": "load", "value": 10}, {"displayName": "cut", "value": 70}],
    )
    names = ["state", "whole", "door", "mode", "step", {"name": "status", "node": "i=2256"}]
    run_source(table(server, names), sink)
    wait_until(lambda: "status.State" in values(sink) and len(values(sink)) >= 6)
    got = values(sink)
    assert got["status.State"] == (0.0, GOOD)
    assert got["status.BuildInfo.ProductName"][0].startswith("NodeOPCUA")
    assert got["status.CurrentTime"][0] == pytest.approx(got["status.StartTime"][0], abs=600)
    assert got["status.ShutdownReason"] == ("", GOOD)

    def states() -> dict[str, Any]:
        return {i.key.name: (i.kind, dict(i.states)) for i in list(sink.infos.values()) if i.states}

    wait_until(lambda: set(states()) >= {"state", "door", "mode", "step", "status.State"}, what="texts of numbers")
    assert states()["status.State"][1]["0"] == "Running"
    assert states()["state"] == states()["status.State"]
    assert states()["door"] == ("state", {"0": "ajar", "1": "shut"})
    assert states()["mode"] == ("state", {"0": "idle", "1": "busy"})
    assert states()["step"] == ("state", {"10": "load", "70": "cut"})
    assert "whole" not in states()


def test_texts_of_the_configuration_win(machine: Any, sink: Any, table: Any, run_source: Any, wait_until: Any) -> None:
    server = machine()
    ours = {"name": "door", "node": f"nsu={URI};s=door", "map": {"0": "auf", "1": "zu"}}
    run_source(table(server, [ours, "plain"]), sink)
    wait_until(lambda: len(values(sink)) == 2)
    (info,) = [i for i in sink.infos.values() if i.key.name == "door"]
    assert info.states == {"0": "auf", "1": "zu"}


# Any tree of types, encoded here by the rules of OPC 10000-6, 5.2.

PACK = {1: "<?", 3: "<B", 6: "<i", 8: "<q", 10: "<f", 11: "<d"}
LEAVES = {
    1: st.booleans(), 3: st.integers(0, 255), 6: st.integers(-(2**31), 2**31 - 1),
    8: st.integers(-(2**63), 2**63 - 1), 10: st.floats(width=32, allow_nan=False), 11: st.floats(allow_nan=False),
    12: st.text(max_size=5),
}  # fmt: skip


def encode(kind: int, value: Any) -> bytes:
    if kind == 12:
        raw: bytes = value.encode()
        return struct.pack("<i", len(raw)) + raw
    packed: bytes = struct.pack(PACK[kind], value)
    return packed


@st.composite
def structures(draw: Any, types: Types, depth: int = 0) -> tuple[str, bytes, list[tuple[str, Any]]]:
    """(its name in `types`, a value of it, the leaves expected)."""
    name = f"ns=1;i={len(types.structures) + 1}"
    types.structures[name] = Structure(name, "plain", ())  # takes the number
    kind = draw(st.sampled_from(["plain", "optional", "union"]))
    fields, bodies, leaves = [], [], []
    for i in range(draw(st.integers(1, 4))):
        rank = draw(st.sampled_from([0, 0, 1, 2]))
        count = draw(st.integers(0, 3)) if rank else 1
        optional = kind == "optional" and draw(st.booleans())
        nested = depth < 3 and draw(st.integers(0, 3)) == 0
        if nested:
            inner, body, below = draw(structures(types, depth + 1))
            parts = [(body, below)] * count
            field = Field(f"f{i}", 22, inner, rank, optional)
        else:
            builtin = draw(st.sampled_from(list(LEAVES)))
            drawn = [draw(LEAVES[builtin]) for _ in range(count)]
            parts = [(encode(builtin, v), [("", v)]) for v in drawn]
            field = Field(f"f{i}", builtin, "", rank, optional)
        head = b"" if not rank else struct.pack("<i", count) if rank == 1 else struct.pack("<iii", 2, count, 1)
        bodies.append(head + b"".join(body for body, _ in parts))
        leaves.append(
            [(f".f{i}{f'[{n}]' if rank else ''}{path}", v) for n, (_, below) in enumerate(parts) for path, v in below]
        )
        fields.append(field)
    chosen = list(range(len(fields)))
    head = b""
    if kind == "union":
        switch = draw(st.integers(0, len(fields)))
        chosen = [switch - 1] if switch else []
        head = struct.pack("<I", switch)
    if kind == "optional":
        bits = [i for i, f in enumerate(fields) if f.optional]
        present = [i for i in bits if draw(st.booleans())]
        chosen = [i for i in chosen if i not in bits or i in present]
        head = struct.pack("<I", sum(1 << n for n, i in enumerate(bits) if i in present))
    types.structures[name] = Structure(name, kind, tuple(fields))
    return name, head + b"".join(bodies[i] for i in chosen), [leaf for i in chosen for leaf in leaves[i]]


def variant_of(encoding: int, body: bytes) -> bytes:
    return b"\x16\x01\x01" + struct.pack("<H", encoding) + b"\x01" + struct.pack("<i", len(body)) + body


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_structure(data: Any) -> None:
    types = Types({}, {})
    name, body, leaves = data.draw(structures(types))
    types.encodings["ns=1;i=9"] = name
    variant = variant_of(9, body)
    assert [(leaf.path, leaf.value) for leaf in types.flatten(variant)] == leaves
    at, bits = data.draw(st.integers(0, len(variant) - 1)), data.draw(st.integers(1, 255))
    damaged = variant[:at] + bytes([variant[at] ^ bits]) + variant[at + 1 :]
    for wrong in (damaged, variant[:at], variant + b"\0"):
        with contextlib.suppress(*FAILURES):  # nothing else may come up
            types.flatten(wrong)
    with pytest.raises(FAILURES):
        types.flatten(variant_of(9, body + b"\0"))


def test_what_is_in_a_value_is_bounded() -> None:
    nothing = Structure("nothing", "plain", ())
    itself = Structure("itself", "plain", (Field("f", 22, "itself"),))
    many = Structure("many", "plain", (Field("f", 22, "nothing", 1),))
    deep = Structure("deep", "plain", (Field("f", 22, "many", 1),))
    types = Types(
        {"nothing": nothing, "itself": itself, "many": many, "deep": deep},
        {"ns=1;i=1": "itself", "ns=1;i=2": "many", "ns=1;i=3": "deep"},
    )
    with pytest.raises(DecodeError, match=f"deeper than {DEEPEST}"):
        types.flatten(variant_of(1, b""))
    with pytest.raises(DecodeError, match=f"more than {MOST_VALUES}"):
        types.flatten(variant_of(2, struct.pack("<i", 2**31 - 1)))
    assert types.flatten(variant_of(2, struct.pack("<i", MOST_VALUES - 1))) == []
    with pytest.raises(DecodeError, match=f"more than {MOST_VALUES}"):
        types.flatten(variant_of(3, struct.pack("<i", 1000) + struct.pack("<i", 1000) * 1000))
    with pytest.raises(DecodeError, match="in XML"):
        types.flatten(b"\x16\x01\x01\x01\x00\x02\x00\x00\x00\x00")

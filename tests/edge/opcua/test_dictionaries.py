"""Structures of servers before OPC UA 1.04, which tell their fields in a type dictionary (OPC Binary Schema)."""

import asyncio
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.type_dictionary_builder import DataTypeDictionaryBuilder
from asyncua.server.server import Server
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.sources.opcua.dictionaries import Dictionary, DictionaryError
from edge.sources.opcua.structures import Types

URI = "urn:fieldlab:old"
HEAD = (
    '<opc:TypeDictionary xmlns:opc="http://opcfoundation.org/BinarySchema/" xmlns:ua="http://opcfoundation.org/UA/" '
    'xmlns:tns="urn:x" TargetNamespace="urn:x">'
)
DICTIONARY = f"""{HEAD}
<opc:EnumeratedType Name="Door" LengthInBits="32">
  <opc:EnumeratedValue Name="open" Value="0"/><opc:EnumeratedValue Name="closed" Value="1"/>
</opc:EnumeratedType>
<opc:StructuredType Name="Point" BaseType="ua:ExtensionObject">
  <opc:Field Name="x" TypeName="opc:Double"/><opc:Field Name="y" TypeName="opc:Double"/>
</opc:StructuredType>
<opc:StructuredType Name="Tool" BaseType="ua:ExtensionObject">
  <opc:Field Name="at" TypeName="tns:Point"/>
  <opc:Field Name="NoOfPath" TypeName="opc:Int32"/>
  <opc:Field Name="Path" TypeName="tns:Point" LengthField="NoOfPath"/>
  <opc:Field Name="door" TypeName="tns:Door"/>
  <opc:Field Name="name" TypeName="opc:CharArray"/>
  <opc:Field Name="text" TypeName="ua:LocalizedText"/>
</opc:StructuredType>
<opc:StructuredType Name="Spare" BaseType="ua:ExtensionObject">
  <opc:Field Name="wearSpecified" TypeName="opc:Bit"/><opc:Field Name="noteSpecified" TypeName="opc:Bit"/>
  <opc:Field Name="Reserved1" TypeName="opc:Bit" Length="30"/>
  <opc:Field Name="always" TypeName="opc:Int32"/>
  <opc:Field Name="wear" TypeName="opc:Float" SwitchField="wearSpecified"/>
  <opc:Field Name="note" TypeName="opc:String" SwitchField="noteSpecified"/>
</opc:StructuredType>
<opc:StructuredType Name="Either" BaseType="ua:Union">
  <opc:Field Name="SwitchField" TypeName="opc:UInt32"/>
  <opc:Field Name="number" TypeName="opc:Double" SwitchField="SwitchField" SwitchValue="1"/>
  <opc:Field Name="text" TypeName="opc:String" SwitchField="SwitchField" SwitchValue="2"/>
</opc:StructuredType>
<opc:StructuredType Name="Bits"><opc:Field Name="a" TypeName="opc:Bit" Length="8"/></opc:StructuredType>
<opc:StructuredType Name="Fixed"><opc:Field Name="a" TypeName="opc:Byte" Length="8"/></opc:StructuredType>
<opc:StructuredType Name="Odd"><opc:Field Name="k" TypeName="opc:Byte"/>
  <opc:Field Name="a" TypeName="opc:Byte" SwitchField="k" SwitchValue="3"/></opc:StructuredType>
<opc:StructuredType Name="Lost"><opc:Field Name="a" TypeName="tns:Nowhere"/></opc:StructuredType>
<opc:StructuredType Name="Uses"><opc:Field Name="a" TypeName="tns:Lost"/></opc:StructuredType>
</opc:TypeDictionary>""".encode()


def text(value: str) -> bytes:
    return struct.pack("<i", len(value)) + value.encode()


def flat(name: str, body: bytes) -> dict[str, Any]:
    dictionary = Dictionary("d", DICTIONARY)
    full = dictionary.structure(name)
    types = Types(dict(dictionary.structures), {"ns=1;i=9": full})
    variant = b"\x16\x01\x01\x09\x00\x01" + struct.pack("<i", len(body)) + body
    return {leaf.path: leaf.value for leaf in types.flatten(variant)}


def test_what_the_schema_says() -> None:
    tool = struct.pack("<dd", 1.0, 2.0) + struct.pack("<idd", 1, 3.0, 4.0) + struct.pack("<i", 1) + text("T1")
    assert flat("Tool", tool + b"\x02" + text("sharp")) == {
        ".at.x": 1.0, ".at.y": 2.0, ".Path[0].x": 3.0, ".Path[0].y": 4.0, ".door": 1, ".name": "T1", ".text": "sharp",
    }  # fmt: skip
    assert flat("Tool", struct.pack("<ddiii", 1.0, 2.0, -1, 0, -1) + b"\0")[".name"] == "", "a null array has none"
    assert flat("Spare", struct.pack("<Ii", 2, 7) + text("worn")) == {".always": 7, ".note": "worn"}
    assert flat("Spare", struct.pack("<Iif", 1, 7, 0.5)) == {".always": 7, ".wear": 0.5}
    assert flat("Either", struct.pack("<Id", 1, 2.5)) == {".number": 2.5}
    assert flat("Either", struct.pack("<I", 2) + text("x")) == {".text": "x"}
    dictionary = Dictionary("d", DICTIONARY)
    door = [field for field in dictionary.structures[dictionary.structure("Tool")].fields if field.name == "door"]
    assert door[0].states == {"0": "open", "1": "closed"}


@pytest.mark.parametrize("name", ["Bits", "Fixed", "Odd", "Lost", "Uses", "Door", "Nothing"])
def test_what_is_not_read_is_refused(name: str) -> None:
    dictionary = Dictionary("d", DICTIONARY)
    with pytest.raises(DictionaryError):
        dictionary.structure(name)
    assert not dictionary.structures, "and nothing half-read stays behind"


@pytest.mark.parametrize(
    "xml",
    [b"", b"<a", b"\xff\xfe\0", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b'<a DefaultByteOrder="BigEndian"/>'],
)
def test_what_is_no_dictionary_is_refused(xml: bytes) -> None:
    with pytest.raises(DictionaryError):
        Dictionary("d", xml)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(DICTIONARY) - 1), st.binary(max_size=6), st.integers(0, 6))
def test_a_damaged_dictionary_is_an_error_or_another_dictionary(at: int, put: bytes, cut: int) -> None:
    try:
        dictionary = Dictionary("d", DICTIONARY[:at] + put + DICTIONARY[at + cut :])
    except DictionaryError:
        return
    for name in ("Tool", "Spare", "Either"):
        try:
            full = dictionary.structure(name)
        except DictionaryError:
            continue
        for one in dictionary.structures.values():
            assert all(not field.structure or field.structure in dictionary.structures for field in one.fields)
        assert full in dictionary.structures


class Old:
    """An asyncua server whose structures have a dictionary and no DataTypeDefinition."""

    uri = URI
    prefix = ""

    def __init__(self, url: str) -> None:
        self.url = url

    async def build(self) -> Server:
        server = Server()
        await server.init()
        server.set_endpoint(self.url)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        index = await server.register_namespace(URI)
        builder = DataTypeDictionaryBuilder(server, index, URI, "Machine")
        await builder.init()
        point = await builder.create_data_type("Point")
        for name in ("x", "y"):
            point.add_field(name, "Double")
        tool = await builder.create_data_type("Tool")
        tool.add_field("at", "Point")
        tool.add_field("Path", "Point", is_array=True)
        tool.add_field("name", "String")
        await builder.set_dict_byte_string()
        body = struct.pack("<dd", 1.0, 2.0) + struct.pack("<idd", 1, 3.0, 4.0) + text("T1")
        value = ua.ExtensionObject(TypeId=tool.node_ids[2], Body=ua.ByteString(body))
        for name, kind in (("tool", tool.data_type), ("any", ua.NodeId(ua.Int32(22)))):
            node_id = ua.NodeId(ua.String(name), ua.Int16(index))
            await server.nodes.objects.add_variable(
                node_id, ua.QualifiedName(name, ua.UInt16(index)), ua.Variant(value), datatype=kind
            )
        return server


@pytest.fixture
def old(free_port: Any) -> Iterator[Old]:
    made = Old(f"opc.tcp://127.0.0.1:{free_port()}/old")
    ready = threading.Event()
    stops: list[Callable[[], Any]] = []

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        async with await made.build():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield made
    stops[0]()
    thread.join(15)


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
def test_each_field_is_a_signal(old: Any, sink: Any, table: Any, run_source: Any, wait_until: Any, mode: str) -> None:
    source = run_source(table(old, ["tool", "any"], mode=mode, sampling="20ms"), sink)
    leaves = {"at.x": 1.0, "at.y": 2.0, "Path[0].x": 3.0, "Path[0].y": 4.0, "name": "T1"}
    expected = {f"{name}.{path}": value for name in ("tool", "any") for path, value in leaves.items()}
    wait_until(lambda: {r.name: r.value for r in sink.readings() if not r.status} == expected)
    assert source.status.counters["undecodable"] == len(sink.letters) == 0

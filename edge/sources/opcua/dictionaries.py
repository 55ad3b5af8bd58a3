"""Type dictionaries: how servers before OPC UA 1.04 say what is in a structure (OPC 10000-5, annex D.5).

A dictionary is XML, OPC Binary Schema (OPC 10000-3, annex C in 1.04), in a variable of the server. asyncua can read
them too, but runs what it makes of them as Python; here they become the same `Structure` as a DataTypeDefinition.
"""

from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET

import msgspec
import structlog
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.opcua.browse import CallLimits, browse, plain, read_values
from edge.sources.opcua.structures import Field, Structure, field_name

log = structlog.get_logger()

_HAS_ENCODING: Final = ua.NodeId(ua.Int32(38))
_HAS_DESCRIPTION: Final = ua.NodeId(ua.Int32(39))
_HAS_COMPONENT: Final = ua.NodeId(ua.Int32(47))
_STANDARD: Final = ua.NodeId(ua.Int32(7617))  # the dictionary of namespace 0, Opc.Ua
_BINARY: Final = "Default Binary"
_LARGEST: Final = 8 << 20  # bytes of a dictionary; that of namespace 0 has 200 KB
_MASK_BITS: Final = 32
_BUILTIN: Final = {
    "Boolean": 1, "SByte": 2, "Byte": 3, "Int16": 4, "UInt16": 5, "Int32": 6, "UInt32": 7, "Int64": 8, "UInt64": 9,
    "Float": 10, "Double": 11, "String": 12, "CharArray": 12, "DateTime": 13, "Guid": 14, "ByteString": 15,
    "XmlElement": 16, "NodeId": 17, "ExpandedNodeId": 18, "StatusCode": 19, "QualifiedName": 20, "LocalizedText": 21,
    "ExtensionObject": 22, "DataValue": 23, "Variant": 24, "DiagnosticInfo": 25,
}  # fmt: skip


class DictionaryError(Exception):
    """A dictionary, or a type of it, that cannot be read."""


class Dictionary:
    """One dictionary, as far as its types are asked for."""

    def __init__(self, name: str, xml: bytes, standard: "Dictionary | None" = None) -> None:
        """Read it.

        Args:
            name: the start of the names of its structures.
            xml: it.
            standard: the dictionary of namespace 0.

        Raises:
            DictionaryError: if it is none.
        """
        self.structures: dict[str, Structure] = {}
        self._name = name
        self._standard = standard
        if len(xml) > _LARGEST or b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
            raise DictionaryError("it is too large, or has entities of its own")
        try:
            root = ET.fromstring(xml.rstrip(b"\0"))  # noqa: S314  without entities there is nothing to expand
        except (ET.ParseError, ValueError, LookupError) as e:
            raise DictionaryError(f"it is no XML: {e}") from e
        if root.get("DefaultByteOrder", "LittleEndian") != "LittleEndian":
            raise DictionaryError("its types are big-endian")
        self._elements = {one.get("Name", ""): one for one in root if _tag(one) in ("StructuredType", "EnumeratedType")}

    def structure(self, name: str) -> str:
        """The name of a type in `structures`, where it and all that it is made of are put.

        Raises:
            DictionaryError: if it is not there, or encoded in a way that is not read.
        """
        full = f"{self._name}/{name}"
        if full in self.structures:
            return full
        element = self._elements.get(name)
        if element is None or _tag(element) != "StructuredType":
            raise DictionaryError(f"it has no structure {name}")
        before = dict(self.structures)
        self.structures[full] = Structure(full, "plain", ())  # it may hold itself
        try:
            self.structures[full] = self._read(full, [one for one in element if _tag(one) == "Field"])
        except (DictionaryError, ValueError, RecursionError) as e:
            self.structures = before  # others may hold it
            raise DictionaryError(f"{name}: {e}") from e
        return full

    def _read(self, full: str, elements: list[ET.Element]) -> Structure:
        bits = [one for one in elements if _local(one.get("TypeName", "")) == "Bit"]
        lengths = {one.get("LengthField", "") for one in elements} - {""}
        switches = {one.get("SwitchField", "") for one in elements} - {""}
        fields = [one for one in elements if one not in bits and one.get("Name") not in lengths]
        if any(one.get("Terminator") or one.get("Length") or one.get("IsLengthInBytes") for one in fields):
            raise DictionaryError("it has fields of a fixed length or with a terminator")
        if not switches:
            if bits:
                raise DictionaryError("it has single bits")
            return Structure(full, "plain", tuple(self._field(one) for one in fields))
        if bits:
            chosen = [one.get("SwitchField", "") for one in fields if one.get("SwitchField")]
            named = [one.get("Name", "") for one in bits if int(one.get("Length") or 1) == 1]
            width = sum(int(one.get("Length") or 1) for one in bits)
            if elements[: len(bits)] != bits or width != _MASK_BITS or chosen != named[: len(chosen)]:
                raise DictionaryError("its optional fields are not those of a mask of 32 bits")
            return Structure(full, "optional", tuple(self._field(one, optional=True) for one in fields))
        switch, rest = fields[0], fields[1:]
        numbers = [one.get("SwitchValue") for one in rest]
        if (
            switches != {switch.get("Name")}
            or _local(switch.get("TypeName", "")) != "UInt32"
            or numbers != [str(n) for n in range(1, len(rest) + 1)]
        ):
            raise DictionaryError("it switches by something else than a mask or a number")
        return Structure(full, "union", tuple(self._field(one) for one in rest))

    def _field(self, element: ET.Element, *, optional: bool = False) -> Field:
        space, _, name = element.get("TypeName", "").rpartition(":")
        builtin, structure = _BUILTIN.get(name, 0) if space in ("opc", "ua") else 0, ""
        states: dict[str, str] | None = None
        if not builtin:
            home = self if name in self._elements or self._standard is None else self._standard
            states = home.states(name)
            if states is None:
                builtin, structure = _BUILTIN["ExtensionObject"], home.structure(name)
                self.structures.update({n: one for n, one in home.structures.items() if home is not self})
            else:
                builtin = _BUILTIN["Int32"]
        return Field(
            name=field_name(element.get("Name")),
            builtin=builtin,
            structure=structure,
            rank=1 if element.get("LengthField") else 0,
            optional=optional and bool(element.get("SwitchField")),
            states=states or {},
        )

    def states(self, name: str) -> dict[str, str] | None:
        """Number → text of an enumeration; None if it is none."""
        element = self._elements.get(name)
        if element is None or _tag(element) != "EnumeratedType":
            return None
        if element.get("LengthInBits", "32") != "32":
            raise DictionaryError(f"the enumeration {name} has {element.get('LengthInBits')} bits")
        return {one.get("Value", ""): one.get("Name", "") for one in element if _tag(one) == "EnumeratedValue"}


class Found(msgspec.Struct, frozen=True):
    """A type that a dictionary describes.

    Attributes:
        encoding: NodeId of its binary encoding.
        name: of its structure.
        structures: it, and all that it is made of.
    """

    encoding: ua.NodeId
    name: str
    structures: dict[str, Structure]


class Dictionaries:
    """The dictionaries of one server, each read once."""

    def __init__(self) -> None:
        self._read: dict[str, Dictionary | None] = {}

    async def describe(self, session: UaSession, limits: CallLimits, types: Sequence[ua.NodeId]) -> list[Found | None]:
        """What dictionaries say of these DataTypes; None for one of which nothing can be read, which is logged.

        Raises:
            uaerrors.UaError: if the server does not answer.
        """
        encodings = [
            next((one.NodeId for one in found if one.BrowseName.Name == _BINARY), None)
            for found in await browse(session, types, limits, reference=_HAS_ENCODING)
        ]
        described = await self._one(session, limits, encodings, _HAS_DESCRIPTION, inverse=False)
        homes = await self._one(session, limits, described, _HAS_COMPONENT, inverse=True)
        wanted = [(node, AttributeIds.Value) for node in described if node is not None]
        names = iter([plain(value) for value in await read_values(session, wanted, limits)])
        found: list[Found | None] = []
        for encoding, node, home in zip(encodings, described, homes, strict=True):
            name = next(names) if node is not None else None
            found.append(None)
            if encoding is None or home is None or not isinstance(name, str):
                continue
            try:
                dictionary = await self._dictionary(session, limits, home)
                if dictionary is not None:
                    full = dictionary.structure(name)
                    found[-1] = Found(encoding, full, dictionary.structures)
            except DictionaryError as e:
                log.warning("opcua_dictionary_unread", dictionary=home.to_string(), type=name, reason=str(e))
        return found

    async def _dictionary(self, session: UaSession, limits: CallLimits, node: ua.NodeId) -> Dictionary | None:
        text = node.to_string()
        if text not in self._read:
            self._read[text] = None
            (value,) = await read_values(session, [(node, AttributeIds.Value)], limits)
            xml = plain(value)
            if not isinstance(xml, bytes) or not xml:
                raise DictionaryError("it is empty")
            standard = await self._dictionary(session, limits, _STANDARD) if node != _STANDARD and _uses(xml) else None
            self._read[text] = Dictionary(text, xml, standard)
        return self._read[text]

    @staticmethod
    async def _one(
        session: UaSession,
        limits: CallLimits,
        nodes: Sequence[ua.NodeId | None],
        reference: ua.NodeId,
        *,
        inverse: bool,
    ) -> list[ua.NodeId | None]:
        """What the first such reference of each leads to."""
        asked = [_plain_id(node) for node in nodes if node is not None]
        answers: Any = iter(await browse(session, asked, limits, reference=reference, inverse=inverse) if asked else [])
        found: list[ua.NodeId | None] = []
        for node in nodes:
            references = next(answers) if node is not None else ()
            found.append(_plain_id(references[0].NodeId) if references else None)
        return found


def _uses(xml: bytes) -> bool:
    """Whether a dictionary has types of namespace 0 that are not builtin."""
    names = {part.split(b'"', 1)[0] for part in xml.split(b'TypeName="ua:')[1:]}
    return bool(names - {name.encode() for name in _BUILTIN})


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _plain_id(node: ua.NodeId) -> ua.NodeId:
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)

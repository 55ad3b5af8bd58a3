"""What the server says of its DataTypes: the fields of structures, and the texts of enumerations.

Read at each session, because the namespaces of a NodeId may have moved.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import structlog
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua.attribute_ids import AttributeIds

from edge.sources.opcua.browse import HAS_SUBTYPE, CallLimits, browse, plain, read_values
from edge.sources.opcua.dictionaries import Dictionaries
from edge.sources.opcua.enumerations import read_enumerations, texts_of_fields
from edge.sources.opcua.structures import Field, Structure, Types, field_name

log = structlog.get_logger()

_HAS_ENCODING: Final = ua.NodeId(ua.Int32(38))
_MOST_TYPES: Final = 2000
_CHAIN: Final = 20  # supertypes
_ENUMERATION, _INT32, _STRUCTURE, _VARIANT = 29, 6, 22, 24
_ABSTRACT_NUMBERS: Final = frozenset({26, 27, 28})  # Number, Integer, UInteger: sent as a Variant
_KINDS: Final = {0: "plain", 1: "optional", 2: "union"}
_SUBTYPED: Final = {3: "plain", 4: "union"}


def text_of(node: ua.NodeId) -> str:
    """A NodeId or ExpandedNodeId as `Cursor.node_id_text` gives it."""
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType).to_string()


class DataTypes:
    """The DataTypes of one server, as far as somebody asked.

    Attributes:
        types: the structures.
        states: DataType → number → text, of enumerations.
        basis: DataType → number of its builtin type; 29 for an enumeration, 0 if it cannot be told.
    """

    def __init__(self) -> None:
        self.types = Types()
        self.states: dict[str, dict[str, str]] = {}
        self.basis: dict[str, int] = {}
        self._definitions: dict[str, Any] = {}
        self._asked: set[str] = set()
        self._dictionaries = Dictionaries()

    async def learn(self, session: UaSession, limits: CallLimits, wanted: Iterable[ua.NodeId]) -> None:
        """Read these DataTypes, and those that they are made of.

        Raises:
            uaerrors.UaError: if the server does not answer.
        """
        level = self._unknown(wanted)
        every = list(level)
        while level and len(self._definitions) < _MOST_TYPES:
            asked = [(node, AttributeIds.DataTypeDefinition) for node in level]
            for node, value in zip(level, await read_values(session, asked, limits), strict=True):
                self._definitions[text_of(node)] = plain(value)
            parts = [
                field.DataType
                for node in level
                if isinstance(found := self._definitions[text_of(node)], ua.StructureDefinition)
                for field in found.Fields or ()
            ]
            level = self._unknown(parts)
            every += level
        if level:
            log.error("opcua_types_cut", kept=_MOST_TYPES, what="values of further structures go to the dead letter")
        await self._find_bases(session, limits, every)
        for node in every:
            definition = self._definitions.get(text_of(node))
            if isinstance(definition, ua.EnumDefinition):
                self.states[text_of(node)] = texts_of_fields(definition.Fields or ())
        old = [n for n in every if self.basis.get(text_of(n)) == _ENUMERATION and not self.states.get(text_of(n))]
        self.states |= {text_of(n): found for n, found in (await read_enumerations(session, limits, old)).items()}
        for node in every:
            definition = self._definitions.get(text_of(node))
            if isinstance(definition, ua.StructureDefinition):
                self._add(text_of(node), definition)
        await self._look_into_dictionaries(session, limits, every)

    async def _look_into_dictionaries(self, session: UaSession, limits: CallLimits, nodes: Sequence[ua.NodeId]) -> None:
        """Structures without a DataTypeDefinition: before OPC UA 1.04 a dictionary says what is in them."""
        bare = [
            node
            for node in nodes
            if self._definitions.get(text_of(node)) is None and self.basis.get(text_of(node), 0) in (0, _STRUCTURE)
        ]
        if not bare:
            return
        for node, found in zip(bare, await self._dictionaries.describe(session, limits, bare), strict=True):
            if found is not None:
                self.basis[text_of(node)] = _STRUCTURE
                self.types.structures |= found.structures
                self.types.structures[text_of(node)] = found.structures[found.name]
                self.types.encodings[text_of(found.encoding)] = text_of(node)

    async def learn_encodings(self, session: UaSession, limits: CallLimits, encodings: Sequence[str]) -> None:
        """Read the DataTypes of structures that came, by the NodeIds of their encodings.

        Raises:
            uaerrors.UaError: if the server does not answer.
        """
        nodes = [ua.NodeId.from_string(text) for text in encodings]
        found = await browse(session, nodes, limits, reference=_HAS_ENCODING, inverse=True)
        types = {
            text: _local(references[0].NodeId) for text, references in zip(encodings, found, strict=True) if references
        }
        await self.learn(session, limits, types.values())
        for text, node in types.items():
            if text_of(node) in self.types.structures:
                self.types.encodings[text] = text_of(node)

    def _unknown(self, nodes: Iterable[ua.NodeId]) -> list[ua.NodeId]:
        """Those that were not asked for yet, once each; builtin types need no question."""
        found = {}
        for node in nodes:
            text = text_of(node)
            number = builtin_of(node)
            if number:
                self.basis[text] = number
            elif text not in self._asked:
                found[text] = _local(node)
        self._asked.update(found)
        return list(found.values())

    async def _find_bases(self, session: UaSession, limits: CallLimits, nodes: Sequence[ua.NodeId]) -> None:
        """Follow supertypes to a builtin type, where the definition does not say it."""
        at: dict[str, ua.NodeId] = {}
        for node in nodes:
            definition = self._definitions.get(text_of(node))
            if isinstance(definition, ua.StructureDefinition):
                self.basis[text_of(node)] = _STRUCTURE
            else:
                at[text_of(node)] = node
        for _ in range(_CHAIN):
            if not at:
                return
            above = await browse(session, list(at.values()), limits, reference=HAS_SUBTYPE, inverse=True)
            following = {}
            for text, references in zip(at, above, strict=True):
                if not references:
                    self.basis[text] = 0
                    continue
                parent = _local(references[0].NodeId)
                known = builtin_of(parent) or self.basis.get(text_of(parent), 0)
                if known:
                    self.basis[text] = known
                else:
                    following[text] = parent
            at = following

    def _add(self, text: str, definition: ua.StructureDefinition) -> None:
        kind = int(definition.StructureType)
        subtyped = kind in _SUBTYPED
        name = _KINDS.get(kind) or _SUBTYPED.get(kind)
        if name is None:
            log.warning("opcua_type_unknown", type=text, kind=kind)
            return
        fields = tuple(self._field(field, subtyped=subtyped, union=kind in (2, 4)) for field in definition.Fields or ())
        structure = Structure(name=text, kind=name, fields=fields)  # type: ignore[arg-type]  # of the two tables above
        self.types.structures[text] = structure
        encoding = definition.DefaultEncodingId
        if encoding is not None and not encoding.is_null():
            self.types.encodings[text_of(encoding)] = text

    def _field(self, field: ua.StructureField, *, subtyped: bool, union: bool) -> Field:
        """How a field is on the wire."""
        text = text_of(field.DataType)
        basis = self.basis.get(text, 0)
        known = isinstance(self._definitions.get(text), ua.StructureDefinition)
        builtin, structure = basis, text if basis == _STRUCTURE and known else ""
        if basis == _ENUMERATION:
            builtin = _INT32
        elif basis in _ABSTRACT_NUMBERS:
            builtin = _VARIANT
        optional = bool(field.IsOptional)
        if subtyped and optional:  # OPC 10000-3, 8.49: it may be of a subtype, and so says itself what it is
            builtin, structure = (_STRUCTURE, "") if basis == _STRUCTURE else (_VARIANT, "")
        return Field(
            name=field_name(field.Name),
            builtin=builtin,
            structure=structure,
            rank=max(int(field.ValueRank), 0),
            optional=optional and not subtyped and not union,
            states=self.states.get(text, {}),
        )


def builtin_of(node: ua.NodeId) -> int:
    """The number of a builtin type, of Enumeration (29) or of an abstract number (26 to 28); 0 for another."""
    number = node.Identifier
    if node.NamespaceIndex or not isinstance(number, int) or not 0 < number <= _ENUMERATION:
        return 0
    return int(number)


def _local(node: ua.NodeId) -> ua.NodeId:
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)

"""NodeIds as text, and what they are on this server now: the index of a namespace may change at every server start."""

import base64
import binascii
import re
import uuid
from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import unquote

import msgspec
from asyncua import ua

# OPC 10000-6, 5.3.1.10: nsu=<uri>;<type>=<value> or ns=<index>;<type>=<value>
_TEXT = re.compile(r"(?:nsu=(?P<uri>.+?);|ns=(?P<index>\d+);)?(?P<type>[isgb])=(?P<id>.+)", re.DOTALL)


# OPC 10000-6, 5.1.14: nsu=<uri>;<name>, <index>:<name>. With a colon behind the URI, the name may hold no colon.
_SEGMENT = re.compile(
    r"(?:nsu=(?P<uri>[^;]+?)(?:;|:(?=[^/:;]+(?:/|$)))|(?P<index>\d{1,5}):)?(?P<name>(?:&.|[^/&])+)(?:/|$)"
)
_ROOT = 84


class UnknownNamespaceError(Exception):
    """The server has no such namespace now."""


class Segment(msgspec.Struct, frozen=True):
    """A browse name in a path.

    Attributes:
        uri: URI of its namespace; empty if it was written by index or without.
        index: the namespace's index; -1 if it was written without.
        name: the name, or a glob.
        wild: whether it is a glob.
    """

    uri: str
    index: int
    name: str
    wild: bool

    @property
    def anywhere(self) -> bool:
        """Whether no namespace was written."""
        return not self.uri and self.index < 0

    def resolve(self, namespaces: Sequence[str]) -> int:
        """The index of its namespace now; 0 where none was written.

        Raises:
            UnknownNamespaceError: if the server has no such namespace.
        """
        return _namespace(self.uri, max(self.index, 0), namespaces)


def _namespace(uri: str, index: int, namespaces: Sequence[str]) -> int:
    if uri:
        if uri in namespaces:
            return namespaces.index(uri)
        raise UnknownNamespaceError(f"the server has no namespace {uri}; it has {', '.join(namespaces)}")
    if index >= len(namespaces):
        raise UnknownNamespaceError(f"the server has no namespace {index}; it has {len(namespaces)}")
    return index


def _path(text: str) -> tuple[Segment, ...]:
    """Read `/name/nsu=URI;name/2:name`.

    Raises:
        ValueError: if it is none.
    """
    found = []
    at = 1
    while at < len(text):
        match = _SEGMENT.match(text, at)
        if match is None:
            raise ValueError(f"node {text!r}: {text[at:][:40]!r} must look like NAME, 2:NAME or nsu=URI;NAME")
        name = match["name"]
        wild = re.search(r"(?<!&)[*?]", name) is not None
        plain = re.sub(r"&(.)", r"\1", name)
        index = int(match["index"]) if match["index"] else -1
        found.append(Segment(unquote(match["uri"] or ""), index, plain, wild))
        at = match.end()
    if not found or text.endswith("/"):
        raise ValueError(f"node {text!r} must name a node, such as /Objects/nsu=URI;Machine/nsu=URI;Load")
    return tuple(found)


class NodeAddress(msgspec.Struct, frozen=True):
    """A NodeId as it was written, or the start of a browse path.

    Attributes:
        uri: the namespace's URI; empty if it was written by index.
        index: the namespace's index, where no URI was given.
        identifier: number, text, GUID or bytes.
        path: browse names from that node on; none if the node itself is meant.
        text: what was written.
    """

    uri: str
    index: int
    identifier: int | str | uuid.UUID | bytes
    path: tuple[Segment, ...] = ()
    text: str = ""

    @classmethod
    def parse(cls, text: str, start: str = "") -> Self:
        """Read `nsu=URI;s=…`, `ns=2;s=…`, `i=…` and their kin; or a path, from Root or from the node `start` on.

        Raises:
            ValueError: if it is none of them.
        """
        if text.startswith("/"):
            begin = cls.parse(start) if start else cls("", 0, _ROOT)
            if begin.path:
                raise ValueError(f"start {start!r} must be a NodeId")
            return cls(begin.uri, begin.index, begin.identifier, _path(text), text)
        if start:
            raise ValueError(f"node {text!r} must be a path such as /nsu=URI;Load, where `start` or `type` is given")
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"node {text!r} must look like nsu=URI;s=NAME (or ns=2;i=1001)")
        index = int(match["index"] or 0)
        if index > 0xFFFF:
            raise ValueError(f"node {text!r}: a namespace index is at most 65535")
        return cls(unquote(match["uri"] or ""), index, _identifier(match["type"], match["id"], text), (), text)

    @property
    def by_index(self) -> bool:
        """Whether it depends on the order of the server's namespaces."""
        return (not self.uri and self.index > 0) or any(segment.index > 0 for segment in self.path)

    def resolve(self, namespaces: Sequence[str]) -> ua.NodeId:
        """The NodeId (of a path: of its start) on a server whose NamespaceArray is `namespaces`.

        Raises:
            UnknownNamespaceError: if the server has no such namespace.
        """
        index = _namespace(self.uri, self.index, namespaces)
        kinds = {
            int: ua.NodeIdType.Numeric,
            str: ua.NodeIdType.String,
            uuid.UUID: ua.NodeIdType.Guid,
            bytes: ua.NodeIdType.ByteString,
        }
        identifier: Any = self.identifier  # asyncua's types are its own subclasses of these
        return ua.NodeId(identifier, ua.Int16(index), kinds[type(self.identifier)])


def _identifier(kind: str, text: str, whole: str) -> int | str | uuid.UUID | bytes:
    if kind == "i":
        if not text.isdecimal() or int(text) >= 2**32:
            raise ValueError(f"node {whole!r}: what follows i= must be a number below 2^32")
        return int(text)
    try:
        if kind == "g":
            return uuid.UUID(text)
        if kind == "b":
            return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        what = {"g": "a GUID", "b": "base64"}[kind]
        raise ValueError(f"node {whole!r}: what follows {kind}= must be {what}") from None
    return text

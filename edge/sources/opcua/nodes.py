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


class UnknownNamespaceError(Exception):
    """The server has no such namespace now."""


class NodeAddress(msgspec.Struct, frozen=True):
    """A NodeId as it was written.

    Attributes:
        uri: the namespace's URI; empty if it was written by index.
        index: the namespace's index, where no URI was given.
        identifier: number, text, GUID or bytes.
    """

    uri: str
    index: int
    identifier: int | str | uuid.UUID | bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `nsu=URI;s=…`, `ns=2;s=…`, `i=…` and their kin.

        Raises:
            ValueError: if it is none of them.
        """
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"node {text!r} must look like nsu=URI;s=NAME (or ns=2;i=1001)")
        index = int(match["index"] or 0)
        if index > 0xFFFF:
            raise ValueError(f"node {text!r}: a namespace index is at most 65535")
        return cls(unquote(match["uri"] or ""), index, _identifier(match["type"], match["id"], text))

    @property
    def by_index(self) -> bool:
        """Whether it depends on the order of the server's namespaces."""
        return not self.uri and self.index > 0

    def resolve(self, namespaces: Sequence[str]) -> ua.NodeId:
        """The NodeId on a server whose NamespaceArray is `namespaces`.

        Raises:
            UnknownNamespaceError: if the server has no such namespace.
        """
        if self.uri:
            try:
                index = namespaces.index(self.uri)
            except ValueError:
                known = ", ".join(namespaces)
                raise UnknownNamespaceError(f"the server has no namespace {self.uri}; it has {known}") from None
        else:
            index = self.index
            if index >= len(namespaces):
                raise UnknownNamespaceError(f"the server has no namespace {index}; it has {len(namespaces)}")
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

"""Browse paths: names instead of NodeIds, and wildcards that stand for several nodes.

`/Objects/nsu=URI;Machines/nsu=URI;cnc-07/nsu=URI;Load`: a name without a namespace is of namespace 0, `2:Name` of the
namespace with that index now. A segment with `*` or `?` stands for every object or variable that fits; without a
namespace it fits any. `&/` is a slash within a name (the escape of OPC 10000-4, A.2).
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec
import structlog
from asyncua import ua
from asyncua.client.ua_session import UaSession

from edge.proposal import clean_name
from edge.sources.opcua.browse import HAS_SUBTYPE, HIERARCHICAL, CallLimits, browse, in_batches, node_text, read_limits
from edge.sources.opcua.config import OpcuaConfig, OpcuaSignal
from edge.sources.opcua.nodes import NodeAddress, Segment, UnknownNamespaceError

log = structlog.get_logger()

_OBJECTS: Final = ua.NodeId(ua.Int32(85))
_HOLDING: Final = ua.NodeClass.Object | ua.NodeClass.Variable
_MOST: Final = 10_000  # nodes that a wildcard may stand for, and that are looked at for a type
_DEEPEST: Final = 12


async def resolve_all(
    session: UaSession, namespaces: Sequence[str], addresses: Mapping[int, NodeAddress]
) -> dict[int, ua.NodeId | str]:
    """What each address is on this server now: its NodeId, or why there is none. Paths are translated in batches."""
    found: dict[int, ua.NodeId | str] = {}
    asked: list[tuple[int, ua.BrowsePath]] = []
    for key, address in addresses.items():
        try:
            start = address.resolve(namespaces)
            if not address.path:
                found[key] = start
                continue
            path = ua.BrowsePath(StartingNode=start)
            path.RelativePath.Elements = [_element(segment, namespaces) for segment in address.path]
            asked.append((key, path))
        except UnknownNamespaceError as e:
            found[key] = str(e)
    if asked:
        limits = await read_limits(session)
        results = await in_batches([p for _, p in asked], limits.translate, session.translate_browsepaths_to_nodeids)
        for (key, _), result in zip(asked, results, strict=True):
            whole = [t.TargetId for t in result.Targets or () if t.RemainingPathIndex == 0xFFFFFFFF]
            if not result.StatusCode.is_good() or not whole:
                found[key] = f"no node at {addresses[key].text} ({result.StatusCode.name})"
            elif len(whole) > 1:
                found[key] = f"{len(whole)} nodes at {addresses[key].text}: write the NodeId of the one that is meant"
            else:
                found[key] = ua.NodeId(whole[0].Identifier, whole[0].NamespaceIndex, whole[0].NodeIdType)
    return found


def _element(segment: Segment, namespaces: Sequence[str]) -> ua.RelativePathElement:
    no: Any = False  # asyncua's Boolean is no bool for mypy
    yes: Any = True
    return ua.RelativePathElement(
        ReferenceTypeId=HIERARCHICAL,
        IsInverse=no,
        IncludeSubtypes=yes,
        TargetName=ua.QualifiedName(segment.name, segment.resolve(namespaces)),
    )


class Wildcards:
    """The signals of a table that stand for several nodes, and what they stood for so far.

    Attributes:
        literal: the table without them; signals are only ever appended, so that a client handle keeps its meaning.
        wrong: pattern → what is wrong with it, found at the last expansion.
    """

    def __init__(self, config: OpcuaConfig) -> None:
        self.patterns = tuple(s for s in config.signal if is_pattern(s))
        self.literal = msgspec.structs.replace(config, signal=tuple(s for s in config.signal if not is_pattern(s)))
        self.wrong: dict[str, str] = {}
        self._fixed = len(self.literal.signal)
        self._place = {(s.machine, s.name): i for i, s in enumerate(self.literal.signal)}

    async def expand(self, session: UaSession, namespaces: Sequence[str]) -> OpcuaConfig:
        """The table with every signal that was ever found, each with the NodeId that it has now."""
        if not self.patterns:
            return self.literal
        limits = await read_limits(session)
        signals = list(self.literal.signal)
        taken = {(s.machine, s.name) for s in signals[: self._fixed]}
        self.wrong = {}
        for pattern in self.patterns:
            try:
                found = await _expand(session, namespaces, pattern, limits)
            except UnknownNamespaceError as e:
                self.wrong[pattern.node] = str(e)
                continue
            if not found:
                self.wrong[pattern.node] = "nothing on the server fits"
            for signal in found:
                if (signal.machine, signal.name) in taken:
                    self.wrong[pattern.node] = (
                        f"{signal.machine}/{signal.name} stands for several nodes: use more of {{1}}"
                    )
                    continue
                taken.add((signal.machine, signal.name))
                at = self._place.setdefault((signal.machine, signal.name), len(signals))
                if at == len(signals):
                    signals.append(signal)
                elif at >= self._fixed:  # a signal with a node of its own in the table stays as it is
                    signals[at] = signal
        for node, why in self.wrong.items():
            log.error("opcua_wildcard", node=node, reason=why)
        self.literal = msgspec.structs.replace(self.literal, signal=tuple(signals))
        return self.literal


def is_pattern(signal: OpcuaSignal) -> bool:
    """Whether a signal may stand for several nodes."""
    return bool(signal.type) or any(s.wild for s in NodeAddress.parse(signal.node, signal.start).path)


async def _expand(
    session: UaSession, namespaces: Sequence[str], pattern: OpcuaSignal, limits: CallLimits
) -> list[OpcuaSignal]:
    """The signals that a pattern stands for now, in the server's order."""
    address = NodeAddress.parse(pattern.node, pattern.start)
    ends: list[tuple[ua.NodeId, tuple[str, ...], bool]]
    if pattern.type:
        wanted = NodeAddress.parse(pattern.type).resolve(namespaces)
        ends = [(node, (name,), True) for node, name in await _instances(session, wanted, limits)]
    else:
        ends = [(address.resolve(namespaces), ("",), True)]
    for segment in address.path:
        index = None if segment.wild and segment.anywhere else segment.resolve(namespaces)
        lists = await browse(session, [node for node, _, _ in ends], limits, classes=_HOLDING)
        following = []
        seen: set[str] = set()
        for (_, words, _), references in zip(ends, lists, strict=True):
            for reference in references:
                name = reference.BrowseName.Name or ""
                fits = fnmatchcase(name, segment.name) if segment.wild else name == segment.name
                if fits and index in (None, reference.BrowseName.NamespaceIndex):
                    node = ua.NodeId(
                        reference.NodeId.Identifier, reference.NodeId.NamespaceIndex, reference.NodeId.NodeIdType
                    )
                    if node.to_string() in seen:
                        continue
                    seen.add(node.to_string())
                    kept = (*words, name) if segment.wild else words
                    following.append((node, kept, reference.NodeClass == ua.NodeClass.Variable))
        ends = following[:_MOST]
        if len(following) > _MOST:
            log.error("opcua_wildcard_cut", node=pattern.node, found=len(following), kept=_MOST)
    return [_named(pattern, node_text(node, namespaces), words) for node, words, variable in ends if variable]


def _named(pattern: OpcuaSignal, node: str, words: Sequence[str]) -> OpcuaSignal:
    """The signal of one node: `{0}` is the instance's name, `{1}` what the first wildcard fits, and so on."""

    def fill(template: str) -> str:
        return re.sub(r"\{(\d)\}", lambda m: clean_name(words[int(m[1])]) if int(m[1]) < len(words) else m[0], template)

    return msgspec.structs.replace(
        pattern, node=node, start="", type="", name=fill(pattern.name), machine=fill(pattern.machine)
    )


async def _instances(session: UaSession, wanted: ua.NodeId, limits: CallLimits) -> list[tuple[ua.NodeId, str]]:
    """(node, browse name) of every object below Objects whose type is `wanted` or a subtype."""
    types = {wanted.to_string()}
    level = [wanted]
    while level and len(types) < _MOST:
        lists = await browse(session, level, limits, reference=HAS_SUBTYPE)
        level = [_plain(r.NodeId) for references in lists for r in references]
        types |= {node.to_string() for node in level}
    found: list[tuple[ua.NodeId, str]] = []
    seen: set[str] = set()
    level = [_OBJECTS]
    for _ in range(_DEEPEST):
        lists = await browse(session, level, limits, classes=ua.NodeClass.Object)
        level = []
        for reference in (r for references in lists for r in references):
            node = _plain(reference.NodeId)
            if node.to_string() in seen or node.to_string() == "i=2253" or len(seen) >= _MOST:
                continue
            seen.add(node.to_string())
            level.append(node)
            if _plain(reference.TypeDefinition).to_string() in types:
                found.append((node, reference.BrowseName.Name or ""))
        if not level:
            break
    return found


def _plain(node: ua.NodeId) -> ua.NodeId:
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)

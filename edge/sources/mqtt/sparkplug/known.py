"""The edge nodes that are known, and how they are kept on disk."""

from collections.abc import Callable

import structlog

from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.sparkplug.memory import Change, Memory
from edge.sources.mqtt.sparkplug.message import One
from edge.sources.mqtt.sparkplug.naming import Places, parse
from edge.sources.mqtt.sparkplug.nodes import Branch, Node, NodeRecord
from edge.sources.mqtt.sparkplug.reading import Reader
from edge.sources.mqtt.sparkplug.tables import Table
from edge.sources.mqtt.sparkplug.waiting import Waiting
from fieldlab.model import Guarantee
from fieldlab.model.signal import TooManySignalsError

_log = structlog.get_logger()
_NODES_MAX = 10_000
_DEVICES_MAX = 10_000  # behind one edge node


class Known:
    """Edge nodes by group and name.

    Attributes:
        nodes: (group, node) → what is known.

    Args:
        places: gives machines.
        memory: where they are kept.
        waiting: messages that wait, which are kept with them.
        reader: gives their signals numbers.
        sure: the guarantee of a signal, by the QoS of its messages.
    """

    def __init__(
        self, places: Places, memory: Memory, waiting: Waiting, reader: Reader, sure: Callable[[int], Guarantee]
    ) -> None:
        self.nodes: dict[tuple[str, str], Node] = {}
        self._places, self._memory, self._waiting, self._reader, self._sure = places, memory, waiting, reader, sure
        self._dirty: dict[tuple[str, str], None] = {}
        self._unsaved = False  # whether a checkpoint failed

    def changed(self, node: Node) -> None:
        """`node` must be kept anew."""
        self._dirty[node.key] = None

    def node(self, one: One) -> Node:
        """The edge node that a message is about.

        Raises:
            Ignored: if the template takes none of its machines.
            ValueError: if there are too many, or a name cannot be a level of a path.
        """
        key = (one.name.group, one.name.node)
        found = self.nodes.get(key)
        if found is None:
            if len(self.nodes) >= _NODES_MAX:
                raise ValueError(f"more than {_NODES_MAX} edge nodes")
            self._places.of(*key, one.name.device)  # one that is not for us is not remembered
            found = self.nodes[key] = Node(key)
        return found

    def branch(self, node: Node, device: str) -> Branch:
        """A device of an edge node, or (empty) the node itself.

        Raises:
            Ignored: if the template does not take it.
            ValueError: if there are too many, or it cannot be a machine of its own.
        """
        found = node.branches.get(device)
        if found is None:
            if len(node.branches) > _DEVICES_MAX:
                raise ValueError(f"more than {_DEVICES_MAX} devices behind edge node {'/'.join(node.key)}")
            found = node.branches[device] = Branch(device, self._places.of(*node.key, device))
        return found

    def checkpoint(self) -> Callable[[], None] | None:
        """See `Keeper`."""
        added, released = self._waiting.changes()
        if not (self._dirty or added or released or self._unsaved):
            return None
        everything = self._unsaved
        nodes = list(self.nodes.values()) if everything else [self.nodes[key] for key in self._dirty]
        held = [each for node in nodes for each in node.held.values()] if everything else added
        change = Change([node.record() for node in nodes], held, released, everything)
        self._dirty.clear()

        def save() -> None:
            self._unsaved = True
            self._memory.save(change)
            self._unsaved = False

        return save

    def load(self) -> None:
        """Take up what an earlier process knew."""
        nodes, held = self._memory.load()
        for record in nodes:
            self._take_up(record)
        for each_held in held:
            told = parse(each_held.topic)
            node = self.nodes.setdefault((told.group, told.node), Node((told.group, told.node)))
            node.trusted = False  # what waits is decided by a birth
            self._waiting.take_up(node, hash((each_held.topic, each_held.payload)), each_held)
        if nodes or held:
            _log.info("sparkplug_taken_up", nodes=len(nodes), waiting=len(held))

    def _take_up(self, record: NodeRecord) -> None:
        node = self.nodes[record.group, record.node] = Node((record.group, record.node))
        node.bdseq, node.birth_qos = record.bdseq, record.birth_qos
        node.online, node.trusted = record.online, record.trusted
        for each in record.branches:
            try:
                branch = self.branch(node, each.device)
                for name in each.signals:
                    self._reader.index(branch, name, self._sure(record.birth_qos))
            except (ValueError, Ignored, TooManySignalsError) as e:
                _log.warning("sparkplug_machine_not_taken_up", node=record.node, device=each.device, reason=str(e))
                continue
            branch.online, branch.born = each.online, each.born
            branch.table = None if each.entries is None else Table(each.entries)

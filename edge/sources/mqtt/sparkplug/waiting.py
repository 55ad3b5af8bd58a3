"""Messages that wait: for one before them, or for a birth certificate. Bounded in number, bytes and time."""

from collections.abc import Callable

from edge.sources.mqtt.sparkplug.message import One
from edge.sources.mqtt.sparkplug.naming import parse
from edge.sources.mqtt.sparkplug.nodes import Held, Node

MOST = 5_000  # messages
OCTETS = 8_000_000
_TOPIC_OCTETS = 200  # beside its payload


class Waiting:
    """The messages that wait, of all edge nodes.

    Args:
        clock: seconds.
        reorder: how long a message waits for those before it, s.
        patience: how long one waits for a birth certificate, s.
    """

    def __init__(self, clock: Callable[[], float], reorder: float, patience: float) -> None:
        self._clock, self._reorder, self._patience = clock, reorder, patience
        self._nodes: dict[tuple[str, str], Node] = {}  # that have any
        self._octets = 0
        self._count = 0
        self._number = 0
        self._added: dict[int, Held] = {}
        self._released: list[int] = []

    def __len__(self) -> int:
        return self._count

    def add(self, node: Node, mark: int, one: One, *, late: bool) -> list[tuple[Held, str]]:
        """Let a message wait.

        Returns:
            Messages that had to give way, oldest of this edge node first, with the reason.
        """
        self._number += 1
        body = one.body
        held = Held(
            self._number, one.topic, one.payload, one.arrival, one.qos, body.seq, body.time, late, self._clock()
        )
        self._put(node, mark, held)
        self._added[held.number] = held
        dropped: list[tuple[Held, str]] = []
        while (self._count > MOST or self._octets > OCTETS) and node.held:
            oldest = next(iter(node.held.values()))
            self.drop(node, oldest)
            dropped.append((oldest, f"more than {MOST} messages, or {OCTETS} bytes, wait for birth certificates"))
        return dropped

    def take_up(self, node: Node, mark: int, held: Held) -> None:
        """Let a message of an earlier process wait on."""
        self._number = max(self._number, held.number)
        held.since, held.late = self._clock(), True
        self._put(node, mark, held)

    def _put(self, node: Node, mark: int, held: Held) -> None:
        node.held[mark] = held
        self._nodes[node.key] = node
        self._count += 1
        self._octets += len(held.payload) + _TOPIC_OCTETS
        if not held.late and node.early_since is None:
            node.early_since = held.since

    def drop(self, node: Node, held: Held) -> None:
        """`held` waits no more."""
        mark = next((m for m, each in node.held.items() if each is held), None)
        if mark is None:
            return
        del node.held[mark]
        self._count -= 1
        self._octets -= len(held.payload) + _TOPIC_OCTETS
        if self._added.pop(held.number, None) is None:
            self._released.append(held.number)
        if not node.held:
            self._nodes.pop(node.key, None)
        if all(each.late for each in node.held.values()):
            node.early_since = None

    def next(self, node: Node) -> Held | None:
        """The message whose turn it is, taken out."""
        if not node.trusted or node.expected is None:
            return None
        found = next((h for h in node.held.values() if not h.late and h.seq == node.expected), None)
        if found is not None:
            self.drop(node, found)
            node.early_since = self._clock() if node.early_since is not None else None
        return found

    def before(self, node: Node, born: int | None) -> list[Held]:
        """What an edge node said before it was born, `born` in ms; what it said after it waits for its turn."""
        found = []
        for held in node.held.values():
            if held.time is None or born is None or held.time < born:
                found.append(held)
            elif held.late:
                held.late = False
                node.early_since = self._clock() if node.early_since is None else node.early_since
        return found

    def late(self, node: Node, device: str) -> list[Held]:
        """What a device said that only its birth certificate can explain."""
        return [h for h in node.held.values() if h.late and parse(h.topic).device == device]

    def delay(self, node: Node, held: Held) -> None:
        """Let `held` wait for the birth certificate of its device."""
        held.late = True
        if all(each.late for each in node.held.values()):
            node.early_since = None

    def overdue(self) -> list[Node]:
        """Edge nodes whose missing message did not come in time."""
        if not self._nodes:
            return []
        now = self._clock()
        return [
            node
            for node in self._nodes.values()
            if node.trusted and node.early_since is not None and now - node.early_since > self._reorder
        ]

    def missing(self, node: Node) -> int:
        """How many messages are missing before the first that waits for them, as far as sequence numbers tell."""
        steps = [
            (h.seq - node.expected) & 255
            for h in node.held.values()
            if not h.late and h.seq is not None and node.expected is not None
        ]
        return min(steps, default=0)

    def first_early(self, node: Node) -> Held | None:
        """The first of those that came too early, by arrival."""
        return min((h for h in node.held.values() if not h.late), key=lambda h: h.arrival, default=None)

    def give_up_order(self, node: Node) -> None:
        """Only a birth certificate can release what waits."""
        for held in node.held.values():
            held.late = True
        node.early_since = None

    def expired(self) -> list[Held]:
        """Messages that waited too long, taken out."""
        if not self._nodes:
            return []
        now = self._clock()
        found = [
            (node, h) for node in self._nodes.values() for h in node.held.values() if now - h.since > self._patience
        ]
        for node, held in found:
            self.drop(node, held)
        return [held for _, held in found]

    def changes(self) -> tuple[list[Held], list[int]]:
        """Messages that wait since the last time, and numbers of those that do not any more."""
        added, released = list(self._added.values()), self._released
        self._added, self._released = {}, []
        return added, released

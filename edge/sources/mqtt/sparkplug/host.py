"""The host application: births, data and deaths of edge nodes, in their order → readings.

Data has aliases in place of names; only the birth certificate in force says what they are. So data is read when it is
surely explained by the one that we have, and kept back otherwise, until a birth certificate comes that proves it:
nothing is guessed, and nothing is dropped. Rules: Eclipse Sparkplug 3.0.0, chapters 5 and 6.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import structlog

from edge.sources.base import SourceContext
from edge.sources.mqtt.config import MqttConfig
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.formats import Signals
from edge.sources.mqtt.keeper import Keeper, Rejected
from edge.sources.mqtt.rows import Rows
from edge.sources.mqtt.sparkplug.memory import Change, Memory
from edge.sources.mqtt.sparkplug.naming import DEFAULT_TOPIC, NAMESPACE, Places, Topic, parse
from edge.sources.mqtt.sparkplug.nodes import Branch, Held, Node
from edge.sources.mqtt.sparkplug.payload import Payload, decode
from edge.sources.mqtt.sparkplug.reading import Reader, Reading
from edge.sources.mqtt.sparkplug.rebirths import Rebirths
from edge.sources.mqtt.sparkplug.state import HostState
from edge.sources.mqtt.sparkplug.tables import Table
from edge.sources.mqtt.sparkplug.waiting import Waiting
from edge.sources.mqtt.speaker import Message, Speaker
from fieldlab.model import Guarantee, SignalKey
from fieldlab.model.signal import TooManySignalsError
from fieldlab.model.status import BAD_NO_COMMUNICATION

_log = structlog.get_logger()
_NODES_MAX = 10_000
_DEVICES_MAX = 10_000  # behind one edge node
_SEEN = 4096  # messages remembered, at least, to know them when they come again
_COUNTERS = (
    "births deaths late_deaths held reordered gaps missed repeated rejected superseded skipped mismatched retyped "
    "unborn absurd_times historical transient rebirths_asked"
)
_UNPROVEN = (
    "data without the birth certificate that was in force: its aliases cannot be told; the edge node was asked for a "
    "new one"
)


class One(NamedTuple):
    """A message, read as far as it can be without a birth certificate."""

    topic: bytes
    payload: bytes
    arrival: int
    qos: int
    name: Topic
    body: Payload
    mark: int

    @classmethod
    def of(cls, topic: bytes, payload: bytes, arrival: int, qos: int) -> "One":
        """Parse it.

        Raises:
            Ignored: if it is not for a host.
            ValueError: if it is not Sparkplug B.
        """
        name = parse(topic)
        return cls(topic, payload, arrival, qos, name, decode(payload), hash((topic, payload)))


class HostDialect(Speaker, Keeper):
    """The dialect `sparkplug`; see `Dialect`, `Speaker` and `Keeper`.

    Args:
        config: the source's table.
        context: the agent.
        signals: gives signals their numbers.
        clock: seconds, for what waits.
    """

    def __init__(
        self,
        config: MqttConfig,
        context: SourceContext,
        signals: Signals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config.sparkplug
        self._persistent = config.session == "persistent"
        self._guarantee: Guarantee = config.guarantee if self._persistent else "from-receipt"
        self._totals: Counter[str] = Counter(dict.fromkeys(_COUNTERS.split(), 0))
        self._reader = Reader(signals, self._totals)
        defaults = {"site": context.site, "area": context.area, "line": context.line, "machine": config.machine}
        self._places = Places(topic_of(config), defaults)
        self._state = HostState(config.sparkplug.host_id or context.agent, config.sparkplug.state, clock)
        self._rebirths = Rebirths(clock)
        self._waiting = Waiting(clock, config.sparkplug.reorder, config.sparkplug.patience)
        self._memory = Memory(context.data / f"{context.name}.sparkplug")
        self._clock = clock
        self._nodes: dict[tuple[str, str], Node] = {}
        self._seen: OrderedDict[int, Table | tuple[int, ...]] = OrderedDict()
        self._seen_max = max(_SEEN, 2 * config.in_flight)
        self._loaded = False
        self._fresh = True  # whether this process has not greeted yet
        self._state_due = False
        self._dirty: dict[tuple[str, str], None] = {}
        self._unsaved = False  # whether a checkpoint failed
        self._rejected: list[Rejected] = []

    @property
    def counters(self) -> dict[str, int]:
        """Named totals, beside those of every source."""
        waiting = {"waiting": len(self._waiting), "nodes_online": sum(n.online for n in list(self._nodes.values()))}
        return {**self._totals, **waiting, "rebirths_asked": self._rebirths.asked}

    # ---- what the source asks ----

    def read(self, topic: bytes, payload: bytes, arrival: int, rows: Rows, *, retained: bool, qos: int) -> int:
        """As in `Dialect`."""
        if topic == self._state.topic.encode():
            self._state_due |= self._config.primary and self._state.heard(payload)
            raise Ignored("ignored")
        if retained:  # Sparkplug retains nothing but STATE: what an edge node said long ago is not its state now
            raise Ignored("ignored")
        one = One.of(topic, payload, arrival, qos)
        node = self._node(one)
        error: Exception | None = None
        readings: list[Reading] = []
        released: list[Reading] = []
        try:
            readings = self._take(node, one, released)
        except (ValueError, TooManySignalsError) as e:
            error = e
        released += self._in_turn(node)
        if error is not None:
            if not released:
                raise error
            self._reject(one.topic, one.payload, one.arrival, str(error))
        for each in (*readings, *released):
            (rows.past if each.past else rows).add(each.signal, each.time, each.value, each.status)
        return len(readings) + len(released)

    def place_of(self, topic: bytes) -> SignalKey | None:
        """As in `Dialect`; a topic names a machine and no signal."""
        del topic
        return None

    # ---- births, data, deaths ----

    def _take(self, node: Node, one: One, released: list[Reading]) -> list[Reading]:
        kind, seq = one.name.kind, one.body.seq
        if kind == "NBIRTH":
            return self._node_birth(node, one, released)
        if kind == "NDEATH":
            return self._node_death(node, one)
        if one.mark in node.held:
            self._totals["repeated"] += 1
            raise Ignored("held")
        if node.trusted and (seq is None or node.expected is None or seq == node.expected):
            return self._in_order(node, one, released)
        if one.mark in self._seen:
            return self._again(node, one)
        branch = node.branches.get(one.name.device)
        if branch is not None and branch.table is not None and self._was_committed(node, branch, one):
            return self._once_more(node, branch, branch.table, one, released)
        if not node.trusted:
            self._want(node)
        self._hold(node, one, late=not node.trusted)
        raise Ignored("held")

    def _in_order(self, node: Node, one: One, released: list[Reading]) -> list[Reading]:
        """The message that was to come next."""
        body, kind, device = one.body, one.name.kind, one.name.device
        if body.seq is not None:
            node.expected = (body.seq + 1) & 255
        if kind == "DBIRTH":
            return self._device_birth(node, one, released)
        branch = self._branch(node, device)
        if kind == "DDEATH":
            return self._device_death(node, branch, one)
        if branch.table is None or not branch.online or branch.table.unknown(body) is not None:
            self._want(node)
            self._hold(node, one, late=True)
            raise Ignored("held")
        self._note(one, branch.table)
        return self._reader.read(branch, branch.table, body, one.arrival, self._sure(one.qos), birth=False)

    def _again(self, node: Node, one: One) -> list[Reading]:
        """A message that came before: what it meant then. The journal knows whether it has it."""
        self._totals["repeated"] += 1
        meant = self._seen[one.mark]
        branch = self._branch(node, one.name.device)
        if isinstance(meant, Table):
            birth = one.name.kind == "DBIRTH"
            return self._reader.read(branch, meant, one.body, one.arrival, self._sure(one.qos), birth=birth)
        return _gone(meant, self._death_time(one))

    def _was_committed(self, node: Node, branch: Branch, one: One) -> bool:
        """Whether an earlier process surely read this message: the broker sends again what it knew before a restart."""
        told = one.body.time is not None and branch.born is not None
        return self.redelivered and one.qos > 0 and node.birth_qos > 0 and told

    def _once_more(self, node: Node, branch: Branch, table: Table, one: One, released: list[Reading]) -> list[Reading]:
        """A message that came before this process, out of its turn now.

        If it is older than the last birth, it was in the journal before that birth was kept; what it meant then is no
        longer known. Else the birth explains it, and the journal knows whether it has it.
        """
        self._totals["repeated"] += 1
        assert one.body.time is not None
        assert branch.born is not None
        if one.body.time < branch.born:
            self._note(one, ())
            return []
        if one.name.kind == "DBIRTH":
            return self._device_birth(node, one, released)
        if one.name.kind == "DDEATH":
            return self._device_death(node, branch, one)
        self._note(one, table)
        return self._reader.read(branch, table, one.body, one.arrival, self._sure(one.qos), birth=False)

    def _node_birth(self, node: Node, one: One, released: list[Reading]) -> list[Reading]:
        table = Table.of(one.body)
        bdseq = _bdseq(one.body)
        own = self._branch(node, "")
        older = own.table
        if bdseq is None or bdseq != node.bdseq:
            for each in node.branches.values():
                each.table = None  # of another session: its aliases prove nothing
        for each in node.branches.values():
            each.online = each is own
        self._totals["births"] += 1
        self._totals["retyped"] += 0 if older is None else table.retyped(older)
        proof, own.table = own.table, table
        node.bdseq, node.birth_qos, own.born = bdseq, one.qos, one.body.time
        node.online = node.trusted = True
        node.expected = None if one.body.seq is None else (one.body.seq + 1) & 255
        self._rebirths.born(node.key)
        self._dirty[node.key] = None
        released += self._settle_node(node, one, proof)
        return self._reader.read(own, table, one.body, one.arrival, self._sure(one.qos), birth=True)

    def _device_birth(self, node: Node, one: One, released: list[Reading]) -> list[Reading]:
        table = Table.of(one.body)
        branch = self._branch(node, one.name.device)
        self._totals["births"] += 1
        self._totals["retyped"] += 0 if branch.table is None else table.retyped(branch.table)
        proof, branch.table, branch.online = branch.table, table, True
        branch.born = one.body.time
        self._dirty[node.key] = None
        self._note(one, table)
        for held in self._waiting.late(node, one.name.device):
            released += self._settle(node, held, branch, proof)
        return self._reader.read(branch, table, one.body, one.arrival, self._sure(one.qos), birth=True)

    def _node_death(self, node: Node, one: One) -> list[Reading]:
        bdseq = _bdseq(one.body)
        if one.qos and one.mark in self._seen and not node.online:
            return self._again(node, one)
        if not node.online or (bdseq is not None and node.bdseq is not None and bdseq != node.bdseq):
            self._totals["late_deaths"] += 1  # a will may come long after the next birth
            raise Ignored("ignored")
        self._totals["deaths"] += 1
        node.online = node.trusted = False
        node.expected = None
        dead = [b for b in node.branches.values() if b.online]
        for each in dead:
            each.online = False
        self._dirty[node.key] = None
        return self._die(one, dead)

    def _device_death(self, node: Node, branch: Branch, one: One) -> list[Reading]:
        self._totals["deaths"] += 1
        was, branch.online = branch.online, False
        self._dirty[node.key] = None
        return self._die(one, [branch] if was else [])

    def _die(self, one: One, dead: list[Branch]) -> list[Reading]:
        """Each signal gets one point that says that nothing is known of it from here on."""
        signals = tuple(index for branch in dead for index, _ in branch.signals.values())
        self._note(one, signals)
        return _gone(signals, self._death_time(one))

    def _death_time(self, one: One) -> int:
        """When: a will was written long before, so that an edge node's death has the time of its arrival."""
        told = one.body.time if one.name.kind == "DDEATH" else None
        at = None if told is None else self._reader.time(told, one.arrival)
        return one.arrival if at is None else at

    # ---- what waits ----

    def _hold(self, node: Node, one: One, *, late: bool) -> None:
        self._totals["held"] += 1
        for dropped, reason in self._waiting.add(node, one.mark, one, late=late):
            self._reject(dropped.topic, dropped.payload, dropped.arrival, reason)

    def _in_turn(self, node: Node) -> list[Reading]:
        """What waited for a message before it, and may come now."""
        found: list[Reading] = []
        while node.held and (held := self._waiting.next(node)) is not None:
            self._totals["reordered"] += 1
            try:
                found += self._in_order(node, One.of(held.topic, held.payload, held.arrival, held.qos), found)
            except Ignored:
                continue  # it waits again, for a birth
            except (ValueError, TooManySignalsError) as e:
                self._reject(held.topic, held.payload, held.arrival, str(e))
        return found

    def _settle_node(self, node: Node, one: One, proof: Table | None) -> list[Reading]:
        """What waited for this birth certificate of an edge node: is it proven, or disproved?"""
        found: list[Reading] = []
        for held in self._waiting.before(node, one.body.time):
            device = parse(held.topic).device
            branch = node.branches.get(device)
            if device and branch is not None and branch.table is not None:
                self._waiting.delay(node, held)  # its device's birth follows, and decides
            else:
                found += self._settle(node, held, branch, None if device else proof)
        return found

    def _settle(self, node: Node, held: Held, branch: Branch | None, proof: Table | None) -> list[Reading]:
        """Read a message that waited if the birth certificates before and after it agree on what it says."""
        self._waiting.drop(node, held)
        one = One.of(held.topic, held.payload, held.arrival, held.qos)
        kind = one.name.kind
        if kind == "DDEATH":
            self._totals["superseded"] += 1  # it was born again since
            return []
        try:
            branch = branch or self._branch(node, one.name.device)
            table = _explained(one, branch.table, proof)
            return self._reader.read(branch, table, one.body, one.arrival, self._sure(one.qos), birth=kind == "DBIRTH")
        except (ValueError, TooManySignalsError, Ignored) as e:
            self._reject(held.topic, held.payload, held.arrival, str(e))
            return []

    def _reject(self, topic: bytes, payload: bytes, arrival: int, reason: str) -> None:
        self._totals["rejected"] += 1
        self._rejected.append(Rejected(topic, payload, arrival, reason))

    # ---- small things ----

    def _node(self, one: One) -> Node:
        key = (one.name.group, one.name.node)
        found = self._nodes.get(key)
        if found is None:
            if len(self._nodes) >= _NODES_MAX:
                raise ValueError(f"more than {_NODES_MAX} edge nodes")
            self._places.of(*key, one.name.device)  # one that is not for us is not remembered
            found = self._nodes[key] = Node(key)
        return found

    def _branch(self, node: Node, device: str) -> Branch:
        found = node.branches.get(device)
        if found is None:
            if len(node.branches) > _DEVICES_MAX:
                raise ValueError(f"more than {_DEVICES_MAX} devices behind edge node {'/'.join(node.key)}")
            found = node.branches[device] = Branch(device, self._places.of(*node.key, device))
        return found

    def _sure(self, qos: int) -> Guarantee:
        return self._guarantee if qos else "from-receipt"

    def _note(self, one: One, meant: Table | tuple[int, ...]) -> None:
        """Remember what a message meant, if the broker may send it again."""
        if one.qos:
            self._seen[one.mark] = meant
            if len(self._seen) > self._seen_max:
                self._seen.popitem(last=False)

    def _want(self, node: Node) -> None:
        if self._config.rebirth:
            self._rebirths.ask(node.key)

    # ---- Speaker ----

    def will(self) -> Message | None:
        """As in `Speaker`."""
        if not self._loaded:
            self._loaded = True
            self._load()
        return self._state.will() if self._config.primary else None

    def connected(self, *, present: bool) -> None:
        """As in `Speaker`: what may have been missed while we were away?"""
        for node in self._nodes.values():
            kept = present and self._persistent and node.birth_qos > 0
            node.trusted = node.trusted and kept

    def greetings(self, *, present: bool) -> list[Message]:
        """As in `Speaker`."""
        del present
        for node in self._nodes.values():
            if node.online and (self._fresh or not node.trusted):
                self._want(node)
        self._fresh = False
        return [self._state.birth()] if self._config.primary else []

    def drain(self) -> list[Message]:
        """As in `Speaker`."""
        for node in self._waiting.overdue():
            self._totals["gaps"] += 1
            self._totals["missed"] += self._waiting.missing(node)
            node.trusted = False
            self._dirty[node.key] = None
            self._waiting.give_up_order(node)
            self._want(node)
        for held in self._waiting.expired():
            reason = f"no birth certificate came within {self._config.patience:.0f} s that explains it"
            self._reject(held.topic, held.payload, held.arrival, reason)
        again, self._state_due = self._state_due, False
        return [*([self._state.birth()] if again else []), *self._rebirths.due()]

    def farewell(self) -> list[Message]:
        """As in `Speaker`."""
        return [self._state.death()] if self._config.primary else []

    # ---- Keeper ----

    def rejected(self) -> list[Rejected]:
        """As in `Keeper`."""
        found, self._rejected = self._rejected, []
        return found

    def checkpoint(self) -> Callable[[], None] | None:
        """As in `Keeper`."""
        added, released = self._waiting.changes()
        if not (self._dirty or added or released or self._unsaved):
            return None
        everything = self._unsaved
        nodes = list(self._nodes.values()) if everything else [self._nodes[key] for key in self._dirty]
        held = [each for node in nodes for each in node.held.values()] if everything else added
        change = Change([node.record() for node in nodes], held, released, everything)
        self._dirty.clear()

        def save() -> None:
            self._unsaved = True
            self._memory.save(change)
            self._unsaved = False

        return save

    def _load(self) -> None:
        """Take up what an earlier process knew."""
        nodes, held = self._memory.load()
        for record in nodes:
            node = self._nodes[record.group, record.node] = Node((record.group, record.node))
            node.bdseq, node.birth_qos = record.bdseq, record.birth_qos
            node.online, node.trusted = record.online, record.trusted
            for each in record.branches:
                try:
                    branch = self._branch(node, each.device)
                    for name in each.signals:
                        self._reader.index(branch, name, self._sure(record.birth_qos))
                except (ValueError, Ignored, TooManySignalsError) as e:
                    _log.warning("sparkplug_machine_not_taken_up", node=record.node, device=each.device, reason=str(e))
                    continue
                branch.online, branch.born = each.online, each.born
                branch.table = None if each.entries is None else Table(each.entries)
        for each_held in held:
            told = parse(each_held.topic)
            node = self._nodes.setdefault((told.group, told.node), Node((told.group, told.node)))
            node.trusted = False  # what waits is decided by a birth
            self._waiting.take_up(node, hash((each_held.topic, each_held.payload)), each_held)
        if nodes or held:
            _log.info("sparkplug_taken_up", nodes=len(nodes), waiting=len(held))


def topic_of(config: MqttConfig) -> str:
    """The template of places: `topic`, or the default of this format."""
    return config.topic if config.topic.startswith(f"{NAMESPACE}/") else DEFAULT_TOPIC


def _explained(one: One, now: Table | None, proof: Table | None) -> Table:
    """The table that surely explains a message that waited.

    Raises:
        ValueError: if there is none.
    """
    if one.name.kind == "DBIRTH":
        return Table.of(one.body)  # it explains itself
    if proof is not None and now is not None and proof.agrees(now, one.body):
        return proof
    if all(each.alias is None and each.name and each.datatype for each in one.body.metrics):
        return Table(())  # so does this
    raise ValueError(_UNPROVEN)


def _gone(signals: tuple[int, ...], at: int) -> list[Reading]:
    return [Reading(signal, at, None, BAD_NO_COMMUNICATION) for signal in signals]


def _bdseq(body: Payload) -> int | None:
    """Which session at the broker a birth or death belongs to."""
    found = next((m.value.raw for m in body.metrics if m.name == "bdSeq"), None)
    return found if isinstance(found, int) else None

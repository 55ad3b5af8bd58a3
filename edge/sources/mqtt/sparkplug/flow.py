"""Births, data and deaths in their order → readings.

Data has aliases in place of names; only the birth certificate in force says what they are. So data is read when it is
surely explained by the one that we have, and kept back otherwise, until a birth certificate comes that proves it:
nothing is guessed, and nothing is dropped. Rules: Eclipse Sparkplug 3.0.0, chapters 5 and 6.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable

from edge.sources.base import Over
from edge.sources.mqtt.dialect import Ignored
from edge.sources.mqtt.keeper import Hole, Rejected
from edge.sources.mqtt.sparkplug.known import Known
from edge.sources.mqtt.sparkplug.message import One
from edge.sources.mqtt.sparkplug.naming import parse
from edge.sources.mqtt.sparkplug.nodes import Branch, Held, Node
from edge.sources.mqtt.sparkplug.reading import Reader, Reading
from edge.sources.mqtt.sparkplug.tables import Table
from edge.sources.mqtt.sparkplug.waiting import Waiting
from fieldlab.model import Guarantee
from fieldlab.model.signal import TooManySignalsError
from fieldlab.model.status import BAD_NO_COMMUNICATION

_UNPROVEN = (
    "data without the birth certificate that was in force: its aliases cannot be told; the edge node was asked for a "
    "new one"
)


class Flow:
    """The state machine; used by one thread.

    Attributes:
        rejected: messages that waited and were given up.
        holes: intervals in which messages are missing.

    Args:
        known: the edge nodes.
        waiting: messages that wait.
        reader: reads payloads.
        totals: counters.
        sure: the guarantee of a signal, by the QoS of its messages.
        want: asks an edge node for its births.
        born: notes that they came.
        remembered: how many messages are remembered, to know them when they come again.
    """

    def __init__(
        self,
        known: Known,
        waiting: Waiting,
        reader: Reader,
        totals: Counter[str],
        sure: Callable[[int], Guarantee],
        want: Callable[[Node], None],
        born: Callable[[Node], None],
        remembered: int,
    ) -> None:
        self.rejected: list[Rejected] = []
        self.holes: list[Hole] = []
        self._known, self._waiting, self._reader, self._totals = known, waiting, reader, totals
        self._sure, self._want, self._born = sure, want, born
        self._branch = known.branch
        self._seen: OrderedDict[int, Table | tuple[int, ...]] = OrderedDict()
        self._seen_max = remembered

    def read(self, one: One, *, redelivered: bool) -> list[Reading]:
        """The readings of a message, and of those that waited for it.

        Raises:
            Ignored: if there are none, or none yet.
            ValueError: if it cannot be read.
            TooManySignalsError: if it needs a new signal and the agent has as many as it may.
        """
        node = self._known.node(one)
        error: Exception | None = None
        readings: list[Reading] = []
        released: list[Reading] = []
        try:
            readings = self._take(node, one, released, redelivered=redelivered)
        except (ValueError, TooManySignalsError) as e:
            error = e
        released += self._in_turn(node)
        if error is not None:
            if not released:
                raise error
            self.reject(one.topic, one.payload, one.arrival, str(error))
        return [*readings, *released]

    def _take(self, node: Node, one: One, released: list[Reading], *, redelivered: bool) -> list[Reading]:
        kind, seq = one.name.kind, one.body.seq
        if kind == "NBIRTH":
            return self._node_birth(node, one, released)
        if kind == "NDEATH":
            return self._node_death(node, one)
        if one.mark in node.held:
            self._totals["repeated"] += 1
            raise Ignored("held")
        seen = one.mark in self._seen
        branch = node.branches.get(one.name.device)
        repeated = redelivered and not seen and branch is not None and _told(node, branch, one)
        if repeated and branch is not None and _before(branch, one):
            self._totals["repeated"] += 1
            self._note(one, ())
            return []
        old = branch is not None and _before(branch, one)  # its number belongs to the sequence of another birth
        turn = node.trusted and not old and (seq is None or node.expected is None or seq == node.expected)
        state = kind not in ("NDATA", "DDATA")  # after its node's birth came again, a device is born again, too
        # Without a time, two messages of data may be equal.
        if seen and (not turn or (one.body.time is not None and not state)):
            if turn and seq is not None:
                node.expected = (seq + 1) & 255  # after a birth that came again, too, its data counts up
            return self._again(node, one)
        if turn:
            return self._in_order(node, one, released)
        if repeated and branch is not None and branch.table is not None:
            return self._once_more(node, branch, branch.table, one, released)
        if not node.trusted:
            self._want(node)
        self._hold(node, one, late=old or not node.trusted)
        raise Ignored("held")

    def _in_order(self, node: Node, one: One, released: list[Reading]) -> list[Reading]:
        """The message that was to come next."""
        body, kind, device = one.body, one.name.kind, one.name.device
        node.last = max(node.last, self._made(one))
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
        return gone(meant, self._death_time(one))

    def _once_more(self, node: Node, branch: Branch, table: Table, one: One, released: list[Reading]) -> list[Reading]:
        """A message of the birth in force that an earlier process read: the journal knows whether it has it."""
        self._totals["repeated"] += 1
        if one.name.kind == "DBIRTH":
            return self._device_birth(node, one, released)
        if one.name.kind == "DDEATH":
            return self._device_death(node, branch, one)
        self._note(one, table)
        return self._reader.read(branch, table, one.body, one.arrival, self._sure(one.qos), birth=False)

    def _node_birth(self, node: Node, one: One, released: list[Reading]) -> list[Reading]:
        table = Table.of(one.body)
        bdseq = one.bdseq
        self._session(node, one, bdseq)
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
        node.online = node.trusted = node.watched = True
        node.last = max(node.last, self._made(one))
        node.expected = None if one.body.seq is None else (one.body.seq + 1) & 255
        self._born(node)
        self._known.changed(node)
        released += self._settle_node(node, one, proof)
        return self._reader.read(own, table, one.body, one.arrival, self._sure(one.qos), birth=True)

    def _device_birth(self, node: Node, one: One, released: list[Reading]) -> list[Reading]:
        table = Table.of(one.body)
        branch = self._branch(node, one.name.device)
        self._totals["births"] += 1
        self._totals["retyped"] += 0 if branch.table is None else table.retyped(branch.table)
        proof, branch.table, branch.online = branch.table, table, True
        branch.born = one.body.time
        self._known.changed(node)
        self._note(one, table)
        for held in self._waiting.late(node, one.name.device):
            released += self._settle(node, held, branch, proof)
        return self._reader.read(branch, table, one.body, one.arrival, self._sure(one.qos), birth=True)

    def _node_death(self, node: Node, one: One) -> list[Reading]:
        bdseq = one.bdseq
        if one.qos and one.mark in self._seen and not node.online:
            return self._again(node, one)
        if not node.online or (bdseq is not None and node.bdseq is not None and bdseq != node.bdseq):
            self._totals["late_deaths"] += 1  # a will may come long after the next birth
            self._foreign_death(node, one, bdseq)
            raise Ignored("ignored")
        self._totals["deaths"] += 1
        if node.early_since is not None:
            self.incomplete(node)
        node.last = max(node.last, one.arrival)
        node.online = node.trusted = False
        node.expected = None
        dead = [b for b in node.branches.values() if b.online]
        for each in dead:
            each.online = False
        self._known.changed(node)
        return self._die(one, dead)

    def _device_death(self, node: Node, branch: Branch, one: One) -> list[Reading]:
        self._totals["deaths"] += 1
        was, branch.online = branch.online, False
        self._known.changed(node)
        return self._die(one, [branch] if was else [])

    def _die(self, one: One, dead: list[Branch]) -> list[Reading]:
        """Each signal gets one point that says that nothing is known of it from here on."""
        signals = tuple(index for branch in dead for index, _ in branch.signals.values())
        self._note(one, signals)
        return gone(signals, self._death_time(one))

    def _death_time(self, one: One) -> int:
        """When: a will was written long before, so that an edge node's death has the time of its arrival."""
        told = one.body.time if one.name.kind == "DDEATH" else None
        at = None if told is None else self._reader.time(told, one.arrival)
        return one.arrival if at is None else at

    def incomplete(self, node: Node) -> None:
        """Messages of a session are missing, and will not come."""
        missed = self._waiting.missing(node)
        first = self._waiting.first_early(node)
        self._totals["gaps"] += 1
        self._totals["missed"] += missed
        if first is not None:
            end = self._made(One.of(first.topic, first.payload, first.arrival, first.qos))
            which = f"from seq {node.expected}" if node.expected is not None else "of its sequence"
            words = f"{missed} messages of edge node {'/'.join(node.key)} never came, {which} on"
            self._hole(node, end, "ended", words)

    def _session(self, node: Node, one: One, bdseq: int | None) -> None:
        """A birth certificate: is something missing before it, as its bdSeq says (Eclipse Sparkplug 3.0.0, 6.4.7)?"""
        if node.trusted and node.early_since is not None:
            self.incomplete(node)
        if not node.watched or bdseq is None or node.bdseq in (None, bdseq):
            return
        who = f"edge node {'/'.join(node.key)}: birth with bdSeq {bdseq} after {node.bdseq}"
        if bdseq != ((node.bdseq or 0) + 1) & 255:
            self._hole(node, self._made(one), "unverifiable", f"{who}; of what was between nothing came")
        elif node.online:
            self._hole(node, self._made(one), "unverifiable", f"{who}, without the death: its last messages may lack")

    def _foreign_death(self, node: Node, one: One, bdseq: int | None) -> None:
        """A death of another session: of a later one, if its birth never came."""
        if not node.watched or bdseq is None or node.bdseq is None or not 0 < (bdseq - node.bdseq) & 255 < 128:
            return
        who = f"edge node {'/'.join(node.key)}: death with bdSeq {bdseq} after the birth with {node.bdseq}"
        self._hole(node, one.arrival, "unverifiable", f"{who}; of that session nothing else came")
        node.last = max(node.last, one.arrival)
        self._want(node)

    def _hole(self, node: Node, end: int, state: Over, detail: str) -> None:
        signals = tuple(index for branch in node.branches.values() for index, _ in branch.signals.values())
        if signals and node.last:
            self._totals["holes"] += 1
            self.holes.append(Hole(signals, node.last, end, state, detail))

    def _made(self, one: One) -> int:
        """When a message was made, ns; of one whose time cannot be, when it came."""
        return self._reader.time(one.body.time, one.arrival) or one.arrival

    def _hold(self, node: Node, one: One, *, late: bool) -> None:
        self._totals["held"] += 1
        for dropped, reason in self._waiting.add(node, one.mark, one, late=late):
            self.reject(dropped.topic, dropped.payload, dropped.arrival, reason)

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
                self.reject(held.topic, held.payload, held.arrival, str(e))
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
            self.reject(held.topic, held.payload, held.arrival, str(e))
            return []

    def reject(self, topic: bytes, payload: bytes, arrival: int, reason: str) -> None:
        """Give a message up that waited: it goes to the dead letter."""
        self._totals["rejected"] += 1
        self.rejected.append(Rejected(topic, payload, arrival, reason))

    def _note(self, one: One, meant: Table | tuple[int, ...]) -> None:
        """Remember what a message meant, if the broker may send it again."""
        if one.qos:
            self._seen[one.mark] = meant
            if len(self._seen) > self._seen_max:
                self._seen.popitem(last=False)


def _told(node: Node, branch: Branch, one: One) -> bool:
    """Whether births and messages tell when they were made, and neither can have been missed."""
    return one.qos > 0 and node.birth_qos > 0 and one.body.time is not None and branch.born is not None


def _before(branch: Branch, one: One) -> bool:
    """Whether a message is older than the last birth certificate.

    If the broker sends such a one again, it was on disk before that birth was kept; what it meant is no longer known.
    """
    return one.body.time is not None and branch.born is not None and one.body.time < branch.born


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


def gone(signals: tuple[int, ...], at: int) -> list[Reading]:
    """One point a signal that says that nothing is known of it from `at` on."""
    return [Reading(signal, at, None, BAD_NO_COMMUNICATION) for signal in signals]

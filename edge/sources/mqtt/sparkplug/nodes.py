"""What is known of an edge node, and of the devices behind it."""

from collections import OrderedDict

import msgspec

from edge.sources.mqtt.sparkplug.tables import Entry, Table
from fieldlab.model import Guarantee, Place


class Held(msgspec.Struct, array_like=True):
    """A message that waits for one before it, or for a birth certificate.

    Attributes:
        number: unique, also through restarts.
        topic: where it came.
        payload: its bytes.
        arrival: when, ns.
        qos: how.
        seq: its place in the sequence, or None.
        time: ms, as its payload says, or None.
        late: whether only a birth certificate can release it; else the messages before it can, too.
        since: when it began to wait, by the host's clock, s.
    """

    number: int
    topic: bytes
    payload: bytes
    arrival: int
    qos: int
    seq: int | None
    time: int | None
    late: bool = False
    since: float = 0.0


class Branch:
    """An edge node itself (`device` empty), or a device behind it.

    Attributes:
        device: its name.
        place: its machine.
        table: its last birth certificate, as long as it can mean something.
        born: ms, as its last birth certificate says, or None.
        online: whether it was born and did not die.
        signals: name of a signal → index, guarantee.
    """

    def __init__(self, device: str, place: Place) -> None:
        self.device = device
        self.place = place
        self.table: Table | None = None
        self.born: int | None = None
        self.online = False
        self.signals: dict[str, tuple[int, Guarantee]] = {}


class BranchRecord(msgspec.Struct, array_like=True):
    """A branch as it is kept on disk."""

    device: str
    online: bool
    born: int | None
    entries: list[Entry] | None
    signals: list[str]


class NodeRecord(msgspec.Struct, array_like=True):
    """An edge node as it is kept on disk."""

    group: str
    node: str
    bdseq: int | None
    birth_qos: int
    online: bool
    trusted: bool
    branches: list[BranchRecord]


class Node:
    """An edge node.

    Attributes:
        key: group and node.
        bdseq: of its last birth certificate: which of its sessions at the broker it belongs to.
        birth_qos: how its birth certificate came: with QoS 0, one may have been missed while we were away.
        online: whether it was born and did not die.
        trusted: whether the tables are surely those in force.
        expected: the next sequence number; None if any will do.
        branches: the node itself and its devices, by the device's name.
        held: messages that wait, by their hash.
        early_since: when the first of those that came too early began to wait.
        last: when the newest message was made that was read in its turn, ns; up to there nothing is missing.
        watched: whether nothing of it can have passed us by since its last birth certificate.
    """

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.bdseq: int | None = None
        self.birth_qos = 0
        self.online = False
        self.trusted = False
        self.expected: int | None = None
        self.branches: dict[str, Branch] = {}
        self.held: OrderedDict[int, Held] = OrderedDict()
        self.early_since: float | None = None
        self.last = 0
        self.watched = False

    def record(self) -> NodeRecord:
        """What is kept of it on disk."""
        branches = []
        for each in self.branches.values():
            entries = None if each.table is None else list(each.table.entries.values())
            branches.append(BranchRecord(each.device, each.online, each.born, entries, list(each.signals)))
        return NodeRecord(*self.key, self.bdseq, self.birth_qos, self.online, self.trusted, branches)

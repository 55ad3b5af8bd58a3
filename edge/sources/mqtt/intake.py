"""Gathers the messages of one pass over the socket into one batch, with what is needed to acknowledge them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from edge.sources.base import Delivery
from edge.sources.mqtt.client import PUBACK, PUBCOMP
from edge.sources.mqtt.dialect import Dialect, Ignored
from edge.sources.mqtt.digest import digests
from edge.sources.mqtt.frames import DUP, QOS, RETAIN, Frames
from edge.sources.mqtt.keeper import Keeper, Rejected
from edge.sources.mqtt.large import Large
from edge.sources.mqtt.rows import Rows
from fieldlab.model import Batch
from fieldlab.model.signal import TooManySignalsError
from ingest.stores.base import DeadLetter

_log = structlog.get_logger()

_PUBACK = bytes((PUBACK, 2))
_COUNTERS = (
    *("messages", "readings", "qos0", "retained", "redelivered"),
    *("set_aside", "too_large", "ignored", "unmatched", "empty"),
)
_ALIKE = 20  # messages that are tried at once, at least
_AT_ONCE = 200_000  # bytes of payloads that are tried at once: what does not fit into a run is looked at again
_ALONE = 64  # messages read one by one, at most, before many at once are tried again
_FIRST_TIME = frozenset((0x32,))  # a message of QoS 1 that is neither sent again nor retained
_DUPS = frozenset(0x30 | DUP | flags for flags in range(16))


class Pass(msgspec.Struct, frozen=True, eq=False):
    """The messages of one pass.

    Attributes:
        batch: readings of the messages that are acknowledged, or None.
        delivery: which messages `batch` came from.
        unacknowledged: readings of QoS 0 messages, or None; nobody sends them again.
        past: readings of the past, of messages that are acknowledged, or None.
        past_delivery: which messages `past` came from.
        unacknowledged_past: readings of the past of QoS 0 messages, or None.
        letters: messages that could not be read and are acknowledged.
        letters_delivery: which messages `letters` came from; `first_row` counts letters.
        unacknowledged_letters: QoS 0 messages that could not be read.
        acknowledge: the packets that acknowledge them, in the order of their arrival.
        messages: how many there were.
        octets: bytes of all of them.
        lost: signal → readings that messages' own numbers show to be lost; each of these signals is in a batch.
    """

    batch: Batch | None
    delivery: Delivery | None
    unacknowledged: Batch | None
    past: Batch | None
    past_delivery: Delivery | None
    unacknowledged_past: Batch | None
    letters: tuple[DeadLetter, ...]
    letters_delivery: Delivery | None
    unacknowledged_letters: tuple[DeadLetter, ...]
    acknowledge: bytes
    messages: int
    octets: int
    lost: dict[int, int] = {}


class _Messages:
    """Columns of a `Delivery` under construction."""

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.topics: list[bytes] = []
        self.payloads: list[bytes] = []
        self.redelivered: list[bool] = []
        self.first_row: list[int] = []

    def add(self, number: bytes, topic: bytes, payload: bytes, first_row: int, *, redelivered: bool) -> None:
        self.ids.append(number)
        self.topics.append(topic)
        self.payloads.append(payload)
        self.redelivered.append(redelivered)
        self.first_row.append(first_row)

    def delivery(self, session: str) -> Delivery | None:
        if not self.ids:
            return None
        ids: NDArray[Any] = np.frombuffer(b"".join(self.ids), ">u2")
        return Delivery(
            session,
            ids.astype(np.uint16),
            digests(self.topics, self.payloads),
            np.array(self.redelivered, np.bool_),
            np.array(self.first_row, np.uint32),
        )


class Intake:
    """Takes messages and gives them out as a `Pass`. Used by one thread.

    Attributes:
        counters: named totals: messages, readings, qos0, retained, redelivered, set_aside, too_large, ignored,
            unmatched, empty.

    Args:
        name: the source's name.
        dialect: reads payloads; many at once, if it is a `BulkDialect`.
        redelivers: whether the broker sends again what we did not acknowledge before a lost connection; if it does
            not, there is nothing to remember messages for.
    """

    def __init__(self, name: str, dialect: Dialect, *, redelivers: bool = True) -> None:
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))
        self._name = name
        self._dialect = dialect
        self._read_run: Any = getattr(dialect, "read_run", None)
        self._redelivers = redelivers
        self._keeper = dialect if isinstance(dialect, Keeper) else Keeper()
        self._sure = Rows()
        self._unsure = Rows()
        self._warned: dict[str, int] = {}
        self._alone = 1  # messages to read one by one before many are tried
        self._clear()

    def _clear(self) -> None:
        self._messages = _Messages()
        self._past_messages = _Messages()
        self._letter_messages = _Messages()
        self._letters: list[DeadLetter] = []
        self._unsure_letters: list[DeadLetter] = []
        self._acknowledge: list[bytes] = []
        self._count = 0
        self._octets = 0

    def __len__(self) -> int:
        return self._count

    def add_many(self, frames: Frames) -> None:
        """Take messages, many at once where they are alike. It never raises, as `add`."""
        at, n = 0, len(frames)
        alone = 0 if self._read_run is not None else n
        self._octets += frames.octets
        while at < n:
            taken = 0 if alone else self._add_run(frames, at)
            if taken:
                at += taken
                self._alone = 1
                continue
            if not alone:
                alone = self._alone
                self._alone = min(2 * alone, _ALONE)
            head = frames.heads[at]
            self._add_one(frames.topics[at], frames.payloads[at], frames.arrival + at, head, frames.ids[at])
            at += 1
            alone -= 1

    def _add_run(self, frames: Frames, at: int) -> int:
        """Take messages of one QoS from `at` on, as many as are alike; how many."""
        n = min(len(frames), at + max(_ALIKE, _AT_ONCE // (len(frames.payloads[at]) + 1)))
        head = frames.heads[at]
        if head & RETAIN or head & QOS > 2:
            return 0
        qos = (head & QOS) >> 1
        heads = frames.heads[at:n]
        kinds = set(heads)
        if len(kinds) > 1:
            alike = {head | DUP, head & ~DUP}
            if not kinds <= alike:
                heads = heads[: next(i for i, each in enumerate(heads) if each not in alike)]
                n = at + len(heads)
        rows = self._sure if qos else self._unsure
        before = len(rows)
        starts: list[int] = []
        taken = -1
        while taken < 0:
            taken = self._read_run(
                frames.topics[at:n], frames.payloads[at:n], frames.arrival + at, rows, starts, qos=qos
            )
            if taken < 0:
                if n - at == 1:
                    return 0
                n = at + (n - at) // 2
        if not taken:
            return 0
        n = at + taken
        self._count += taken
        counters = self.counters
        counters["messages"] += taken
        counters["readings"] += len(rows) - before
        if not qos:
            counters["qos0"] += taken
            return taken
        ids = frames.ids[at:n]
        self._acknowledge.append(_puback(ids))
        repeated = [False] * taken if kinds == _FIRST_TIME else [each in _DUPS for each in heads[:taken]]
        counters["redelivered"] += sum(repeated)
        if self._redelivers:
            messages = self._messages
            messages.ids += ids
            messages.topics += frames.topics[at:n]
            messages.payloads += frames.payloads[at:n]
            messages.redelivered += repeated
            messages.first_row += starts
        return taken

    def add(
        self, topic: bytes, payload: bytes, arrival: int, *, mid: int, qos: int, redelivered: bool, retained: bool
    ) -> None:
        """Take one message. It never raises: what cannot be read is set aside with its reason."""
        self._octets += len(payload)
        head = 0x30 | qos << 1 | (DUP if redelivered else 0) | (RETAIN if retained else 0)
        self._add_one(topic, payload, arrival, head, mid.to_bytes(2, "big"))

    def _add_one(self, topic: bytes, payload: bytes, arrival: int, head: int, number: bytes) -> None:
        counters = self.counters
        counters["messages"] += 1
        qos = (head & QOS) >> 1
        messages: _Messages | None
        if qos:
            self._acknowledge.append((_PUBACK if qos == 1 else bytes((PUBCOMP, 2))) + number)
            rows, messages = self._sure, self._messages
            if head & DUP:
                counters["redelivered"] += 1
        else:
            counters["qos0"] += 1
            rows, messages = self._unsure, None
        if head & RETAIN:
            counters["retained"] += 1
        self._count += 1
        first, past = len(rows), rows.past_count
        self._keeper.redelivered = head & DUP != 0
        try:
            added = self._dialect.read(topic, payload, arrival, rows, retained=head & RETAIN != 0, qos=qos)
        except Ignored as e:
            counters[e.reason] += 1
            return
        except (ValueError, TooManySignalsError) as e:
            messages, first = self._set_aside(topic, payload, arrival, str(e), qos)
        except Exception as e:  # noqa: BLE001  # a defect of ours may not stall the flow, nor lose the message
            _log.exception("message_not_read", source=self._name, topic=topic.decode(errors="replace"))
            messages, first = self._set_aside(topic, payload, arrival, f"internal error: {e!r}", qos)
        else:
            counters["readings"] += added
            if not added:
                counters["empty"] += 1
                return
        if messages is not None and self._redelivers:
            repeated = head & DUP != 0
            if rows.past_count > past:
                self._past_messages.add(number, topic, payload, past, redelivered=repeated)
                if messages is self._messages and len(rows) == first:
                    return  # it has nothing but the past
            messages.add(number, topic, payload, first, redelivered=repeated)

    def add_large(self, large: Large, most: int) -> None:
        """Set a message aside that has more than `most` bytes."""
        counters = self.counters
        qos = (large.head & QOS) >> 1
        counters["messages"] += 1
        counters["too_large"] += 1
        counters["qos0"] += not qos
        counters["retained"] += large.head & RETAIN != 0
        self._count += 1
        self._octets += len(large.payload)
        messages, first = self._set_aside(large.topic, large.payload, large.arrival, large.reason(most), qos)
        if qos:
            repeated = large.head & DUP != 0
            counters["redelivered"] += repeated
            self._acknowledge.append(_PUBACK + large.number)
            if messages is not None and self._redelivers:
                messages.add(large.number, large.topic, large.payload, first, redelivered=repeated)

    def add_rejected(self, rejected: Sequence[Rejected]) -> None:
        """Set messages aside that were acknowledged before; see `Keeper`."""
        for each in rejected:
            self._set_aside(each.topic, each.payload, each.arrival, each.reason, 0)

    def _set_aside(
        self, topic: bytes, payload: bytes, arrival: int, reason: str, qos: int
    ) -> tuple[_Messages | None, int]:
        """Keep what cannot be read; a topic is logged at 1, 10, 100, … of its messages.

        Returns:
            Where its message belongs, if it is acknowledged, and its place among the letters.
        """
        self.counters["set_aside"] += 1
        name = topic.decode(errors="replace")
        key = self._dialect.place_of(topic)
        letters = self._letters if qos else self._unsure_letters
        letters.append(
            DeadLetter(
                store=self._name,
                machine=name if key is None else key.place.path,
                signal="" if key is None else key.name,
                readings=1,
                reason=f"{reason} (topic {name[:200]})",
                first=arrival,
                last=arrival,
                body=payload,
            )
        )
        if len(self._warned) > 1000:
            self._warned.clear()
        seen = self._warned[name] = self._warned.get(name, 0) + 1
        if str(seen).strip("0") == "1":
            _log.warning("message_set_aside", source=self._name, topic=name[:200], reason=reason, count=seen)
        return (self._letter_messages if qos else None), len(letters) - 1

    def take(self, session: str) -> Pass:
        """Everything since the last time.

        Args:
            session: the broker session that the message ids belong to.
        """
        lost = self._sure.lost
        if self._unsure.lost:
            lost = dict(Counter(lost) + Counter(self._unsure.lost))
        taken = Pass(
            self._sure.build() if len(self._sure) else None,
            self._messages.delivery(session),
            self._unsure.build() if len(self._unsure) else None,
            self._sure.past.build() if self._sure.past_count else None,
            self._past_messages.delivery(f"{session}/past"),  # known apart: the journal may have but one of the two
            self._unsure.past.build() if self._unsure.past_count else None,
            tuple(self._letters),
            self._letter_messages.delivery(session),
            tuple(self._unsure_letters),
            b"".join(self._acknowledge),
            self._count,
            self._octets,
            lost,
        )
        self._clear()
        return taken


def _puback(ids: Sequence[bytes]) -> bytes:
    """PUBACKs of messages, joined."""
    return _PUBACK + _PUBACK.join(ids)

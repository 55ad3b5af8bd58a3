"""Gathers the messages of one pass over the socket into one batch, with what is needed to acknowledge them."""

from collections import Counter
from hashlib import blake2b

import msgspec
import numpy as np
import structlog

from edge.sources.base import Delivery
from edge.sources.mqtt.dialect import Dialect, Ignored
from edge.sources.mqtt.rows import Rows
from fieldlab.model import Batch
from fieldlab.model.signal import TooManySignalsError
from ingest.stores.base import DeadLetter

_log = structlog.get_logger()


class Pass(msgspec.Struct, frozen=True, eq=False):
    """The messages of one pass.

    Attributes:
        batch: readings of the messages that are acknowledged, or None.
        delivery: which messages `batch` came from.
        unacknowledged: readings of QoS 0 messages, or None; nobody sends them again.
        letters: messages that could not be read and are acknowledged.
        letters_delivery: which messages `letters` came from; `first_row` counts letters.
        unacknowledged_letters: QoS 0 messages that could not be read.
        acknowledge: (id, QoS) of every message to acknowledge, in the order of their arrival.
        messages: how many there were.
        octets: bytes of all payloads.
    """

    batch: Batch | None
    delivery: Delivery | None
    unacknowledged: Batch | None
    letters: tuple[DeadLetter, ...]
    letters_delivery: Delivery | None
    unacknowledged_letters: tuple[DeadLetter, ...]
    acknowledge: tuple[tuple[int, int], ...]
    messages: int
    octets: int


class _Messages:
    """Columns of a `Delivery` under construction."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.digests: list[bytes] = []
        self.redelivered: list[bool] = []
        self.first_row: list[int] = []

    def delivery(self, session: str) -> Delivery:
        return Delivery(
            session,
            np.array(self.ids, np.uint16),
            np.frombuffer(b"".join(self.digests), "<u8").astype(np.uint64, copy=False),
            np.array(self.redelivered, np.bool_),
            np.array(self.first_row, np.uint32),
        )


class Intake:
    """Takes messages one by one and gives them out as a `Pass`. Used by one thread.

    Attributes:
        counters: named totals: messages, readings, qos0, retained, redelivered, set_aside, ignored, unmatched, empty.
    """

    def __init__(self, name: str, dialect: Dialect) -> None:
        self.counters: Counter[str] = Counter(
            dict.fromkeys(
                (
                    "messages",
                    "readings",
                    "qos0",
                    "retained",
                    "redelivered",
                    "set_aside",
                    "ignored",
                    "unmatched",
                    "empty",
                ),
                0,
            )
        )
        self._name = name
        self._dialect = dialect
        self._sure = Rows()
        self._unsure = Rows()
        self._warned: dict[str, int] = {}
        self._clear()

    def _clear(self) -> None:
        self._messages = _Messages()
        self._letter_messages = _Messages()
        self._letters: list[DeadLetter] = []
        self._unsure_letters: list[DeadLetter] = []
        self._acknowledge: list[tuple[int, int]] = []
        self._count = 0
        self._octets = 0

    def __len__(self) -> int:
        return self._count

    @property
    def octets(self) -> int:
        """Bytes of the payloads so far."""
        return self._octets

    def add(
        self, topic: bytes, payload: bytes, arrival: int, *, mid: int, qos: int, redelivered: bool, retained: bool
    ) -> None:
        """Take one message. It never raises: what cannot be read is set aside with its reason."""
        counters = self.counters
        counters["messages"] += 1
        if qos:
            self._acknowledge.append((mid, qos))
            rows, messages = self._sure, self._messages
            if redelivered:
                counters["redelivered"] += 1
        else:
            counters["qos0"] += 1
            rows, messages = self._unsure, None
        if retained:
            counters["retained"] += 1
        self._count += 1
        self._octets += len(payload)
        first = len(rows)
        try:
            added = self._dialect.read(topic, payload, arrival, rows, retained=retained, qos=qos)
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
        if messages is not None:
            messages.ids.append(mid)
            messages.digests.append(blake2b(b"%b\0%b" % (topic, payload), digest_size=8).digest())
            messages.redelivered.append(redelivered)
            messages.first_row.append(first)

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
        taken = Pass(
            self._sure.build() if len(self._sure) else None,
            self._messages.delivery(session) if self._messages.ids else None,
            self._unsure.build() if len(self._unsure) else None,
            tuple(self._letters),
            self._letter_messages.delivery(session) if self._letter_messages.ids else None,
            tuple(self._unsure_letters),
            tuple(self._acknowledge),
            self._count,
            self._octets,
        )
        self._clear()
        return taken

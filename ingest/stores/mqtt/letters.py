"""Dead letters of what a broker refused.

Native messages are lines of topic, tab, payload; neither can hold a tab or a line feed. Readings of an edge node are a
Sparkplug B payload.
"""

from collections.abc import Mapping, Sequence

import msgspec

from fieldlab.model import SignalKey
from fieldlab.sparkplug.encode import chunk
from ingest.stores.base import DeadLetter
from ingest.stores.mqtt.connection import Message

ENVELOPE = 32  # bytes of a packet beside topic and payload, at most


class Letters:
    """Collects what was refused: one letter for each signal and reason.

    Args:
        store: the store's name.
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._found: dict[tuple[SignalKey, str], DeadLetter] = {}

    def add(
        self, key: SignalKey, words: str, message: Message, first: int, last: int, counts: Mapping[int, int]
    ) -> None:
        """One native message.

        Args:
            key: what it is about.
            words: why it was refused.
            message: as it was sent.
            first: the earliest time in it, ns.
            last: the latest, ns.
            counts: signal index → readings in it; empty for a row.
        """
        self._add(key, words, line(message), first, last, counts)

    def add_part(self, key: SignalKey, words: str, metric: bytes, time: int, signal: int) -> None:
        """One reading of an edge node, as the bytes of its metric; the letter's body is a Sparkplug B payload."""
        self._add(key, words, chunk(2, metric), time, time, {signal: 1})

    def _add(self, key: SignalKey, words: str, body: bytes, first: int, last: int, counts: Mapping[int, int]) -> None:
        before = self._found.get((key, words))
        readings = sum(counts.values()) or 1
        if before is None:
            before = DeadLetter(
                store=self._store,
                machine=key.place.path,
                signal=key.name,
                readings=0,
                reason=words,
                first=first,
                last=last,
                body=b"",
            )
        self._found[key, words] = msgspec.structs.replace(
            before,
            readings=before.readings + readings,
            first=min(before.first, first),
            last=max(before.last, last),
            body=before.body + body,
            counts={signal: before.counts.get(signal, 0) + count for signal, count in counts.items()},
        )

    def all(self) -> list[DeadLetter]:
        """The letters."""
        return list(self._found.values())


def line(message: Message) -> bytes:
    """A message as a line of a letter."""
    return message.topic.encode() + b"\t" + message.payload + b"\n"


def messages(body: bytes) -> list[Message]:
    """The messages of a letter."""
    return [Message(topic.decode(), payload) for topic, _, payload in (li.partition(b"\t") for li in body.splitlines())]


def again(letter: DeadLetter, sent: Sequence[Message], refused: Mapping[int, str]) -> DeadLetter:
    """What is left of a letter that was sent again."""
    kept = [sent[i] for i in sorted(refused)]
    readings = sum(map(_readings, kept))
    return msgspec.structs.replace(
        letter,
        reason=next(iter(refused.values())),
        readings=readings,
        body=b"".join(map(line, kept)),
        counts=dict.fromkeys(letter.counts, readings),
    )


def _readings(message: Message) -> int:
    """Readings in a message: as many as it has times, or one."""
    times = msgspec.json.decode(message.payload).get("ts")
    return len(times) if isinstance(times, list) else 1

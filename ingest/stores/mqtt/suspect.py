"""Finds the message over which a broker ends the connection, instead of refusing it with a reason code.

mosquitto does that with what exceeds its `message_size_limit`. Such a message would come again for ever, and all behind
it wait.
"""

import hashlib
from collections.abc import Sequence

from ingest.stores.base import StoreUnavailableError
from ingest.stores.mqtt.connection import Connection, Message

_TIMES = 3  # that a connection must end over one message that is alone in flight, before that is its fault


class Suspects:
    """Publishes, one message at a time after a connection has ended in the middle. Used by one thread at a time.

    Attributes:
        careful: whether it is one at a time now.
    """

    def __init__(self) -> None:
        self.careful = False
        self._last = b""
        self._times = 0
        self._guilty: dict[bytes, str] = {}

    def publish(
        self, connection: Connection, messages: Sequence[Message], marks: Sequence[bytes] = (), *, last: bool = True
    ) -> dict[int, str]:
        """As `Connection.publish`; a message over which the connection ended again and again is refused, too.

        Args:
            connection: where.
            messages: what.
            marks: what tells each message from others when it comes again; absent: topic and payload.
            last: whether nothing more belongs to what came again.

        Raises:
            StoreUnavailableError: as there.
        """
        if not self.careful:
            try:
                return connection.publish(messages)
            except StoreUnavailableError:
                self.careful = bool(connection.ended)
                raise
        refused: dict[int, str] = {}
        for i, message in enumerate(messages):
            whole = marks[i] if marks else message.payload
            mark = hashlib.blake2b(message.topic.encode() + b"\t" + whole, digest_size=16).digest()
            if mark in self._guilty:
                refused[i] = self._guilty[mark]
                continue
            try:
                answer = connection.publish([message])
            except StoreUnavailableError:
                self._note(mark, connection.ended)
                raise
            if answer:
                refused[i] = answer[0]
        if last:
            self.careful = False
            self._guilty.clear()
        return refused

    def _note(self, mark: bytes, words: str) -> None:
        """The connection ended while this message was alone in flight."""
        self._times = self._times + 1 if mark == self._last else 1
        self._last = mark
        if words and self._times >= _TIMES:
            self._guilty[mark] = f"the broker ended the connection over it {self._times} times: {words}"

"""What was given to the journal and is not acknowledged yet, in the order of its arrival."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import msgspec

ACKNOWLEDGEMENT = 4  # bytes of a PUBACK or PUBCOMP without a reason


class _Entry(msgspec.Struct, frozen=True, eq=False):
    futures: tuple[Future[None], ...]
    acknowledge: bytes
    generation: int
    messages: int
    octets: int
    keep: Callable[[], None] | None


class Pending:
    """A queue of passes, each done when all its futures are. Used by one thread; futures are done on any.

    Attributes:
        messages: messages in it.
        octets: bytes of their payloads.
        dropped: acknowledgements not sent because their connection is gone: the broker sends those messages again.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.messages = 0
        self.octets = 0
        self.dropped = 0
        self._wake = wake
        self._entries: deque[_Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self,
        futures: Sequence[Future[None]],
        acknowledge: bytes,
        generation: int,
        messages: int,
        octets: int,
        keep: Callable[[], None] | None = None,
    ) -> None:
        """Queue one pass, read from the connection number `generation`; `wake` is called when a future is done.

        `acknowledge` holds the packets to send then, one a message, 4 bytes each; `keep` is called before that.
        """
        self._entries.append(_Entry(tuple(futures), acknowledge, generation, messages, octets, keep))
        self.messages += messages
        self.octets += octets
        for future in futures:
            if not future.done():  # what is done already is released in the same turn
                future.add_done_callback(self._done)

    def _done(self, _future: Future[None]) -> None:
        self._wake()

    def release(self, generation: int) -> tuple[bytes, BaseException | None]:
        """Take what is done from the head of the queue.

        Args:
            generation: the number of the connection now; acknowledgements of an older one are dropped.

        Returns:
            The packets that acknowledge what is done, in order; and the journal's error if it failed on a pass of this
            connection: that pass and all that follow it stay unacknowledged.
        """
        ready: list[bytes] = []
        while self._entries and all(future.done() for future in self._entries[0].futures):
            entry = self._entries.popleft()
            self.messages -= entry.messages
            self.octets -= entry.octets
            error = next((e for future in entry.futures if (e := _error(future)) is not None), None)
            if error is None and entry.keep is not None:
                error = _try(entry.keep)
            if entry.generation != generation:
                self.dropped += len(entry.acknowledge) // ACKNOWLEDGEMENT
            elif error is not None:
                self.dropped += len(entry.acknowledge) // ACKNOWLEDGEMENT
                return b"".join(ready), error
            else:
                ready.append(entry.acknowledge)
        return b"".join(ready), None


def _try(keep: Callable[[], None]) -> Exception | None:
    try:
        keep()
    except Exception as e:  # noqa: BLE001  # whatever it is, the message must not be acknowledged
        return e
    return None


def _error(future: Future[None]) -> BaseException | None:
    return RuntimeError("the journal gave it up") if future.cancelled() else future.exception()

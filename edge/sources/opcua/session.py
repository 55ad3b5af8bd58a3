"""A session with several Publish requests outstanding, whose acknowledgements leave after the commit.

asyncua does transport, security and services; its own subscription acknowledges what nobody has stored yet, so the
publish loop is replaced. The private names of asyncua used here: `UaSession._send_request`, `_subscription_callbacks`,
`_client` (pinned to asyncua 2.1; a test holds them).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future
from typing import Any, Final, Protocol

import msgspec
import structlog
from asyncua import ua
from asyncua.client.ua_client import UaClient
from asyncua.client.ua_session import UaSession
from asyncua.common.utils import Buffer
from asyncua.ua import uaerrors

from edge.sources.opcua.transport import Answered, PublishTransport

log = structlog.get_logger()

MAX_PENDING: Final = 64


class Receipt(msgspec.Struct, frozen=True, eq=False):
    """A notification that was taken.

    Attributes:
        subscription: its id.
        sequence: its number.
        kept: done when it may be acknowledged; None if there is nothing to acknowledge.
    """

    subscription: int
    sequence: int
    kept: "Future[None] | None"


class Gaps(Protocol):
    """Who knows which notifications never came; see `receiver.Receiver`."""

    def missing(self) -> list[tuple[int, int]]:
        """(subscription, sequence number) of what is to be fetched."""
        ...

    def receive_again(self, body: bytes, subscription: int, sequence: int) -> Receipt | None:
        """Take a RepublishResponse; None if there is nothing to acknowledge."""
        ...

    def lost(self, numbers: Sequence[tuple[int, int]]) -> None:
        """The server does not have them any more."""
        ...


class Acknowledgements:
    """Which notifications are on disk and not yet acknowledged, and which are still on their way to disk.

    They outlive a session whose subscription does.
    """

    def __init__(self) -> None:
        self._ready: list[tuple[int, int]] = []
        self._done: deque[tuple[tuple[int, int], int, Future[None]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self._generation = 0
        self._pending = 0
        self.failed = 0
        self.sent = 0

    def add(self, receipt: Receipt) -> None:
        """Acknowledge `receipt` when its future is done without an error."""
        if receipt.kept is None:
            return
        self._pending += 1
        if self._pending >= MAX_PENDING:
            self._room.clear()
        number = (receipt.subscription, receipt.sequence)
        generation = self._generation

        def done(future: "Future[None]") -> None:
            # The loop is woken only if somebody waits for it: else the next Publish request looks here anyway.
            self._done.append((number, generation, future))
            if self.holding or future.cancelled() or future.exception() is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended: nothing can be acknowledged any more
                    self._loop.call_soon_threadsafe(self._collect)

        receipt.kept.add_done_callback(done)

    def forget(self) -> None:
        """The subscription is gone: what was of it is acknowledged no more."""
        self._generation += 1
        self._ready.clear()

    def _collect(self) -> None:
        """Look at what the disk has by now."""
        while self._done:
            number, generation, future = self._done.popleft()
            self._pending -= 1
            try:
                error = future.exception()
            except FutureCancelledError as e:
                error = e
            if error is None:
                if generation == self._generation:
                    self._ready.append(number)
            else:
                self.failed += 1
                log.error("opcua_not_kept", subscription=number[0], sequence=number[1], error=str(error))
        if self._pending < MAX_PENDING:
            self._room.set()

    @property
    def pending(self) -> int:
        """How many are still on their way to disk."""
        self._collect()
        return self._pending

    @property
    def holding(self) -> bool:
        """Whether so much waits for the disk that the server is asked for no more."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Wait while `holding`."""
        if self.holding:
            self._collect()  # what was done just before this began to hold has woken nobody
            await self._room.wait()

    def take(self) -> list[tuple[int, int]]:
        """What to acknowledge now; give it `back` if it could not be sent."""
        self._collect()
        taken, self._ready = self._ready, []
        self.sent += len(taken)
        return taken

    def back(self, taken: list[tuple[int, int]]) -> None:
        """`taken` was not sent."""
        self._ready[:0] = taken
        self.sent -= len(taken)


class PublishSession(UaSession):
    """asyncua's session with N publish pumps.

    Attributes:
        acknowledgements: see there.
        too_many: Publish requests that the server did not want to keep.
        lost: done with the reason when the session can publish no more.
    """

    def __init__(
        self,
        client: UaClient,
        pumps: int,
        receive: Callable[[bytes], Receipt | None],
        acknowledgements: Acknowledgements | None = None,
        gaps: Gaps | None = None,
    ) -> None:
        super().__init__(client)
        self.acknowledgements = acknowledgements or Acknowledgements()
        self.too_many = 0
        self._gaps = gaps
        self._filling = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receive = receive
        self._wanted = pumps
        self._pumps: set[asyncio.Task[Any]] = set()
        self._transport: PublishTransport | None = None
        self._taken: dict[asyncio.Future[bytes | Buffer], list[tuple[int, int]]] = {}

    def ensure_publish_loop(self) -> None:
        """Start the pumps; asyncua calls it when a subscription was created."""
        while self._subscription_callbacks and len(self._pumps) < self._wanted:
            task = asyncio.create_task(self._pump())
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    def go_on_with(self, subscription: int) -> None:
        """Publish for a subscription that an earlier session made."""
        self._subscription_callbacks[subscription] = _never_called
        self.ensure_publish_loop()

    async def close_session(self, delete_subscriptions: bool) -> None:
        """End the pumps, then the session. What is on disk by now is acknowledged first."""
        await self.acknowledge()
        await self.stop_pumps()
        await super().close_session(delete_subscriptions)

    async def acknowledge(self) -> None:
        """Send the acknowledgements of what is on disk by now; their answer is not waited for."""
        if self._pumps and not self.lost.done():
            last = asyncio.create_task(self._publish(self.acknowledgements.take()))
            self._pumps.add(last)
            await asyncio.sleep(0)  # lets it be sent

    async def stop_pumps(self) -> None:
        """End the pumps, whatever they wait for."""
        for task in self._pumps:
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._pumps.clear()

    async def first(self, within: float) -> bytes:
        """The answer to one Publish request, before the pumps run.

        Raises:
            TimeoutError, OSError, uaerrors.UaError: if none comes.
        """
        taken = self.acknowledgements.take()
        try:
            async with asyncio.timeout(within):
                return await self._publish(taken)
        except BaseException:
            self.acknowledgements.back(taken)
            raise

    async def fill(self) -> None:
        """Fetch what never came, as long as the server has it."""
        if self._gaps is None or self._filling:
            return
        self._filling = True
        try:
            lost: list[tuple[int, int]] = []
            for subscription, sequence in self._missing(self._gaps):
                request = ua.RepublishRequest()
                request.Parameters.SubscriptionId = ua.UInt32(subscription)
                request.Parameters.RetransmitSequenceNumber = ua.UInt32(sequence)
                try:
                    body = bytes(await self._send_request(request))
                except (uaerrors.BadMessageNotAvailable, uaerrors.BadSubscriptionIdInvalid):
                    lost.append((subscription, sequence))
                    continue
                receipt = self._gaps.receive_again(body, subscription, sequence)
                if receipt is not None:
                    self.acknowledgements.add(receipt)
            if lost:
                self._gaps.lost(lost)
        finally:
            self._filling = False

    @staticmethod
    def _missing(gaps: Gaps) -> Iterator[tuple[int, int]]:
        """One after the other, also what is missed meanwhile."""
        seen: set[tuple[int, int]] = set()
        while found := [number for number in gaps.missing() if number not in seen]:
            seen.add(found[0])
            yield found[0]

    def _send(self, taken: list[tuple[int, int]], answered: Answered | None = None) -> "asyncio.Future[bytes | Buffer]":
        protocol = self._client.protocol
        if protocol is None:
            raise ConnectionError("the connection is not open")
        if self._transport is None:
            self._transport = PublishTransport.on(protocol)
        return self._transport.publish(taken, answered)

    def _check(self, answer: bytes | Buffer) -> bytes:
        if isinstance(answer, Buffer):
            protocol = self._client.protocol
            if protocol is None:
                raise ConnectionError("the connection is not open")
            protocol.check_answer(answer, "")  # raises what a ServiceFault says
            answer = bytes(answer)
        return answer

    async def _publish(self, taken: list[tuple[int, int]]) -> bytes:
        return self._check(await self._send(taken))

    def _answered(self, body: bytes, future: "asyncio.Future[bytes | Buffer]") -> list[tuple[int, int]] | None:
        """Take a notification while the socket is read; see `Answered`."""
        self._taken[future] = []
        self._take(body)
        acknowledgements = self.acknowledgements
        if self.lost.done() or acknowledgements.holding or (self._gaps is not None and self._gaps.missing()):
            return None
        self._taken[future] = taken = acknowledgements.take()
        return taken

    def _take(self, body: bytes) -> None:
        try:
            receipt = self._receive(body)
        except Exception as e:  # noqa: BLE001  whatever went wrong, the supervisor must hear of it and reconnect
            self.lose(e)
            return
        if receipt is not None:
            self.acknowledgements.add(receipt)

    async def _pump(self) -> None:
        """Keep one Publish request at the server. It wakes where something is to be waited for, or is wrong."""
        while not self.lost.done():
            await self.acknowledgements.room()
            future = None
            taken = self.acknowledgements.take()
            try:
                future = self._send(taken, self._answered)
                self._taken[future] = taken
                body = self._check(await future)
            except uaerrors.BadTimeout:
                self._back(future, taken)
                continue
            except uaerrors.BadTooManyPublishRequests:
                self._back(future, taken)
                self.too_many += 1
                if self._wanted == 1:
                    await asyncio.sleep(0.1)  # another client of this session's server has them all
                    continue
                self._wanted -= 1
                return
            except (uaerrors.UaError, OSError, TimeoutError) as e:
                self._back(future, taken)
                self.lose(e)
                return
            except asyncio.CancelledError:
                self._back(future, taken)  # whether it arrived nobody knows: twice does no harm
                raise
            self._taken.pop(future)
            if body:
                self._take(body)  # it came in pieces, or encrypted
            try:
                await self.fill()
            except Exception as e:  # noqa: BLE001  as above
                self.lose(e)

    def _back(self, future: "asyncio.Future[bytes | Buffer] | None", taken: list[tuple[int, int]]) -> None:
        """What the last request of this future was to acknowledge may not have arrived."""
        self.acknowledgements.back(taken if future is None else self._taken.pop(future))

    def lose(self, reason: Exception) -> None:
        """Say that this session is over."""
        if not self.lost.done():
            self.lost.set_exception(reason)
            self.lost.exception()  # marks it as seen: nobody may be waiting any more


def _never_called(_: Any) -> None:
    """What asyncua wants for a callback; our session does not call it."""

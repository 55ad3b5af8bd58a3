"""A session with several Publish requests outstanding, whose acknowledgements leave after the commit.

asyncua does transport, security and services; its own subscription acknowledges what nobody has stored yet, so the
publish loop is replaced. The private names of asyncua used here: `UaSession._send_request`, `_subscription_callbacks`,
`_client` (pinned to asyncua 2.1; a test holds them).
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Future
from typing import Any, Final

import msgspec
import structlog
from asyncua import ua
from asyncua.client.ua_client import UaClient
from asyncua.client.ua_session import UaSession
from asyncua.ua import uaerrors

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


class Acknowledgements:
    """Which notifications are on disk and not yet acknowledged, and which are still on their way to disk."""

    def __init__(self) -> None:
        self._ready: list[tuple[int, int]] = []
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()
        self.pending = 0
        self.failed = 0
        self.sent = 0

    def add(self, receipt: Receipt) -> None:
        """Acknowledge `receipt` when its future is done without an error."""
        if receipt.kept is None:
            return
        self.pending += 1
        if self.pending >= MAX_PENDING:
            self._room.clear()
        number = (receipt.subscription, receipt.sequence)

        def done(future: "Future[None]") -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nothing can be acknowledged any more
                self._loop.call_soon_threadsafe(self._done, number, future)

        receipt.kept.add_done_callback(done)

    def _done(self, number: tuple[int, int], future: "Future[None]") -> None:
        self.pending -= 1
        if self.pending < MAX_PENDING:
            self._room.set()
        try:
            error = future.exception()
        except FutureCancelledError as e:
            error = e
        if error is None:
            self._ready.append(number)
        else:
            self.failed += 1
            log.error("opcua_not_kept", subscription=number[0], sequence=number[1], error=str(error))

    @property
    def holding(self) -> bool:
        """Whether so much waits for the disk that the server is asked for no more."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Wait while `holding`."""
        await self._room.wait()

    def take(self) -> list[tuple[int, int]]:
        """What to acknowledge now; give it `back` if it could not be sent."""
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
        lost: done with the reason when the session can publish no more.
    """

    def __init__(self, client: UaClient, pumps: int, receive: Callable[[bytes], Receipt | None]) -> None:
        super().__init__(client)
        self.acknowledgements = Acknowledgements()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receive = receive
        self._wanted = pumps
        self._pumps: set[asyncio.Task[Any]] = set()

    def ensure_publish_loop(self) -> None:
        """Start the pumps; asyncua calls it when a subscription was created."""
        while self._subscription_callbacks and len(self._pumps) < self._wanted:
            task = asyncio.create_task(self._pump())
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def close_session(self, delete_subscriptions: bool) -> None:
        """End the pumps, then the session. What is on disk by now is acknowledged first."""
        if self._pumps and not self.lost.done():
            last = asyncio.create_task(self._publish(self.acknowledgements.take()))
            self._pumps.add(last)
            await asyncio.sleep(0)  # lets it be sent; its answer is not waited for
        await self.stop_pumps()
        await super().close_session(delete_subscriptions)

    async def stop_pumps(self) -> None:
        """End the pumps, whatever they wait for."""
        for task in self._pumps:
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._pumps.clear()

    async def _publish(self, taken: list[tuple[int, int]]) -> bytes:
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = [
            ua.SubscriptionAcknowledgement(SubscriptionId=ua.UInt32(s), SequenceNumber=ua.UInt32(n)) for s, n in taken
        ]
        return bytes(await self._send_request(request, timeout=0))

    async def _pump(self) -> None:
        while True:
            await self.acknowledgements.room()
            taken = self.acknowledgements.take()
            try:
                body = await self._publish(taken)
            except uaerrors.BadTimeout:
                self.acknowledgements.back(taken)
                continue
            except uaerrors.BadTooManyPublishRequests:
                self.acknowledgements.back(taken)
                if self._wanted == 1:
                    await asyncio.sleep(0.1)  # another client of this session's server has them all
                    continue
                self._wanted -= 1
                return
            except (uaerrors.UaError, OSError, TimeoutError) as e:
                self.acknowledgements.back(taken)
                self.lose(e)
                return
            try:
                receipt = self._receive(body)
            except Exception as e:  # noqa: BLE001  whatever went wrong, the supervisor must hear of it and reconnect
                self.lose(e)
                return
            if receipt is not None:
                self.acknowledgements.add(receipt)

    def lose(self, reason: Exception) -> None:
        """Say that this session is over."""
        if not self.lost.done():
            self.lost.set_exception(reason)
            self.lost.exception()  # marks it as seen: nobody may be waiting any more

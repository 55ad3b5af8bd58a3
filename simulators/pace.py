"""Simulated time against the clock: a speed that can change while it runs, and a pause."""

import asyncio
import math
import time


class Pace:
    """How fast simulated time passes, from now on.

    Args:
        speed: simulated seconds a second; infinite for as fast as machines can.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self._speed = speed
        self._paused = False
        self._done = 0.0  # simulated ns until `_since`
        self._since = time.monotonic_ns()
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def speed(self) -> float:
        """Simulated seconds a second."""
        return self._speed

    @property
    def paused(self) -> bool:
        """Whether time stands still."""
        return self._paused

    def elapsed(self) -> float:
        """Simulated ns since the beginning; infinite at infinite speed."""
        if self._paused:
            return self._done
        return self._done + (time.monotonic_ns() - self._since) * self._speed

    def set_speed(self, speed: float, reached: float = 0.0) -> None:
        """Change the speed.

        Args:
            speed: simulated seconds a second.
            reached: simulated ns that machines have come to, for when they ran without a pace.

        Raises:
            ValueError: if it is not above 0.
        """
        if not speed > 0:
            raise ValueError("the speed must be above 0")
        self._rebase(reached)
        self._speed = speed

    def pause(self, reached: float = 0.0) -> None:
        """Let time stand still."""
        self._rebase(reached)
        self._paused = True

    def resume(self) -> None:
        """Let time go on."""
        self._rebase(0.0)
        self._paused = False

    def _rebase(self, reached: float) -> None:
        now = self.elapsed()
        self._done = now if math.isfinite(now) else reached
        self._since = time.monotonic_ns()
        self.wake()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        for future in self._waiting:
            _resolve(future)

    async def until(self, due: float, end: asyncio.Event) -> bool:
        """Wait until `due` simulated ns have passed; False if `end` was set meanwhile, and `wake` called after it."""
        while not end.is_set():
            if self._paused:
                await self._wait(None)
                continue
            if math.isinf(self._speed):
                await asyncio.sleep(0)
                return True
            ahead = (due - self.elapsed()) / self._speed / 1e9
            if ahead <= 0:
                return True
            await self._wait(ahead)
        return False

    async def _wait(self, seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, _resolve, future)
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)
            if timer:
                timer.cancel()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)

"""Serves a server for ever: what fails is tried again, after a capped and jittered pause."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

FIRST_DELAY, LONGEST_DELAY = 0.5, 10.0  # seconds


async def serve_for_ever(
    stop: asyncio.Event,
    serve: Callable[[], Coroutine[Any, Any, None]],
    connected: Callable[[], bool],
    lost: Callable[[BaseException | None], None],
) -> None:
    """Call `serve` until `stop` is set.

    Args:
        stop: ends it, also in the middle of a `serve`, which is cancelled.
        serve: connects and reads until something goes wrong, which is raised.
        connected: whether the last `serve` came so far: the pauses then begin anew.
        lost: told what went wrong.
    """
    stopping = asyncio.create_task(stop.wait())
    failures = 0
    try:
        while not stop.is_set():
            serving = asyncio.create_task(serve())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving
                return
            failures = 1 if connected() else failures + 1
            lost(serving.exception())
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures - 1, 10))
            with contextlib.suppress(TimeoutError):
                # Jitter, so that a hundred agents do not come back at once.
                await asyncio.wait_for(stop.wait(), delay * random.uniform(0.5, 1.0))  # noqa: S311  no secret
    finally:
        stopping.cancel()

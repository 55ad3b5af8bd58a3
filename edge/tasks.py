"""Tasks that an agent keeps: watched while they run, and ended in order."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

log = structlog.get_logger()

Task = asyncio.Task[None]


class Watched:
    """Tasks that never end by themselves. An error in one of them is the end of the agent.

    Attributes:
        failed: done when one has failed; then it raises that error.
    """

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, work: Coroutine[Any, Any, None]) -> Task:
        """Start a task and watch it."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._look)
        return task

    def _look(self, task: Task) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)


async def every(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `work`, pause, and again, for ever."""
    while True:
        await work()
        await asyncio.sleep(seconds)


async def settle(tasks: Sequence[Task], seconds: float) -> None:
    """Wait for tasks to end by themselves, then cancel what is left; their errors are logged."""
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
    await cancel(tasks)


async def cancel(tasks: Sequence[Task]) -> None:
    """End tasks now; their errors are logged."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        try:
            await task
        except asyncio.CancelledError:
            pass
        except Exception:
            log.exception("task_failed_at_stop")

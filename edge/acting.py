"""Actions while they run: begun anew when a reload changes them, or a source that they use."""

import asyncio
from collections.abc import Collection, Sequence
from typing import cast

from edge.actions.command import Commandable
from edge.actions.config import BoundAction
from edge.actions.runner import Actions
from edge.running_source import RunningSource
from edge.tasks import Task, settle
from ingest.forwarder import ConsumerStatus
from ingest.journal import Journal


class RunningActions:
    """The consumer that acts on machines; none unless it is configured.

    Args:
        journal: where it reads, and where the audit goes.
        actions: what to do.
        sources: all of them, by index.
        outcomes: outcome → how often, of those before.
    """

    def __init__(
        self,
        journal: Journal,
        actions: Sequence[BoundAction],
        sources: Sequence[RunningSource],
        outcomes: dict[str, int] | None = None,
    ) -> None:
        self._bound = tuple(actions)
        able = {a.source: cast("Commandable", sources[a.source].source) for a in actions}
        self._actions = Actions(journal, actions, able) if actions else None
        self._before = outcomes or {}
        self._end = asyncio.Event()
        self._tasks: list[Task] = []

    @property
    def outcomes(self) -> dict[str, int]:
        """Outcome → how often, since the agent started."""
        found = dict(self._before)
        for outcome, count in (self._actions.outcomes if self._actions else {}).items():
            found[outcome] = found.get(outcome, 0) + count
        return found

    def touched(self, actions: Sequence[BoundAction], sources: Collection[int]) -> bool:
        """Whether other `actions`, or new sources at these indices, mean to begin anew."""
        return tuple(actions) != self._bound or any(action.source in sources for action in self._bound)

    def status(self) -> list[ConsumerStatus]:
        """How it is doing; nothing if there are no actions."""
        return [self._actions.status()] if self._actions else []

    def wake(self) -> None:
        """Say that the journal has more; to be called in the event loop."""
        if self._actions:
            self._actions.wake()

    def start(self) -> None:
        """Begin to act."""
        if self._actions:
            self._tasks = [asyncio.create_task(self._actions.run(self._end))]

    async def stop(self, seconds: float) -> None:
        """End what was begun, and begin nothing."""
        self._end.set()
        await settle(self._tasks, seconds)

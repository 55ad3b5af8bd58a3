"""A source while it runs: supervised, and stopped by itself without the others."""

import asyncio
import contextlib

import structlog

from edge.catalog import Catalog
from edge.config import AgentConfig, in_file
from edge.intake import Intake
from edge.reload import Fingerprint, source_fingerprint
from edge.sources import load_kind
from edge.sources.base import Source
from edge.tasks import settle
from fieldlab.errors import ConfigError
from ingest.gaps import Gaps
from ingest.journal import Journal

log = structlog.get_logger()

_RESTART_PAUSE = 5.0


class RunningSource:
    """One `[[source]]`.

    Args:
        config: the whole configuration.
        index: which of its sources.
        journal: where its readings go.
        catalog: what is known of signals.
        gaps: where gaps are kept.

    Attributes:
        name: the source's name.
        source: the source itself.
        intake: its sink.
        fingerprint: what it was made from.

    Raises:
        ConfigError: if its table makes no sense as a whole.
    """

    def __init__(self, config: AgentConfig, index: int, journal: Journal, catalog: Catalog, gaps: Gaps) -> None:
        configured, context = config.sources[index], config.source_context(index)
        self.fingerprint: Fingerprint = source_fingerprint(config, index)
        self.name = context.name
        self.intake = Intake(context.name, journal, catalog, gaps)
        try:
            self.source: Source = load_kind(configured.kind).create(configured.config, context, self.intake)
        except ConfigError as e:
            raise in_file(config, e, configured) from e
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read, unless it does."""
        self._task = self._task or asyncio.create_task(self._supervise())

    async def stop(self, seconds: float) -> None:
        """End; its session stays at the server or broker."""
        self._stop.set()
        if self._task is not None:
            await settle([self._task], seconds)

    async def _supervise(self) -> None:
        """A source that breaks is started again; it never stops the others."""
        while not self._stop.is_set():
            try:
                await self.source.run(self._stop)
            except Exception:
                log.exception("source_broke", source=self.name, restart_in=_RESTART_PAUSE)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _RESTART_PAUSE)

"""A store while it runs: its two lanes, and the thread that they share."""

import asyncio

import structlog

from edge.config import AgentConfig, in_file
from edge.reload import Fingerprint, store_fingerprint
from edge.tasks import Task, Watched, settle
from fieldlab.errors import ConfigError, RefusedError
from ingest.forwarder import Forwarder
from ingest.gaps import Gaps
from ingest.journal import Journal
from ingest.stores import load_kind
from ingest.stores.base import StoreError
from ingest.worker import Worker

log = structlog.get_logger()

_CLOSE = 3.0  # seconds for a store to be closed


class RunningStore:
    """One `[[store]]`. To be made in any thread: a new one reads the journal from its oldest record.

    Args:
        config: the whole configuration.
        index: which of its stores.
        journal: where it reads.
        gaps: where it notes what was refused or dropped.

    Attributes:
        name: the store's name.
        store: the store itself.
        reader: answers queries; None if this kind cannot.
        lanes: live readings and everything else; and back-fill.
        fingerprint: what it was made from.

    Raises:
        ConfigError: if its table makes no sense as a whole.
        RefusedError: if it cannot be opened.
    """

    def __init__(self, config: AgentConfig, index: int, journal: Journal, gaps: Gaps) -> None:
        configured = config.stores[index]
        self.fingerprint: Fingerprint = store_fingerprint(config, index)
        try:
            self.store, self.reader = load_kind(configured.kind).create(
                configured.config, config.store_context(index), journal.signals
            )
        except ConfigError as e:
            raise in_file(config, e, configured) from e
        except StoreError as e:
            raise RefusedError(str(e)) from e
        self.name = self.store.name
        drop = getattr(configured.config, "when_full", "hold") == "drop-oldest"
        self._thread = Worker(f"store-{self.name}")
        self.lanes = (
            Forwarder(journal, self.store, self._thread, drop_oldest=drop, gaps=gaps),
            Forwarder(journal, self.store, self._thread, backfill=True, drop_oldest=drop, gaps=gaps),
        )
        self._drain = asyncio.Event()
        self.tasks: list[Task] = []

    def start(self, watched: Watched) -> None:
        """Begin to forward, unless it does."""
        self.tasks = self.tasks or [watched.start(lane.run(self._drain)) for lane in self.lanes]

    def drain(self) -> None:
        """Have its lanes end when nothing is left, or when the store takes nothing."""
        self._drain.set()
        for lane in self.lanes:
            lane.wake()

    async def stop(self, seconds: float) -> None:
        """End its lanes and close it; the cursors stay where they are."""
        self.drain()
        await settle(self.tasks, seconds)
        await self.close()

    async def close(self) -> None:
        """Close it behind its last write; one that hangs is left, as the journal still has what it was given."""
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._thread.submit(self.store.close)), _CLOSE)
        except TimeoutError:
            log.warning("store_not_closed", store=self.name, reason="its last write does not end")
        except Exception:  # the journal still wants to be closed
            log.exception("store_not_closed", store=self.name)
        self._thread.shutdown(wait=False)

"""From one configuration to another while the agent runs: what did not change is not touched."""

import asyncio
from collections.abc import Mapping

import structlog

from edge.catalog import Catalog
from edge.config import AgentConfig
from edge.reload import source_fingerprint, store_fingerprint
from edge.running_source import RunningSource
from edge.running_store import RunningStore
from fieldlab.errors import FieldlabError, RefusedError
from ingest.gaps import Gaps
from ingest.journal import Journal

log = structlog.get_logger()

_STOP = 10.0  # seconds for a source, and for a store


class Switch:
    """One change of configuration. A source or store is known by its name, as its session and its cursor are.

    Args:
        old: what runs.
        new: what is to run.
        journal: untouched, but for the cursors of new stores.
        catalog: what is known of signals.
        gaps: where gaps are kept.

    Attributes:
        new: as above.
    """

    def __init__(self, old: AgentConfig, new: AgentConfig, journal: Journal, catalog: Catalog, gaps: Gaps) -> None:
        self.new = new
        self._old = old
        self._journal = journal
        self._catalog = catalog
        self._gaps = gaps
        self._sources = {new.source_context(i).name: i for i in range(len(new.sources))}
        self._stores = {new.store_context(i).name: i for i in range(len(new.stores))}

    def leaving(self, sources: list[RunningSource]) -> set[int]:
        """The indices of running sources that end, or begin anew."""
        return {i for i, running in enumerate(sources) if not self._stays_source(running)}

    async def make(self, sources: list[RunningSource], stores: list[RunningStore]) -> None:
        """Put into both lists what is to run, in order; what is new in them is yet to be started.

        Raises:
            FieldlabError: if something new cannot be made: then they hold what ran before, some yet to be started.
        """
        ran_sources = {running.name: running for running in sources}
        ran_stores = {running.name: running for running in stores}
        going_sources = [running for running in sources if not self._stays_source(running)]
        going_stores = [running for running in stores if not self._stays_store(running)]
        made_sources = {r.name: r for r in sources if r not in going_sources}
        made_stores = {r.name: r for r in stores if r not in going_stores}
        stopped = False
        try:
            # What has a name of its own first: most mistakes show here, before anything was stopped.
            await self._create(self.new, made_sources, made_stores, besides=({*ran_sources}, {*ran_stores}))
            stopped = True
            await asyncio.gather(*(running.stop(_STOP) for running in going_sources))
            await asyncio.gather(*(running.stop(_STOP) for running in going_stores))
            await self._create(self.new, made_sources, made_stores)
        except Exception as e:
            for running in made_stores.values():
                if running not in ran_stores.values():
                    await running.close()
            fresh = [lane.name for name, r in made_stores.items() if name not in ran_stores for lane in r.lanes]
            await asyncio.to_thread(self._journal.retire, fresh)
            if stopped:
                await self._restore(sources, stores, going_sources, going_stores)
            if isinstance(e, FieldlabError):
                raise
            log.exception("configuration_not_applied", file=str(self.new.file))
            raise RefusedError(f"{self.new.file} cannot be applied: {e!r}; report it") from e
        for name, source in ran_sources.items():
            if name not in made_sources:
                log.info("source_removed", source=name, url=source.source.status().url)
        sources[:] = [made_sources[name] for name in self._sources]
        stores[:] = [made_stores[name] for name in self._stores]

    async def _create(
        self,
        config: AgentConfig,
        sources: dict[str, RunningSource],
        stores: dict[str, RunningStore],
        besides: tuple[set[str], set[str]] = (set(), set()),
    ) -> None:
        """Make what is not there yet."""
        for name, index in self._missing(self._stores, stores, besides[1]):
            stores[name] = await asyncio.to_thread(RunningStore, config, index, self._journal, self._gaps)
        for name, index in self._missing(self._sources, sources, besides[0]):
            sources[name] = RunningSource(config, index, self._journal, self._catalog, self._gaps)

    @staticmethod
    def _missing(wanted: Mapping[str, int], made: Mapping[str, object], besides: set[str]) -> list[tuple[str, int]]:
        return [(name, index) for name, index in wanted.items() if name not in made and name not in besides]

    async def _restore(
        self,
        sources: list[RunningSource],
        stores: list[RunningStore],
        going_sources: list[RunningSource],
        going_stores: list[RunningStore],
    ) -> None:
        """Make again, from the old configuration, what was stopped for nothing."""
        try:
            for index, store in enumerate(stores):
                if store in going_stores:
                    stores[index] = await asyncio.to_thread(RunningStore, self._old, index, self._journal, self._gaps)
            for index, source in enumerate(sources):
                if source in going_sources:
                    sources[index] = RunningSource(self._old, index, self._journal, self._catalog, self._gaps)
        except FieldlabError as e:  # worse than a bad file: the agent cannot go on whole, so it does not go on
            raise RuntimeError(f"what ran before cannot be started again: {e}") from e

    def _stays_source(self, running: RunningSource) -> bool:
        index = self._sources.get(running.name)
        return index is not None and source_fingerprint(self.new, index) == running.fingerprint

    def _stays_store(self, running: RunningStore) -> bool:
        index = self._stores.get(running.name)
        return index is not None and store_fingerprint(self.new, index) == running.fingerprint

"""The store of an agent that does not run: what reports read then."""

import contextlib
from collections.abc import Iterator

from edge.config import AgentConfig
from fieldlab.errors import FieldlabError, RefusedError
from fieldlab.model import SignalTable
from ingest.stores import load_kind
from ingest.stores.base import Reader, StoreError


@contextlib.contextmanager
def stored(config: AgentConfig) -> Iterator[Reader]:
    """The first store of a configuration that can be queried. Only while no agent runs: none opens a live store.

    Raises:
        RefusedError: if no agent has run yet, no store can be queried, or it does not answer.
    """
    if not (config.agent.data / "journal.db").exists():
        raise RefusedError(f"there is no journal in {config.agent.data}: no agent has run on it yet")
    with contextlib.ExitStack() as stack:
        for i, configured in enumerate(config.stores):
            context = config.store_context(i)
            try:
                store, reader = load_kind(configured.kind).create(configured.config, context, SignalTable())
            except (StoreError, FieldlabError) as e:
                raise RefusedError(f"the store {context.name} cannot be opened: {e}") from e
            stack.callback(store.close)
            if reader is not None:
                try:
                    yield reader
                except StoreError as e:
                    raise RefusedError(f"the store {context.name} does not answer: {e}") from e
                return
        raise RefusedError("no store of this agent can be queried: give it an embedded or an influxdb one")

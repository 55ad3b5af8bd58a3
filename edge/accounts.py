"""The ledger's report: of a running agent, over its Unix socket alone; or of its files, while none runs."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from edge.config import AgentConfig
from fieldlab.errors import FieldlabError, RefusedError
from fieldlab.model import Guarantee, RecordKind
from ingest.forwarder import Takes
from ingest.gaps import Gaps
from ingest.journal import Journal
from ingest.ledger import Ledger, loss
from ingest.report import Count, gap_row, not_closed, report
from ingest.stores import load_kind
from ingest.stores.base import Choosy, Reader, Store, StoreError

_NEWEST = 100  # gaps in `status`


def routes(
    journal: Journal, gaps: Gaps, stores: Callable[[], Sequence[Store]], agent: str, reader: Callable[[], Reader | None]
) -> Sequence[BaseRoute]:
    """`GET /ledger?since=NS`. One is made at a time: it reads all that waits for the stores.

    `stores` and `reader` give those that there are at the time.
    """
    one = asyncio.Lock()

    async def answer(request: Request) -> Response:
        if request.scope["server"][1] is not None:
            return PlainTextResponse("only over the agent's Unix socket\n", 403)
        try:
            since = int(request.query_params.get("since", 0))
        except ValueError as e:
            return PlainTextResponse(f"{e}\n", 400)
        async with one:
            count = None if (found := reader()) is None else found.counts
            made = await asyncio.to_thread(
                report, journal, gaps, _names(stores()), agent, since=since, count=count, takes=_takes(stores())
            )
        return Response(msgspec.json.encode(made), media_type="application/json")

    return [Route("/ledger", answer)]


def overview(journal: Journal, gaps: Gaps, ledger: Ledger) -> dict[str, Any]:
    """The ledger's part of `status`: each store, each signal, the losses by guarantee in words, and the newest gaps."""
    guarantees = gaps.guarantees()
    unclosed = not_closed(journal, gaps)
    signals = ledger.signals()
    losses: dict[Guarantee, list[int]] = {}  # signals, readings lost, gaps not closed
    for row in signals:
        index = int(row.pop("index"))
        guarantee = guarantees.get(index, "end-to-end")
        number = unclosed.get(index, (0, 0.0))[0]
        lost = int(row["overflow"]) + int(row["dropped"])
        row |= {"guarantee": guarantee, "loss": loss(guarantee, lost, number), "gaps_not_closed": number}
        sums = losses.setdefault(guarantee, [0, 0, 0])
        for i, more in enumerate((1, lost, number)):
            sums[i] += more
    return {
        "ledger_signals": signals,
        "ledger_losses": [
            {"guarantee": g, "signals": n, "lost": lost, "gaps_not_closed": number, "loss": loss(g, lost, number)}
            for g, (n, lost, number) in sorted(losses.items())
        ],
        "ledger_stores": ledger.stores(),
        "gaps": {
            "by_cause": gaps.counts(),
            "newest": [gap_row(gap) for gap in reversed(gaps.newest(_NEWEST))],
        },
    }


def without_agent(config: AgentConfig, since: int) -> dict[str, Any]:
    """The same, from the files of an agent that does not run.

    Raises:
        RefusedError: if there is no journal yet.
        FieldlabError: if it cannot be opened, or an agent has just started on it.
    """
    path = config.agent.data / "journal.db"
    if not path.exists():
        raise RefusedError(f"there is no journal in {config.agent.data}: no agent has run on it yet")
    with contextlib.ExitStack() as stack:
        journal = Journal(path, max_bytes=int(config.agent.journal_max), max_series=config.agent.max_series)
        stack.callback(journal.close)
        stores: list[Store] = []
        count: Count | None = None
        for i, configured in enumerate(config.stores):
            try:
                store, reader = load_kind(configured.kind).create(
                    configured.config, config.store_context(i), journal.signals
                )
            except (StoreError, FieldlabError) as e:
                raise RefusedError(f"the store {config.store_context(i).name} cannot be opened: {e}") from e
            stack.callback(store.close)
            stores.append(store)
            count = count or (None if reader is None else reader.counts)
        return report(
            journal,
            Gaps(journal, config.agent.name),
            _names(stores),
            config.agent.name,
            since=since,
            count=count,
            takes=_takes(stores),
        )


def _names(stores: Sequence[Store]) -> list[str]:
    return [store.name for store in stores if RecordKind.READINGS in store.kinds]


def _takes(stores: Sequence[Store]) -> dict[str, Takes]:
    return {store.name: store.takes for store in stores if isinstance(store, Choosy)}

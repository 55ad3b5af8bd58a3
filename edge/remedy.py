"""What a person can do to a running agent's dead letters, over its Unix socket alone."""

import asyncio
from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from edge.sources.base import Resending
from ingest.deadletter import DeadLetters, Listed
from ingest.forwarder import Forwarder
from ingest.stores.base import StoreError


class Outcome(msgspec.Struct, kw_only=True):
    """What became of dead letters: sent again, dropped, refused once more, and those that cannot be sent, with why."""

    replayed: int = 0
    dropped: int = 0
    refused: int = 0
    kept: dict[str, str] = {}


async def replay(
    letters: DeadLetters, chosen: Sequence[Listed], forwarders: Sequence[Forwarder], sources: Sequence[Resending] = ()
) -> Outcome:
    """Send letters to their stores again. What a store refuses once more is a new letter, with the new reason.

    What a source has set aside is kept after all, where it can.
    """
    outcome = Outcome()
    by_name = {forwarder.name: forwarder for forwarder in forwarders}
    for listed in chosen:
        forwarder = by_name.get(listed.store)
        source = next((one for one in sources if one.name == listed.store), None)
        if source is not None:
            try:
                await asyncio.wrap_future(source.resend(letters.letter(listed)))
            except (ValueError, KeyError) as e:
                outcome.kept[str(listed.id)] = str(e)
                continue
            await asyncio.wrap_future(letters.remove([listed.id]))
            outcome.replayed += listed.readings
            continue
        if forwarder is None:
            outcome.kept[str(listed.id)] = f"{listed.store} is no store of this agent"
            continue
        try:
            left = await forwarder.resend(letters.letter(listed), letters.removal(listed.id))
        except (StoreError, KeyError) as e:
            outcome.kept[str(listed.id)] = str(e)
            continue
        if left is None:
            outcome.kept[str(listed.id)] = f"{listed.store} cannot take letters again"
            continue
        outcome.refused += sum(again.readings for again in left)
        outcome.replayed += listed.readings - sum(again.readings for again in left)
    return outcome


def routes(letters: DeadLetters, forwarders: Sequence[Forwarder], sources: Sequence[Resending] = ()) -> list[BaseRoute]:
    """`GET /deadletters`, `POST /deadletters/replay`, `POST /deadletters/drop`; parameters `store` and `id`."""
    one_at_a_time = asyncio.Lock()

    def chosen(request: Request) -> list[Listed]:
        ids = [int(number) for number in request.query_params.getlist("id")]
        return letters.list(store=request.query_params.get("store", ""), ids=ids)

    async def answer(request: Request) -> Response:
        if request.scope["server"][1] is not None:
            return PlainTextResponse("only over the agent's Unix socket\n", 403)
        action = request.path_params.get("action", "list")
        if action not in ("list", "drop", "replay"):
            return PlainTextResponse(f"no such action: {action}\n", 404)
        try:
            found = await asyncio.to_thread(chosen, request)
        except ValueError as e:
            return PlainTextResponse(f"{e}\n", 400)
        if action == "list":
            return _json({"deadletters": found})
        if action == "drop":
            await asyncio.wrap_future(letters.remove([listed.id for listed in found]))
            return _json(Outcome(dropped=sum(listed.readings for listed in found)))
        async with one_at_a_time:
            return _json(await replay(letters, found, forwarders, sources))

    return [
        Route("/deadletters", answer),
        Route("/deadletters/{action}", answer, methods=["POST"]),
    ]


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")

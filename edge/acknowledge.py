"""What people say of findings: journal records that the analytics folds, so that a replay knows them as well."""

import asyncio
import time
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from fieldlab.model import Control
from ingest.journal import Journal, JournalClosedError

PATH = "/api/acknowledge"
MOST_BYTES = 4_096  # of a request
MOST_WORDS = 500  # characters of a comment
MOST_DONE = 80
Cause = Literal[
    "tool", "material", "setting", "machine", "sensor", "measurement", "maintenance", "unknown", "false alarm"
]


class Word(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request.

    Attributes:
        id: the finding, 16 hexadecimal digits.
        by: who says it.
        cause: a cause code.
        comment: in own words.
        done: what was done of a proposal, such as `offset by -0.02`: the finding then tells what it did.
        action: `acknowledge`: seen, and the cause known; `shelve`: do not show for now.
    """

    id: str
    by: str
    cause: Cause
    comment: str = ""
    done: str = ""
    action: Literal["acknowledge", "shelve"] = "acknowledge"


def route(journal: Journal) -> BaseRoute:
    """`POST /api/acknowledge` with a `Word` as JSON: 202 once it is on disk."""

    async def take(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                return PlainTextResponse(f"at most {MOST_BYTES} bytes\n", 413)
        try:
            control = control_of(bytes(body), time.time_ns())
        except ValueError as e:
            return PlainTextResponse(f"{e}\n", 400)
        try:
            await asyncio.wrap_future(journal.write([control]))
        except JournalClosedError as e:
            return PlainTextResponse(f"{e}\n", 503)
        return PlainTextResponse("on disk\n", 202)

    return Route(PATH, take, methods=["POST"])


def control_of(body: bytes, now: int) -> Control:
    """The journal record of a request.

    Raises:
        ValueError: if it is no `Word`, or one that says nothing: the words are for whoever sent it.
    """
    try:
        word = msgspec.json.decode(body, type=Word)
    except msgspec.MsgspecError as e:
        msg = f"not a word on a finding: {e}"
        raise ValueError(msg) from None
    by, comment, done = _line(word.by), _line(word.comment), _line(word.done)
    if not 1 <= len(by) <= 80:
        msg = "say who you are, in at most 80 characters"
        raise ValueError(msg)
    if len(comment) > MOST_WORDS:
        msg = f"a comment has at most {MOST_WORDS} characters"
        raise ValueError(msg)
    if len(done) > MOST_DONE:
        msg = f"what was done has at most {MOST_DONE} characters"
        raise ValueError(msg)
    if len(word.id) != 16 or set(word.id) - set("0123456789abcdef"):
        msg = "a finding's id has 16 hexadecimal digits"
        raise ValueError(msg)
    cause = f"{word.cause}: {comment}" if comment else word.cause
    detail = {"id": word.id, "cause": cause} | ({"done": done} if done else {})
    return Control(time=now, action=word.action, by=by, detail=detail)


def _line(text: str) -> str:
    """One line without control characters, as boards and line protocol show it."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
